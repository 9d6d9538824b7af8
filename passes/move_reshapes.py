"""Move reshapes out of the way of chains of work.

Before:
  x: f32[2,32,64]    r = f32[64,64] reshape(x)    d = f32[64,16] dot(r, w)    b = f32[64,16] broadcast(bias), dimensions={1}
  s = f32[64,16] add(d, b)    ROOT y = f32[2,32,16] reshape(s)
After:
  d = f32[2,32,16] dot(x, w)    b = f32[2,32,16] broadcast(bias), dimensions={2}    ROOT s = f32[2,32,16] add(d, b)

Frameworks flatten rows before a product and unflatten them after it; attention merges batches and heads. Each such pair cuts
a region in two. A reshape moves towards the results through elementwise work, reductions and products, until it meets its
inverse, a transpose that mixes its parts, or an output.
"""

from __future__ import annotations

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Module
from nxcc.passes.rewriting import rewrite_module, rules_by_opcode
from nxcc.passes.rules import motion, movement

RULES = (*movement.RULES, *motion.RULES)
_TABLE = rules_by_opcode(RULES)


@dataclass(frozen=True)
class MoveReshapes:
    name: str = "move-reshapes"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)
