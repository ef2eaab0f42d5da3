"""What a run of leave-one-subject-out is, and what comes of it: the contract between the sweep, which
trains, and the tables, figures and reports, which only read.

    results = run_sweep(specs, data, out)          # train.sweep: trains the folds that are missing
    result = results[specs[0]]                     # or load_run(out, specs[0]) later on
    result.metrics.accuracy, result.intervals["macro_f1"].low, result.folds[0].aau_weights

On disk: `OUT/runs/<key>/run.json` and one `fold_<name>.safetensors` a fold, each written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError
from streamer.fetching import write_whole
from streamer.graph import NODE_SETS, FeatureSpec
from train.datasets import SETTINGS, SettingName
from train.fold_files import FoldResult, read_fold
from train.folds import Protocol
from train.losses import AuLossName
from train.metrics import ClassMetrics, Interval, bootstrap_intervals, class_metrics

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

ModelName = Literal["gcn", "ss-gn", "gts-gn", "resnet18-s", "resnet18-st"]
MODELS: tuple[ModelName, ...] = get_args(ModelName)

LAYERS = 4

RUN_VERSION = 1
"""Of run.json."""


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides a result, but the data. Plain values; two specs that mean the same are equal,
    because what a model does not use is set back to its default.

    Raises:
        UsageError: values that do not go together.
    """

    databases: tuple[str, ...] = ("casme2",)
    """Names of the databases; the samples of several are pooled."""
    tested: str = ""
    """One of several databases: trained on the others, tested on it. Empty: each subject is left out once."""
    setting: SettingName = "objective"
    model: ModelName = "gts-gn"
    type: Literal["A", "B"] = "B"
    """Node features: A = (x, y), B = (x, y, D, alpha)."""
    node_set: Literal["gm14", "dlib31", "dlib68"] = "gm14"
    fusion_layer: int = 1
    """GTS-GN: the layer, 1 to 4, after which the two streams are summed."""
    lam: bool = False
    """With the learnable adjacency matrix."""
    au_loss: AuLossName = "none"
    """GTS-GN: none, au = one layer constrained, aau = all layers from the fusion on. After fusion in layer 4
    there is one layer only, so aau means au there."""
    au_layer: int = 1
    """With au: the layer, fusion_layer to 4; smaller ones mean the fusion layer."""
    beta: float = 1.0
    """Weight of the action-unit loss."""
    magnification: Literal["none", "factor", "peak"] = "factor"
    """Of the landmarks' displacements, see `streamer.graph.FeatureSpec`; none if pictures were magnified."""
    factor: float = 3.0
    """With magnification factor."""
    angle: Literal["atan2", "arctan"] = "atan2"
    """Form of alpha; arctan as printed in the paper."""
    picture: int = 224
    """ResNet18: side of its input, pixels."""
    protocol: Protocol = "honest"
    validation_subjects: int = 0
    """honest: subjects held back from training in each fold to choose the epoch; 0: nothing is chosen."""
    groups: int = 0
    """0: one fold a subject. k: subjects in k groups, one fold a group, and still nobody on both sides."""
    epochs: int = 60
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        self._check()
        reset = {}
        picture_network = self.model.startswith("resnet18")
        if picture_network:
            reset |= dict.fromkeys(("type", "node_set", "lam", "magnification", "factor", "angle"))
        else:
            reset["picture"] = None
            if self.magnification != "factor":
                reset["factor"] = None
        if self.type == "A":
            reset["angle"] = None
        if self.model != "gts-gn":
            reset["fusion_layer"] = None
        if self.au_loss == "aau" and self.fusion_layer == LAYERS:
            object.__setattr__(self, "au_loss", "au")
        if self.au_loss == "none":
            reset["beta"] = None
        if self.au_loss != "au":
            reset["au_layer"] = None
        for name in reset:
            object.__setattr__(self, name, type(self).__dataclass_fields__[name].default)
        if self.au_loss == "au":
            object.__setattr__(self, "au_layer", max(self.au_layer, self.fusion_layer))
        if self.protocol == "paper":
            object.__setattr__(self, "validation_subjects", 0)

    def _check(self) -> None:
        def refuse(what: str) -> None:
            raise UsageError(f"{what}; change the flags of the model")

        if not self.databases or (self.tested and self.tested not in self.databases):
            refuse(f"databases {', '.join(self.databases) or 'none'}, tested {self.tested or 'each subject'}")
        if self.setting not in SETTINGS or self.model not in MODELS or self.node_set not in NODE_SETS:
            refuse(f"setting {self.setting}, model {self.model}, nodes {self.node_set}: one is unknown")
        if self.model == "gts-gn" and self.type != "B":
            refuse("GTS-GN has a stream for (D, alpha): it needs features of type B")
        if self.model != "gts-gn" and self.au_loss != "none":
            refuse(f"{self.model} has no action-unit heads: the loss must be none")
        if not 1 <= self.fusion_layer <= LAYERS or not 1 <= self.au_layer <= LAYERS:
            refuse(f"layers are 1 to {LAYERS}")
        numbers = (self.epochs, self.batch - 1, self.learning_rate, self.beta, self.factor, self.picture - 31)
        if not all(number > 0 for number in numbers) or min(self.weight_decay, self.seed) < 0:
            refuse("epochs, batch, learning rate, beta, factor, picture or seed is too small")
        if not all(map(math.isfinite, (*numbers, self.weight_decay))) or self.seed >= 2**63:
            refuse("a number is not finite, or the seed too large")
        if self.groups < 0 or self.groups == 1 or self.validation_subjects < 0:
            refuse("groups must be 0 or at least 2, validation subjects at least 0")
        if self.validation_subjects and self.protocol == "paper":
            refuse("the protocol paper chooses on the test fold and has no validation subjects")

    @property
    def name(self) -> str:
        """Short, readable, not unique: "casme2 objective gts-gn(1) B lam aau"."""
        parts = ["+".join(self.databases) + (f">{self.tested}" if self.tested else ""), self.setting]
        parts.append(f"{self.model}({self.fusion_layer})" if self.model == "gts-gn" else self.model)
        if not self.reads_pictures:
            parts.append(self.type)
        parts += [self.node_set] * (self.node_set != "gm14") + ["lam"] * self.lam
        parts += {"none": [], "aau": ["aau"], "au": [f"au{self.au_layer}"]}[self.au_loss]
        parts += [f"beta{self.beta:g}"] * (self.beta != 1.0) + ["paper"] * (self.protocol == "paper")
        return " ".join(parts) + (f" seed{self.seed}" if self.seed else "")

    @property
    def reads_pictures(self) -> bool:
        """Whether the network reads pictures, not graphs."""
        return self.model.startswith("resnet18")

    @property
    def features(self) -> FeatureSpec:
        """The form of the graphs."""
        return FeatureSpec(
            self.node_set, self.type, self.angle, magnification=self.magnification, factor=self.factor
        )

    def key(self, digest: str) -> str:
        """Name of the run's folder: readable, and unique for the spec and the data (and code) of `digest`."""
        content = json.dumps([asdict(self), digest], sort_keys=True)
        readable = re.sub(r"[^a-z0-9.+-]+", "_", self.name.lower()).strip("_")
        return f"{readable}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    @classmethod
    def of(cls, values: dict[str, Any]) -> RunSpec:
        """The spec that `asdict` gave, also through JSON.

        Raises: TypeError, KeyError, UsageError for other values.
        """
        if set(values) != {item.name for item in fields(cls)}:
            raise KeyError("fields of another version")
        plain: dict[str, Any] = values | {"databases": tuple(values["databases"])}
        return cls(**plain)


