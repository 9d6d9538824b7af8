"""From level 1: an instruction waits only for those it conflicts with (`conflicts.py`).

Each engine counts its completions in a semaphore of its own, so "P is done" is "P's engine has counted so
far", an affine function of the loop variables. A DMA has a semaphore of its own and at most one transfer outstanding on it:
its sixteen shares finish in any order, so a count over several transfers would not say which is done. A conflict with
an instruction that comes earlier in the body waits for this iteration's; with one that comes later, for the previous
iteration's; that covers all farther iterations, since counters only grow. At the end one engine waits for everything,
takes the region's semaphores back to 0 and counts one epoch (see nxcc.backends.assembly; nxcc.backends.berths says what
regions share). Semaphores of a plan are numbered as those of the lower berth.

Tiles that take turns are a loop (`slots`). There a transfer has a semaphore for each tile. Where iterations of such a loop can
only meet if they are the same, that iteration's end is awaited, not the last one's. Engines count in semaphores of the loop's
own: what they do before it, in an iteration of a loop around, would stand between its last round there and its first one here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nxcc.backends.berths import FIRST_OF_REGIONS
from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.synchronization.conflicts import Placed, Scalars, SlotsMeet, Touched, conflicts
from nxcc.backends.synchronization.extents import addressed, extents_of
from nxcc.backends.synchronization.plan import (
    ENGINE_SEMAPHORE,
    FIRST_TRANSFER_SEMAPHORE,
    Event,
    Plan,
    Users,
    site_key,
    sites_of,
)
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Loop, Op, Statement, TileProgram, View


def derived(program: TileProgram, users: Users, psum_bank_bytes: int, semaphores: int, shares: int) -> Plan | None:
    """Waits from conflicts only; None if the region has more transfers than there are semaphores for regions.

    shares: a DMA signals once for each of the target's DMA engines, whether it carries a share or not (hardware model 1.8,
    completion).
    """
    try:
        return _derived(program, users, psum_bank_bytes, semaphores, shares, rotates=True)
    except SlotsMeet:
        return _derived(program, users, psum_bank_bytes, semaphores, shares, rotates=False)


def _derived(program: TileProgram, users: Users, psum_bank_bytes: int, semaphores: int, shares: int,
             rotates: bool) -> Plan | None:
    """rotates: transfers have a semaphore for each slot."""
    placed: list[Placed] = []
    _place(program.body, (), users, placed, psum_bank_bytes, shares)
    transfers = [p for p in placed if p.site.is_dma]
    number = FIRST_TRANSFER_SEMAPHORE
    for p in transfers:
        p.slots = _slots_of(p) if rotates else ()
        p.semaphore = number
        number += p.semaphores
    groups: dict[tuple[Engine, int], int] = {}
    for p in placed if rotates else ():
        outermost = next((loop for loop in p.loops if loop.slots), None)
        if outermost is not None and not p.site.is_dma:
            p.semaphore = groups.setdefault((p.site.engine, id(outermost)), number + len(groups))
    number += len(groups)
    if number - FIRST_OF_REGIONS > semaphores:
        if rotates and (groups or any(p.slots for p in transfers)):
            raise SlotsMeet
        return None
    _count(program.body, users, {site_key(p.site): p for p in placed})
    plan = Plan(1, semaphores=number - FIRST_OF_REGIONS)
    known, touched, scalars = _Known(), Touched(placed), Scalars(program.body)
    for p in placed:
        events = known.reduce(p, conflicts(p, touched.overlapping(p), scalars))
        plan.waits[site_key(p.site)] = events
        plan.signals[site_key(p.site)] = (p.signal(p.here()), p.unit)
        plan.addressed[site_key(p.site)] = addressed(p.site)
    totals: dict[int, int] = {}
    for p in placed:
        if not p.site.is_dma:
            totals[p.semaphore] = totals.get(p.semaphore, 0) + math.prod(loop.count for loop in p.loops)
    plan.restore += [(semaphore, -count) for semaphore, count in sorted(totals.items())]
    for p in transfers:
        times = math.prod(loop.count for loop in p.loops) // p.semaphores
        plan.restore += [(p.semaphore + slot, -p.unit * times) for slot in range(p.semaphores)]
        plan.triggers |= dict.fromkeys(range(p.semaphore, p.semaphore + p.semaphores), p.site.engine)
    plan.drain = [(semaphore, Expr(-amount)) for semaphore, amount in plan.restore]
    return plan


def _slots_of(p: Placed) -> tuple[int, ...]:
    """The loops of slots in whose iterations a transfer has different tiles."""
    moving = {symbol for operand in p.site.statement.operands.values() if operand.memory is not Memory.HBM
              for symbol, _ in (operand.address if isinstance(operand, View) else operand.offset).terms
              } if isinstance(p.site.statement, Op) else set()
    return tuple(place for place, loop in enumerate(p.loops) if loop.slots and loop.symbol in moving)


def _place(statements: Sequence[Statement], loops: tuple[Loop, ...], users: Users, placed: list[Placed],
           psum_bank_bytes: int, shares: int) -> None:
    """Collect all sites in program order."""
    for statement in statements:
        if isinstance(statement, Loop):
            _place(statement.body, (*loops, statement), users, placed, psum_bank_bytes, shares)
            continue
        for site in sites_of(statement, users):
            unit = shares if site.is_dma else 1
            placed.append(Placed(site, loops, len(placed), extents_of(site, psum_bank_bytes), ENGINE_SEMAPHORE[site.engine],
                                  unit))


def _count(statements: Sequence[Statement], users: Users, by_key: dict[tuple[int, Engine], Placed]) -> None:
    """Fill in, for each site, its semaphore's count before it and the count of one iteration of each loop around it."""

    slots: dict[tuple[int, int], None] = {(p.semaphore, id(p.loops[place])): None for p in by_key.values() for place in p.slots}

    def walk(block: Sequence[Statement], before: dict[int, int], steps: tuple[dict[int, int], ...]) -> None:
        before = dict(before)
        for statement in block:
            if isinstance(statement, Loop):
                inner = _per_run(statement.body, users, by_key, slots)
                turn = {s: 0 if (s, id(statement)) in slots else count for s, count in inner.items()}
                walk(statement.body, before, (*steps, turn))
                for semaphore, count in inner.items():
                    times = 1 if (semaphore, id(statement)) in slots else statement.count
                    before[semaphore] = before.get(semaphore, 0) + count * times
                continue
            for site in sites_of(statement, users):
                p = by_key[site_key(site)]
                p.before = before.get(p.semaphore, 0)
                p.steps = tuple(step.get(p.semaphore, 0) for step in steps)
                before[p.semaphore] = p.before + 1

    walk(statements, {}, ())


