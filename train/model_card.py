"""The model card of an engine, written from the run that trained it."""

from __future__ import annotations

from typing import Any

from train.checkpoint import Checkpoint
from train.datasets.action_units import OBJECTIVE_NAMES


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _percent(value: float) -> str:
    return f"{100.0 * value:.1f} %"


def model_card(name: str, checkpoint: Checkpoint) -> str:
    """Markdown; its first lines say what the network was trained on, and whether that was simulated."""
    info, features = checkpoint.info, checkpoint.features
    fit, model, data = info["fit"], info["fit"]["model"], info["data"]
    trained, measured, limits = _recorded(checkpoint) if "database" in data else _simulated(checkpoint)
    kind = "objective classes" if set(checkpoint.classes) <= set(OBJECTIVE_NAMES) else "classes"
    return f"""\
{_warning(data)}

# {name}

{_network(model)},
{"with" if model["lam"] else "without"} the learnable adjacency matrix, action-unit loss
`{fit["au_loss"]}` (beta {fit["beta"]:g}).
It takes the 14 facial nodes at onset, apex and offset and gives the probabilities of
{len(checkpoint.classes)} {kind} and {len(checkpoint.action_units)} action units.

## What it was trained on

{trained}

Features: node set {features.node_set}, type {features.type}, angle {features.angle},
centre {features.centre}, magnification {_magnification(features)}.

Confidences: the class logits are divided by the temperature {checkpoint.temperature:.3f}, {measured}

## Limits

{limits}
- The nodes carry no eyelids: AU5, AU7 and blinks cannot be told. AU38 hardly can.
- The tracker in front of this network may do better on some people than on others. Not measured.
- Not for decisions about people.
"""


def _warning(data: dict[str, Any]) -> str:
    if "database" not in data:
        return (
            "**Trained on simulated micro-expressions only: no recording of a person was used, and no figure "
            "below is\nan accuracy on people.**"
        )
    if data["recorded_is_simulated"]:
        return (
            f"**Trained on a simulated database ({data['database']}): nobody performed what it shows, and no "
            f"figure\nbelow is an accuracy on people.**"
        )
    beside = ", and on simulated expressions beside it" if data["simulated"] else ""
    return (
        f"**Trained on recordings of {data['database']}{beside}. Whether a network made from it may be "
        f"passed on, its\nlicence says; this card holds no image and no annotation.**"
    )


def _simulated(checkpoint: Checkpoint) -> tuple[str, str, str]:
    """Trained on, measured, limits; of a network that saw simulated expressions alone."""
    info, metrics = checkpoint.info, checkpoint.metrics
    fit, validation, beyond = info["fit"], metrics["validation"], metrics["beyond"]
    trained = f"""\
{fit["epochs"]} epochs of {fit["samples"]:,} expressions, drawn anew for each epoch by `train/simulate.py`:
action units as motion fields on random faces under random head pose, seen through a model of the tracker.
Tracker noise: {info["data"]["tracker_noise"]}. Seed {fit["seed"]}; the number of epochs was fixed beforehand.
`docs/training.md` says what is drawn, and from what range."""
    measured = f"""fitted on a
separate draw. All classes are equally likely in training; in life they are not.

## Measured on other simulated expressions

{validation["samples"]:,} expressions of other faces and other action-unit parameters: accuracy
{_percent(validation["accuracy"])}, macro F1 {validation["macro_f1"]:.3f}, expected calibration error
{validation["calibration_error"]:.3f}. With action units that differ from the table twice as much as between
people, more than in any training expression: accuracy {_percent(beyond["accuracy"])}, macro F1
{beyond["macro_f1"]:.3f}.

{_figures(checkpoint)}"""
    limits = """\
- The motion of each action unit is this project's reading of FACS, and simulated faces move in no other
  way: speech, blinks and swallowing do not occur in training. Take a label as a description of which way
  the nodes moved, not of what a person feels.
- Class VI (fear) is not among the outputs; class VII is every set of units that is in no other class."""
    return trained, measured, limits


