"""The TensorRT engine on a real GPU. Skipped where there is none; `make test-trt` runs it where there is."""

from __future__ import annotations

import json
import logging
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_folders import replace_file, samples
from standin import finished, tiny_model, write_engine

from streamer.engine import ENGINES_FOLDER, Manifest, OnnxEngine, load_engine
from streamer.engines import tensorrt_build
from streamer.engines.cuda import first_gpu
from streamer.engines.tensorrt_gpu import TensorRTEngine
from streamer.errors import EngineError
from streamer.messages import GraphSample

GPU = first_gpu()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(GPU is None, reason="no NVIDIA GPU: the driver shows none"),
]

SHIPPED = ENGINES_FOLDER / "gtsgn-simulated"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An empty cache for the module's engines."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def engine(cache: Path) -> Any:
    """The shipped engine, built of its model.onnx."""
    engine = load_engine(SHIPPED, "cuda")
    yield engine
    engine.close()


def test_it_answers_as_onnx_runtime_does(engine):
    assert isinstance(engine, TensorRTEngine)
    cpu = OnnxEngine(SHIPPED)
    features = samples(1000)
    for ours, theirs in zip(engine.classify_batch(features), cpu.classify_batch(features), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    for one in features:
        ours, theirs = engine.classify(GraphSample(one)), cpu.classify(GraphSample(one))
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-4)
        assert ours.action_units == pytest.approx(theirs.action_units, abs=1e-4)


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 130])
def test_batches_of_any_size(engine, count):
    features = samples(count, seed=count) if count else np.zeros((0, 3, 14, 4), np.float32)
    scores, units = engine.classify_batch(features)
    assert scores.shape == (count, 6) and units.shape == (count, 16)
    expected = OnnxEngine(SHIPPED).classify_batch(features)
    np.testing.assert_allclose(scores, expected[0], atol=1e-4)
    np.testing.assert_allclose(units, expected[1], atol=1e-4)


def test_it_is_held_to_the_same_promises_as_the_others(engine):
    features = samples(2)
    with pytest.raises(ValueError, match="shape"):
        engine.classify(GraphSample(features))
    features[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        engine.classify(GraphSample(features[0]))
    first = engine.classify(GraphSample(features[1]))
    engine.classify(GraphSample(samples(1, seed=9)[0]))
    assert engine.classify(GraphSample(features[1])) == first


def test_ten_thousand_calls_allocate_nothing(engine):
    import torch

    some = samples(50)

    def call(times: int) -> None:
        for k in range(times):
            engine.classify(GraphSample(some[k % len(some)]))

    call(500)
    torch.cuda.synchronize()
    allocations = torch.cuda.memory_stats()["allocation.all.allocated"]
    free_bytes, peak_kb = torch.cuda.mem_get_info()[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call(10_000)
    torch.cuda.synchronize()
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == allocations
    assert torch.cuda.mem_get_info()[0] >= free_bytes - (8 << 20)  # others may use the GPU, too
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss <= peak_kb + 4096


def test_a_closed_engine_says_so(cache):
    engine = load_engine(SHIPPED, "cuda")
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.classify(GraphSample(samples(1)[0]))


def test_auto_takes_the_gpu_and_builds_once(cache, monkeypatch):
    load_engine("auto").close()
    monkeypatch.setattr(tensorrt_build, "build", lambda *_: pytest.fail("built a second time"))
    engine = load_engine("auto")
    assert isinstance(engine, TensorRTEngine) and engine.manifest.name == "gtsgn-simulated"
    engine.close()


def test_an_engine_without_action_units(tmp_path, cache):
    write_engine(tmp_path, finished(tiny_model(action_units=0), aus=0), action_units=())
    engine = load_engine(tmp_path, "cuda")
    assert engine.classify(GraphSample(samples(1)[0])).action_units == {}
    assert engine.classify_batch(samples(3))[1].shape == (3, 0)
    engine.close()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """dtype -> an engine folder that `python -m train export` built on this machine."""
    pytest.importorskip("torch_tensorrt", reason="needs torch-tensorrt or torch-tensorrt-rtx: make test-trt")
    from train.export import ExportConfig, export
    from train.export.tensorrt_engines import EXTRAS, installed

    assert GPU is not None
    folders = {}
    for dtype in ("float32", "float16"):
        folders[dtype] = tmp_path_factory.mktemp(dtype) / "exported"
        to: Any = EXTRAS[installed()[0]]
        export(ExportConfig(SHIPPED, folders[dtype], to=to, dtype=dtype))
    return folders


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float16", 5e-3)])
def test_an_exported_engine_runs_and_passes_its_check(exported, dtype, tolerance):
    from train.export import ExportConfig, export

    engine = load_engine(exported[dtype])
    assert isinstance(engine, TensorRTEngine)
    features = samples(1000)
    np.testing.assert_allclose(
        engine.classify_batch(features)[0], OnnxEngine(SHIPPED).classify_batch(features)[0], atol=tolerance
    )
    engine.close()
    assert f"({dtype}): largest difference" in export(ExportConfig(SHIPPED, exported[dtype], check=True))


@pytest.mark.parametrize("change", ["capability", "version", "bytes"])
def test_an_engine_for_another_gpu_or_version_is_refused(exported, tmp_path, caplog, change):
    """By what its manifest says, and, where the manifest is wrong, by TensorRT itself."""
    folder = tmp_path / "other"
    folder.mkdir()
    for path in exported["float32"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    if change == "bytes":
        data = (folder / "model.engine").read_bytes()
        replace_file(folder, "model.engine", data[:16] + bytes(64) + data[80:])
    else:
        manifest = Manifest.read(folder)
        other = {"capability": {"compute_capability": "6.0"}, "version": {"runtime_version": "0.1"}}[change]
        replace(manifest, **other).write(folder)
    with caplog.at_level(logging.WARNING):
        assert isinstance(load_engine(folder, "auto"), OnnxEngine)
    assert len([record for record in caplog.records if record.name == "streamer.engine"]) == 1
    with pytest.raises(EngineError, match="--device cpu"):
        load_engine(folder, "cuda")


def test_the_latency_benchmark_measures_it(cache, tmp_path):
    from streamer.bench.latency import LatencyConfig, bench_latency

    out = tmp_path / "latency.json"
    text = bench_latency(LatencyConfig(rounds=2, block_ms=20, frames=3, cold_starts=1, peers=False, out=out))
    found = json.loads(out.read_text(encoding="utf-8"))
    assert GPU is not None and GPU.name in text
    timed = found["contenders"]["GTS-GN, TensorRT engine"]
    assert 0.0 < timed["p50"] <= timed["p99"]
    assert found["cold"]["GTS-GN, TensorRT engine"]["load_s"] > 0.0
