"""Torch-TensorRT where there is no GPU: for a process of its own alone, see `tensorrt_child.py`.

Its import asks the driver for the GPU it would run on. TensorRT-RTX builds engines without one, so the few
questions are answered here, and what would load the built engine keeps its bytes. With a GPU nothing of
this happens.
"""

from __future__ import annotations

import logging
import os.path
from types import ModuleType
from typing import Any

import torch

# What the answers say of a GPU that is not there; none of it reaches the engine.
_CAPABILITY = (8, 9)
_MEMORY_BYTES = 8 << 30


class _Properties:
    major, minor = _CAPABILITY
    name, total_memory, multi_processor_count = "none", _MEMORY_BYTES, 1


class _Kept:
    """A built engine, as far as Torch-TensorRT asks for it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self) -> bytes:
        return self._data


class _Keeper:
    """In place of TensorRT's Runtime, which needs a GPU to load what was built."""

    def __init__(self, logger: object) -> None:
        pass

    def deserialize_cuda_engine(self, data: Any) -> _Kept:
        return _Kept(bytes(data))


def import_torch_tensorrt() -> tuple[ModuleType, ModuleType]:
    """(torch_tensorrt, the TensorRT module that it uses). Changes torch and TensorRT of this process where
    there is no GPU.

    Raises: ImportError, OSError.
    """
    logging.getLogger("torch_tensorrt").setLevel(logging.ERROR)
    if torch.cuda.is_available():
        import torch_tensorrt  # pyright: ignore[reportMissingImports]
        import tensorrt  # pyright: ignore[reportMissingImports] # isort: skip # which torch_tensorrt puts there

        return torch_tensorrt, tensorrt
    torch._C._CudaDeviceProperties = _Properties  # pyright: ignore[reportAttributeAccessIssue]
    torch.cuda.current_device = lambda: 0
    torch.cuda.get_device_capability = lambda device=None: _CAPABILITY
    torch.cuda.mem_get_info = lambda device=None: (_MEMORY_BYTES, _MEMORY_BYTES)
    torch.cuda.get_device_properties = lambda device=None: _Properties()
    is_file = os.path.isfile
    # Its C++ runtime needs torch's CUDA libraries; the Python one stands in where the file is not there.
    os.path.isfile = lambda path: "libtorchtrt" not in str(path) and is_file(path)
    try:
        import torch_tensorrt  # pyright: ignore[reportMissingImports]
    finally:
        os.path.isfile = is_file
    import tensorrt  # pyright: ignore[reportMissingImports]

    tensorrt.Runtime = _Keeper
    return torch_tensorrt, tensorrt
