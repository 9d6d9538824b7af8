"""Long loops are timed until they are steady; the turns that would repeat what was timed are left out, exactly.

A loop of many turns is looked at each time that it turns: has the run been in this state before, but for its distance in time
(`steady`)? If so, one more period is timed while every decision in it says for how long it stays (`shifts`); then that many
periods are left out at once: all times that lie ahead, registers, semaphores and counts move on by what the periods would
have added, so that everything afterwards is as if each turn had been timed, to the tick (a test says so). Nested loops do this
each for itself: what an inner loop leaves out is part of the outer one's period.

A loop that has used its share of work without becoming steady moves on by the mean of its last turns instead, which
`Fold.exact` says; one whose turns are not even alike is an error. With a timeline, the first pieces of work are always timed.
"""

from __future__ import annotations

from nxcc.backends.simulator.events import FIRST_LOOK, LEAST_TURNS, NEVER, Run
from nxcc.backends.simulator.outcome import Fold, Node, Timing
from nxcc.backends.simulator.path import FOLD
from nxcc.backends.simulator.recording import RECORDED
from nxcc.backends.simulator.sequencer import STEPS, Frame, Sequencer
from nxcc.backends.simulator.shifts import Shifts
from nxcc.backends.simulator.steady import EngineState, State, alike, state_of
from nxcc.ir.diagnostics import UNTIMED_LOOP, CompileError
from nxcc.ir.facts import dataclass

SHOWN = 150_000
"""Events that are always timed where a timeline is kept."""
PATIENCE = 400_000
"""Events that the turns of one loop may take until their mean is enough."""
AVERAGED = 16
"""Turns of a mean, at least."""


class Watch:
    """What was seen of a loop: its state at an earlier turn, taken anew after twice as many turns as the last time, so that any
    cycle fits between two (Brent's search).

    step: turns until then; ready: of the engine that leads, which is compared first; born: events and turn at the first look;
    failures: of periods that did not come again.
    """

    __slots__ = ("state", "turn", "ready", "step", "failures", "born")

    def __init__(self, born: tuple[int, int]) -> None:
        self.state: State | None = None
        self.turn = self.ready = self.failures = 0
        self.step = 1
        self.born = born


@dataclass(frozen=True, slots=True)
class _Counts:
    """What a run has counted when a period began. before: what had been counted of spans."""

    executed: list[int]
    idle: list[int]
    sums: tuple[int, ...]
    regions: dict[int, list[int]]
    spans: int
    last: int


_SUMS = ("dma_busy", "transfers", "dma_bytes", "hbm_bytes", "table_loads", "assumed")


