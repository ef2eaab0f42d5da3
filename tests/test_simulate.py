"""Simulated expressions: what the labels promise is in the nodes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from streamer.errors import UsageError
from streamer.graph import NODES
from streamer.simulation.facs import TEMPLATE_NODES
from train.combinations import ACTION_UNIT_NAMES, CLASSES, COMBINATIONS
from train.simulate import SimulationConfig, simulate
from train.tracker_noise import TRACKER_NOISE_FILE, TrackerNoise, load_noise

# The objective classes' exact sets, without those that the nodes cannot see.
OBJECTIVE = {
    "I": "6 12 6+12 6+7+12 7+12",
    "II": "1+2 25 1+2+25 25+26",
    "III": "23 4 4+7 4+5 4+5+7 17+24 4+6+7 4+38",
    "IV": "10 9 4+9 4+7+9 4+9+17 4+7+10 4+5+7+9 7+10",
    "V": "1 15 1+4 6+15 15+17",
}
CALM = SimulationConfig(
    pose_deg=(0.0, 0.0, 0.0),
    pose_change_deg=0.0,
    variation=(0.0, 0.0),
    apex_reached=(1.0, 1.0),
    offset_residual=(0.0, 0.0),
    one_sided=0.0,
    extra_units=0.0,
    lost_node=0.0,
    live_offset=0.0,
    crosstalk=(1.0, 1.0),
)
SILENT = TrackerNoise(
    attenuation_mean=np.ones(14),
    attenuation_std=np.zeros(14),
    covariance=np.zeros((28, 28)),
    iod_px=110.0,
    crosstalk=np.zeros((28, 28)),
    reference="a tracker that makes no errors",
)


def displacement(expressions, frame: int) -> np.ndarray:
    """(N, 14, 2)."""
    return expressions.nodes[:, frame] - expressions.nodes[:, 0]


def largest(displacements: np.ndarray) -> np.ndarray:
    return np.hypot(displacements[..., 0], displacements[..., 1]).max(1)


def test_combinations_are_those_of_the_objective_classes():
    for label, sets in OBJECTIVE.items():
        assert sorted(name for name, _ in COMBINATIONS[label]) == sorted(sets.split())
    taken = [name for label in CLASSES for name, _ in COMBINATIONS[label]]
    assert len(taken) == len(set(taken))
    # {1,2,4} and {20} are class VI, {5,24} is class II
    assert not {"1+2+4", "20", "5", "5+24"} & set(taken)


def test_shapes_ranges_and_balance():
    expressions = simulate(1200, seed=0)
    assert expressions.nodes.shape == (1200, 3, 14, 2) and expressions.nodes.dtype == np.float32
    assert np.isfinite(expressions.nodes).all()
    assert expressions.units.shape == (1200, len(ACTION_UNIT_NAMES))
    assert expressions.amplitude.min() >= 0.003 and expressions.amplitude.max() <= 0.03
    counts = np.bincount(expressions.label, minlength=len(CLASSES))
    assert counts.min() > 150 and counts.max() < 260
    # log-uniform: as many below as above the geometric mean of the ends
    assert np.mean(expressions.amplitude < np.sqrt(0.003 * 0.03)) == pytest.approx(0.5, abs=0.06)


def test_faces_look_like_the_template_and_differ():
    rest = simulate(600, seed=1).nodes[:, 0]
    # turned heads look longer in units of the eyes' distance, and some mouths stand open
    assert np.abs(rest.mean(0) - TEMPLATE_NODES).max() < 0.12
    spread = rest.std(0)
    assert spread.min() > 0.02 and spread.max() < 0.2


def test_without_pose_and_noise_the_apex_moves_by_the_amplitude_and_the_offset_not_at_all():
    expressions = simulate(200, seed=2, config=CALM, noise=SILENT)
    # the camera's perspective and the motion in depth change a displacement by a few percent
    change = np.abs(largest(displacement(expressions, 1)) / expressions.amplitude - 1.0)
    assert np.quantile(change, 0.95) < 0.1
    assert change.max() < 0.2
    assert np.abs(displacement(expressions, 2)).max() < 1e-6


@pytest.mark.parametrize(
    ("name", "node", "sign"),
    [
        ("AU1", "left brow inner", -1.0),
        ("AU12", "left mouth corner", -1.0),
        ("AU15", "right mouth corner", 1.0),
    ],
)
def test_units_move_their_nodes_the_right_way(name, node, sign):
    expressions = simulate(400, seed=3, config=CALM, noise=SILENT)
    alone = (expressions.units.sum(1) == 1) & (expressions.units[:, ACTION_UNIT_NAMES.index(name)] == 1)
    index = [n.name for n in NODES].index(node)
    assert alone.any()
    vertical = displacement(expressions, 1)[alone, index, 1]
    assert (sign * vertical > 0).all()


def test_tracker_attenuates_and_adds_noise_constant_in_pixels():
    config = replace(CALM, iod_px=(220.0, 220.0), noise_spread=1.0)
    noisy = replace(SILENT, covariance=np.eye(28) * 0.001**2, iod_px=110.0)
    offset = displacement(simulate(2000, 4, config, noisy), 2)  # no motion is left: noise alone
    assert offset.std() == pytest.approx(0.0005, rel=0.03)  # twice the pixels, half the IOD
    weak = replace(SILENT, attenuation_mean=np.full(14, 0.5))
    full, half = simulate(50, 5, CALM, SILENT), simulate(50, 5, CALM, weak)
    np.testing.assert_allclose(displacement(half, 1), 0.5 * displacement(full, 1), atol=1e-6)


def test_noise_has_the_measured_covariance():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(28, 28)) * 0.0003
    covariance = root @ root.T
    config = replace(CALM, iod_px=(110.0, 110.0), noise_spread=1.0)
    sample = displacement(simulate(6000, 6, config, replace(SILENT, covariance=covariance)), 2)
    found = np.cov(sample.reshape(-1, 28).T)
    assert np.abs(found - covariance).max() < 0.1 * np.abs(covariance).max()


def test_head_rotation_leaks_into_the_measurement_only_as_far_as_said():
    turning = replace(CALM, pose_change_deg=2.0, pose_leak=0.2)
    assert largest(displacement(simulate(100, 7, turning, SILENT), 2)).mean() > 5e-4
    sealed = replace(turning, pose_leak=0.0)
    assert np.abs(displacement(simulate(100, 7, sealed, SILENT), 2)).max() < 1e-6


def test_equal_seeds_give_equal_draws_and_others_do_not():
    one, same, other = simulate(50, (3, 1)), simulate(50, (3, 1)), simulate(50, (3, 2))
    assert np.array_equal(one.nodes, same.nodes) and np.array_equal(one.label, same.label)
    assert not np.array_equal(one.nodes, other.nodes)


def test_crosstalk_grows_with_the_expression_and_is_shared_by_apex_and_offset():
    config = replace(CALM, offset_residual=(0.5, 0.5), apex_reached=(1.0, 1.0))
    talking = replace(SILENT, attenuation_mean=np.zeros(14), crosstalk=np.eye(28) * 0.1**2)
    expressions = simulate(3000, 8, config, talking)
    apex, offset = displacement(expressions, 1), displacement(expressions, 2)
    assert (apex / expressions.amplitude[:, None, None]).std() == pytest.approx(0.1, rel=0.05)
    share = (apex * offset).sum((1, 2)) / (apex * apex).sum((1, 2))
    np.testing.assert_allclose(offset, share[:, None, None] * apex, atol=1e-6)


def test_live_offset_is_a_part_of_the_apex_reading_noise_and_all():
    noisy = replace(SILENT, covariance=np.eye(28) * 0.001**2)
    expressions = simulate(50, 9, replace(CALM, live_offset=1.0, offset_residual=(0.2, 0.4)), noisy)
    apex, offset = displacement(expressions, 1), displacement(expressions, 2)
    share = (apex * offset).sum((1, 2)) / (apex * apex).sum((1, 2))
    np.testing.assert_allclose(offset, share[:, None, None] * apex, atol=1e-6)
    assert share.min() >= -1e-4 and share.max() <= 0.4001


def test_the_measured_noise_is_there_and_usable():
    noise = load_noise()
    assert noise.attenuation_mean.min() > 0.2 and noise.attenuation_mean.max() < 1.1
    for covariance in (noise.covariance, noise.crosstalk):
        np.testing.assert_allclose(covariance, covariance.T, atol=1e-7)
        assert np.linalg.eigvalsh(covariance).min() > -1e-6


def test_a_bad_noise_file_is_refused(tmp_path):
    path = tmp_path / "noise.json"
    with pytest.raises(UsageError, match="no tracker noise file"):
        load_noise(path)
    data = json.loads(TRACKER_NOISE_FILE.read_text())
    path.write_text(json.dumps(data))
    assert load_noise(path).iod_px == 110.0
    data["noise_iod"]["cov"] = [[1.0]]
    path.write_text(json.dumps(data))
    with pytest.raises(UsageError, match="no tracker noise file"):
        load_noise(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amplitude": (0.03, 0.003)}, r"amplitude is 0.03 .. 0.003"),
        ({"iod_px": (0.0, 100.0)}, "iod_px"),
        ({"lost_node": 1.5}, "lost_node is 1.5; must be a probability"),
        ({"noise_spread": 0.5}, "noise_spread 1"),
        ({"pose_deg": (1.0, float("nan"), 1.0)}, "pose_deg"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SimulationConfig(**change)
