"""TensorProto to Literal: raw contents and packed floats stay views of the mapped file, splats take no memory.

Source: GraphDef format reference, sections 3 and 4 (which field, how short lists repeat, which encoding wins).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nxcc.ir.diagnostics import GRAPH_INVALID, CompileError
from nxcc.ir.dtypes import BF16, F16, PRED, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.graphdef.datatypes import STRING, DataType, by_number
from nxcc.ir.graphdef.schema import message_type
from nxcc.ir.hlo.proto.wire import BYTES, Buffer, Range, WireError, split
from nxcc.ir.literals import Array, Literal
from nxcc.ir.shapes import Shape

MAX_ELEMENTS = 2**40
_CONTENT, _FLOATS, _DOUBLES = 4, 5, 6
_LARGE_FIELDS = frozenset((_CONTENT, _FLOATS, _DOUBLES))
_PACKED = {_FLOATS: ("float_val", "<f4"), _DOUBLES: ("double_val", "<f8")}


@dataclass(frozen=True, slots=True)
class Strings:
    """A constant of strings, which HLO does not have. values: bytes, row-major."""

    dims: tuple[int, ...]
    values: tuple[bytes, ...]


def read_tensor(data: Buffer, place: Range, where: str) -> Literal | Strings:
    """The tensor whose TensorProto lies at `place` of the buffer.

    Raises CompileError(GRAPH_INVALID) if it is damaged, contents and shape disagree, or the type has no values.
    """
    try:
        rest, found = split(data, [place], _LARGE_FIELDS)
    except WireError as error:
        raise _invalid(where, "a constant is damaged", error.why) from None
    message = parse("TensorProto", rest, where)
    kind = by_number(message.dtype)
    dims = tuple(d.size for d in message.tensor_shape.dim)
    if kind is None or not kind.field:
        raise _invalid(where, f"a constant of type {kind or message.dtype} has no values")
    if message.tensor_shape.unknown_rank or any(size < 0 for size in dims) or math.prod(dims) > MAX_ELEMENTS:
        raise _invalid(where, f"a constant has the shape {list(dims)}")
    if kind.number == STRING or kind.dtype is None:
        return _strings(message, dims)
    contents = [(start, end) for number, _, start, end in found if number == _CONTENT]
    if contents and contents[-1][0] < contents[-1][1]:
        start, end = contents[-1]
        return _raw(kind.dtype, dims, np.frombuffer(data, np.uint8, end - start, start), where)
    packed = [record for record in found if _PACKED.get(record[0], ("",))[0] == kind.field]
    return _typed(kind, dims, _floats(data, packed) if packed else getattr(message, kind.field))


def parse(name: str, content: bytes, where: str) -> Any:
    """A message; CompileError(GRAPH_INVALID) if the bytes are none."""
    from google.protobuf.message import DecodeError
    try:
        return message_type(name).FromString(content)
    except DecodeError:
        raise _invalid(where, f"a {name} message is damaged") from None


def _invalid(where: str, what: str, why: str = "") -> CompileError:
    return CompileError(GRAPH_INVALID, what, where, why=why)


def _strings(message: Any, dims: tuple[int, ...]) -> Strings:
    count, values = math.prod(dims), tuple(message.string_val)
    last = values[-1] if values else b""
    return Strings(dims, values[:count] + (last,) * min(count - len(values), 1 << 20))


def _raw(dtype: DType, dims: tuple[int, ...], content: Array, where: str) -> Literal:
    """Raw little-endian contents as a view."""
    count = math.prod(dims)
    if content.size != count * dtype.byte_size:
        raise _invalid(where, f"tensor_content has {content.size} bytes",
                       f"{dtype}{list(dims)} needs {count * dtype.byte_size}")
    if dtype is PRED:
        values = content != 0
    elif dtype.bits < 8:
        values = content.astype(np.int8).astype(dtype.numpy)
    else:
        values = content.view(dtype.numpy) if content.size else np.empty(0, dtype.numpy)
    return Literal(Shape(dtype, dims), values.reshape(dims))


def _floats(data: Buffer, records: Sequence[tuple[int, int, int, int]]) -> Array:
    """Float lists as they lie in the file: packed stretches, or one element a record."""
    element = np.dtype(_PACKED[records[0][0]][1])
    parts = []
    for number, kind, start, end in records:
        if kind == BYTES and (end - start) % element.itemsize:
            raise _invalid(f"byte {start}", f"{end - start} bytes of field {number} are no multiple of {element.itemsize}")
        parts.append(np.frombuffer(data, element, (end - start) // element.itemsize, start))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _typed(kind: DataType, dims: tuple[int, ...], given: Any) -> Literal:
    """Typed values: the last one repeats to the end, none means zeros, surplus ones are ignored."""
    assert kind.dtype is not None
    count = math.prod(dims)
    values = _elements(kind.dtype, given)[:count]
    shape = Shape(kind.dtype, dims)
    if values.size == count:
        return Literal(shape, values.reshape(dims))
    last = values[-1] if values.size else np.zeros((), kind.dtype.numpy)
    if values.size <= 1:
        return Literal(shape, np.broadcast_to(last, dims))
    filled = np.concatenate([values, np.broadcast_to(last, (count - values.size,))])
    return Literal(shape, filled.reshape(dims))


def _elements(dtype: DType, given: Any) -> Array:
    """The values of a typed field in the tensor's own type, one-dimensional."""
    if isinstance(given, np.ndarray):
        return given
    if isinstance(given, bytes):
        return np.frombuffer(given, dtype.numpy)
    if dtype in (F16, BF16):
        return (np.array(given, np.int64) & 0xFFFF).astype(np.uint16).view(dtype.numpy)
    if dtype.is_complex:
        part = np.float32 if dtype.bits == 64 else np.float64
        return np.array(given, part)[:len(given) // 2 * 2].view(dtype.numpy)
    if dtype.is_integer:
        wide = np.array(given, np.uint64 if dtype.name == "u64" else np.int64)
        return wide.astype(dtype.numpy)
    return np.array(given, dtype.numpy)
