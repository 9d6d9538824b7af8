"""What waits for what inside a region: derived from the tile program, never written by a lowering rule.

Two plans of the same form. `ordered`: one semaphore counts completions and every instruction waits for all before it; the
plain judge of level 0. `derived`: an instruction waits only for those it conflicts with.

The derived plan. Each engine counts its completions in a semaphore of its own, so "P is done" is "P's engine has counted so
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

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import field, replace

from nxcc.backends.berths import EPOCH, FIRST_OF_REGIONS
from nxcc.backends.dependence import Apart, Block, meet
from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.tile.expressions import Expr, Index, Symbol, expr
from nxcc.backends.tile.program import Access, Loop, Op, ScalarLoad, ScalarOp, Statement, TileProgram, View
from nxcc.ir.facts import dataclass

BASE = Symbol("base", "argument", 0, 0)
"""The count of the epoch semaphore when a region begins; every engine keeps it in a register."""

ENGINE_SEMAPHORE = {engine: FIRST_OF_REGIONS + index for index, engine in enumerate(Engine)}
FIRST_TRANSFER_SEMAPHORE = FIRST_OF_REGIONS + len(ENGINE_SEMAPHORE)

Event = tuple[Index, Expr]
"""A semaphore and the value it must have reached."""


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the program where one engine executes: an instruction, or one engine's part of a scalar load."""

    statement: Op | ScalarLoad
    engine: Engine

    @property
    def is_dma(self) -> bool:
        return isinstance(self.statement, Op) and self.statement.is_dma


@dataclass()
class Plan:
    """waits and signals of each site; total: by how much a call advances the epoch semaphore.

    drain, restore: what is awaited at the end, and by how much semaphores then change; empty in the plan of level 0.
    addressed: the address arguments through which a site reaches HBM. semaphores: how many of those of regions are used.
    """

    total: int
    waits: dict[tuple[int, Engine], list[Event]] = field(default_factory=dict)
    signals: dict[tuple[int, Engine], tuple[Index, int]] = field(default_factory=dict)
    drain: list[Event] = field(default_factory=list)
    restore: list[tuple[int, int]] = field(default_factory=list)
    addressed: dict[tuple[int, Engine], frozenset[Symbol]] = field(default_factory=dict)
    semaphores: int = 0

    @property
    def overlaps(self) -> bool:
        """Whether the region's semaphores are its own, so that another may run beside it."""
        return bool(self.restore)


def site_key(site: Site) -> tuple[int, Engine]:
    return id(site.statement), site.engine


Users = dict[Symbol, frozenset[Engine]]


def _sites(statement: Statement, users: Users) -> list[Site]:
    if isinstance(statement, Op):
        return [Site(statement, statement.engine)]
    if isinstance(statement, ScalarLoad):
        return [Site(statement, e) for e in sorted(users.get(statement.symbol, ()), key=lambda e: e.value)]
    return []


# ---- level 0 -------------------------------------------------------------------------------------------------------


def ordered(program: TileProgram, users: Users, shares: int) -> Plan:
    """Everything in program order; shares: see `derived`.

    The engine that has just finished an instruction of its own need not wait for it.
    """
    plan = Plan(0)
    plan.total = _ordered_block(program.body, Expr(0, ((BASE, 1),)), users, plan, shares)
    return plan


def _ordered_block(statements: Sequence[Statement], start: Expr, users: Users, plan: Plan, shares: int) -> int:
    position = 0
    previous: Engine | None = None
    for statement in statements:
        here = start + position
        if isinstance(statement, Loop):
            body = _completions(statement.body, users, shares)
            _ordered_block(statement.body, here + Expr(0, ((statement.symbol, body),)), users, plan, shares)
            position += body * statement.count
            previous = None
            continue
        sites = _sites(statement, users)
        for site in sites:
            amount = shares if site.is_dma else 1
            plan.waits[site_key(site)] = [] if previous is site.engine and len(sites) == 1 else [(EPOCH, here)]
            plan.signals[site_key(site)] = (EPOCH, amount)
            position += amount
        if sites:
            previous = sites[0].engine if len(sites) == 1 and not sites[0].is_dma else None
    return position


