"""Synthetic scenes for motion magnification: textured pieces that move a little over a textured ground.

Each scene is what Oh et al. (2018, section 3.4) describe: picture a, picture b in which the pieces have
moved, y in which they have moved `factor` times as far, and b and y once more in other colours. Where they
took photographs, textures here are drawn, as noise of several scales, so nothing has to be fetched.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

MOST_MOTION_PX = 10.0
"""Between a and b."""
MOST_MAGNIFIED_PX = 30.0
"""Between a and y (both as in Oh et al.)."""
MOST_FACTOR = 20.0
MOST_NOISE = 0.01
"""Standard deviation, of a range of 1."""
PIECES = 6
OVERSAMPLING = 2
"""Scenes are drawn larger and reduced: then motion below a pixel is exact, and edges are smooth."""


def _texture(rng: np.random.Generator, size: int) -> F32:
    """(size, size, 3) 0..1: noise of four scales around a colour, often partly grey."""
    colour = rng.uniform(0.15, 0.85, 3)
    image = np.broadcast_to(colour, (size, size, 3)).astype(np.float32)
    grey = float(rng.uniform(0.0, 1.0))
    for cells in (4, 12, 32, size // 2):
        coarse = rng.normal(0.0, rng.uniform(0.01, 0.12), (cells, cells, 3)).astype(np.float32)
        coarse = grey * coarse.mean(2, keepdims=True) * 1.7 + (1 - grey) * coarse
        image = image + cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return image.astype(np.float32)


def _mask(rng: np.random.Generator, size: int) -> F32:
    """(size, size) 0..1: a blob somewhere, some with soft edges as skin has."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = (
        rng.uniform(0.08, 0.3) * size * (1 + 0.35 * np.sin(angles * rng.integers(1, 5) + rng.uniform(0, 6)))
    )
    centre = rng.uniform(0.1, 0.9, 2) * size
    outline = centre + radius[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    mask = np.zeros((size, size), np.float32)
    cv2.fillPoly(mask, [outline.round().astype(np.int32)], 1.0)
    soft = float(rng.choice([1.0, 0.03 * size, 0.1 * size]))
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), soft), np.float32)


def _moved(layer: F32, shift: NDArray[np.float64]) -> F32:
    matrix = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])
    size = (layer.shape[1], layer.shape[0])
    return np.asarray(cv2.warpAffine(layer, matrix, size, borderMode=cv2.BORDER_REFLECT_101), np.float32)


def draw_scene(
    rng: np.random.Generator,
    size: int,
    factor: float = 0.0,
    most_motion_px: float = MOST_MOTION_PX,
    most_noise: float = MOST_NOISE,
) -> dict[str, F32]:
    """One scene: a, b, y, b_colour, y_colour (3, size, size) float32 in -1..1; factor () float32.

    factor: 0 = drawn. most_motion_px: between a and b. most_noise: of all but y.
    """
    factor = factor or float(np.exp(rng.uniform(np.log(1.5), np.log(MOST_FACTOR))))
    large = size * OVERSAMPLING
    most = min(most_motion_px, MOST_MAGNIFIED_PX / factor) * OVERSAMPLING
    layers = [(_texture(rng, large), np.ones((large, large), np.float32))]
    layers += [(_texture(rng, large), _mask(rng, large)) for _ in range(int(rng.integers(1, PIECES + 1)))]
    shifts = []
    for number in range(len(layers)):
        angle = rng.uniform(0, 2 * np.pi)
        # Many small motions: what is to be magnified is mostly below a pixel.
        length = most * rng.uniform() ** 3 * (0.3 if number == 0 else 1.0)
        shifts.append(length * np.array([np.cos(angle), np.sin(angle)]))

    def picture(part: float) -> F32:
        image = np.zeros((large, large, 3), np.float32)
        for (texture, mask), shift in zip(layers, shifts, strict=True):
            moved = _moved(np.dstack([texture, mask]), part * shift)
            image += moved[..., 3:] * (moved[..., :3] - image)
        small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
        return np.clip(small, 0.0, 1.0).astype(np.float32)

    gain, bend = rng.uniform(0.7, 1.2, 3).astype(np.float32), float(rng.uniform(0.7, 1.4))
    noise = float(rng.uniform(0.0, most_noise))

    def finished(image: F32, noisy: bool) -> F32:
        if noisy:
            image = image + rng.normal(0.0, noise, image.shape).astype(np.float32)
        return np.ascontiguousarray(2.0 * np.clip(image, 0, 1).transpose(2, 0, 1) - 1.0, np.float32)

    def recoloured(image: F32) -> F32:
        return (gain * image**bend).astype(np.float32)

    a, b, y = picture(0.0), picture(1.0), picture(factor)
    return {
        "a": finished(a, True),
        "b": finished(b, True),
        "y": finished(y, False),
        "b_colour": finished(recoloured(b), True),
        "y_colour": finished(recoloured(y), True),
        "factor": np.array(factor, np.float32),
    }


def draw_batch(rng: np.random.Generator, count: int, size: int) -> dict[str, F32]:
    """`count` scenes stacked: (count, 3, size, size), factor (count,)."""
    scenes = [draw_scene(rng, size) for _ in range(count)]
    return {name: np.stack([scene[name] for scene in scenes]) for name in scenes[0]}
