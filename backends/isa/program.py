"""The machine program: one stream an engine, registers, structured control flow, semaphores, DMA triggers.

This is what the encoder writes, the decoder yields, the machine verifier reads and the simulator runs. It holds no symbol:
every address is a constant plus registers times constants. How an instruction looks is declared in `instructions/`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import field
from typing import Any

from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass


class Engine(enum.Enum):
    """The engines; the value is the file stem in the NEFF (CLI and NEFF reference 7.2)."""

    PE = "PE"
    SCALAR = "Activation"
    VECTOR = "DVE"
    GPSIMD = "Pool"
    SYNC = "SP"

    __hash__ = object.__hash__
    """By identity: members are keys of most tables here, and Enum's own hash is a call into Python."""

    def __repr__(self) -> str:
        return self.name

    @property
    def words(self) -> str:
        """What people are told: the documents' name. A file's name of it differs, and from target to target."""
        return _WORDS[self]


_WORDS = {Engine.PE: "PE", Engine.SCALAR: "Scalar", Engine.VECTOR: "Vector", Engine.GPSIMD: "GpSimd", Engine.SYNC: "Sync"}

ENGINE_MEMBERS: dict[Engine, str] = {engine: engine.value for engine in Engine}
"""Stems of the engines' files where a target says nothing else."""


class Memory(enum.Enum):
    """Address spaces.

    SBUF and PSUM: partitions x bytes. HBM: linear bytes. A DMA sees SBUF as linear memory in which partition p starts at
    p * DMA_PARTITION_STRIDE (ours: the real map is not public).
    """

    SBUF = "sbuf"
    PSUM = "psum"
    HBM = "hbm"

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return self.name


DMA_PARTITION_STRIDE = 1 << 18
"""Bytes between two partitions of SBUF as a DMA sees them; a power of two above any partition size. Ours."""

REGISTERS = 64
"""Scalar registers of a sequencer, 32 bits each (documented: ISA32 register_alloc)."""


@dataclass(frozen=True, slots=True)
class Affine:
    """constant + sum of register * coefficient. terms are sorted by register, coefficients are not zero."""

    constant: int = 0
    terms: tuple[tuple[int, int], ...] = ()

    @property
    def is_constant(self) -> bool:
        return not self.terms

    def evaluate(self, registers: list[int]) -> int:
        value = self.constant
        for register, coefficient in self.terms:
            value += registers[register] * coefficient
        return value

    def __str__(self) -> str:
        parts = [str(self.constant)] if self.constant or not self.terms else []
        parts += [f"r{register}" if c == 1 else f"r{register}*{c}" for register, c in self.terms]
        return "+".join(parts)