@dataclass(frozen=True)
class RunHeader:
    """What a run's folder says besides its folds (run.json).

    key: name of the folder. digest: SHA-256 of data and code. classes: names. units: of the action units.
    samples, persons: (N,) names. label: (N,) int64. folds: names of all folds, in order. simulated: whether
    any sample is. versions: of torch and numpy.
    """

    key: str
    spec: RunSpec
    digest: str
    classes: tuple[str, ...]
    units: tuple[str, ...]
    samples: tuple[str, ...]
    persons: tuple[str, ...]
    label: I64 = field(compare=False)
    folds: tuple[str, ...]
    simulated: bool
    versions: dict[str, str] = field(default_factory=dict, compare=False)

    def write(self, folder: Path) -> None:
        """Into `folder`, which is made. Raises: OSError."""
        values = {"version": RUN_VERSION, **asdict(self), "label": self.label.tolist()}
        write_whole(folder / "run.json", (json.dumps(values, indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> RunHeader:
        """Raises: ValueError if there is none, or one of another version."""
        try:
            values = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            if values.pop("version") != RUN_VERSION:
                raise ValueError("it is of another version")
            lists = ("classes", "units", "samples", "persons", "folds")
            values |= {name: tuple(values[name]) for name in lists}
            values["label"] = np.array(values["label"], np.int64)
            values["spec"] = RunSpec.of(values["spec"])
            return cls(**values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, UsageError) as error:
            raise ValueError(f"{folder / 'run.json'}: {error}") from error


@dataclass(frozen=True)
class RunResult:
    """A finished run, pooled over its folds.

    header: see `RunHeader`. folds: in order. tested: (M,) indices of the samples that were tested, ascending:
    all of them but in cross-database runs. scores: (M, classes) float32 logits of each by the one network
    that had not seen it.
    """

    header: RunHeader
    folds: tuple[FoldResult, ...]
    tested: I64
    scores: F32

    @classmethod
    def of(cls, header: RunHeader, folds: Sequence[FoldResult]) -> RunResult:
        """Pool the folds."""
        order = np.argsort(tested := np.concatenate([fold.test for fold in folds]), kind="stable")
        scores = np.concatenate([fold.scores for fold in folds])[order]
        return cls(header, tuple(folds), tested[order], scores)

    @property
    def spec(self) -> RunSpec:
        return self.header.spec

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.header.classes

    @property
    def simulated(self) -> bool:
        """Whether the data were simulated: every output made of this has to say so."""
        return self.header.simulated

    @property
    def protocol(self) -> Protocol:
        return self.header.spec.protocol

    @property
    def truth(self) -> I64:
        """(M,) class indices."""
        return self.header.label[self.tested]

    @property
    def predicted(self) -> I64:
        """(M,) class indices."""
        return self.scores.argmax(1).astype(np.int64)

    @property
    def persons(self) -> tuple[str, ...]:
        """(M,) whose sample each is."""
        return tuple(self.header.persons[k] for k in self.tested.tolist())

    @cached_property
    def metrics(self) -> ClassMetrics:
        """Pooled over all tested samples."""
        return class_metrics(self.truth, self.predicted, len(self.classes))

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95 % bootstrap intervals over subjects of accuracy, macro_f1 and uar."""
        return bootstrap_intervals(self.persons, self.truth, self.predicted, len(self.classes))

    @property
    def parameters(self) -> int:
        """Trained parameters of the network, action-unit heads and weights of the loss included."""
        return self.folds[0].parameters

    @property
    def seconds(self) -> float:
        """Training time of all folds one after the other."""
        return sum(fold.seconds for fold in self.folds)


@dataclass(frozen=True)
class SweepResults:
    """Results of several runs, in the order of the specs that were asked for; equal specs share one."""

    out: Path
    results: tuple[RunResult, ...]

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[RunResult]:
        return iter(self.results)

    def __getitem__(self, spec: RunSpec) -> RunResult:
        """Raises: KeyError: no such run was asked for."""
        for result in self.results:
            if result.spec == spec:
                return result
        raise KeyError(spec.name)

    @property
    def simulated(self) -> bool:
        """Whether any data were simulated."""
        return any(result.simulated for result in self.results)


def load_run(out: Path, spec: RunSpec, key: str = "") -> RunResult:
    """The finished run of a spec in `out`. key: the one of that name, where there are several on different
    data or by different code.

    Raises:
        UsageError: there is none, it lacks folds, or there are several.
    """
    headers = []
    for path in sorted((out / "runs").glob("*/run.json")):
        try:
            header = RunHeader.read(path.parent)
        except ValueError:
            continue
        if header.spec == spec and path.parent.name == header.key and key in ("", header.key):
            headers.append(header)
    if len(headers) != 1:
        raise UsageError(
            f"{out} holds {len(headers)} runs of {spec.name}: "
            + ("train it" if not headers else "it was trained on different data; take another --out")
        )
    header = headers[0]
    sizes = len(header.samples), len(header.classes)
    folds = [read_fold(out / "runs" / header.key, name, *sizes) for name in header.folds]
    kept = [fold for fold in folds if fold is not None]
    if len(kept) < len(folds):
        raise UsageError(f"{out}: {len(folds) - len(kept)} of {len(folds)} folds of {spec.name} are missing")
    return RunResult.of(header, kept)