def _completions(statements: Sequence[Statement], users: Users, shares: int) -> int:
    """How often a block signals in the ordered plan."""
    total = 0
    for statement in statements:
        if isinstance(statement, Loop):
            total += statement.count * _completions(statement.body, users, shares)
        else:
            total += sum(shares if site.is_dma else 1 for site in _sites(statement, users))
    return total


# ---- derived -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Extent:
    """Bytes an operand may touch: key separates memories (and HBM buffers), partitions and bytes are half-open ranges over all
    iterations; block: the bytes of one iteration, where more than the range is known."""

    key: object
    first_partition: int
    last_partition: int
    low: int
    high: int
    writes: bool
    block: Block | None = None


@dataclass(slots=True)
class _Placed:
    """A site with its loops (outermost first), place in program order, extents, and count before it on its semaphore.

    slots: which of the loops have a semaphore for each iteration, of which `semaphore` is the first; of transfers only.
    """

    site: Site
    loops: tuple[Loop, ...]
    order: int
    extents: list[_Extent]
    semaphore: int
    unit: int
    before: int = 0
    steps: tuple[int, ...] = ()
    slots: tuple[int, ...] = ()

    @property
    def semaphores(self) -> int:
        """How many it has."""
        return math.prod(self.loops[place].count for place in self.slots)

    def signal(self, at: Sequence[Expr]) -> Index:
        """The semaphore that it counts in the iteration `at`."""
        found, factor = expr(self.semaphore), 1
        for place in reversed(self.slots):
            found = found + at[place] * factor
            factor *= self.loops[place].count
        return found if found.terms else found.constant

    def here(self) -> list[Expr]:
        """The iteration in which it is."""
        return [Expr(0, ((loop.symbol, 1),)) for loop in self.loops]

    def done(self, at: Sequence[Expr]) -> Expr:
        """The semaphore's value once this site has completed in the iteration `at` (one index per loop)."""
        value = Expr((self.before + 1) * self.unit)
        for step, index in zip(self.steps, at, strict=True):
            value = value + index * (step * self.unit)
        return value


def derived(program: TileProgram, users: Users, psum_bank_bytes: int, semaphores: int, shares: int) -> Plan | None:
    """Waits from conflicts only; None if the region has more transfers than there are semaphores for regions.

    shares: a DMA signals once for each of the target's DMA engines, whether it carries a share or not (hardware model 1.8,
    completion).
    """
    try:
        return _derived(program, users, psum_bank_bytes, semaphores, shares, rotates=True)
    except _SlotsMeet:
        return _derived(program, users, psum_bank_bytes, semaphores, shares, rotates=False)


class _SlotsMeet(Exception):
    """A transfer of one slot must be awaited in another: counts of several semaphores do not say that it is done."""


def _derived(program: TileProgram, users: Users, psum_bank_bytes: int, semaphores: int, shares: int,
             rotates: bool) -> Plan | None:
    """rotates: transfers have a semaphore for each slot."""
    placed: list[_Placed] = []
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
            raise _SlotsMeet
        return None
    _count(program.body, users, {site_key(p.site): p for p in placed})
    plan = Plan(1, semaphores=number - FIRST_OF_REGIONS)
    known, touched, scalars = _Known(), _Touched(placed), _Scalars(program.body)
    for p in placed:
        events = known.reduce(p, _conflicts(p, touched.overlapping(p), scalars))
        plan.waits[site_key(p.site)] = events
        plan.signals[site_key(p.site)] = (p.signal(p.here()), p.unit)
        plan.addressed[site_key(p.site)] = _addressed(p.site)
    totals: dict[int, int] = {}
    for p in placed:
        if not p.site.is_dma:
            totals[p.semaphore] = totals.get(p.semaphore, 0) + math.prod(loop.count for loop in p.loops)
    plan.restore += [(semaphore, -count) for semaphore, count in sorted(totals.items())]
    for p in transfers:
        times = math.prod(loop.count for loop in p.loops) // p.semaphores
        plan.restore += [(p.semaphore + slot, -p.unit * times) for slot in range(p.semaphores)]
    plan.drain = [(semaphore, Expr(-amount)) for semaphore, amount in plan.restore]
    return plan


