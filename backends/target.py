"""What is known about a target: one TOML file a NeuronCore generation, read into a tree of frozen dataclasses.

Every leaf of the file is `{ value, status, source }`; the tree holds the bare values, `Target.facts` where each is from.
Nothing here decides anything: legality lives in the machine verifier, times in the cost model.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import field
from importlib import resources
from typing import Any

from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.targets import ALIASES
from nxcc.ir.diagnostics import USAGE, CompileError, one_of
from nxcc.ir.dtypes import DType, dtype
from nxcc.ir.facts import dataclass


class Status(enum.Enum):
    """How far a fact can be trusted."""

    DOCUMENTED = "documented"
    MEASURED = "measured"
    DERIVED = "derived"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Fact:
    """A value with its provenance, for `explain` and the documentation."""

    value: Any
    status: Status
    source: str


@dataclass(frozen=True, slots=True)
class StartRule:
    """Operands of at most `partitions_max` partitions may start at these partitions."""

    partitions_max: int
    starts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PatternLimits:
    """Limits of an access pattern: free dimensions, size of one, stride in elements (both ends inclusive)."""

    dims_max: int
    size_max: int
    stride_min: int
    stride_max: int


@dataclass(frozen=True, slots=True)
class SbufFacts:
    """State buffer; bytes are those of one partition, the reserved ones lie at its end."""

    partition_bytes: int
    reserved_bytes: int
    align_bytes: int
    operand_elements_max: int

    @property
    def usable_bytes(self) -> int:
        """Bytes of a partition that programs may use."""
        return self.partition_bytes - self.reserved_bytes


@dataclass(frozen=True, slots=True)
class PsumFacts:
    """Accumulation buffer; bytes are those of one partition."""

    partition_bytes: int
    banks: int
    bank_bytes: int
    align_bytes: int
    operand_elements_max: int


@dataclass(frozen=True, slots=True)
class HbmFacts:
    """Device memory: the share of one core, and the bandwidth of its share and of the whole chip."""

    bytes: int
    align_bytes: int
    share_bytes_per_second: int
    chip_bytes_per_second: int


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """One engine.

    initiation_cycles: least time between the starts of two instructions; start_cycles: added to every instruction;
    static_overhead_cycles, write_to_read_cycles: added before a dependent instruction can start.
    excludes: memory name -> engines that cannot access it at the same time.
    member: stem of the engine's files in a NEFF; definition_key: its key in def.json.
    """

    clock_hz: int
    lanes: int
    initiation_cycles: int
    start_cycles: int
    static_overhead_cycles: int
    write_to_read_cycles: int
    reads: tuple[Memory, ...]
    writes: tuple[Memory, ...]
    dtypes: tuple[DType, ...]
    excludes: Mapping[Memory, tuple[Engine, ...]]
    member: str
    definition_key: str


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """The systolic array. passes: times that data of a dtype (or "tf32") run through it; one of N columns takes
    pass_factor * N + pass_overhead_cycles. accumulators: dtypes of sums, besides those that the engine reads."""

    rows: int
    columns: int
    moving_max: int
    stationary_max: int
    transpose_max: int
    pass_factor: float
    pass_overhead_cycles: int
    accumulators: tuple[DType, ...]
    passes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MemoryCosts:
    """A stride above full_rate_stride_bytes between neighbours multiplies the time by large_stride_factor."""

    full_rate_stride_bytes: int
    large_stride_factor: int
    access_start_cycles: int


@dataclass(frozen=True, slots=True)
class InstructionCosts:
    """Cycles per element, or per instruction, of single instructions; the formulas are in the cost model."""

    two_operand_cycles: int
    reciprocal_cycles: int
    bn_aggr_cycles: float
    half_rate_cycles: float
    reduce_into_scalar_cycles: int
    table_load_cycles: int
    gpsimd_power_cycles: int
    gpsimd_rsqrt_cycles: int
    gpsimd_gather_cycles: int
    gpsimd_partition_reduce_cycles: int
    gpsimd_integer_cycles: int
    gpsimd_descriptor_cycles: int


@dataclass(frozen=True, slots=True)
class SequencerFacts:
    """What every engine's sequencer has, and what its instructions cost."""

    registers: int
    semaphores: int
    trigger_ns: float
    register_cycles: int
    load_hbm_ns: float
    load_sbuf_ns: float
    branch_taken_cycles: int
    branch_not_taken_cycles: int
    semaphore_hop_ns: float