def _per_run(block: Sequence[Statement], users: Users, by_key: dict[tuple[int, Engine], Placed],
             slots: dict[tuple[int, int], None]) -> dict[int, int]:
    """How often each semaphore is counted in one run of a block. slots: first semaphores and loops whose iterations have one
    each."""
    counts: dict[int, int] = {}
    for statement in block:
        if isinstance(statement, Loop):
            for semaphore, count in _per_run(statement.body, users, by_key, slots).items():
                times = 1 if (semaphore, id(statement)) in slots else statement.count
                counts[semaphore] = counts.get(semaphore, 0) + count * times
        else:
            for site in sites_of(statement, users):
                semaphore = by_key[site_key(site)].semaphore
                counts[semaphore] = counts.get(semaphore, 0) + 1
    return counts


class _Known:
    """Events that an engine has already waited for, earlier in the same run of the same block."""

    def __init__(self) -> None:
        self._of: dict[tuple[Engine, Index, object], list[tuple[tuple[Loop, ...], int]]] = {}

    def reduce(self, p: Placed, events: list[Event]) -> list[Event]:
        """The events that are not implied; remembers them."""
        kept = []
        for semaphore, value in sorted(events, key=lambda e: (expr(e[0]).constant, e[1].constant)):
            seen = self._of.setdefault((p.site.engine, semaphore, value.terms), [])
            if not any(constant >= value.constant and loops == p.loops[:len(loops)] for loops, constant in seen):
                kept.append((semaphore, value))
                seen.append((p.loops, value.constant))
        return kept
