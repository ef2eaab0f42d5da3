"""From key frames to GM-Graph features: the node sets, the face frame and the feature form.

The same functions build the tensors for training and for the live recogniser.

    landmarks of three frames --face_frame_nodes--> nodes (3, n, 2) --build_graph--> features (3, n, 4)

Normalisation, in this order (`FeatureSpec` says it, an engine's manifest carries it):

1. Aligned: apex and offset are laid onto the onset by a similarity transform of stable points (the eye
   corners and the nose bridge); live, `Motion` has taken the head's motion out already.
2. Scaled: the unit is the onset's inter-ocular distance (IOD), the x axis its eye line.
3. Magnified: displacements from the onset are multiplied, see `FeatureSpec.magnification`.
4. Centred: on the centroid of the onset's nodes by default. An error of the landmark model's eye
   centres moves all nodes alike, and the centroid takes it out; the eye midpoint would keep it.

Source of the graph and of Type A and B: the GTS-GN paper, section III-A and equation 1. It draws its 14
points and prints no list: **the choice of landmarks here, for all node sets, is ours**.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamer.kernels import graph as kernels
from streamer.messages import F32, GraphSample

# The eyes' corners: person's right eye outer, inner, left eye inner, outer.
EYE_CORNERS_MEDIAPIPE = (33, 133, 362, 263)
EYE_CORNERS_DLIB = (36, 39, 42, 45)
# Points that expressions hardly move: the eye corners and the nose bridge.
STABLE_MEDIAPIPE = (*EYE_CORNERS_MEDIAPIPE, 168)
STABLE_DLIB = (*EYE_CORNERS_DLIB, 27)

# dlib-68 point -> (MediaPipe-478 index, rest x, rest y). The correspondence is the usual one, evened out so
# that it is mirror-symmetric: our choice. The rest position (face frame, IOD) is that of the canonical
# face model which MediaPipe ships with its face landmarker (Apache-2.0), rounded.
_POINTS: tuple[tuple[int, float, float], ...] = (
    # jaw, 0-16
    (127, -1.229, 0.041),
    (234, -1.216, 0.310),
    (93, -1.197, 0.583),
    (132, -1.154, 0.875),
    (58, -1.066, 1.176),
    (172, -0.943, 1.404),
    (150, -0.646, 1.685),
    (176, -0.366, 1.840),
    (152, 0.000, 1.909),
    (400, 0.366, 1.840),
    (379, 0.646, 1.685),
    (397, 0.943, 1.404),
    (288, 1.066, 1.176),
    (361, 1.154, 0.875),
    (323, 1.197, 0.583),
    (454, 1.216, 0.310),
    (356, 1.229, 0.041),
    # brow_right, 17-21
    (70, -0.908, -0.259),
    (63, -0.791, -0.346),
    (105, -0.633, -0.394),
    (66, -0.438, -0.393),
    (107, -0.221, -0.379),
    # brow_left, 22-26
    (336, 0.221, -0.379),
    (296, 0.438, -0.393),
    (334, 0.633, -0.394),
    (293, 0.791, -0.346),
    (300, 0.908, -0.259),
    # nose, 27-35
    (168, 0.000, -0.103),
    (197, 0.000, 0.142),
    (5, 0.000, 0.358),
    (1, 0.000, 0.595),
    (98, -0.223, 0.688),
    (97, -0.095, 0.736),
    (2, 0.000, 0.748),
    (326, 0.095, 0.736),
    (327, 0.223, 0.688),
    # eye_right, 36-41
    (33, -0.705, -0.006),
    (160, -0.582, -0.048),
    (158, -0.432, -0.054),
    (133, -0.295, 0.006),
    (153, -0.432, 0.049),
    (144, -0.582, 0.042),
    # eye_left, 42-47
    (362, 0.295, 0.006),
    (385, 0.432, -0.054),
    (387, 0.582, -0.048),
    (263, 0.705, -0.006),
    (373, 0.582, 0.042),
    (380, 0.432, 0.049),
    # mouth, 48-67
    (61, -0.390, 1.106),
    (39, -0.227, 0.972),
    (37, -0.113, 0.945),
    (0, 0.000, 0.957),
    (267, 0.113, 0.945),
    (269, 0.227, 0.972),
    (291, 0.390, 1.106),
    (405, 0.210, 1.227),
    (314, 0.111, 1.256),
    (17, 0.000, 1.268),
    (84, -0.111, 1.256),
    (181, -0.210, 1.227),
    (78, -0.342, 1.095),
    (82, -0.085, 1.050),
    (13, 0.000, 1.050),
    (312, 0.085, 1.050),
    (308, 0.342, 1.095),
    (317, 0.093, 1.133),
    (14, 0.000, 1.137),
    (87, -0.093, 1.133),
)

_PARTS: dict[str, range] = {
    "jaw": range(17),
    "brow_right": range(17, 22),
    "brow_left": range(22, 27),
    "nose": range(27, 36),
    "eye_right": range(36, 42),
    "eye_left": range(42, 48),
    "mouth": range(48, 68),
}


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the graph. "Right" and "left" are the person's own.

    dlib, mediapipe: index of the landmark in dlib's 68 and in MediaPipe's 478 points.
    neighbour: index (in the node set) of the directed neighbour that D and alpha refer to.
    region: facial part: brow_right, brow_left, nose, mouth; jaw, eye_right, eye_left in the 68-point set.
    rest: (x, y) on an average neutral face; face frame, IOD.
    """

    name: str
    dlib: int
    mediapipe: int
    neighbour: int
    region: str
    rest: tuple[float, float]