@dataclass(frozen=True, slots=True)
class DmaFacts:
    """DMA engines of one core. transpose_factor, accumulate_factor: multiples of the time of a copy.

    dims_max: steps of a descriptor; the first is that of the bytes that lie together. pinned_queues: that fill what stays on
    chip, numbered behind the others.
    """

    engines: int
    queues: int
    pinned_queues: int
    dims_max: int
    partitions_per_engine: int
    bytes_per_second_per_engine: int
    peak_bytes_per_second_per_engine: int
    start_ns: float
    issue_interval_ns: float
    completion_ns: float
    engine_gap_ns: float
    descriptor_bytes_min: int
    descriptor_bytes: int
    transpose_factor: int
    accumulate_factor: int
    dtypes: tuple[DType, ...]

    @property
    def loops_max(self) -> int:
        """Dimensions that any transfer may have; one more where the innermost elements lie together on both sides."""
        return self.dims_max - 1


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The host beside the device: for host regions and the fixed parts of a request."""

    submit_ns: float
    execution_fixed_ns: float
    copy_bytes_per_second: int
    flops_per_second: int
    memory_bytes_per_second: int


@dataclass(frozen=True, slots=True)
class Features:
    """What the generation can do at all. default_cast: mode and type of --auto-cast where the user gives none."""

    control_flow: bool
    registers: bool
    dma_cast: bool
    dma_transpose: bool
    dma_accumulate: bool
    default_cast: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CoresFacts:
    """Cores beside each other: of a chip, of one pipeline at most, and the bandwidth between chips."""

    per_chip: int
    pipeline_max: int
    link_bytes_per_second: int


@dataclass(frozen=True)
class Uncertain:
    """A fact, or several that are one question, with values for a faster and a slower machine.

    fast, slow: by dotted path; multiples of the present values if scaled. causes: names of what on a critical path it decides
    (`simulator.outcome.Cause`). why: what the sources leave open.
    """

    name: str
    fast: Mapping[str, float]
    slow: Mapping[str, float]
    causes: tuple[str, ...]
    why: str
    scaled: bool = False


@dataclass(frozen=True)
class Target:
    """A NeuronCore generation.

    ticks_per_second: a common multiple of the engines' clocks; the timing simulator counts in these ticks.
    start_rules: ascending by partitions_max. facts: dotted path -> value with status and source. uncertain: what is not known
    well, for ranges of estimates.
    """

    name: str
    description: str
    ticks_per_second: int
    partitions: int
    start_rules: tuple[StartRule, ...]
    pattern: PatternLimits
    sbuf: SbufFacts
    psum: PsumFacts
    hbm: HbmFacts
    engines: Mapping[Engine, EngineFacts]
    tensor: TensorFacts
    memory_costs: MemoryCosts
    instruction_costs: InstructionCosts
    sequencer: SequencerFacts
    dma: DmaFacts
    host: HostFacts
    features: Features
    cores: CoresFacts
    facts: Mapping[str, Fact] = field(repr=False, compare=False, default_factory=dict)
    uncertain: tuple[Uncertain, ...] = field(repr=False, compare=False, default=())

    def with_busy_cores(self, cores: int) -> Target:
        """The target as one core finds it when so many of its chip are at work: they share the memory's bandwidth."""
        assert 1 <= cores <= self.cores.per_chip, cores
        return self.with_memory_share(self.hbm.chip_bytes_per_second // cores)

    def with_memory_share(self, bytes_per_second: int) -> Target:
        """The target as a core finds it that gets so much of the chip's memory bandwidth."""
        return dataclasses.replace(self, hbm=dataclasses.replace(self.hbm, share_bytes_per_second=bytes_per_second))

    @property
    def memory_bytes_per_second(self) -> int:
        """What a core gets from its memory: its share, as fast as its DMA engines carry it."""
        return min(self.dma.engines * self.dma.bytes_per_second_per_engine, self.hbm.share_bytes_per_second)

    def start_partitions(self, partitions: int) -> tuple[int, ...]:
        """Partitions at which an operand of this many may start; none if it is too large or empty."""
        if partitions <= 0:
            return ()
        return next((rule.starts for rule in self.start_rules if partitions <= rule.partitions_max), ())

    @property
    def storing_engine(self) -> Engine:
        """Whose queue takes the stores: GpSimd has little else to do; without it, the engine that wrote most of them."""
        return Engine.GPSIMD if Engine.GPSIMD in self.engines else Engine.VECTOR

    def ticks_per_cycle(self, engine: Engine) -> int:
        """Ticks of one cycle of the engine; exact by the choice of ticks_per_second."""
        return self.ticks_per_second // self.engines[engine].clock_hz

    def ticks(self, nanoseconds: float) -> int:
        """Nanoseconds in ticks, rounded to nearest."""
        return round(nanoseconds * self.ticks_per_second * 1e-9)

    def nanoseconds(self, ticks: int) -> float:
        """Ticks in nanoseconds."""
        return ticks * 1e9 / self.ticks_per_second

    @property
    def members(self) -> dict[Engine, str]:
        """Stems of the engines' files in a NEFF."""
        return {engine: facts.member for engine, facts in self.engines.items()}


def load_target(name: str) -> Target:
    """The target of this name or alias; CompileError(NXC0001) if there is none."""
    generation = ALIASES.get(name.lower())
    if generation is None:
        raise CompileError(USAGE, f"unknown target {name!r}", remedy=one_of(name, ALIASES))
    return _load(generation)


@functools.cache
def _load(generation: str) -> Target:
    text = resources.files("nxcc.backends.targets").joinpath(f"{generation}.toml").read_text(encoding="utf-8")
    return read_target(tomllib.loads(text))


def read_target(document: dict[str, Any]) -> Target:
    """A target from its parsed TOML. The files are part of the package: a missing or unknown key is an assertion error."""
    facts: dict[str, Fact] = {}
    uncertain = tuple(_uncertain(row) for row in document["uncertain"])
    target: Target = _build(Target, {key: value for key, value in document.items() if key != "uncertain"}, "", facts)
    for engine, engine_facts in target.engines.items():
        assert target.ticks_per_second % engine_facts.clock_hz == 0, f"{engine}: the tick is no divisor of the cycle"
    unknown = {path for row in uncertain for path in (*row.fast, *row.slow)} - set(facts)
    assert not unknown, f"uncertain: no facts {sorted(unknown)}"
    return dataclasses.replace(target, facts=facts, uncertain=uncertain)


def _uncertain(row: dict[str, Any]) -> Uncertain:
    return Uncertain(**{**row, "fast": _paths(row["fast"]), "slow": _paths(row["slow"]), "causes": tuple(row["causes"])})


def _paths(table: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Values by dotted path; TOML may write them as nested tables."""
    found: dict[str, float] = {}
    for key, value in table.items():
        found |= _paths(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _build(cls: Any, table: dict[str, Any], path: str, facts: dict[str, Fact]) -> Any:
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls) if f.name not in ("facts", "uncertain")]
    assert set(table) == set(names), f"{path or 'target'}: keys differ by {sorted(set(table) ^ set(names))}"
    return cls(**{name: _field(hints[name], table[name], f"{path}.{name}" if path else name, facts) for name in names})


def _field(hint: Any, entry: Any, path: str, facts: dict[str, Fact]) -> Any:
    if hint == Mapping[Engine, EngineFacts]:
        return {Engine[key.upper()]: _build(EngineFacts, row, f"{path}.{key}", facts) for key, row in entry.items()}
    if dataclasses.is_dataclass(hint):
        return _build(hint, entry, path, facts)
    if hint is str:
        return entry
    assert set(entry) == {"value", "status", "source"}, f"{path} needs value, status and source"
    facts[path] = Fact(entry["value"], Status(entry["status"]), entry["source"])
    return _READERS[hint](entry["value"])


def _engines_by_memory(value: dict[str, list[str]]) -> dict[Memory, tuple[Engine, ...]]:
    return {Memory(memory): tuple(Engine[name.upper()] for name in names) for memory, names in value.items()}


_READERS: dict[Any, Any] = {
    int: int,
    float: float,
    bool: bool,
    tuple[Memory, ...]: lambda value: tuple(Memory(name) for name in value),
    tuple[DType, ...]: lambda value: tuple(dtype(name) for name in value),
    tuple[StartRule, ...]: lambda value: tuple(StartRule(most, tuple(starts)) for most, starts in value),
    Mapping[Memory, tuple[Engine, ...]]: _engines_by_memory,
    Mapping[str, int]: dict,
    Mapping[str, str]: dict,
}
