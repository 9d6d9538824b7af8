"""Products of 8-bit integers are products of bf16, which holds these exactly, as long as f32 counts what is summed.

Before:
  d = s32[512,1024] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}             x: s8[512,1024], w: s8[1024,1024]
After:
  e = f32[512,1024] dot(convert(x), convert(w)), ..     d = s32[512,1024] convert(e)          both operands in bf16

Sums stay below 2^24 where as many terms as that allows are summed; a longer sum is cut into parts that are added as integers.
Integers that were widened before they are multiplied count as what they were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nxcc.ir.dtypes import BF16, F32, S32, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.ops.contraction import dot_dims
from nxcc.ir.shapes import Shape
from nxcc.passes.patterns import holds_exactly
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode

EXACT_UP_TO = 1 << 24
"""Whole numbers up to which f32 has them all."""

PARTS_MAX = 16
"""Parts of a sum, at most: each is a product of its own."""


@dataclass(frozen=True)
class ByteProducts:
    name: str = "byte-products"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)


def _dot(dot: Instruction, builder: Builder) -> Instruction | None:
    sides = _bytes(dot)
    if sides is None:
        return None
    dims = dot_dims(dot)
    depth = math.prod(dot.operands[0].shape.dims[d] for d in dims.lhs_contracting)
    most = EXACT_UP_TO // _largest(sides)
    parts = -(-depth // most)
    if parts > PARTS_MAX or parts > 1 and len(dims.lhs_contracting) != 1 or not dot.shape.element_count or not depth:
        return None
    step, total = -(-depth // max(parts, 1)), None
    for first in range(0, depth, step):
        cut = [side if parts == 1 else _cut(side, place[0], first, min(depth, first + step), builder)
               for side, place in zip(sides, (dims.lhs_contracting, dims.rhs_contracting), strict=True)]
        part = _product(dot, cut, builder)
        total = part if total is None else builder.make("add", total, part)
    return total


def _convolution(convolution: Instruction, builder: Builder) -> Instruction | None:
    sides = _bytes(convolution)
    if sides is None or not convolution.shape.element_count:
        return None
    kernel, labels = convolution.operands[1].shape, convolution.attribute("dim_labels")
    terms = math.prod(kernel.dims[d] for d in (*labels.kernel_spatial, labels.kernel_input_feature))
    return _product(convolution, sides, builder) if terms * _largest(sides) <= EXACT_UP_TO else None


def _bytes(product: Instruction) -> list[Instruction] | None:
    """The operands of an s32 product as the 8-bit integers that they were; None if one of them was none."""
    if len(product.operands) != 2 or product.shape.dtype is not S32:
        return None
    sides = [side.operands[0] if _is_widened(side) else side for side in product.operands]
    return sides if all(side.shape.dtype.is_integer and side.shape.dtype.bits == 8 for side in sides) else None


def _is_widened(side: Instruction) -> bool:
    if side.opcode != "convert" or not side.shape.dtype.is_integer:
        return False
    return holds_exactly(side.operands[0].shape.dtype, side.shape.dtype)


def _largest(sides: Sequence[Instruction]) -> int:
    """The largest magnitude of a product of two elements."""
    return math.prod(_magnitude(side.shape.dtype) for side in sides)


def _magnitude(dtype: DType) -> int:
    return 1 << 7 if dtype.is_signed else (1 << 8) - 1


def _cut(side: Instruction, dim: int, first: int, end: int, builder: Builder) -> Instruction:
    starts, limits = [0] * side.shape.rank, list(side.shape.dims)
    starts[dim], limits[dim] = first, end
    return builder.slice(side, starts, limits)


def _product(product: Instruction, sides: Sequence[Instruction], builder: Builder) -> Instruction:
    attributes: dict[str, Any] = {key: value for key, value in product.attributes.items() if key != "operand_precision"}
    made = builder.make(product.opcode, *(builder.convert(side, BF16) for side in sides),
                        shape=Shape(F32, product.shape.dims), **attributes)
    made.frontend_attributes = dict(product.frontend_attributes)
    return builder.convert(made, S32)


RULES = (Rule("product-of-bytes", ("dot",), _dot), Rule("convolution-of-bytes", ("convolution",), _convolution))
_TABLE = rules_by_opcode(RULES)
