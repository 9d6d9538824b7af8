"""Every dot as [batch.., rows.., k] x [batch.., k, n] -> [batch.., rows.., n].

Before:
  d = f32[2,8,4,16] dot(x, w), lhs_contracting_dims={2}, rhs_contracting_dims={1}     x: f32[2,8,64], w: f32[4,64,16]
After:
  t = f32[64,4,16] transpose(w), dimensions={1,0,2}    r = f32[64,64] reshape(t)
  e = f32[2,8,64] dot(x, r), lhs_contracting_dims={2}, rhs_contracting_dims={0}    d = f32[2,8,4,16] reshape(e)

Batches come first and in order, one dimension is summed, and one dimension of the right side remains. What is missing is made
of size 1. Transposes and reshapes stand where `nxcc.passes.move_reshapes` can join them with others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.passes.patterns import reshape_to, transpose_to
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode
from nxcc.passes.rules.motion import dot_like, is_canonical_dot


@dataclass(frozen=True)
class CanonicalizeDot:
    name: str = "canonicalize-dot"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)


def _canonical(dot: Instruction, builder: Builder) -> Instruction | None:
    if is_canonical_dot(dot):
        return None
    lhs, rhs = dot.operands
    lhs_batch, rhs_batch = dot.attribute("lhs_batch_dims"), dot.attribute("rhs_batch_dims")
    lhs_summed, rhs_summed = dot.attribute("lhs_contracting_dims"), dot.attribute("rhs_contracting_dims")
    rows = _others(lhs, lhs_batch, lhs_summed)
    columns = _others(rhs, rhs_batch, rhs_summed)
    batch_sizes = [lhs.shape.dims[d] for d in lhs_batch]
    row_sizes = [lhs.shape.dims[d] for d in rows] or [1]
    depth = math.prod(lhs.shape.dims[d] for d in lhs_summed)
    width = math.prod(rhs.shape.dims[d] for d in columns)
    left = transpose_to(builder, lhs, (*lhs_batch, *rows, *lhs_summed))
    left = reshape_to(builder, left, (*batch_sizes, *row_sizes, depth))
    right = transpose_to(builder, rhs, (*rhs_batch, *rhs_summed, *columns))
    right = reshape_to(builder, right, (*batch_sizes, depth, width))
    return reshape_to(builder, dot_like(dot, left, right, len(lhs_batch), builder), dot.shape.dims)


def _others(x: Instruction, batch: tuple[int, ...], summed: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(d for d in range(x.shape.rank) if d not in batch and d not in summed)


RULES = (Rule("dot-in-normal-form", ("dot",), _canonical),)
_TABLE = rules_by_opcode(RULES)
