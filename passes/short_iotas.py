"""Count once what elementwise work reads repeated.

Before:
  i = s32[2048,30522] iota(), iota_dimension=1      m = pred[2048,30522] compare(x, i)
After:
  c = s32[30522] iota(), iota_dimension=0           i = s32[2048,30522] broadcast(c), dimensions={1}

A repeated row or column is no work inside a region, and a whole array of numbers would pass through memory.
"""

from __future__ import annotations

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.shapes import Shape
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode


@dataclass(frozen=True)
class ShortIotas:
    name: str = "short-iotas"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)


def _repeated(iota: Instruction, builder: Builder) -> Instruction | None:
    dims, along = iota.shape.dims, iota.attribute("iota_dimension")
    is_long = iota.shape.element_count > dims[along] > 0
    if not is_long or not iota.users or not all(user.operator.elementwise for user in iota.users):
        return None
    short = builder.make("iota", shape=Shape(iota.shape.dtype, (dims[along],)), iota_dimension=0)
    return builder.broadcast(short, dims, (along,))


_TABLE = rules_by_opcode((Rule("count-once", ("iota",), _repeated),))
