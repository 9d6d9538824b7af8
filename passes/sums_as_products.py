"""Sum rows of a matrix by multiplying them with ones: the tensor engine adds up partitions, which Vector cannot.

Before (the gradient of a bias; x lies row by row):
  c = f32[8192,4096] convert(x)        s = f32[4096] reduce(c, zero), dimensions={0}, to_apply=add        x = bf16[8192,4096]
After:
  w = bf16[1,8192] broadcast(one)      p = f32[1,4096] dot(w, x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  s = f32[4096] reshape(p)

For large sums to f32 of what stands alone behind fusion: what is multiplied is not rounded, and no operand is turned, so that a
NaN stays in its column. `is_sum` knows such a product.
"""

from __future__ import annotations

import math

from nxcc.ir.dtypes import F32, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.combiners import plain_opcode
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.shapes import Shape
from nxcc.passes.patterns import splat_value
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode

ROWS_MIN = 32
"""Rows that are summed up, at least: a quarter of the partitions."""

ELEMENTS_MIN = 1 << 16
"""Of a matrix whose rows are summed up; less is not worth another region's code."""


@dataclass(frozen=True)
class SumsAsProducts:
    """dtypes: what the tensor engine multiplies; empty: any."""

    dtypes: frozenset[DType] = frozenset()
    name: str = "sums-as-products"

    def run(self, module: Module) -> bool:
        rule = Rule("multiply-by-ones", ("reduce",), lambda reduce, builder: _multiplied(reduce, builder, self.dtypes))
        return rewrite_module(module, rules_by_opcode((rule,)))


def is_sum(dot: Instruction) -> bool:
    """Whether a product only sums up what it reads."""
    left = dot.operands[0]
    return left.opcode == "broadcast" and splat_value(left) == 1


def _multiplied(reduce: Instruction, builder: Builder, dtypes: frozenset[DType]) -> Instruction | None:
    if not _is_plain_sum(reduce):
        return None
    data = reduce.operands[0]
    if data.opcode == "convert" and data.operands[0].shape.dtype.is_float and data.operands[0].shape.dtype.bits == 16:
        data = data.operands[0]
    dims, reduced = data.shape.dims, sorted(reduce.attribute("dimensions"))
    first, behind = reduced[0], reduced[-1] + 1
    batch, rows, columns = (math.prod(part) for part in (dims[:first], dims[first:behind], dims[behind:]))
    if reduced != list(range(first, behind)) or dtypes and data.shape.dtype not in dtypes:
        return None
    if rows < ROWS_MIN or columns < 2 or rows * columns < ELEMENTS_MIN:
        return None
    matrix = builder.reshape(data, (batch, rows, columns))
    ones = builder.broadcast(builder.splat(data.shape.dtype, (), 1), (batch, 1, rows), ())
    product = builder.make("dot", ones, matrix, shape=Shape(F32, (batch, 1, columns)),
                           lhs_batch_dims=(0,), rhs_batch_dims=(0,), lhs_contracting_dims=(2,), rhs_contracting_dims=(1,))
    return builder.reshape(product, reduce.shape.dims)


def _is_plain_sum(reduce: Instruction) -> bool:
    if len(reduce.operands) != 2 or reduce.shape.dtype is not F32 or reduce.operands[0].shape.dynamic:
        return False
    is_sum_from_0 = plain_opcode(reduce.called[0]) == "add" and splat_value(reduce.operands[1]) == 0
    return is_sum_from_0 and bool(reduce.attribute("dimensions"))
