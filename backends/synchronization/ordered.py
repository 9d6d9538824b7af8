"""Level 0: one semaphore counts completions, and every instruction waits for all before it."""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.backends.berths import EPOCH
from nxcc.backends.isa.program import Engine
from nxcc.backends.synchronization.plan import BASE, Plan, Users, site_key, sites_of
from nxcc.backends.tile.expressions import Expr
from nxcc.backends.tile.program import Loop, Statement, TileProgram


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
        sites = sites_of(statement, users)
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
            total += sum(shares if site.is_dma else 1 for site in sites_of(statement, users))
    return total
