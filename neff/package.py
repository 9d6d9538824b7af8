"""What goes into a NEFF, as the compiler hands it over, and the list of members that this becomes.

Decides names, order and JSON of the members (NEFF reference, 7.2, 7.3, 7.5); how bytes get into the file is the
writer's business. Nothing here holds the elements of a constant: they stay where the caller has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from typing import Any

import numpy as np

from nxcc.ir.facts import dataclass
from nxcc.neff.canonical_json import dump_json
from nxcc.neff.header import FEATURE_HOST_REGIONS, FEATURE_NXCC_ENCODING
from nxcc.neff.members import (
    CPU,
    DEBUG_MEMBER,
    ENGINE_FLOAT_KEYS,
    ENGINES,
    FORMAT,
    GRAPH_MEMBER,
    GRAPH_VERSION,
    INFO_MEMBER,
    METRICS_MEMBER,
    STATISTICS_MEMBER,
    TOOL,
    Alias,
    DebugMap,
    Definition,
    Graph,
    Info,
    InputTensor,
    Kelf,
    KelfGraph,
    Node,
    OutputTensor,
    Provenance,
    QueueSet,
    Statistics,
    Variable,
    engine_files,
    kelf_member,
    subgraph_name,
)
from nxcc.neff.records import record_to_json

Buffer = bytes | bytearray | memoryview

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Chunks:
    """Data made on the fly: its size in bytes, and a function that starts it from the beginning each time."""

    size: int
    start: Callable[[], Iterable[Buffer]]


RawData = Buffer | np.ndarray[Any, Any] | Chunks


@dataclass(frozen=True, slots=True)
class RawMember:
    """A member of raw bytes. name: relative to the folder that holds it; arrays are written little-endian in C order,
    whatever their strides (a broadcast array costs no memory)."""

    name: str
    data: RawData


@dataclass(frozen=True, slots=True)
class EngineCode:
    """One engine of a subgraph. extras: its JSON, a plain object with the keys of `EngineExtras`; binary: its stream."""

    extras: dict[str, Any]
    binary: Buffer


@dataclass(frozen=True, slots=True)
class Subgraph:
    """A device program. engines: by engine key (`ENGINES`), only those with code; files: constants, named as the
    `file_name` of their variables, whose size must be the file's. kelf: number of the kelf node it belongs to."""

    variables: Mapping[str, Variable] = field(default_factory=dict)
    dma_queues: Mapping[str, QueueSet] = field(default_factory=dict)
    engines: Mapping[str, EngineCode] = field(default_factory=dict)
    files: tuple[RawMember, ...] = ()
    kelf: int = 0
    nxcc: dict[str, Any] = field(default_factory=dict)

    @property
    def definition(self) -> Definition:
        names = tuple(name for name in ENGINES if name in self.engines)
        assert len(names) == len(self.engines), f"no such engine among {list(self.engines)}"
        return Definition(dict(self.dma_queues), dict(self.variables), nxcc=self.nxcc,
                          engine_files=engine_files(names))


@dataclass(frozen=True, slots=True)
class HostModule:
    """HLO text kept in the file as `host/<name>.hlo`, and large constants as raw members named from `host/`."""

    name: str
    text: str
    files: tuple[RawMember, ...] = ()


@dataclass(frozen=True, slots=True)
class Package:
    """Everything that a NEFF of ours says; equal packages give equal bytes.

    name: of the HLO module; version: of nxcc (`0.1.0`); nodes: in the order in which they run; subgraphs: at least one
    (one without engines if the whole module runs on the host); nxcc: additions to neff.json's `nxcc`;
    metrics: phase times, only on demand because they differ from run to run; debug_map: None to strip.
    """

    name: str
    target: str
    version: str
    nodes: tuple[Node, ...]
    inputs: tuple[InputTensor, ...]
    outputs: tuple[OutputTensor, ...]
    subgraphs: tuple[Subgraph, ...]
    host_modules: tuple[HostModule, ...] = ()
    aliases: tuple[Alias, ...] = ()
    requested_cores: int = 1
    encoding: str = "nxcc-isa-1"
    hlo_sha256: str = ""
    flags: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=Statistics)
    metrics: dict[str, Any] | None = None
    debug_map: DebugMap | None = None
    nxcc: dict[str, Any] = field(default_factory=dict)

    @property
    def build_version(self) -> str:
        return f"{TOOL} {self.version}"

    @property
    def feature_bits(self) -> int:
        has_host_regions = any(node.executor == CPU for node in self.nodes)
        return FEATURE_NXCC_ENCODING | (FEATURE_HOST_REGIONS if has_host_regions else 0)

    @property
    def tpb_per_node(self) -> tuple[int, ...]:
        """Subgraphs of each kelf node."""
        kelfs = [subgraph.kelf for subgraph in self.subgraphs]
        counts = tuple(kelfs.count(number) for number in range(max(kelfs) + 1))
        assert all(counts), "kelf nodes are numbered without gaps"
        return counts

    def graph(self, members_sha256: dict[str, str]) -> Graph:
        return Graph(
            version=GRAPH_VERSION, nodes=self.nodes, inputs=self.inputs, outputs=self.outputs, aliases=self.aliases,
            nxcc=Provenance(FORMAT, self.build_version, self.target, self.encoding, self.hlo_sha256, self.options,
                            members_sha256, self.nxcc),
        )


