"""The motion magnification network: its scenes, its weights, and what it must do by construction."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from streamer.errors import UsageError
from train.__main__ import main
from train.composites import MOST_MAGNIFIED_PX, MOST_MOTION_PX, draw_batch, draw_scene
from train.magnify import (
    HELD_OUT_SEED,
    Magnifier,
    MagnifierConfig,
    load_magnifier,
    magnifier_loss,
    magnify,
    measured_factor,
)


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads on busy cores wait for each other, layer by layer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def network() -> Magnifier:
    torch.manual_seed(0)
    return Magnifier().eval()


@pytest.fixture
def weights(network: Magnifier, tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), path)
    return path


def moved_px(a: np.ndarray, b: np.ndarray) -> float:
    """A measure of how far b has moved from a: mean difference over mean gradient."""
    grey_a, grey_b = a.mean(0), b.mean(0)
    return float(np.abs(grey_b - grey_a).mean() / np.hypot(*np.gradient(grey_a)).mean())


def test_scenes_move_by_the_factor():
    rng = np.random.default_rng(0)
    for _ in range(6):
        scene = draw_scene(rng, 48)
        assert all(
            scene[name].shape == (3, 48, 48) and scene[name].dtype == np.float32 for name in ("a", "b", "y")
        )
        assert np.abs(scene["y"]).max() <= 1.0
        assert moved_px(scene["a"], scene["b"]) < MOST_MOTION_PX
        assert moved_px(scene["a"], scene["y"]) < MOST_MAGNIFIED_PX
        assert moved_px(scene["a"], scene["y"]) > 0.9 * moved_px(scene["a"], scene["b"])
    small = draw_scene(rng, 48, factor=3.0, most_motion_px=0.5)
    assert small["factor"] == 3.0 and moved_px(small["a"], small["b"]) < 0.5


def test_scenes_are_a_function_of_their_seed():
    first, again, other = (draw_batch(np.random.default_rng(seed), 2, 32) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["a"], other["a"])
    assert first["factor"].shape == (2,)


def test_a_factor_of_one_changes_nothing_of_the_shape(network: Magnifier):
    scenes = {
        name: torch.from_numpy(array) for name, array in draw_batch(np.random.default_rng(0), 2, 32).items()
    }
    with torch.inference_mode():
        texture, shape = network.encoder(scenes["b"])
        plain = network.decoder(texture, shape)
        one, three = (network(scenes["a"], scenes["b"], torch.full((2,), factor)) for factor in (1.0, 3.0))
        still = network(scenes["b"], scenes["b"], torch.full((2,), 9.0))
    assert torch.equal(one, plain), "nothing is added"
    assert torch.equal(still, plain), "where nothing moves, nothing is magnified"
    assert not torch.allclose(three, plain)


def test_every_weight_learns(network: Magnifier):
    scenes = {
        name: torch.from_numpy(array) for name, array in draw_batch(np.random.default_rng(0), 1, 32).items()
    }
    loss, seen = magnifier_loss(network, scenes)
    loss.backward()
    assert 0 < float(seen.detach()) < float(loss.detach())
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_any_size_of_picture(network: Magnifier):
    rng = np.random.default_rng(0)
    onset, picture = (rng.integers(0, 256, (37, 50, 3), dtype=np.uint8) for _ in range(2))
    out = magnify(network, onset, picture, 3.0)
    assert out.shape == picture.shape and out.dtype == np.uint8
    assert not np.array_equal(out, magnify(network, picture, picture, 3.0))


class Extrapolation(Magnifier):
    """Magnifies by what a picture changes in proportion to a small motion; `share` of what is asked for."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, first, second, factor):
        return 0.9 * second + self.share * (factor - 1.0).reshape(-1, 1, 1, 1) * (second - first)


def test_how_far_a_network_magnifies_is_measured():
    assert measured_factor(Extrapolation(0.0), 48, scenes=3) == pytest.approx(1.0)
    assert measured_factor(Extrapolation(1.0), 48, scenes=9) == pytest.approx(3.0, abs=0.2)
    assert measured_factor(Extrapolation(0.5), 48, scenes=9) == pytest.approx(2.0, abs=0.1)
    assert measured_factor(Extrapolation(1.0), 48, 5.0, scenes=9) == pytest.approx(5.0, abs=0.5)


def test_seeds_of_training_are_others_than_that_of_the_measurement():
    for seed in (-1, HELD_OUT_SEED):
        with pytest.raises(ValueError, match="seed must be"):
            MagnifierConfig(out=Path("unused"), seed=seed)


# -- weights -------------------------------------------------------------------------------------------


def test_weights_come_back(network: Magnifier, weights: Path, tmp_path: Path):
    pictures = torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16), torch.tensor([3.0])
    expected = network(*pictures)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    renamed = {
        f"net.{name.replace('shape', 'motion')}": tensor for name, tensor in network.state_dict().items()
    }
    torch.save({"state_dict": renamed}, tmp_path / "others.pt")
    for path in (weights, tmp_path / "weights.pth", tmp_path / "others.pt"):
        assert torch.equal(load_magnifier(path)(*pictures), expected), path


def test_weights_that_are_refused(network: Magnifier, weights: Path, tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "pwned",))

    bad = tmp_path / "bad.pth"
    bad.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UsageError, match="no state dict that is safe to load.*state_dict"):
        load_magnifier(bad)
    torch.save(Evil(), bad)
    with pytest.raises(UsageError, match="safe to load"):
        load_magnifier(bad)
    assert not (tmp_path / "pwned").exists()
    state = network.state_dict()
    name = next(iter(state))
    for changed, message in [
        ({k: v for k, v in state.items() if k != name}, name),
        (state | {name: torch.zeros(1)}, name),
        (state | {name: torch.full_like(state[name], torch.nan)}, "not finite"),
    ]:
        torch.save(changed, bad)
        with pytest.raises(UsageError, match=message):
            load_magnifier(bad)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="no safetensors file"):
        load_magnifier(tmp_path / "bad.safetensors")
    with pytest.raises(UsageError, match="cannot be read"):
        load_magnifier(tmp_path / "nowhere.safetensors")


def test_the_command_trains_and_repeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    states = []
    for name in "ab":
        command = ["magnifier", "--out", str(tmp_path / name), "--steps", "2", "--batch", "1", "--size", "16"]
        assert main([*command, "--device", "cpu"]) == 0
        states.append(load_file(tmp_path / name / "weights.safetensors"))
    said = capsys.readouterr().out
    assert "mean absolute error" in said and "asked to magnify" in said
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    load_magnifier(tmp_path / "a/weights.safetensors")