@dataclass(frozen=True, eq=False)
class NodeSet:
    """The nodes of one frame, and the undirected spatial edges between them (pairs i < j)."""

    name: str
    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.nodes)

    @cached_property
    def regions(self) -> dict[str, tuple[int, ...]]:
        """Facial part -> indices of its nodes."""
        parts = dict.fromkeys(node.region for node in self.nodes)
        return {part: tuple(i for i, n in enumerate(self.nodes) if n.region == part) for part in parts}

    @cached_property
    def dlib(self) -> NDArray[np.int64]:
        """(n,) indices into dlib's 68 points."""
        return _constant([node.dlib for node in self.nodes], np.int64)

    @cached_property
    def mediapipe(self) -> NDArray[np.int64]:
        """(n,) indices into MediaPipe's 478 points."""
        return _constant([node.mediapipe for node in self.nodes], np.int64)

    @cached_property
    def neighbour(self) -> NDArray[np.int64]:
        """(n,) index of each node's directed neighbour."""
        return _constant([node.neighbour for node in self.nodes], np.int64)

    @cached_property
    def rest(self) -> F32:
        """(n, 2) float32, face frame, IOD: the nodes of an average neutral face."""
        return _constant([node.rest for node in self.nodes], np.float32)

    @cached_property
    def rest_angle(self) -> NDArray[np.float64]:
        """(n,) radians: direction from the neighbour to the node on an average neutral face."""
        difference = self.rest.astype(np.float64) - self.rest[self.neighbour]
        return _constant(np.arctan2(difference[:, 1], difference[:, 0]), np.float64)


def _constant(values: ArrayLike, dtype: Any) -> NDArray[Any]:
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array


def _chain(*points: int) -> dict[int, int]:
    """Directed neighbours along a line of dlib points: each point refers to the next."""
    return dict(pairwise(points))


def _ring(first: int, last: int) -> list[tuple[int, int]]:
    """Edges of a closed contour."""
    return [(p, p + 1) for p in range(first, last)] + [(first, last)]


def _line(first: int, last: int) -> list[tuple[int, int]]:
    """Edges of an open contour."""
    return [(p, p + 1) for p in range(first, last)]


def _node_set(
    name: str,
    points: list[int],
    neighbour: dict[int, int],
    edges: list[tuple[int, int]],
    names: tuple[str, ...] = (),
) -> NodeSet:
    """A node set from dlib-68 point numbers; nodes are numbered in the order of `points`."""
    index = {point: i for i, point in enumerate(points)}
    region = {point: part for part, members in _PARTS.items() for point in members}
    nodes = []
    for i, point in enumerate(points):
        mediapipe, x, y = _POINTS[point]
        part = region[point]
        label = names[i] if names else f"{part} {point - _PARTS[part].start}"
        nodes.append(Node(label, point, mediapipe, index[neighbour[point]], part, (x, y)))
    pairs = sorted((min(index[p], index[q]), max(index[p], index[q])) for p, q in edges)
    return NodeSet(name, tuple(nodes), tuple(pairs))