@dataclass(frozen=True, slots=True)
class AccessPattern:
    """An operand of a compute instruction: a block of partitions, and up to four free dimensions in each.

    offset: bytes from the start of each partition. dims: (stride in elements, size), outermost first; strides may be 0
    or negative. The operand's logical shape is [partitions, *sizes]; () means one element a partition.
    Source: architecture guide, rules of hardware model 1.3.
    """

    memory: Memory
    dtype: DType
    partition: int
    partitions: int
    offset: Affine
    dims: tuple[tuple[int, int], ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(size for _, size in self.dims)

    @property
    def free_elements(self) -> int:
        total = 1
        for _, size in self.dims:
            total *= size
        return total


@dataclass(frozen=True, slots=True)
class DmaPattern:
    """One side of a DMA: a strided walk over linear memory.

    address: bytes (SBUF as a DMA sees it: p * DMA_PARTITION_STRIDE + offset). strides: bytes, one per size of the
    transfer, outermost first; 0 repeats, negative walks backwards.
    """

    memory: Memory
    dtype: DType
    address: Affine
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Start only when semaphore[index] >= value."""

    index: Affine
    value: Affine


@dataclass(frozen=True, slots=True)
class Signal:
    """On completion, add `amount` to semaphore[index]. A DMA adds one for each DMA engine of the core."""

    index: Affine
    amount: int


Operand = AccessPattern | DmaPattern


class Instruction:
    """One machine instruction.

    spec: its declaration; operands by name (absent optional ones are left out); fields: immediates by name.
    debug: index into the debug map (-1: none).
    """

    __slots__ = ("spec", "operands", "fields", "waits", "signals", "debug")

    def __init__(self, spec: InstructionSpec, operands: dict[str, Operand] | None = None,
                 fields: dict[str, Any] | None = None, waits: tuple[Wait, ...] = (), signals: tuple[Signal, ...] = (),
                 debug: int = -1) -> None:
        self.spec = spec
        self.operands = operands if operands is not None else {}
        self.fields = fields if fields is not None else {}
        self.waits = waits
        self.signals = signals
        self.debug = debug

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Instruction):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"Instruction({self.spec.name}, {self.operands}, {self.fields})"


class FieldKind(enum.Enum):
    """Kinds of immediates; the encoder has one codec per kind."""

    FLAG = "bool"
    INT = "signed 64-bit integer"
    FLOAT = "floating-point number; fp32 on the machine, wide enough here for the integers a memset takes"
    ENUM = "one of the declared names"
    REGISTER = "register number"
    AFFINE = "constant + registers * coefficients"
    INTS = "up to 8 signed 32-bit integers"
    FUNCTION = "index into the function table"


@dataclass(frozen=True, slots=True)
class FieldSpec:
    name: str
    kind: FieldKind
    choices: tuple[str, ...] = ()
    default: Any = None


@dataclass(frozen=True, slots=True)
class OperandSpec:
    """access: "r", "w" or "rw". dtypes: empty means any. optional operands may be left out."""

    name: str
    access: str
    memories: tuple[Memory, ...] = (Memory.SBUF, Memory.PSUM)
    dtypes: tuple[DType, ...] = ()
    optional: bool = False
    dma: bool = False


@dataclass(frozen=True, eq=False)
class InstructionSpec:
    """Declaration of an instruction: number in the encoding, engines that run it, operands, immediates, meaning in words."""

    name: str
    number: int
    engines: tuple[Engine, ...]
    operands: tuple[OperandSpec, ...]
    fields: tuple[FieldSpec, ...]
    meaning: str

    def operand(self, name: str) -> OperandSpec:
        return next(o for o in self.operands if o.name == name)

    def __repr__(self) -> str:
        return self.name


INSTRUCTIONS: dict[str, InstructionSpec] = {}


def instruction(name: str, number: int, engines: tuple[Engine, ...] | Engine, operands: tuple[OperandSpec, ...] = (),
                fields: tuple[FieldSpec, ...] = (), *, meaning: str) -> InstructionSpec:
    """Declare an instruction; the number is its opcode in the encoding and never reused."""
    assert name not in INSTRUCTIONS and all(s.number != number for s in INSTRUCTIONS.values()), name
    engines = engines if isinstance(engines, tuple) else (engines,)
    spec = InstructionSpec(name, number, engines, operands, fields, meaning)
    INSTRUCTIONS[name] = spec
    return spec


Stream = list[Instruction]


@dataclass()
class Function:
    """A piece of code that each engine's main stream calls: a region, lowered once, relocated by argument registers."""

    name: str
    streams: dict[Engine, Stream] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resident:
    """What stays in SBUF: bytes of each partition from `offset` on, filled by one entry, which the loader runs, and written
    by no other."""

    entry: str
    offset: int


@dataclass()
class Program:
    """The code of one core: functions, and entries (main streams) that call them; each ends every engine with `halt`.

    A module that runs wholly on the device has one entry; one with host regions in between has one entry per device region.
    Semaphores are 0 and registers undefined when an entry starts; HBM keeps its content from entry to entry, SBUF and PSUM do
    not, but for what is resident. sbuf_bytes: bytes a partition used; hbm_bytes: size of the HBM arena; semaphores: how many
    are used.
    """

    functions: list[Function]
    entries: list[Function]
    sbuf_bytes: int = 0
    hbm_bytes: int = 0
    semaphores: int = 0
    resident: Resident | None = None

    def streams(self) -> Iterator[tuple[str, Engine, Stream]]:
        for function in [*self.functions, *self.entries]:
            for engine, stream in function.streams.items():
                yield function.name, engine, stream
