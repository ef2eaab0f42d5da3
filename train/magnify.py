"""Learning-based motion magnification of pictures (Oh et al., ECCV 2018): what the paper applies before
landmarks are found.

    python -m train magnifier --out out/magnifier   # trains on synthetic moving composites
    python -m train landmarks ... --landmarks.frames key --landmarks.magnifier FILE

The default of this project is another: displacements are multiplied in landmark space
(`streamer.graph.FeatureSpec`), which costs nothing and invents no texture. This is here to follow the paper.

Network: a picture is encoded into a texture and a shape representation; what differs between the shapes of
two pictures is amplified, and texture and shape are decoded into a picture (Oh et al., sections 3.1, 3.2).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from streamer.errors import OutputError, UsageError
from streamer.fetching import write_whole
from streamer.messages import U8
from train.composites import draw_batch, draw_scene

log = logging.getLogger(__name__)

MOST_BYTES = 64 * 1024 * 1024
"""The network has a million weights; a larger file is something else."""


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, padding_mode="reflect", bias=False)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


def _residuals(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Residual(width) for _ in range(count)))


class Encoder(nn.Module):
    """Picture -> texture (32, H/4, W/4) and shape (32, H/2, W/2)."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.down = _conv(3, 16, 7), _conv(16, 32, 3, 2)
        self.common = _residuals(32, 3)
        self.texture_down, self.texture = _conv(32, 32, 3, 2), _residuals(32, 2)
        self.shape_conv, self.shape = _conv(32, 32), _residuals(32, 2)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        x = self.common(F.relu(self.down(F.relu(self.wide(picture)))))
        return self.texture(F.relu(self.texture_down(x))), self.shape(F.relu(self.shape_conv(x)))


class Manipulator(nn.Module):
    """Shape of the second picture, moved on by (factor - 1) times its difference from the first."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after, self.last = _conv(32, 32), _conv(32, 32), _Residual(32)

    def forward(self, first: Tensor, second: Tensor, factor: Tensor) -> Tensor:
        amplified = F.relu(self.before(second - first)) * (factor - 1.0).reshape(-1, 1, 1, 1)
        return second + self.last(self.after(amplified))


class Decoder(nn.Module):
    """Texture and shape -> picture."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = _residuals(64, 9)
        self.narrow, self.out = _conv(64, 32), _conv(32, 3, 7)

    def forward(self, texture: Tensor, shape: Tensor) -> Tensor:
        enlarged = F.interpolate(texture, size=shape.shape[-2:], mode="nearest")
        x = self.blocks(torch.cat([enlarged, shape], 1))
        return self.out(F.relu(self.narrow(F.interpolate(x, scale_factor=2.0, mode="nearest"))))


class Magnifier(nn.Module):
    """Two pictures (N, 3, H, W) in -1..1, H and W multiples of 4, and factors (N,) -> the second, its motion
    since the first magnified; 1 changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.manipulator, self.decoder = Encoder(), Manipulator(), Decoder()

    def forward(self, first: Tensor, second: Tensor, factor: Tensor) -> Tensor:
        _, shape_first = self.encoder(first)
        texture, shape = self.encoder(second)
        return self.decoder(texture, self.manipulator(shape_first, shape, factor))


def magnify(network: Magnifier, onset: U8, picture: U8, factor: float) -> U8:
    """The picture with its motion since the onset magnified; both (H, W, 3) BGR of one size."""
    height, width = picture.shape[:2]
    rows, columns = -height % 4, -width % 4
    pair = np.stack([onset, picture]).astype(np.float32) / 127.5 - 1.0
    tensor = torch.from_numpy(pair[..., ::-1].transpose(0, 3, 1, 2).copy())
    tensor = F.pad(tensor, (0, columns, 0, rows), mode="replicate").to(next(network.parameters()).device)
    with torch.inference_mode():
        out = network(tensor[:1], tensor[1:], torch.tensor([factor], device=tensor.device))[0]
    image = out.clamp(-1, 1).cpu().numpy().transpose(1, 2, 0)[:height, :width, ::-1]
    return np.ascontiguousarray(((image + 1.0) * 127.5).round().astype(np.uint8))


def load_magnifier(path: Path) -> Magnifier:
    """A network with these weights: `.safetensors`, or a state dict of PyTorch (`.pt`, `.pth`), of which
    nothing but tensors is read.

    Other programs' weights of the same network are taken if they hold tensors of the same shapes in the same
    order, with a warning: texture and shape have branches of equal shapes, and only their order tells them
    apart. (A .safetensors file keeps no order.)

    Raises:
        UsageError: the file is not that.
    """
    network = Magnifier()
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"{path} is larger than {MOST_BYTES:,} bytes: these are other weights")
        state: Any = load_file(path) if path.suffix == ".safetensors" else _state_dict(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}): check the path") from error
    except SafetensorError as error:
        raise UsageError(f"{path} is no safetensors file ({error}): fetch it anew") from error
    own = network.state_dict()
    if set(state) != set(own) and [t.shape for t in state.values()] == [t.shape for t in own.values()]:
        log.warning(
            "%s: tensors named otherwise are taken in their order, the texture's before the shape's", path
        )
        state = dict(zip(own, state.values(), strict=True))
    wrong = sorted(set(own) ^ set(state)) or [name for name in own if own[name].shape != state[name].shape]
    if wrong:
        raise UsageError(f"{path} holds no weights of this network ({wrong[0]} differs): take another file")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise UsageError(f"{path} holds weights that are not finite: train anew")
    network.load_state_dict(state)
    return network.eval()


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises for a bad file has no common base
        raise UsageError(
            f"{path} is no state dict that is safe to load ({type(error).__name__}): save the tensors alone, "
            f"with torch.save(model.state_dict()), or as safetensors"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UsageError(f"{path} is no state dict: save it with torch.save(model.state_dict())")
    return state


# -- training ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MagnifierConfig:
    """Train the motion magnification network on synthetic moving composites."""

    out: Path
    """Folder for weights.safetensors."""
    steps: int = 20_000
    """Steps of training."""
    batch: int = 4
    """Scenes a step."""
    size: int = 96
    """Side of a scene, pixels, a multiple of 4."""
    learning_rate: float = 1e-4
    """Of Adam, falling to 0 as a cosine."""
    seed: int = 0
    """Of weights and scenes."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the arithmetic runs."""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or self.size < 16 or self.size % 4:
            raise ValueError("steps and batch must be at least 1, size at least 16 and a multiple of 4")
        if not 0 <= self.seed < HELD_OUT_SEED:
            raise ValueError(f"seed must be at least 0 and below {HELD_OUT_SEED}")


