"""Write ragged and scaled products as plain ones, and angles that are products of one term as what they are.

A ragged dot whose groups are rows of the left side, [m,k] x [groups,k,n]; end = the sums of the group sizes up to each group:
  y = f32[8,4] ragged-dot(x, w, sizes), lhs_contracting_dims={1}, rhs_contracting_dims={1}, lhs_ragged_dims={0},
      rhs_group_dims={0}
After, with one copy of x a group, zero outside of it, and products that run over groups as well:
  inside = pred[3,8] (end - size <= row and row < end)    masked = f32[3,8,16] select(inside, x, 0)
  y = f32[8,4] dot(masked, w), lhs_contracting_dims={0,2}, rhs_contracting_dims={0,1}

Where the groups are of the contracted dimension each is a result of its own, so that the dimension of groups is a free one of
the left side; where they are of a batch dimension one mask for all of them says what is computed at all.

A scaled dot multiplies each operand by its scale, repeated over the block that it stands for, in f32.

A dot that sums at most one term multiplies. Where its result is an angle, as positions times frequencies, a cast of products'
operands would make another angle of it, so it is written as elementwise work:
  y = f32[32,37] dot(f, p), lhs_contracting_dims={1}, rhs_contracting_dims={0}     f: f32[32,1], p: f32[1,37]
After:
  a = f32[32] reshape(f)   b = f32[32,37] broadcast(a), dimensions={0}   ..   y = f32[32,37] multiply(b, d)
"""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.ir.dtypes import F32, S32, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.ops.contraction import DotDims, RaggedDims, dot_dims, ragged_dims
from nxcc.ir.shapes import Shape
from nxcc.passes.combiners import combiner
from nxcc.passes.dtypes.angles_and_places import makes_angle
from nxcc.passes.patterns import broadcast_to, reshape_to, transpose_to
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode


@dataclass(frozen=True)
class ExpandProducts:
    name: str = "expand-products"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)


def _dot(old: Instruction, left: Instruction, right: Instruction, dims: DotDims, builder: Builder) -> Instruction:
    attributes = {key: old.attributes[key] for key in ("precision_config", "algorithm") if key in old.attributes}
    return builder.dot(left, right, (dims.lhs_contracting, dims.rhs_contracting), (dims.lhs_batch, dims.rhs_batch),
                       old.shape.dtype, **attributes)


def _scaled(instruction: Instruction, builder: Builder) -> Instruction:
    left, right, left_scale, right_scale = instruction.operands
    factors = _times(left, left_scale, builder), _times(right, right_scale, builder)
    return _dot(instruction, *factors, dot_dims(instruction), builder)


