"""Reads a checkpoint ("tensor bundle") without TensorFlow: an index in the form of a LevelDB table, and shards of raw values.

Values stay views of the mapped shards; their checksums are compared when a value is first used.
Source: GraphDef format reference, section 10.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from nxcc.ir.diagnostics import CHECKPOINT, CompileError
from nxcc.ir.dtypes import PRED, DType
from nxcc.ir.files import map_file
from nxcc.ir.graphdef.datatypes import BY_NAME, STRING, by_number
from nxcc.ir.graphdef.tensors import MAX_ELEMENTS, parse
from nxcc.ir.hlo.proto.wire import Buffer, WireError, read_varint
from nxcc.ir.literals import Array, Literal
from nxcc.ir.shapes import Shape

FOOTER_BYTES = 48
MAGIC = 0xDB4775248B80FB57
_TRAILER_BYTES = 5
"""Compression type and checksum behind a block."""
_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8
_LANES = 1 << 14
_ESCAPED = re.compile(rb"[\x00\xff]")
"""Bytes of a name that ordered code follows with their complement."""

Region = tuple[tuple[int, int], ...]
"""Part of a tensor: start and length in each dimension."""


class Bundle:
    """A checkpoint by its prefix, as in `variables/variables`."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.path = f"{prefix}.index"
        self.entries: dict[str, bytes] = {}
        try:
            for key, value in _table(map_file(self.path), self.path):
                self.entries[key.decode("utf-8", "surrogateescape")] = value
        except WireError as error:
            raise damaged(self.path, error.why) from None
        header = parse("BundleHeaderProto", self.entries.pop("", b""), self.path)
        if header.endianness:
            raise damaged(self.path, "it was written on a big-endian machine")
        self.shards = header.num_shards
        self._mapped: dict[int, Buffer] = {}

    def value(self, key: str, region: Region | None = None) -> Literal:
        """The value of a variable, or a part of it; CompileError(CHECKPOINT) if it is not there or cannot be read."""
        entry = self._entry(key)
        kind, dims = by_number(entry.dtype), _dims(entry)
        if kind is None or kind.dtype is None or kind.number == STRING:
            raise damaged(self.path, f"the value of {key!r} cannot be read: it is of type {kind or entry.dtype}")
        count = math.prod(dims)
        if min(dims, default=0) < 0 or count > MAX_ELEMENTS:
            raise damaged(self.path, f"{key!r} is {kind}{list(dims)}")
        if entry.slices:
            return self._joined(key, kind.dtype, dims, [self._region(key, part, dims) for part in entry.slices], region)
        data = self._content(key, entry)
        if len(data) != count * kind.dtype.byte_size:
            raise damaged(self.path, f"{key!r} is {kind}{list(dims)}, but has {entry.size} bytes")
        dtype = kind.dtype
        whole = Literal(Shape(dtype, dims), load=lambda: self._load(key, data, entry, dtype, dims))
        return whole if region is None else self._part(key, whole, region)

    def text(self, key: str) -> bytes:
        """The value of a single string: its length, four bytes of checksum, and its bytes."""
        entry = self._entry(key)
        data = self._content(key, entry)
        try:
            length, at = read_varint(data, 0, len(data))
        except WireError as error:
            raise damaged(self.path, error.why) from None
        if by_number(entry.dtype) is not BY_NAME["string"] or _dims(entry) or at + 4 + length != len(data):
            raise damaged(self.path, f"{key!r} is no single string")
        return bytes(data[at + 4:])

    def _entry(self, key: str) -> Any:
        content = self.entries.get(key)
        if content is None:
            raise damaged(self.path, f"it has no value for {key!r}")
        return parse("BundleEntryProto", content, self.path)

    def _content(self, key: str, entry: Any) -> Buffer:
        data = self._shard(entry.shard_id)
        if not 0 <= entry.offset <= len(data) - entry.size or entry.size < 0:
            raise damaged(self.path, f"the value of {key!r} lies outside its shard")
        return memoryview(data)[entry.offset:entry.offset + entry.size]

    # Partitioned variables

    def _region(self, key: str, part: Any, dims: tuple[int, ...]) -> Region:
        """A TensorSliceProto; an extent without length is the whole dimension."""
        region = tuple((e.start, e.length or n) for e, n in zip(part.extent, dims, strict=False))
        if len(region) != len(dims) or any(start < 0 or n <= 0 or start + n > size
                                           for (start, n), size in zip(region, dims, strict=True)):
            raise damaged(self.path, f"a part of {key!r} lies outside it")
        return region

    def _joined(self, key: str, dtype: DType, dims: tuple[int, ...], parts: list[Region], region: Region | None) -> Literal:
        """A variable that is stored in parts: the part itself if it is stored so, else all of them put together."""
        stored = {part: self.value(_part_key(key, part)) for part in parts}
        for part, literal in stored.items():
            if literal.shape != Shape(dtype, tuple(n for _, n in part)):
                raise damaged(self.path, f"a part of {key!r} is {literal.shape}")
        if region in stored:
            return stored[region]
        if sum(math.prod(n for _, n in part) for part in stored) != math.prod(dims):
            raise damaged(self.path, f"the parts of {key!r} do not make {dtype}{list(dims)}")

        def load() -> Array:
            whole: Array = np.empty(dims, dtype.numpy)
            filled: Array = np.zeros(dims, np.bool_)
            for part, literal in stored.items():
                if filled[_places(part)].any():
                    raise damaged(self.path, f"the parts of {key!r} overlap")
                filled[_places(part)] = True
                whole[_places(part)] = literal.array
            return whole

        literal = Literal(Shape(dtype, dims), load=load)
        return literal if region is None else self._part(key, literal, region)

    def _part(self, key: str, whole: Literal, region: Region) -> Literal:
        dims = whole.shape.dims
        if len(region) != len(dims) or any(start + n > size for (start, n), size in zip(region, dims, strict=True)):
            raise damaged(self.path, f"{key!r} is {whole.shape}, which has no part {region}")
        return Literal(Shape(whole.shape.dtype, tuple(n for _, n in region)), load=lambda: whole.array[_places(region)])

    def _shard(self, number: int) -> Buffer:
        if not 0 <= number < self.shards:
            raise damaged(self.path, f"there is no shard {number} of {self.shards}")
        if number not in self._mapped:
            self._mapped[number] = map_file(f"{self.prefix}.data-{number:05d}-of-{self.shards:05d}")
        return self._mapped[number]

    def _load(self, key: str, data: Buffer, entry: Any, dtype: DType, dims: tuple[int, ...]) -> Array:
        content: Array = np.frombuffer(data, np.uint8)
        if not _is_intact(content, entry.crc32c):
            raise damaged(self.path, f"the value of {key!r} does not match its checksum")
        if dtype is PRED:
            content = content != 0
        else:
            content = content.view(dtype.numpy) if content.size else np.empty(0, dtype.numpy)
        return content.reshape(dims)