def _slots_of(p: _Placed) -> tuple[int, ...]:
    """The loops of slots in whose iterations a transfer has different tiles."""
    moving = {symbol for operand in p.site.statement.operands.values() if operand.memory is not Memory.HBM
              for symbol, _ in (operand.address if isinstance(operand, View) else operand.offset).terms
              } if isinstance(p.site.statement, Op) else set()
    return tuple(place for place, loop in enumerate(p.loops) if loop.slots and loop.symbol in moving)


class _Scalars:
    """What is known of run-time scalars. loops: those inside which each is computed, so that it has one value in an iteration
    of them. parities: those that are a loop's variable modulo 2."""

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.loops: dict[Symbol, tuple[Loop, ...]] = {}
        self.parities: dict[Symbol, Symbol] = {}
        self._read(statements, ())

    def _read(self, statements: Sequence[Statement], loops: tuple[Loop, ...]) -> None:
        for statement in statements:
            if isinstance(statement, Loop):
                self._read(statement.body, (*loops, statement))
            elif isinstance(statement, ScalarLoad | ScalarOp):
                self.loops[statement.symbol] = loops
            if isinstance(statement, ScalarOp) and statement.op == "modulo" and statement.b == Expr(2):
                if loops and statement.a == Expr(0, ((loops[-1].symbol, 1),)):
                    self.parities[statement.symbol] = loops[-1].symbol

    def steady(self, block: Block, equal: Sequence[Loop]) -> list[Symbol]:
        """Scalars in a block's address that have one value in an iteration of these loops."""
        return [symbol for symbol, _ in block.address.terms if symbol in self.loops and len(self.loops[symbol]) <= len(equal)
                and all(a is b for a, b in zip(self.loops[symbol], equal, strict=False))]

    def before(self, block: Block, carried: Loop) -> tuple[Block, list[Symbol]]:
        """A block as it is in the iteration before, in terms of this one's parities; and these."""
        constant, terms, flipped = block.address.constant, [], []
        for symbol, factor in block.address.terms:
            if self.parities.get(symbol) is carried.symbol:
                constant, factor = constant + factor, -factor
                flipped.append(symbol)
            terms.append((symbol, factor))
        return Block(Expr(constant, tuple(terms)), block.dims, block.bytes), flipped


def _place(statements: Sequence[Statement], loops: tuple[Loop, ...], users: Users, placed: list[_Placed],
           psum_bank_bytes: int, shares: int) -> None:
    """Collect all sites in program order."""
    for statement in statements:
        if isinstance(statement, Loop):
            _place(statement.body, (*loops, statement), users, placed, psum_bank_bytes, shares)
            continue
        for site in _sites(statement, users):
            unit = shares if site.is_dma else 1
            placed.append(_Placed(site, loops, len(placed), _extents(site, psum_bank_bytes), ENGINE_SEMAPHORE[site.engine],
                                  unit))


def _count(statements: Sequence[Statement], users: Users, by_key: dict[tuple[int, Engine], _Placed]) -> None:
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
            for site in _sites(statement, users):
                p = by_key[site_key(site)]
                p.before = before.get(p.semaphore, 0)
                p.steps = tuple(step.get(p.semaphore, 0) for step in steps)
                before[p.semaphore] = p.before + 1

    walk(statements, {}, ())


