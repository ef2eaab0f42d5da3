"""What Torch-TensorRT makes of every network; a process of its own that prints JSON, for test_tensorrt.py.

Each network as it is trained (with batch normalisation, in evaluation mode) and folded, in float32 and
float16; and, as a control, a network with an operator that TensorRT lacks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from streamer.graph import FeatureSpec
from train.export.tensorrt_child import lower, lowered_difference, operators
from train.export.without_gpu import import_torch_tensorrt
from train.models import ModelConfig, build_model
from train.models.inference import InferenceNetwork, folded

CLASSES, UNITS = 6, 16


class AsTrained(nn.Module):
    """Probabilities of a network as it is trained; float32 in and out, whatever it computes in."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model.to(dtype), dtype

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        output = self.model(features.to(self.dtype))
        logits = (output.classes.float(), *(head.float() for head in output.action_units[-1:]))
        return torch.softmax(logits[0], 1), *(torch.sigmoid(head) for head in logits[1:])


class Shifted(nn.Module):
    """Another function than the network's, but hardly."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, features: Tensor) -> Any:
        return self.module(features + 0.01)


class WithDeterminant(nn.Module):
    """The control."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.linalg.det(features[:, 0, :4])


def variants() -> dict[str, tuple[nn.Module, nn.Module]]:
    """Name -> the network as trained and folded: every network, feature type and type of number."""
    found: dict[str, tuple[nn.Module, nn.Module]] = {}
    wanted = [(f"GTS-GN ({n})", ModelConfig("gts-gn", fusion_layer=n), "B") for n in (1, 2, 3, 4)]
    wanted += [("SS-GN A", ModelConfig("ss-gn"), "A"), ("SS-GN B", ModelConfig("ss-gn"), "B")]
    wanted += [("GCN A", ModelConfig("gcn"), "A"), ("GCN B", ModelConfig("gcn"), "B")]
    for name, config, kind in wanted:
        for dtype in ("float32", "float16"):
            torch.manual_seed(0)
            spec = FeatureSpec(type="A" if kind == "A" else "B")
            model = build_model(config, spec, CLASSES, UNITS).eval()
            network = InferenceNetwork(folded(model, "gm14"), getattr(torch, dtype))
            found[f"{name} {dtype}"] = (AsTrained(model, getattr(torch, dtype)), network)
    return found


def main() -> None:
    torch_tensorrt, _ = import_torch_tensorrt()
    features = torch.randn(8, 3, 14, 4, generator=torch.Generator().manual_seed(0))
    report: dict[str, dict[str, Any]] = {}
    forms = {
        f"{name} {form}": module
        for name, pair in variants().items()
        for form, module in zip(("as trained", "folded"), pair, strict=True)
    }
    for name, module in (forms | {"control": WithDeterminant()}).items():
        graph = lower(torch_tensorrt, module.eval(), features[:1])
        count, missing = operators(torch_tensorrt, graph)
        report[name] = {"operators": count, "missing": missing}
        report[name]["difference"] = lowered_difference(graph, module, features)
        # With other input the comparison has to see a difference.
        report[name]["control"] = lowered_difference(graph, Shifted(module), features)
    print("\n" + json.dumps(report))


if __name__ == "__main__":
    main()
