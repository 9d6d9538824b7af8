"""Short spellings for machine code in tests."""

from typing import Any

from nxcc.backends.isa import instructions as _declared  # noqa: F401
from nxcc.backends.isa.program import (
    INSTRUCTIONS,
    AccessPattern,
    Affine,
    DmaPattern,
    Engine,
    Function,
    Instruction,
    Memory,
    Operand,
    Program,
    Signal,
    Wait,
)
from nxcc.ir.dtypes import F32, DType

PARTITION = 1 << 18


def affine(value: int | Affine) -> Affine:
    return value if isinstance(value, Affine) else Affine(value)


def reg(number: int, coefficient: int = 1, constant: int = 0) -> Affine:
    return Affine(constant, ((number, coefficient),))


def op(name: str, *, wait: tuple[Any, ...] = (), signal: tuple[Any, ...] = (), **values: Any) -> Instruction:
    """wait, signal: (semaphore, value) pairs; other values by type: operands or fields, with ints as affines where declared."""
    spec = INSTRUCTIONS[name]
    names = {o.name for o in spec.operands}
    operands: dict[str, Operand] = {k: v for k, v in values.items() if k in names}
    fields = {f.name: affine(values[f.name]) if f.kind.name == "AFFINE" else values[f.name]
              for f in spec.fields if f.name in values}
    assert len(operands) + len(fields) == len(values), f"{name} has no {set(values) - set(operands) - set(fields)}"
    return Instruction(spec, operands, fields, tuple(Wait(affine(s), affine(v)) for s, v in wait),
                       tuple(Signal(affine(s), n) for s, n in signal))


def sbuf(free: int, offset: int | Affine = 0, partitions: int = 128, partition: int = 0, dtype: DType = F32,
         stride: int = 1) -> AccessPattern:
    return AccessPattern(Memory.SBUF, dtype, partition, partitions, affine(offset), ((stride, free),))


def psum(free: int, offset: int | Affine = 0, partitions: int = 128, partition: int = 0, dtype: DType = F32) -> AccessPattern:
    return AccessPattern(Memory.PSUM, dtype, partition, partitions, affine(offset), ((1, free),))


def hbm(address: int | Affine, *strides: int, dtype: DType = F32) -> DmaPattern:
    return DmaPattern(Memory.HBM, dtype, affine(address), strides)


def linear(address: int | Affine, *strides: int, dtype: DType = F32) -> DmaPattern:
    return DmaPattern(Memory.SBUF, dtype, affine(address), strides)


def program(functions: list[Function] | None = None, **streams: list[Instruction]) -> Program:
    """A program of one entry; streams by engine name in lower case, without their halt."""
    entry = Function("main", {Engine[name.upper()]: [*stream, op("halt")] for name, stream in streams.items()})
    return Program(functions or [], [entry], 4096, 1 << 20, 8)
