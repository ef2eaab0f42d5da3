"""Which device an engine runs on: what is asked of the driver, and every reason to fall back to the CPU."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engine_folders import SHA, edit, put, refused
from standin import write_engine

import streamer.engine
from streamer.engine import OnnxEngine, load_engine
from streamer.engines import cuda, tensorrt_build, tensorrt_gpu
from streamer.engines.base import Answers
from streamer.engines.cuda import Gpu, GpuUnavailable, first_gpu, serves
from streamer.errors import EngineError
from streamer.manifest import Manifest

ADA = Gpu("NVIDIA L4", (8, 9))
TENSORRT: dict[str, Any] = {"runtime": "tensorrt-rtx", "runtime_version": "1.5", "compute_capability": "8.0+"}


def library(**parts: Any) -> Any:
    """What stands in for an installed TensorRT."""
    return SimpleNamespace(__version__="1.5", **parts)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """A machine with a GPU and TensorRT 1.5."""
    monkeypatch.setattr(streamer.engine, "first_gpu", lambda: ADA)
    monkeypatch.setattr(tensorrt_build.importlib, "import_module", lambda name: library())
    return ADA


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamer.engine, "first_gpu", lambda: None)


def built(folder: Path, **changes: Any) -> Path:
    """A TensorRT engine's folder as it comes from elsewhere."""
    folder.mkdir(exist_ok=True)
    for name in ("model.engine", "model_batch.engine"):
        (folder / name).write_bytes(b"an engine")
    return write_engine(folder, **TENSORRT | changes)