_GM14_NAMES = (
    "right brow outer",
    "right brow mid",
    "right brow inner",
    "left brow inner",
    "left brow mid",
    "left brow outer",
    "nose bridge",
    "nose tip",
    "right nostril",
    "left nostril",
    "right mouth corner",
    "upper lip",
    "left mouth corner",
    "lower lip",
)
# Undirected edges by node number: along each part, and from part to part.
_GM14_EDGES = (
    *((0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5)),
    *((6, 7), (7, 8), (7, 9), (8, 10), (9, 12), (7, 11)),
    *((10, 11), (11, 12), (12, 13), (13, 10)),
)
_GM14_DLIB = [17, 19, 21, 22, 24, 26, 27, 30, 31, 35, 48, 51, 54, 57]

_GM14 = _node_set(
    "gm14",
    _GM14_DLIB,
    # 11 -> 13 (upper to lower lip) is a direction without an undirected edge: mouth opening in one number.
    dict(
        zip(_GM14_DLIB, [_GM14_DLIB[j] for j in (1, 2, 6, 6, 3, 4, 7, 11, 7, 7, 11, 13, 11, 10)], strict=True)
    ),
    [(_GM14_DLIB[i], _GM14_DLIB[j]) for i, j in _GM14_EDGES],
    _GM14_NAMES,
)

# The larger sets follow the same plan: brows towards the nose, nose down, lips from the corners to the
# middle, upper lip to lower lip.
_DLIB31_NEIGHBOUR = {
    **_chain(17, 18, 19, 20, 21, 27),
    **_chain(26, 25, 24, 23, 22, 27),
    **_chain(27, 28, 29, 30, 51),
    **_chain(31, 32, 33, 30),
    **_chain(35, 34, 33),
    **_chain(48, 49, 50, 51, 57),
    **_chain(54, 53, 52, 51),
    **_chain(55, 56, 57, 58, 59, 48),
}
_DLIB31_EDGES = [
    *_line(17, 21),
    *_line(22, 26),
    *_line(27, 30),
    *_line(31, 35),
    *_ring(48, 59),
    *((21, 27), (22, 27), (30, 31), (30, 33), (30, 35), (31, 48), (35, 54), (33, 51)),
]
_DLIB68_NEIGHBOUR = {
    **_DLIB31_NEIGHBOUR,
    **_chain(0, 1, 2, 3, 4, 5, 6, 7, 8, 57),
    **_chain(16, 15, 14, 13, 12, 11, 10, 9, 8),
    **_chain(36, 37, 38, 39, 27),
    **_chain(41, 40, 39),
    **_chain(45, 44, 43, 42, 27),
    **_chain(46, 47, 42),
    **_chain(60, 61, 62, 51),
    **_chain(64, 63, 62),
    **_chain(65, 66, 57),
    **_chain(67, 66),
}
_DLIB68_EDGES = [
    *_DLIB31_EDGES,
    *_line(0, 16),
    *_ring(36, 41),
    *_ring(42, 47),
    *_ring(60, 67),
    *((0, 17), (16, 26), (8, 57), (27, 39), (27, 42), (48, 60), (51, 62), (54, 64), (57, 66)),
]

# Table IX of the paper: 14, 31 (brows 10, nose 9, outer mouth 12) and all 68 points.
NODE_SETS: dict[str, NodeSet] = {
    node_set.name: node_set
    for node_set in (
        _GM14,
        _node_set("dlib31", [*range(17, 36), *range(48, 60)], _DLIB31_NEIGHBOUR, _DLIB31_EDGES),
        _node_set("dlib68", list(range(68)), _DLIB68_NEIGHBOUR, _DLIB68_EDGES),
    )
}
NODES: tuple[Node, ...] = _GM14.nodes
EDGES: tuple[tuple[int, int], ...] = _GM14.edges
REGIONS: dict[str, tuple[int, ...]] = _GM14.regions


