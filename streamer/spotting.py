"""The sliding-window motion detector: onset, apex and offset of brief movements, as they happen.

Everything is measured in seconds, so the frame rate may be anything and may vary.

1.  At several half-lengths a matched filter asks at every frame how much of a bump (a raised cosine over
    a straight line) the displacement of each node holds. The answer, over the running noise of each
    component, is the evidence; its local maxima over time are candidates.
2.  A candidate's response is a direction in the space of all nodes. The displacement projected on it
    (each component weighted by its noise) is one curve; a rise and a fall fitted to it give onset, apex
    and offset.
3.  What does not return, is restless before, or is the head's, a blink's, the light's or speech is
    rejected and counted. Each event that is left has a confidence, calibrated on clips with known truth
    (`CONFIDENCE`). Up to 0.5 s is a micro-expression, longer a macro-expression.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

import numpy as np

from streamer.config import SpottingConfig
from streamer.kernels.registration import TERMS, head_basis
from streamer.kernels.windows import (
    amplitudes,
    bump_weights,
    combine,
    course_curve,
    fit_course,
    follow_noise,
    node_lengths,
    project,
    top_rms,
)
from streamer.messages import KeyFrame, KeyFrames, Motion

NODE_COUNT = 14
COMPONENTS = 2 * NODE_COUNT
MICRO_S = 0.5
"""Longest micro-expression (Yan et al. 2013, "How fast are the leaked facial expressions")."""
UPPER_FACE = 7
"""Nodes 0..6 are the brows and the bridge of the nose: those that a blink can move."""
MOUTH = 10
"""Nodes 10..13 are the mouth: those that speech moves."""
CAPACITY = 4096
"""Frames kept, half of them at least: 8 s, the longest that is looked back, at up to 250 frames a second."""
CONFIDENCE = {
    "constant": -5.14,
    "score": 0.57,
    "coherence": 5.39,
    "roughness": -1.51,
    "restless": -3.13,
    "speech": -3.66,
    "blink": -1.43,
    "fall": -2.38,
    "short": -33.7,
}
"""Weights of the logistic regression that `_confidence` computes. Fitted, and judged with whole clips left
out, on rendered portraits (steady, talking, turning heads; 0.5 to 2 % of the inter-ocular distance), and on
footage of people who talk and pull faces, where every report counted as false (docs/signal.md)."""


@dataclass
class _Candidate:
    """A local maximum of the evidence: response (28,) and noise (28,), IOD."""

    time_s: float
    half_s: float
    score: float
    response: np.ndarray
    noise: np.ndarray


class Spotter:
    """Finds movements in a stream of Motion messages; `update` once a frame, bounded cost and memory.

    Args:
        config: settings.
        sensitivity: 0..1: micro-expressions of a confidence of at least 1 - sensitivity are reported.

    rejected: how many candidates were turned down, by cause.
    """

    def __init__(self, config: SpottingConfig, sensitivity: float = 0.5) -> None:
        self.config = config
        self.sensitivity = sensitivity
        self.rejected: Counter[str] = Counter()
        self._halves = config.half_lengths_s
        self._noise = np.full((len(self._halves), COMPONENTS), config.noise_prior)
        self._times = np.empty(CAPACITY)
        self._frames = np.empty(CAPACITY, np.int64)
        self._values = np.empty((CAPACITY, COMPONENTS + 6))  # displacement, then the head
        self._eyes = np.empty((CAPACITY, 2))
        self._light = np.empty((CAPACITY, 4))
        self._quality = np.empty(CAPACITY)
        self._speech = np.empty(CAPACITY)
        self._weights = np.empty(CAPACITY)
        self._segment = -1
        self._watched_s = 0.0
        self._interval_s = 1 / 30
        self.reset()

    def reset(self) -> None:
        """Forget the window (a gap, another face); what is known of the noise stays."""
        self._count = 0
        self._begun_s = float("inf")
        self._rings: list[deque[_Candidate]] = [deque() for _ in self._halves]
        self._open: list[_Candidate] = []
        self._settled_s = float("-inf")
        self._rejected_s = float("-inf")

    def update(self, motion: Motion) -> list[KeyFrames]:
        """Take one frame's motion; return the events that it completes, oldest first."""
        if motion.segment != self._segment or (
            self._count and not 0 < motion.time_s - self._times[self._count - 1] <= self.config.gap_s
        ):
            self.reset()
            self._segment = motion.segment
        self._append(motion)
        for number in range(len(self._halves)):
            self._respond(number, motion.time_s)
        found = []
        for candidate in sorted(self._open, key=lambda c: -c.score):
            if candidate.time_s <= self._settled_s:
                self._open.remove(candidate)
                continue
            verdict = self._judge(candidate, motion)
            if verdict is None or (isinstance(verdict, KeyFrames) and self._is_flank(verdict, candidate)):
                continue
            self._open.remove(candidate)
            if isinstance(verdict, KeyFrames):
                self._settled_s = verdict.offset.time_s
                found.append(verdict)
            elif abs(candidate.time_s - self._rejected_s) > 0.15:
                self._rejected_s = candidate.time_s
                self.rejected[verdict] += 1
        return found

    def _is_flank(self, event: KeyFrames, candidate: _Candidate) -> bool:
        """Whether a slow event ends in a stronger movement that is not decided yet: then it has to wait,
        since a drift and the rise of a brief expression together look like a slow movement back."""
        return event.kind == "macro" and any(
            other.score > candidate.score
            and event.onset.time_s < other.time_s < event.offset.time_s + self.config.settle_s * 3
            for other in self._open
            if other is not candidate
        )

    # -- window ------------------------------------------------------------------------------------

    def _append(self, motion: Motion) -> None:
        if self._count == CAPACITY:
            keep = CAPACITY // 2
            for array in (
                self._times,
                self._frames,
                self._values,
                self._eyes,
                self._light,
                self._quality,
                self._speech,
            ):
                array[:keep] = array[CAPACITY - keep :]
            self._count = keep
        i = self._count
        if i:
            interval = motion.time_s - self._times[i - 1]
            self._interval_s += 0.1 * (interval - self._interval_s)
            self._watched_s += interval
        else:
            self._begun_s = motion.time_s
        self._times[i] = motion.time_s
        self._frames[i] = motion.frame
        self._values[i, :COMPONENTS] = motion.displacement.ravel()
        self._values[i, COMPONENTS:] = motion.head
        self._eyes[i] = motion.eyes
        self._light[i] = motion.light
        self._quality[i] = motion.quality.mean()
        self._speech[i] = self._mouth_activity(motion.displacement)
        self._count = i + 1

    def _mouth_activity(self, displacement: np.ndarray) -> float:
        """Running share of time (0..1) in which the mouth's speed is that of speech.

        One brief expression fills a small part of `speech_s`; speech fills it syllable by syllable.
        """
        i = self._count
        if not i:
            return 0.0
        interval = self.config.speech_lag_s
        j = int(np.searchsorted(self._times[:i], self._times[i] - interval))
        moved = displacement[MOUTH:] - self._values[min(j, i - 1), :COMPONENTS].reshape(NODE_COUNT, 2)[MOUTH:]
        active = float(np.hypot(*moved.T).max()) > self.config.speech_motion
        share = min(1.0, (self._times[i] - self._times[i - 1]) / self.config.speech_s)
        return float(self._speech[i - 1] + share * (active - self._speech[i - 1]))

    # -- candidates --------------------------------------------------------------------------------

    def _respond(self, number: int, now: float) -> None:
        """Matched filter at one half-length; opens a candidate where the evidence has a local maximum."""
        c = self.config
        half = self._halves[number]
        side = max(c.side_s, c.side * half)
        centre = now - half - side
        start = int(np.searchsorted(self._times[: self._count], centre - half - side - 1e-6))
        if self._times[0] > centre - half - side + 1.5 * self._interval_s:
            return
        times = self._times[start : self._count]
        weights = self._weights[: len(times)]
        if bump_weights(times, centre, half, weights) <= 0.0:
            return
        response = np.empty(COMPONENTS + 6)
        combine(self._values[start : self._count], weights, response)
        response, head = response[:COMPONENTS], response[COMPONENTS:]
        stirred = c.head_shift * np.hypot(head[0], head[1]) + c.head_turn * (
            abs(head[2]) + abs(head[3]) + np.hypot(head[4], head[5])
        )
        noise = np.sqrt(self._noise[number] ** 2 + stirred**2 + c.noise_systematic**2)
        score = top_rms(response, noise, c.top_nodes)
        # A movement fills a long filter's response for longer, and must not be learned as noise meanwhile.
        memory_s = max(c.noise_s, c.noise_halves * half)
        step = self._interval_s / (memory_s if self._watched_s > memory_s else 0.25 * memory_s)
        follow_noise(self._noise[number], response, min(step, 0.3), c.noise_least, c.noise_most)

        ring = self._rings[number]
        ring.append(_Candidate(centre, half, score, response, noise))
        reach = c.peak_reach * half
        while ring and ring[0].time_s < centre - 2 * reach - 1e-9:
            ring.popleft()
        middle = None
        for entry in ring:
            if entry.time_s <= centre - reach + 1e-9:
                middle = entry
        if middle is None or middle.score < c.score or middle.score < max(entry.score for entry in ring):
            return
        if middle.time_s <= self._settled_s or middle in self._open:
            return
        for other in list(self._open):
            if abs(other.time_s - middle.time_s) < 0.5 * max(half, other.half_s):
                if other.score >= middle.score:
                    return
                self._open.remove(other)
        if len(self._open) >= c.most_open:
            weakest = min(self._open, key=lambda o: o.score)
            if weakest.score > middle.score:
                return
            self._open.remove(weakest)
        self._open.append(middle)

    # -- judgement ---------------------------------------------------------------------------------

    def _judge(self, candidate: _Candidate, motion: Motion) -> KeyFrames | str | None:
        """The event, the cause of its rejection, or None while its end is still to come."""
        c = self.config
        half = candidate.half_s
        z = candidate.response / candidate.noise
        node_z = np.sqrt((z.reshape(NODE_COUNT, 2) ** 2).sum(1) / 2)
        moved = node_z > min(c.node_score, 0.6 * node_z.max())
        precision = np.where(np.repeat(moved, 2), 1.0 / candidate.noise**2, 0.0)
        power = float((candidate.response**2 * precision).sum())
        direction = candidate.response * precision / power

        # What came before the last event's offset belongs to that event.
        begin_s = max(candidate.time_s - 2 * half - c.before_s, self._settled_s)
        start, stop = np.searchsorted(
            self._times[: self._count], [begin_s, candidate.time_s + 4 * half + c.before_s]
        ).tolist()
        times = self._times[start:stop]
        values = self._values[start:stop, :COMPONENTS]
        if len(times) < 6:
            return "gap"
        curve = np.empty(len(times))
        project(values, values[0], direction, curve)
        now = motion.time_s
        shape = candidate.time_s + np.array([-half, 0.0, half])
        level = np.zeros(3)
        # Only what lies near is fitted; a drift further away is no part of the movement.
        near = int(np.searchsorted(times, candidate.time_s + 2 * half + c.before_s))
        least = max(c.least_side_s, 0.9 * self._interval_s)
        error = fit_course(times[:near], curve[:near], least, 3 * half, shape, level)
        onset_s, apex_s, offset_s = shape.tolist()
        before, rise, fall = level.tolist()
        if rise <= c.least_rise:
            return "no rise"
        brief = offset_s - onset_s <= MICRO_S + min(0.05, 1.5 * self._interval_s)
        settled = offset_s <= now - (c.settle_s if brief else c.settle_slow_s)
        returned = fall >= c.least_return * rise
        if not (settled and returned) and now < candidate.time_s + 2 * half + c.before_s:
            return None
        if not settled and now < candidate.time_s + 4 * half:
            return None
        if not returned:
            return "no return"
        if abs(apex_s - candidate.time_s) > half or rise < c.least_return * fall:
            return "no rise"
        if onset_s < times[0] + 0.5 * self._interval_s:
            return "no rise"
        if onset_s < self._begun_s + c.start_s:
            return "just begun"
        if not brief and offset_s - onset_s > c.longest_s:
            return "no return"
        if not brief and candidate.score < c.score_slow:
            return "noise"
        restless = self._restlessness(onset_s, direction, values[0], before) / rise
        if restless > c.restless:
            return "restless"

        span = (times >= onset_s - 0.12) & (times <= offset_s + 0.12)
        form = np.empty(int(span.sum()))
        course_curve(times[span], shape, fall / rise, form)
        shares = np.empty(COMPONENTS)
        if not amplitudes(times[span], values[span], form, shares):
            return "noise"
        lengths = np.empty(NODE_COUNT)
        node_lengths(shares, lengths)
        strength = float(lengths.max())
        if strength < c.least_strength:
            return "too small"
        if strength > (c.most_strength if brief else c.most_strength_slow):
            return "too large"
        during = np.flatnonzero(span) + start
        if self._quality[during].min() < c.least_quality:
            return "covered"
        around = np.flatnonzero((times >= onset_s - 0.15) & (times <= offset_s + 0.15))
        if self._is_light(curve[around], start + around):
            return "light"
        if self._rigid_share(motion, shares) > c.rigid:
            return "head"
        before_onset = max(0, int(np.searchsorted(self._times[: self._count], onset_s)) - 1)
        speech = float(self._speech[before_onset])
        if lengths[MOUTH:].max() == strength and speech > c.speech:
            return "speech"
        upper = lengths[UPPER_FACE:].max() <= 0.5 * strength
        if upper and self._is_blink(curve[around], start + around, strength):
            return "blink"
        confidence = 1.0
        if brief:
            confidence = self._confidence(
                score=min(candidate.score, 12.0),
                coherence=_coherence(times[span], values[span], form, shares, precision),
                roughness=float(np.sqrt(max(error, 0.0) / max(near - 6, 1))) / rise,
                restless=restless,
                speech=speech,
                blink=float(self._eyes[during].max()) if upper else 0.0,
                fall=fall / rise,
                length_s=offset_s - onset_s,
            )
            if confidence < 1.0 - self.sensitivity:
                return "unsure"

        rest = motion.nodes.astype(np.float64)
        residual = min(1.0, max(0.0, 1.0 - fall / rise))
        change = shares.reshape(NODE_COUNT, 2)
        return KeyFrames(
            kind="micro" if brief else "macro",
            onset=self._key(onset_s),
            apex=self._key(apex_s),
            offset=self._key(offset_s),
            nodes=np.stack([rest, rest + change, rest + residual * change]).astype(np.float32),
            strength=strength,
            snr=float(max(rise, fall) * np.sqrt(power)),
            confidence=confidence,
            decided_frame=motion.frame,
        )

    @staticmethod
    def _confidence(
        *,
        score: float,
        coherence: float,
        roughness: float,
        restless: float,
        speech: float,
        blink: float,
        fall: float,
        length_s: float,
    ) -> float:
        """Probability (0..1) that a movement is an expression, by logistic regression.

        Args:
            score: evidence over noise. coherence: see `_coherence`. roughness: RMS of what the fitted
            course leaves, over its height. restless: mean excursion before the onset, over the height.
            speech: share of the time before in which the mouth was busy. blink: closure of the eyes
            during a movement of the upper face alone. fall: height of the fall over the rise's.
        """
        w = CONFIDENCE
        logit = (
            w["constant"]
            + w["score"] * np.log(score / 3.0)
            + w["coherence"] * coherence
            + w["roughness"] * np.log(roughness + 0.03)
            + w["restless"] * restless
            + w["speech"] * speech
            + w["blink"] * blink
            + w["fall"] * abs(np.log(max(fall, 0.3)))
            + w["short"] * max(0.0, 0.16 - length_s)
        )
        return float(1.0 / (1.0 + np.exp(-logit)))

    def _restlessness(self, onset_s: float, direction: np.ndarray, base: np.ndarray, level: float) -> float:
        """Mean distance of the curve from its level at rest, before the onset."""
        known = self._times[: self._count]
        start, stop = np.searchsorted(
            known, [max(onset_s - self.config.calm_s, self._settled_s), onset_s - 0.02]
        )
        if stop - start <= 3:
            return 0.0
        curve = np.empty(int(stop - start))
        project(self._values[start:stop, :COMPONENTS], base, direction, curve)
        return float(np.abs(curve - level).mean())

    def _key(self, time_s: float) -> KeyFrame:
        """The frame nearest to a time."""
        times = self._times[: self._count]
        i = int(np.clip(np.searchsorted(times, time_s), 1, self._count - 1))
        if time_s - times[i - 1] < times[i] - time_s:
            i -= 1
        return KeyFrame(int(self._frames[i]), float(times[i]))

    @staticmethod
    def _rigid_share(motion: Motion, shares: np.ndarray) -> float:
        """Share of the movement's energy that a rigid motion of all nodes explains (0..1)."""
        basis = np.empty((2, TERMS))
        rows = np.empty((2 * NODE_COUNT, 4))
        for i, (x, y) in enumerate(motion.nodes.astype(np.float64)):
            head_basis(x, y, 0.0, basis)
            rows[2 * i : 2 * i + 2] = basis[:, :4]
        fit = rows @ np.linalg.lstsq(rows, shares, rcond=None)[0]
        return float(1.0 - ((shares - fit) ** 2).sum() / max((shares**2).sum(), 1e-12))

    def _is_light(self, curve: np.ndarray, frames: np.ndarray) -> bool:
        """Whether the light changed in step with the movement: shadows that move look like skin that does.

        curve: (N,) of the event. frames: (N,) its places in the window.
        """
        c = self.config
        light = self._light[frames]
        light = light[:, np.ptp(light, axis=0) >= c.light]
        light = light - light.mean(0)
        part = curve - curve.mean()
        size = np.sqrt((part**2).sum() * (light**2).sum(0))
        return bool((np.abs(part @ light) > c.light_likeness * size).any())

    def _is_blink(self, curve: np.ndarray, frames: np.ndarray, strength: float) -> bool:
        """Whether an eye shut in step with a movement of the upper face; see `_is_light`."""
        c = self.config
        closure = self._eyes[frames].max(1)
        if closure.max() < c.blink or strength > c.blink_strength:
            return False
        a, b = curve - curve.mean(), closure - closure.mean()
        return bool((a * b).sum() > c.blink_likeness * np.sqrt((a * a).sum() * (b * b).sum()))


def _coherence(
    times: np.ndarray, values: np.ndarray, form: np.ndarray, shares: np.ndarray, precision: np.ndarray
) -> float:
    """Share (0..1) of what the moved nodes do around an event that one common course explains.

    All nodes of an expression move together; speech and a turning head move one after the other.

    times (N,), values (N, 28), form (N,): the course; shares (28,): each component's part of it;
    precision (28,): one over noise squared, 0 for what did not move.
    """
    t = times - times.mean()

    def detrended(v: np.ndarray) -> np.ndarray:
        v = v - v.mean(0)
        return v - np.multiply.outer(t, t @ v / (t @ t))

    total = float((detrended(values) ** 2 @ precision).sum())
    explained = float((detrended(form) ** 2).sum() * (shares**2 @ precision))
    return explained / max(total, 1e-12)
