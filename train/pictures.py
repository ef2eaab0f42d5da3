"""Augmentation of the pictures that ResNet18 is trained on.

As the paper lists it (section IV-A): rotation, noise, random crops, horizontal flips, colour jitter. How much
of each it does not say; these amounts are ours.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ROTATION = 10.0
"""Degrees, at most."""
CROP = 0.15
"""Part of the side by which the crop is smaller than the picture or shifted, at most."""
JITTER = 0.2
"""Of brightness and contrast, relative, at most."""
NOISE = 0.02
"""Standard deviation, of a range of 1."""


def to_input(pictures: Tensor) -> Tensor:
    """(B, 3, S, S) uint8 -> float32, about -1..1."""
    return pictures.float() / 127.5 - 1.0


def augmented(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Network inputs from (B, 3, S, S) uint8, each rotated, cropped, flipped, with other light and noise.

    All three channels of a picture alike but for the noise: in ResNet18 (ST) they are three moments. What is
    drawn depends on `rng` alone, not on the device.
    """
    count, side = len(pictures), pictures.shape[-1]
    angle = np.radians(rng.uniform(-ROTATION, ROTATION, count))
    scale = 1.0 - rng.uniform(0.0, CROP, count)
    flip = rng.choice([-1.0, 1.0], count)
    shift = rng.uniform(-CROP, CROP, (count, 2))
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    rows = ((flip * cosine, -sine, shift[:, 0]), (flip * sine, cosine, shift[:, 1]))
    matrix = np.stack([np.stack(row, -1) for row in rows], 1).astype(np.float32)
    contrast = 1.0 + rng.uniform(-JITTER, JITTER, (count, 1, 1, 1)).astype(np.float32)
    brightness = rng.uniform(-JITTER, JITTER, (count, 1, 1, 1)).astype(np.float32)
    noise = NOISE * rng.standard_normal((count, 3, side, side), np.float32)

    device = pictures.device
    grid = F.affine_grid(torch.from_numpy(matrix).to(device), [count, 3, side, side], align_corners=False)
    x = F.grid_sample(to_input(pictures), grid, padding_mode="border", align_corners=False)
    light, shade = torch.from_numpy(contrast).to(device), torch.from_numpy(brightness).to(device)
    return x * light + shade + 2.0 * torch.from_numpy(noise).to(device)
