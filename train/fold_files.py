"""The result of one fold, and the file that it is kept in: safetensors, with JSON in its header."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from streamer.fetching import write_whole

log = logging.getLogger(__name__)

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

FOLD_VERSION = "1"


@dataclass(frozen=True)
class FoldResult:
    """One fold, trained and tested. T tested samples, E epochs, U action units, R constrained layers.

    name: of the fold: who is tested.
    test: (T,) int64, indices of the tested samples.
    scores: (T, classes) float32, logits; action_units: (T, U) float32, logits of the last head; U is 0 where
        the network has none.
    loss, accuracy: (E,) float32, mean over the training batches of each epoch.
    validation_accuracy: (E,) float32, on the validation samples, which under the protocol `paper` are the
        test samples; empty where nothing is chosen.
    epoch: the one whose network was tested, 1..E; E where nothing is chosen.
    lam: layer -> (nodes, nodes) float32, the learned matrices A_L: "low.1", "high.1" of the two streams,
        "fused.2" and so on; "layer.1" of networks with one stream. Layers are counted from 1.
    aau_weights: (R,) float32, W_r^2 / sum W_r^2, first constrained layer first; empty without that loss.
    features: layer -> (T, channels) float32, outputs of the layers from the fusion on for the tested samples,
        mean over frames and nodes: "1" .. "4". Of GTS-GN alone.
    parameters: how many are trained. seconds: training time; in a batched computation its share.
    """

    name: str
    test: I64
    scores: F32
    action_units: F32
    loss: F32
    accuracy: F32
    validation_accuracy: F32
    epoch: int
    parameters: int
    seconds: float
    aau_weights: F32
    lam: dict[str, F32] = field(default_factory=dict)
    features: dict[str, F32] = field(default_factory=dict)


_ARRAYS = ("test", "scores", "action_units", "loss", "accuracy", "validation_accuracy", "aau_weights")
_NUMBERS = ("name", "epoch", "parameters", "seconds")


def fold_path(folder: Path, name: str) -> Path:
    """Where the fold is kept; two names never share a file."""
    plain = re.sub(r"[^A-Za-z0-9.+=-]", lambda match: f"_{ord(match[0]):x}_", name)
    return folder / f"fold_{plain}.safetensors"


def write_fold(folder: Path, result: FoldResult) -> None:
    """Write a fold, whole or not at all. Raises: OSError."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(result, name) for name in _ARRAYS}
    arrays |= {f"lam/{layer}": matrix for layer, matrix in result.lam.items()}
    arrays |= {f"features/{layer}": values for layer, values in result.features.items()}
    about = {"version": FOLD_VERSION, **{name: getattr(result, name) for name in _NUMBERS}}
    content = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_whole(fold_path(folder, result.name), save(content, {"fold": json.dumps(about)}))


def read_fold(folder: Path, name: str, samples: int, classes: int) -> FoldResult | None:
    """The kept fold; None if there is none, or one that is damaged or not of such a run, which is said.

    samples, classes: how many the run has.
    """
    path = fold_path(folder, name)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["fold"])
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
        if about.pop("version") != FOLD_VERSION or about["name"] != name:
            raise ValueError("of another version or fold")
        plain: dict[str, Any] = {key: arrays.pop(key) for key in _ARRAYS}
        parts: dict[str, Any] = {"lam": {}, "features": {}}
        for key, array in arrays.items():
            part, layer = key.split("/")
            parts[part][layer] = array
        test, scores = plain["test"], plain["scores"]
        if scores.shape != (len(test), classes) or not np.isin(test, np.arange(samples)).all():
            raise ValueError("of another run")
        plain |= {key: about[key] for key in _NUMBERS}
        return FoldResult(**plain, **parts)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        log.warning("%s is damaged (%s): trained again", path, error)
        return None
