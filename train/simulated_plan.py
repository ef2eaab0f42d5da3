"""Who performs what in a simulated database: subjects, classes, action units and key frames; and its sheets.

Counts of subjects, classes and emotions are those of the originals (CASME II: Yan et al. 2014; SAMM: Davison
et al. 2018), as far as they are published: how CASME II's seldom emotions are split is partly our guess.
How emotions go with classes, and how many clips a subject has, is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from train.combinations import COMBINATIONS


@dataclass(frozen=True)
class Like:
    """What is taken over from an original.

    subjects: their numbers. objective, emotions: samples by class and by emotion.
    affinity: emotions that go with a class. missing_apexes: rows without an apex.
    width, height: of an image, pixels. iod: relative size of the face. centre: see `render.Clip`.
    """

    name: str
    fps: float
    subjects: tuple[int, ...]
    objective: Mapping[str, int]
    emotions: Mapping[str, int]
    affinity: Mapping[str, tuple[str, ...]]
    missing_apexes: int
    width: int
    height: int
    iod: float
    centre: tuple[float, float]
    grey: bool


LIKES: dict[str, Like] = {
    "casme2": Like(
        name="CASME II",
        fps=200.0,
        subjects=tuple(range(1, 27)),
        objective={"I": 25, "II": 15, "III": 99, "IV": 26, "V": 20, "VI": 1, "VII": 69},
        emotions={
            "happiness": 32,
            "disgust": 64,
            "repression": 27,
            "surprise": 25,
            "others": 99,
            "sadness": 6,
            "fear": 2,
        },
        affinity={
            "I": ("happiness",),
            "II": ("surprise",),
            "III": ("others", "disgust"),
            "IV": ("disgust",),
            "V": ("sadness", "repression"),
            "VI": ("fear",),
            "VII": ("repression", "others"),
        },
        missing_apexes=21,
        width=280,
        height=340,
        iod=1.0,
        centre=(0.5, 0.36),
        grey=False,
    ),
    "samm": Like(
        name="SAMM",
        fps=200.0,
        subjects=tuple(range(6, 38)),
        objective={"I": 24, "II": 13, "III": 20, "IV": 8, "V": 3, "VI": 7, "VII": 84},
        emotions={
            "anger": 57,
            "contempt": 12,
            "disgust": 9,
            "fear": 8,
            "happiness": 26,
            "sadness": 6,
            "surprise": 15,
            "other": 26,
        },
        affinity={
            "I": ("happiness",),
            "II": ("surprise",),
            "III": ("anger",),
            "IV": ("disgust",),
            "V": ("sadness",),
            "VI": ("fear",),
            "VII": ("anger", "contempt", "other"),
        },
        missing_apexes=3,
        width=480,
        height=400,
        iod=1.1,
        centre=(0.5, 0.36),
        grey=True,
    ),
}

_SETS: dict[str, tuple[tuple[str, float], ...]] = {**COMBINATIONS, "VI": (("1+2+4", 1.0), ("20", 1.0))}
_ONE_SIDED = frozenset({"1", "2", "6", "10", "12", "14", "15"})
_TELLING = {
    "happiness": "12",
    "repression": "17",
    "contempt": "14",
    "disgust": "10",
    "anger": "4",
    "surprise": "2",
    "sadness": "15",
}
"""In class VII, the action unit that an emotion's expressions have, so that emotions differ on the face."""


@dataclass(frozen=True)
class Performance:
    """One simulated expression. subject: two or three digits, as in the names of folders. folder: below the
    tree's root. activation: as `facs.draw_field` takes it. onset, apex, offset: numbers of images.
    """

    subject: str
    clip: str
    folder: str
    image_name: str
    objective: str
    emotion: str
    activation: dict[str, float]
    onset: int
    apex: int
    offset: int
    apex_given: bool
    peak: float
    hold: float
    residual: float
    asymmetry: float
    seed: int

    def truth(self) -> dict[str, Any]:
        """What the sheet does not say: true apex and peak (IOD)."""
        return {"folder": self.folder, "apex": self.apex, "peak": round(self.peak, 6)}


def plan(like: str, seed: int, peak: tuple[float, float]) -> list[Performance]:
    """All performances, subject by subject; peak: range of the displacement, IOD. Equal arguments give
    equal plans."""
    form = LIKES[like]
    rng = np.random.default_rng((seed, 0))
    pairs = _emotions(rng, form)
    owners = _owners(rng, len(pairs), form.subjects)
    without = set(rng.choice(len(pairs), form.missing_apexes, replace=False).tolist())
    count: dict[int, int] = {}
    performances = []
    for index, (subject, (objective, emotion)) in enumerate(zip(owners, pairs, strict=True)):
        number = count[subject] = count.get(subject, 0) + 1
        units = _units(rng, objective, emotion)
        side = str(rng.choice(["L", "R"])) if rng.random() < 0.15 else ""
        length = int(rng.integers(38, 90))
        name, clip, folder, image_name = _names(like, subject, number)
        onset = int(rng.integers(20, 120)) + (5000 if like == "samm" else 0)
        performances.append(
            Performance(
                subject=name,
                clip=clip,
                folder=folder,
                image_name=image_name,
                objective=objective,
                emotion=emotion,
                activation={
                    (side if unit in _ONE_SIDED else "") + unit: round(float(rng.uniform(0.5, 1.0)), 3)
                    for unit in units
                },
                onset=onset,
                apex=onset + round(length * float(rng.uniform(0.35, 0.6))),
                offset=onset + length,
                apex_given=index not in without,
                peak=float(np.exp(rng.uniform(*np.log(peak)))),
                hold=round(float(rng.uniform(0.0, 0.3)), 3),
                residual=round(float(rng.uniform(0.0, 0.3)), 3),
                asymmetry=round(float(rng.uniform(-0.2, 0.2)), 3),
                seed=int(rng.integers(2**31)),
            )
        )
    return performances