def damaged(path: str, why: str) -> CompileError:
    return CompileError(CHECKPOINT, f"cannot read the checkpoint {os.path.basename(path)}", path, why=why,
                        remedy="save the model again, or freeze it with convert_variables_to_constants_v2")


def _dims(entry: Any) -> tuple[int, ...]:
    return tuple(d.size for d in entry.shape.dim)


def _places(region: Region) -> tuple[slice, ...]:
    return tuple(slice(start, start + n) for start, n in region)


def _part_key(key: str, region: Region) -> str:
    """The key of a part of a variable, in the ordered code that TensorFlow sorts tables by: 0, the name, how many dimensions,
    and start and length of each."""
    name = _ESCAPED.sub(lambda found: found[0] + bytes([found[0][0] ^ 0xFF]), key.encode("utf-8", "surrogateescape"))
    rank = len(region).to_bytes((len(region).bit_length() + 7) // 8, "big")
    numbers = b"".join(_ordered(start) + _ordered(n) for start, n in region)
    return (b"\x00" + name + b"\x00\x01" + bytes([len(rank)]) + rank + numbers).decode("utf-8", "surrogateescape")


def _ordered(value: int) -> bytes:
    """A number of up to 55 bits that is not negative: as many leading ones as bytes, a zero, and the number."""
    size = value.bit_length() // 7 + 1
    return (value | (0xFF << 8 - size & 0xFF) << 8 * (size - 1)).to_bytes(size, "big")


# The table


def _table(data: Buffer, path: str) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values in order."""
    end = len(data)
    if end < FOOTER_BYTES or int.from_bytes(data[end - 8:end], "little") != MAGIC:
        raise damaged(path, "it does not end like a checkpoint index")
    at = end - FOOTER_BYTES
    _, at = _handle(data, at, end)
    index, _ = _handle(data, at, end)
    for _, handle in _block(data, *index, path):
        place, _ = _handle(handle, 0, len(handle))
        yield from _block(data, *place, path)


def _handle(data: Buffer, at: int, end: int) -> tuple[tuple[int, int], int]:
    offset, at = read_varint(data, at, end)
    size, at = read_varint(data, at, end)
    return (offset, size), at


def _block(data: Buffer, offset: int, size: int, path: str) -> Iterator[tuple[bytes, bytes]]:
    if size < 4 or offset + size + _TRAILER_BYTES > len(data):
        raise damaged(path, "a block lies outside the file")
    stop = offset + size
    if data[stop] != 0:
        raise damaged(path, "its blocks are compressed")
    if not _is_intact(np.frombuffer(data, np.uint8, size + 1, offset), int.from_bytes(data[stop + 1:stop + 5], "little")):
        raise damaged(path, "a block does not match its checksum")
    restarts = int.from_bytes(data[stop - 4:stop], "little")
    end, at, key = stop - 4 - 4 * restarts, offset, b""
    while at < end:
        shared, at = read_varint(data, at, end)
        fresh, at = read_varint(data, at, end)
        length, at = read_varint(data, at, end)
        if shared > len(key) or fresh + length > end - at:
            raise damaged(path, "an entry runs past its block")
        key = key[:shared] + bytes(data[at:at + fresh])
        yield key, bytes(data[at + fresh:at + fresh + length])
        at += fresh + length


# CRC-32C (Castagnoli), many stretches of the data at a time


@cache
def _byte_table() -> Array:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


def _advance(states: Array, rows: Array) -> Array:
    """States after the bytes of each row."""
    table = _byte_table()
    for column in rows.T:
        states = table[(states ^ column) & 0xFF] ^ states >> np.uint32(8)
    return states


def crc32c(content: Array) -> int:
    """The checksum of bytes.

    Long data is cut in equal stretches, whose checksums are taken at once; they are joined by running each on over as many
    zeros as follow, which is linear in the 32 bits of the state.
    """
    width = content.size // _LANES
    state = np.full(1, 0xFFFFFFFF, np.uint32)
    if width >= 64:
        body = content[:width * _LANES].reshape(_LANES, width)
        parts = _advance(np.zeros(_LANES, np.uint32), np.ascontiguousarray(body))
        units = _advance(np.uint32(1) << np.arange(32, dtype=np.uint32), np.zeros((32, width), np.uint8))
        total = int(state[0])
        for part in parts.tolist():
            total = _apply(units, total) ^ part
        state = np.full(1, total, np.uint32)
        content = content[width * _LANES:]
    value = int(state[0])
    table = _byte_table().tolist()
    for byte in content.tolist():
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def _apply(units: Array, state: int) -> int:
    """A linear map of the state, given by the images of its bits."""
    bits = (state >> np.arange(32)) & 1
    return int(np.bitwise_xor.reduce(units[bits == 1], initial=np.uint32(0)))


def _is_intact(content: Array, stored: int) -> bool:
    """Whether the bytes have the checksum that is stored beside them."""
    return _masked(crc32c(content)) == stored


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF
