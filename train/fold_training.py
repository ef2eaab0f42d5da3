"""Training and testing the folds of a run.

    train_folds([(spec, fold), ...], data) -> [FoldResult, ...]

What is drawn for a fold (the network's first weights, the order of its samples and their views) comes from
the seed and the fold alone: a fold gives the same whoever trains it, in whatever company. An epoch is as many
steps as the mean fold needs to see each sample once, in a view drawn anew, and three at least; every fold of
a run takes the same number of steps, of full batches, through an endless series of permutations of its own
training samples.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from streamer.errors import UsageError
from train import fold_checkpoints
from train.fold_checkpoints import Checkpoint, keep, kept
from train.fold_files import FoldResult
from train.fold_networks import FoldNetworks, ManyFolds, OneFold, build_learner
from train.folds import Fold, across_databases, leave_one_subject_out
from train.loop import learning_rate_factor
from train.results import RunSpec
from train.sweep_data import RunData

I64 = NDArray[np.int64]

LEAST_STEPS = 3
"""Of an epoch: a small database is seen several times in each, or the network would not have learnt it."""


def folds_of(spec: RunSpec, data: RunData) -> list[Fold]:
    """The folds of a run. Which subjects are validated on depends on no seed: it is the same for all runs.

    Raises:
        UsageError: too few subjects.
    """
    if spec.tested:
        fold = across_databases(
            data.persons, data.databases, spec.tested, spec.protocol, spec.validation_subjects
        )
        return [fold]
    return leave_one_subject_out(data.persons, spec.protocol, spec.validation_subjects, groups=spec.groups)


def steps_an_epoch(spec: RunSpec, folds: Sequence[Fold]) -> int:
    """Of all the folds of a run."""
    return max(LEAST_STEPS, round(sum(len(fold.train) for fold in folds) / len(folds) / spec.batch))


def sample_order(spec: RunSpec, fold: Fold, steps: int, views: int) -> tuple[I64, I64]:
    """(steps, batch) indices of samples and of views: what a fold is trained on."""
    name = hashlib.sha256(fold.name.encode()).digest()
    rng = np.random.default_rng((spec.seed, int.from_bytes(name[:8], "little")))
    need = steps * spec.batch
    rounds = [rng.permutation(fold.train) for _ in range(-(-need // len(fold.train)))]
    order = np.concatenate(rounds)[:need].reshape(steps, spec.batch)
    return order, rng.integers(0, views, order.shape)


def train_folds(
    jobs: Sequence[tuple[RunSpec, Fold]],
    data: RunData,
    steps: int,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
) -> list[FoldResult]:
    """Train and test folds: one alone, or several as one batched computation.

    Args:
        jobs: specs equal but for their seeds, which one may mix.
        steps: an epoch, see `steps_an_epoch`.
        checkpoint: where the state of a long training is kept, to go on after an interruption.

    Raises:
        UsageError: they do not fit together, or the setting does not make sense.
    """
    specs = [spec for spec, _ in jobs]
    spec = specs[0]
    if any(replace(other, seed=0) != replace(spec, seed=0) for other in specs):
        raise UsageError("folds of different models cannot be trained as one computation")
    torch_device = torch.device(device)
    began = time.monotonic()
    learners = [build_learner(each, len(data.classes), len(data.unit_names)) for each in specs]
    kind = OneFold if len(jobs) == 1 else ManyFolds
    networks = kind(learners, data, torch_device)
    folds = [fold for _, fold in jobs]
    training = _Training(spec, networks, folds, data, steps)
    orders = [sample_order(s, fold, spec.epochs * steps, data.inputs.shape[1]) for s, fold in jobs]
    samples, views = (np.stack(part, 1) for part in zip(*orders, strict=True))
    training.run(samples, views, checkpoint)
    seconds = (time.monotonic() - began) / len(jobs) + training.seconds_before
    return [training.result(k, fold, seconds) for k, fold in enumerate(folds)]


class _Training:
    """One training of K folds, and the state that it needs to go on.

    history: (3, epochs, K) of loss, accuracy and validation accuracy.
    """

    def __init__(
        self, spec: RunSpec, networks: FoldNetworks, folds: Sequence[Fold], data: RunData, steps: int
    ) -> None:
        self.spec, self.networks, self.folds, self.data, self.steps = spec, networks, folds, data, steps
        self.optimiser = torch.optim.AdamW(
            networks.trained, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True
        )
        self.chooses = any(len(fold.validation) for fold in folds)
        self.history = np.zeros((3, spec.epochs, len(folds)), np.float32)
        self.score = np.full((2, len(folds)), -np.inf)  # of the best epoch so far: accuracy, minus the loss
        self.epoch = np.full(len(folds), spec.epochs)
        self.best: dict[str, Tensor] = {}
        self.seconds_before = 0.0

    def run(self, samples: I64, views: I64, checkpoint: Path | None) -> None:
        """samples, views: (steps, K, batch)."""
        began = saved = time.monotonic()
        first = self._resume(checkpoint)
        total = len(samples)
        picks, views_at = self.networks.to_device(samples), self.networks.to_device(views)
        for epoch in range(first, self.spec.epochs):
            loss, right = [], []
            for step in range(epoch * self.steps, (epoch + 1) * self.steps):
                rate = self.spec.learning_rate * learning_rate_factor(step, total)
                for group in self.optimiser.param_groups:
                    group["lr"] = rate
                rng = np.random.default_rng((self.spec.seed, step))
                self.networks.begin_step(step)
                losses, hits = self.networks.losses(picks[step], views_at[step], rng)
                self.optimiser.zero_grad(set_to_none=True)
                losses.sum().backward()
                self.optimiser.step()
                loss.append(losses.detach())
                right.append(hits)
            self.history[0, epoch] = torch.stack(loss).mean(0).cpu().numpy()
            self.history[1, epoch] = torch.stack(right).sum(0).cpu().numpy() / (self.steps * samples.shape[2])
            if self.chooses:
                self._validate(epoch)
            now = time.monotonic()
            if checkpoint is not None and now - saved >= fold_checkpoints.EVERY_S:
                keep(checkpoint, self._checkpoint(epoch + 1, self.seconds_before + now - began))
                saved = now
        if self.best:
            self.networks.load(self.best)

    def _validate(self, epoch: int) -> None:
        """Keep the state of the folds that are better on their validation samples than ever before: more
        right, or as many at a smaller cross-entropy."""
        logits = self.networks.answers(padded([fold.validation for fold in self.folds])).classes.cpu()
        state = self.networks.state()
        better = np.zeros(len(self.folds), bool)
        for k, fold in enumerate(self.folds):
            said, truth = (
                logits[k, : len(fold.validation)],
                torch.from_numpy(self.data.label[fold.validation]),
            )
            score = (float((said.argmax(1) == truth).float().mean()), -float(F.cross_entropy(said, truth)))
            self.history[2, epoch, k] = score[0]
            if score > tuple(self.score[:, k]):
                self.score[:, k], self.epoch[k], better[k] = score, epoch + 1, True
        if not self.best:
            self.best = {name: tensor.clone() for name, tensor in state.items()}
        for name, tensor in state.items():
            self.best[name][better] = tensor[better]

    def result(self, k: int, fold: Fold, seconds: float) -> FoldResult:
        """What the k-th fold gives."""
        answers = self.networks.answers(padded([each.test for each in self.folds]))
        tested = len(fold.test)
        state = {name: _float32(tensor[k]) for name, tensor in self.networks.state().items()}
        heads, spec = answers.action_units, self.spec
        w = state.get("loss.aau.w", np.zeros(0, np.float32))
        two_streams = spec.model == "gts-gn"
        return FoldResult(
            name=fold.name,
            test=fold.test,
            scores=_float32(answers.classes[k, :tested]),
            action_units=_float32(heads[-1][k, :tested]) if heads else np.zeros((tested, 0), np.float32),
            loss=self.history[0, :, k],
            accuracy=self.history[1, :, k],
            validation_accuracy=self.history[2, :, k] if self.chooses else np.zeros(0, np.float32),
            epoch=int(self.epoch[k]),
            parameters=self.networks.parameters_each,
            seconds=seconds,
            aau_weights=w**2 / (w**2).sum() if len(w) else w,
            lam={
                layer_name(n, spec.fusion_layer): m
                for n, m in state.items()
                if n.endswith("adjacency.learned")
            },
            features={
                str(spec.fusion_layer + number): _float32(layer[k, :tested])
                for number, layer in enumerate(answers.features)
                if two_streams
            },
        )

    def _checkpoint(self, epoch: int, seconds: float) -> Checkpoint:
        slots = self.optimiser.state_dict()["state"]
        moments = {f"{k}/{name}": tensor for k, slot in slots.items() for name, tensor in slot.items()}
        return Checkpoint(
            epoch, seconds, self.networks.state(), moments, self.best, self.history, self.score, self.epoch
        )

    def _resume(self, checkpoint: Path | None) -> int:
        """The number of epochs that are done."""
        found = kept(checkpoint) if checkpoint is not None else None
        if found is None:
            return 0
        self.networks.load(found.state)
        values = self.optimiser.state_dict()
        values["state"] = {}
        for key, tensor in found.moments.items():
            number, name = key.split("/")
            values["state"].setdefault(int(number), {})[name] = tensor
        self.optimiser.load_state_dict(values)
        state = self.networks.state()
        self.best = {name: tensor.to(state[name].device) for name, tensor in found.best.items()}
        self.history, self.score, self.epoch = found.history, found.score, found.chosen
        self.seconds_before = found.seconds
        return found.epoch


def _float32(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.float().cpu().numpy()


def padded(indices: Sequence[I64]) -> I64:
    """(K, longest) indices; short rows repeat their first one, an empty one takes sample 0."""
    longest = max(map(len, indices))
    rows = [np.concatenate([row, np.full(longest - len(row), row[0] if len(row) else 0)]) for row in indices]
    return np.stack(rows).astype(np.int64)


def layer_name(parameter: str, fusion_layer: int) -> str:
    """ "network.fused.0.adjacency.learned" -> "fused.2" and so on, see `FoldResult.lam`."""
    stack, number = parameter.split(".")[1:3]
    shift = 1 + (fusion_layer if stack == "fused" else 0)
    return f"{'layer' if stack == 'layers' else stack}.{int(number) + shift}"
