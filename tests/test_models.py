"""The networks: shapes, sizes, the graph, the fusion, and the folded form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from streamer.engines.folding import fold
from streamer.engines.numpy_reference import run
from streamer.graph import (
    FeatureSpec,
    adjacency,
    normalised_adjacency,
    temporal_adjacency,
)
from train.export.onnx_graph import to_onnx
from train.models import GTSGN, ModelConfig, ResNet18, build_model
from train.models.inference import InferenceNetwork, folded
from train.models.layers import SSModule

CLASSES, UNITS = 6, 5
TYPE_B = FeatureSpec(type="B")


def build(**settings) -> GTSGN:
    model = build_model(ModelConfig(**settings), TYPE_B, CLASSES, UNITS)
    assert isinstance(model, GTSGN)
    return model


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with no parameter or statistic at its initial value, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                assert module.running_mean is not None and module.running_var is not None
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(generator=generator)
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 3.0, generator=generator)
        for name, parameter in model.named_parameters():
            if name.endswith("adjacency.learned"):
                parameter.normal_(std=0.2, generator=generator)
    return model.eval()


def features(count: int = 4, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, 14, 4, generator=torch.Generator().manual_seed(seed))


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("config", "anchor"),
    [
        (ModelConfig("ss-gn", lam=False), 163_710),
        (ModelConfig("gcn", lam=False), 39_760),
    ],
)
def test_size_is_within_5_percent_of_the_papers(config, anchor):
    model = build_model(config, FeatureSpec(type="A"), classes=6, action_units=0)
    assert parameters(model) == pytest.approx(anchor, rel=0.05)


@pytest.mark.parametrize("name", ["gts-gn", "ss-gn", "gcn"])
@pytest.mark.parametrize("lam", [True, False])
def test_every_network_gives_logits_and_the_features_of_its_layers(name, lam):
    model = build_model(ModelConfig(name, lam=lam), TYPE_B, CLASSES, UNITS)
    output = model(features(4))
    assert output.classes.shape == (4, CLASSES)
    assert [tuple(f.shape) for f in output.features] == [(4, 3, 14, w) for w in (64, 64, 128, 128)]
    assert output.classes.isfinite().all()
    output.classes.sum().backward()


@pytest.mark.parametrize("layer", [1, 2, 3, 4])
def test_heads_stand_after_every_layer_from_the_fusion_on(layer):
    output = build(fusion_layer=layer)(features(4))
    assert [tuple(h.shape) for h in output.action_units] == [(4, UNITS)] * (5 - layer)
    assert [f.shape[-1] for f in output.features] == [64, 64, 128, 128][layer - 1 :]


def test_fusion_layer_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"fusion_layer must be 1\.\.4, not 5"):
        build(fusion_layer=5)


def test_gts_gn_refuses_type_a():
    with pytest.raises(ValueError, match="needs features of type B"):
        build_model(ModelConfig(), FeatureSpec(type="A"), CLASSES, UNITS)


@pytest.mark.parametrize("layer", [1, 2, 3, 4])
def test_streams_stay_apart_until_the_fusion_and_are_summed_there(layer):
    model = randomised(build(fusion_layer=layer))
    seen: dict[str, torch.Tensor] = {}
    for stream in ("low", "high"):
        stack = model.get_submodule(stream)
        assert isinstance(stack, nn.ModuleList) and len(stack) == layer
        stack[-1].register_forward_hook(lambda _m, _i, out, stream=stream: seen.update({stream: out}))
    with torch.no_grad():
        output = model(features())
        before = dict(seen)
        torch.testing.assert_close(output.features[0], before["low"] + before["high"])
        changed = features()
        changed[..., 2:] += 1.0  # D and alpha alone
        model(changed)
    torch.testing.assert_close(seen["low"], before["low"])
    assert (seen["high"] - before["high"]).abs().max() > 0.01
    assert len(model.get_submodule("fused")._modules) == 4 - layer


@pytest.mark.parametrize(("name", "matrix"), [("gts-gn", adjacency()), ("gcn", temporal_adjacency())])
def test_learnable_adjacency_starts_as_the_fixed_graph(name, matrix):
    torch.manual_seed(0)
    fixed = build_model(ModelConfig(name, lam=False), TYPE_B, CLASSES, UNITS).eval()
    torch.manual_seed(0)
    learned = build_model(ModelConfig(name, lam=True), TYPE_B, CLASSES, UNITS).eval()
    torch.testing.assert_close(fixed(features()).classes, learned(features()).classes)
    layer = learned.low[0] if isinstance(learned, GTSGN) else learned.layers[0]
    graph = layer.get_submodule("adjacency")
    torch.testing.assert_close(graph(), torch.from_numpy(normalised_adjacency(matrix)))
    loss = learned(features()).classes.square().sum()
    loss.backward()
    gradient = graph.get_parameter("learned").grad
    assert gradient is not None and gradient.abs().sum() > 0  # every pair of nodes can become an edge
    assert (gradient[matrix == 0].abs() > 0).any()


def test_a_layer_without_lam_sees_only_neighbours_and_one_frame_each_way():
    torch.manual_seed(0)
    graph = torch.from_numpy(normalised_adjacency(adjacency()))
    module = SSModule(graph, 2, 3, lam=False)
    x = torch.zeros(1, 3, 14, 2, requires_grad=True)
    nn.init.ones_(module.norm.norm.bias)  # above 0, where ReLU lets gradients through
    module.eval()(x)[0, 0, 0].sum().backward()  # onset of node 0
    assert x.grad is not None
    touched = {(f, n) for f in range(3) for n in range(14) if x.grad[0, f, n].abs().sum() > 0}
    assert touched == {(frame, node) for frame in (0, 1) for node in (0, 1)}  # node 0's neighbour is 1


def test_ss_module_is_gcn_per_frame_then_tcn_over_frames():
    torch.manual_seed(0)
    graph = torch.from_numpy(normalised_adjacency(adjacency()))
    module = randomised(SSModule(graph, 4, 6, lam=True))
    assert isinstance(module, SSModule)
    x = features(2)
    assert module.adjacency.learned is not None
    with torch.no_grad():
        gcn = torch.stack(
            [(graph + module.adjacency.learned) @ x[:, f] @ module.theta for f in range(3)],
            1,
        )
        tcn = nn.functional.conv1d(
            gcn.permute(0, 2, 3, 1).flatten(0, 1),  # (B nodes, channels, frames)
            module.taps.permute(2, 1, 0).contiguous(),
            padding=1,
        )
        tcn = tcn.unflatten(0, (2, 14)).permute(0, 3, 1, 2)
        torch.testing.assert_close(module(x), torch.relu(module.norm(tcn)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gts-gn", "ss-gn", "gcn"])
def test_in_evaluation_a_sample_does_not_depend_on_its_batch(name):
    model = randomised(build_model(ModelConfig(name), TYPE_B, CLASSES, UNITS))
    x = features(6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.no_grad():
        whole = model(x).classes
        torch.testing.assert_close(model(x[order]).classes, whole[order], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model(x[2:3]).classes, whole[2:3], rtol=1e-4, atol=1e-5)


def test_one_seed_gives_one_network():
    states = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        states.append(build().state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(states[0].values(), states[2].values(), strict=True))


VARIANTS = [
    *(ModelConfig("gts-gn", fusion_layer=layer) for layer in (1, 2, 3, 4)),
    *(ModelConfig(name) for name in ("ss-gn", "gcn")),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: f"{v.name}-{v.fusion_layer}")
@pytest.mark.parametrize("lam", [True, False])
@pytest.mark.parametrize("kind", ["A", "B"])
def test_folded_network_computes_the_same(variant, lam, kind):
    """In torch, in NumPy and in ONNX Runtime, with action units and without."""
    if variant.name == "gts-gn" and kind == "A":
        return
    for units in (UNITS, 0) if variant.name == "gts-gn" else (0,):
        model = build_model(replace(variant, lam=lam), FeatureSpec(type=kind), CLASSES, units)
        randomised(model)
        x = features(20)
        network = folded(model, "gm14", temperature=1.7)
        with torch.no_grad():
            output = model(x)
            expected = [torch.softmax(output.classes / 1.7, 1)]
            expected += [torch.sigmoid(head) for head in output.action_units[-1:]]
            in_torch = InferenceNetwork(network)(x)
        session = ort.InferenceSession(to_onnx(network))
        in_onnx = session.run(list(network.outputs), {"features": x.numpy()})
        in_numpy = run(network, x.numpy())[: len(expected)]
        for wanted, *found in zip(expected, in_torch, in_onnx, in_numpy, strict=True):
            for each in found:
                torch.testing.assert_close(torch.as_tensor(each), wanted, rtol=0, atol=1e-5)


def test_resnet18_has_the_papers_size_and_reads_three_channels():
    model = ResNet18(classes=6).eval()
    assert parameters(model) == 11_179_590
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 224, 224)).shape == (2, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("fused.0.taps"), "the weights have no fused.0.taps"),
        (lambda s: s.update({"low.0.theta": s["low.0.theta"][:1]}), "the first layer reads 1 channels"),
        (
            lambda s: s.update({"high.0.theta": s["high.0.theta"][:, :5]}),
            "high.0.norm.norm.weight is float32",
        ),
        (lambda s: s["fused.1.theta"].__setitem__((0, 0), np.nan), "fused.1.theta holds what is not finite"),
        (
            lambda s: [s[f"fused.1.{n}"].__imul__(1e25) for n in ("theta", "taps")],
            "the folded weights are not finite",
        ),
        (lambda s: s["low_norm.norm.running_var"].__isub__(9.0), "running_var has a negative value"),
        (lambda s: s.update({"classes.linear.bias": np.zeros(6, np.int64)}), "it has to be float"),
        (lambda s: s.clear(), "the weights of no GTS-GN"),
    ],
)
def test_weights_that_are_none_are_refused(change, message):
    state = {name: value.numpy().copy() for name, value in randomised(build()).state_dict().items()}
    fold(state, "gm14")
    change(state)
    with pytest.raises(ValueError, match=message):
        fold(state, "gm14")


def test_a_temperature_of_nothing_is_refused():
    state = {name: value.numpy() for name, value in build().state_dict().items()}
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature"):
            fold(state, "gm14", temperature)