def _times(x: Instruction, scale: Instruction, builder: Builder) -> Instruction:
    """x times its scale, in f32; each number of the scale stands for a block of x."""
    dims = x.shape.dims
    wide = builder.convert(scale, F32)
    if scale.shape.rank:
        blocks = [(count, size // count) for count, size in zip(scale.shape.dims, dims, strict=True)]
        spread = builder.broadcast(wide, [n for block in blocks for n in block], range(0, 2 * len(dims), 2))
        factor = builder.reshape(spread, dims)
    else:
        factor = builder.broadcast(wide, dims)
    return builder.make("multiply", builder.convert(x, F32), factor)


def _ragged(instruction: Instruction, builder: Builder) -> Instruction:
    left, right, sizes = instruction.operands
    ragged, rank = ragged_dims(instruction), left.shape.rank
    plain, shifted = ragged.dims, tuple(d + 1 for d in range(rank))
    ends = _ends(sizes, builder)
    starts = builder.make("subtract", ends, builder.convert(sizes, S32))
    if ragged.ragged in plain.lhs_batch:
        return _dot(instruction, _masked(left, ragged, ends, builder), right, plain, builder)
    masked = _masked_by_group(left, ragged, starts, ends, builder)
    batch, contracting = (tuple(shifted[d] for d in dims) for dims in (plain.lhs_batch, plain.lhs_contracting))
    if ragged.group:
        dims = DotDims(batch, (0, *contracting), plain.rhs_batch, (*ragged.group, *plain.rhs_contracting))
        return _dot(instruction, masked, right, dims, builder)
    result = _dot(instruction, masked, right, DotDims(batch, contracting, plain.rhs_batch, plain.rhs_contracting), builder)
    groups = len(batch)
    return builder.transpose(result, [groups, *(d for d in range(result.shape.rank) if d != groups)])


def _ends(sizes: Instruction, builder: Builder) -> Instruction:
    """s32 sums of the sizes up to each group, the last dimension's; one more dimension, added up, holds what each sum takes."""
    shape = Shape(S32, (*sizes.shape.dims, sizes.shape.dims[-1]))
    last = shape.rank - 1
    spread = builder.broadcast(builder.convert(sizes, S32), shape.dims, range(last))
    taken, taker = (builder.make("iota", shape=shape, iota_dimension=d) for d in (last - 1, last))
    zero = builder.splat(S32, (), 0)
    kept = builder.make("select", builder.compare(taken, taker, "LE"), spread, builder.broadcast(zero, shape.dims))
    module = builder.computation.parent
    assert module is not None
    return builder.make("reduce", kept, zero, dimensions=(last - 1,), called=(combiner(module, "add", S32, builder),))


def _masked(x: Instruction, ragged: RaggedDims, ends: Instruction, builder: Builder) -> Instruction:
    """x, zero at places that are beyond the last group."""
    prefix, last = ends.shape.dims[:-1], ends.shape.dims[-1]
    cut = builder.slice(ends, [0] * len(prefix) + [last - 1], ends.shape.dims)
    limit = builder.broadcast(builder.reshape(cut, prefix), x.shape.dims, ragged.prefix(x.shape.rank)[:len(prefix)])
    place = builder.make("iota", shape=limit.shape, iota_dimension=ragged.ragged)
    return _chosen(builder.compare(place, limit, "LT"), x, builder)


def _masked_by_group(x: Instruction, ragged: RaggedDims, starts: Instruction, ends: Instruction,
                     builder: Builder) -> Instruction:
    """[groups, dimensions of x]: x where it belongs to the group, zero elsewhere."""
    rank = x.shape.rank
    dims = (ends.shape.dims[-1], *x.shape.dims)
    dimensions = (*(d + 1 for d in ragged.prefix(rank)[:ends.shape.rank - 1]), 0)
    order = sorted(range(len(dimensions)), key=dimensions.__getitem__)
    first, limit = (builder.broadcast(builder.transpose(row, order), dims, [dimensions[d] for d in order])
                    for row in (starts, ends))
    place = builder.make("iota", shape=first.shape, iota_dimension=ragged.ragged + 1)
    inside = builder.make("and", builder.compare(place, first, "GE"), builder.compare(place, limit, "LT"))
    return _chosen(inside, builder.broadcast(x, dims, range(1, rank + 1)), builder)


def _chosen(inside: Instruction, x: Instruction, builder: Builder) -> Instruction:
    zero = builder.broadcast(builder.splat(x.shape.dtype, (), 0), x.shape.dims)
    return builder.make("select", inside, x, zero)


def _of_one_term(dot: Instruction, builder: Builder) -> Instruction | None:
    dims, dtype = dot_dims(dot), dot.shape.dtype
    left, right = dot.operands
    if left.shape.dynamic or right.shape.dynamic or any(left.shape.dims[d] != 1 for d in dims.lhs_contracting):
        return None
    if not makes_angle(dot) or not all(_holds(dtype, o.shape.dtype) for o in (left, right)):
        return None
    batch = len(dims.lhs_batch)
    rows = _turned(left, dims.lhs_batch, dims.lhs_contracting, builder)
    columns = _turned(right, dims.rhs_batch, dims.rhs_contracting, builder)
    rank = dot.shape.rank
    places = [*range(batch), *range(rows.shape.rank, rank)]
    factors = [broadcast_to(builder, builder.convert(x, dtype) if x.shape.dtype is not dtype else x, dot.shape.dims, at)
               for x, at in ((rows, range(rows.shape.rank)), (columns, places))]
    return builder.make("multiply", *factors)


def _turned(x: Instruction, batch: Sequence[int], summed: Sequence[int], builder: Builder) -> Instruction:
    """x with batch dimensions first and without the summed ones, which have size 1."""
    kept = [*batch, *(d for d in range(x.shape.rank) if d not in batch and d not in summed)]
    moved = transpose_to(builder, x, [*kept, *summed])
    return reshape_to(builder, moved, moved.shape.dims[:len(kept)])


def _holds(result: DType, operand: DType) -> bool:
    """Whether values of the operand's type are multiplied in the result's without another rounding than a dot's."""
    same_kind = (result.is_float and operand.is_float) or (result.is_integer and operand.is_integer)
    return result is operand or (same_kind and result.bits > operand.bits)


RULES = (
    Rule("angle-of-one-term", ("dot",), _of_one_term),
    Rule("ragged-dot", ("ragged-dot",), _ragged),
    Rule("scaled-dot", ("scaled-dot",), _scaled),
)
_TABLE = rules_by_opcode(RULES)
