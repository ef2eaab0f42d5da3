"""The face-stabilised crop: geometry of the face frame, and the grey picture in which a face stands still."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer.kernels.pictures import likeness, quarter_means
from streamer.kernels.registration import move_points
from streamer.messages import F32, U8

F64 = NDArray[np.float64]

EYE_CORNERS = ((33, 133), (362, 263))
"""MediaPipe-478 corners of the person's right eye, then left, from image left to image right."""

EYE_LIDS = ((159, 145), (386, 374))
"""Middle of the upper and of the lower lid, person's right eye then left."""

CROP_LEFT, CROP_TOP, CROP_WIDTH, CROP_HEIGHT = -1.2, -0.85, 2.4, 2.55
"""The crop in the face frame, IOD."""

_CROP_ORIGIN = np.array([CROP_LEFT, CROP_TOP])

EYE_BOX, EYE_PATCH = (0.24, 0.11), (24, 11)
"""The patch of an eye: half width and half height in IOD, and its size in samples."""


def similarity(a: float, b: float, x: float, y: float) -> F64:
    """(3, 3) matrix of the map (u, v) -> (a u - b v + x, b u + a v + y)."""
    return np.array([[a, -b, x], [b, a, y], [0.0, 0.0, 1.0]])


def inverse(pose: F64) -> F64:
    """Inverse of a `similarity`, in closed form: it is needed several times a frame."""
    (a, _, x), (b, _, y), _ = pose.tolist()
    n = a * a + b * b
    a, b = a / n, -b / n
    return similarity(a, b, b * y - a * x, -b * x - a * y)


def move(pose: F64, points: NDArray[np.floating]) -> F64:
    """(N, 2) points taken through a similarity."""
    out = np.empty((len(points), 2))
    move_points(pose, points, out)
    return out


def size(pose: F64) -> float:
    """The factor by which a similarity enlarges: of a pose, the inter-ocular distance in pixels."""
    return math.hypot(pose.item(0, 0), pose.item(1, 0))


def eye_line_pose(landmarks: F32) -> F64:
    """(3, 3) similarity from the face frame (IOD) to image pixels, by the two eye centres.

    Raises:
        ValueError: the two eye centres coincide.
    """
    right = landmarks[list(EYE_CORNERS[0]), :2].mean(0).astype(np.float64)
    left = landmarks[list(EYE_CORNERS[1]), :2].mean(0).astype(np.float64)
    axis, centre = left - right, (right + left) / 2
    if not np.hypot(*axis) > 1e-3:
        raise ValueError("the eye centres coincide: no face frame")
    return similarity(axis[0], axis[1], centre[0], centre[1])


def in_face_frame(pose: F64, landmarks: F32) -> F64:
    """(478, 3) landmarks in the face frame of `pose`, IOD; depth measured from the eye corners."""
    out = np.empty(landmarks.shape)
    out[:, :2] = move(inverse(pose), landmarks[:, :2])
    corners = [index for eye in EYE_CORNERS for index in eye]
    out[:, 2] = (landmarks[:, 2] - landmarks[corners, 2].mean()) / size(pose)
    return out


def crop_points(points: NDArray[np.floating], scale: float) -> F32:
    """(N, 2) face-frame points (IOD) in crop pixels, at `scale` pixels an IOD."""
    return ((points - _CROP_ORIGIN) * scale).astype(np.float32)


def face_points(points: NDArray[np.floating], scale: float) -> F64:
    """(N, 2) crop pixels in the face frame, IOD: the inverse of `crop_points`."""
    return points.astype(np.float64) / scale + _CROP_ORIGIN


