"""Action units move the skin as FACS says, on both sides or one, and scale and vary as promised."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.simulation.facs import (
    ACTION_UNITS,
    TEMPLATE_NODES,
    ActionUnit,
    Bump,
    draw_field,
    motion,
    parse_unit,
    profile,
)

BROW_INNER, BROW_OUTER, CORNER_RIGHT, UPPER_LIP, CORNER_LEFT, LOWER_LIP = (2, 3), (0, 5), 10, 11, 12, 13


@pytest.mark.parametrize(
    ("unit", "node", "axis", "sign"),
    [
        ("AU1", 2, 1, -1),  # inner brow up
        ("AU2", 0, 1, -1),  # outer brow up
        ("AU4", 3, 1, 1),  # brow down
        ("AU4", 3, 0, -1),  # left inner brow towards the midline
        ("AU4", 2, 0, 1),
        ("AU9", 9, 1, -1),  # nostril up
        ("AU10", UPPER_LIP, 1, -1),
        ("AU12", CORNER_LEFT, 0, 1),  # corner out
        ("AU12", CORNER_RIGHT, 0, -1),
        ("AU12", CORNER_LEFT, 1, -1),  # and up
        ("AU14", CORNER_LEFT, 0, 1),
        ("AU15", CORNER_RIGHT, 1, 1),  # corner down
        ("AU17", LOWER_LIP, 1, -1),
        ("AU20", CORNER_RIGHT, 0, -1),
        ("AU25", LOWER_LIP, 1, 1),
        ("AU26", LOWER_LIP, 1, 1),
    ],
)
def test_direction(unit, node, axis, sign):
    assert np.sign(motion(TEMPLATE_NODES, {unit: 1.0})[node, axis]) == sign


@pytest.mark.parametrize("unit", list(ACTION_UNITS))
def test_bilateral_units_are_symmetric(unit):
    points = np.random.default_rng(0).uniform(-1, 1.5, (50, 2))
    mirrored = motion(points * (-1, 1), {unit: 1.0}) * (-1, 1)
    np.testing.assert_allclose(motion(points, {unit: 1.0}), mirrored, atol=1e-12)


@pytest.mark.parametrize(("side", "moved", "still"), [("L", CORNER_LEFT, CORNER_RIGHT), ("R", 10, 12)])
def test_one_sided_units(side, moved, still):
    lengths = np.hypot(*motion(TEMPLATE_NODES, {f"{side}12": 1.0}).T)
    assert lengths[moved] > 0.9
    assert lengths[still] < 0.05


def test_units_add_up_and_scale():
    both = motion(TEMPLATE_NODES, {"AU4": 0.5, "AU12": 2.0})
    parts = 0.5 * motion(TEMPLATE_NODES, {"AU4": 1}) + 2 * motion(TEMPLATE_NODES, {"AU12": 1})
    np.testing.assert_allclose(both, parts)


def test_peak():
    field = draw_field({"AU6": 1.0, "AU12": 1.0}).with_peak(TEMPLATE_NODES, 0.01)
    assert np.hypot(*field.at(TEMPLATE_NODES).T).max() == pytest.approx(0.01)
    with pytest.raises(ValueError, match="moves none"):
        draw_field({"AU5": 1.0}).with_peak(TEMPLATE_NODES[7:], 0.01)


def test_a_field_follows_another_face():
    """On a face whose mouth lies lower, AU12 acts lower."""
    nodes = TEMPLATE_NODES.copy()
    nodes[10:] += (0.0, 0.3)
    plain, adapted = draw_field({"AU12": 1.0}), draw_field({"AU12": 1.0}).adapted(nodes)
    assert np.hypot(*adapted.at(nodes[12:13]).T) > 1.5 * np.hypot(*plain.at(nodes[12:13]).T)
    np.testing.assert_allclose(plain.adapted(TEMPLATE_NODES).bumps, plain.bumps)


def test_variation_is_seeded_and_grows():
    def drawn(seed, variation):
        return motion(TEMPLATE_NODES, {"AU12": 1.0}, np.random.default_rng(seed), variation)

    np.testing.assert_array_equal(drawn(1, 1.0), drawn(1, 1.0))
    assert not np.allclose(drawn(1, 1.0), drawn(2, 1.0))
    plain = motion(TEMPLATE_NODES, {"AU12": 1.0})
    spread = [np.mean([np.abs(drawn(s, v) - plain).max() for s in range(20)]) for v in (0.3, 1.0)]
    assert 0 < spread[0] < spread[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("AU12", ("AU12", 0)), ("12", ("AU12", 0)), ("l12", ("AU12", 1)), ("R4", ("AU4", -1))],
)
def test_parse(text, expected):
    assert parse_unit(text) == expected


def test_unknown_unit_names_the_known_ones():
    with pytest.raises(KeyError, match="AU99.*AU12"):
        parse_unit("AU99")


def test_profile_rises_to_the_apex_and_returns():
    assert profile(1.0, 1.0, 1.2, 1.5) == 0.0
    assert profile(1.2, 1.0, 1.2, 1.5) == pytest.approx(1.0)
    assert profile(1.5, 1.0, 1.2, 1.5, residual=0.2) == pytest.approx(0.2)
    assert profile(1.16, 1.0, 1.2, 1.5, hold=0.5) == pytest.approx(1.0)
    rise = [profile(t, 1.0, 1.2, 1.5) for t in np.linspace(1.0, 1.2, 30)]
    assert np.all(np.diff(rise) >= 0)


def test_another_table_takes_the_place_of_the_first():
    table = {"AU12": ActionUnit("lip corner puller", (Bump(0.44, 1.04, 0.0, 1.0, 0.2),))}
    down = draw_field({"12": 1.0}, table=table).at(TEMPLATE_NODES)
    assert down[CORNER_LEFT, 1] > 0.9
    with pytest.raises(KeyError, match=r"AU4.*known: AU12\W*$"):
        parse_unit("AU4", table)
