"""Products without the zeros that passes put into them.

Before, a convolution of 32 groups that were packed into one:
  ROOT r = f32[8,128,56,56] convolution(x, p), .., frontend_attributes={nxcc.groups="32"}
After:
  w = f32[128,4,3,3] the blocks of p
  ROOT r = f32[8,128,56,56] convolution(x, w), feature_group_count=32, ..

A zero changes no sum of finite values, so passes put it where work becomes one product by it. What is not finite becomes NaN
there. Each such pass marks the product with what it did and has the inverse beside it. It is no step of a compile: it is
asked for where a module that was compiled is to say what its operators mean for all values.
"""

from __future__ import annotations

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Names
from nxcc.ir.hlo.marks import GROUPS, SUMMED
from nxcc.ir.hlo.module import Module
from nxcc.passes import kernel_gradients, pack_groups
from nxcc.passes.rewriting import Rule, rewrite_computation, rules_by_opcode

MARKS = (GROUPS, SUMMED)
"""What such products have among their frontend attributes."""


@dataclass(frozen=True)
class AddedZeros:
    name: str = "added-zeros"

    def run(self, module: Module) -> bool:
        """In all computations, bodies of regions as well."""
        names = Names(module)
        marked = [computation for computation in module.computations
                  if any(mark in i.frontend_attributes for i in computation.instructions for mark in MARKS)]
        return any([rewrite_computation(computation, _TABLE, names) for computation in marked])


_TABLE = rules_by_opcode((Rule("apart", ("convolution",), pack_groups.apart),
                          Rule("rows-alone", ("dot",), kernel_gradients.of_rows_alone)))
