"""THE list of passes, in order, and the function that runs it.

Every pass takes a verified module, leaves a verified one, and says truly whether it changed anything. The driver owns
options, times and dumps; it is told about each pass through `observe`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from nxcc.ir.hlo.builder import Builder, inline_call
from nxcc.ir.hlo.module import Module
from nxcc.passes.cost import RowCapacity
from nxcc.passes.fusion import Fusion


class Pass(Protocol):
    """One rewriting step; a frozen dataclass whose fields are its options."""

    @property
    def name(self) -> str: ...

    def run(self, module: Module) -> bool:
        """Rewrite the module in place; whether anything changed."""


@dataclass(frozen=True)
class InlineCalls:
    """Before: `call`. After: the called instructions in its place, in every computation."""

    name: str = "inline-calls"

    def run(self, module: Module) -> bool:
        changed = False
        for computation in module.reachable():
            calls = [i for i in computation.instructions if i.opcode == "call"]
            if calls:
                builder = Builder(computation)
                for call in calls:
                    inline_call(call, builder)
                computation.sort()
                changed = True
        if changed:
            kept = set(module.reachable())
            module.computations = [c for c in module.computations if c in kept]
        return changed


@dataclass(frozen=True)
class Settings:
    """What decides which passes run: options, and the target's answers to their questions."""

    optlevel: int
    auto_cast: str
    auto_cast_type: str
    row_capacity: RowCapacity


def passes(settings: Settings) -> tuple[Pass, ...]:
    """The passes in order. Level 0 has only those without which nothing would run."""
    plain: tuple[Pass, ...] = (InlineCalls(),)
    return plain if settings.optlevel == 0 else (*plain, Fusion(settings.row_capacity))


PASS_NAMES = ("inline-calls", "fusion")
"""Names of all passes, in the order of the pipeline; a test holds them equal to what `passes` gives."""

Observe = Callable[[str, Module, bool], bool]
"""observe(pass name, module, changed) -> whether to go on."""


def _go_on(name: str, module: Module, changed: bool) -> bool:
    return True


def run_pipeline(module: Module, settings: Settings, *, disabled: Sequence[str] = (), observe: Observe = _go_on) -> None:
    """Run every pass that is not disabled, until `observe` says stop."""
    for row in passes(settings):
        if row.name not in disabled and not observe(row.name, module, row.run(module)):
            return
