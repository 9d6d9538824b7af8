"""Where a region's SBUF lies that reaches into what the region before has: what it loads first lies where that one has nothing.

Its memory is cut in two parts, and the front part lies behind the other: of all cuts that no operand crosses, the one that lets
most be loaded before an engine has to wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from nxcc.backends.assembly import scalar_users
from nxcc.backends.berths import Entrance
from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.synchronization.extents import addressed, operands_of, span
from nxcc.backends.synchronization.plan import Site, Users, sites_of
from nxcc.backends.tile.expressions import Symbol
from nxcc.backends.tile.program import Loop, Op, Statement, TileProgram
from nxcc.ir.facts import dataclass


@dataclass(frozen=True, slots=True)
class Reach:
    """What an engine touches at a place in the program: bytes of SBUF, PSUM, arguments. loads: bytes of a partition that it
    brings."""

    engine: Engine
    spans: tuple[tuple[int, int], ...]
    psum: bool
    arguments: frozenset[Symbol]
    loads: int


def reaches_of(program: TileProgram) -> list[Reach]:
    """All places, in order."""
    return list(_reaches(program.body, scalar_users(program.body)))


def lapped(program: TileProgram, reaches: Sequence[Reach], align: int, entrance: Entrance) -> Entrance:
    """The entrance with the best cut of the region's memory."""
    late = frozenset(program.arguments[number] for number in entrance.after)
    cuts = [cut for cut in _cuts(reaches) if cut % align == 0]
    found = [replace(entrance, front=cut) for cut in cuts]
    return max([entrance, *found], key=lambda one: (_early(reaches, one, late), -one.front))


def _early(reaches: Sequence[Reach], entrance: Entrance, late: frozenset[Symbol]) -> int:
    """Bytes of a partition that are loaded before the engine that starts it waits for the region before."""
    low, high = entrance.taken
    waiting: set[Engine] = set()
    early = 0
    for reach in reaches:
        if reach.engine in waiting:
            continue
        places = [(entrance.place(first), last - first) for first, last in reach.spans]
        if reach.psum and entrance.shares_psum or not late.isdisjoint(reach.arguments) \
                or any(place < high and low < place + size for place, size in places):
            waiting.add(reach.engine)
        else:
            early += reach.loads
    return early


def _cuts(reaches: Sequence[Reach]) -> Iterator[int]:
    """Bytes between what operands touch, on neither side of which an operand reaches across."""
    reached = 0
    for low, high in sorted({one for reach in reaches for one in reach.spans}):
        if low >= reached > 0:
            yield low
        reached = max(reached, high)


def _reaches(statements: Sequence[Statement], users: Users) -> Iterator[Reach]:
    for statement in statements:
        if isinstance(statement, Loop):
            yield from _reaches(statement.body, users)
            continue
        for site in sites_of(statement, users):
            yield _reach(site)


def _reach(site: Site) -> Reach:
    operands = operands_of(site.statement)
    spans = tuple(span(o) for o in operands if o.memory is Memory.SBUF)
    brings = isinstance(site.statement, Op) and site.is_dma and any(o.memory is Memory.HBM for o in operands) \
        and site.statement.operands["destination"].memory is Memory.SBUF
    loads = sum(high - low for low, high in spans) if brings else 0
    return Reach(site.engine, spans, any(o.memory is Memory.PSUM for o in operands), addressed(site), loads)