def package_members(package: Package, hash_constants: bool) -> list[RawMember]:
    """All members with their full names, in the order of the file; neff.json holds the digests of the others.

    hash_constants: whether raw constants get a digest of their own, which reads them once more.
    """
    head = _head_members(package)
    small = list(head)
    raw: list[RawMember] = []
    body: list[RawMember] = []
    for number, subgraph in enumerate(package.subgraphs):
        code, constants = _subgraph_members(subgraph_name(number), subgraph)
        small += code
        raw += constants
        body += code + constants
    for module in package.host_modules:
        text = RawMember(f"host/{module.name}.hlo", module.text.encode())
        files = [RawMember(f"host/{file.name}", file.data) for file in module.files]
        small.append(text)
        raw += files
        body += [text, *files]
    tail = []
    if package.debug_map is not None:
        tail = [RawMember(DEBUG_MEMBER, dump_json(record_to_json(package.debug_map)))]
    hashed = small + tail + (raw if hash_constants else [])
    digests = {member.name: _sha256(member.data) for member in hashed}
    graph = RawMember(GRAPH_MEMBER, dump_json(record_to_json(package.graph(digests))))
    members = [graph, *head, *body, *tail]
    assert len({member.name for member in members}) == len(members), "two members with one name"
    return members


def _head_members(package: Package) -> list[RawMember]:
    """The members between neff.json and the first subgraph."""
    info = Info(package.version, TOOL, package.target, package.name, package.flags)
    found = [(INFO_MEMBER, record_to_json(info)), (STATISTICS_MEMBER, record_to_json(package.statistics))]
    if package.metrics is not None:
        found.append((METRICS_MEMBER, package.metrics))
    for kelf in range(len(package.tpb_per_node)):
        names = [subgraph_name(number) for number, row in enumerate(package.subgraphs) if row.kelf == kelf]
        graphs = tuple(KelfGraph(f"{name}/def.json", name) for name in names)
        found.append((kelf_member(kelf), record_to_json(Kelf(graphs))))
    return [RawMember(name, dump_json(value)) for name, value in found]


def _subgraph_members(folder: str, subgraph: Subgraph) -> tuple[list[RawMember], list[RawMember]]:
    """def.json, engine JSON, engine streams; and the constants by their first variable."""
    definition = subgraph.definition
    code = [RawMember(f"{folder}/def.json", dump_json(record_to_json(definition)))]
    code += [RawMember(f"{folder}/{definition.json_file(name)}",
                       dump_json(subgraph.engines[name].extras, ENGINE_FLOAT_KEYS)) for name in definition.engines]
    code += [RawMember(f"{folder}/{definition.binary_file(name)}", subgraph.engines[name].binary)
             for name in definition.engines]
    order: dict[str, int] = {}
    for variable in sorted(subgraph.variables.values(), key=lambda row: row.var_id):
        order.setdefault(variable.file_name, variable.var_id)
    files = sorted(subgraph.files, key=lambda file: (file.name not in order, order.get(file.name, 0), file.name))
    return code, [RawMember(f"{folder}/{file.name}", file.data) for file in files]


def data_bytes(data: RawData) -> int:
    """Size of a member's data."""
    if isinstance(data, Chunks):
        return data.size
    return data.nbytes if isinstance(data, np.ndarray | memoryview) else len(data)


def data_pieces(data: RawData) -> Iterator[Buffer]:
    """The bytes of a member in pieces that stay in the cache between digest and file, without a copy of the whole."""
    if isinstance(data, Chunks):
        written = 0
        for chunk in data.start():
            piece = memoryview(chunk).cast("B")
            written += len(piece)
            yield piece
        assert written == data.size, f"{written} bytes of data announced as {data.size}"
    elif isinstance(data, np.ndarray):
        yield from _array_pieces(data)
    else:
        view = memoryview(data).cast("B")
        for offset in range(0, len(view), _PIECE_BYTES):
            yield view[offset:offset + _PIECE_BYTES]


def _array_pieces(array: np.ndarray[Any, Any]) -> Iterator[Buffer]:
    assert array.dtype.byteorder != ">" and not array.dtype.hasobject, "members are little-endian numbers"
    if array.flags.c_contiguous:
        yield from data_pieces(array.reshape(-1).view(np.uint8).data)
        return
    elements = max(1, _PIECE_BYTES // array.itemsize)
    walk = np.nditer(array, flags=["external_loop", "buffered", "zerosize_ok"], order="C", buffersize=elements)
    for piece in walk:
        yield np.ascontiguousarray(piece).view(np.uint8).data


def _sha256(data: RawData) -> str:
    digest = hashlib.sha256()
    for piece in data_pieces(data):
        digest.update(piece)
    return digest.hexdigest()
