"""One model from one command: leave-one-subject-out, and what came of it.

python -m train loso --dataset casme2 --root /data/CASME2 --out runs/casme2
python -m train loso --dataset casme2 --root ... --out ... --model ss-gn --features A --no-lam
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from streamer.errors import UsageError
from train.datasets import SettingName, load
from train.datasets.check import DatabaseName
from train.executors import Device, Executor, LocalExecutor
from train.folds import Protocol
from train.landmarks import LandmarkConfig
from train.losses import AuLossName
from train.metrics import FIGURES
from train.results import ModelName, RunResult, RunSpec
from train.scales import Scale, at_scale
from train.sweep import check_samples, run_sweep
from train.sweep_data import Source, SweepData


@dataclass(frozen=True)
class ExecutorConfig:
    """Who trains."""

    executor: Literal["local", "ray"] = "local"
    """local: processes of this machine, or its GPU. ray: a Ray cluster (extra `ray`)."""
    workers: int = 2
    """Processes, one thread each."""
    device: Device = "auto"
    """With local: auto takes a GPU where there is one, and trains all folds of a run on it at once."""
    address: str = ""
    """With ray: of the cluster ("auto", "HOST:6379"); empty: Ray's own workers on this machine."""


ExecutorFlags = Annotated[ExecutorConfig, tyro.conf.arg(name="")]
"""As a field of a command: --workers, not --run.workers."""


def open_executor(config: ExecutorConfig) -> Executor:
    """The executor of these flags.

    Raises:
        UsageError: it cannot be had.
    """
    if config.workers < 1:
        raise UsageError("--workers must be at least 1")
    if config.executor == "local":
        if config.address:
            raise UsageError("--address belongs to --executor ray")
        return LocalExecutor(config.workers, config.device)
    from train.ray_executor import RayExecutor

    return RayExecutor(config.address, config.workers)


@dataclass(frozen=True)
class LosoConfig:
    """Train and test one model, each subject left out once; goes on where it was interrupted."""

    dataset: DatabaseName
    """Which database; manifest: a CSV file of your own."""
    root: Path
    """Folder that it was unpacked into."""
    out: Path
    """Folder for the results; may hold those of other runs."""
    sheet: Path | None = None
    """Its annotations, if they do not lie there."""
    setting: SettingName = "objective"
    """Which classes: objective, objective5, self-report or megc3 (docs/datasets.md)."""
    model: ModelName = "gts-gn"
    """Which network."""
    features: Literal["A", "B"] | None = None
    """Node features: A = (x, y), B = (x, y, D, alpha). By default B for gts-gn, A for the others."""
    fusion_layer: int = 2
    """gts-gn: the layer, 1 to 4, after which its streams are summed."""
    lam: bool = True
    """Graph networks: with the learnable adjacency matrix."""
    au_loss: AuLossName | None = None
    """Action-unit loss: none, au (one layer) or aau (all from the fusion on). By default aau for gts-gn."""
    au_layer: int = 1
    """With --au-loss au: which layer."""
    beta: float = 1.0
    """Weight of the action-unit loss."""
    protocol: Protocol = "honest"
    """honest: nothing is chosen on the test subject. paper: the epoch is the best on the test fold, as
    published figures often are; that flatters."""
    validation_subjects: int = 0
    """With honest: subjects of each fold that are held back to choose the epoch on; 0: the last epoch."""
    seed: int = 0
    """Of weights and order."""
    scale: Scale = "full"
    """full: every subject a fold. quick: a true small version, in a minute."""
    epochs: int | None = None
    """Instead of the scale's."""
    cache: Path = Path("out/landmarks")
    """Folder for landmarks."""
    tensorboard: bool = False
    """Write loss and accuracy of each fold to OUT/tensorboard."""
    run: ExecutorFlags = field(default_factory=ExecutorConfig)
    landmarks: LandmarkConfig = field(default_factory=LandmarkConfig)


def spec_of(config: LosoConfig) -> RunSpec:
    """What the flags mean.

    Raises:
        UsageError: they do not go together.
    """
    graph = not config.model.startswith("resnet18")
    two_streams = config.model == "gts-gn"
    spec = RunSpec(
        databases=(config.dataset,),
        setting=config.setting,
        model=config.model,
        type=config.features or ("B" if two_streams else "A"),
        node_set=config.landmarks.node_set,
        fusion_layer=config.fusion_layer,
        lam=config.lam and graph,
        au_loss=config.au_loss or ("aau" if two_streams else "none"),
        au_layer=config.au_layer,
        beta=config.beta,
        magnification="none" if config.landmarks.magnifier else "factor",
        protocol=config.protocol,
        validation_subjects=config.validation_subjects,
        seed=config.seed,
    )
    spec = at_scale(spec, config.scale)
    return spec if config.epochs is None else replace(spec, epochs=config.epochs)


def loso(config: LosoConfig) -> str:
    """Train what is missing, and say what came of it.

    Raises:
        StreamerError: as `run_sweep`.
    """
    spec = spec_of(config)
    check_samples(spec, load(config.dataset, config.root, config.sheet).samples)
    data = SweepData(
        [Source(config.dataset, config.root, config.sheet)],
        config.landmarks,
        config.cache,
        config.run.workers,
    )
    executor = open_executor(config.run)
    result = run_sweep([spec], data, config.out, executor, tensorboard=config.tensorboard)[spec]
    left_out = [f"left out: {len(data.failed)} samples", *(f"  {line}" for line in data.failed)]
    return "\n".join([report(result), *(left_out if data.failed else [])])


def report(result: RunResult) -> str:
    """A run in a few lines."""
    spec, confusion = result.spec, result.metrics.confusion
    folds = f"{len(result.folds)} folds" + (
        f" of groups of subjects (quick: {spec.groups})" if spec.groups else ""
    )
    size = f"{len(result.truth)} samples, {len(set(result.persons))} subjects, {folds}, {spec.epochs} epochs"
    lines = [f"{spec.name}: {size}, {result.parameters:,} parameters"]
    if result.simulated:
        lines.append("SIMULATED data: nobody performed these expressions")
    if result.protocol == "paper":
        lines.append("protocol paper: the epoch is the best on the test fold, WHICH FLATTERS these figures")
    elif spec.validation_subjects:
        lines.append(f"protocol honest: the epoch is the best on {spec.validation_subjects} inner subjects")
    else:
        lines.append("protocol honest: epochs fixed beforehand, nothing chosen on the test subjects")
    names = dict(zip(FIGURES, ("ACC", "macro F1", "UAR"), strict=True))
    for figure, name in names.items():
        interval = result.intervals[figure]
        interval = f"95 % interval over subjects {interval.low:.4f} to {interval.high:.4f}"
        lines.append(f"{name:<9}{getattr(result.metrics, figure):.4f}   {interval}")
    width = max(5, *(len(name) + 1 for name in result.classes))
    lines.append("truth \\ said".ljust(14) + "".join(name.rjust(width) for name in result.classes))
    for name, row in zip(result.classes, confusion.tolist(), strict=True):
        lines.append(name.ljust(14) + "".join(str(count).rjust(width) for count in row))
    return "\n".join(lines)
