"""The sliding-window motion detector: onset, apex and offset of brief movements, as they happen.

Everything is measured in seconds, so the frame rate may be anything and may vary.

1.  At several lags w the bump response b = u(t) - (u(t-w) + u(t+w)) / 2 of every node's displacement
    u is held against that node's running noise. Its local maxima over time are candidates.
2.  A candidate's response is a direction in the space of all nodes. The displacement projected on it
    (each node weighted by its noise: a matched filter) gives one clean curve of rise and return, from
    which onset, apex and offset are read.
3.  What does not return, is restless before, moves as a rigid head would, or is a blink, is rejected
    and counted. Up to 0.5 s is a micro-expression, longer a macro-expression.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

import numpy as np

from streamer.config import SpottingConfig
from streamer.kernels.registration import TERMS, head_basis
from streamer.kernels.windows import (
    amplitudes,
    bump,
    crossing,
    flank,
    follow_noise,
    node_lengths,
    project,
    smooth,
    top_rms,
)
from streamer.messages import KeyFrame, KeyFrames, Motion

NODE_COUNT = 14
MICRO_S = 0.5
"""Longest micro-expression (Yan et al. 2013, "How fast are the leaked facial expressions")."""
UPPER_FACE = 7
"""Nodes 0..6 are the brows and the bridge of the nose: those that a blink can move."""
MOUTH = 10
"""Nodes 10..13 are the mouth: those that speech moves."""
CAPACITY = 4096
"""Frames kept: `history_s` at up to 340 frames a second."""


@dataclass
class _Candidate:
    time_s: float
    lag: int
    score: float
    direction: np.ndarray
    noise: np.ndarray


class Spotter:
    """Finds movements in a stream of Motion messages; `update` once a frame, bounded cost and memory.

    rejected: how many candidates were turned down, by cause.
    """

    def __init__(self, config: SpottingConfig) -> None:
        self.config = config
        self.rejected: Counter[str] = Counter()
        self._lags = np.array(config.lags_s)
        self._noise = np.full((len(self._lags), NODE_COUNT), config.noise_prior)
        self._times = np.empty(CAPACITY)
        self._frames = np.empty(CAPACITY, np.int64)
        self._values = np.empty((CAPACITY, 2 * NODE_COUNT))
        self._head = np.empty((CAPACITY, 6))
        self._eyes = np.empty((CAPACITY, 2))
        self._light = np.empty((CAPACITY, 4))
        self._quality = np.empty(CAPACITY)
        self._speech = np.empty(CAPACITY)
        self._scratch = np.empty(2 * NODE_COUNT)
        self._head_scratch = np.empty(6)
        self._segment = -1
        self._watched_s = 0.0
        self._interval_s = 1 / 30
        self.reset()

    def reset(self) -> None:
        """Forget the window (a gap, another face); what is known of the noise stays."""
        self._count = 0
        self._responses: list[deque[tuple[float, float, np.ndarray]]] = [deque() for _ in self._lags]
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
        now = motion.time_s
        for lag in range(len(self._lags)):
            self._respond(lag, now)
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
                self._head,
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
        self._times[i] = motion.time_s
        self._frames[i] = motion.frame
        self._values[i] = motion.displacement.ravel()
        self._head[i] = motion.head
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
        moved = displacement[MOUTH:] - self._values[min(j, i - 1)].reshape(NODE_COUNT, 2)[MOUTH:]
        active = float(np.hypot(*moved.T).max()) > self.config.speech_motion
        share = min(1.0, (self._times[i] - self._times[i - 1]) / self.config.speech_s)
        return float(self._speech[i - 1] + share * (active - self._speech[i - 1]))

    @property
    def _half_s(self) -> float:
        """Half width of the interpolating and smoothing triangle."""
        return max(self.config.smooth_s, 1.2 * self._interval_s)

    # -- candidates --------------------------------------------------------------------------------

    def _respond(self, lag: int, now: float) -> None:
        """Bump response at one lag; opens a candidate where it has a local maximum."""
        c = self.config
        w = float(self._lags[lag])
        time_s = now - w
        times, values = self._times[: self._count], self._values[: self._count]
        if not self._count or time_s - w < times[0]:
            return
        response = np.empty(2 * NODE_COUNT)
        if not bump(times, values, time_s, w, self._half_s, self._scratch, response):
            return
        head = np.empty(6)
        bump(times, self._head[: self._count], time_s, w, self._half_s, self._head_scratch, head)
        lengths = np.empty(NODE_COUNT)
        node_lengths(response, lengths)
        stirred = c.head_shift * np.hypot(head[0], head[1]) + c.head_turn * (
            abs(head[2]) + abs(head[3]) + np.hypot(head[4], head[5])
        )
        noise = np.sqrt(self._noise[lag] ** 2 + stirred**2 + c.noise_systematic**2)
        score = top_rms(lengths, noise, c.top_nodes)
        # A movement fills a long lag's response for longer, and must not be learned as noise meanwhile.
        memory_s = max(c.noise_s, c.noise_lags * w)
        step = self._interval_s / (memory_s if self._watched_s > memory_s else 0.25 * memory_s)
        follow_noise(self._noise[lag], lengths, min(step, 0.3), c.noise_least, c.noise_most)

        ring = self._responses[lag]
        ring.append((time_s, score, response))
        reach = c.peak_reach * w
        while ring and ring[0][0] < time_s - 2 * reach - 1e-9:
            ring.popleft()
        middle = None
        for entry in ring:
            if entry[0] <= time_s - reach + 1e-9:
                middle = entry
        if middle is None or middle[1] < c.score or middle[1] < max(entry[1] for entry in ring):
            return
        if middle[0] <= self._settled_s:
            return
        node_lengths(middle[2], lengths)
        candidate = _Candidate(middle[0], lag, middle[1], middle[2], noise)
        for other in self._open:
            if abs(other.time_s - candidate.time_s) < 0.5 * max(w, self._lags[other.lag]):
                if other.score >= candidate.score:
                    return
                self._open.remove(other)
                break
        if len(self._open) >= c.most_open:
            weakest = min(self._open, key=lambda o: o.score)
            if weakest.score > candidate.score:
                return
            self._open.remove(weakest)
        self._open.append(candidate)

    # -- judgement ---------------------------------------------------------------------------------

    def _judge(self, candidate: _Candidate, motion: Motion) -> KeyFrames | str | None:
        """The event, the cause of its rejection, or None while its end is still to come."""
        c = self.config
        lengths = np.empty(NODE_COUNT)
        node_lengths(candidate.direction, lengths)
        moved = lengths > c.node_score * candidate.noise
        if not moved.any():
            moved[lengths.argmax()] = True
        precision = np.repeat(np.where(moved, 1.0 / candidate.noise**2, 0.0), 2)
        power = float((candidate.direction**2 * precision).sum())
        direction = candidate.direction * precision / power
        noise = 0.82 / np.sqrt(power)  # a response's variance is 1.5 times a sample's

        # What came before the last event's offset belongs to that event.
        begin_s = max(candidate.time_s - c.history_s, self._settled_s)
        start = int(np.searchsorted(self._times[: self._count], begin_s))
        times = self._times[start : self._count]
        values = self._values[start : self._count]
        raw = np.empty(len(times))
        project(values, values[0], direction, raw)
        curve = np.empty_like(raw)
        smooth(times, raw, max(c.smooth_s, 1e-6), curve)

        w = float(self._lags[candidate.lag])
        near = np.flatnonzero(np.abs(times - candidate.time_s) <= 0.7 * w)
        if not len(near):
            return "gap"
        apex = int(near[curve[near].argmax()])

        # The corner where a movement begins responds too, upside down: it has no rise within its lag.
        if curve[apex] - np.interp(candidate.time_s - w, times, curve) < c.least_side:
            return "no rise"
        state, before = flank(times, curve, apex, -1, noise, c.flat, c.settle_s, c.least_return)
        rise = curve[apex] - before
        if rise < c.least_return or (state == 2 and times[apex] - times[0] < c.settle_s):
            return "no rise"
        state, after = flank(times, curve, apex, 1, noise, c.flat, c.settle_s, c.least_return * rise)
        if state == 2:
            return None if times[-1] - times[apex] < c.longest_s else "no return"
        fall = curve[apex] - after
        if rise < c.least_return * fall:
            return "no rise"
        if max(rise, fall) < c.snr * noise:
            return "noise"

        onset_s = self._edge(times, curve, apex, -1, before, rise)
        offset_s = self._edge(times, curve, apex, 1, after, fall)
        apex_s = self._vertex(times, curve, apex)
        brief = offset_s - onset_s <= MICRO_S + min(0.05, 1.5 * self._interval_s)
        if not brief:
            # A slow movement is decided late: a drift that ends in a brief expression must not pass for one.
            if offset_s - onset_s > c.longest_s:
                return "no return"
            if candidate.score < c.score_slow:
                return "noise"
            state, after = flank(times, curve, apex, 1, noise, c.flat, c.settle_slow_s, c.least_return * rise)
            if state != 0:
                return None if state == 2 and times[-1] - offset_s < c.longest_s else "no return"
        calm = (times >= onset_s - c.calm_s) & (times < onset_s - 0.03)
        if calm.sum() > 2 and np.abs(curve[calm] - before).mean() > c.restless * rise:
            return "restless"

        span = (times >= onset_s - 0.12) & (times <= offset_s + 0.12)
        shares = np.empty(2 * NODE_COUNT)
        share_curve = (curve[span] - before) / rise
        if not amplitudes(times[span], values[span], share_curve, shares):
            return "noise"
        node_lengths(shares, lengths)
        strength = float(lengths.max())
        if strength < c.least_strength:
            return "too small"
        if strength > (c.most_strength if brief else c.most_strength_slow):
            return "too large"
        during = np.flatnonzero(span) + start
        if self._quality[during].min() < c.least_quality:
            return "covered"
        if self._is_light(times, curve, (onset_s, offset_s), start):
            return "light"
        if self._rigid_share(motion, shares, candidate.noise) > c.rigid:
            return "head"
        if lengths[MOUTH:].max() == lengths.max():
            before_onset = start + max(0, int(np.searchsorted(times, onset_s)) - 1)
            if self._speech[before_onset] > c.speech:
                return "speech"
        if self._is_blink(times, curve, (onset_s, offset_s), start, lengths):
            return "blink"

        onset, apex_key, offset = (self._key(t) for t in (onset_s, apex_s, offset_s))
        rest = motion.nodes.astype(np.float64)
        residual = min(1.0, max(0.0, (after - before) / rise))
        change = shares.reshape(NODE_COUNT, 2)
        nodes = np.stack([rest, rest + change, rest + residual * change]).astype(np.float32)
        return KeyFrames(
            kind="micro" if brief else "macro",
            onset=onset,
            apex=apex_key,
            offset=offset,
            nodes=nodes,
            strength=strength,
            snr=float(max(rise, fall) / noise),
            decided_frame=motion.frame,
        )

    def _edge(
        self, times: np.ndarray, curve: np.ndarray, apex: int, step: int, level: float, height: float
    ) -> float:
        """Where the movement begins (step -1) or ends (+1): the line through the curve's half height
        and its tenth, carried on a little, since a smooth rise has a foot that noise hides."""
        tenth = crossing(times, curve, apex, step, level + 0.1 * height)
        half = crossing(times, curve, apex, step, level + 0.5 * height)
        edge = tenth + self.config.foot * (tenth - half)
        return float(min(max(edge, times[0]), times[-1]))

    @staticmethod
    def _vertex(times: np.ndarray, curve: np.ndarray, apex: int) -> float:
        """Time of the peak, by a parabola through its sample and the neighbours."""
        if not 0 < apex < len(times) - 1:
            return float(times[apex])
        a, b, c = curve[apex - 1 : apex + 2]
        bend = a - 2 * b + c
        if bend >= -1e-12:
            return float(times[apex])
        shift = 0.5 * (a - c) / bend
        side = times[apex + 1] - times[apex] if shift > 0 else times[apex] - times[apex - 1]
        return float(times[apex] + np.clip(shift, -0.5, 0.5) * side)

    def _key(self, time_s: float) -> KeyFrame:
        """The frame nearest to a time."""
        times = self._times[: self._count]
        i = int(np.clip(np.searchsorted(times, time_s), 1, self._count - 1))
        if time_s - times[i - 1] < times[i] - time_s:
            i -= 1
        return KeyFrame(int(self._frames[i]), float(times[i]))

    @staticmethod
    def _rigid_share(motion: Motion, shares: np.ndarray, noise: np.ndarray) -> float:
        """Share of the movement's energy that a rigid motion of all nodes explains (0..1)."""
        basis = np.empty((2, TERMS))
        rows = np.empty((2 * NODE_COUNT, 4))
        for i, (x, y) in enumerate(motion.nodes.astype(np.float64)):
            head_basis(x, y, 0.0, basis)
            rows[2 * i : 2 * i + 2] = basis[:, :4]
        fit = rows @ np.linalg.lstsq(rows, shares, rcond=None)[0]
        return float(1.0 - ((shares - fit) ** 2).sum() / max((shares**2).sum(), 1e-12))

    def _is_light(self, times: np.ndarray, curve: np.ndarray, span: tuple[float, float], start: int) -> bool:
        """Whether the light changed in step with the movement: shadows that move look like skin that does."""
        c = self.config
        inside = np.flatnonzero((times >= span[0] - 0.15) & (times <= span[1] + 0.15))
        light = self._light[start + inside]
        light = light[:, np.ptp(light, axis=0) >= c.light]
        light = light - light.mean(0)
        part = curve[inside] - curve[inside].mean()
        size = np.sqrt((part**2).sum() * (light**2).sum(0))
        return bool((np.abs(part @ light) > c.light_likeness * size).any())

    def _is_blink(
        self,
        times: np.ndarray,
        curve: np.ndarray,
        span: tuple[float, float],
        start: int,
        lengths: np.ndarray,
    ) -> bool:
        """Whether an eye shut in step with the movement, and only the upper face moved, and a little."""
        c = self.config
        inside = np.flatnonzero((times >= span[0] - 0.15) & (times <= span[1] + 0.15))
        closure = self._eyes[start + inside].max(1)
        if closure.max() < c.blink or lengths.max() > c.blink_strength:
            return False
        if lengths[UPPER_FACE:].max() > 0.5 * lengths.max():
            return False
        a, b = curve[inside] - curve[inside].mean(), closure - closure.mean()
        return bool((a * b).sum() > c.blink_likeness * np.sqrt((a * a).sum() * (b * b).sum()))
