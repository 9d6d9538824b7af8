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
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from nxcc.backends.berths import EPOCH, FIRST_OF_REGIONS
from nxcc.backends.dependence import Block, meet
from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.tile.expressions import Expr, Symbol
from nxcc.backends.tile.program import Access, Loop, Op, ScalarLoad, Statement, TileProgram, View
from nxcc.ir.facts import dataclass

BASE = Symbol("base", "argument", 0, 0)
"""The count of the epoch semaphore when a region begins; every engine keeps it in a register."""

ENGINE_SEMAPHORE = {engine: FIRST_OF_REGIONS + index for index, engine in enumerate(Engine)}
FIRST_TRANSFER_SEMAPHORE = FIRST_OF_REGIONS + len(ENGINE_SEMAPHORE)

Event = tuple[int, Expr]
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
    signals: dict[tuple[int, Engine], tuple[int, int]] = field(default_factory=dict)
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
    """A site with its loops (outermost first), place in program order, extents, and count before it on its semaphore."""

    site: Site
    loops: tuple[Loop, ...]
    order: int
    extents: list[_Extent]
    semaphore: int
    unit: int
    before: int = 0
    steps: tuple[int, ...] = ()

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
    placed: list[_Placed] = []
    totals = _place(program.body, (), users, placed, psum_bank_bytes, shares)
    transfers = [p for p in placed if p.site.is_dma]
    if len(ENGINE_SEMAPHORE) + len(transfers) > semaphores:
        return None
    for number, p in enumerate(transfers):
        p.semaphore = FIRST_TRANSFER_SEMAPHORE + number
    _count(program.body, users, {site_key(p.site): p for p in placed})
    plan = Plan(1, semaphores=len(ENGINE_SEMAPHORE) + len(transfers))
    known, touched = _Known(), _Touched(placed)
    for p in placed:
        events = known.reduce(p, _conflicts(p, touched.overlapping(p)))
        plan.waits[site_key(p.site)] = events
        plan.signals[site_key(p.site)] = (p.semaphore, p.unit)
        plan.addressed[site_key(p.site)] = _addressed(p.site)
    for engine, count in totals.items():
        if count:
            plan.restore.append((ENGINE_SEMAPHORE[engine], -count))
    for p in transfers:
        plan.restore.append((p.semaphore, -p.unit * _product(p.loops)))
    plan.drain = [(semaphore, Expr(-amount)) for semaphore, amount in plan.restore]
    return plan


def _product(loops: Sequence[Loop]) -> int:
    total = 1
    for loop in loops:
        total *= loop.count
    return total


def _place(statements: Sequence[Statement], loops: tuple[Loop, ...], users: Users, placed: list[_Placed],
           psum_bank_bytes: int, shares: int) -> dict[Engine, int]:
    """Collect all sites in program order; returns how often each engine's semaphore is counted in one run of the block."""
    totals: dict[Engine, int] = dict.fromkeys(Engine, 0)
    for statement in statements:
        if isinstance(statement, Loop):
            inner = _place(statement.body, (*loops, statement), users, placed, psum_bank_bytes, shares)
            for engine, count in inner.items():
                totals[engine] += count * statement.count
            continue
        for site in _sites(statement, users):
            unit = shares if site.is_dma else 1
            placed.append(_Placed(site, loops, len(placed), _extents(site, psum_bank_bytes), ENGINE_SEMAPHORE[site.engine],
                                  unit))
            if not site.is_dma:
                totals[site.engine] += 1
    return totals


def _count(statements: Sequence[Statement], users: Users, by_key: dict[tuple[int, Engine], _Placed]) -> None:
    """Fill in, for each site, its semaphore's count before it and the count of one iteration of each loop around it."""

    def walk(block: Sequence[Statement], before: dict[int, int], steps: tuple[dict[int, int], ...]) -> None:
        before = dict(before)
        for statement in block:
            if isinstance(statement, Loop):
                inner = _per_run(statement.body, users, by_key)
                walk(statement.body, before, (*steps, inner))
                for semaphore, count in inner.items():
                    before[semaphore] = before.get(semaphore, 0) + count * statement.count
                continue
            for site in _sites(statement, users):
                p = by_key[site_key(site)]
                p.before = before.get(p.semaphore, 0)
                p.steps = tuple(step.get(p.semaphore, 0) for step in steps)
                before[p.semaphore] = p.before + 1

    walk(statements, {}, ())


