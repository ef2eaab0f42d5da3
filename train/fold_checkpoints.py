"""The state of a long training, kept on disk between two epochs, so that an interruption costs little."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from streamer.fetching import write_whole

log = logging.getLogger(__name__)

EVERY_S = 60.0
"""Shorter trainings keep nothing: to repeat one costs less than the care."""


@dataclass(frozen=True)
class Checkpoint:
    """epoch: how many are done. seconds: spent on them. state, best: of the networks, now and at the chosen
    epoch. moments: "number/name" -> the optimiser's. history, score, chosen: see `fold_training`."""

    epoch: int
    seconds: float
    state: dict[str, Tensor]
    moments: dict[str, Tensor]
    best: dict[str, Tensor]
    history: NDArray[np.float32]
    score: NDArray[np.float64]
    chosen: NDArray[np.int64]


_PARTS = ("state", "moments", "best")
_ARRAYS = ("history", "score", "chosen")


def keep(path: Path, checkpoint: Checkpoint) -> None:
    """Write it, whole or not at all. Raises: OSError."""
    tensors: dict[str, Tensor] = {}
    for part in _PARTS:
        values = getattr(checkpoint, part)
        tensors |= {
            f"{part}:{name}": tensor.detach().cpu().contiguous().clone() for name, tensor in values.items()
        }
    tensors |= {f"array:{name}": torch.from_numpy(getattr(checkpoint, name).copy()) for name in _ARRAYS}
    about = json.dumps({"epoch": checkpoint.epoch, "seconds": checkpoint.seconds})
    write_whole(path, save(tensors, {"checkpoint": about}))


def kept(path: Path) -> Checkpoint | None:
    """What is there; None if nothing is, or nothing whole."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["checkpoint"])
            parts: dict[str, Any] = {part: {} for part in (*_PARTS, "array")}
            for key in file.keys():  # noqa: SIM118 (it is no dict)
                part, name = key.split(":", 1)
                parts[part][name] = file.get_tensor(key)
        arrays = {name: tensor.numpy() for name, tensor in parts.pop("array").items()}
        return Checkpoint(about["epoch"], about["seconds"], **parts, **arrays)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        log.warning("%s is damaged (%s): the fold begins anew", path, error)
        return None