HELD_OUT_SEED = 2**32
"""Of the scenes that the network is measured on; seeds of training are smaller."""

SMALL_MOTION_PX = 0.5
"""Most motion, between the first two pictures, of scenes that the network is measured on."""

REPRESENTATION_WEIGHT = 0.1
"""Of the losses on texture and shape (Oh et al., section 3.3)."""


def magnifier_loss(network: Magnifier, scenes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(loss, part of it that is the picture's). scenes: as `train.composites.draw_batch` gives them.

    L1 of the picture; texture must not change with motion, nor shape with colour.
    """
    texture_a, shape_a = network.encoder(scenes["a"])
    texture_b, shape_b = network.encoder(scenes["b"])
    other_texture_b, other_shape_b = network.encoder(scenes["b_colour"])
    other_texture_y, _ = network.encoder(scenes["y_colour"])
    picture = network.decoder(texture_b, network.manipulator(shape_a, shape_b, scenes["factor"]))
    seen = F.l1_loss(picture, scenes["y"])
    apart = (
        F.l1_loss(texture_a, texture_b)
        + F.l1_loss(other_texture_b, other_texture_y)
        + F.l1_loss(shape_b, other_shape_b)
    )
    return seen + REPRESENTATION_WEIGHT * apart, seen


def measured_factor(network: Magnifier, size: int, factor: float = 3.0, scenes: int = 40) -> float:
    """How many times larger the network makes motion of at most half a pixel where `factor` is asked for; 1 =
    nothing is magnified. Median over scenes of (3, size, size) that training does not draw.

    Motion so small changes a picture in proportion: what the network adds when asked is projected on what
    `factor` times the motion adds in truth.
    """
    rng, device = np.random.default_rng(HELD_OUT_SEED), next(network.parameters()).device
    parts = []
    for _ in range(scenes):
        drawn = draw_scene(rng, size, factor, SMALL_MOTION_PX, 0.0)
        scene = {name: torch.from_numpy(array).to(device)[None] for name, array in drawn.items()}
        with torch.inference_mode():
            asked = network(scene["a"], scene["b"], scene["factor"])
            added = asked - network(scene["a"], scene["b"], torch.ones_like(scene["factor"]))
        true = scene["y"] - scene["b"]
        parts.append(float((added * true).sum() / (true * true).sum()))
    return 1.0 + (factor - 1.0) * float(np.median(parts))


def train_magnifier(config: MagnifierConfig, progress: bool = True) -> tuple[float, float]:
    """Train and write the weights; returns the L1 of the picture over the last tenth of the steps, 0..2, and
    `measured_factor` where 3 is asked for.

    Raises:
        UsageError: no GPU where one is asked for. OutputError: the weights cannot be written.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch sees no GPU here; take --device cpu")
    device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    torch.manual_seed(config.seed)
    network = Magnifier().to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    rng, last = np.random.default_rng(config.seed), []
    with tqdm(total=config.steps, desc="training", unit="step", disable=not progress) as bar:
        for step in range(config.steps):
            drawn = draw_batch(rng, config.batch, config.size)
            scenes = {name: torch.from_numpy(array).to(device) for name, array in drawn.items()}
            loss, seen = magnifier_loss(network, scenes)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            if step >= 0.9 * config.steps or step % 50 == 0:
                last.append(float(seen.detach()))
                bar.set_postfix(l1=f"{last[-1]:.4f}")
            bar.update()
    state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    about = {"trained_on": "synthetic composites", "steps": str(config.steps), "seed": str(config.seed)}
    try:
        write_whole(config.out / "weights.safetensors", save(state, about))
    except OSError as error:
        raise OutputError(f"{config.out} cannot be written ({error.strerror}): name another --out") from error
    error = float(np.mean(last[-max(1, config.steps // 10) :]))
    return error, measured_factor(network.eval(), config.size)
