"""Remove what nobody reads.

Before:
  p = f32[4] parameter(0)    unused = f32[4] add(p, p)    ROOT n = f32[4] negate(p)
After:
  p = f32[4] parameter(0)    ROOT n = f32[4] negate(p)

Parameters stay, since they are the interface, and so does whatever has a side effect. Computations that nothing calls go too.
"""

from __future__ import annotations

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Module
from nxcc.passes.effects import anchors
from nxcc.passes.rewriting import remove_unread


@dataclass(frozen=True)
class DeadCode:
    name: str = "dead-code"

    def run(self, module: Module) -> bool:
        changed = False
        for computation in module.reachable():
            changed |= remove_unread(computation, reversed(list(computation.instructions)), anchors(computation))
        return remove_uncalled(module) or changed


def remove_uncalled(module: Module) -> bool:
    """Drop computations that the entry does not reach; whether there were any."""
    kept = set(module.reachable())
    if len(kept) == len(module.computations):
        return False
    module.computations = [c for c in module.computations if c in kept]
    return True
