"""Runs a machine program fast: kernels bound to numpy views, engines in turn, transfers complete when triggered.

That is one of the legal orders; `strict` explores others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from nxcc.backends.isa.instructions import control as isa
from nxcc.backends.isa.program import REGISTERS, Engine, Instruction, Program, Signal, Wait
from nxcc.backends.simulator import engines
from nxcc.backends.simulator.memory import Array, Memories, invalid, storage
from nxcc.backends.simulator.numerics import Scratch
from nxcc.backends.simulator.operation import SEMANTICS, Alerts, Operation, Prepared, Settings
from nxcc.backends.simulator.streams import Action, Blocked, Pending, Sequencer, evaluator
from nxcc.ir.diagnostics import PROGRAM_INVALID, CompileError
from nxcc.ir.dtypes import DType

__all__ = ["Machine", "engines"]

SEMAPHORES = 256
"""Of a core (assumed, hardware model section 7)."""

CACHED_BINDINGS = 64
"""Bound arrays kept per instruction whose addresses depend on registers: rings repeat after few iterations."""


class SemaphoreWait:
    """A wait with its semaphore array."""

    __slots__ = ("semaphores", "index", "value")

    def __init__(self, semaphores: list[int], index: Callable[[], int], value: Callable[[], int]) -> None:
        self.semaphores, self.index, self.value = semaphores, index, value

    def met(self) -> bool:
        return self.semaphores[self.index()] >= self.value()

    def describe(self) -> str:
        index = self.index()
        return f"semaphore {index} >= {self.value()}, which is {self.semaphores[index]}"


class FastActions:
    """What one engine's instructions do in fast mode."""

    def __init__(self, engine: Engine, memories: Memories, scratch: Scratch, semaphores: list[int], alerts: Alerts) -> None:
        self.engine, self.memories, self.scratch, self.semaphores = engine, memories, scratch, semaphores
        self.registers = [0] * REGISTERS
        self.settings = Settings(alerts)

    def wait(self, wait: Wait) -> tuple[Action, Pending]:
        semaphores, number = self.semaphores, wait.index.constant
        index, value = self._semaphore(wait.index.is_constant, number, evaluator(wait.index, self.registers)), evaluator(
            wait.value, self.registers)
        pending = SemaphoreWait(semaphores, index, value)
        if wait.index.is_constant and wait.value.is_constant:
            amount = wait.value.constant

            def fixed() -> None:
                if semaphores[number] < amount:
                    raise Blocked
            return fixed, pending
        if wait.index.is_constant:
            def counted() -> None:
                if semaphores[number] < value():
                    raise Blocked
            return counted, pending

        def general() -> None:
            if semaphores[index()] < value():
                raise Blocked
        return general, pending

    def _semaphore(self, is_constant: bool, number: int, index: Callable[[], int]) -> Callable[[], int]:
        """The index function with a check that the semaphore exists, made now if it is constant."""
        count = len(self.semaphores)
        if is_constant:
            if not 0 <= number < count:
                raise invalid(f"semaphore {number} does not exist")
            return index

        def checked() -> int:
            value = index()
            if not 0 <= value < count:
                raise invalid(f"semaphore {value} does not exist")
            return value
        return checked

    def signal(self, signal: Signal) -> Action:
        semaphores, number, amount = self.semaphores, signal.index.constant, signal.amount
        index = self._semaphore(signal.index.is_constant, number, evaluator(signal.index, self.registers))
        if signal.index.is_constant:
            def fixed() -> None:
                semaphores[number] += amount
            return fixed

        def general() -> None:
            semaphores[index()] += amount
        return general

    def operation(self, instruction: Instruction) -> list[Action]:
        prepared = SEMANTICS[instruction.spec.name](
            Operation(instruction, self.engine, self.memories, self.scratch, self.settings))
        action = bind(prepared, self.registers)
        if instruction.spec is isa.REGISTER_LOAD:
            action = self._load(int(instruction.fields["register"]), action)
        return [action, *(self.signal(signal) for signal in instruction.signals)]

    def _load(self, register: int, read: Callable[[], Any]) -> Action:
        registers = self.registers
        if not 0 <= register < REGISTERS:
            raise invalid(f"register {register} does not exist")

        def action() -> None:
            registers[register] = read()
        return action


