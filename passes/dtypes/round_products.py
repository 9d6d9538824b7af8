"""A product in the type that its only reader converts it to: sums are rounded once, where they leave the tensor engine.

Before:
  d = f32[4,6] dot(x, y), ..    r = bf16[4,6] convert(d)
After:
  r = bf16[4,6] dot(x, y), ..

The sums are f32 in both. A conversion that is not the only reader stays: the wide sums are needed anyway.
"""

from __future__ import annotations

from nxcc.ir.dtypes import BF16, F16, F32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.passes.rewriting import flow_computations, remove_unread, settle

NARROW = (BF16, F16)


@dataclass(frozen=True)
class RoundProducts:
    """Operands are of the narrow type themselves, or of another one that the product reads as it is."""

    name: str = "round-products"

    def run(self, module: Module) -> bool:
        changed, names = False, Names(module)
        for computation in flow_computations(module):
            rounded = [i for i in computation.post_order() if _rounds(i, computation)]
            for convert in rounded:
                product = convert.operands[0]
                shape = product.shape.with_dtype(convert.shape.dtype)
                builder = Builder(computation, convert.location, names)
                computation.replace(convert, builder.make("dot", *product.operands, shape=shape, **product.attributes))
                remove_unread(computation, (convert,))
            if rounded:
                settle(computation)
                changed = True
        return changed


def _rounds(convert: Instruction, computation: Computation) -> bool:
    if convert.opcode != "convert" or convert.shape.dtype not in NARROW:
        return False
    product = convert.operands[0]
    only_reader = len(product.users) == 1 and product is not computation.root
    return product.opcode == "dot" and product.shape.dtype is F32 and only_reader
