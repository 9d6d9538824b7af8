"""Open a NEFF: mapped, nothing trusted, members as views of the map.

A file of ours (feature bit 62) is checked against every rule of the container before `open_neff` returns, except for
engine JSON, which is parsed and checked when asked for (or by `Neff.check_engines`). A vendor's file opens with
`info_only` set: header, members and what can be understood of its definitions.
Source: NEFF reference, sections 7.1 to 7.4.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nxcc.ir.diagnostics import (
    EMPTY_INPUT,
    FILE_UNWRITABLE,
    NEFF_INVALID,
    NEFF_TARGET,
    NEFF_VERSION,
    CompileError,
)
from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.ir.files import map_file, mapped
from nxcc.neff import rules
from nxcc.neff.archive import Entry, read_archive
from nxcc.neff.canonical_json import load_json
from nxcc.neff.header import HEADER_BYTES, Header, check_own_header, unpack_header
from nxcc.neff.members import (
    DEBUG_MEMBER,
    FORMAT,
    GRAPH_MEMBER,
    GRAPH_VERSION,
    INFO_MEMBER,
    STATISTICS_MEMBER,
    DebugMap,
    Definition,
    EngineExtras,
    Graph,
    Info,
    Kelf,
    Node,
    Statistics,
    kelf_member,
    subgraph_name,
    tensor_bytes,
)
from nxcc.neff.records import T, read_record

MIN_BYTES = 2 * HEADER_BYTES
MAX_UNPACKED_BYTES = 64 << 30

_GZIP_MAGIC = b"\x1f\x8b"
_TAR_MAGIC = b"ustar"
_TAR_MAGIC_OFFSET = 257
_PIECE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Neff:
    """An opened file. Views stay valid as long as anything refers to them; the file may be replaced meanwhile.

    members: by name in archive order, offsets from the start of the (unpacked) archive.
    graph, info, statistics, kelfs: None or empty in a vendor's file. subgraphs: in the order of their cores.
    warnings: oddities that do not forbid reading.
    """

    path: str
    header: Header
    members: Mapping[str, Entry]
    payload: memoryview
    graph: Graph | None
    info: Info | None
    statistics: Statistics | None
    kelfs: tuple[Kelf, ...]
    subgraphs: tuple[LoadedSubgraph, ...]
    warnings: tuple[str, ...] = ()

    @property
    def info_only(self) -> bool:
        """Whether the file is a vendor's: to be shown, not to be run."""
        return not self.header.is_ours

    def core(self, node: Node) -> int:
        """The number of the subgraph that runs a device node."""
        names = [subgraph.name for subgraph in self.subgraphs]
        if node.subgraph:
            return names.index(node.subgraph)
        numbers = [kelf_member(number) for number in range(len(self.kelfs))]
        return names.index(self.kelfs[numbers.index(node.kelf)].graphs[0].name)

    def data(self, name: str) -> memoryview:
        """The bytes of a member, not copied; NEFF_INVALID if there is none."""
        return _member(self.members, self.payload, name, self.path)

    def json(self, name: str) -> dict[str, Any]:
        """A member as a plain JSON object."""
        return load_json(self.data(name), f"{self.path}: {name}")

    def text(self, name: str) -> str:
        """A member as UTF-8 text, such as `host/1.hlo`."""
        try:
            return bytes(self.data(name)).decode()
        except UnicodeDecodeError as error:
            raise CompileError(NEFF_INVALID, "member is not UTF-8 text", f"{self.path}: {name}",
                               why=str(error)) from None

    def array(self, name: str, dtype: DType, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """A raw member as a read-only array over the map; NEFF_INVALID if its size is another."""
        data = self.data(name)
        if len(data) != tensor_bytes(dtype, shape):
            raise CompileError(NEFF_INVALID, f"member of {len(data)} bytes is no {dtype}{list(shape)}",
                               f"{self.path}: {name}")
        return np.frombuffer(data, dtype=dtype.numpy).reshape(shape)

    def debug_map(self) -> DebugMap | None:
        """The debug map, parsed at each call; None if the file was stripped."""
        if DEBUG_MEMBER not in self.members:
            return None
        return read_record(DebugMap, self.json(DEBUG_MEMBER), f"{self.path}: {DEBUG_MEMBER}", not self.info_only)

    def require_runnable(self, target: str | None = None) -> Graph:
        """The graph of a file that can be run, on this target if one is given.

        NEFF_VERSION for a vendor's file, NEFF_TARGET for another target.
        """
        if self.graph is None:
            raise CompileError(NEFF_VERSION, "the engine code is not in the nxcc encoding", self.path,
                               why="another compiler wrote it (feature bit 62 is clear)",
                               remedy="`nxcc info` shows what is in it")
        if target is not None and self.graph.nxcc.target != target:
            raise CompileError(NEFF_TARGET, f"compiled for {self.graph.nxcc.target}, not for {target}", self.path,
                               remedy=f"compile the model with --target {target}")
        return self.graph

    def check_engines(self) -> None:
        """Parse and check the JSON of every engine."""
        for subgraph in self.subgraphs:
            for engine in subgraph.definition.engines:
                subgraph.engine_json(engine)

    def extract(self, folder: str | os.PathLike[str]) -> None:
        """Write all members under a folder that is new or empty, all or none; FILE_UNWRITABLE otherwise."""
        root = os.path.abspath(folder)
        unfinished = f"{root}.{secrets.token_hex(8)}.tmp"
        try:
            if os.path.isdir(root) and os.listdir(root):
                raise CompileError(FILE_UNWRITABLE, f"cannot extract to {os.fspath(folder)}", why="the folder is not empty")
            os.makedirs(unfinished)
            for name in self.members:
                path = os.path.join(unfinished, *name.split("/"))
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "xb") as file:
                    file.write(self.data(name))
            os.rename(unfinished, root)
        except OSError as error:
            raise CompileError(FILE_UNWRITABLE, f"cannot extract to {os.fspath(folder)}",
                               why=error.strerror or str(error), remedy="choose another place, or make room") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedSubgraph:
    """A subgraph of an opened file: what a simulator needs, as plain objects and views. name: `sg00`."""

    name: str
    definition: Definition
    path: str
    members: Mapping[str, Entry]
    payload: memoryview
    strict: bool = True

    @property
    def engines(self) -> tuple[str, ...]:
        """Engine keys with code, in the order of the engine table."""
        return self.definition.engines

    def file(self, file_name: str) -> memoryview:
        """The bytes of a file of the folder, such as the `file_name` of a variable."""
        return _member(self.members, self.payload, f"{self.name}/{file_name}", self.path)

    def engine_binary(self, engine: str) -> memoryview:
        return self.file(self.definition.binary_file(engine))

    def engine_extras(self, engine: str) -> EngineExtras:
        """The engine's JSON as records; NEFF_INVALID if it breaks a rule of its own or names what def.json has not."""
        return _engine_extras(self, engine)[1]

    def engine_json(self, engine: str) -> dict[str, Any]:
        """The engine's JSON as the plain object that was written, after the same checks."""
        return _engine_extras(self, engine)[0]