def _per_run(block: Sequence[Statement], users: Users, by_key: dict[tuple[int, Engine], _Placed],
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
            for site in _sites(statement, users):
                semaphore = by_key[site_key(site)].semaphore
                counts[semaphore] = counts.get(semaphore, 0) + 1
    return counts


def _extents(site: Site, psum_bank_bytes: int) -> list[_Extent]:
    statement = site.statement
    if isinstance(statement, ScalarLoad):
        return [_view_extent(statement.source, False)]
    found = []
    for name, operand in statement.operands.items():
        access = statement.spec.operand(name).access
        for writes in (True,) if access == "w" else (False,) if access == "r" else (True, False):
            if isinstance(operand, View):
                found.append(_view_extent(operand, writes, indirect=_is_indirect(statement, name)))
            else:
                found.append(_access_extent(operand, writes, psum_bank_bytes))
    return found


def _addressed(site: Site) -> frozenset[Symbol]:
    """Arguments in the addresses of the HBM views that a site reads or writes."""
    statement = site.statement
    operands = [statement.source] if isinstance(statement, ScalarLoad) else statement.operands.values()
    return frozenset(symbol for operand in operands if isinstance(operand, View) and operand.memory is Memory.HBM
                     for symbol, _ in operand.address.terms if symbol.kind == "argument")


def _is_indirect(op: Op, name: str) -> bool:
    """An index vector decides which rows a gather reads or a scatter writes: the whole buffer may be touched."""
    return "indices" in op.operands and name == ("source" if op.spec.name == "dma_gather" else "destination")


def _access_extent(access: Access, writes: bool, psum_bank_bytes: int) -> _Extent:
    size = access.dtype.byte_size
    block: Block | None = Block(access.offset, tuple((stride * size, n) for stride, n in access.dims), size)
    assert block is not None
    low, high = block.bounds()
    if access.memory is Memory.PSUM:
        low, high = low // psum_bank_bytes * psum_bank_bytes, -(-high // psum_bank_bytes) * psum_bank_bytes
        block = _banks(block, psum_bank_bytes)
    return _Extent(access.memory, access.partition, access.partition + access.partitions, low, high, writes, block)


def _banks(block: Block, bank: int) -> Block | None:
    """The whole banks that a block of PSUM lies in, where loops step from bank to bank; others may step within them."""
    outer = tuple(term for term in block.address.terms if term[1] % bank == 0)
    if not outer:
        return None
    inner = tuple(term for term in block.address.terms if term[1] % bank)
    low, high = Block(Expr(block.address.constant, inner), block.dims, block.bytes).bounds()
    first = low // bank * bank
    return Block(Expr(first, outer), (), -(-high // bank) * bank - first)


EVERYWHERE = 1 << 62


def _view_extent(view: View, writes: bool, indirect: bool = False) -> _Extent:
    """SBUF as a DMA sees it is split into partitions and bytes; HBM lies in the buffer of its argument."""
    if view.memory is Memory.SBUF:
        return _sbuf_extent(view, writes)
    base = tuple(s for s, _ in view.address.terms if s.kind == "argument")
    if indirect:
        return _Extent(base, 0, 1, -EVERYWHERE, EVERYWHERE, writes)
    rest = Expr(view.address.constant, tuple((s, c) for s, c in view.address.terms if s.kind != "argument"))
    block = Block(rest, view.dims, view.dtype.byte_size)
    return _Extent(base, 0, 1, *block.bounds(), writes, block)


def _sbuf_extent(view: View, writes: bool) -> _Extent:
    from nxcc.backends.isa.program import DMA_PARTITION_STRIDE as PITCH
    partition, offset = divmod(view.address.constant, PITCH)
    steps = [divmod(stride, PITCH) for stride, _ in view.dims]
    last = partition + sum(rows * (size - 1) for (rows, _), (_, size) in zip(steps, view.dims, strict=True))
    block = Block(Expr(offset, view.address.terms),
                  tuple((bytes_, size) for (_, bytes_), (_, size) in zip(steps, view.dims, strict=True)), view.dtype.byte_size)
    return _Extent(Memory.SBUF, partition, last + 1, *block.bounds(), writes, block)


SAME = 0
"""Depth of a conflict within one iteration of all common loops; above 0, the number of the common loop that carries it."""


Pairs = list[tuple[_Extent, _Extent]]
"""An extent of one site and one of another that share bytes in some iterations, one of them written."""


class _Touched:
    """Who touches what, by memory or buffer and there by areas: ranges of bytes over whose borders no extent reaches, as tiles
    are. Only extents of one area are compared."""

    def __init__(self, placed: Sequence[_Placed]) -> None:
        self.placed = placed
        ranges: dict[object, list[tuple[int, int]]] = {}
        for p in placed:
            for extent in p.extents:
                ranges.setdefault(extent.key, []).append((extent.low, extent.high))
        self.areas = {key: _areas(rows) for key, rows in ranges.items()}
        self.readers: dict[object, list[tuple[_Extent, int, Engine | None]]] = {}
        self.writers: dict[object, list[tuple[_Extent, int, Engine | None]]] = {}
        for p in placed:
            in_order_on = None if p.site.is_dma else p.site.engine
            for extent in p.extents:
                rows = self.writers if extent.writes else self.readers
                rows.setdefault(self._area(extent), []).append((extent, p.order, in_order_on))

    def _area(self, extent: _Extent) -> tuple[object, int]:
        return extent.key, bisect.bisect_right(self.areas[extent.key], extent.low)

    def overlapping(self, p: _Placed) -> list[tuple[_Placed, Pairs]]:
        """Sites that touch a byte of p's, one of the two writing it, in program order, and where; a transfer is among its own.

        What p's engine itself does in order is left out.
        """
        found: dict[int, Pairs] = {p.order: []} if p.site.is_dma else {}
        engine = p.site.engine
        for mine in p.extents:
            area = self._area(mine)
            first, last, low, high = mine.first_partition, mine.last_partition, mine.low, mine.high
            for rows in (self.writers, self.readers) if mine.writes else (self.writers,):
                for other, order, in_order_on in rows.get(area, ()):
                    if in_order_on is not engine and low < other.high and other.low < high \
                            and first < other.last_partition and other.first_partition < last:
                        found.setdefault(order, []).append((mine, other))
        return [(self.placed[order], found[order]) for order in sorted(found)]


def _areas(ranges: list[tuple[int, int]]) -> list[int]:
    """Where the ranges that overlap each other, directly or through others, begin."""
    starts: list[int] = []
    end = -EVERYWHERE
    for low, high in sorted(ranges):
        if not starts or low >= end:
            starts.append(low)
        end = max(end, high)
    return starts


Same = tuple[tuple[int, Symbol], ...]
"""Loops of another site, by place, whose iteration is known by a symbol of this one's."""


@dataclass(frozen=True, slots=True)
class _Conflict:
    """The latest run of another site that one must wait for.

    depth: see SAME. distance: how many iterations ago it was: 1, or 2 where tiles take turns by parity. same: of the loops
    inside that one.
    """

    depth: int
    distance: int = 0
    same: Same = ()

    @property
    def is_last(self) -> bool:
        """Whether it comes after all runs of farther iterations and of loops farther out."""
        return self.distance <= 1 and not self.same


def _conflicts(p: _Placed, overlapping: Sequence[tuple[_Placed, Pairs]], scalars: _Scalars) -> list[Event]:
    """What must be done before p starts: per semaphore the latest conflicting event of this iteration, and of the previous
    iteration of each loop around p (the inner one's says nothing when the inner loop has just begun)."""
    latest: dict[tuple[int, _Conflict], _Placed] = {}
    known: dict[int, int] = {}
    for other, pairs in reversed(overlapping):
        # The latest of each depth counts: once all depths of a semaphore are found, earlier sites add nothing.
        if known.get(other.semaphore, 0) > len(p.loops):
            continue
        for found in _conflicts_with(p, other, pairs, scalars):
            if (other.semaphore, found) not in latest:
                latest[other.semaphore, found] = other
                known[other.semaphore] = known.get(other.semaphore, 0) + found.is_last
    rows = sorted(latest.items(), key=lambda row: (row[0][0], row[0][1].depth, row[1].order))
    return [event for (_, found), other in rows for event in _events(p, other, found)]


def _events(p: _Placed, other: _Placed, found: _Conflict) -> Iterator[Event]:
    """The end of the run of `other` that p must wait for."""
    depth, same = found.depth, dict(found.same)
    common = len(_common(p.loops, other.loops)) if depth == SAME else depth
    at = [here if place < common else Expr(0, ((same[place], 1),)) if place in same else Expr(loop.count - 1)
          for place, (here, loop) in enumerate(zip(other.here(), other.loops, strict=True))]
    if depth != SAME:
        if depth - 1 in other.slots:
            raise _SlotsMeet
        at[depth - 1] = at[depth - 1] + -found.distance
    value = other.done(at)
    # What ends with the last iteration of a loop of slots has ended on all their semaphores.
    last = [place for place in other.slots if place >= common and place not in same]
    for slots in itertools.product(*(range(other.loops[place].count) for place in last)):
        for place, slot in zip(last, slots, strict=True):
            at[place] = Expr(slot)
        yield other.signal(at), value


def _conflicts_with(p: _Placed, other: _Placed, pairs: Pairs, scalars: _Scalars) -> Iterator[_Conflict]:
    """Conflicts with one other site, the latest first; farther ones only as far as the earlier do not cover them.

    A transfer waits for the previous run that counted its semaphore, whatever it touches: one at a time.
    """
    if other is p:
        depth = max((place for place in range(len(p.loops)) if place not in p.slots), default=-1) + 1
        if depth:
            yield _Conflict(depth, 1, tuple((place, p.loops[place].symbol) for place in p.slots if place >= depth))
        return
    common = _common(p.loops, other.loops)
    if other.order < p.order:
        meeting = [(a, b) for a, b in pairs if _meet(a, b, common, {}, scalars)]
        if meeting:
            yield _Conflict(SAME, 0, _same(p, other, meeting, common, {}, len(common), scalars))
            return
    for depth in range(len(common), 0, -1):
        outer, carried = common[:depth - 1], common[depth - 1]
        apart = {carried.symbol: (carried.count, True)}
        meeting = [(a, b) for a, b in pairs if _meet(a, b, outer, apart, scalars)]
        if meeting:
            distance = 1 if any(_meet_next(a, b, outer, carried, scalars) for a, b in meeting) else 2
            found = _Conflict(depth, distance, _same(p, other, meeting, outer, apart, len(common), scalars))
            yield found
            if found.is_last:
                return


def _same(p: _Placed, other: _Placed, meeting: Pairs, equal: Sequence[Loop], apart: Apart, common: int,
          scalars: _Scalars) -> Same:
    """Loops farther in, in which the two meet in the same iteration only: of their common loops, and of their own loops of
    slots that count alike. equal, apart: what is known of the loops outside."""
    found = []
    for place in range(len(equal) + len(apart), len(other.loops)):
        loop = other.loops[place]
        own = [one for one in p.loops[common:] if one.slots and loop.slots and one.count == loop.count]
        for one in own if place >= common else [loop]:
            pairs = meeting if one is loop else [(a, _renamed(b, loop.symbol, one.symbol)) for a, b in meeting]
            if not any(_meet(a, b, equal, {**apart, one.symbol: (one.count, ahead)}, scalars)
                       for a, b in pairs for ahead in (True, False)):
                found.append((place, one.symbol))
                break
    return tuple(found)


def _renamed(extent: _Extent, symbol: Symbol, to: Symbol) -> _Extent:
    """An extent whose address has another symbol for one."""
    if extent.block is None:
        return extent
    address = Expr(extent.block.address.constant, tuple((to if s is symbol else s, c) for s, c in extent.block.address.terms))
    return replace(extent, block=Block(address, extent.block.dims, extent.block.bytes))


def _meet(later: _Extent, earlier: _Extent, equal: Sequence[Loop], apart: Apart, scalars: _Scalars) -> bool:
    if later.block is None or earlier.block is None:
        return True
    same = dict.fromkeys(loop.symbol for loop in equal)
    same |= dict.fromkeys([*scalars.steady(later.block, equal), *scalars.steady(earlier.block, equal)])
    return meet(later.block, earlier.block, same, apart)


def _meet_next(later: _Extent, earlier: _Extent, equal: Sequence[Loop], carried: Loop, scalars: _Scalars) -> bool:
    """Whether they meet in iterations of a loop that follow each other; they do in some that differ."""
    if later.block is None or earlier.block is None:
        return True
    before, flipped = scalars.before(earlier.block, carried)
    if not flipped:
        return True
    same = dict.fromkeys(loop.symbol for loop in equal) | dict.fromkeys(flipped)
    return meet(later.block, before, same, {carried.symbol: (carried.count, True)})


def _common(a: Sequence[Loop], b: Sequence[Loop]) -> tuple[Loop, ...]:
    shared = []
    for left, right in zip(a, b, strict=False):
        if left is not right:
            break
        shared.append(left)
    return tuple(shared)


class _Known:
    """Events that an engine has already waited for, earlier in the same run of the same block."""

    def __init__(self) -> None:
        self._of: dict[tuple[Engine, Index, object], list[tuple[tuple[Loop, ...], int]]] = {}

    def reduce(self, p: _Placed, events: list[Event]) -> list[Event]:
        """The events that are not implied; remembers them."""
        kept = []
        for semaphore, value in sorted(events, key=lambda e: (expr(e[0]).constant, e[1].constant)):
            seen = self._of.setdefault((p.site.engine, semaphore, value.terms), [])
            if not any(constant >= value.constant and loops == p.loops[:len(loops)] for loops, constant in seen):
                kept.append((semaphore, value))
                seen.append((p.loops, value.constant))
        return kept
