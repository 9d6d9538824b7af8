"""Products of many small matrices, which no tensor engine is worth: each would be a pass of its own."""

from __future__ import annotations

import math

from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.ops.contraction import dot_dims

BATCHES_MIN = 128
"""Products, at least: one a partition."""

TERMS_MAX = 2048
"""Terms of each, at most: they take 50 ns of a vector engine of 128 lanes, a pass and its transfers several times that."""


def are_many_small(dot: Instruction) -> bool:
    """Whether a dot of floats is so many products of so few terms."""
    left, right = (operand.shape for operand in dot.operands[:2])
    if not (left.dtype.is_float and right.dtype.is_float and dot.shape.dtype.is_float):
        return False
    dims = dot_dims(dot)
    batches = math.prod(left.dims[d] for d in dims.lhs_batch)
    depth = math.prod(left.dims[d] for d in dims.lhs_contracting)
    return batches >= BATCHES_MIN and dot.shape.element_count * depth <= TERMS_MAX * batches
