"""One simulated core for tests: values put on chip by hand, one instruction run on them."""

from __future__ import annotations

from typing import Any

import numpy as np

from nxcc.backends.isa.instructions import control
from nxcc.backends.isa.program import (
    INSTRUCTIONS,
    AccessPattern,
    Affine,
    DmaPattern,
    Engine,
    Function,
    Instruction,
    Memory,
    Program,
    Signal,
    Wait,
)
from nxcc.backends.simulator.functional import Machine
from nxcc.ir.dtypes import DType, from_numpy

HALT = Instruction(control.HALT)
HBM_BYTES = 1 << 16


def affine(value: int | Affine) -> Affine:
    return value if isinstance(value, Affine) else Affine(value)


def register(number: int, factor: int = 1, constant: int = 0) -> Affine:
    return Affine(constant, ((number, factor),))


def pattern(dtype: DType, partitions: int, *sizes: int, at: int | Affine = 0, memory: Memory = Memory.SBUF, partition: int = 0,
            strides: tuple[int, ...] | None = None) -> AccessPattern:
    """A row-major operand unless strides (in elements) are given."""
    if strides is None:
        strides = tuple(int(np.prod(sizes[k + 1:])) for k in range(len(sizes)))
    return AccessPattern(memory, dtype, partition, partitions, affine(at), tuple(zip(strides, sizes, strict=True)))


def hbm(dtype: DType, address: int | Affine, *strides: int) -> DmaPattern:
    return DmaPattern(Memory.HBM, dtype, affine(address), strides)


def sbuf(dtype: DType, address: int | Affine, *strides: int) -> DmaPattern:
    return DmaPattern(Memory.SBUF, dtype, affine(address), strides)


def make(name: str, waits: tuple[tuple[Any, Any], ...] = (), signals: tuple[tuple[Any, int], ...] = (),
         **parts: Any) -> Instruction:
    """An instruction by name; operands and fields by theirs, integers for affines allowed."""
    spec = INSTRUCTIONS[name]
    operands = {o.name: parts.pop(o.name) for o in spec.operands if o.name in parts}
    fields = {f.name: affine(parts.pop(f.name)) if f.kind.name == "AFFINE" else parts.pop(f.name)
              for f in spec.fields if f.name in parts}
    assert not parts, parts
    return Instruction(spec, operands, fields, tuple(Wait(affine(i), affine(v)) for i, v in waits),
                       tuple(Signal(affine(i), amount) for i, amount in signals))


def program(functions: tuple[Function, ...] = (), **streams: list[Instruction]) -> Program:
    """A program with one entry; streams by the engine's name in lower case, without their halt."""
    entry = Function("main", {Engine[name.upper()]: [*stream, HALT] for name, stream in streams.items()})
    return Program(list(functions), [entry], hbm_bytes=HBM_BYTES)


def machine(functions: tuple[Function, ...] = (), **streams: list[Instruction]) -> Machine:
    return Machine(program(functions, **streams), HBM_BYTES)


def array_of(core: Machine, operand: AccessPattern) -> np.ndarray[Any, Any]:
    """The operand's elements as they lie in the core's memory: a view."""
    buffer, _, pitch = core.memories.on_chip(operand.memory)
    item = operand.dtype.byte_size
    return np.ndarray((operand.partitions, *operand.sizes), operand.dtype.numpy, buffer,
                      operand.partition * pitch + operand.offset.constant, (pitch, *(s * item for s, _ in operand.dims)))


class Bench:
    """Values side by side in SBUF (or PSUM), and instructions run on them.

    put(array): an operand [P, ...] that holds the array; room(dtype, P, ...): one to be written.
    """

    def __init__(self) -> None:
        self.next = 0
        self.values: list[tuple[AccessPattern, Any]] = []

    def room(self, dtype: DType, partitions: int, *sizes: int, memory: Memory = Memory.SBUF) -> AccessPattern:
        operand = pattern(dtype, partitions, *sizes, at=self.next, memory=memory)
        self.next += -(-operand.free_elements * dtype.byte_size // 64) * 64
        return operand

    def put(self, values: Any, memory: Memory = Memory.SBUF) -> AccessPattern:
        array = np.asarray(values)
        operand = self.room(from_numpy(array.dtype), array.shape[0], *array.shape[1:], memory=memory)
        self.values.append((operand, array))
        return operand

    def run(self, engine: str, *instructions: Instruction) -> Machine:
        core = machine(**{engine: list(instructions)})
        for operand, array in self.values:
            array_of(core, operand)[...] = array
        core.run()
        return core

    def result(self, engine: str, instruction: Instruction, out: AccessPattern) -> np.ndarray[Any, Any]:
        return array_of(self.run(engine, instruction), out).copy()