class Folding:
    """Finds the steady turns of a run and leaves them out."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.counts: dict[int, _Counts] = {}

    def look(self) -> None:
        """See to the loops that asked for it."""
        run = self.run
        looks, run.looks = run.looks, []
        if run.periods:
            open_now = {id(frame) for sequencer in run.sequencers for frame in sequencer.frames}
            self._keep([period for period in run.periods if period.lead in open_now])
        for sequencer, frame in looks:
            if frame in sequencer.frames and frame.turn >= frame.look:
                self._look(sequencer, frame)

    def _look(self, sequencer: Sequencer, frame: Frame) -> None:
        run = self.run
        period = next((period for period in run.periods if period.lead == id(frame)), None)
        if period is not None:
            self._finish(period, frame)
            return
        if run.timeline is not None and run.order < SHOWN:
            frame.look = frame.turn + FIRST_LOOK
            return
        watch = frame.watch
        if watch is None:
            watch = frame.watch = Watch((run.order, frame.turn))
        frame.look = frame.turn + 1
        loose = self._out_of_patience(watch, frame)
        ready = sequencer.ready - run.now
        if watch.state is None or frame.turn >= watch.turn + watch.step:
            watch.state, watch.turn, watch.ready = state_of(run), frame.turn, ready
            watch.step *= 2
        elif loose or ready == watch.ready:
            self._compare(sequencer, frame, watch, watch.state, loose)

    def _out_of_patience(self, watch: Watch, frame: Frame) -> bool:
        events, turns = self.run.order - watch.born[0], frame.turn - watch.born[1]
        if events < PATIENCE or events // max(turns, 1) * (frame.limit - frame.turn) < PATIENCE:
            return False
        if events > 2 * PATIENCE:
            raise CompileError(UNTIMED_LOOP, f"a loop of {frame.limit} turns cannot be timed",
                               why=f"{frame.turn} turns were timed, and none is like another",
                               remedy="--trips sets the turns of loops that end by data")
        return True

    def _compare(self, sequencer: Sequencer, frame: Frame, watch: Watch, before: State, loose: bool) -> None:
        """Begin to record a period if the run is where it has been before."""
        run, turns = self.run, frame.turn - watch.turn
        if turns * 4 > frame.limit - frame.turn or (loose and turns < AVERAGED):
            return
        if any(len(sequencer.frames) == depth for depth in self._depths()):
            return
        state = state_of(run)
        if not alike(before, state, loose):
            return
        period = Shifts(before, state, id(frame), frame.turn + turns, loose)
        period.others = [(other, [list(row) for row in other.registers]) for other in run.periods]
        frame.look = period.until
        self.counts[id(period)] = self._count()
        self._keep([*run.periods, period])

    def _depths(self) -> list[int]:
        """How deep the loops lie whose periods are under way."""
        leads = {period.lead for period in self.run.periods}
        return [depth for sequencer in self.run.sequencers for depth, frame in enumerate(sequencer.frames, 1)
                if id(frame) in leads]

    def _keep(self, periods: list[Shifts]) -> None:
        self.run.periods = periods
        self.counts = {id(period): self.counts[id(period)] for period in periods}
        for sequencer in self.run.sequencers:
            sequencer.handlers = RECORDED if periods else STEPS

    def _finish(self, period: Shifts, frame: Frame) -> None:
        """The period is over: leave out what would be like it."""
        run, watch = self.run, frame.watch
        assert watch is not None
        counts, state = self.counts[id(period)], state_of(run)
        self._keep([other for other in run.periods if other is not period])
        times = self._times(period, frame, state) - 1
        watch.state, watch.step = None, 1
        frame.look = frame.turn + 1
        if times * (state.now - period.start.now) <= 0 or times * (frame.turn - watch.turn) < LEAST_TURNS // 4:
            watch.failures += 1
            frame.look += 1 << min(watch.failures, 16)
            return
        self._leave_out(period, state, counts, times)
        if frame.limit - frame.turn < LEAST_TURNS:
            frame.look = NEVER

    def _times(self, period: Shifts, frame: Frame, state: State) -> int:
        if frame.turn != period.until or not alike(period.start, state, period.loose):
            return 0
        if state.now - period.start.now != period.length and not period.loose:
            return 0
        if any(other.registers != registers for other, registers in period.others if other in self.run.periods):
            return 0
        return period.end(state)

    # ---- leaving out --------------------------------------------------------------------------------------------

    def _count(self) -> _Counts:
        run, timing = self.run, self.run.timing
        spans = run.timeline.count if run.timeline is not None else 0
        return _Counts(list(timing.executed), list(timing.idle), _sums(timing),
                       {region: list(row) for region, row in timing.regions.items()}, spans, run.last[1])

    def _leave_out(self, period: Shifts, state: State, counts: _Counts, times: int) -> None:
        """Move all on as if the period had come so many times more."""
        run, length = self.run, state.now - period.start.now
        # Periods that began within this one would see a leap in theirs.
        self._keep([other for other, _ in period.others if other in run.periods])
        fold = Fold(run.now, length, times, times * max(period.frames.values()), not period.loose)
        run.timing.folds.append(fold)
        ahead = length * times
        mover = _Mover(run, FOLD + len(run.timing.folds) - 1, ahead)
        for sequencer, old, new in zip(run.sequencers, period.start.engines, state.engines, strict=True):
            if old.runs != new.runs:
                mover.engine(sequencer, old, new, period, times)
        mover.events()
        if run.last[1] - counts.last == length:
            run.last = mover.node(run.last)
        run.semaphores[:] = [value + shift * times for value, shift in zip(run.semaphores, period.semaphores, strict=True)]
        self._add(counts, times)
        if run.timeline is not None:
            run.timeline.leave_out(fold, counts.spans)
        run.now += ahead

    def _add(self, counts: _Counts, times: int) -> None:
        timing = self.run.timing
        timing.executed = [now + (now - old) * times for now, old in zip(timing.executed, counts.executed, strict=True)]
        timing.idle = [now + (now - old) * times for now, old in zip(timing.idle, counts.idle, strict=True)]
        for name, now, old in zip(_SUMS, _sums(timing), counts.sums, strict=True):
            setattr(timing, name, now + (now - old) * times)
        for region, row in timing.regions.items():
            old_row = counts.regions.get(region) or [0] * len(row)
            row[:] = [now + (now - old) * times for now, old in zip(row, old_row, strict=True)]


def _sums(timing: Timing) -> tuple[int, ...]:
    return tuple([getattr(timing, name) for name in _SUMS])


class _Mover:
    """Moves what lies ahead of a run's present by so many ticks."""

    def __init__(self, run: Run, cause: int, ahead: int) -> None:
        self.run, self.cause, self.ahead = run, cause, ahead

    def node(self, node: Node) -> Node:
        """The node, later; the way back passes the fold."""
        moved = (node, node[1] + self.ahead, self.cause, node[3])
        timeline = self.run.timeline
        if timeline is not None and id(node) in timeline.made:
            timeline.made[id(moved)] = timeline.made[id(node)]
        return moved

    def engine(self, sequencer: Sequencer, old: EngineState, new: EngineState, period: Shifts, times: int) -> None:
        ahead = self.ahead
        sequencer.ready += ahead
        sequencer.ready_node = self.node(sequencer.ready_node)
        if period.loose or old.free == new.free:
            sequencer.free += ahead
            sequencer.free_node = self.node(sequencer.free_node)
        sequencer.recent = [(soon + ahead, late + ahead, placed) for soon, late, placed in sequencer.recent]
        sequencer.busy += (new.busy - old.busy) * times
        shifts = period.registers[sequencer.number]
        sequencer.registers[:] = [value + shift * times for value, shift in zip(sequencer.registers, shifts, strict=True)]
        for frame in sequencer.frames:
            frame.turn += period.frames.get(id(frame), 0) * times
        if new.waits is not None:
            index, value = new.waits
            wanted = value + period.semaphores[index] * times
            sequencer.wait = index, wanted
            self.run.waiting[index] = [(wanted, row[1]) if row[1] is sequencer else row for row in self.run.waiting[index]]

    def events(self) -> None:
        """Events to come, and whatever is taken until later than now."""
        run, ahead, now = self.run, self.ahead, self.run.now
        run.events = [(at + ahead, order, kind, what, node and self.node(node)) for at, order, kind, what, node in run.events]
        run.port_until[:] = [at + ahead if at > now else at for at in run.port_until]
        for times, nodes in ((run.dma_free, run.dma_last), (run.queue_next, run.queue_last)):
            nodes[:] = [self.node(node) if at > now else node for at, node in zip(times, nodes, strict=True)]
            times[:] = [at + ahead if at > now else at for at in times]
        run.hbm_free += ahead if run.hbm_free > now else 0
