"""Which NVIDIA GPU is here: the driver itself is asked, no library of CUDA's is needed."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

from streamer.errors import EngineError

# CUdevice_attribute of cuda.h
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


class GpuUnavailable(EngineError):
    """An engine cannot run on this machine's GPU, or there is none; the CPU may do instead."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """name: as the driver says it. capability: compute capability, (major, minor)."""

    name: str
    capability: tuple[int, int]

    @property
    def capability_text(self) -> str:
        """Such as "8.9"."""
        return "{}.{}".format(*self.capability)


def first_gpu() -> Gpu | None:
    """The first GPU that the CUDA driver shows, or None if there is no driver or no GPU."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    count, device = ctypes.c_int(0), ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or count.value < 1:
        return None
    name = ctypes.create_string_buffer(128)
    capability = []
    if driver.cuDeviceGet(ctypes.byref(device), 0) or driver.cuDeviceGetName(name, len(name), device):
        return None
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        value = ctypes.c_int(0)
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
            return None
        capability.append(value.value)
    return Gpu(name.value.decode("ascii", "replace"), (capability[0], capability[1]))


def serves(capability: tuple[int, int], runtime: str, built_for: str) -> bool:
    """Whether an engine that was built for `built_for` runs on a GPU of this compute capability.

    built_for: "8.9" is that capability alone. "8.0+", of TensorRT-RTX only, is what it supports from there
    on: 8.0 to 8.9 and 12.0 up, but neither 9 nor 10 (NVIDIA's data-centre GPUs).
    """
    major, minor = (int(part) for part in built_for.rstrip("+").split("."))
    if not built_for.endswith("+"):
        return capability == (major, minor)
    return runtime == "tensorrt-rtx" and capability >= (major, minor) and not 9 <= capability[0] <= 11
