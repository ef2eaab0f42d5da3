"""TensorRT-RTX engines, built for real, on any machine: `make test-trt`. Running one needs a GPU, and is
in test_gpu.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_folders import samples

from streamer.engine import ENGINES_FOLDER, FileEntry, Manifest, OnnxEngine, load_engine
from streamer.engines.cuda import GpuUnavailable
from streamer.engines.tensorrt_build import build, import_tensorrt
from streamer.errors import OutputError, UsageError
from train.export import ExportConfig, export

pytestmark = pytest.mark.skipif(
    find_spec("torch_tensorrt") is None or find_spec("tensorrt_rtx") is None,
    reason="needs torch-tensorrt-rtx: make test-trt",
)

SHIPPED = ENGINES_FOLDER / "gtsgn-simulated"
NETWORKS = ["GTS-GN (1)", "GTS-GN (2)", "GTS-GN (3)", "GTS-GN (4)", "SS-GN A", "SS-GN B", "GCN A", "GCN B"]


@pytest.fixture(scope="module")
def variants() -> dict[str, Any]:
    """The report of tensorrt_variants.py."""
    script = Path(__file__).with_name("tensorrt_variants.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("form", ["as trained", "folded"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_operator_has_a_converter_and_lowering_changes_nothing(variants, network, dtype, form):
    found = variants[f"{network} {dtype} {form}"]
    assert found["missing"] == [], f"TensorRT has no converter for {', '.join(found['missing'])}"
    assert found["operators"] > 20
    assert found["difference"] <= {"float32": 1e-6, "float16": 2e-3}[dtype]
    assert found["control"] > 1e-4


def test_an_operator_that_tensorrt_lacks_is_named(variants):
    assert any("linalg_det" in name for name in variants["control"]["missing"])


@pytest.fixture(scope="module", params=["float32", "float16"])
def engine_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "gtsgn-rtx"
    export(ExportConfig(SHIPPED, folder, to="trt-rtx", dtype=request.param))
    return folder


def test_an_engine_is_built_and_its_folder_says_what_it_is(engine_folder):
    manifest = Manifest.read(engine_folder)
    manifest.verify(engine_folder)
    assert manifest.runtime == "tensorrt-rtx" and manifest.compute_capability == "8.0+"
    assert manifest.runtime_version == import_tensorrt("tensorrt-rtx").__version__
    assert {"model.engine", "model_batch.engine", "model.onnx", "weights.safetensors"} < set(manifest.files)
    assert manifest.files["model.engine"].bytes > 500_000
    assert f"computing in {manifest.dtype}" in (engine_folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    shipped = Manifest.read(SHIPPED)
    assert (manifest.classes, manifest.features) == (shipped.classes, shipped.features)


def test_on_the_cpu_such_a_folder_answers_as_the_shipped_engine_does(engine_folder):
    engine = load_engine(engine_folder, "cpu")
    assert isinstance(engine, OnnxEngine)
    ours, theirs = engine.classify_batch(samples(50)), load_engine(SHIPPED, "cpu").classify_batch(samples(50))
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)


def test_check_builds_it_again_byte_for_byte(engine_folder, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("with a GPU the engine is run instead")
    if Manifest.read(engine_folder).dtype != "float32":
        pytest.skip("once is enough, it takes half a minute")
    config = ExportConfig(SHIPPED, engine_folder, check=True)
    assert "model.engine: equals a second build, byte for byte" in export(config)
    changed = tmp_path / "changed"
    shutil.copytree(engine_folder, changed)
    data = bytearray((changed / "model.engine").read_bytes())
    data[len(data) // 2] ^= 1
    (changed / "model.engine").write_bytes(data)
    manifest = Manifest.read(changed)
    manifest.files["model.engine"] = FileEntry.of(changed / "model.engine")
    manifest.write(changed)
    with pytest.raises(OutputError, match="model.engine: is not what building it again gives"):
        export(ExportConfig(SHIPPED, changed, check=True))


def test_engines_for_the_other_flavour_are_refused_in_one_line(tmp_path):
    with pytest.raises(
        UsageError, match="torch-tensorrt is not installed; torch-tensorrt-rtx is, which excl"
    ):
        export(ExportConfig(SHIPPED, tmp_path / "other", to="trt"))
    assert not (tmp_path / "other").exists()


def test_engines_from_onnx_are_built_without_torch():
    """As the recogniser builds them on first use. (Their outputs come in either order, so two may differ.)"""
    tensorrt = import_tensorrt("tensorrt-rtx")
    model = (SHIPPED / "model.onnx").read_bytes()
    single, batches = build(tensorrt, model, 1), build(tensorrt, model, 64)
    for engine in (single, batches):
        assert len(engine) > 1_000_000
        for name in (b"features", b"scores", b"action_units"):
            assert name in engine
    with pytest.raises(GpuUnavailable, match="TensorRT does not take the model"):
        build(tensorrt, model[:1000], 1)


def test_the_gpu_engine_calls_only_what_tensorrt_has():
    """Its calls run on a GPU alone; that they exist, and take these arguments, can be seen anywhere."""
    tensorrt = import_tensorrt("tensorrt-rtx")
    assert tensorrt.float32 == tensorrt.DataType.FLOAT
    assert {"INPUT", "OUTPUT"} <= set(tensorrt.TensorIOMode.__members__)
    tensorrt.Logger(tensorrt.Logger.ERROR)
    for owner, name, *arguments in (
        (tensorrt.Runtime, "deserialize_cuda_engine", "serialized_engine"),
        (tensorrt.ICudaEngine, "num_io_tensors"),
        (tensorrt.ICudaEngine, "get_tensor_name", "index"),
        (tensorrt.ICudaEngine, "get_tensor_mode", "name"),
        (tensorrt.ICudaEngine, "get_tensor_shape", "name"),
        (tensorrt.ICudaEngine, "get_tensor_dtype", "name"),
        (tensorrt.ICudaEngine, "create_execution_context"),
        (tensorrt.IExecutionContext, "set_tensor_address", "name", "memory"),
        (tensorrt.IExecutionContext, "set_input_shape", "name", "shape"),
        (tensorrt.IExecutionContext, "execute_async_v3", "stream_handle"),
    ):
        member = getattr(owner, name)
        for argument in arguments:
            assert f"{argument}:" in member.__doc__, member.__doc__