def _engine_extras(subgraph: LoadedSubgraph, engine: str) -> tuple[dict[str, Any], EngineExtras]:
    member = f"{subgraph.name}/{subgraph.definition.json_file(engine)}"
    where = f"{subgraph.path}: {member}"
    plain = load_json(_member(subgraph.members, subgraph.payload, member, subgraph.path), where)
    extras = read_record(EngineExtras, plain, where, subgraph.strict)
    if subgraph.strict:
        _refuse_broken(rules.broken_engine(member, extras, subgraph.definition), subgraph.path)
    return plain, extras


def is_neff(path: str | os.PathLike[str]) -> bool:
    """Whether a file looks like a NEFF by its first bytes and its size; False for what cannot be read."""
    try:
        data = map_file(os.fspath(path))
    except CompileError:
        return False
    return _looks_like_neff(bytes(data[:MIN_BYTES]), len(data))


def _looks_like_neff(start: bytes, size: int) -> bool:
    if len(start) < MIN_BYTES:
        return False
    words = [int.from_bytes(start[offset:offset + 8], "little") for offset in (0, 8, 16)]
    return words[0] in (1, 2) and words[1] == HEADER_BYTES and words[2] == size - HEADER_BYTES and (
        _is_gzip(start[HEADER_BYTES:]) or start[HEADER_BYTES + _TAR_MAGIC_OFFSET:].startswith(_TAR_MAGIC))


