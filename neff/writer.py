"""Put a package into a file: streamed, reproducible, whole or not at all.

The payload is written once from front to back beside the target, with a running digest; the header is written last
into its place and the file renamed. Source: NEFF reference, section 7.5.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import BinaryIO

from nxcc.ir.files import whole_file
from nxcc.neff import rules
from nxcc.neff.archive import Entry, archive_end, member_header, padding_bytes
from nxcc.neff.header import HEADER_BYTES, PKG_MD5, PKG_SHA256, Header, header_name
from nxcc.neff.members import GRAPH_MEMBER, Graph, subgraph_name
from nxcc.neff.package import Buffer, Package, RawMember, data_bytes, data_pieces, package_members
from nxcc.neff.records import read_record, record_to_json

_GZIP_LEVEL = 6
_GZIP_HEADER = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255))
_UUID_SALT = b"nxcc-neff-uuid"


def write_neff(path: str | os.PathLike[str], package: Package, compress: bool = False,
               confirm: Callable[[], None] = lambda: None) -> Header:
    """Write package to path and return the header.

    Memory does not grow with the constants. Whoever holds an older file of this name open keeps it; of two writers the
    last to finish wins with a whole file. On any error, Ctrl-C included, nothing is left behind.
    compress: gzip (pkg_version 2, MD5); costs time, and its bytes depend on the zlib in use.
    confirm: called when all is written and before the file takes its place; what it raises keeps the file from that.
    Raises CompileError(FILE_UNWRITABLE): folder missing or read-only, disk full.
    """
    members = package_members(package, hash_constants=compress)
    _assert_readable(package, members)
    with whole_file(os.fspath(path)) as file:
        file.write(bytes(HEADER_BYTES))
        payload = _GzipPayload(file) if compress else _Payload(file)
        for piece in archive_pieces(members):
            payload.write(piece)
        payload.finish()
        header = _header(package, payload)
        file.seek(0)
        file.write(header.pack())
        confirm()
    return header


def _assert_readable(package: Package, members: list[RawMember]) -> None:
    """Assert before a byte is written what the reader will demand of neff.json and def.json."""
    header = _header(package, None)
    entries = {member.name: Entry(member.name, 0, data_bytes(member.data)) for member in members}
    graph = package.graph({})
    read_record(Graph, record_to_json(graph), GRAPH_MEMBER)
    broken = [*rules.broken_member_names(header, entries), *rules.broken_graph(graph, header, entries)]
    for number, subgraph in enumerate(package.subgraphs):
        definition, folder = subgraph.definition, subgraph_name(number)
        faults = [definition.fault(), *(variable.fault() for variable in definition.var.values())]
        broken += [(f"expected {fault}", folder) for fault in faults if fault]
        broken += rules.broken_definition(folder, definition, entries)
    assert not broken, f"{broken[0][1]}: {broken[0][0]}"


def archive_pieces(members: list[RawMember]) -> Iterator[Buffer]:
    """The tar of members, in their order, as a stream of pieces."""
    total = 0
    for member in members:
        size = data_bytes(member.data)
        front, padding = member_header(member.name, size), bytes(padding_bytes(size))
        yield front
        yield from data_pieces(member.data)
        yield padding
        total += len(front) + size + len(padding)
    yield archive_end(total)


class _Payload:
    """What follows the header: passes bytes on and keeps count and digest of what is stored."""

    pkg_version = PKG_SHA256

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.size = 0

    def write(self, piece: Buffer) -> None:
        self._store(piece)

    def finish(self) -> None:
        """Store what is still held back."""

    @property
    def sha256(self) -> bytes:
        return self._sha256.digest()

    @property
    def digest(self) -> bytes:
        """The 32 bytes for the header."""
        return self.sha256

    def _store(self, piece: Buffer) -> None:
        self._file.write(piece)
        self._sha256.update(piece)
        self.size += len(piece)


class _GzipPayload(_Payload):
    """The same, compressed: level 6, no time, no name, OS byte 255."""

    pkg_version = PKG_MD5

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc = 0
        self._unpacked_bytes = 0
        self._store(_GZIP_HEADER)

    def write(self, piece: Buffer) -> None:
        self._crc = zlib.crc32(piece, self._crc)
        self._unpacked_bytes += len(piece)
        self._store(self._deflate.compress(piece))

    def finish(self) -> None:
        self._store(self._deflate.flush())
        self._store(struct.pack("<II", self._crc, self._unpacked_bytes & 0xFFFFFFFF))

    @property
    def digest(self) -> bytes:
        return self._md5.digest() + bytes(16)

    def _store(self, piece: Buffer) -> None:
        super()._store(piece)
        self._md5.update(piece)


def _header(package: Package, payload: _Payload | None) -> Header:
    """What the package says of itself, and, once it is written, what the payload adds."""
    header = Header(
        data_size=0, digest=bytes(32), uuid=bytes(16), name=header_name(package.name),
        build_version=package.build_version, num_tpb=len(package.subgraphs), tpb_per_node=package.tpb_per_node,
        requested_tpb_count=package.requested_cores, feature_bits=package.feature_bits,
    )
    if payload is None:
        return header
    return replace(header, data_size=payload.size, digest=payload.digest, pkg_version=payload.pkg_version,
                   uuid=content_uuid(package.build_version, payload.sha256))


def content_uuid(build_version: str, payload_sha256: bytes) -> bytes:
    """A UUID of version 8 that equal files share: from the build version and the SHA-256 of the payload as stored."""
    uuid = bytearray(hashlib.sha256(b"\0".join((_UUID_SALT, build_version.encode(), payload_sha256))).digest()[:16])
    uuid[6] = uuid[6] & 0x0F | 0x80
    uuid[8] = uuid[8] & 0x3F | 0x80
    return bytes(uuid)
