"""Algebra and shape operators in their simplest form, until no rule fits.

Before:
  r = f32[1,4] reshape(bias)    b = f32[1,4] broadcast(r), dimensions={0,1}    s = f32[4] reshape(b)
  c = f32[3,4] broadcast(s), dimensions={1}    z = f32[3,4] convert(c)    ROOT n = f32[3,4] negate(negate(z))
After:
  ROOT c = f32[3,4] broadcast(bias), dimensions={1}

Loops give what they only hand on, and what they only count to. The rules are in `nxcc.passes.rules`; each keeps every bit of
the result, but for powers as products.
"""

from __future__ import annotations

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Module
from nxcc.passes.rewriting import rewrite_module, rules_by_opcode
from nxcc.passes.rules import arithmetic, loops, movement, windows

RULES = (*arithmetic.RULES, *movement.RULES, *loops.RULES, *windows.RULES)
_TABLE = rules_by_opcode(RULES)


@dataclass(frozen=True)
class Simplify:
    name: str = "simplify"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)
