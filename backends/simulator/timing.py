"""How long a machine program takes: a simulation of events in integer ticks of the target's clock.

What is modelled (facts are the target's, costs are nxcc.backends.cost's):
- Five engines, each an in-order sequencer with an in-order datapath behind it. The sequencer works through registers,
  branches and waits while the datapath is busy with the instruction before (assumed); it is never further ahead than that.
- An instruction starts when its waits are met, the datapath is free, what it reads of the engine's own last results has
  arrived, and its ports are free: Vector and GpSimd share SBUF's, Vector and Scalar PSUM's.
- A result arrives Cost.latency after the end of the work. Where both instructions stream the same elements, the next can
  follow the first at that distance, an initiation interval added: dependent tiny work starts every 264 cycles as documented,
  dependent long work without a gap (a published scan kernel with five dependent operations of 1024 cycles shows none).
- A signal shows at a semaphore one hop after the instruction's end; an engine that waits starts its access then.
- A change between activation functions loads a table.
- Transfers: a queue takes one after `Transfer.interval`; its data start dma.start later, on each DMA engine when that is
  done with what came before (and a gap); traffic shares the core's HBM bandwidth; completion, then the semaphore.
Loops, calls and branches are followed exactly; of steady loops a few turns stand for the others (`folding`). What registers
load from memory comes from a record of a run (`loads`); without one, a branch on such a value takes its first arm and a loop
runs `trips` times, and Timing.assumed counts these; where the caller knows better, `counts` says how often the whiles of the
entry run.
The end is traced back through what each start waited for: the critical path, as ticks by region and cause.
Semaphores only rise between two uses of one value, as the machine verifier demands of programs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy

from nxcc.backends.isa.program import Engine, Program
from nxcc.backends.simulator import timed
from nxcc.backends.simulator.events import Guesses, Run
from nxcc.backends.simulator.folding import Folding
from nxcc.backends.simulator.outcome import Timing
from nxcc.backends.simulator.sequencer import Sequencer
from nxcc.backends.simulator.timed import Slot
from nxcc.backends.target import Target


class Clock:
    """Times entries of one program; costs are prepared once. slots: see timed.prepare."""

    def __init__(self, program: Program, target: Target, slots: list[Slot] | None = None) -> None:
        self.target = target
        self.code = timed.prepare(program, target, slots)

    def with_busy_cores(self, cores: int) -> Clock:
        """The same program while so many cores of the chip are at work."""
        clock = copy(self)
        clock.target = self.target.with_busy_cores(cores)
        return clock

    @property
    def slots(self) -> list[Slot]:
        return self.code.slots

    def whiles(self, entry: int = 0) -> int:
        """Number of `while` loops in the entry's streams, which all engines share."""
        return max((sum(step[0] == timed.WHILE for step in steps) for steps in self.code.entries[entry].values()), default=0)

    def time(self, entry: int = 0, *, trips: int = 1, counts: Sequence[int | None] = (),
             loads: Mapping[Engine, Iterable[int]] | None = None, spans: bool = False, folds: bool = True) -> Timing:
        """Time one entry.

        trips: of loops whose count or condition depends on data that `loads` does not give. counts: how often each of the
        entry's whiles runs, in their order; None or missing: `trips`. loads: per engine what its register_load instructions
        read, in order. spans: keep a timeline. folds: leave out turns of long loops that repeat those before (see `folding`).
        """
        run = Run(self.code, self.target, Guesses(trips, counts), loads or {}, spans, folds)
        return run.run([Sequencer(run, engine, steps) for engine, steps in self.code.entries[entry].items()], Folding(run).look)


def time_program(program: Program, target: Target, entry: int = 0) -> Timing:
    """Time one entry of a program once."""
    return Clock(program, target).time(entry)
