"""From a checkpoint to an engine folder that the recogniser loads."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from streamer.engine import FileEntry, Manifest, OnnxEngine
from streamer.errors import OutputError, UsageError
from streamer.graph import build_graph, build_graphs, node_set_named
from streamer.manifest import MANIFEST_FILE, ONNX_FILE
from train.loop import Checkpoint, load_checkpoint
from train.model_card import model_card
from train.models import GTSGN
from train.models.inference import InferenceNetwork
from train.simulate import simulate

OPSET = 20
"""ONNX operator set: what torch's exporter is written for, and ONNX Runtime has run since 1.17."""

TOLERANCE = 1e-4
"""Largest difference between a probability of the engine and of the checkpoint."""

CHECKED_INPUTS = 1000

CLASS_NAMES = {
    "I": "happiness",
    "II": "surprise",
    "III": "anger",
    "IV": "disgust",
    "V": "sadness",
    "VI": "fear",
    "VII": "contempt or other",
}
"""Usual reading of the objective classes."""

WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "MODEL_CARD.md"


@dataclass(frozen=True)
class ExportConfig:
    """Make an engine folder of a checkpoint: model.onnx, weights, manifest and model card."""

    checkpoint: Path
    """Folder that `python -m train fit` wrote."""
    out: Path
    """Folder of the engine; its last part is the engine's name."""
    check: bool = False
    """Write nothing; say whether the folder is, byte for byte, what this export gives."""


def to_onnx(network: InferenceNetwork, nodes: int) -> bytes:
    """The network as one self-contained ONNX file with a free batch axis; equal networks give equal bytes."""
    # It would warn of each torchvision operator, none of which is used here.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # torch 2.13's exporter uses what torch 2.13 deprecates.
        warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated", category=FutureWarning)
        program = torch.onnx.export(
            network.eval(),
            (torch.zeros(2, 3, nodes, 4),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["features"],
            output_names=list(network.outputs),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model = program.model_proto
    # The exporter's notes hold paths and line numbers of this machine.
    for message in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
    ):
        message.ClearField("metadata_props")
        message.ClearField("doc_string")
    for tensor in model.graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")
    model.graph.ClearField("value_info")
    return model.SerializeToString(deterministic=True)


def largest_difference(engine: OnnxEngine, checkpoint: Checkpoint, count: int = CHECKED_INPUTS) -> float:
    """Largest difference of any probability between the engine and the checkpoint's own network, over
    `count` simulated expressions, given one at a time and all at once."""
    expressions = simulate(count, seed=0)
    features = build_graphs(expressions.nodes, checkpoint.features)
    with torch.inference_mode():
        output = checkpoint.model(torch.from_numpy(features))
        scores = torch.softmax(output.classes.double() / checkpoint.temperature, 1).numpy()
        heads = output.action_units
        units = torch.sigmoid(heads[-1].double()).numpy() if heads else np.zeros((count, 0))
    expected = np.concatenate((scores, units), 1)
    batched = np.concatenate(engine.classify_batch(features), 1)
    singly = [engine.classify(build_graph(nodes, checkpoint.features)) for nodes in expressions.nodes]
    single = np.array([[*c.scores.values(), *c.action_units.values()] for c in singly])
    return float(max(np.abs(batched - expected).max(), np.abs(single - expected).max()))


def write_engine(checkpoint: Checkpoint, folder: Path, name: str) -> float:
    """Write all files of the engine `name` into `folder`, load them, and compare with the checkpoint.

    Returns the largest difference of a probability.

    Raises:
        UsageError: the network is not one that an engine can be made of.
        OutputError: the engine and the checkpoint differ by more than `TOLERANCE`.
        EngineError: the manifest would not be accepted, such as for a bad name.
    """
    if not isinstance(checkpoint.model, GTSGN):
        raise UsageError(
            "only GTS-GN becomes an engine; train one with `python -m train fit --model.name gts-gn`"
        )
    network = InferenceNetwork(checkpoint.model, checkpoint.temperature)
    (folder / ONNX_FILE).write_bytes(to_onnx(network, len(node_set_named(checkpoint.features.node_set))))
    state = {key: value.contiguous() for key, value in checkpoint.model.state_dict().items()}
    (folder / WEIGHTS_FILE).write_bytes(save(state))
    (folder / CARD_FILE).write_text(model_card(name, checkpoint, CLASS_NAMES), encoding="utf-8")
    fit = checkpoint.info["fit"]
    Manifest(
        name=name,
        opset=OPSET,
        classes=checkpoint.classes,
        class_names={key: CLASS_NAMES[key] for key in checkpoint.classes},
        action_units=checkpoint.action_units,
        features=checkpoint.features,
        torch_version=checkpoint.info["torch"],
        files={f: FileEntry.of(folder / f) for f in (ONNX_FILE, WEIGHTS_FILE, CARD_FILE)},
        training={
            "data": "simulated micro-expressions (train/simulate.py); no recording of a person",
            "simulated": True,
            "seed": fit["seed"],
            "protocol": (
                f"{fit['epochs']} epochs of {fit['samples']} expressions drawn anew, a fixed number; measured"
                f" on {fit['validation_samples']} further ones; temperature fitted on a third draw"
            ),
            "tracker_noise": checkpoint.info["tracker_noise"],
            "temperature": checkpoint.temperature,
            "model": fit["model"],
            "loss": {key: fit[key] for key in ("au_loss", "au_layer", "beta")},
        },
        metrics=checkpoint.metrics,
    ).write(folder)
    engine = OnnxEngine(folder)
    difference = largest_difference(engine, checkpoint)
    engine.close()
    if not difference <= TOLERANCE:
        raise OutputError(
            f"engine {name}: a probability differs by {difference:.2g} from the checkpoint's (allowed:"
            f" {TOLERANCE:g}); nothing was written; try another torch or onnxruntime version"
        )
    return difference


def export(config: ExportConfig) -> str:
    """Export, or with `config.check` compare what is there with what an export gives; returns one line
    for the user.

    Raises:
        UsageError: the checkpoint cannot be used, or the folder cannot be written.
        OutputError, EngineError: see `write_engine`; with `check` OutputError also if a file differs.
    """
    checkpoint = load_checkpoint(config.checkpoint)
    name = config.out.resolve().name
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            difference = write_engine(checkpoint, folder, name)
            # The manifest last: a folder that has one is whole.
            files = [ONNX_FILE, WEIGHTS_FILE, CARD_FILE, MANIFEST_FILE]
            if config.check:
                _compare(folder, config.out, files)
                return f"{config.out}: every file is what the export gives (difference {difference:.1e})"
            config.out.mkdir(parents=True, exist_ok=True)
            for file in files:
                partial = config.out / f"{file}.partial"
                partial.write_bytes((folder / file).read_bytes())
                os.replace(partial, config.out / file)
    except OSError as error:
        raise UsageError(
            f"{config.out}: cannot be written ({error.strerror}); choose another --out"
        ) from error
    return f"{config.out}: written; largest difference to the checkpoint on {CHECKED_INPUTS} inputs: {difference:.1e}"


def _compare(expected: Path, found: Path, files: list[str]) -> None:
    for file in files:
        path = found / file
        if not path.is_file() or path.read_bytes() != (expected / file).read_bytes():
            raise OutputError(
                f"{path}: {'differs from' if path.is_file() else 'is missing, unlike in'} a new export of the"
                " checkpoint; export without --check to write it"
            )