def crop(image: U8, pose: F64, scale: float) -> U8:
    """The grey crop of a face, `scale` pixels an IOD; what lies outside the image repeats its edge.

    image: (H, W, 3) BGR or (H, W) grey uint8. pose: (3, 3) face frame to image.
    """
    width, height = round(CROP_WIDTH * scale), round(CROP_HEIGHT * scale)
    (a, _, x), (b, _, y), _ = pose.tolist()
    a, b, x, y = a / scale, b / scale, x + a * CROP_LEFT - b * CROP_TOP, y + b * CROP_LEFT + a * CROP_TOP
    # The part of the image that holds the crop's corners.
    left = max(0, int(x + min(0.0, a * width) + min(0.0, -b * height)) - 2)
    top = max(0, int(y + min(0.0, b * width) + min(0.0, a * height)) - 2)
    right = min(image.shape[1], int(x + max(0.0, a * width) + max(0.0, -b * height)) + 3)
    bottom = min(image.shape[0], int(y + max(0.0, b * width) + max(0.0, a * height)) + 3)
    if right - left < 8 or bottom - top < 8:
        return np.zeros((height, width), np.uint8)
    shrink = int(math.hypot(a, b) + 0.5)
    grey = image
    if image.ndim == 3 or shrink > 1:
        grey, x, y = image[top:bottom, left:right], x - left, y - top
    if image.ndim == 3:
        grey = cv2.cvtColor(grey, cv2.COLOR_BGR2GRAY)
    to_grey = np.array([[a, -b, x], [b, a, y]])
    if shrink > 1:  # average before sampling, or noise and fine texture alias
        small = (max(1, grey.shape[1] // shrink), max(1, grey.shape[0] // shrink))
        fx, fy = small[0] / grey.shape[1], small[1] / grey.shape[0]
        grey = cv2.resize(grey, small, interpolation=cv2.INTER_AREA)
        to_grey *= [[fx], [fy]]
        to_grey[:, 2] += (fx - 1) / 2, (fy - 1) / 2
    warped = cv2.warpAffine(
        grey,
        to_grey,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(warped, np.uint8)


def grey_statistics(picture: U8) -> tuple[float, float]:
    """Mean and standard deviation (at least 1) of a grey picture."""
    mean, deviation = cv2.meanStdDev(picture)
    return float(mean[0, 0]), max(1.0, float(deviation[0, 0]))


def quarter_light(picture: U8) -> F32:
    """(4,) natural logarithm of the mean grey level of a picture's quarters, row by row."""
    quarters = np.empty(4, np.float32)
    quarter_means(picture, quarters)
    return np.log(np.maximum(quarters, np.float32(1.0)))


def with_statistics(picture: U8, mean: float, deviation: float) -> U8:
    """The picture with another mean and standard deviation: light that changes must not look like motion."""
    own_mean, own_deviation = grey_statistics(picture)
    gain = deviation / own_deviation
    return np.asarray(cv2.convertScaleAbs(picture, alpha=gain, beta=mean - gain * own_mean), np.uint8)


class EyeWatch:
    """How shut the eyes are, frame by frame, from the crop alone.

    An eye is compared with how it usually looks. The usual look is learned only from frames in which
    the landmark model sees the eye about as wide open as ever.
    """

    def __init__(self) -> None:
        self._known = [False, False]
        self._usual = np.zeros((2, EYE_PATCH[1], EYE_PATCH[0]), np.float32)
        self._widest = np.zeros(2)

    def update(self, picture: U8, scale: float, landmarks: F32 | None) -> F32:
        """(2,) closure of right and left eye: 0 as usual, 1 nothing like an open eye."""
        closure = np.zeros(2, np.float32)
        for eye in range(2):
            left = (eye - 0.5 - EYE_BOX[0] - CROP_LEFT) * scale
            top = (-EYE_BOX[1] - CROP_TOP) * scale
            box = picture[
                round(top) : round(top + 2 * EYE_BOX[1] * scale),
                round(left) : round(left + 2 * EYE_BOX[0] * scale),
            ]
            patch = cv2.resize(box, EYE_PATCH, interpolation=cv2.INTER_AREA)
            usual = self._usual[eye]
            if landmarks is not None:
                openness = eye_openness(landmarks, eye)
                self._widest[eye] = max(openness, 0.98 * self._widest[eye])
                if openness > 0.75 * self._widest[eye]:
                    usual += (0.3 if self._known[eye] else 1.0) * (patch - usual)
                    self._known[eye] = True
            if self._known[eye]:
                closure[eye] = min(1.0, 1.0 - likeness(patch, usual))
        return closure


def eye_openness(landmarks: F32, eye: int) -> float:
    """Distance between the lids over the eye's width; eye 0 is the person's right, 1 the left."""
    upper, lower = EYE_LIDS[eye]
    first, second = EYE_CORNERS[eye]
    width = float(np.hypot(*(landmarks[first, :2] - landmarks[second, :2])))
    return float(np.hypot(*(landmarks[upper, :2] - landmarks[lower, :2]))) / max(width, 1e-6)