def node_set_named(name: str) -> NodeSet:
    """The node set of that name.

    Raises: ValueError naming the known ones.
    """
    try:
        return NODE_SETS[name]
    except (KeyError, TypeError):
        raise ValueError(f"unknown node set {name!r}; known: {', '.join(NODE_SETS)}") from None


def adjacency(node_set: str = "gm14") -> F32:
    """A: (n, n) float32, 1 where a spatial edge joins two nodes, symmetric, zero diagonal."""
    nodes = node_set_named(node_set)
    matrix = np.zeros((len(nodes), len(nodes)), np.float32)
    for i, j in nodes.edges:
        matrix[i, j] = matrix[j, i] = 1.0
    return matrix


def temporal_adjacency(node_set: str = "gm14") -> F32:
    """A of the whole GM-Graph: (3n, 3n) float32, frame after frame, for the plain GCN.

    Spatial edges inside each frame; temporal edges join a node to itself in the next frame (onset to
    apex, apex to offset: our reading of the paper's figure 2b).
    """
    spatial = adjacency(node_set)
    n = len(spatial)
    next_frame = np.eye(3, k=1)
    matrix = np.kron(np.eye(3), spatial) + np.kron(next_frame + next_frame.T, np.eye(n))
    return matrix.astype(np.float32)