def _recorded(checkpoint: Checkpoint) -> tuple[str, str, str]:
    """The same, of a network that was trained on a database."""
    info, validation = checkpoint.info, checkpoint.metrics["validation"]
    fit, data = info["fit"], info["data"]
    intervals = {name: f"{low:.3f} to {high:.3f}" for name, (low, high) in validation["intervals"].items()}
    where = "simulated " if data["recorded_is_simulated"] else ""
    rows = [
        [
            f"{label} ({checkpoint.class_names[label]})",
            *(str(data["counts"][part][k]) for part in data["counts"]),
        ]
        for k, label in enumerate(checkpoint.classes)
    ]
    rows.append(["subjects", *(str(count) for count in data["subjects"].values())])
    trained = f"""\
{data["what"]}; setting `{data["setting"]}`.
Not used, since missing or not measurable: {data["left_out"]}.
Protocol: {data["protocol"]}. Seed {fit["seed"]}.
Landmarks: {fit["landmarks"]["source"]}, the whole image and {len(fit["landmarks"]["crops"])} crops of it.

{_table(["samples", *data["counts"]], rows)}"""
    measured = f"""fitted on the
samples of the subjects in the column `temperature`. Classes are as likely in training as in the table above;
in life they are not.

## Measured on {where}subjects held out

{validation["samples"]} samples of {
        validation["subjects"]
    } subjects, the whole image. Bootstrap intervals over
subjects (95 %); with few subjects they are rough.

{
        _table(
            ["figure", "value", "interval"],
            [
                [name.replace("_", " "), f"{validation[name]:.3f}", interval]
                for name, interval in intervals.items()
            ]
            + [["expected calibration error", f"{validation['calibration_error']:.3f}", ""]],
        )
    }

{_figures(checkpoint)}"""
    limits = """\
- Subjects of one database resemble each other in age, origin, light and camera, and were asked to hide what
  they felt: how well it does on others has not been measured.
- Trained on clips that coders had cut out; in a live stream it also sees what the spotter takes for one."""
    return trained, measured, limits


def _figures(checkpoint: Checkpoint) -> str:
    validation = checkpoint.metrics["validation"]
    units = (
        _by_unit(validation)
        if "action_units" in validation
        else "No figures: no action-unit output, or none of its units is in what is measured on."
    )
    by_class = _by_class(validation, checkpoint.classes, checkpoint.class_names)
    return f"{_by_amplitude(validation)}\n\n{by_class}\n\n{units}"


def _network(model: dict[str, Any]) -> str:
    return {
        "gts-gn": f"GTS-GN with its streams summed after layer {model['fusion_layer']}",
        "ss-gn": "SS-GN, one stream of SS modules",
        "gcn": "The plain GCN on the nodes of all three frames",
    }[model["name"]]


def _magnification(features: Any) -> str:
    return {
        "none": "none",
        "factor": f"x {features.factor:g}",
        "peak": f"to a peak of {features.peak_iod:g} IOD, at most x {features.max_factor:g}",
    }[features.magnification]


def _by_amplitude(validation: dict[str, Any]) -> str:
    rows = [
        [
            key,
            f"{part['samples']:,}",
            _percent(part["accuracy"]),
            f"{part['macro_f1']:.3f}",
        ]
        for key, part in validation["by_amplitude"].items()
    ]
    return _table(
        [
            "peak displacement, of the inter-ocular distance",
            "samples",
            "accuracy",
            "macro F1",
        ],
        rows,
    )


def _by_class(validation: dict[str, Any], classes: tuple[str, ...], names: dict[str, str]) -> str:
    rows = [
        [
            f"{label} ({names[label]})",
            f"{validation['f1'][label]:.3f}",
            *map(str, counts),
        ]
        for label, counts in zip(classes, validation["confusion"], strict=True)
    ]
    return _table(["true class", "F1", *(f"said {label}" for label in classes)], rows)


def _by_unit(validation: dict[str, Any]) -> str:
    rows = [
        [
            unit,
            f"{values['average_precision']:.3f}",
            f"{values['f1']:.3f}",
            f"{values['positives']:,}",
        ]
        for unit, values in validation["action_units"].items()
    ]
    rows.append(
        [
            "mean",
            f"{validation['mean_average_precision']:.3f}",
            f"{validation['mean_unit_f1']:.3f}",
            "",
        ]
    )
    return _table(["action unit", "average precision", "F1 at 0.5", "positives"], rows)
