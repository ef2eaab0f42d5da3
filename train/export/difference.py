"""How far an engine's answers are from those of the trained network itself."""

from __future__ import annotations

import numpy as np
import torch

from streamer.engine import Engine
from streamer.errors import OutputError
from streamer.graph import build_graph, build_graphs
from train.export.source import Source
from train.models.inference import InferenceNetwork
from train.simulate import simulate

TOLERANCE = {"float32": 1e-4, "float16": 5e-3}
"""Largest difference between a probability of an artifact and of the trained network."""
CHECKED_INPUTS = 1000


def largest_difference(engine: Engine, source: Source, count: int = CHECKED_INPUTS) -> float:
    """Largest difference of any probability between the engine and the trained network, over `count`
    simulated expressions, given one at a time and all at once."""
    nodes = simulate(count, seed=0).nodes
    features = build_graphs(nodes, source.features)
    expected = source.probabilities(features)
    batched = np.concatenate(engine.classify_batch(features), 1)
    singly = [engine.classify(build_graph(one, source.features)) for one in nodes]
    single = np.array([[*c.scores.values(), *c.action_units.values()] for c in singly])
    return float(max(np.abs(batched - expected).max(), np.abs(single - expected).max()))


def folded_difference(source: Source, dtype: str, count: int = CHECKED_INPUTS) -> float:
    """Largest difference of any probability between the folded network, computing in `dtype` on the CPU,
    and the trained network, over `count` simulated expressions: what a GPU engine of that type can reach.
    """
    features = build_graphs(simulate(count, seed=0).nodes, source.features)
    network = InferenceNetwork(source.folded(), getattr(torch, dtype))
    with torch.inference_mode():
        answers = torch.cat(network(torch.from_numpy(features)), 1).double().numpy()
    return float(np.abs(answers - source.probabilities(features)).max())


def check_engine(engine: Engine, what: str, source: Source, dtype: str = "float32") -> float:
    """`largest_difference`.

    Raises: OutputError if it is more than `TOLERANCE` allows.
    """
    difference = largest_difference(engine, source)
    if not difference <= TOLERANCE[dtype]:
        raise OutputError(
            f"{what}: a probability differs by {difference:.2g} from the trained network's (allowed in"
            f" {dtype}: {TOLERANCE[dtype]:g}); export it again, or try another torch or onnxruntime version"
        )
    return difference
