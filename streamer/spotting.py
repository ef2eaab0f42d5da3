"""The sliding-window motion detector: onset, apex and offset of brief movements, as they happen.

Everything is measured in seconds, so the frame rate may be anything and may vary.

1.  What the head's motion leaves in the displacement is learned as it goes (ridge regression over the last
    seconds) and taken out, for brief movements; a slow one would be taken out with it.
2.  At several half-lengths a matched filter asks how much of a bump (a raised cosine over a straight line)
    the displacement of each node holds. The answer, over the running noise of each component, is the
    evidence, for the upper and the lower face apart: a brow is seen to move while the mouth speaks. Its
    local maxima over time are candidates.
3.  A candidate's response is a direction in the space of its nodes. The displacement projected on it
    (each component weighted by its noise) is one curve; a rise and a fall on a drift, fitted to it, give
    onset, apex and offset.
4.  What does not return, is restless before, or is the head's, a blink's, the light's or speech is
    rejected and counted. Each event that is left has a confidence, calibrated on clips with known truth
    (`streamer.confidence`). Up to 0.5 s is a micro-expression, longer a macro-expression.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass

import numpy as np

from streamer.confidence import breadth, coherence, confidence_of, shrink, symmetry, weights
from streamer.config import Config, SpottingConfig
from streamer.kernels.leak import learn_leak, predict_leak
from streamer.kernels.registration import TERMS, head_basis
from streamer.kernels.windows import (
    amplitudes,
    bump_heights,
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
PARTS = {"upper": slice(0, 7), "lower": slice(7, NODE_COUNT)}
"""Nodes 0..6 are the brows and the bridge of the nose, those that a blink can move; the rest is the lower
face. A movement is looked for in each part by itself."""
COMPONENTS_OF = {part: slice(2 * nodes.start, 2 * nodes.stop) for part, nodes in PARTS.items()}
LIGHT = {"upper": slice(0, 2), "lower": slice(2, 4)}
"""Which of `Motion.light` falls on each part."""
MOUTH = 10
"""Nodes 10..13 are the mouth: those that speech moves."""
HEAD = 6
MEASURED = slice(COMPONENTS, 2 * COMPONENTS)
TURN = slice(2 * COMPONENTS + 4, 2 * COMPONENTS + HEAD)
SURE = 0.9
"""Factor of `streamer.confidence.shrink` beyond which a node of the other part counts for the strength."""
CAPACITY = 4096
"""Frames kept, half of them at least: 8 s, the longest that is looked back, at up to 250 frames a second."""


def _components(half_s: float) -> slice:
    """Which displacement a bump of this half-length is looked for in."""
    return slice(0, COMPONENTS) if 2 * half_s <= MICRO_S else MEASURED


@dataclass(eq=False)
class _Candidate:
    """A local maximum of the evidence in one part of the face: response (28,) and noise (28,), IOD.

    due_s: when there is anything new to judge it by.
    """

    part: str
    time_s: float
    half_s: float
    score: float
    response: np.ndarray
    noise: np.ndarray
    due_s: float = float("-inf")


class Spotter:
    """Finds movements in a stream of Motion messages; `update` once a frame, bounded cost and memory.

    Args:
        config: settings.
        sensitivity: 0..1: movements of a confidence of at least 1 - sensitivity are reported.

    Raises:
        EngineError: the weights of the confidence are missing or damaged.

    rejected: how many candidates were turned down, by cause.
    """

    def __init__(self, config: SpottingConfig, sensitivity: float = Config.sensitivity) -> None:
        weights()  # now, not at the first event
        self.config = config
        self.sensitivity = sensitivity
        self.rejected: Counter[str] = Counter()
        self._halves = config.half_lengths_s
        self._noise = np.full((len(self._halves), COMPONENTS), config.noise_prior)
        self._times = np.empty(CAPACITY)
        self._frames = np.empty(CAPACITY, np.int64)
        # Displacement without what the head leaves in it, displacement as measured, the head.
        self._values = np.empty((CAPACITY, 2 * COMPONENTS + HEAD))
        self._eyes = np.empty((CAPACITY, 2))
        self._light = np.empty((CAPACITY, 4))
        self._quality = np.empty(CAPACITY)
        self._speech = np.empty(CAPACITY)
        self._segment = -1
        self._watched_s = 0.0
        self._interval_s = 1 / 30
        self.reset()

    def reset(self) -> None:
        """Forget the window (a gap, another face); what is known of the noise stays."""
        self._count = 0
        self._offsets = np.zeros((NODE_COUNT, 2))
        self._leak = np.zeros(COMPONENTS)
        self._leak_weight = 0.0
        self._head_covariance = np.zeros((HEAD, HEAD))
        self._head_cross = np.zeros((COMPONENTS, HEAD))
        self._begun_s = float("inf")
        self._rings: dict[tuple[int, str], deque[_Candidate]] = {
            (number, part): deque() for number in range(len(self._halves)) for part in PARTS
        }
        self._answered_s = [float("-inf")] * len(self._halves)
        self._open: list[_Candidate] = []
        self._settled_s = dict.fromkeys(PARTS, float("-inf"))
        self._rejected_s = float("-inf")
        self._slow_s = (0.0, 0.0)

    def update(self, motion: Motion) -> list[KeyFrames]:
        """Take one frame's motion; return the events that it completes, oldest first."""
        longest_s = max(self.config.gap_s, 1.5 * self._interval_s) + 1e-6
        if motion.segment != self._segment or (
            self._count and not 0 < motion.time_s - self._times[self._count - 1] <= longest_s
        ):
            self.reset()
            self._segment = motion.segment
        if not np.isfinite(motion.displacement).all() or not np.isfinite(motion.head).all():
            self.reset()
            return []
        self._append(motion)
        for number, half in enumerate(self._halves):
            # A long filter answers nearly the same from frame to frame.
            if motion.time_s - self._answered_s[number] >= 0.08 * half - 0.5 * self._interval_s:
                self._respond(number, motion.time_s)
        found = []
        for candidate in sorted(self._open, key=lambda c: -c.score):
            if candidate not in self._open or candidate.due_s > motion.time_s:
                continue
            verdict = self._judge(candidate, motion)
            if verdict is None or (isinstance(verdict, KeyFrames) and self._is_flank(verdict, candidate)):
                continue
            self._open.remove(candidate)
            if isinstance(verdict, KeyFrames):
                known = verdict.kind == "macro" and self._is_known(verdict)
                self._settle(candidate.part, verdict)
                found += [] if known else [verdict]
            elif abs(candidate.time_s - self._rejected_s) > 0.15:
                self._rejected_s = candidate.time_s
                self.rejected[verdict] += 1
        return found

    def _settle(self, part: str, event: KeyFrames) -> None:
        """What happened in this part of the face up to the event's offset, and in the other part at the same
        time and speed, belongs to the event."""
        onset_s, offset_s = event.onset.time_s, event.offset.time_s
        for name in PARTS:
            if name == part or event.kind == "micro":
                self._settled_s[name] = max(self._settled_s[name], offset_s)
        if event.kind == "macro":
            self._slow_s = (onset_s, offset_s)
        self._open = [
            c
            for c in self._open
            if c.time_s > self._settled_s[c.part]
            and not (onset_s < c.time_s < offset_s and c.half_s > 0.25 * (offset_s - onset_s))
        ]

    def _is_known(self, event: KeyFrames) -> bool:
        """Whether a slow event was reported already, as the other part of the face took part in it: half of
        either is common to both."""
        onset_s, offset_s = self._slow_s
        common_s = min(offset_s, event.offset.time_s) - max(onset_s, event.onset.time_s)
        return common_s > 0.5 * min(offset_s - onset_s, event.offset.time_s - event.onset.time_s)

    def _is_flank(self, event: KeyFrames, candidate: _Candidate) -> bool:
        """Whether a slow event ends in a stronger movement that is not decided yet: then it has to wait,
        since a drift and the rise of a brief expression together look like a slow movement back."""
        return event.kind == "macro" and any(
            other.score > candidate.score
            and event.onset.time_s < other.time_s < event.offset.time_s + self.config.settle_s * 3
            for other in self._open
            if other is not candidate and other.part == candidate.part
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
        displacement = motion.displacement.astype(np.float64)
        lost = motion.quality == 0.0
        if lost.any():
            # A node that was lost begins anew somewhere: that is no movement.
            last = self._values[i - 1, MEASURED].reshape(NODE_COUNT, 2) if i else displacement
            self._offsets[lost] = (last - displacement)[lost]
        displacement += self._offsets
        self._values[i, MEASURED] = displacement.ravel()
        self._values[i, 2 * COMPONENTS :] = motion.head
        self._values[i, :COMPONENTS] = self._values[i, MEASURED] - self._follow_head(i)
        self._eyes[i] = motion.eyes
        self._light[i] = motion.light
        self._quality[i] = motion.quality.mean()
        self._speech[i] = self._mouth_activity(i)
        self._count = i + 1

    def _follow_head(self, i: int) -> np.ndarray:
        """(28,) what the head's motion has added to the displacement up to frame i of the window."""
        if not i:
            return self._leak
        c = self.config
        head, measured = self._values[: i + 1, 2 * COMPONENTS :], self._values[: i + 1, MEASURED]
        interval = self._times[i] - self._times[i - 1]
        added = np.empty(COMPONENTS)
        predict_leak(
            self._head_covariance,
            self._head_cross,
            self._leak_weight * c.leak_ridge**2 + 1e-12,
            head[i] - head[i - 1],
            added,
        )
        self._leak = self._leak + added
        j = int(self._times[:i].searchsorted(self._times[i] - c.leak_lag_s + 1e-6))
        if j < i:
            keep = math.exp(-interval / c.leak_s)
            self._leak_weight = keep * self._leak_weight + interval
            learn_leak(
                self._head_covariance,
                self._head_cross,
                head[i] - head[j],
                measured[i] - measured[j],
                keep,
                interval,
                c.leak_limit,
            )
        return self._leak

    def _mouth_activity(self, i: int) -> float:
        """Running share of time (0..1) in which the mouth moves as fast as in speech, at frame i.

        One brief expression fills a small part of `speech_s`; speech fills it syllable by syllable.
        """
        if not i:
            return 0.0
        j = min(int(self._times[:i].searchsorted(self._times[i] - self.config.speech_lag_s + 1e-6)), i - 1)
        moved = self._values[i, 2 * MOUTH : COMPONENTS] - self._values[j, 2 * MOUTH : COMPONENTS]
        active = float((moved.reshape(-1, 2) ** 2).sum(1).max()) > self.config.speech_motion**2
        share = min(1.0, (self._times[i] - self._times[i - 1]) / self.config.speech_s)
        return float(self._speech[i - 1] + share * (active - self._speech[i - 1]))

    # -- candidates --------------------------------------------------------------------------------

    def _respond(self, number: int, now: float) -> None:
        """Matched filter at one half-length; opens a candidate where the evidence has a local maximum."""
        c = self.config
        half = self._halves[number]
        side = max(c.side_s, c.side * half)
        centre = now - half - side
        begin = centre - half - side
        if self._begun_s > begin + 1.5 * self._interval_s:
            return
        start = int(self._times[: self._count].searchsorted(begin - 1e-6))
        response = np.empty(2 * COMPONENTS + HEAD)
        window = slice(start, self._count)
        if bump_heights(self._times[window], self._values[window], centre, half, response) <= 0.0:
            return
        x, y, roll, size, yaw, pitch = response[2 * COMPONENTS :].tolist()
        response = response[_components(half)]
        stirred = c.head_shift * math.hypot(x, y) + c.head_turn * (
            abs(roll) + abs(size) + math.hypot(yaw, pitch)
        )
        noise = np.sqrt(self._noise[number] ** 2 + (stirred**2 + c.noise_systematic**2))
        # A movement fills a long filter's response for longer, and must not be learned as noise meanwhile.
        memory_s = max(c.noise_s, c.noise_halves * half)
        passed_s = min(now - self._answered_s[number], half)
        self._answered_s[number] = now
        step = passed_s / (memory_s if self._watched_s > memory_s else 0.25 * memory_s)
        follow_noise(self._noise[number], response, min(step, 0.3), c.noise_least, c.noise_most)
        for part, components in COMPONENTS_OF.items():
            score = top_rms(response[components], noise[components], c.top_nodes)
            self._peak(number, _Candidate(part, centre, half, score, response, noise))

    def _peak(self, number: int, latest: _Candidate) -> None:
        """Open a candidate if the evidence was largest a little before the latest answer."""
        c = self.config
        half = latest.half_s
        ring = self._rings[number, latest.part]
        ring.append(latest)
        reach = c.peak_reach * half
        while ring and ring[0].time_s < latest.time_s - 2 * reach - 1e-9:
            ring.popleft()
        middle = None
        for entry in ring:
            if entry.time_s <= latest.time_s - reach + 1e-9:
                middle = entry
        if middle is None or middle.score < c.score or middle.score < max(entry.score for entry in ring):
            return
        if middle.time_s <= self._settled_s[middle.part] or middle in self._open:
            return
        for other in list(self._open):
            if other.part == middle.part and abs(other.time_s - middle.time_s) < 0.5 * max(
                half, other.half_s
            ):
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
        half, now = candidate.half_s, motion.time_s
        part, nodes = candidate.part, PARTS[candidate.part]
        z = candidate.response / candidate.noise
        node_z = np.sqrt((z.reshape(NODE_COUNT, 2) ** 2).sum(1) / 2)
        moved = np.zeros(NODE_COUNT, bool)
        moved[nodes] = node_z[nodes] > min(c.node_score, 0.6 * node_z[nodes].max())
        precision = np.where(np.repeat(moved, 2), 1.0 / candidate.noise**2, 0.0)
        power = float((candidate.response**2 * precision).sum())
        direction = candidate.response * precision / power

        # What came before the last event's offset belongs to that event.
        reach = 1.5 * half + c.before_s
        begin_s = max(candidate.time_s - reach, self._settled_s[part])
        start, stop = np.searchsorted(
            self._times[: self._count], [begin_s, candidate.time_s + 4 * half + c.before_s]
        ).tolist()
        times = self._times[start:stop]
        values = self._values[start:stop, _components(half)]
        if len(times) < 6:
            return "gap"
        curve = np.empty(len(times))
        project(values, values[0], direction, curve)
        shape = candidate.time_s + np.array([-half, 0.0, half])
        level = np.zeros(4)
        # Only what lies near is fitted; a drift further away is no part of the movement.
        near = int(np.searchsorted(times, candidate.time_s + reach))
        least = max(c.least_side_s, 0.9 * self._interval_s)
        error = fit_course(times[:near], curve[:near], least, 3 * half, c.drift_stiffness, shape, level)
        onset_s, apex_s, offset_s = shape.tolist()
        before, rise, fall, drift = level.tolist()
        before -= drift * apex_s  # at time zero
        if rise <= c.least_rise:
            return "no rise"
        brief = offset_s - onset_s <= MICRO_S + min(0.05, 1.5 * self._interval_s)
        settle_s = c.settle_s if brief else c.settle_slow_s
        settled = offset_s <= now - settle_s
        returned = fall >= c.least_return * rise
        if not (settled and returned) and now < candidate.time_s + reach:
            candidate.due_s = min(offset_s + settle_s, now + 0.05) if returned else now + 0.02
            return None
        if not settled and now < candidate.time_s + 4 * half:
            candidate.due_s = now + 0.05
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
        if not brief:
            still = np.empty(len(times))
            project(self._values[start:stop, :COMPONENTS], self._values[start, :COMPONENTS], direction, still)
            onset, apex = np.searchsorted(times, (onset_s, apex_s))
            if still[apex] - still[onset] < c.least_return * rise:
                return "head"
        restless = self._restlessness(candidate, onset_s, direction, values[0]) / rise
        if restless > c.restless:
            return "restless"

        span = (times >= onset_s - 0.12) & (times <= offset_s + 0.12)
        form = np.empty(int(span.sum()))
        course_curve(times[span], shape, fall / rise, form)
        shares = np.empty(COMPONENTS)
        if not amplitudes(times[span], values[span], form, shares):
            return "noise"
        sure = shrink(times[span], values[span], form, shares)
        lengths = np.empty(NODE_COUNT)
        node_lengths(shares, lengths)
        strength = float(lengths[nodes].max())
        if strength < max(c.least_strength, 1e-6):
            return "too small"
        in_part = strength
        strength = max(strength, float(lengths[sure > SURE].max(initial=0.0)))
        if strength > (c.most_strength if brief else c.most_strength_slow):
            return "too large"
        during = np.flatnonzero(span) + start
        if self._quality[during].min() < c.least_quality:
            return "covered"
        around = np.flatnonzero((times >= onset_s - 0.15) & (times <= offset_s + 0.15))
        light = self._light_likeness(part, curve[around], start + around)
        if light > c.light_likeness:
            return "light"
        rigid = self._rigid_share(motion, shares)
        if rigid > c.rigid:
            return "head"
        before_onset = max(0, int(np.searchsorted(self._times[: self._count], onset_s)) - 1)
        speech = float(self._speech[before_onset])
        if part == "lower" and lengths[MOUTH:].max() == in_part and speech > c.speech:
            return "speech"
        if part == "upper" and self._is_blink(curve[around], start + around, in_part):
            return "blink"
        evidence = {
            "coherence": coherence(times[span], values[span], form, shares, precision),
            "roughness": math.log(math.sqrt(max(error, 0.0) / max(near - 7, 1)) / rise + 0.03),
            "fall": abs(math.log(max(fall / rise, 0.3))),
            "short": max(0.0, 0.16 - (offset_s - onset_s)),
            "noise": math.log(float(np.median(candidate.noise[np.repeat(moved, 2)])) / 0.0005),
            "strength": math.log(in_part / 0.01),
            "light": light,
            "symmetry": symmetry(shares, nodes),
            "breadth": breadth(lengths[nodes]),
            "leaked": self._leaked(during, direction) / rise,
            "turn": math.log(math.hypot(*np.ptp(self._values[during, TURN], axis=0).tolist()) + 0.01),
        }
        kind = "micro" if brief else "macro"
        confidence = confidence_of(kind, evidence)
        if not confidence >= 1.0 - self.sensitivity:
            return "unsure"

        rest = motion.nodes.astype(np.float64)
        residual = min(1.0, max(0.0, 1.0 - fall / rise))
        change = shares.reshape(NODE_COUNT, 2)
        return KeyFrames(
            kind=kind,
            onset=self._key(onset_s),
            apex=self._key(apex_s),
            offset=self._key(offset_s),
            nodes=np.stack([rest, rest + change, rest + residual * change]).astype(np.float32),
            strength=strength,
            snr=float(max(rise, fall) * np.sqrt(power)),
            confidence=confidence,
            evidence=evidence,
            decided_frame=motion.frame,
        )

    def _restlessness(
        self, candidate: _Candidate, onset_s: float, direction: np.ndarray, base: np.ndarray
    ) -> float:
        """Mean distance of the curve from a straight line, before the onset."""
        known = self._times[: self._count]
        start, stop = np.searchsorted(
            known, [max(onset_s - self.config.calm_s, self._settled_s[candidate.part]), onset_s - 0.02]
        )
        if stop - start <= 4:
            return 0.0
        curve = np.empty(int(stop - start))
        project(self._values[start:stop, _components(candidate.half_s)], base, direction, curve)
        t = known[start:stop] - known[start:stop].mean()
        curve -= curve.mean()
        curve -= t * float(t @ curve) / float(t @ t)
        return float(np.abs(curve).mean())

    def _leaked(self, frames: np.ndarray, direction: np.ndarray) -> float:
        """How far, along a movement's direction, what was taken out for the head moved during frames (N,)."""
        taken = self._values[frames, MEASURED] - self._values[frames, :COMPONENTS]
        return float(np.ptp(taken @ direction))

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

    def _light_likeness(self, part: str, curve: np.ndarray, frames: np.ndarray) -> float:
        """Correlation (0..1) of a movement with the light on its part of the face, where that changed:
        shadows that move look like skin that does.

        curve: (N,) of the event. frames: (N,) its places in the window.
        """
        light = self._light[frames][:, LIGHT[part]]
        light = light[:, np.ptp(light, axis=0) >= self.config.light]
        light = light - light.mean(0)
        moved = curve - curve.mean()
        size = np.sqrt((moved**2).sum() * (light**2).sum(0))
        return float((np.abs(moved @ light) / size).max(initial=0.0))

    def _is_blink(self, curve: np.ndarray, frames: np.ndarray, strength: float) -> bool:
        """Whether an eye shut in step with a movement of the upper face; see `_light_likeness`."""
        c = self.config
        closure = self._eyes[frames].max(1)
        if closure.max() < c.blink or strength > c.blink_strength:
            return False
        a, b = curve - curve.mean(), closure - closure.mean()
        return bool((a * b).sum() > c.blink_likeness * np.sqrt((a * a).sum() * (b * b).sum()))
