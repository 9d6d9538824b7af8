"""A plan of waits: two are made, of one form.

`ordered.py`: one semaphore counts completions and every instruction waits for all before it; the plain judge of level 0.
`derived.py`: an instruction waits only for those it conflicts with.
"""

from __future__ import annotations

from dataclasses import field

from nxcc.backends.berths import FIRST_OF_REGIONS
from nxcc.backends.isa.program import Engine
from nxcc.backends.tile.expressions import Expr, Index, Symbol
from nxcc.backends.tile.program import Op, ScalarLoad, Statement
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
    triggers: of the semaphores of transfers, the engine that starts them.
    addressed: the address arguments through which a site reaches HBM. semaphores: how many of those of regions are used.
    """

    total: int
    waits: dict[tuple[int, Engine], list[Event]] = field(default_factory=dict)
    signals: dict[tuple[int, Engine], tuple[Index, int]] = field(default_factory=dict)
    drain: list[Event] = field(default_factory=list)
    restore: list[tuple[int, int]] = field(default_factory=list)
    triggers: dict[int, Engine] = field(default_factory=dict)
    addressed: dict[tuple[int, Engine], frozenset[Symbol]] = field(default_factory=dict)
    semaphores: int = 0

    @property
    def overlaps(self) -> bool:
        """Whether the region's semaphores are its own, so that another may run beside it."""
        return bool(self.restore)


def site_key(site: Site) -> tuple[int, Engine]:
    return id(site.statement), site.engine


Users = dict[Symbol, frozenset[Engine]]


def sites_of(statement: Statement, users: Users) -> list[Site]:
    if isinstance(statement, Op):
        return [Site(statement, statement.engine)]
    if isinstance(statement, ScalarLoad):
        return [Site(statement, e) for e in sorted(users.get(statement.symbol, ()), key=lambda e: e.value)]
    return []
