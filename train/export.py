"""From a checkpoint to an engine folder that the recogniser loads."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from safetensors.torch import save
from torch import Tensor

from streamer.engine import FileEntry, Manifest, OnnxEngine
from streamer.errors import OutputError, UsageError
from streamer.graph import build_graph, build_graphs
from streamer.manifest import MANIFEST_FILE, ONNX_FILE
from train.loop import Checkpoint, load_checkpoint
from train.model_card import model_card
from train.models import GTSGN
from train.models.gts_gn import WIDTHS
from train.models.inference import FoldedLayer, InferenceNetwork
from train.models.layers import FRAMES
from train.simulate import simulate

OPSET = 20
IR_VERSION = 10
"""ONNX operator set and file format; ONNX Runtime has read both since 1.18."""

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


class _Graph:
    """ONNX nodes and constants, in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Tensor | list[int]) -> str:
        """Add a constant; returns its name."""
        array = value.numpy() if isinstance(value, Tensor) else np.array(value, np.int64)
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        name = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def layer(self, folded: FoldedLayer, x: str) -> str:
        """relu(A X W + b)."""
        adjacency, weight, bias = (
            self.constant(folded.get_buffer(name)) for name in ("adjacency", "weight", "bias")
        )
        return self.add(
            "Relu", self.add("Add", self.add("MatMul", self.add("MatMul", adjacency, x), weight), bias)
        )


def to_onnx(network: InferenceNetwork) -> bytes:
    """`network` as one self-contained ONNX file with a free batch axis; equal networks give equal bytes.

    `InferenceNetwork.forward`, operation by operation. It is written out here rather than traced by
    torch's exporter, whose graph changes from one version to the next and carries paths of the machine.
    """
    scale = network.get_buffer("input_scale")
    nodes = scale.shape[1]
    graph = _Graph()
    x = graph.add("Reshape", "features", graph.constant([-1, FRAMES, nodes, 2, 2]))
    x = graph.add("Transpose", x, perm=[0, 3, 2, 1, 4])  # batch, stream, node, frame, channel
    x = graph.add("Reshape", x, graph.constant([-1, 2, nodes, 2 * FRAMES]))
    x = graph.add("Mul", x, graph.constant(scale))
    for layer in network.streams:
        x = graph.layer(cast("FoldedLayer", layer), x)
    x = graph.add("ReduceSum", x, graph.constant([1]), keepdims=0)
    for layer in network.fused:
        x = graph.layer(cast("FoldedLayer", layer), x)
    x = graph.add("Reshape", x, graph.constant([-1, nodes, FRAMES, WIDTHS[-1]]))
    x = graph.add("ReduceMean", x, graph.constant([2]), keepdims=0)
    x = graph.add("Reshape", x, graph.constant([-1, nodes * WIDTHS[-1]]))
    x = graph.add("MatMul", x, graph.constant(network.get_buffer("head_weight")))
    x = graph.add("Add", x, graph.constant(network.get_buffer("head_bias")))
    width = network.get_buffer("head_bias").shape[0]
    ends = {"scores": (0, network.classes, "Softmax"), "action_units": (network.classes, width, "Sigmoid")}
    outputs = []
    for name in network.outputs:
        first, last, activation = ends[name]
        part = graph.add("Slice", x, *(graph.constant([n]) for n in (first, last, 1)))
        graph.add(activation, part, output=name)
        shape = ["batch", last - first]
        outputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    features = helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ["batch", FRAMES, nodes, 4])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "gts-gn", [features], outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
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
    (folder / ONNX_FILE).write_bytes(to_onnx(network))
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
    return (
        f"{config.out}: written; largest difference to the checkpoint on {CHECKED_INPUTS} inputs:"
        f" {difference:.1e}"
    )


def _compare(expected: Path, found: Path, files: list[str]) -> None:
    for file in files:
        path = found / file
        if not path.is_file() or path.read_bytes() != (expected / file).read_bytes():
            raise OutputError(
                f"{path}: {'differs from' if path.is_file() else 'is missing, unlike in'} a new export of the"
                " checkpoint; export without --check to write it"
            )
