"""Products in a type that the tensor engine multiplies, where it does not multiply their own.

Before (an engine for bf16 and f16):
  d = f32[8,6] dot(x, c), ..    with x f32[8,20] and c bf16[20,6]
After:
  d = f32[8,6] dot(convert(x), c), ..

What the user asked to be cast has been cast by `autocast`; this is what is left, as products of operands of two types.
"""

from __future__ import annotations

from nxcc.ir.dtypes import BF16, F32, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.passes.dtypes.autocast import PRODUCTS, TYPES
from nxcc.passes.dtypes.casts import Casts
from nxcc.passes.notes import Report, note_at, unheard
from nxcc.passes.rewriting import flow_computations, remove_unread, settle


@dataclass(frozen=True)
class CastProducts:
    """dtypes: what the tensor engine multiplies, empty for anything; type: the word of the type that is cast to."""

    dtypes: frozenset[DType]
    type: str
    report: Report = unheard
    name: str = "cast-products"

    def run(self, module: Module) -> bool:
        if not self.dtypes or F32 in self.dtypes:
            return False
        dtype = TYPES.get(self.type, BF16)
        changed, names = False, Names(module)
        for computation in flow_computations(module):
            products = [i for i in computation.post_order() if self._needs_cast(i)]
            casts = Casts(Builder(computation, names=names), dtype)
            for product in products:
                old = product.operands
                computation.set_operands(product, [casts.of(operand) for operand in old])
                remove_unread(computation, old)
                self.report(note_at(self.name, product, f"operands are cast to {dtype}, which the tensor engine multiplies"))
            if products:
                settle(computation)
                changed = True
        return changed

    def _needs_cast(self, instruction: Instruction) -> bool:
        """A product of floats whose operands are not both of one type that is multiplied."""
        if instruction.opcode not in PRODUCTS or len(instruction.operands) != 2 or instruction.shape.dynamic:
            return False
        left, right = (operand.shape.dtype for operand in instruction.operands)
        if any(dtype.is_complex or dtype.bits > 32 for dtype in (left, right, instruction.shape.dtype)):
            return False
        return (left.is_float or right.is_float) and not (left is right and left in self.dtypes)
