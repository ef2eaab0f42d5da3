"""Stand-in engines, built with `onnx.helper`: nothing trained, but of the real form.

`write_engine(folder)` makes an engine folder that `load_engine` takes; run as a script, this file times
graph building and classification with a network of GTS-GN's shape and size.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from streamer.graph import NODE_SETS, FeatureSpec, adjacency, normalised_adjacency
from streamer.manifest import FileEntry, Manifest

CLASSES = ("I", "II", "III", "IV", "V", "VII")
CLASS_NAMES = {
    "I": "happiness",
    "II": "surprise",
    "III": "anger",
    "IV": "disgust",
    "V": "sadness",
    "VII": "contempt/other",
}
ACTION_UNITS = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU9", "AU10", "AU12", "AU14", "AU15", "AU17", "AU25")
OPSET = 18


class Builder:
    """Collects nodes and weights of one ONNX graph."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def weight(self, *shape: int) -> str:
        return self.constant(self.rng.normal(0.0, (2.0 / shape[-2]) ** 0.5, shape).astype(np.float32))

    def model(self, inputs: list[Any], outputs: list[Any], opset: int = OPSET) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "stand-in", inputs, outputs, self.weights)
        # The newest IR version is more than an older ONNX Runtime reads; 10 belongs to opset 18 to 22.
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def tiny_model(
    nodes: int = 14, classes: int = len(CLASSES), action_units: int = len(ACTION_UNITS)
) -> Builder:
    """softmax(f W) and sigmoid(f V) of the flattened features f."""
    b = Builder()
    flat = b.op("Flatten", "features", axis=1)
    b.op("Softmax", b.op("MatMul", flat, b.weight(3 * nodes * 4, classes)), output="scores", axis=1)
    if action_units:
        b.op("Sigmoid", b.op("MatMul", flat, b.weight(3 * nodes * 4, action_units)), output="action_units")
    return b


def gtsgn_model(nodes: int = 14, widths: tuple[int, ...] = (64, 64, 128, 128), fusion: int = 2) -> Builder:
    """GTS-GN (layer 2) as it is exported: per layer relu((L + A_L) X W + b), where W holds theta and the
    temporal filter as one block matrix over the three frames; two streams as one batch until they meet."""
    b = Builder()
    laplacian = normalised_adjacency(adjacency())
    # (B, 3, n, 4) -> (B, 2 streams, n, 3 frames * 2 channels)
    split = b.op("Reshape", "features", b.constant(np.array([0, 3, nodes, 2, 2])), allowzero=0)
    streams = b.op("Transpose", split, perm=[0, 3, 2, 1, 4])
    x = b.op("Reshape", streams, b.constant(np.array([0, 2, nodes, 6])), allowzero=0)
    channels = 2
    for layer, width in enumerate(widths, 1):
        count = 2 if layer <= fusion else 1
        lam = laplacian + b.rng.normal(0, 0.05, (count, nodes, nodes)).astype(np.float32)
        x = b.op("MatMul", b.constant(lam), x)
        x = b.op("MatMul", x, b.weight(count, 3 * channels, 3 * width))
        x = b.op("Relu", b.op("Add", x, b.weight(count, 1, 3 * width)))
        if layer == fusion:
            x = b.op("ReduceSum", x, b.constant(np.array([1])), keepdims=1)
        channels = width
    flat = b.op("Flatten", x, axis=1)
    size = nodes * 3 * widths[-1]
    b.op("Softmax", b.op("MatMul", flat, b.weight(size, len(CLASSES))), output="scores", axis=1)
    b.op("Sigmoid", b.op("MatMul", flat, b.weight(size, len(ACTION_UNITS))), output="action_units")
    return b


def finished(
    builder: Builder, nodes: int = 14, classes: int = len(CLASSES), aus: int = len(ACTION_UNITS)
) -> bytes:
    """The model's bytes, with the bindings that a manifest asks for."""
    outputs = [value("scores", "batch", classes)]
    if aus:
        outputs.append(value("action_units", "batch", aus))
    model = builder.model([value("features", "batch", 3, nodes, 4)], outputs)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def manifest_for(folder: Path, **changes: Any) -> Manifest:
    """A manifest of the stand-in whose files lie in `folder`."""
    files = {
        path.name: FileEntry.of(path) for path in sorted(folder.iterdir()) if path.name != "manifest.json"
    }
    manifest = Manifest(
        name="stand-in",
        opset=OPSET,
        classes=CLASSES,
        class_names=CLASS_NAMES,
        action_units=ACTION_UNITS,
        features=FeatureSpec(),
        torch_version="none",
        files=files,
        training={"data": "none: random weights", "simulated": True, "seed": 0, "protocol": "none"},
        metrics={},
    )
    return dataclasses.replace(manifest, **changes)


def write_engine(folder: Path, model: bytes | None = None, **changes: Any) -> Path:
    """Write a whole engine folder; `changes` are fields of the manifest. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(finished(tiny_model()) if model is None else model)
    (folder / "MODEL_CARD.md").write_text("A stand-in for tests.\n", encoding="utf-8")
    manifest_for(folder, **changes).write(folder)
    return folder


def _measure() -> None:
    import tempfile
    import time

    from streamer.engine import load_engine
    from streamer.graph import build_graph, warm_up

    warm_up()
    with tempfile.TemporaryDirectory() as folder:
        engine = load_engine(write_engine(Path(folder), finished(gtsgn_model())), "cpu")
        spec = engine.manifest.features
        key_nodes = np.repeat(NODE_SETS["gm14"].rest[None], 3, axis=0).copy()
        key_nodes[1, 10] += (-0.01, -0.02)
        took = []
        for _ in range(5000):
            start = time.perf_counter()
            sample = build_graph(key_nodes, spec)
            middle = time.perf_counter()
            engine.classify(sample)
            took.append((middle - start, time.perf_counter() - middle))
    graph_ms, classify_ms = (np.array(took[500:]) * 1e3).T
    for what, ms in (("graph", graph_ms), ("classify", classify_ms), ("both", graph_ms + classify_ms)):
        p50, p95, p99 = np.percentile(ms, [50, 95, 99])
        print(f"{what:9} p50 {p50:.4f}  p95 {p95:.4f}  p99 {p99:.4f} ms")


if __name__ == "__main__":
    _measure()
