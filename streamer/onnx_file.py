"""What an ONNX file refers to, read before ONNX Runtime sees it.

ONNX Runtime follows a model's references to other files by itself. An engine has to be complete in its own
checksummed file, so the protobuf is walked here first (field numbers: onnx.proto of ONNX 1.23, IR
version 13). No `onnx` package is needed at run time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# Message -> {field number: message in it}; only what can lead to a tensor or a subgraph.
_MESSAGES: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 8: "OperatorSetId", 20: "TrainingInfo", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Subgraph",
        10: "Tensor",
        11: "Subgraph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
}
_TENSOR_EXTERNAL_DATA = 13
_TENSOR_DATA_LOCATION = 14
_OPSET_DOMAIN = 1
_OPSET_VERSION = 2


@dataclass(frozen=True, slots=True)
class OnnxSummary:
    """opset: version of the standard operator set, None if the model names none.
    external_data: some tensor lies in another file. control_flow: some node runs a graph of its own
    (If, Loop, Scan)."""

    opset: int | None
    external_data: bool
    control_flow: bool


def summarise(model: bytes) -> OnnxSummary:
    """Walk a serialised ModelProto.

    Raises: ValueError if the bytes are not a protobuf of that shape.
    """
    opset = None
    external_data = control_flow = False
    found_graph = False
    open_messages = [("Model", memoryview(model))]
    while open_messages:
        message, data = open_messages.pop()
        if message == "OperatorSetId":
            domain, version = _operator_set(data)
            if domain in (b"", b"ai.onnx"):
                opset = version
            continue
        for field, value in _fields(data):
            if message == "Tensor":
                external_data |= field == _TENSOR_EXTERNAL_DATA or (
                    field == _TENSOR_DATA_LOCATION and value != 0
                )
                continue
            child = _MESSAGES[message].get(field)
            if child is None:
                continue
            if not isinstance(value, memoryview):
                raise ValueError(f"field {field} of {message} is not a message")
            if child == "Subgraph":
                control_flow = True
                continue
            found_graph |= child == "Graph"
            open_messages.append((child, value))
    if not found_graph:
        raise ValueError("it holds no graph")
    return OnnxSummary(opset, external_data, control_flow)


def check_model(model: bytes, opset: int) -> None:
    """Refuse what no engine may hold, before a runtime that would follow it sees the model.

    Raises: ValueError saying what is wrong with it.
    """
    try:
        summary = summarise(model)
    except ValueError as error:
        raise ValueError(f"it is no ONNX model ({error})") from error
    if summary.external_data:
        raise ValueError("its weights lie in another file; export it with all data inside")
    if summary.control_flow:
        raise ValueError("it has control flow (If, Loop or Scan); export it as one plain graph")
    if summary.opset != opset:
        raise ValueError(f"its opset is {summary.opset}, the manifest says {opset}")


def _operator_set(data: memoryview) -> tuple[bytes, int]:
    domain, version = b"", 0
    for field, value in _fields(data):
        if field == _OPSET_DOMAIN and isinstance(value, memoryview):
            domain = bytes(value)
        elif field == _OPSET_VERSION and isinstance(value, int):
            version = value
    return domain, version


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Fields of one message: number, and the value as an integer or as its bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, at = _varint(data, at)
            yield field, value
            continue
        if wire_type == 2:
            size, at = _varint(data, at)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {at}")
        if at + size > len(data):
            raise ValueError("it is cut off")
        yield field, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("it is cut off")
