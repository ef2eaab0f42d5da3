"""A trained network on disk: weights.safetensors, config.json, metrics.json."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from streamer.errors import OutputError, UsageError
from streamer.fetching import write_whole
from streamer.graph import FeatureSpec
from train.models import ModelConfig, build_model

CHECKPOINT_VERSION = 2


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and what it was trained with.

    class_names: what each class usually means. temperature: the class logits are divided by it before the
    softmax. info: contents of config.json. metrics: contents of metrics.json.
    """

    model: nn.Module
    features: FeatureSpec
    classes: tuple[str, ...]
    class_names: dict[str, str]
    action_units: tuple[str, ...]
    temperature: float
    info: dict[str, Any]
    metrics: dict[str, Any]


def prepare_folder(folder: Path) -> None:
    """Make sure that a checkpoint can be written there, before hours are spent.

    Raises:
        UsageError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot create the folder {folder}: {error.strerror}; choose another --out"
        ) from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write into the folder {folder}; choose another --out")


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    class_names: dict[str, str],
    action_units: tuple[str, ...],
    temperature: float,
    metrics: dict[str, Any],
    settings: Any,
    data: dict[str, Any],
    seconds: float,
) -> None:
    """Write a checkpoint; config.json comes last, so that a folder that has one is whole.

    Args:
        class_names: by class, in the order of the outputs.
        settings: the dataclass `FitConfig` that it was trained with.
        data: what it was trained on: `what` and `protocol` in words, `simulated`, and more.
    """
    info = {
        "version": CHECKPOINT_VERSION,
        "classes": list(class_names),
        "class_names": class_names,
        "action_units": list(action_units) if getattr(model, "action_units", ()) else [],
        "temperature": temperature,
        "data": data,
        "torch": torch.__version__,
        "seconds": round(seconds, 1),
        "fit": {key: value for key, value in asdict(settings).items() if key != "out"},
    }
    state = {name: tensor.contiguous() for name, tensor in sorted(model.state_dict().items())}
    try:
        (folder / "config.json").unlink(missing_ok=True)
        write_whole(folder / "weights.safetensors", save(state))
        for name, value in (("metrics", metrics), ("config", info)):
            write_whole(folder / f"{name}.json", (json.dumps(value, indent=1, default=str) + "\n").encode())
    except OSError as error:
        raise OutputError(
            f"{folder}: the checkpoint cannot be written ({error.strerror}): free space and train again"
        ) from error


def load_checkpoint(folder: Path) -> Checkpoint:
    """The network that `fit` wrote into `folder`, in evaluation mode.

    Raises:
        UsageError: there is no whole checkpoint, or it is of another version.
    """
    try:
        info = json.loads((folder / "config.json").read_text())
        metrics = json.loads((folder / "metrics.json").read_text())
        if info["version"] != CHECKPOINT_VERSION:
            raise UsageError(
                f"{folder}: checkpoint version {info['version']}, this program writes and reads "
                f"{CHECKPOINT_VERSION}; train it again with `python -m train fit`"
            )
        fit_info = info["fit"]
        spec = FeatureSpec(**fit_info["features"])
        model = build_model(
            ModelConfig(**fit_info["model"]),
            spec,
            len(info["classes"]),
            len(info["action_units"]),
        )
        model.load_state_dict(load_file(folder / "weights.safetensors"))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise UsageError(
            f"{folder}: no usable checkpoint ({error}); train one with `python -m train fit --out {folder}`"
        ) from error
    model.eval()
    return Checkpoint(
        model,
        spec,
        tuple(info["classes"]),
        dict(info["class_names"]),
        tuple(info["action_units"]),
        float(info["temperature"]),
        info,
        metrics,
    )
