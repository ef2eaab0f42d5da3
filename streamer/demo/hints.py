"""What keeps a face from being measured well, in words that a visitor can act on."""

from __future__ import annotations

import math

from streamer.messages import Face, Motion

SMOOTH_S = 0.7
"""Time over which light, size and movement are averaged, so that a hint does not flicker."""

DARK, BRIGHT = 45.0, 225.0
"""Mean grey level (0..255) of the face below and above which skin shows too little texture."""

SMALL_IOD_PX = 60.0
"""Inter-ocular distance below which a percent of it is lost in the picture's noise."""

FAST_IOD_S, TURN_IOD_S = 0.35, 0.25
"""Speed of the head: shift in IOD a second, and turn (the same, per IOD of depth)."""

LOW_FPS = 20.0

TEXTS = {
    "no_face": "No face is found: look into the camera, with your whole face in the picture.",
    "not_measured": "The face cannot be measured just now: hold still for a moment.",
    "too_dark": "Your face is too dark: turn a light towards it.",
    "too_bright": "Your face is overexposed: dim the light or turn away from the window.",
    "too_small": "Your face is small in the picture: come closer or choose a higher resolution.",
    "too_much_motion": "Your head is moving a lot: small movements of the face are lost in that.",
    "others": "Several faces are in the picture: only one of them is followed.",
    "low_rate": "Too few frames arrive: more light lets the camera run faster; close other programs.",
}


class Hints:
    """Hints for one stream; `update` for every frame."""

    def __init__(self) -> None:
        self._last: Motion | None = None
        self._light = self._size = float("nan")
        self._shift = self._turn = 0.0
        self._others = 0

    def update(
        self, face: Face | None, motion: Motion | None, has_face: bool, fps: float | None
    ) -> list[str]:
        """Keys of `TEXTS` that hold now.

        face: the landmark model's answer, where it ran. has_face: whether a face is being followed.
        fps: frames a second that arrive, None while unknown.
        """
        if face is not None:
            self._others = face.others
        hints = []
        if not has_face:
            self._last = None
            hints.append("no_face")
        elif motion is None:
            hints.append("not_measured")
        else:
            self._follow(motion)
            hints += [
                name
                for name, holds in (
                    ("too_dark", self._light < DARK),
                    ("too_bright", self._light > BRIGHT),
                    ("too_small", self._size < SMALL_IOD_PX),
                    ("too_much_motion", self._shift > FAST_IOD_S or self._turn > TURN_IOD_S),
                    ("others", self._others > 0),
                )
                if holds
            ]
        if fps is not None and fps < LOW_FPS:
            hints.append("low_rate")
        return hints

    def _follow(self, motion: Motion) -> None:
        light = math.exp(float(motion.light.mean()))
        last, self._last = self._last, motion
        if last is None or last.segment != motion.segment or math.isnan(self._light):
            self._light, self._size = light, motion.iod_px
            return
        passed = max(motion.time_s - last.time_s, 1e-3)
        share = min(1.0, passed / SMOOTH_S)
        step = (motion.head - last.head) / passed
        self._light += share * (light - self._light)
        self._size += share * (motion.iod_px - self._size)
        self._shift += share * (math.hypot(*step[:2].tolist()) - self._shift)
        self._turn += share * (math.hypot(*step[4:].tolist()) - self._turn)