def falls_back(folder: Path, caplog: pytest.LogCaptureFixture, reason: str) -> None:
    """--device auto runs model.onnx after one warning with the reason; --device cuda is refused with it."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        engine = load_engine(folder, "auto")
    assert isinstance(engine, OnnxEngine)
    (record,) = caplog.records
    assert reason in record.getMessage() and "running its model.onnx on the CPU" in record.getMessage()
    with pytest.raises(EngineError, match="--device cpu") as caught:
        load_engine(folder, "cuda")
    assert reason in str(caught.value) and "\n" not in str(caught.value)


# The driver


class Driver:
    """A CUDA driver library with so many devices."""

    def __init__(self, devices: int, status: int = 0, attribute_status: int = 0) -> None:
        self.devices, self.status, self.attribute_status = devices, status, attribute_status

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.devices
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = b"NVIDIA L4"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = {75: 8, 76: 9}[attribute]
        return self.attribute_status


@pytest.mark.parametrize(
    ("driver", "found"),
    [
        (None, None),
        (Driver(0), None),
        (Driver(1, status=100), None),
        (Driver(1, attribute_status=1), None),
        (Driver(1), ADA),
    ],
)
def test_a_gpu_counts_if_the_driver_shows_one(monkeypatch, driver, found):
    def load(name: str) -> Driver:
        if driver is None:
            raise OSError(f"{name}: cannot open shared object file")
        return driver

    monkeypatch.setattr(cuda.ctypes, "CDLL", load)
    assert first_gpu() == found


@pytest.mark.parametrize(
    ("capability", "runtime", "built_for", "fits"),
    [
        ((8, 9), "tensorrt", "8.9", True),
        ((8, 6), "tensorrt", "8.9", False),
        ((12, 0), "tensorrt", "1.2", False),
        ((8, 9), "tensorrt-rtx", "8.9", True),
        ((8, 0), "tensorrt-rtx", "8.0+", True),
        ((8, 9), "tensorrt-rtx", "8.0+", True),
        ((12, 0), "tensorrt-rtx", "8.0+", True),
        ((7, 5), "tensorrt-rtx", "8.0+", False),
        ((9, 0), "tensorrt-rtx", "8.0+", False),
        ((10, 0), "tensorrt-rtx", "8.0+", False),
    ],
)
def test_which_gpus_an_engine_serves(capability, runtime, built_for, fits):
    assert serves(capability, runtime, built_for) is fits


# Falling back


def test_no_gpu(tmp_path, caplog, no_gpu):
    falls_back(built(tmp_path), caplog, "no CUDA device was found")


def test_on_the_cpu_nobody_asks_for_a_gpu(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(streamer.engine, "first_gpu", lambda: pytest.fail("the driver was asked"))
    built(tmp_path)
    edit(tmp_path, put("files", "model.engine", {"sha256": SHA, "bytes": 5}))  # not looked at either
    engine = load_engine(tmp_path, "cpu")
    assert isinstance(engine, OnnxEngine) and engine.manifest.runtime == "tensorrt-rtx"
    assert not caplog.records
    load_engine(write_engine(tmp_path / "onnx"), "auto").close()


@pytest.mark.parametrize("other", ["8.6", "12.0"])
def test_built_for_another_gpu(tmp_path, caplog, gpu, other):
    falls_back(
        built(tmp_path, compute_capability=other),
        caplog,
        f"it is built for compute capability {other}, NVIDIA L4 has 8.9",
    )


def test_built_by_another_version(tmp_path, caplog, gpu):
    folder = built(tmp_path, runtime_version="1.4")
    falls_back(folder, caplog, "it is built by tensorrt-rtx 1.4, installed is 1.5")


def test_tensorrt_is_not_installed(tmp_path, caplog, gpu, monkeypatch):
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(tensorrt_build.importlib, "import_module", missing)
    falls_back(built(tmp_path), caplog, "tensorrt_rtx cannot be imported (No module named 'tensorrt_rtx')")


def test_an_engine_that_tensorrt_does_not_read(tmp_path):
    """TensorRT answers None and raises nothing."""
    pytest.importorskip("torch", reason="needs torch, which lends the GPU engine its memory")

    def runtime(logger: object) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=lambda data: None)

    class Logger:
        ERROR = 1

        def __init__(self, severity: int) -> None:
            pass

    manifest = Manifest.read(built(tmp_path))
    answers = Answers(manifest, tmp_path / "model.engine")
    with pytest.raises(GpuUnavailable, match="TensorRT 1.5 does not read it"):
        tensorrt_gpu._Program(None, library(Runtime=runtime, Logger=Logger), b"", 1, manifest, answers)


def test_a_changed_engine_file_is_refused_and_not_papered_over(tmp_path, gpu):
    folder = built(tmp_path)
    (folder / "model.engine").write_bytes(b"an eNgine")
    refused(folder, "model.engine", "SHA-256", device="auto")


def test_the_fall_back_is_checked_like_any_engine(tmp_path, no_gpu):
    folder = built(tmp_path)
    model = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(model[:-1] + b"?")
    refused(folder, "SHA-256", device="auto")
    (folder / "model.onnx").write_bytes(model)
    edit(folder, lambda m: m["files"].pop("model.onnx"))
    refused(folder, "no CUDA device was found, and it has no model.onnx to run instead", device="auto")
    refused(folder, "without model.onnx, which the CPU would run", device="cpu")


def test_auto_is_the_default_engine_and_says_nothing_where_there_is_no_gpu(caplog, no_gpu):
    with caplog.at_level(logging.WARNING):
        engine = load_engine("auto")
    assert isinstance(engine, OnnxEngine) and engine.manifest.name == "gtsgn-simulated"
    assert not caplog.records


def test_auto_warns_where_a_gpu_goes_unused(caplog, gpu, monkeypatch):
    def missing(name: str) -> None:
        raise ImportError("none")

    monkeypatch.setattr(tensorrt_build.importlib, "import_module", missing)
    with caplog.at_level(logging.WARNING):
        assert isinstance(load_engine("auto"), OnnxEngine)
    (record,) = caplog.records
    assert "pip install '.[trt-rtx]'" in record.getMessage()


# The cache of built engines


def test_an_engine_is_built_once_and_kept_by_gpu_and_version(tmp_path, gpu, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    builds = []

    def build(tensorrt: Any, model: bytes, batch: int) -> bytes:
        builds.append((model, batch))
        return b"engine of " + model

    monkeypatch.setattr(tensorrt_build, "build", build)
    for _ in range(2):
        assert tensorrt_build.cached(b"model", ADA, "tensorrt-rtx", 1) == b"engine of model"
    assert builds == [(b"model", 1)]
    names = {
        tensorrt_build.cached_path(*key).name
        for key in (
            (b"model", ADA, "tensorrt-rtx", "1.5", 1),
            (b"other", ADA, "tensorrt-rtx", "1.5", 1),
            (b"model", Gpu("NVIDIA L40", (8, 9)), "tensorrt-rtx", "1.5", 1),
            (b"model", Gpu("NVIDIA L4", (8, 6)), "tensorrt-rtx", "1.5", 1),
            (b"model", ADA, "tensorrt", "1.5", 1),
            (b"model", ADA, "tensorrt-rtx", "1.6", 1),
            (b"model", ADA, "tensorrt-rtx", "1.5", 64),
        )
    }
    assert len(names) == 7
    path = tensorrt_build.cached_path(b"model", ADA, "tensorrt-rtx", "1.5", 1)
    for damaged in (b"", b"short", path.read_bytes()[:-1], b"\0" + path.read_bytes()[1:]):
        path.write_bytes(damaged)
        builds.clear()
        assert tensorrt_build.cached(b"model", ADA, "tensorrt-rtx", 1) == b"engine of model"
        assert len(builds) == 1 and "damaged" in caplog.text


# Bindings


class Tensors:
    """An ICudaEngine with these tensors: (name, mode, shape, type)."""

    def __init__(self, *tensors: tuple[str, str, tuple[int, ...], str]) -> None:
        self._by_name = {name: (mode, shape, kind) for name, mode, shape, kind in tensors}
        self.num_io_tensors = len(tensors)

    def get_tensor_name(self, k: int) -> str:
        return list(self._by_name)[k]

    def get_tensor_mode(self, name: str) -> str:
        return self._by_name[name][0]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._by_name[name][1]

    def get_tensor_dtype(self, name: str) -> str:
        return self._by_name[name][2]


def test_bindings_are_compared_with_the_manifest(tmp_path):
    manifest = Manifest.read(write_engine(tmp_path))
    answers = Answers(manifest, tmp_path / "model.engine")
    tensorrt = library(float32="f32", TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"))

    def check(*tensors: tuple[str, str, tuple[int, ...], str], batch: int = 1) -> list[str]:
        return tensorrt_gpu.check_bindings(tensorrt, Tensors(*tensors), batch, manifest, answers)

    features = ("features", "in", (1, 3, 14, 4), "f32")
    scores, units = ("scores", "out", (1, 6), "f32"), ("action_units", "out", (1, 12), "f32")
    first, second = ("output0", "out", (1, 6), "f32"), ("output1", "out", (1, 12), "f32")
    assert check(units, features, scores) == ["features", "scores", "action_units"]
    assert check(features, second, first) == ["features", "output0", "output1"]
    many = [(name, mode, (-1, *shape[1:]), kind) for name, mode, shape, kind in (features, scores, units)]
    assert check(*many, batch=64) == ["features", "scores", "action_units"]
    for wrong in (
        (features, scores),
        (features, scores, units, ("more", "out", (1, 1), "f32")),
        (("x", "in", (1, 3, 14, 4), "f32"), scores, units),
        (("features", "in", (1, 3, 31, 4), "f32"), scores, units),
        (("features", "in", (1, 3, 14, 4), "f16"), scores, units),
        (("features", "out", (1, 3, 14, 4), "f32"), scores, units),
        (features, ("output0", "out", (1, 12), "f32"), ("output1", "out", (1, 6), "f32")),
        tuple(many),
    ):
        with pytest.raises(EngineError, match="model.engine: its"):
            check(*wrong)