def bind(prepared: Prepared, registers: list[int]) -> Callable[[], Any]:
    """The kernel with its arrays; where addresses depend on registers, arrays are made when their values are first seen."""
    kernel = prepared.kernel
    getters: list[Callable[[], Any]] = []
    used: set[int] = set()
    for view in prepared.views:
        if view is None:
            getters.append(lambda: None)
        elif view.affine.is_constant:
            getters.append(partial(_identity, view.at(view.affine.constant)))
        else:
            getters.append(_located(view.at, evaluator(view.affine, registers)))
            used |= {register for register, _ in view.affine.terms}
    for affine in prepared.affines:
        getters.append(evaluator(affine, registers))
        used |= {register for register, _ in affine.terms}
    if not used:
        return partial(kernel, *(get() for get in getters))
    return _rebinding(kernel, getters, itemgetter(*sorted(used)), registers)


def _identity(array: Any) -> Any:
    return array


def _located(at: Callable[[int], Array], offset: Callable[[], int]) -> Callable[[], Array]:
    return lambda: at(offset())


def _rebinding(kernel: Callable[..., Any], getters: Sequence[Callable[[], Any]], key: Callable[[list[int]], Any],
               registers: list[int]) -> Action:
    bindings: dict[Any, Callable[[], Any]] = {}
    find = bindings.get

    def action() -> object:
        values = key(registers)
        bound = find(values)
        if bound is None:
            bound = partial(kernel, *[get() for get in getters])
            if len(bindings) >= CACHED_BINDINGS:
                bindings.clear()
            bindings[values] = bound
        return bound()
    return action


class Machine:
    """One core with a program loaded.

    hbm_bytes: size of the HBM arena, which is zero at first and keeps its content from run to run.
    Errors of the program are CompileError(PROGRAM_INVALID) that name function, engine and instruction.
    """

    def __init__(self, program: Program, hbm_bytes: int, *, sbuf_bytes_per_partition: int = 196608,
                 psum_bytes_per_partition: int = 16384, partitions: int = 128) -> None:
        self.program = program
        self.memories = Memories(hbm_bytes, sbuf_bytes_per_partition, psum_bytes_per_partition, partitions)
        self.semaphores = [0] * max(SEMAPHORES, program.semaphores)
        self.alerts = Alerts()
        self.sequencers = self._make_sequencers(Scratch())

    def _make_sequencers(self, scratch: Scratch) -> list[Sequencer]:
        return [Sequencer(engine, self.program, FastActions(engine, self.memories, scratch, self.semaphores, self.alerts))
                for engine in Engine]

    @property
    def hbm(self) -> Array:
        """All of HBM, as bytes."""
        return self.memories.hbm

    def write(self, address: int, array: Array) -> None:
        """Put an array's elements into HBM, row-major."""
        self.hbm[address:address + array.nbytes].view(array.dtype).reshape(array.shape)[...] = array

    def read(self, address: int, dtype: DType, dims: Sequence[int]) -> Array:
        """A copy of a row-major array in HBM, in dtype.numpy."""
        count = int(np.prod(dims))
        values = np.frombuffer(self.hbm.data, storage(dtype), count, address).reshape(tuple(dims)).copy()
        return values.view(dtype.numpy)

    def prepare(self) -> None:
        """Make all streams ready, as loading does; what is not ready yet when it is entered is made ready then.

        CompileError(PROGRAM_INVALID) if an instruction is not one that its engine has.
        """
        for sequencer in self.sequencers:
            for is_entry, functions in ((False, self.program.functions), (True, self.program.entries)):
                for number in range(len(functions)):
                    sequencer.entered(number, is_entry)

    def run(self, entry: int = 0) -> None:
        """Run an entry of the program until all engines are done; `alerts` then holds what they report of it."""
        self.alerts.spread = False
        self.semaphores[:] = [0] * len(self.semaphores)
        with np.errstate(all="ignore"):
            for sequencer in self.sequencers:
                sequencer.start(entry)
            self._run()

    def _run(self) -> None:
        active = [s for s in self.sequencers if s.block is not None]
        while active:
            runnable = [s for s in active if s.is_runnable]
            if not runnable:
                raise deadlock(active)
            for sequencer in runnable:
                sequencer.run()
            active = [s for s in active if s.block is not None]


def deadlock(sequencers: Sequence[Sequencer]) -> CompileError:
    return CompileError(PROGRAM_INVALID, "the engines wait for each other", details=tuple(s.describe() for s in sequencers),
                        why="; ".join(s.describe() for s in sequencers))
