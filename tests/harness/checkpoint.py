"""Writes small checkpoints by the published layout, for tests of the reader."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nxcc.ir.graphdef.checkpoint import MAGIC, crc32c
from nxcc.ir.graphdef.schema import message_type
from nxcc.ir.hlo.proto.wire import write_varint

FLOAT, STRING = 1, 7


def masked(content: bytes) -> int:
    crc = crc32c(np.frombuffer(content, np.uint8))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def block(rows: list[tuple[bytes, bytes]]) -> bytes:
    """Entries with prefix compression, one restart, type and checksum."""
    out, last = b"", b""
    for key, value in rows:
        shared = len(os.path.commonprefix([key, last]))
        out += write_varint(shared) + write_varint(len(key) - shared) + write_varint(len(value)) + key[shared:] + value
        last = key
    out += bytes(4) + (1).to_bytes(4, "little") + b"\0"
    return out + masked(out).to_bytes(4, "little")


def write_index(path: Path, rows: list[tuple[bytes, bytes]]) -> None:
    """A table of one block; the header stands before the rows."""
    data = block([(b"", message_type("BundleHeaderProto")(num_shards=1).SerializeToString()), *rows])
    index = block([(rows[-1][0], write_varint(0) + write_varint(len(data) - 5))])
    footer = write_varint(0) * 2 + write_varint(len(data)) + write_varint(len(index) - 5)
    path.write_bytes(data + index + footer.ljust(40, b"\0") + MAGIC.to_bytes(8, "little"))


def write_checkpoint(prefix: Path, values: Mapping[bytes, Any]) -> None:
    """float32 arrays, bytes as a single string, and for a partitioned tensor its shape with a list of regions."""
    rows, data = [], b""
    for key, value in sorted(values.items()):
        entry = message_type("BundleEntryProto")(offset=len(data))
        content = b""
        if isinstance(value, bytes):
            content = write_varint(len(value)) + bytes(4) + value
            entry.dtype = STRING
        elif isinstance(value, tuple):
            entry.dtype = FLOAT
            _add_regions(entry, *value)
        else:
            content = value.astype(np.float32).tobytes()
            entry.dtype = FLOAT
            for n in value.shape:
                entry.shape.dim.add(size=n)
        entry.size, entry.crc32c = len(content), masked(content)
        data += content
        rows.append((key, entry.SerializeToString()))
    write_index(prefix.with_suffix(".index"), rows)
    prefix.with_suffix(".data-00000-of-00001").write_bytes(data)


def _add_regions(entry: Any, dims: tuple[int, ...], regions: list[tuple[tuple[int, int], ...]]) -> None:
    for n in dims:
        entry.shape.dim.add(size=n)
    for region in regions:
        part = entry.slices.add()
        for (start, length), n in zip(region, dims, strict=True):
            extent = part.extent.add()
            if (start, length) != (0, n):
                extent.start, extent.length = start, length