def _is_gzip(payload: bytes | memoryview) -> bool:
    return bytes(payload[:2]) == _GZIP_MAGIC


def open_neff(path: str | os.PathLike[str], verify_hash: bool = True) -> Neff:
    """Map and check a file.

    verify_hash: also compare the payload with its digest and members with theirs, which reads every byte.
    Raises CompileError: FILE_UNREADABLE, EMPTY_INPUT, NEFF_VERSION (newer version, unknown feature bit), or
    NEFF_INVALID with the broken rule and the member or offset.
    """
    name = os.fspath(path)
    return read_neff(map_file(name), name, verify_hash)


def read_neff(data: bytes | memoryview, path: str, verify_hash: bool = True) -> Neff:
    """The same over bytes in memory; path only names them in messages."""
    view = memoryview(data).toreadonly()
    if not view:
        raise CompileError(EMPTY_INPUT, "the file holds no bytes", path)
    header = unpack_header(view, path)
    stored = view[HEADER_BYTES:]
    if header.data_size != len(stored):
        raise CompileError(NEFF_INVALID, f"data_size is {header.data_size}, but {len(stored)} bytes follow the header",
                           f"{path}: offset 0x10", why="the file is truncated or was appended to")
    if header.is_ours:
        check_own_header(header, path)
    if verify_hash:
        _verify_digest(header, stored, path)
    payload = _unpack(stored, path) if _is_gzip(stored) else stored
    members = read_archive(payload, path)
    if not header.is_ours:
        return _vendor_neff(path, header, members, payload)
    neff = _own_neff(path, header, members, payload)
    if verify_hash:
        _verify_members(neff)
    return neff


def _verify_digest(header: Header, stored: memoryview, path: str) -> None:
    digest = hashlib.new(header.digest_name, usedforsecurity=False)
    for offset in range(0, len(stored), _PIECE_BYTES):
        digest.update(stored[offset:offset + _PIECE_BYTES])
    if digest.digest().ljust(len(header.digest), b"\0") != header.digest:
        raise CompileError(NEFF_INVALID, f"the payload's {header.digest_name} is not the one in the header",
                           f"{path}: offset 0xac", why="the file is damaged")


def _unpack(stored: memoryview, path: str) -> memoryview:
    """Unpack one gzip stream into a nameless temporary file and map that; bounded, and nothing may follow it."""
    try:
        with tempfile.TemporaryFile() as file:
            for piece in _inflate(stored, path):
                file.write(piece)
            file.flush()
            return mapped(file)
    except OSError as error:
        raise CompileError(FILE_UNWRITABLE, "cannot unpack the archive", path, why=error.strerror or str(error),
                           remedy="set TMPDIR to a folder with room") from error


def _inflate(stored: memoryview, path: str) -> Iterator[bytes]:
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
    total, offset, pending = 0, 0, b""
    while not inflate.eof:
        if not pending:
            pending = bytes(stored[offset:offset + _PIECE_BYTES])
            offset += len(pending)
        try:
            piece = inflate.decompress(pending, _PIECE_BYTES)
        except zlib.error as error:
            raise CompileError(NEFF_INVALID, "gzip data is damaged", path, why=str(error)) from None
        total += len(piece)
        if total > MAX_UNPACKED_BYTES:
            raise CompileError(NEFF_INVALID, f"archive unpacks to more than {MAX_UNPACKED_BYTES} bytes", path)
        if not (piece or pending or inflate.eof):
            raise CompileError(NEFF_INVALID, "gzip data ends early", path)
        pending = inflate.unconsumed_tail
        yield piece
    if inflate.unused_data or offset != len(stored):
        raise CompileError(NEFF_INVALID, "bytes follow the gzip data", path)


