"""The state of a timed run at one moment, and whether a later one is the same but for a distance in time and counts.

Times are compared by their distance from the moment. A time that has passed already where only later ones matter (DMA
engines, queues, ports, the share of HBM) counts as passed, whenever that was. What only counts on, registers, semaphores and
turns of loops, may differ by a distance of its own: whether all that is decided by them stays as it is, `shifts` proves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nxcc.backends.isa.program import Engine
from nxcc.ir.facts import dataclass

if TYPE_CHECKING:
    from nxcc.backends.simulator.events import Run
    from nxcc.backends.simulator.sequencer import Frame, Sequencer


@dataclass(frozen=True, slots=True)
class EngineState:
    """One engine. place: what must be equal; ready, free: ticks; recent: results under way; runs: times it went on;
    waits: the value that it waits for, if it does; turns, limits: of its open loops."""

    engine: Engine
    place: tuple[Any, ...]
    ready: int
    free: int
    recent: tuple[Any, ...]
    runs: int
    waits: tuple[int, int] | None
    turns: tuple[int, ...]
    frames: tuple[Frame, ...]
    registers: tuple[int, ...]
    busy: int


@dataclass(frozen=True, slots=True)
class State:
    """The whole run. later: events to come; past_or_later: times that matter only as far as they lie ahead."""

    now: int
    engines: tuple[EngineState, ...]
    later: tuple[tuple[Any, ...], ...]
    past_or_later: tuple[int, ...]
    owners: tuple[Any, ...]
    semaphores: tuple[int, ...]


def state_of(run: Run) -> State:
    """The run's state between two events."""
    now = run.now
    ahead = (*run.port_until, *run.dma_free, *run.queue_next, run.hbm_free)
    owners = tuple([owner if until > now else None for owner, until in zip(run.port_owner, run.port_until, strict=True)])
    later = tuple([(at - now, kind, *_plain(what)) for at, _, kind, what, _ in sorted(run.events, key=_order)])
    return State(now, tuple([_engine_state(sequencer, now) for sequencer in run.sequencers]), later,
                 tuple([at - now if at > now else 0 for at in ahead]), owners, tuple(run.semaphores))


def _order(event: tuple[int, int, int, Any, Any]) -> tuple[int, int]:
    return event[:2]


def _plain(what: Any) -> tuple[Any, ...]:
    """What an event carries, without what a timeline keeps of it."""
    return what[:3] if isinstance(what, tuple) and len(what) == 4 and not isinstance(what[0], tuple) else (what,)


def _engine_state(sequencer: Sequencer, now: int) -> EngineState:
    blocked = sequencer.is_waiting
    known = max(sequencer.ready, sequencer.free)
    recent = tuple([(soon - now, late - now, tuple(placed)) for soon, late, placed in sequencer.recent if late > known])
    frames = sequencer.frames
    back = sequencer.back
    place = (id(sequencer.steps), sequencer.at, back and (id(back[0]), *back[1:]), sequencer.region, sequencer.table,
             sequencer.done, blocked, sequencer.wait[0] if blocked else -1, frozenset(sequencer.unknown),
             tuple([(frame.register, frame.at, frame.limit) for frame in frames]))
    return EngineState(sequencer.engine, place, sequencer.ready - now, sequencer.free - now, recent, sequencer.runs,
                       sequencer.wait if blocked else None, tuple([frame.turn for frame in frames]), tuple(frames),
                       tuple(sequencer.registers), sequencer.busy)


def alike(before: State, after: State, loosely: bool = False) -> bool:
    """Whether what follows `after` will be what followed `before`, as far as times and places go.

    loosely: engines are at the same places and the same events are to come, whatever the distances in time.
    """
    if len(before.later) != len(after.later) or len(before.engines) != len(after.engines):
        return False
    distance = after.now - before.now
    if not all(_engine_alike(a, b, distance, loosely) for a, b in zip(before.engines, after.engines, strict=True)):
        return False
    if loosely:
        return [event[1:] for event in before.later] == [event[1:] for event in after.later]
    return before.later == after.later and before.past_or_later == after.past_or_later and before.owners == after.owners


def _engine_alike(before: EngineState, after: EngineState, distance: int, loosely: bool) -> bool:
    if before.place != after.place:
        return False
    if before.runs == after.runs or loosely:
        return True
    if before.ready != after.ready or before.recent != after.recent:
        return False
    return before.free == after.free or (before.free == after.free + distance and before.free <= before.ready)
