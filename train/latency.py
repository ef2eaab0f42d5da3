"""The latency benchmark with PyTorch's peers: what `python -m streamer.bench latency` starts where PyTorch is
installed. `streamer` does not import this side, so it starts it as a process.

    python -m train.latency CONFIG.json FIGURES.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from streamer.bench.interleaved import Contender
from streamer.bench.latency_process import key_nodes, measure
from streamer.engine import find_engine
from streamer.graph import FeatureSpec, build_graph
from train.export.onnx_graph import to_onnx
from train.export.resnet18_graph import resnet18_to_onnx
from train.export.source import read_source
from train.models import ModelConfig, ResNet18, build_model
from train.models.inference import InferenceNetwork, folded
from train.models.resnet18 import SIDE

CLASSES = 6


def peers(engine: str, compiled: bool = True) -> list[Contender]:
    """The networks that the paper compares, and GTS-GN without this project's engines. Random weights except
    in GTS-GN: the time does not depend on them.

    compiled: with those of torch.compile, whose first call takes half a minute.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    source = read_source(find_engine(engine))
    features = build_graph(key_nodes(), source.features).features[None]
    type_a = FeatureSpec(type="A")
    ss_gn = build_model(ModelConfig("ss-gn", lam=False), type_a, CLASSES, 0).eval()
    gcn = build_model(ModelConfig("gcn", lam=False), type_a, CLASSES, 0).eval()
    resnet = ResNet18(CLASSES).eval()
    pictures = np.random.default_rng(0).random((1, 3, SIDE, SIDE), np.float32)
    grey = "three grey 224x224 pictures, made beforehand"
    network = InferenceNetwork(source.folded())
    folded_ss_gn, folded_gcn = (to_onnx(folded(model, "gm14")) for model in (ss_gn, gcn))
    contenders = [
        Contender("GTS-GN, PyTorch eager", in_torch(source.model, features), "as trained"),
        Contender("SS-GN, PyTorch eager", in_torch(ss_gn, features), size(ss_gn)),
        Contender("SS-GN, ONNX Runtime", in_onnx(folded_ss_gn, features), "folded"),
        Contender("GCN, PyTorch eager", in_torch(gcn, features), size(gcn)),
        Contender("GCN, ONNX Runtime", in_onnx(folded_gcn, features), "folded"),
        Contender("ResNet18 (ST), PyTorch eager", in_torch(resnet, pictures), f"{size(resnet)}, {grey}"),
        Contender("ResNet18 (ST), ONNX Runtime", in_onnx(resnet18_to_onnx(resnet), pictures), "folded"),
    ]
    if compiled:
        for name, model, about in (
            ("", source.model, "as trained"),
            (" folded", network, "as it is exported"),
        ):
            call = in_torch(torch.compile(model), features)
            contenders.insert(1, Contender(f"GTS-GN{name}, PyTorch compiled", call, about))
    return contenders


def size(model: nn.Module) -> str:
    """How many parameters, for the table."""
    return f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters"


def in_torch(model: Callable[[Tensor], Any], array: np.ndarray) -> Callable[[], list[float]]:
    """A call from an array to class probabilities in PyTorch."""

    def call() -> list[float]:
        with torch.inference_mode():
            output = model(torch.from_numpy(array))
            if isinstance(output, Tensor):
                return torch.softmax(output, 1)[0].tolist()
            if hasattr(output, "classes"):
                return torch.softmax(output.classes, 1)[0].tolist()
            return output[0][0].tolist()

    return call


def in_onnx(model: bytes, array: np.ndarray) -> Callable[[], list[float]]:
    """A call from an array to class probabilities in ONNX Runtime, on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: np.asarray(session.run(None, {name: array})[0])[0].tolist()


def main(arguments: list[str]) -> None:
    """Measure with peers."""
    request, out = arguments
    config = json.loads(Path(request).read_text(encoding="utf-8"))
    commands = {"GTS-GN, PyTorch eager": ("-m", "train.cold_start", config["engine"])}
    figures = measure(config, lambda: peers(config["engine"]), commands)
    figures["machine"]["versions"] += f", torch {torch.__version__}"
    Path(out).write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
