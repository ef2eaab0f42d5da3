"""Small simulated data for runs: no images, no landmark model, seconds to train."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamer.graph import build_graphs
from train.combinations import ACTION_UNIT_NAMES
from train.results import RunSpec
from train.simulate import SimulationConfig, simulate
from train.sweep_data import RunData
from train.tracker_noise import load_noise

PERSONS = 5
SMALL = RunSpec(epochs=3, batch=16)


def small_data(spec: RunSpec, samples: int = 46, seed: int = 0) -> RunData:
    """Simulated expressions of `PERSONS` made-up subjects, of unequal numbers, in two views; nobody has coded
    the last one's action units."""
    rng = np.random.default_rng((seed, 1))
    owner = np.sort(rng.integers(0, PERSONS, samples))
    persons = tuple(f"casme2/{number:02d}" for number in owner)
    units = np.zeros((samples, 2), np.float32)
    if spec.reads_pictures:
        inputs = rng.integers(0, 256, (samples, 1, 3, spec.picture, spec.picture), np.uint8)
        label = rng.integers(0, 3, samples)
    else:
        drawn = simulate(samples, (seed, 0), SimulationConfig(), load_noise())
        graphs = build_graphs(drawn.nodes, spec.features)
        inputs = np.stack([graphs, graphs + rng.normal(0, 0.01, graphs.shape).astype(np.float32)], 1)
        label = drawn.label % 3
        units = drawn.units[:, [ACTION_UNIT_NAMES.index("AU4"), ACTION_UNIT_NAMES.index("AU12")]].astype(
            np.float32
        )
        units[owner == PERSONS - 1] = np.nan
    names = tuple(f"{person}/clip{k}" for k, person in enumerate(persons))
    return RunData(
        inputs,
        label.astype(np.int64),
        units,
        names,
        persons,
        ("casme2",) * samples,
        ("I", "II", "III"),
        ("AU4", "AU12"),
        simulated=True,
    )


class SmallData:
    """Gives each run `small_data`, as `SweepData` gives a database's."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def of(self, spec: RunSpec) -> RunData:
        """The data of a run."""
        return small_data(spec, seed=self.seed)


SWEEP = """
import sys
from pathlib import Path
from tests.run_data import SmallData, sweep_specs
from train.executors import LocalExecutor
from train.sweep import run_sweep

if __name__ == "__main__":
    out, specs = Path(sys.argv[1]), sweep_specs(int(sys.argv[2]))
    run_sweep(specs, SmallData(), out, LocalExecutor(2, "cpu"), progress=False)
"""


def sweep_specs(epochs: int) -> list[RunSpec]:
    """Three runs of two networks, one of them asked for twice."""
    first = RunSpec(model="gcn", type="A", epochs=epochs, batch=16)
    second = RunSpec(lam=True, au_loss="aau", fusion_layer=2, epochs=epochs, batch=16)
    return [first, second, first, RunSpec(model="gcn", type="A", epochs=epochs, batch=16, groups=2)]


def write_program(folder: Path) -> Path:
    """The sweep of `sweep_specs` as a program: OUT EPOCHS."""
    path = folder / "program.py"
    path.write_text(SWEEP, encoding="utf-8")
    return path
