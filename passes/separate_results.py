"""Give a result that is a parameter, of which one has another dtype for the user, a value of its own.

Before:  module frontend_attributes={nxcc.output.0="s64"}    ROOT p = s32[] parameter(0)
After:   ROOT c = s32[] copy(p)

Outside, parameter and result keep the dtypes that the input module gave them; one value could have only one of the two.
"""

from __future__ import annotations

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.marks import INTERFACE, OUTPUT
from nxcc.ir.hlo.module import Module
from nxcc.passes.rewriting import settle


@dataclass(frozen=True)
class SeparateResults:
    name: str = "separate-results"

    def run(self, module: Module) -> bool:
        entry = module.entry
        root = entry.root
        leaves = root.operands if root.opcode == "tuple" else (root,)
        if not all(leaf.shape.is_array for leaf in leaves):
            return False
        changed = [leaf.opcode == "parameter"
                   and (f"{OUTPUT}{number}" in module.frontend_attributes or INTERFACE in leaf.frontend_attributes)
                   for number, leaf in enumerate(leaves)]
        if not any(changed):
            return False
        builder = Builder(entry)
        values = [builder.make("copy", leaf) if own else leaf for leaf, own in zip(leaves, changed, strict=True)]
        if root.opcode == "tuple":
            entry.set_operands(root, values)
        else:
            entry.root = values[0]
        settle(entry)
        return True
