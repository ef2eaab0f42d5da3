"""Class settings: which samples take part in an experiment, and as what.

    objective     objective classes with at least ten samples (paper, setting 1)
    objective5    objective classes I to V (setting 2)
    self-report   emotions: five in CASME II and SAMM (setting 3), elsewhere those with ten samples
    megc3         negative, positive, surprise: the composite of the MEGC challenges (See et al. 2019)

The paper does not print its sample counts. Samples of several databases take the classes that all of them
have, so a network trained on one can be tested on another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError
from train.datasets.action_units import OBJECTIVE_CLASSES
from train.datasets.sample import EMOTIONS, Sample

SettingName = Literal["objective", "objective5", "self-report", "megc3"]
SETTINGS: tuple[SettingName, ...] = get_args(SettingName)

LEAST_SAMPLES = 10
"""Classes with fewer are left out (paper, section IV-A)."""

PAPER_CLASSES: dict[tuple[SettingName, str], tuple[str, ...]] = {
    ("objective", "casme2"): ("I", "II", "III", "IV", "V", "VII"),
    ("objective", "samm"): ("I", "II", "III", "VII"),
    ("self-report", "casme2"): ("happiness", "disgust", "repression", "surprise", "others"),
    ("self-report", "samm"): ("anger", "contempt", "happiness", "surprise", "others"),
}
"""Table I of the paper. Said here, so that a missing folder does not change the classes."""

MEGC3 = ("negative", "positive", "surprise")
_MEGC3 = {
    **dict.fromkeys(("anger", "contempt", "disgust", "sadness", "fear", "negative"), "negative"),
    **dict.fromkeys(("happiness", "positive"), "positive"),
    "surprise": "surprise",
}


def label_of(sample: Sample, setting: SettingName) -> str | None:
    """The sample's class in a setting, before rare classes are left out; None if it has none."""
    if setting in ("objective", "objective5"):
        return sample.objective
    if setting == "self-report":
        return sample.emotion
    if sample.emotion == "repression" and sample.database == "casme2":
        return "negative"
    return _MEGC3.get(sample.emotion or "")


@dataclass(frozen=True)
class Selection:
    """The samples of a setting.

    label: (N,) int64, index into `classes`, one a sample.
    """

    setting: SettingName
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    label: NDArray[np.int64]

    @property
    def counts(self) -> dict[str, int]:
        """Samples by class."""
        return dict(
            zip(self.classes, np.bincount(self.label, minlength=len(self.classes)).tolist(), strict=True)
        )

    def units(self, names: Sequence[str]) -> NDArray[np.float32]:
        """(N, units) 1 where a sample has the action unit of that name ("AU12"), on whatever side; NaN for a
        sample without any, as all of SMIC's are: it has not been coded."""
        numbers = [int(name.removeprefix("AU")) for name in names]
        units = np.array([[number in s.numbers for number in numbers] for s in self.samples], np.float32)
        units[[not s.numbers for s in self.samples]] = np.nan
        return units

    @property
    def persons(self) -> tuple[str, ...]:
        """Whose sample each is: what folds are made of."""
        return tuple(sample.person for sample in self.samples)

    @property
    def databases(self) -> tuple[str, ...]:
        """Which database each is of."""
        return tuple(sample.database for sample in self.samples)

    @property
    def simulated(self) -> bool:
        """Whether any sample is simulated: then everything made of the selection is."""
        return any(sample.simulated for sample in self.samples)


def select(
    samples: Sequence[Sample], setting: SettingName, classes: Sequence[str] | None = None
) -> Selection:
    """The samples that take part in `setting`, in their order.

    Args:
        samples: of one database or of several.
        classes: instead of the setting's own.

    Raises:
        UsageError: unknown setting, or fewer than two classes are left.
    """
    if setting not in SETTINGS:
        raise UsageError(f"unknown setting {setting!r}; known: {', '.join(SETTINGS)}")
    chosen = tuple(classes) if classes is not None else _classes(samples, setting)
    kept = [(sample, label_of(sample, setting)) for sample in samples]
    pairs = [(sample, chosen.index(label)) for sample, label in kept if label in chosen and label is not None]
    if len({label for _, label in pairs}) < 2:
        raise UsageError(
            f"setting {setting}: {len(pairs)} samples of {len({label for _, label in pairs})} classes "
            f"(looked for {', '.join(chosen) or 'none'}): take another setting"
        )
    return Selection(
        setting,
        chosen,
        tuple(sample for sample, _ in pairs),
        np.array([label for _, label in pairs], np.int64),
    )


def _classes(samples: Sequence[Sample], setting: SettingName) -> tuple[str, ...]:
    """The classes that every database among the samples has in this setting."""
    if setting == "objective5":
        return OBJECTIVE_CLASSES[:5]
    if setting == "megc3":
        return MEGC3
    order = OBJECTIVE_CLASSES if setting == "objective" else tuple(EMOTIONS)
    common: tuple[str, ...] | None = None
    for database in dict.fromkeys(sample.database for sample in samples):
        counts = Counter(label_of(s, setting) for s in samples if s.database == database)
        rule = tuple(label for label in order if counts[label] >= LEAST_SAMPLES)
        own = PAPER_CLASSES.get((setting, database), rule)
        common = own if common is None else tuple(label for label in common if label in own)
    return common or ()
