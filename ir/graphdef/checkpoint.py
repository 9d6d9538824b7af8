"""Reads a checkpoint ("tensor bundle") without TensorFlow: an index in the form of a LevelDB table, and shards of raw values.

Values stay views of the mapped shards; their checksums are compared when a value is first used.
Source: GraphDef format reference, section 10.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from nxcc.ir.diagnostics import CHECKPOINT, CompileError
from nxcc.ir.dtypes import PRED, DType
from nxcc.ir.graphdef.datatypes import by_number
from nxcc.ir.graphdef.tensors import MAX_ELEMENTS, parse
from nxcc.ir.hlo.proto.reader import map_file
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


class Bundle:
    """A checkpoint by its prefix, as in `variables/variables`."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.path = f"{prefix}.index"
        self.entries: dict[str, bytes] = {}
        try:
            for key, value in _table(map_file(self.path), self.path):
                self.entries[key.decode("utf-8", "replace")] = value
        except WireError as error:
            raise damaged(self.path, error.why) from None
        header = parse("BundleHeaderProto", self.entries.pop("", b""), self.path)
        if header.endianness:
            raise damaged(self.path, "it was written on a big-endian machine")
        self.shards = header.num_shards
        self._mapped: dict[int, Buffer] = {}

    def value(self, key: str) -> Literal:
        """The value of a variable; CompileError(CHECKPOINT) if it is not there or cannot be read."""
        content = self.entries.get(key)
        if content is None:
            raise damaged(self.path, f"it has no value for {key!r}")
        entry = parse("BundleEntryProto", content, self.path)
        kind = by_number(entry.dtype)
        dims = tuple(d.size for d in entry.shape.dim)
        if kind is None or kind.dtype is None or entry.slices:
            why = "it is partitioned" if entry.slices else f"it is of type {kind or entry.dtype}"
            raise damaged(self.path, f"the value of {key!r} cannot be read: {why}")
        count = math.prod(dims)
        if min(dims, default=0) < 0 or count > MAX_ELEMENTS or count * kind.dtype.byte_size != entry.size:
            raise damaged(self.path, f"{key!r} is {kind}{list(dims)}, but has {entry.size} bytes")
        data = self._shard(entry.shard_id)
        if not 0 <= entry.offset <= len(data) - entry.size:
            raise damaged(self.path, f"the value of {key!r} lies outside its shard")
        return Literal(Shape(kind.dtype, dims), load=lambda: self._load(key, data, entry, kind.dtype, dims))

    def _shard(self, number: int) -> Buffer:
        if not 0 <= number < self.shards:
            raise damaged(self.path, f"there is no shard {number} of {self.shards}")
        if number not in self._mapped:
            self._mapped[number] = map_file(f"{self.prefix}.data-{number:05d}-of-{self.shards:05d}")
        return self._mapped[number]

    def _load(self, key: str, data: Buffer, entry: Any, dtype: DType | None, dims: tuple[int, ...]) -> Array:
        assert dtype is not None
        content: Array = np.frombuffer(data, np.uint8, entry.size, entry.offset)
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
