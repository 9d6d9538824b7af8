"""LiteralProto to Literal without copying, and back without holding a second copy.

The payload lies in the order of the layout of the literal's own shape. Fixed-width payloads become views of the mapped
file; integers of 32 and 64 bits are varints on the wire and are decoded on first use. Source: HLO format reference,
section 3 (which field, which encoding) and 6.4 (order).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np

from nxcc.ir.diagnostics import INVALID_MODULE, LIMIT_EXCEEDED, PROTO_CORRUPT, CompileError
from nxcc.ir.dtypes import PRED, DType
from nxcc.ir.hlo.proto.schema import message_type
from nxcc.ir.hlo.proto.shapes import shape_to_proto
from nxcc.ir.hlo.proto.wire import (
    BYTES,
    MAX_DEPTH,
    MAX_VARINT_BYTES,
    Buffer,
    Range,
    records,
    write_record,
)
from nxcc.ir.literals import Array, Literal
from nxcc.ir.shapes import Shape, row_major

CHUNK_BYTES = 1 << 20
"""How much of a payload is decoded or written at a time."""
MAX_RANK = 64
"""Dimensions that a numpy array can have."""
MAX_ELEMENTS = 2**48
_SHAPE, _TUPLE = 1, 10
_VARINT_DTYPES = {"s32s": np.int32, "s64s": np.int64, "u32s": np.uint32, "u64s": np.uint64, "preds": np.bool_}


@cache
def _payload_field(dtype: DType) -> tuple[int, bool]:
    """Number of the LiteralProto field that holds values of a type, and whether it is a `bytes` field."""
    field = message_type("LiteralProto").DESCRIPTOR.fields_by_name[dtype.literal_field]
    return field.number, field.type == field.TYPE_BYTES


class Payload:
    """The values of one field as they lie in the file: stretches of mapped bytes, in order.

    Elements that were not packed are collected in `loose` stretches, so that their number costs no objects.
    """

    __slots__ = ("data", "stretches")

    def __init__(self, data: Buffer) -> None:
        self.data = data
        self.stretches: list[Range | bytearray] = []

    def add(self, start: int, end: int, packed: bool) -> None:
        if packed:
            self.stretches.append((start, end))
            return
        if not self.stretches or isinstance(self.stretches[-1], tuple):
            self.stretches.append(bytearray())
        loose = self.stretches[-1]
        assert isinstance(loose, bytearray)
        loose += self.data[start:end]

    @property
    def size(self) -> int:
        return sum(s[1] - s[0] if isinstance(s, tuple) else len(s) for s in self.stretches)

    def bytes(self) -> Array:
        """All bytes as u8; a view where they lie in one stretch."""
        views = [np.frombuffer(self.data, np.uint8, s[1] - s[0], s[0]) if isinstance(s, tuple) else np.frombuffer(s, np.uint8)
                 for s in self.stretches]
        return views[0] if len(views) == 1 else np.concatenate([*views, np.empty(0, np.uint8)])


def read_literal(data: Buffer, ranges: list[Range], shape_of: Callable[[list[Range]], Shape], source: str,
                 depth: int = 0) -> Literal:
    """The literal whose LiteralProto lies in these parts of the buffer.

    shape_of: reads the ShapeProto in some parts of the buffer. Nothing of the payload is touched unless it is varints,
    which are counted. Raises WireError, or CompileError: PROTO_CORRUPT if the payload does not match the shape.
    """
    if depth > MAX_DEPTH:
        raise CompileError(LIMIT_EXCEEDED, f"tuple literals nest more than {MAX_DEPTH} deep", f"{source}: byte {ranges[0][0]}")
    shapes: list[Range] = []
    parts: list[Range] = []
    payloads: dict[int, Payload] = {}
    for start, end in ranges:
        for number, kind, at, stop in records(data, start, end):
            if number == _SHAPE:
                shapes.append((at, stop))
            elif number == _TUPLE:
                parts.append((at, stop))
            else:
                payloads.setdefault(number, Payload(data)).add(at, stop, kind == BYTES)
    where = f"{source}: byte {ranges[0][0] if ranges else 0}"
    shape = shape_of(shapes)
    if shape.is_tuple:
        return _tuple(shape, tuple(read_literal(data, [part], shape_of, source, depth + 1) for part in parts), where)
    if not shape.is_array:
        raise CompileError(INVALID_MODULE, f"a literal cannot be of type {shape.dtype}", where)
    number, is_bytes = _payload_field(shape.dtype)
    payload = payloads.get(number, Payload(data))
    if is_bytes:
        del payload.stretches[:-1]
    return _array(shape, payload, where)


def _tuple(shape: Shape, elements: tuple[Literal, ...], where: str) -> Literal:
    if tuple(e.shape for e in elements) != shape.elements:
        raise CompileError(PROTO_CORRUPT, "the parts of a tuple literal do not match its shape", where,
                           why=f"the shape is {shape}, the parts are {', '.join(str(e.shape) for e in elements) or 'missing'}")
    return Literal(shape, elements=elements)


def _array(shape: Shape, payload: Payload, where: str) -> Literal:
    if shape.rank > MAX_RANK or math.prod(size or 1 for size in shape.dims) >= MAX_ELEMENTS or min(shape.dims, default=0) < 0:
        raise CompileError(LIMIT_EXCEEDED, f"a literal cannot have the shape {shape}", where,
                           why=f"literals have at most {MAX_RANK} dimensions and 2^48 elements")
    count = shape.element_count
    if shape.dtype.literal_field in _VARINT_DTYPES:
        if not (count <= payload.size <= count * MAX_VARINT_BYTES) or _varint_count(payload) != count:
            raise _mismatch(shape, f"its payload is {payload.size} bytes of varints", where)
        return Literal(shape, load=partial(_decode, shape, payload, where))
    if payload.size != count * shape.dtype.byte_size:
        raise _mismatch(shape, f"its payload is {payload.size} bytes instead of {count * shape.dtype.byte_size}", where)
    return Literal(shape, _logical(shape, payload.bytes().view(shape.dtype.numpy)))


def _mismatch(shape: Shape, why: str, where: str) -> CompileError:
    return CompileError(PROTO_CORRUPT, f"the values of a literal do not fill its shape {shape}", where, why=why)


def _logical(shape: Shape, flat: Array) -> Array:
    """The values in logical order, as a read-only view of their physical order."""
    order = (shape.layout or row_major(shape.rank)).minor_to_major[::-1]
    physical = flat.reshape([shape.dims[d] for d in order])
    array = physical.transpose(sorted(range(shape.rank), key=order.__getitem__))
    array.flags.writeable = False
    return array


# Varints


def _varint_count(payload: Payload) -> int:
    raw = payload.bytes()
    return sum(int(np.count_nonzero(raw[at:at + CHUNK_BYTES] < 0x80)) for at in range(0, raw.size, CHUNK_BYTES))


def _decode(shape: Shape, payload: Payload, where: str) -> Array:
    raw = payload.bytes()
    dtype = np.dtype(_VARINT_DTYPES[shape.dtype.literal_field])
    if shape.dtype is PRED and raw.size == shape.element_count and (raw.max(initial=0) <= 1):
        return _logical(shape, raw.view(np.bool_))
    values = np.empty(shape.element_count, dtype)
    done = at = 0
    while at < raw.size:
        chunk = raw[at:at + CHUNK_BYTES]
        ends = np.flatnonzero(chunk < 0x80)
        if not ends.size:
            raise _too_long(shape, where)
        chunk = chunk[:int(ends[-1]) + 1]
        values[done:done + ends.size] = _decode_chunk(chunk, ends, dtype, shape, where)
        done += ends.size
        at += chunk.size
    return _logical(shape, values)


def _decode_chunk(chunk: Array, ends: Array, dtype: np.dtype[Any], shape: Shape, where: str) -> Array:
    """Varints that end at `ends`, all byte places at once; 64 bits wrap and are cut to the type, as the wire format says."""
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    values = (chunk[starts] & 0x7F).astype(np.uint64)
    longest = int(lengths.max())
    if longest > MAX_VARINT_BYTES:
        raise _too_long(shape, where)
    for place in range(1, longest):
        longer = np.flatnonzero(lengths > place)
        values[longer] |= (chunk[starts[longer] + place] & np.uint8(0x7F)).astype(np.uint64) << np.uint64(7 * place)
    result: Array = values.astype(dtype)
    return result


def _too_long(shape: Shape, where: str) -> CompileError:
    return _mismatch(shape, f"a varint is longer than {MAX_VARINT_BYTES} bytes", where)


def _encode_chunk(values: Array) -> bytes:
    """Packed varints of integers; negative ones in two's complement of 64 bits."""
    words = values.astype(np.int64).view(np.uint64) if values.dtype.kind == "i" else values.astype(np.uint64)
    lengths = np.ones(words.size, np.int64)
    for place in range(1, MAX_VARINT_BYTES):
        lengths += words >> np.uint64(7 * place) != 0
    ends = np.cumsum(lengths)
    out = np.empty(int(ends[-1]) if words.size else 0, np.uint8)
    starts = ends - lengths
    for place in range(int(lengths.max(initial=0))):
        longer = np.flatnonzero(lengths > place)
        byte = (words[longer] >> np.uint64(7 * place) & np.uint64(0x7F)).astype(np.uint8)
        out[starts[longer] + place] = byte | np.where(lengths[longer] > place + 1, np.uint8(0x80), np.uint8(0))
    return out.tobytes()


# Writing


Piece = bytes | tuple[int, Callable[[], Iterator[bytes]]]
"""Bytes, or a size and what yields that many bytes when asked."""


def literal_pieces(literal: Literal) -> list[Piece]:
    """The LiteralProto as pieces to be written one after the other; values are read from the literal's view piece by piece."""
    message = message_type("LiteralProto")()
    shape_to_proto(literal.shape, message.shape)
    pieces: list[Piece] = [message.SerializeToString(deterministic=True)]
    for element in literal.elements:
        inner = literal_pieces(element)
        pieces += [write_record(_TUPLE, pieces_size(inner)), *inner]
    if literal.shape.is_array and literal.shape.element_count:
        stream = partial(_payload_chunks, literal)
        if literal.shape.dtype.literal_field in _VARINT_DTYPES and literal.shape.dtype is not PRED:
            size = sum(map(len, stream()))
        else:
            size = literal.shape.byte_size
        pieces += [write_record(_payload_field(literal.shape.dtype)[0], size), (size, stream)]
    return pieces


def pieces_size(pieces: list[Piece]) -> int:
    return sum(len(p) if isinstance(p, bytes) else p[0] for p in pieces)


def _payload_chunks(literal: Literal) -> Iterator[bytes]:
    """The payload in the order of the literal's layout."""
    shape = literal.shape
    order = (shape.layout or row_major(shape.rank)).minor_to_major[::-1]
    physical = literal.array.transpose(order)
    encode = _encode_chunk if shape.dtype.literal_field in _VARINT_DTYPES and shape.dtype is not PRED else None
    bits = physical if encode or shape.dtype.byte_size > 8 or shape.dtype.is_complex else physical.view(
        f"u{shape.dtype.byte_size}")
    mask = (1 << shape.dtype.bits) - 1 if shape.dtype.bits < 8 else 0
    for chunk in np.nditer(bits, flags=["external_loop", "buffered", "zerosize_ok"], order="C",
                           buffersize=CHUNK_BYTES // shape.dtype.byte_size):
        values = np.asarray(chunk)
        if encode:
            yield encode(values)
        else:
            yield (values & mask if mask else values).tobytes()


