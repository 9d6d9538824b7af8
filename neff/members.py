"""The JSON members of the container, a dataclass each; what a key means is said here, once.

`nxcc` fields carry what the compiler adds (weight recipe, arena, entry tables, semaphores, ...): any plain JSON
without floats; this package stores it and does not look inside. Sizes and offsets are bytes.
Source: NEFF reference, 7.2 and 7.3 (def.json and engine JSON documented; neff.json, kelf and debug map ours).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.neff.records import (
    BOOL,
    DTYPE,
    INT,
    NUMBER,
    OBJECT,
    TEXT,
    UINT,
    VALUE,
    Kind,
    Violation,
    array,
    choice,
    key,
    mapping,
    nullable,
    record,
    rest,
)

FORMAT = 1
GRAPH_VERSION = "nxcc-1"
KELF_VERSION = "0.5"
TOOL = "nxcc"

GRAPH_MEMBER = "neff.json"
INFO_MEMBER = "info.json"
STATISTICS_MEMBER = "hlo_stats.json"
METRICS_MEMBER = "metrics.json"
DEBUG_MEMBER = "debug_info/map.json"
TOP_MEMBERS = (GRAPH_MEMBER, INFO_MEMBER, STATISTICS_MEMBER, METRICS_MEMBER)

NEURON_CORE = "NeuronCore"
CPU = "CPU"

# Engine key -> stem of its files, in the order in which members are written.
ENGINES: Mapping[str, str] = {"pe": "PE", "act": "Activation", "dve": "DVE", "pool": "Pool", "sp": "SP"}
ENGINE_FLOAT_KEYS = frozenset(("scale", "constant"))

_INSTRUCTIONS = "_instr"


def subgraph_name(number: int) -> str:
    return f"sg{number:02d}"


def kelf_member(number: int) -> str:
    return f"kelf-{number}.json"


_SHAPE = array(UINT, at_most=64)


@dataclass(frozen=True, slots=True)
class InputTensor:
    """An input of the module or of a node.

    name: the value's name in the graph (`input0`, or the user's): a node's input is the module input or the earlier
    node's output of that name. var: the variable of the node's def.json that holds it (empty for a CPU node).
    role: `input`, `state` (aliased to an output) or `weight`; param: parameter number of the module, None for a value
    between nodes; hlo: name of the HLO instruction; framework: what the framework calls a weight, which is bound by it too.
    """

    name: str = key(TEXT)
    dtype: DType = key(DTYPE)
    shape: tuple[int, ...] = key(_SHAPE)
    size: int = key(UINT)
    var: str = key(TEXT, "", always=True)
    param: int | None = key(nullable(UINT), None, always=True)
    hlo: str = key(TEXT, "", always=True)
    role: str = key(choice("input", "state", "weight"), "input", always=True)
    framework: str = key(TEXT, "")

    def fault(self) -> str:
        return _size_fault(self.dtype, self.shape, self.size)


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """An output of the module or of a node. index: path in the result tuple, None for a value between nodes;
    alias_of: number of the parameter whose memory it takes, or None."""

    name: str = key(TEXT)
    dtype: DType = key(DTYPE)
    shape: tuple[int, ...] = key(_SHAPE)
    size: int = key(UINT)
    var: str = key(TEXT, "", always=True)
    index: tuple[int, ...] | None = key(nullable(array(UINT)), None, always=True)
    alias_of: int | None = key(nullable(UINT), None, always=True)

    def fault(self) -> str:
        return _size_fault(self.dtype, self.shape, self.size)


def tensor_bytes(dtype: DType, shape: tuple[int, ...]) -> int:
    """Bytes of a dense tensor; sub-byte elements take one each."""
    return prod(shape) * dtype.byte_size


def _size_fault(dtype: DType, shape: tuple[int, ...], size: int) -> str:
    expected = tensor_bytes(dtype, shape)
    return "" if size == expected else f"size {expected} for {dtype.numpy.name}{list(shape)}"


@dataclass(frozen=True, slots=True)
class HostConstant:
    """A large constant of a host module: the HLO instruction that it is, and the full name of the member (`host/...`)
    with its elements."""

    hlo: str = key(TEXT)
    file: str = key(TEXT)
    dtype: DType = key(DTYPE)
    shape: tuple[int, ...] = key(_SHAPE)


@dataclass(frozen=True, slots=True)
class Node:
    """A step of the graph; steps run in order of id.

    executor NeuronCore: kelf names the member that lists its subgraphs; several nodes may share one, each with the
    entry (a function of def.json's `nxcc`) that it starts, and the subgraph that has it (the kelf's first if it is empty).
    executor CPU: hlo names the member with its HLO text.
    """

    id: int = key(UINT)
    executor: str = key(choice(NEURON_CORE, CPU))
    name: str = key(TEXT)
    inputs: tuple[InputTensor, ...] = key(array(record(InputTensor)))
    outputs: tuple[OutputTensor, ...] = key(array(record(OutputTensor)))
    kelf: str = key(TEXT, "")
    entry: str = key(TEXT, "")
    subgraph: str = key(TEXT, "")
    hlo: str = key(TEXT, "")
    constants: tuple[HostConstant, ...] = key(array(record(HostConstant)), ())
    nxcc: dict[str, Any] = key(OBJECT, default_factory=dict)

    def fault(self) -> str:
        has_code = bool(self.kelf) if self.executor == NEURON_CORE else bool(self.hlo)
        return "" if has_code else "kelf of a NeuronCore node, hlo of a CPU node"


@dataclass(frozen=True, slots=True)
class Alias:
    """The output at this tuple path takes the memory of this parameter; kind as HLO has it."""

    output: tuple[int, ...] = key(array(UINT))
    param: int = key(UINT)
    kind: str = key(choice("must", "may"), "must", always=True)


@dataclass(frozen=True, slots=True)
class Provenance:
    """`nxcc` of neff.json: who wrote the file, for what, and the compiler's own additions (extra).

    hlo_sha256: of the module as read; members_sha256: hex digests by member, of all but neff.json itself and, in a
    file that is not compressed, raw constants (the payload's digest covers them).
    """

    format: int = key(UINT)
    compiler: str = key(TEXT)
    target: str = key(TEXT)
    encoding: str = key(TEXT)
    hlo_sha256: str = key(TEXT, "", always=True)
    options: dict[str, Any] = key(OBJECT, default_factory=dict, always=True)
    members_sha256: dict[str, str] = key(mapping(TEXT), default_factory=dict, always=True)
    extra: dict[str, Any] = rest(VALUE)


@dataclass(frozen=True, slots=True)
class Graph:
    """neff.json. inputs: in parameter order; outputs: flattened in tuple order."""

    version: str = key(TEXT)
    nodes: tuple[Node, ...] = key(array(record(Node)))
    inputs: tuple[InputTensor, ...] = key(array(record(InputTensor)))
    outputs: tuple[OutputTensor, ...] = key(array(record(OutputTensor)))
    nxcc: Provenance = key(record(Provenance))
    aliases: tuple[Alias, ...] = key(array(record(Alias)), (), always=True)


@dataclass(frozen=True, slots=True)
class Info:
    """info.json. tool_version is documented, the rest ours; flags: options as given, without paths."""

    tool_version: str = key(TEXT)
    tool: str = key(TEXT, "")
    target: str = key(TEXT, "")
    name: str = key(TEXT, "")
    flags: tuple[str, ...] = key(array(TEXT), (), always=True)


@dataclass(frozen=True, slots=True)
class Statistics:
    """hlo_stats.json: of the whole module, one call."""

    macs: int = key(UINT, 0, always=True)
    flops: int = key(UINT, 0, always=True)
    bytes_in: int = key(UINT, 0, always=True)
    bytes_out: int = key(UINT, 0, always=True)
    weights_bytes: int = key(UINT, 0, always=True)
    instructions: int = key(UINT, 0, always=True)


@dataclass(frozen=True, slots=True)
class KelfGraph:
    """One subgraph of a kelf node: its folder and its start file."""

    definition: str = key(TEXT)
    name: str = key(TEXT, "")


@dataclass(frozen=True, slots=True)
class Kelf:
    """kelf-N.json."""

    graphs: tuple[KelfGraph, ...] = key(array(record(KelfGraph)))
    version: str = key(TEXT, KELF_VERSION, always=True)


@dataclass(frozen=True, slots=True)
class QueueSet:
    """A set of DMA queues. owner: the engine key that triggers it; semaphore_set, semaphore: signal completion."""

    type: str = key(choice("in", "out", "data", "embedding_update", "dynamic"))
    num_queues: int = key(UINT, 1)
    owner: str = key(TEXT, "")
    pinned: bool = key(BOOL, False)
    queue_instances: tuple[str, ...] = key(array(TEXT), ())
    semaphore_set: tuple[int, ...] = key(array(UINT), ())
    semaphore: int | None = key(UINT, None)
    fabric_path: str = key(choice("main", "alt"), "main")
    nxcc: dict[str, Any] = key(OBJECT, default_factory=dict)


@dataclass(frozen=True, slots=True)
class Variable:
    """A piece of memory. file_name: only `file`; backing_variable_off: only `virtual`, offset in the shared scratch;
    referenced_var_id: only `pointer`; list: only `dge-table`."""

    type: str = key(choice("state-buffer", "input", "output", "file", "tmp-buf", "virtual", "pointer", "dge-table"))
    var_id: int = key(UINT)
    size: int | None = key(UINT, None)
    alignment: int = key(UINT, 0)
    fabric_path: str = key(TEXT, "main")
    file_name: str = key(TEXT, "")
    backing_variable_off: int | None = key(UINT, None)
    referenced_var_id: int | None = key(UINT, None)
    list: tuple[int, ...] | None = key(array(UINT), None)
    nxcc: dict[str, Any] = key(OBJECT, default_factory=dict)

    def fault(self) -> str:
        special = {"file": bool(self.file_name), "virtual": self.backing_variable_off is not None,
                   "pointer": self.referenced_var_id is not None, "dge-table": self.list is not None}
        faults = (
            (self.size is None and self.type != "state-buffer", "a size"),
            (self.alignment & (self.alignment - 1), "an alignment that is a power of two"),
            (any(given != (self.type == kind) for kind, given in special.items()), f"the keys of type {self.type}"),
        )
        return next((fault for is_so, fault in faults if is_so), "")


ENGINE_KEYS = frozenset(name + suffix for name in ENGINES for suffix in ("", _INSTRUCTIONS))


@dataclass(frozen=True, slots=True)
class Definition:
    """sgNN/def.json. engine_files: engine keys and `<key>_instr` to file names in the same folder."""

    dma_queue: dict[str, QueueSet] = key(mapping(record(QueueSet)), default_factory=dict, always=True)
    var: dict[str, Variable] = key(mapping(record(Variable)), default_factory=dict, always=True)
    name: str = key(TEXT, "definition", always=True)
    nxcc: dict[str, Any] = key(OBJECT, default_factory=dict)
    engine_files: dict[str, str] = rest(TEXT, ENGINE_KEYS)

    @property
    def engines(self) -> tuple[str, ...]:
        """Keys of the engines that have code, in the order of the engine table."""
        return tuple(name for name in ENGINES if name in self.engine_files)

    def json_file(self, engine: str) -> str:
        return self.engine_files[engine]

    def binary_file(self, engine: str) -> str:
        return self.engine_files[engine + _INSTRUCTIONS]

    def fault(self) -> str:
        """Which rule between queues, variables and engines is broken."""
        ids = {variable.var_id for variable in self.var.values()}
        pointers = {row.referenced_var_id for row in self.var.values() if row.referenced_var_id is not None}
        lonely = [name for name in ENGINES if (name in self.engine_files) != (name + _INSTRUCTIONS in self.engine_files)]
        faults = (
            (len(ids) < len(self.var), "a different var_id for each variable"),
            (pointers - ids, f"variables for referenced_var_id {sorted(pointers - ids)}"),
            (lonely, f"both files of engine {lonely}"),
        )
        return next((fault for is_so, fault in faults if is_so), "")


def engine_files(engines: tuple[str, ...]) -> dict[str, str]:
    """The engine keys of def.json for engines with code, with the file names that we write."""
    assert set(engines) <= set(ENGINES), f"no such engine among {engines}"
    found = {name: f"{ENGINES[name]}.json" for name in engines}
    return found | {name + _INSTRUCTIONS: f"{ENGINES[name]}.bin" for name in engines}


_TRANSFER_DTYPES = choice(
    "float8e3", "float8e4", "float8e5", "float16", "float32", "float32r", "bfloat16",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
_MAX_DIMENSIONS = 4
_MAX_SOURCES = 16


@dataclass(frozen=True, slots=True)
class Source:
    """One source of a computing transfer; fields as in Transfer."""

    source: str = key(TEXT, name="from")
    from_off: int = key(INT, 0)
    from_steps: tuple[int, ...] = key(array(INT, _MAX_DIMENSIONS), ())
    from_sizes: tuple[int, ...] = key(array(UINT, _MAX_DIMENSIONS), ())
    from_dtype: str = key(_TRANSFER_DTYPES, "uint8")

    def fault(self) -> str:
        return "" if len(self.from_steps) == len(self.from_sizes) else "from_steps as long as from_sizes"


@dataclass(frozen=True, slots=True)
class Transfer:
    """A `desc`: bytes moved from one variable to another.

    steps: bytes, the fastest dimension first; sizes: the first in bytes, the others counts. An offset is below zero where a
    register adds to it: the machine verifier looks at where a transfer goes in the end.
    """

    to: str = key(TEXT)
    op: str = key(choice("fma", "cast", "add", "min", "max", "transpose", "copy"), "copy")
    source: str = key(TEXT, "", name="from")
    from_off: int = key(INT, 0)
    to_off: int = key(INT, 0)
    from_steps: tuple[int, ...] = key(array(INT, _MAX_DIMENSIONS), ())
    to_steps: tuple[int, ...] = key(array(INT, _MAX_DIMENSIONS), ())
    from_sizes: tuple[int, ...] = key(array(UINT, _MAX_DIMENSIONS), ())
    to_sizes: tuple[int, ...] = key(array(UINT, _MAX_DIMENSIONS), ())
    from_dtype: str = key(_TRANSFER_DTYPES, "uint8")
    to_dtype: str = key(_TRANSFER_DTYPES, "uint8")
    num_tiling_dimensions: int | None = key(UINT, None)
    from_arr: tuple[Source, ...] = key(array(record(Source), _MAX_SOURCES), ())
    scale_dtype: str = key(choice("float32"), "float32")
    scale: float = key(NUMBER, 1.0)
    constant_dtype: str = key(choice("float32", "int32", "uint32"), "float32")
    constant: float | None = key(NUMBER, None)
    transpose_shape: tuple[int, ...] = key(array(UINT, _MAX_DIMENSIONS), ())
    transpose_element_size: int | None = key(UINT, None)
    nxcc: dict[str, Any] = key(OBJECT, default_factory=dict)

    def fault(self) -> str:
        faults = (
            (bool(self.source) == bool(self.from_arr), "either from or from_arr"),
            (len(self.from_steps) != len(self.from_sizes), "from_steps as long as from_sizes"),
            (len(self.to_steps) != len(self.to_sizes), "to_steps as long as to_sizes"),
        )
        return next((fault for is_so, fault in faults if is_so), "")

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of all variables that it touches."""
        return (self.to, self.source) if self.source else (self.to, *(part.source for part in self.from_arr))


def _one_or_more(kind: Kind) -> Kind:
    """An array, as files have it, or a single object, as the document has it."""
    many = array(kind)

    def read(value: Any, strict: bool) -> tuple[Any, ...]:
        found: tuple[Any, ...] = (kind.read(value, strict),) if type(value) is dict else many.read(value, strict)
        if not found:
            raise Violation("at least one transfer", value)
        return found

    return Kind(read, many.write)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An element of `dma`: transfers that one trigger in the engine binary starts."""

    id: int = key(UINT)
    desc: tuple[Transfer, ...] = key(_one_or_more(record(Transfer)))
    queue: str = key(TEXT, "")
    instance_name: str = key(TEXT, "")
    function_start: str = key(TEXT, "")
    section_start_desc: bool = key(BOOL, False)
    event: int | None = key(UINT, None)
    semaphore: int | None = key(UINT, None)
    remote_semaphores: tuple[int, ...] = key(array(UINT), ())
    nxcc: dict[str, Any] = key(OBJECT, default_factory=dict)

    def fault(self) -> str:
        return "" if self.queue or self.instance_name else "queue or instance_name"


@dataclass(frozen=True, slots=True)
class EngineExtras:
    """sgNN/<engine>.json: its DMA descriptors, and tables of single engines."""

    dma: tuple[Descriptor, ...] = key(array(record(Descriptor)), (), always=True)
    instr: tuple[Any, ...] = key(array(VALUE), ())
    activation_function_sets: tuple[str, ...] = key(array(TEXT), ())
    dve_tables: tuple[dict[str, Any], ...] = key(array(OBJECT), ())
    nxcc: dict[str, Any] = key(OBJECT, default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """An HLO instruction as messages name it. op: framework operator; source: file and line; layer: scope."""

    name: str = key(TEXT)
    op: str = key(TEXT, "")
    source: str = key(TEXT, "")
    layer: str = key(TEXT, "")


@dataclass(frozen=True, slots=True)
class InstructionRange:
    """Machine instructions first to last (included) of an engine's stream come from entry hlo of the map.

    In JSON an array [engine, first, last, hlo]; engine is `pe` in the first subgraph and `sg01/pe` in others. A call in a loop
    of so many turns that comes from another entry each turn, `step` further: [engine, first, last, hlo, step, turns].
    """

    engine: str
    first: int
    last: int
    hlo: int
    step: int = 0
    turns: int = 1

    @property
    def indices(self) -> range:
        """Where in `hlo` of the map it points to, turn by turn."""
        return range(self.hlo, self.hlo + self.step * self.turns, self.step) if self.step else range(self.hlo, self.hlo + 1)


def _read_range(value: Any, strict: bool) -> InstructionRange:
    is_text_and_counts = type(value) is list and [type(item) for item in value] in ([str, *[int] * n] for n in (3, 5))
    if not is_text_and_counts or not 0 <= value[1] <= value[2] or value[3] < 0 or any(item < 1 for item in value[4:]):
        raise Violation("[engine, first, last, hlo] or [engine, first, last, hlo, step, turns]", value)
    return InstructionRange(*value)


def _write_range(value: InstructionRange) -> list[Any]:
    row = [value.engine, value.first, value.last, value.hlo]
    return [*row, value.step, value.turns] if value.step else row


_RANGE = Kind(_read_range, _write_range)


@dataclass(frozen=True, slots=True)
class DebugMap:
    """debug_info/map.json: which HLO instruction each machine instruction comes from."""

    hlo: tuple[SourceEntry, ...] = key(array(record(SourceEntry)))
    ranges: tuple[InstructionRange, ...] = key(array(_RANGE))

    def fault(self) -> str:
        beyond = [row for row in self.ranges if row.indices[-1] >= len(self.hlo)]
        return f"an hlo index below {len(self.hlo)}" if beyond else ""
