"""Runs a machine program while looking for what the machine would not forgive.

Beside what the functional mode checks: SBUF, PSUM and registers start with rubbish and reading bytes that nobody wrote is an
error; transfers move in up to 16 pieces at random later times; engines take turns at random; two accesses to a byte, one of
them a write, that no semaphore orders are an error whatever order this run took; accumulation groups, activation ranges and
overlapping transfers are checked; nothing may be under way when the program ends.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from nxcc.backends.isa.program import REGISTERS, Engine, Memory, Program
from nxcc.backends.simulator.functional import Machine, deadlock
from nxcc.backends.simulator.memory import Array, invalid
from nxcc.backends.simulator.numerics import Scratch
from nxcc.backends.simulator.streams import Sequencer
from nxcc.backends.simulator.strict.actions import SteppingSequencer, StrictActions
from nxcc.backends.simulator.strict.ordering import Clock
from nxcc.backends.simulator.strict.watch import DMA_ENGINES, Watch
from nxcc.ir.dtypes import DType


class StrictMachine(Machine):
    """Runs each entry in a random legal order; raises PROGRAM_INVALID for what the hardware would not forgive.

    seed: of the order; the same seed gives the same order. HBM bytes count as written when `write` put them there.
    """

    def __init__(self, program: Program, hbm_bytes: int, *, seed: int = 0, dma_engines: int = DMA_ENGINES,
                 **sizes: int) -> None:
        self.random = random.Random(seed)
        self.dma_engines = dma_engines
        super().__init__(program, hbm_bytes, **sizes)

    def _make_sequencers(self, scratch: Scratch) -> list[Sequencer]:
        self.watch = Watch(self.memories, self.semaphores, self.dma_engines)
        self.steppers: list[SteppingSequencer] = []
        self.engines: list[StrictActions] = []
        for engine in Engine:
            actions = StrictActions(engine, self.memories, scratch, self.semaphores, self.alerts, self.watch)
            actions.sequencer = SteppingSequencer(engine, self.program, actions)
            self.engines.append(actions)
            self.steppers.append(actions.sequencer)
        return list(self.steppers)

    def write(self, address: int, array: Array) -> None:
        super().write(address, array)
        self.watch.shadows[Memory.HBM].host_wrote(address, address + array.nbytes)

    def read(self, address: int, dtype: DType, dims: Sequence[int]) -> Array:
        """As Machine.read; bytes that nobody wrote are an error."""
        result = super().read(address, dtype, dims)
        if self.watch.shadows[Memory.HBM].unwritten(self.hbm[address:address + result.nbytes]) is not None:
            raise invalid(f"the result at HBM byte {address} is not written by the program")
        return result

    def _run(self) -> None:
        resident = self.program.resident
        self.watch.start(resident.offset if resident is not None else self.memories.sbuf_pitch)
        for actions in self.engines:
            actions.clock = Clock()
            actions.registers[:] = [self.random.randrange(-1 << 31, 1 << 31) for _ in range(REGISTERS)]
        active = [s for s in self.steppers if s.block is not None]
        while active:
            self._turn(active)
            active = [s for s in active if s.block is not None]
        self._check_finished()

    def _turn(self, active: list[SteppingSequencer]) -> None:
        """A few steps in an order of preference that holds for this turn, so that some engines run far ahead of others."""
        preference = {s.engine: self.random.random() for s in active}
        eagerness = self.random.random()
        for _ in range(self.random.randrange(1, 64)):
            runnable = [s for s in active if s.is_runnable]
            pieces = self.watch.pieces
            if pieces and (not runnable or self.random.random() < eagerness):
                self.watch.complete(self.random.randrange(len(pieces)))
            elif runnable:
                max(runnable, key=lambda s: preference[s.engine] + self.random.random() / 2).step()
            elif any(s.block is not None for s in active):
                raise deadlock([s for s in active if s.block is not None])
            else:
                return

    def _check_finished(self) -> None:
        """Raise if a transfer may be under way when the last engine halts."""
        known = 0
        for actions in self.engines:
            known |= actions.clock.tickets
        for event in self.watch.transfers:
            if not known >> event.ticket & 1:
                error = invalid("the program ends while a transfer may be under way", "no engine waits for its semaphore")
                error.where = self.watch.describe(event)
                raise error