def _own_neff(path: str, header: Header, members: Mapping[str, Entry], payload: memoryview) -> Neff:
    """Parse and cross-check everything but engine JSON, cheap rules first."""

    def parse(cls: type[T], name: str) -> T:
        where = f"{path}: {name}"
        return read_record(cls, load_json(_member(members, payload, name, path), where), where)

    _refuse_broken(rules.broken_member_names(header, members), path)
    plain = load_json(_member(members, payload, GRAPH_MEMBER, path), f"{path}: {GRAPH_MEMBER}")
    _check_format(plain, f"{path}: {GRAPH_MEMBER}")
    graph = read_record(Graph, plain, f"{path}: {GRAPH_MEMBER}")
    _refuse_broken(rules.broken_graph(graph, header, members), path)
    kelfs = tuple(parse(Kelf, kelf_member(number)) for number in range(len(header.tpb_per_node)))
    _refuse_broken(rules.broken_kelfs(header, kelfs), path)
    _refuse_broken(rules.broken_cores(graph, kelfs), path)
    subgraphs = []
    for number in range(header.num_tpb):
        name = subgraph_name(number)
        definition = parse(Definition, f"{name}/def.json")
        _refuse_broken(rules.broken_definition(name, definition, members), path)
        subgraphs.append(LoadedSubgraph(name, definition, path, members, payload))
    return Neff(path, header, members, payload, graph, parse(Info, INFO_MEMBER), parse(Statistics, STATISTICS_MEMBER),
                kelfs, tuple(subgraphs))


def _check_format(graph: dict[str, Any], where: str) -> None:
    """Versions first, so that a newer file is called newer and not broken."""
    additions = graph.get("nxcc")
    found = (graph.get("version"), additions.get("format") if type(additions) is dict else None)
    if found != (GRAPH_VERSION, FORMAT):
        raise CompileError(NEFF_VERSION, f"graph of version {found[0]!r}, format {found[1]!r}", where,
                           why=f"this nxcc reads {GRAPH_VERSION!r}, format {FORMAT}",
                           remedy="compile the model again with this version")


def _vendor_neff(path: str, header: Header, members: Mapping[str, Entry], payload: memoryview) -> Neff:
    """What can be understood of a file by another compiler; what cannot becomes a warning."""
    warnings = [] if header.is_padding_zero else ["header padding is not zero"]
    subgraphs = []
    for name in sorted(name.removesuffix("/def.json") for name in members if name.endswith("/def.json")):
        where = f"{path}: {name}/def.json"
        try:
            plain = load_json(_member(members, payload, f"{name}/def.json", path), where)
            definition = read_record(Definition, plain, where, strict=False)
        except CompileError as error:
            warnings.append(str(error))
            continue
        subgraphs.append(LoadedSubgraph(name, definition, path, members, payload, strict=False))
    return Neff(path, header, members, payload, None, None, None, (), tuple(subgraphs), tuple(warnings))


def _verify_members(neff: Neff) -> None:
    assert neff.graph is not None
    for name, expected in neff.graph.nxcc.members_sha256.items():
        if hashlib.sha256(neff.data(name)).hexdigest() != expected:
            raise CompileError(NEFF_INVALID, "member's SHA-256 is not the one in neff.json", f"{neff.path}: {name}")


def _member(members: Mapping[str, Entry], payload: memoryview, name: str, path: str) -> memoryview:
    entry = members.get(name)
    if entry is None:
        raise CompileError(NEFF_INVALID, "member is missing", f"{path}: {name}")
    return payload[entry.offset:entry.offset + entry.size]


def _refuse_broken(broken: rules.Broken, path: str) -> None:
    for what, member in broken:
        raise CompileError(NEFF_INVALID, what, f"{path}: {member}")