def normalised_adjacency(matrix: F32) -> F32:
    """L = I + D^-1/2 A D^-1/2, with D the degrees of A; (n, n) float32.

    (Kipf and Welling 2017, first order before the renormalisation trick.) A node without an edge keeps
    only its own 1.
    """
    a = np.asarray(matrix, np.float64)
    degree = a.sum(axis=1)
    scale = np.where(degree > 0.0, 1.0 / np.sqrt(np.where(degree > 0.0, degree, 1.0)), 0.0)
    return (np.eye(len(a)) + scale[:, None] * a * scale[None, :]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """The form of the node features. An engine works only with the form that it was trained on.

    Raises: ValueError naming the field, when a value is not one of those below.
    """

    node_set: str = "gm14"
    """Name of a node set: gm14, dlib31 or dlib68."""
    type: Literal["A", "B"] = "B"
    """A: the model reads (x, y), the first two channels. B: (x, y, D, alpha)."""
    angle: Literal["atan2", "arctan"] = "atan2"
    """arctan: as printed in the paper; jumps by pi where an edge passes the vertical. atan2: continuous. The
    onset's angle is given within half a turn of the edge's direction on an average face, apex and offset
    within half a turn of the onset's, so that neither two people nor three frames differ by a whole turn."""
    centre: Literal["onset-centroid", "eyes"] = "onset-centroid"
    """Origin of x and y: the centroid of the onset's nodes, or the midpoint between the onset's eyes."""
    magnification: Literal["none", "factor", "peak"] = "factor"
    """none: displacements as measured. factor: multiplied by `factor`. peak: multiplied so that the most
    moved node of the apex moves `peak_iod`, by at most `max_factor`; onset and offset share the factor."""
    factor: float = 3.0
    """Used by magnification "factor"; the paper magnifies three times."""
    peak_iod: float = 0.2
    """Used by magnification "peak": length of the largest displacement afterwards, IOD."""
    max_factor: float = 40.0
    """Used by magnification "peak": a displacement of 0.5 % of the IOD, the smallest that counts as an
    expression, still reaches 0.2."""

    def __post_init__(self) -> None:
        node_set_named(self.node_set)
        for field, allowed in _SPEC_WORDS.items():
            value = getattr(self, field)
            if value not in allowed:
                raise ValueError(f"{field} is {value!r}; must be one of {', '.join(allowed)}")
        for field in ("factor", "peak_iod", "max_factor"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{field} is {value!r}; must be a number")
            if not 0.0 < value <= 1000.0:  # NaN fails too
                raise ValueError(f"{field} is {value!r}; must be above 0 and at most 1000")

    @property
    def channels(self) -> int:
        """How many of the four channels the model reads."""
        return 2 if self.type == "A" else 4

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FeatureSpec:
        """The spec of these values. Every field must be there and no other.

        Raises: ValueError naming the field.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise ValueError(f"unknown key {key!r}; known: {', '.join(known)}")
        for key in known:
            if key not in values:
                raise ValueError(f"key {key!r} is missing")
        return cls(**values)


_SPEC_WORDS: dict[str, tuple[str, ...]] = {
    "type": ("A", "B"),
    "angle": ("atan2", "arctan"),
    "centre": ("onset-centroid", "eyes"),
    "magnification": ("none", "factor", "peak"),
}


def face_frame_nodes(landmarks: ArrayLike, node_set: str = "gm14") -> F32:
    """Landmarks of a few frames of each expression -> nodes in the face frame of its first frame.

    landmarks: (samples, frames, 478 or 68, 2 or 3) pixels, image frame: MediaPipe's or dlib's points.
    Later frames are laid onto the first by a similarity transform of the stable points.
    Returns (samples, frames, n, 2) float32, IOD.

    Raises: ValueError for another shape, and for landmarks that cannot be placed (not finite, or eyes
        that coincide), naming the sample.
    """
    # A fresh array: contiguous, writable and float32 is the one layout the kernel is compiled for.
    points = np.array(landmarks, dtype=np.float32, order="C")
    if points.ndim != 4 or points.shape[2] not in _LAYOUTS or points.shape[3] not in (2, 3):
        raise ValueError(
            f"landmarks have shape {points.shape}; expected (samples, frames, 478 or 68, 2 or 3)"
        )
    layout = _LAYOUTS[points.shape[2]]
    nodes = node_set_named(node_set)
    index = nodes.mediapipe if points.shape[2] == 478 else nodes.dlib
    out = np.empty((*points.shape[:2], len(nodes), 2), np.float32)
    bad = kernels.face_frame_nodes(points, layout.eye_corners, layout.stability, index, out)
    if bad >= 0:
        raise ValueError(f"landmarks of sample {bad} cannot be placed: not finite, or the eyes coincide")
    return out


def to_face_frame(landmarks: ArrayLike, node_set: str = "gm14") -> F32:
    """Landmarks of one frame -> its nodes in the face frame, by the eye line alone.

    landmarks: (478 or 68, 2 or 3) pixels, image frame. Returns (n, 2) float32, IOD.

    Raises: ValueError as `face_frame_nodes`.
    """
    return face_frame_nodes(np.asarray(landmarks)[None, None], node_set)[0, 0]


def key_frame_nodes(landmarks: ArrayLike, node_set: str = "gm14") -> F32:
    """Landmarks at onset, apex and offset -> nodes in the face frame of the onset.

    landmarks: (3, 478 or 68, 2 or 3) pixels, image frame. Returns (3, n, 2) float32, IOD.

    Raises: ValueError as `face_frame_nodes`.
    """
    return face_frame_nodes(np.asarray(landmarks)[None], node_set)[0]


def align(points: ArrayLike, reference: ArrayLike, weights: ArrayLike | None = None) -> F32:
    """`points` laid onto `reference` by the least-squares similarity transform (Umeyama 1991).

    points, reference: (n, 2), any unit. weights: (n,), at least 0; None = all equal.
    Returns (n, 2) float32 in the frame of `reference`.

    Raises: ValueError for shapes that do not match, and if no transform fits: points that coincide or
        are not finite, or weights that sum to 0.
    """
    src = np.array(points, dtype=np.float64, order="C")
    dst = np.array(reference, dtype=np.float64, order="C")
    if src.ndim != 2 or src.shape[1] != 2 or src.shape != dst.shape:
        raise ValueError(
            f"points and reference have shapes {src.shape} and {dst.shape}; expected (n, 2) both"
        )
    w = np.ones(len(src)) if weights is None else np.array(weights, dtype=np.float64)
    if w.shape != (len(src),) or not (w >= 0.0).all():
        raise ValueError(f"weights must be ({len(src)},) and at least 0")
    a, b, tx, ty = kernels.similarity_fit(src, dst, w)
    if math.isnan(a):
        raise ValueError("no similarity transform fits: points coincide or are not finite, or weights are 0")
    out = np.empty(src.shape, np.float32)
    kernels.similarity_apply(a, b, tx, ty, src, out)
    return out


def build_graphs(nodes: ArrayLike, spec: FeatureSpec) -> F32:
    """Node features of a batch of expressions.

    nodes: (samples, 3, n, 2) face frame of the onset, IOD: onset, apex, offset; n as `spec.node_set`.
    Returns (samples, 3, n, 4) float32: (x, y, D, alpha); D in IOD^2, alpha in radians. All four channels
    are filled whatever `spec.type`; a Type A model reads the first `spec.channels`.

    Degenerate input: a still face (no displacement) gives three equal frames; a node that lies on its
    neighbour has D = 0 and keeps the angle before it (average face for the onset, onset for the others;
    "arctan": 0 for the onset).

    Raises: ValueError for another shape, and for a coordinate that is not finite or beyond 1000 IOD,
        naming the sample.
    """
    # A fresh array: contiguous, writable and float32 is the one layout the kernel is compiled for.
    points = np.array(nodes, dtype=np.float32, order="C")
    neighbour, rest_angle, centre, angle, magnification, amount, cap = _form(spec)
    count = len(neighbour)
    if points.ndim != 4 or points.shape[1:] != (3, count, 2):
        raise ValueError(
            f"nodes have shape {points.shape}; node set {spec.node_set} needs (samples, 3, {count}, 2)"
        )
    out = np.empty((len(points), 3, count, 4), np.float32)
    bad = kernels.graph_features(
        points, neighbour, rest_angle, centre, angle, magnification, amount, cap, out
    )
    if bad >= 0:
        raise ValueError(f"nodes of sample {bad} are not finite, or further than 1000 IOD from the face")
    return out


def build_graph(nodes: ArrayLike, spec: FeatureSpec) -> GraphSample:
    """Node features of one expression; `build_graphs` for a batch of one.

    nodes: (3, n, 2) face frame of the onset, IOD, as in `KeyFrames.nodes`.

    Raises: ValueError as `build_graphs`.
    """
    return GraphSample(build_graphs(np.asarray(nodes)[None], spec)[0])


@lru_cache(maxsize=64)
def _form(spec: FeatureSpec) -> tuple[Any, ...]:
    """`spec` as the arguments of `kernels.graph_features` between `nodes` and `out`, in their order."""
    nodes = NODE_SETS[spec.node_set]
    amount = {"none": 1.0, "factor": float(spec.factor), "peak": float(spec.peak_iod)}[spec.magnification]
    return (
        nodes.neighbour,
        nodes.rest_angle,
        kernels.CENTRE_EYES if spec.centre == "eyes" else kernels.CENTRE_ONSET_CENTROID,
        kernels.ANGLE_ATAN2 if spec.angle == "atan2" else kernels.ANGLE_ARCTAN,
        kernels.MAGNIFY_PEAK if spec.magnification == "peak" else kernels.MAGNIFY_FACTOR,
        amount,
        float(spec.max_factor),
    )


@dataclass(frozen=True, eq=False, slots=True)
class _Layout:
    """How a landmark model numbers the points that the face frame needs."""

    eye_corners: NDArray[np.int64]
    stability: NDArray[np.float64]


def _layout(count: int, eye_corners: tuple[int, ...], stable: tuple[int, ...]) -> _Layout:
    weights = np.zeros(count)
    weights[list(stable)] = 1.0
    return _Layout(_constant(eye_corners, np.int64), _constant(weights, np.float64))


_LAYOUTS: dict[int, _Layout] = {
    478: _layout(478, EYE_CORNERS_MEDIAPIPE, STABLE_MEDIAPIPE),
    68: _layout(68, EYE_CORNERS_DLIB, STABLE_DLIB),
}


def warm_up() -> None:
    """Compile every kernel of this stage (or load it from the cache) for the types used here."""
    rest = NODE_SETS["dlib68"].rest
    nodes = key_frame_nodes(np.stack([rest, rest, rest]))
    build_graph(nodes, FeatureSpec())
    align(rest, rest)