def _emotions(rng: np.random.Generator, form: Like) -> list[tuple[str, str]]:
    """(class, emotion) of every sample: both totals exact, pairs drawn by affinity."""
    classes = [name for name, count in form.objective.items() for _ in range(count)]
    left = dict(form.emotions)
    pairs = []
    for objective in (classes[k] for k in rng.permutation(len(classes))):
        weights = np.array(
            [count * (20.0 if word in form.affinity[objective] else 1.0) for word, count in left.items()]
        )
        emotion = str(rng.choice(list(left), p=weights / weights.sum()))
        left[emotion] -= 1
        pairs.append((objective, emotion))
    return pairs


def _owners(rng: np.random.Generator, samples: int, subjects: Sequence[int]) -> list[int]:
    """Whose each sample is: some subjects have many, as in the originals, each has two at least."""
    shares = rng.lognormal(0.0, 0.7, len(subjects))
    extra = rng.multinomial(samples - 2 * len(subjects), shares / shares.sum())
    return [subject for subject, more in zip(subjects, extra, strict=True) for _ in range(2 + int(more))]


def _units(rng: np.random.Generator, objective: str, emotion: str) -> list[str]:
    sets: Iterable[tuple[str, float]] = _SETS[objective]
    telling = _TELLING.get(emotion)
    if objective == "VII" and telling:
        sets = [(units, weight) for units, weight in sets if telling in units.split("+")] or sets
    names, weights = zip(*sets, strict=True)
    shares = np.array(weights, np.float64)
    return str(names[rng.choice(len(names), p=shares / shares.sum())]).split("+")


def _names(like: str, subject: int, number: int) -> tuple[str, str, str, str]:
    """Subject, clip, folder and name of an image, as the original writes them."""
    if like == "casme2":
        name, clip = f"{subject:02d}", f"EP{1 + number // 4:02d}_{1 + number % 4:02d}f"
        return name, clip, f"Cropped/sub{name}/{clip}", "reg_img{}.jpg"
    name = f"{subject:03d}"
    clip = f"{name}_{1 + number // 6}_{1 + number % 6}"
    return name, clip, f"{name}/{clip}", name + "_{:05d}.jpg"


def write_sheets(like: str, out: Path, performances: Sequence[Performance]) -> None:
    """The original's sheets, and one more that says that all of it is simulated."""
    from openpyxl import Workbook

    def save(name: str, rows: Iterable[Sequence[Any]]) -> None:
        book = Workbook()
        page = book.worksheets[0]
        page.title = "Sheet1"
        for row in rows:
            page.append(list(row))
        book.create_sheet("simulated").append(
            ["Simulated: nobody performed these expressions. See README.md"]
        )
        book.save(out / name)

    if like == "casme2":
        save("CASME2-coding-20140508.xlsx", _casme2_rows(performances))
        rows = [
            (int(p.subject), p.clip, list(LIKES[like].objective).index(p.objective) + 1) for p in performances
        ]
        save("CASME2-ObjectiveClasses.xlsx", [("Subject", "Filename", "Objective Class"), *rows])
    else:
        save("SAMM_Micro_FACS_Codes_v2.xlsx", _samm_rows(performances))


def _casme2_rows(performances: Sequence[Performance]) -> list[Sequence[Any]]:
    header = ("Subject", "Filename", None, "OnsetFrame", "ApexFrame", "OffsetFrame", None)
    rows: list[Sequence[Any]] = [(*header, "Action Units", "Estimated Emotion")]
    for p in performances:
        apex = p.apex if p.apex_given else "/"
        units = "+".join(p.activation)
        rows.append((p.subject, p.clip, None, p.onset, apex, p.offset, None, units, p.emotion))
    return rows


def _samm_rows(performances: Sequence[Performance]) -> list[Sequence[Any]]:
    preamble = [("SIMULATED: not SAMM; see README.md",)] + [("",)] * 12
    header = (
        "Subject",
        "Filename",
        "Inducement Code",
        "Onset Frame",
        "Apex Frame",
        "Offset Frame",
        "Duration",
    )
    rows: list[Sequence[Any]] = [
        *preamble,
        (*header, "Micro", "Action Units", "Estimated Emotion", "Objective Classes", "Notes"),
    ]
    for p in performances:
        # The letter is FACS's intensity: A a trace, B slight.
        units = "+".join(
            unit + ("A" if p.peak * level < 0.01 else "B") for unit, level in p.activation.items()
        )
        apex, length = p.apex if p.apex_given else None, p.offset - p.onset + 1
        row = (int(p.subject), p.clip, 1, p.onset, apex, p.offset, length, "Micro - 1/2", units)
        number = list(LIKES["samm"].objective).index(p.objective) + 1
        rows.append((*row, p.emotion.capitalize(), number, "simulated"))
    return rows