def _per_run(block: Sequence[Statement], users: Users, by_key: dict[tuple[int, Engine], _Placed]) -> dict[int, int]:
    """How often each semaphore is counted in one run of a block."""
    counts: dict[int, int] = {}
    for statement in block:
        if isinstance(statement, Loop):
            for semaphore, count in _per_run(statement.body, users, by_key).items():
                counts[semaphore] = counts.get(semaphore, 0) + count * statement.count
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
        low, high, block = low // psum_bank_bytes * psum_bank_bytes, -(-high // psum_bank_bytes) * psum_bank_bytes, None
    return _Extent(access.memory, access.partition, access.partition + access.partitions, low, high, writes, block)


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
    """Who touches what, by memory or buffer: only those are compared that can meet."""

    def __init__(self, placed: Sequence[_Placed]) -> None:
        self.placed = placed
        self.readers: dict[object, list[tuple[_Extent, int, Engine | None]]] = {}
        self.writers: dict[object, list[tuple[_Extent, int, Engine | None]]] = {}
        for p in placed:
            in_order_on = None if p.site.is_dma else p.site.engine
            for extent in p.extents:
                rows = self.writers if extent.writes else self.readers
                rows.setdefault(extent.key, []).append((extent, p.order, in_order_on))

    def overlapping(self, p: _Placed) -> list[tuple[_Placed, Pairs]]:
        """Sites that touch a byte of p's, one of the two writing it, in program order, and where; a transfer is among its own.

        What p's engine itself does in order is left out.
        """
        found: dict[int, Pairs] = {p.order: []} if p.site.is_dma else {}
        engine = p.site.engine
        for mine in p.extents:
            first, last, low, high = mine.first_partition, mine.last_partition, mine.low, mine.high
            for rows in (self.writers, self.readers) if mine.writes else (self.writers,):
                for other, order, in_order_on in rows.get(mine.key, ()):
                    if in_order_on is not engine and low < other.high and other.low < high \
                            and first < other.last_partition and other.first_partition < last:
                        found.setdefault(order, []).append((mine, other))
        return [(self.placed[order], found[order]) for order in sorted(found)]


def _conflicts(p: _Placed, overlapping: Sequence[tuple[_Placed, Pairs]]) -> list[Event]:
    """What must be done before p starts: per semaphore the latest conflicting event of this iteration, and of the previous
    iteration of each loop around p (the inner one's says nothing when the inner loop has just begun)."""
    latest: dict[tuple[int, int], _Placed] = {}
    known: dict[int, int] = {}
    for other, pairs in reversed(overlapping):
        # The latest of each depth counts: once all depths of a semaphore are found, earlier sites add nothing.
        if known.get(other.semaphore, 0) > len(p.loops):
            continue
        depth = _conflict(p, other, pairs)
        if depth is not None and (other.semaphore, depth) not in latest:
            latest[other.semaphore, depth] = other
            known[other.semaphore] = known.get(other.semaphore, 0) + 1
    events = []
    for (semaphore, depth), other in sorted(latest.items(), key=lambda row: row[0]):
        common = len(_common(p.loops, other.loops)) if depth == SAME else depth
        at = [Expr(0, ((loop.symbol, 1),)) if place < common else Expr(loop.count - 1)
              for place, loop in enumerate(other.loops)]
        if depth != SAME:
            at[depth - 1] = at[depth - 1] + -1
        events.append((semaphore, other.done(at)))
    return events


def _conflict(p: _Placed, other: _Placed, pairs: Pairs) -> int | None:
    """The depth of the latest run of `other` that p must wait for; None if there is none.

    A transfer waits for its own previous run, whatever it touches: its semaphore counts one at a time.
    """
    if other is p:
        return len(p.loops) or None
    common = _common(p.loops, other.loops)
    if other.order < p.order and any(_meet(a, b, common, None) for a, b in pairs):
        return SAME
    for depth in range(len(common), 0, -1):
        if any(_meet(a, b, common[:depth - 1], common[depth - 1]) for a, b in pairs):
            return depth
    return None


def _meet(later: _Extent, earlier: _Extent, equal: Sequence[Loop], carried: Loop | None) -> bool:
    if later.block is None or earlier.block is None:
        return True
    return meet(later.block, earlier.block, dict.fromkeys(loop.symbol for loop in equal),
                None if carried is None else (carried.symbol, carried.count))


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
        self._of: dict[tuple[Engine, int, object], list[tuple[tuple[Loop, ...], int]]] = {}

    def reduce(self, p: _Placed, events: list[Event]) -> list[Event]:
        """The events that are not implied; remembers them."""
        kept = []
        for semaphore, value in sorted(events, key=lambda e: (e[0], e[1].constant)):
            seen = self._of.setdefault((p.site.engine, semaphore, value.terms), [])
            if not any(constant >= value.constant and loops == p.loops[:len(loops)] for loops, constant in seen):
                kept.append((semaphore, value))
                seen.append((p.loops, value.constant))
        return kept
