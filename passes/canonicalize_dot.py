"""Every dot as [batch.., rows.., k] x [batch.., k, n] -> [batch.., rows.., n].

Before:
  d = f32[2,8,4,16] dot(x, w), lhs_contracting_dims={2}, rhs_contracting_dims={1}     x: f32[2,8,64], w: f32[4,64,16]
After:
  t = f32[64,4,16] transpose(w), dimensions={1,0,2}    r = f32[64,64] reshape(t)
  e = f32[2,8,64] dot(x, r), lhs_contracting_dims={2}, rhs_contracting_dims={0}    d = f32[2,8,4,16] reshape(e)

Batches come first and in order, one dimension is summed, and one dimension of the right side remains. What is missing is made
of size 1. Transposes and reshapes stand where `nxcc.passes.move_reshapes` can join them with others.

A product of batches that is only read transposed, the columns before the rows, has its sides exchanged:
  d = f32[8,128,64] dot(k, q), ..    t = f32[8,64,128] transpose(d), dimensions={0,2,1}
becomes
  t = f32[8,64,128] dot(q, transpose(k)), ..
Where the batches come to lie does not matter: a transpose moves them, as [b,h,d,q] to [b,q,h,d] for heads side by side.
"""

from __future__ import annotations

import math

from nxcc.ir.facts import dataclass
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
    if is_canonical_dot(dot) or any(map(_is_exchanged, dot.users)):
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


def _is_exchanged(transpose: Instruction) -> bool:
    """Whether this alone reads a product of batches, and has its columns before its rows."""
    if transpose.opcode != "transpose" or transpose.operands[0].opcode != "dot" or len(transpose.operands[0].users) != 1:
        return False
    dot, order = transpose.operands[0], transpose.attribute("dimensions")
    if dot.parent is not None and dot.parent.root is dot or dot.attributes.get("operand_precision"):
        return False
    batch = len(dot.attribute("lhs_batch_dims"))
    rows = dot.operands[0].shape.rank - batch - len(dot.attribute("lhs_contracting_dims"))
    columns = dot.shape.rank - batch - rows
    free = [d for d in order if d >= batch]
    return bool(batch and rows and columns and min(free[:columns]) >= batch + rows)


def _exchanged(transpose: Instruction, builder: Builder) -> Instruction | None:
    if not _is_exchanged(transpose):
        return None
    dot, order = transpose.operands[0], transpose.attribute("dimensions")
    lhs, rhs = dot.operands
    lhs_batch, rhs_batch = dot.attribute("lhs_batch_dims"), dot.attribute("rhs_batch_dims")
    lhs_summed, rhs_summed = dot.attribute("lhs_contracting_dims"), dot.attribute("rhs_contracting_dims")
    rows, columns = _others(lhs, lhs_batch, lhs_summed), _others(rhs, rhs_batch, rhs_summed)
    batch = len(lhs_batch)
    free = [d for d in order if d >= batch]
    new_rows = [columns[d - batch - len(rows)] for d in free[:len(columns)]]
    new_columns = [rows[d - batch] for d in free[len(columns):]]
    left = transpose_to(builder, rhs, (*rhs_batch, *new_rows, *rhs_summed))
    right = transpose_to(builder, lhs, (*lhs_batch, *lhs_summed, *new_columns))
    batch_sizes, depth = left.shape.dims[:batch], math.prod(lhs.shape.dims[d] for d in lhs_summed)
    left = reshape_to(builder, left, (*left.shape.dims[:batch + len(new_rows)], depth))
    right = reshape_to(builder, right, (*batch_sizes, depth, math.prod(lhs.shape.dims[d] for d in rows)))
    made = [*range(batch), *free]
    product = reshape_to(builder, dot_like(dot, left, right, batch, builder), [dot.shape.dims[d] for d in made])
    return transpose_to(builder, product, [made.index(d) for d in order])


RULES = (Rule("exchanged-sides", ("transpose",), _exchanged), Rule("dot-in-normal-form", ("dot",), _canonical),)
_TABLE = rules_by_opcode(RULES)
