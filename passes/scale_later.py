"""Scale the rows of a softmax behind the product that reads them: there are fewer columns then.

Before:
  d = f32[8,128,128] divide(exponential(..), broadcast(total))    c = bf16[8,128,128] convert(d)
  o = f32[8,128,64] dot(c, v), ..
After:
  c = bf16[8,128,128] convert(exponential(..))    p = f32[8,128,64] dot(c, v), ..
  o = f32[8,128,64] divide(p, broadcast(total))

Only for an exponential of differences, which a softmax keeps at 1 or below, so that sums of products are as far from overflow
as before; and never for f16, whose range is small. A product that is rounded to bf16 is rounded when it is scaled.
"""

from __future__ import annotations

from nxcc.ir.dtypes import BF16, F32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.shapes import Shape
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode


@dataclass(frozen=True)
class ScaleLater:
    name: str = "scale-later"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)


def _scaled_behind(dot: Instruction, builder: Builder) -> Instruction | None:
    left, right = dot.operands
    scaled = left.operands[0] if left.opcode == "convert" else left
    found = _parts(scaled)
    if found is None or len(left.users) != 1 or len(scaled.users) != 1 or left.shape.dtype not in (BF16, F32):
        return None
    data, factor = found
    columns = right.shape.element_count // max(1, _size(right, (*dot.attribute("rhs_batch_dims"),
                                                               *dot.attribute("rhs_contracting_dims"))))
    places = _places(dot, factor.attribute("dimensions"))
    if places is None or columns > _size(left, dot.attribute("lhs_contracting_dims")) or dot.shape.dtype not in (BF16, F32):
        return None
    if left is not scaled:
        data = builder.make("convert", data, shape=left.shape.without_layout())
    shape = dot.shape if dot.shape.dtype is F32 else Shape(F32, dot.shape.dims)
    product = builder.make("dot", data, right, shape=shape, **dot.attributes)
    repeated = builder.broadcast(factor.operands[0], dot.shape.dims, places)
    behind = builder.make(scaled.opcode, product, repeated)
    return behind if dot.shape.dtype is F32 else builder.make("convert", behind, shape=dot.shape.without_layout())


def _parts(scaled: Instruction) -> tuple[Instruction, Instruction] | None:
    """The exponentials, and the broadcast that they are divided by or multiplied with."""
    if scaled.opcode not in ("divide", "multiply") or scaled.shape.dtype is not F32:
        return None
    for data, factor in (scaled.operands, scaled.operands[::-1])[:1 if scaled.opcode == "divide" else 2]:
        if data.opcode == "exponential" and data.operands[0].opcode == "subtract" and factor.opcode == "broadcast":
            return data, factor
    return None


def _size(value: Instruction, dims: tuple[int, ...]) -> int:
    total = 1
    for d in dims:
        total *= value.shape.dims[d]
    return total


def _places(dot: Instruction, dimensions: tuple[int, ...]) -> tuple[int, ...] | None:
    """Where dimensions of the left side are in the result; None if one of them is summed or they change their order."""
    batch, summed = dot.attribute("lhs_batch_dims"), dot.attribute("lhs_contracting_dims")
    order = [*batch, *(d for d in range(dot.operands[0].shape.rank) if d not in batch and d not in summed)]
    if any(d not in order for d in dimensions):
        return None
    places = tuple(order.index(d) for d in dimensions)
    return places if list(places) == sorted(places) else None


RULES = (Rule("scaled-left-side", ("dot",), _scaled_behind),)
_TABLE = rules_by_opcode(RULES)
