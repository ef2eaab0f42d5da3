"""The model card of an engine, written from the run that trained it."""

from __future__ import annotations

from typing import Any

from train.loop import Checkpoint


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _percent(value: float) -> str:
    return f"{100.0 * value:.1f} %"


def model_card(name: str, checkpoint: Checkpoint, class_names: dict[str, str]) -> str:
    """Markdown; its first line says that the training data is simulated."""
    info, metrics, features = checkpoint.info, checkpoint.metrics, checkpoint.features
    fit, model = info["fit"], info["fit"]["model"]
    validation, beyond = metrics["validation"], metrics["beyond"]
    return f"""\
**Trained on simulated micro-expressions only: no recording of a person was used, and no figure below is
an accuracy on people.**

# {name}

{_network(model)},
{"with" if model["lam"] else "without"} the learnable adjacency matrix, action-unit loss
`{fit["au_loss"]}` (beta {fit["beta"]:g}).
It takes the 14 facial nodes at onset, apex and offset and gives the probabilities of
{len(checkpoint.classes)} objective classes and {len(checkpoint.action_units)} action units.

## What it was trained on

{fit["epochs"]} epochs of {fit["samples"]:,} expressions, drawn anew for each epoch by `train/simulate.py`:
action units as motion fields on random faces under random head pose, seen through a model of the tracker.
Tracker noise: {info["tracker_noise"]}. Seed {fit["seed"]}; the number of epochs was fixed beforehand.
`docs/training.md` says what is drawn, and from what range.

Features: node set {features.node_set}, type {features.type}, angle {features.angle},
centre {features.centre}, magnification {_magnification(features)}.

Confidences: the class logits are divided by the temperature {checkpoint.temperature:.3f}, fitted on a
separate draw. All classes are equally likely in training; in life they are not.

## Measured on other simulated expressions

{validation["samples"]:,} expressions of other faces and other action-unit parameters: accuracy
{_percent(validation["accuracy"])}, macro F1 {validation["macro_f1"]:.3f}, expected calibration error
{validation["calibration_error"]:.3f}. With action units that differ from the table twice as much as between
people, more than in any training expression: accuracy {_percent(beyond["accuracy"])}, macro F1
{beyond["macro_f1"]:.3f}.

{_by_amplitude(validation)}

{_by_class(validation, checkpoint.classes, class_names)}

{_by_unit(validation) if "action_units" in validation else "No action-unit output."}

## Limits

- The motion of each action unit is this project's reading of FACS, and simulated faces move in no other
  way: speech, blinks and swallowing do not occur in training. Take a label as a description of which way
  the nodes moved, not of what a person feels.
- The nodes carry no eyelids: AU5, AU7 and blinks cannot be told. AU38 hardly can.
- Class VI (fear) is not among the outputs; class VII is every set of units that is in no other class.
- The tracker in front of this network may do better on some people than on others. Not measured.
- Not for decisions about people.
"""


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
