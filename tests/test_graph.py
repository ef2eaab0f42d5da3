"""Node sets, face frame and node features: the kernels against their plain twins, invariances, a golden
case, and what happens to degenerate input."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path

import naive
import numpy as np
import pytest

from streamer import graph
from streamer.graph import (
    EDGES,
    NODE_SETS,
    NODES,
    REGIONS,
    FeatureSpec,
    adjacency,
    align,
    build_graph,
    build_graphs,
    face_frame_nodes,
    key_frame_nodes,
    normalised_adjacency,
    temporal_adjacency,
    to_face_frame,
)
from streamer.kernels import graph as kernels

ROOT = Path(__file__).parent.parent
ALL_SETS = list(NODE_SETS)
SPECS = [
    FeatureSpec(angle=angle, centre=centre, magnification=magnification)
    for angle in ("atan2", "arctan")
    for centre in ("onset-centroid", "eyes")
    for magnification in ("none", "factor", "peak")
]


def face_landmarks(rng: np.random.Generator, frames: int = 3, spread: float = 0.02) -> np.ndarray:
    """(frames, 478, 3) pixels: an average face, different in every point, its expression moving."""
    landmarks = np.zeros((478, 2))
    landmarks[:] = rng.normal(0.0, 0.5, (478, 2))
    landmarks[NODE_SETS["dlib68"].mediapipe] = NODE_SETS["dlib68"].rest
    landmarks += rng.normal(0.0, spread, landmarks.shape)
    moved = np.repeat(landmarks[None], frames, axis=0)
    movable = np.setdiff1d(np.arange(478), graph.STABLE_MEDIAPIPE)
    moved[1:, movable] += rng.normal(0.0, spread, (frames - 1, len(movable), 2))
    depth = rng.normal(0.0, 20.0, (frames, 478, 1))
    return np.concatenate([moved * 120.0 + (320.0, 240.0), depth], axis=-1)


def turned(landmarks: np.ndarray, angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    """Landmarks after an image-space rotation, scaling and shift (z untouched)."""
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    out = landmarks.copy()
    out[..., 0] = c * landmarks[..., 0] - s * landmarks[..., 1] + shift[0]
    out[..., 1] = s * landmarks[..., 0] + c * landmarks[..., 1] + shift[1]
    return out


def moving_nodes(rng: np.random.Generator, name: str = "gm14", samples: int = 5) -> np.ndarray:
    """(samples, 3, n, 2) float32, face frame: faces near the average with a small motion."""
    rest = NODE_SETS[name].rest
    onset = rest + rng.normal(0.0, 0.04, (samples, 1, *rest.shape))
    motion = rng.normal(0.0, 0.01, (samples, 3, *rest.shape))
    motion[:, 0] = 0.0
    return (onset + motion).astype(np.float32)


# Node sets


def test_the_14_nodes_are_the_documented_ones():
    table = [(n.dlib, n.mediapipe, n.neighbour) for n in NODES]
    assert table == [
        (17, 70, 1),
        (19, 105, 2),
        (21, 107, 6),
        (22, 336, 6),
        (24, 334, 3),
        (26, 300, 4),
        (27, 168, 7),
        (30, 1, 11),
        (31, 98, 7),
        (35, 327, 7),
        (48, 61, 11),
        (51, 0, 13),
        (54, 291, 11),
        (57, 17, 10),
    ]
    assert NODES[0].name == "right brow outer"
    assert NODES[12].name == "left mouth corner"
    documented = "0-1 1-2 2-6 6-3 3-4 4-5 6-7 7-8 7-9 8-10 9-12 7-11 10-11 11-12 12-13 13-10"
    assert {frozenset(e) for e in EDGES} == {frozenset(map(int, e.split("-"))) for e in documented.split()}
    assert len(EDGES) == 16
    assert REGIONS == {
        "brow_right": (0, 1, 2),
        "brow_left": (3, 4, 5),
        "nose": (6, 7, 8, 9),
        "mouth": (10, 11, 12, 13),
    }


def test_sizes_of_the_node_sets():
    assert {name: len(nodes) for name, nodes in NODE_SETS.items()} == {"gm14": 14, "dlib31": 31, "dlib68": 68}
    parts = {part: len(members) for part, members in NODE_SETS["dlib31"].regions.items()}
    assert parts == {"brow_right": 5, "brow_left": 5, "nose": 9, "mouth": 12}
    assert list(NODE_SETS["dlib68"].dlib) == list(range(68))
    with pytest.raises(ValueError, match="gm15.*known: gm14, dlib31, dlib68"):
        graph.node_set_named("gm15")


@pytest.mark.parametrize("name", ALL_SETS)
def test_node_set_is_one_connected_graph_with_usable_neighbours(name):
    nodes = NODE_SETS[name]
    a = adjacency(name)
    assert a.dtype == np.float32
    assert (a == a.T).all() and (np.diag(a) == 0).all() and set(np.unique(a)) == {0.0, 1.0}
    assert a.sum() == 2 * len(nodes.edges)
    assert (np.linalg.matrix_power(np.eye(len(a)) + a, len(a)) > 0).all()
    assert (nodes.neighbour != np.arange(len(nodes))).all()
    assert len(set(nodes.mediapipe)) == len(nodes) and nodes.mediapipe.max() < 478
    # A direction needs a length: no neighbour may lie on its node on an average face.
    assert np.linalg.norm(nodes.rest - nodes.rest[nodes.neighbour], axis=1).min() > 0.05


@pytest.mark.parametrize("name", ALL_SETS)
def test_node_set_is_mirror_symmetric(name):
    nodes = NODE_SETS[name]
    mirrored = nodes.rest * (-1, 1)
    distance = np.linalg.norm(mirrored[:, None] - nodes.rest[None], axis=-1)
    mirror = distance.argmin(axis=1)
    assert distance.min(axis=1).max() < 1e-6
    edges = {frozenset(e) for e in nodes.edges}
    assert {frozenset((int(mirror[i]), int(mirror[j]))) for i, j in nodes.edges} == edges


def test_mediapipe_indices_lie_on_the_contours_of_their_part():
    vision = pytest.importorskip("mediapipe.tasks.python.vision")
    contours = vision.FaceLandmarksConnections
    known = {
        "jaw": contours.FACE_LANDMARKS_FACE_OVAL,
        "brow_right": contours.FACE_LANDMARKS_RIGHT_EYEBROW,
        "brow_left": contours.FACE_LANDMARKS_LEFT_EYEBROW,
        "nose": contours.FACE_LANDMARKS_NOSE,
        "eye_right": contours.FACE_LANDMARKS_RIGHT_EYE,
        "eye_left": contours.FACE_LANDMARKS_LEFT_EYE,
        "mouth": contours.FACE_LANDMARKS_LIPS,
    }
    for part, members in NODE_SETS["dlib68"].regions.items():
        allowed = {i for c in known[part] for i in (c.start, c.end)}
        assert {NODE_SETS["dlib68"].nodes[i].mediapipe for i in members} <= allowed, part


@pytest.mark.parametrize("name", ALL_SETS)
def test_normalised_adjacency_equals_its_twin(name):
    a = adjacency(name)
    result = normalised_adjacency(a)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, naive.normalised_adjacency(a.tolist()), atol=1e-6)
    eigenvalues = np.linalg.eigvalsh(result.astype(np.float64))
    assert eigenvalues.max() == pytest.approx(2.0, abs=1e-5) and eigenvalues.min() > -1e-5


def test_normalised_adjacency_of_a_node_without_edges():
    a = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], np.float32)
    assert normalised_adjacency(a).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_temporal_adjacency_joins_a_node_to_itself_in_the_next_frame():
    a = temporal_adjacency()
    assert a.shape == (42, 42) and a.dtype == np.float32 and (a == a.T).all()
    assert a.sum() == 2 * (3 * 16 + 2 * 14)
    assert (a[:14, :14] == adjacency()).all() and (a[28:, 28:] == adjacency()).all()
    assert a[5, 14 + 5] == 1 and a[14 + 5, 28 + 5] == 1
    assert a[5, 28 + 5] == 0 and a[5, 14 + 6] == 0


# Similarity transforms


@pytest.mark.parametrize("seed", range(5))
def test_similarity_fit_equals_its_twin(seed):
    rng = np.random.default_rng(seed)
    src = rng.normal(300.0, 80.0, (12, 2))
    dst = turned(src, rng.uniform(-3, 3), rng.uniform(0.2, 4.0), (5.0, -9.0)) + rng.normal(0, 6.0, (12, 2))
    weights = rng.uniform(0.0, 1.0, 12)
    np.testing.assert_allclose(
        kernels.similarity_fit(src, dst, weights),
        naive.similarity_fit(src, dst, weights),
        rtol=1e-9,
        atol=1e-9,
    )


def test_similarity_fit_ignores_points_of_weight_zero_and_never_mirrors():
    src = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [math.nan, math.inf]])
    dst = np.array([[3.0, 4.0], [3.0, 6.0], [1.0, 4.0], [0.0, 0.0]])
    weights = np.array([1.0, 1.0, 1.0, 0.0])
    assert kernels.similarity_fit(src, dst, weights) == pytest.approx((0.0, 2.0, 3.0, 4.0))
    mirrored = src[:3] * [1, -1]
    a, b, _, _ = kernels.similarity_fit(src[:3], mirrored, weights[:3])
    assert math.hypot(a, b) < 0.6  # a rotation cannot make the mirror image


def test_align_undoes_a_similarity_and_refuses_what_has_none():
    rng = np.random.default_rng(1)
    reference = rng.normal(0, 1, (20, 2))
    moved = turned(reference, 0.7, 90.0, (320.0, 200.0))
    aligned = align(moved, reference)
    assert aligned.dtype == np.float32
    np.testing.assert_allclose(aligned, reference, atol=1e-6)
    # An outlier with weight 0 does not pull the rest.
    moved[3] += 1000.0
    weights = np.ones(20)
    weights[3] = 0.0
    np.testing.assert_allclose(
        np.delete(align(moved, reference, weights), 3, 0), np.delete(reference, 3, 0), atol=1e-6
    )
    for points, w in [
        (np.full((20, 2), 7.0), None),
        (np.full((20, 2), 320.123), np.random.default_rng(1).uniform(0.0, 1.0, 20)),  # equal but for rounding
        (np.full((20, 2), math.nan), None),
        (moved, np.zeros(20)),
    ]:
        with pytest.raises(ValueError, match="no similarity transform fits"):
            align(points, reference, w)
    with pytest.raises(ValueError, match="shapes"):
        align(moved[:5], reference)
    with pytest.raises(ValueError, match="weights"):
        align(moved, reference, -np.ones(20))


# The face frame


def test_face_frame_is_the_eye_line():
    rng = np.random.default_rng(2)
    landmarks = face_landmarks(rng, 1)[0]
    # An eye line that rises to the right by 30 degrees, 80 px between the eye centres.
    right, left = np.array([200.0, 250.0]), np.array([200.0 + 80 * math.cos(0.5), 250.0 - 80 * math.sin(0.5)])
    for corners, centre in (((33, 133), right), ((362, 263), left)):
        half = rng.normal(0, 9, 2)
        landmarks[corners[0], :2], landmarks[corners[1], :2] = centre - half, centre + half
    middle = (right + left) / 2
    down = np.array([math.sin(0.5), math.cos(0.5)])
    landmarks[1, :2] = middle + 0.6 * 80 * down  # nose tip, node 7
    landmarks[70, :2] = right  # node 0
    nodes = to_face_frame(landmarks)
    assert nodes.shape == (14, 2) and nodes.dtype == np.float32
    np.testing.assert_allclose(nodes[7], [0.0, 0.6], atol=1e-5)
    np.testing.assert_allclose(nodes[0], [-0.5, 0.0], atol=1e-5)


@pytest.mark.parametrize("name", ALL_SETS)
@pytest.mark.parametrize("points", [478, 68])
def test_face_frame_nodes_equal_their_twin(name, points):
    rng = np.random.default_rng(3)
    landmarks = np.stack([face_landmarks(rng, 3) for _ in range(4)])
    if points == 68:
        landmarks = landmarks[:, :, NODE_SETS["dlib68"].mediapipe]
    corners = graph.EYE_CORNERS_MEDIAPIPE if points == 478 else graph.EYE_CORNERS_DLIB
    stable = graph.STABLE_MEDIAPIPE if points == 478 else graph.STABLE_DLIB
    index = NODE_SETS[name].mediapipe if points == 478 else NODE_SETS[name].dlib
    landmarks = landmarks.astype(np.float32)
    result = face_frame_nodes(landmarks, name)
    assert result.dtype == np.float32
    for sample, expected in zip(result, landmarks, strict=True):
        np.testing.assert_allclose(
            sample, naive.face_frame_nodes(expected, corners, stable, index), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("seed", range(5))
def test_features_do_not_depend_on_where_the_face_is_and_how_the_head_moves_in_the_image(seed):
    """Translation, rotation and scale of the whole clip, and another similarity for each later frame."""
    rng = np.random.default_rng(seed)
    landmarks = face_landmarks(rng)
    spec = FeatureSpec(magnification="peak")
    expected = build_graph(key_frame_nodes(landmarks), spec).features
    moved = np.stack(
        [
            turned(f, rng.uniform(-0.6, 0.6), rng.uniform(0.5, 2.0), tuple(rng.uniform(-200, 200, 2)))
            for f in landmarks
        ]
    )
    np.testing.assert_allclose(build_graph(key_frame_nodes(moved), spec).features, expected, atol=2e-4)


def test_a_head_that_moves_rigidly_makes_no_motion():
    rng = np.random.default_rng(7)
    first = face_landmarks(rng, 1)[0]
    frames = np.stack([first, turned(first, 0.2, 1.1, (20, -5)), turned(first, -0.1, 0.9, (-9, 30))])
    nodes = key_frame_nodes(frames)
    np.testing.assert_allclose(nodes[1], nodes[0], atol=1e-5)
    np.testing.assert_allclose(nodes[2], nodes[0], atol=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_landmarks_that_cannot_be_placed_are_refused(value):
    landmarks = np.stack([face_landmarks(np.random.default_rng(s)) for s in range(3)])
    bad = landmarks.copy()
    bad[2, 1, 33, 0] = value  # an eye corner of the apex
    with pytest.raises(ValueError, match="sample 2 cannot be placed"):
        face_frame_nodes(bad)
    for axis in (0, 1):
        bad = landmarks.copy()
        bad[1, 2, 61, axis] = value  # a node of the offset
        with pytest.raises(ValueError, match="sample 1 cannot be placed"):
            face_frame_nodes(bad)
    bad = landmarks.copy()
    bad[0, 0, [33, 133, 362, 263], :2] = 100.0
    with pytest.raises(ValueError, match="sample 0 cannot be placed"):
        face_frame_nodes(bad)
    with pytest.raises(ValueError, match="shape"):
        to_face_frame(landmarks[0, 0, :300])


# Node features


@pytest.mark.parametrize("name", ALL_SETS)
@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.angle}-{s.centre}-{s.magnification}")
def test_features_equal_their_twin(name, spec):
    spec = dataclasses.replace(spec, node_set=name)
    nodes = moving_nodes(np.random.default_rng(11), name)
    features = build_graphs(nodes, spec)
    assert features.shape == (5, 3, len(NODE_SETS[name]), 4) and features.dtype == np.float32
    for sample, result in zip(nodes, features, strict=True):
        expected = naive.graph_features(sample, NODE_SETS[name].neighbour, NODE_SETS[name].rest_angle, spec)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=2e-6)


def test_golden_case():
    """Worked by hand: node 10 (right mouth corner) moves by (-0.03, -0.04); its neighbour 11 is still."""
    nodes = np.zeros((3, 14, 2), np.float32)
    nodes[:, :] = np.linspace(-1.0, 1.0, 28).reshape(14, 2)
    nodes[:, 10], nodes[:, 11] = (-0.4, 1.1), (0.0, 0.8)
    nodes[1, 10] += (-0.03, -0.04)
    spec = FeatureSpec(centre="eyes", magnification="factor", factor=3.0)
    features = build_graph(nodes, spec).features
    np.testing.assert_allclose(features[0, 10], [-0.4, 1.1, 0.25, math.pi - math.atan(0.75)], atol=1e-6)
    # Three times the motion: (-0.49, 0.98); minus (0, 0.8) = (-0.49, 0.18).
    apex = [-0.49, 0.98, 0.49**2 + 0.18**2, math.pi - math.atan(0.18 / 0.49)]
    np.testing.assert_allclose(features[1, 10], apex, atol=1e-6)
    np.testing.assert_allclose(features[2, 10], features[0, 10], atol=1e-6)
    # "none" leaves the displacement as it is, "peak" brings 0.05 to 0.2.
    plain = build_graph(nodes, dataclasses.replace(spec, magnification="none")).features
    np.testing.assert_allclose(plain[1, 10, :2], [-0.43, 1.06], atol=1e-6)
    peak = build_graph(nodes, dataclasses.replace(spec, magnification="peak", peak_iod=0.2)).features
    np.testing.assert_allclose(peak[1, 10, :2] - peak[0, 10, :2], [-0.12, -0.16], atol=1e-6)
    arctan = build_graph(nodes, dataclasses.replace(spec, angle="arctan")).features
    assert arctan[0, 10, 3] == pytest.approx(-math.atan(0.75), abs=1e-6)


def test_frames_stay_in_their_order():
    nodes = moving_nodes(np.random.default_rng(5))[0]
    spec = FeatureSpec(centre="eyes", magnification="none")
    features = build_graph(nodes, spec).features
    np.testing.assert_allclose(features[..., :2], nodes, atol=1e-6)
    swapped = build_graph(nodes[[0, 2, 1]], spec).features
    np.testing.assert_allclose(swapped, features[[0, 2, 1]], atol=1e-6)


def test_a_batch_is_its_samples():
    nodes = moving_nodes(np.random.default_rng(6), samples=8)
    spec = FeatureSpec(magnification="peak")
    batch = build_graphs(nodes, spec)
    for one, expected in zip(nodes, batch, strict=True):
        assert (build_graph(one, spec).features == expected).all()
    assert build_graphs(nodes[:0], spec).shape == (0, 3, 14, 4)


def test_onset_centroid_takes_out_an_error_of_the_eye_centres():
    nodes = moving_nodes(np.random.default_rng(8))
    shifted = nodes + np.array([0.03, -0.05])
    spec = FeatureSpec()
    np.testing.assert_allclose(build_graphs(shifted, spec), build_graphs(nodes, spec), atol=3e-6)
    np.testing.assert_allclose(build_graphs(nodes, spec)[:, 0, :, :2].mean(axis=1), 0.0, atol=1e-6)


@pytest.mark.parametrize("magnification", ["none", "factor", "peak"])
def test_a_still_face_gives_three_equal_frames(magnification):
    nodes = np.repeat(NODE_SETS["gm14"].rest[None], 3, axis=0)
    features = build_graph(nodes, FeatureSpec(magnification=magnification)).features
    assert np.isfinite(features).all()
    assert (features[0] == features[1]).all() and (features[0] == features[2]).all()


def test_peak_magnification_has_a_cap():
    nodes = np.repeat(NODE_SETS["gm14"].rest[None], 3, axis=0).copy()
    nodes[1, 4, 0] += 0.001
    spec = FeatureSpec(magnification="peak", peak_iod=0.2, max_factor=10.0)
    features = build_graph(nodes, spec).features
    assert features[1, 4, 0] - features[0, 4, 0] == pytest.approx(0.01, abs=1e-5)


@pytest.mark.parametrize("name", ALL_SETS)
def test_angle_never_jumps(name):
    """Each node is led once around its neighbour: the angle follows, between frames and between faces."""
    nodes = NODE_SETS[name]
    spec = FeatureSpec(node_set=name, magnification="none")
    for i, j in enumerate(nodes.neighbour):
        rest = nodes.rest.astype(np.float64)
        radius = np.linalg.norm(rest[i] - rest[j])
        turns = np.linspace(-0.95 * math.pi, 0.95 * math.pi, 20)
        faces = np.repeat(rest[None], len(turns), axis=0)
        direction = nodes.rest_angle[i] + turns
        faces[:, i] = rest[j] + radius * np.stack([np.cos(direction), np.sin(direction)], axis=-1)
        # Between faces: every position is somebody's onset.
        alpha = build_graphs(np.repeat(faces[:, None], 3, axis=1), spec)[:, 0, i, 3]
        np.testing.assert_allclose(alpha, direction, atol=1e-4)
        # Between frames: from each onset a third of a turn further at the apex, and back.
        onset, apex = faces[:-7], faces[7:]
        alpha = build_graphs(np.stack([onset, apex, onset], axis=1), spec)[:, :, i, 3]
        np.testing.assert_allclose(alpha[:, 1] - alpha[:, 0], turns[7] - turns[0], atol=1e-4)
        np.testing.assert_allclose(alpha[:, 2], alpha[:, 0], atol=1e-4)


def test_printed_arctan_jumps_at_the_vertical_and_is_defined_on_it():
    nodes = np.repeat(NODE_SETS["gm14"].rest[None], 3, axis=0).copy()
    spec = FeatureSpec(angle="arctan", magnification="none", centre="eyes")
    nodes[:, 6], nodes[:, 7] = (0.0, -0.1), (0.0, 0.6)
    nodes[0, 6, 0], nodes[2, 6, 0] = -0.001, 0.001
    alpha = build_graph(nodes, spec).features[:, 6, 3]
    np.testing.assert_allclose(alpha, [math.pi / 2, -math.pi / 2, -math.pi / 2], atol=2e-3)


@pytest.mark.parametrize("angle", ["atan2", "arctan"])
def test_a_node_on_its_neighbour_keeps_the_angle_it_had(angle):
    nodes = np.repeat(NODE_SETS["gm14"].rest[None], 3, axis=0).copy()
    spec = FeatureSpec(angle=angle, magnification="none")
    nodes[1, 8] = nodes[1, 7]
    features = build_graph(nodes, spec).features
    assert features[1, 8, 2] == 0.0 and features[1, 8, 3] == features[0, 8, 3]
    nodes[:, 8] = nodes[:, 7]
    onset = build_graph(nodes, spec).features[0, 8, 3]
    assert onset == pytest.approx(NODE_SETS["gm14"].rest_angle[8] if angle == "atan2" else 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1001.0, -1e30])
def test_coordinates_that_are_no_face_are_refused(value):
    for axis in (0, 1):
        nodes = moving_nodes(np.random.default_rng(9))
        nodes[3, 2, 13, axis] = value
        with pytest.raises(ValueError, match="nodes of sample 3"):
            build_graphs(nodes, FeatureSpec())


def test_features_stay_finite_up_to_the_limit():
    nodes = np.full((3, 14, 2), 1000.0, np.float32)
    nodes[1:] = -1000.0
    nodes[:, ::2] *= -1
    features = build_graph(nodes, FeatureSpec(magnification="factor", factor=1000.0)).features
    assert np.isfinite(features).all()


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="gm14 needs"):
        build_graph(np.zeros((3, 31, 2)), FeatureSpec())
    with pytest.raises(ValueError, match="gm14 needs"):
        build_graphs(np.zeros((3, 14, 2)), FeatureSpec())


def test_the_callers_array_is_neither_kept_nor_changed():
    nodes = moving_nodes(np.random.default_rng(10))[0]
    before = nodes.copy()
    features = build_graph(nodes, FeatureSpec()).features
    assert (nodes == before).all() and not np.shares_memory(nodes, features)


# FeatureSpec


def test_spec_survives_a_round_trip():
    spec = FeatureSpec("dlib31", "A", "arctan", "eyes", "peak", 2.0, 0.1, 15.0)
    assert FeatureSpec.from_dict(spec.as_dict()) == spec
    assert spec.channels == 2 and FeatureSpec().channels == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("node_set", "gm99"),
        ("node_set", ["gm14"]),
        ("type", "C"),
        ("angle", "atan"),
        ("centre", None),
        ("magnification", ""),
        ("factor", 0.0),
        ("factor", math.nan),
        ("factor", True),
        ("factor", "3"),
        ("peak_iod", -1.0),
        ("max_factor", math.inf),
    ],
)
def test_spec_refuses_values_that_mean_nothing(field, value):
    with pytest.raises(ValueError, match="gm99|node set|" + field):
        FeatureSpec.from_dict({**FeatureSpec().as_dict(), field: value})


def test_spec_refuses_unknown_and_missing_keys():
    values = FeatureSpec().as_dict()
    with pytest.raises(ValueError, match="unknown key 'zoom'"):
        FeatureSpec.from_dict({**values, "zoom": 1})
    del values["angle"]
    with pytest.raises(ValueError, match="'angle' is missing"):
        FeatureSpec.from_dict(values)


# The kernels as compiled code

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")
needs_jit = pytest.mark.skipif(not JIT, reason="looks at compiled code")


@needs_jit
def test_warm_up_compiles_all_that_the_wrappers_need():
    graph.warm_up()
    compiled = (
        kernels.similarity_fit,
        kernels.similarity_apply,
        kernels.face_frame_nodes,
        kernels.graph_features,
    )
    before = [len(kernel.signatures) for kernel in compiled]
    nodes = moving_nodes(np.random.default_rng(12))
    locked = nodes.copy()
    locked.flags.writeable = False
    for layout in (
        nodes,
        locked,
        nodes.astype(np.float64),
        np.asfortranarray(nodes),
        nodes[::-1],
        nodes.tolist(),
    ):
        for spec in SPECS:
            build_graphs(layout, spec)
    landmarks = face_landmarks(np.random.default_rng(13))
    key_frame_nodes(landmarks, "dlib31")
    to_face_frame(landmarks[0].astype(np.float32)[:, :2])
    align(nodes[0, 0], nodes[0, 1], np.ones(14, np.float32))
    assert [len(kernel.signatures) for kernel in compiled] == before


COUNT_ALLOCATIONS = """
import numpy as np
from numba.core.runtime.nrt import rtsys
from streamer.graph import NODE_SETS, FeatureSpec, align, build_graphs, face_frame_nodes, warm_up

warm_up()
rest = NODE_SETS["dlib68"].rest
frames = np.stack([[rest, rest * 1.01, rest]] * 4)
nodes = face_frame_nodes(frames)
build_graphs(nodes, FeatureSpec(angle="arctan", magnification="peak", centre="eyes"))
align(rest, rest * 2)
print(rtsys.get_allocation_stats().alloc)
"""


@needs_jit
def test_kernels_allocate_nothing():
    """Numba's own counter, which is off unless a process starts with it."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT_ALLOCATIONS],
        env={**os.environ, "NUMBA_NRT_STATS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    # Twice each (warm_up, then here), one count for each array argument that a call wraps, and no other:
    # graph_features 4, face_frame_nodes 5, similarity_fit 3, similarity_apply 2.
    assert int(done.stdout) == 2 * (4 + 5 + 3 + 2)


@needs_jit
def test_the_kernels_as_plain_python_pass_the_same_tests():
    """This file again without the JIT (less what is slow there): one standard for both."""
    quick = "not (dlib68 and angle) and not mediapipe"
    # Plain NumPy scalars warn of inf - inf, which compiled code does not.
    flags = ["-q", "-x", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning", "-k", quick]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *flags, str(Path(__file__))],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
