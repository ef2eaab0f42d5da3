"""How large a run is: `full` as in the paper, `quick` a true small version of it.

The paper gives no numbers. These are the same for all models, and so that the training samples are learnt
(docs/reproduction.md says how they came about).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from train.results import RunSpec

Scale = Literal["quick", "full"]

EPOCHS = {"full": {"graph": 60, "picture": 40}, "quick": {"graph": 30, "picture": 6}}
GROUPS = {"full": {"graph": 0, "picture": 0}, "quick": {"graph": 3, "picture": 2}}
BATCH = {"graph": 64, "picture": 32}
LEARNING_RATE = {"graph": 2e-3, "picture": 1e-3}
PICTURE = {"full": 224, "quick": 96}
"""Side of ResNet18's input, pixels."""


def at_scale(spec: RunSpec, scale: Scale) -> RunSpec:
    """The spec with the epochs, folds, batch, learning rate and picture size of a scale.

    full: every subject is a fold. quick: all samples, the subjects in a few groups, fewer epochs, smaller
    pictures. Which network, data and loss it is stays as it was.
    """
    kind = "picture" if spec.reads_pictures else "graph"
    return replace(
        spec,
        groups=0 if spec.tested else spec.groups or GROUPS[scale][kind],
        epochs=EPOCHS[scale][kind],
        batch=BATCH[kind],
        learning_rate=LEARNING_RATE[kind],
        picture=PICTURE[scale],
    )
