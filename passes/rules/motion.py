"""Reshapes move towards the results, so that they meet their inverse and do not cut chains of work in two.

Each rule computes over the operand of a reshape and reshapes the result. They only ever move down, so they come to an end.
Transposes around elementwise work that undo each other go.
"""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.shapes import Shape
from nxcc.passes.patterns import Segment, broadcast_to, reshape_to, segments, splat_source, transpose_to
from nxcc.passes.rewriting import Rule
from nxcc.passes.rules.movement import SUNK

Dims = tuple[int, ...]

WORK_MAX = 8
"""Elementwise instructions that follow each other between two transposes, at most."""


def _reshape_cut(x: Instruction) -> tuple[Segment, ...] | None:
    """The segments of a reshape that has elements; None for anything else."""
    if x.opcode != "reshape" or not x.shape.element_count:
        return None
    return segments(x.operands[0].shape.dims, x.shape.dims)


def _elementwise(instruction: Instruction, builder: Builder) -> Instruction | None:
    """op(reshape(a), reshape(b), broadcast(c)) is reshape(op(a, b, broadcast(c))); a constant follows, and never leads."""
    reshapes = [o for o in instruction.operands if o.opcode == "reshape" and o.shape.rank]
    source = next((o.operands[0] for o in reshapes if o.operands[0].opcode != "constant"), None)
    dims = instruction.shape.dims
    if source is None or not instruction.shape.element_count or not dims:
        return None
    target = source.shape.dims
    if not all(_can_become(o, dims, target) for o in instruction.operands):
        return None
    operands = [_become(o, dims, target, builder) for o in instruction.operands]
    shape = Shape(instruction.shape.dtype, target)
    made = builder.make(instruction.opcode, *operands, shape=shape, **instruction.attributes)
    made.frontend_attributes = dict(instruction.frontend_attributes)
    return builder.reshape(made, dims)


def _can_become(operand: Instruction, dims: Dims, target: Dims) -> bool:
    """Whether the operand reshaped to other sizes costs nothing."""
    if operand.opcode == "reshape":
        source = operand.operands[0]
        return source.shape.dims == target or source.opcode == "constant" or splat_source(operand) is not None
    if operand.opcode == "broadcast":
        regrouped = _regrouped(operand, dims, target)
        return regrouped is not None and _takes_form(operand.operands[0], regrouped[0])
    return operand.shape.rank == 0 or operand.opcode == "constant"


def _takes_form(value: Instruction, dims: Dims) -> bool:
    """Whether a small operand may get other sizes for good: of a computed one the reshape would move down again, and the other
    operand's would follow it, and so on."""
    source = value.operands[0] if value.opcode == "reshape" else value
    return source.opcode in ("parameter", "constant") or [d for d in value.shape.dims if d > 1] == [d for d in dims if d > 1]


def _become(operand: Instruction, dims: Dims, target: Dims, builder: Builder) -> Instruction:
    if operand.opcode == "broadcast":
        regrouped = _regrouped(operand, dims, target)
        assert regrouped is not None
        inner, places = regrouped
        return broadcast_to(builder, reshape_to(builder, operand.operands[0], inner), target, places)
    if operand.shape.rank == 0:
        return operand
    source = operand.operands[0] if operand.opcode == "reshape" else operand
    return reshape_to(builder, source, target)


def _regrouped(operand: Instruction, dims: Dims, target: Dims) -> tuple[Dims, Dims] | None:
    """Sizes and places of a broadcast's operand once the result has other sizes; None if strides cannot say it."""
    places = operand.attribute("dimensions")
    if list(places) != sorted(places):
        return None
    kept = set(places)
    inner: list[int] = []
    new_places: list[int] = []
    for left, right in segments(target, dims):
        large = [d for d in right if dims[d] != 1]
        held = [d for d in large if d in kept]
        if held and held != large:
            return None
        if held:
            inner += [target[d] for d in left]
            new_places += left
    return tuple(inner), tuple(new_places)


