"""From a trained network to an engine folder that the recogniser loads, and the check of one.

source.py          what is exported: a checkpoint, or the weights of an engine folder
onnx_graph.py      model.onnx
tensorrt.py        model.engine and model_batch.engine, built in a process of their own
tensorrt_child.py  that process; torch_tensorrt.py imports Torch-TensorRT where there is no GPU
folder.py          the whole folder, written at once or not at all
difference.py      an engine's answers beside the trained network's
check.py           every artifact of a folder against the network it was made of
"""

from __future__ import annotations

from train.export.check import check
from train.export.folder import ExportConfig, write

__all__ = ["ExportConfig", "export"]


def export(config: ExportConfig) -> str:
    """Export, or with `config.check` compare what is there with the source; returns text for the user.

    Raises:
        UsageError: the source cannot be used, the folder cannot be written, or TensorRT is not installed.
        OutputError: an artifact differs too much from the source.
        EngineError: a file is not what the manifest says, or would not be accepted, such as for a bad name.
    """
    return check(config) if config.check else write(config)