def _reduce(instruction: Instruction, builder: Builder) -> Instruction | None:
    """reduce(reshape(x)) is reshape(reduce(x)) where the reduced dimensions are whole segments."""
    if len(instruction.operands) != 2:
        return None
    x, init = instruction.operands
    cut = _reshape_cut(x)
    if cut is None:
        return None
    reduced = set(instruction.attribute("dimensions"))
    over: list[int] = []
    for left, right in cut:
        inside = [d in reduced for d in right]
        if any(inside) and not all(inside):
            return None
        if inside and inside[0]:
            over += left
    source = x.operands[0]
    if not over:
        return None
    made = builder.make("reduce", source, init, dimensions=tuple(over), called=instruction.called)
    made.frontend_attributes = dict(instruction.frontend_attributes)
    return reshape_to(builder, made, instruction.shape.dims)


def _broadcast(instruction: Instruction, builder: Builder) -> Instruction | None:
    """broadcast(reshape(x)) is reshape(broadcast(x)) where dimensions split or merge and stay together."""
    x = instruction.operands[0]
    cut = _reshape_cut(x)
    if cut is None or x.operands[0].opcode in ("parameter", "constant"):
        return None
    if all(len(left) <= 1 and len(right) <= 1 for left, right in cut):
        return None
    source = x.operands[0].shape.dims
    places = instruction.attribute("dimensions")
    groups = {places[right[0]]: (left, right) for left, right in cut if right}
    if not _stay_together(cut, places):
        return None
    units = [left[0] for left, right in cut if not right]
    sizes = [source[d] for d in units]
    new_places = {d: n for n, d in enumerate(units)}
    covered = {place for _, right in cut for place in (places[d] for d in right)}
    for d, size in enumerate(instruction.shape.dims):
        if d in groups:
            for s in groups[d][0]:
                new_places[s] = len(sizes)
                sizes.append(source[s])
        elif d not in covered:
            sizes.append(size)
    made = broadcast_to(builder, x.operands[0], sizes, [new_places[s] for s in range(len(source))])
    return builder.reshape(made, instruction.shape.dims)


def _stay_together(cut: Sequence[Segment], places: Sequence[int]) -> bool:
    """Whether the dimensions of each segment have consecutive places, in order."""
    return all(places[right[i]] == places[right[0]] + i for _, right in cut for i in range(len(right)))


def _transpose(instruction: Instruction, builder: Builder) -> Instruction | None:
    """transpose(reshape(x)) is reshape(transpose(x)) where segments move as a whole."""
    x = instruction.operands[0]
    cut = _reshape_cut(x)
    if cut is None or x.operands[0].opcode in ("parameter", "constant"):
        return None
    permutation = instruction.attribute("dimensions")
    where = [permutation.index(d) for d in range(len(permutation))]
    if not _stay_together(cut, where):
        return None
    order = [left[0] for left, right in cut if not right]
    for row in sorted((row for row in cut if row[1]), key=lambda row: where[row[1][0]]):
        order += row[0]
    return reshape_to(builder, transpose_to(builder, x.operands[0], order), instruction.shape.dims)


def _transpose_of_work(instruction: Instruction, builder: Builder) -> Instruction | None:
    """transpose(op(transpose(a), broadcast(c))) is op(a, broadcast(c)) where the two orders undo each other and nobody else
    reads what stands between them."""
    x, permutation = instruction.operands[0], instruction.attribute("dimensions")
    if x.opcode not in SUNK or not _meets_inverse(x, permutation, 0):
        return None
    return _turned(x, permutation, builder)


def _meets_inverse(value: Instruction, permutation: Dims, depth: int) -> bool:
    """Whether elementwise work in another order of dimensions begins with at least one transpose less, and with no new one."""
    if value.opcode not in SUNK or depth > WORK_MAX or len(value.users) != 1:
        return False
    others = [o for o in value.operands if not (o.opcode == "transpose" and _undoes(permutation, o.attribute("dimensions")))]
    free = [o for o in others if o.shape.rank == 0 or o.opcode == "broadcast"]
    inner = [o for o in others if o not in free]
    met = len(others) < len(value.operands) or bool(inner)
    return met and all(_meets_inverse(o, permutation, depth + 1) for o in inner)


def _undoes(outer: Dims, inner: Dims) -> bool:
    return all(inner[p] == d for d, p in enumerate(outer))


def _turned(value: Instruction, permutation: Dims, builder: Builder) -> Instruction:
    """A value in another order of dimensions, see _meets_inverse."""
    if value.shape.rank == 0:
        return value
    if value.opcode == "transpose":
        return value.operands[0]
    if value.opcode == "broadcast":
        places = [permutation.index(d) for d in value.attribute("dimensions")]
        return broadcast_to(builder, value.operands[0], [value.shape.dims[p] for p in permutation], places)
    operands = [_turned(o, permutation, builder) for o in value.operands]
    shape = Shape(value.shape.dtype, tuple(value.shape.dims[p] for p in permutation))
    made = builder.make(value.opcode, *operands, shape=shape, **value.attributes)
    made.frontend_attributes = dict(value.frontend_attributes)
    return made


def _dot(instruction: Instruction, builder: Builder) -> Instruction | None:
    """A dot in normal form over a left operand whose rows or batches were split or merged before."""
    lhs, rhs = instruction.operands
    batch = len(instruction.attribute("lhs_batch_dims"))
    if not is_canonical_dot(instruction) or not instruction.shape.element_count or not lhs.shape.dims[-1]:
        return None
    lifted = _lifted(lhs, batch)
    if lifted is None:
        return None
    batches, rows = lifted
    wanted = (*batches, *rhs.shape.dims[batch:])
    if rhs.opcode != "reshape" and any(len(right) > 1 for _, right in segments(wanted, rhs.shape.dims)):
        return None
    right = reshape_to(builder, rhs.operands[0] if rhs.opcode == "reshape" else rhs, wanted)
    left = reshape_to(builder, lhs.operands[0], (*batches, *rows, lhs.shape.dims[-1]))
    return builder.reshape(dot_like(instruction, left, right, len(batches), builder), instruction.shape.dims)


def _lifted(lhs: Instruction, batch: int) -> tuple[Dims, Dims] | None:
    """Sizes of the batches and rows of what a left operand was reshaped from, if they and the depth stay apart."""
    cut = _reshape_cut(lhs)
    if cut is None or lhs.operands[0].opcode in ("parameter", "constant"):
        return None
    source = lhs.operands[0].shape.dims
    if cut[-1][1] != (lhs.shape.rank - 1,) or not cut[-1][0]:
        return None
    batches: list[int] = []
    rows: list[int] = []
    for left, right in cut[:-1]:
        in_batch = {d < batch for d in right}
        if len(in_batch) > 1:
            return None
        first = True in in_batch or not right and bool(batch) and not rows
        (batches if first else rows).extend(left)
    outer = [*batches, *rows]
    if outer != sorted(outer) or not rows or tuple(source[d] for d in outer) == lhs.shape.dims[:-1]:
        return None
    return tuple(source[d] for d in batches), tuple(source[d] for d in rows)


def is_canonical_dot(dot: Instruction) -> bool:
    """[batch.., rows.., k] x [batch.., k, n]: batches first and in order, one summed dimension, one column dimension."""
    lhs, rhs = dot.operands
    batch = tuple(range(len(dot.attribute("lhs_batch_dims"))))
    b = len(batch)
    return (dot.attribute("lhs_batch_dims") == batch and dot.attribute("rhs_batch_dims") == batch
            and dot.attribute("lhs_contracting_dims") == (lhs.shape.rank - 1,) and dot.attribute("rhs_contracting_dims") == (b,)
            and rhs.shape.rank == b + 2 and lhs.shape.rank >= b + 2)


def dot_like(dot: Instruction, lhs: Instruction, rhs: Instruction, batch: int, builder: Builder) -> Instruction:
    """A dot in normal form with the element type, precision and notes of another."""
    notes = {key: dot.attributes[key] for key in ("operand_precision", "algorithm") if key in dot.attributes}
    dims = tuple(range(batch))
    made = builder.dot(lhs, rhs, ((lhs.shape.rank - 1,), (batch,)), (dims, dims), dot.shape.dtype, **notes)
    made.frontend_attributes = dict(dot.frontend_attributes)
    return made


RULES = (
    Rule("elementwise-of-reshape", SUNK, _elementwise),
    Rule("reduce-of-reshape", ("reduce",), _reduce),
    Rule("broadcast-of-reshape", ("broadcast",), _broadcast),
    Rule("transpose-of-reshape", ("transpose",), _transpose),
    Rule("transpose-of-work", ("transpose",), _transpose_of_work),
    Rule("dot-of-reshape", ("dot",), _dot),
)
