"""Cut products with large matrices into pieces that stages of a pipeline can share.

Before, no piece of a matrix being larger than a quarter of w1:
  d = bf16[128,3072] dot(x, w1), ..    h = bf16[128,3072] tanh(d)    y = f32[128,768] dot(h, w2), ..
After:
  s0 = bf16[768,768] slice(w1), slice={[0:768], [0:768]}    d0 = bf16[128,768] dot(x, s0), ..    h0 = bf16[128,768] tanh(d0)
  t0 = bf16[768,768] slice(w2), slice={[0:768], [0:768]}    y0 = f32[128,768] dot(h0, t0), ..
  .. the same for s1, s2, s3 ..    a1 = f32[128,768] add(y0, y1)    ..    y = f32[128,768] add(a2, y3)

A stage whose core has room for half of a matrix takes the pieces that fit, and what passes to the next stage is narrow: the
sums so far and x. Where a product's columns are read by anything but elementwise work and products that sum over them, its
pieces are joined again, if that moves little beside the matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nxcc.ir.dtypes import F32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, clone_instruction
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.rowspace import is_elementwise
from nxcc.ir.shapes import Shape

MEMBERS_MAX = 64
"""Elementwise instructions between two products, at most."""

COLUMNS = 128
"""Columns of a piece are a multiple of this, but for the last one's."""

JOINED_SHARE = 8
"""What is joined again is at most a part in so many of the matrix."""


@dataclass(frozen=True)
class SplitProducts:
    """weights: numbers of the entry parameters that are declared weights. piece_bytes: of a matrix, at most; 0: any."""

    weights: frozenset[int] = frozenset()
    piece_bytes: int = 0
    name: str = "split-products"

    def run(self, module: Module) -> bool:
        if not self.piece_bytes:
            return False
        entry = module.entry
        stored = {p for n, p in enumerate(entry.parameters) if n in self.weights}
        builder, changed = Builder(entry), False
        for dot in [instruction for instruction in stored_products(module, self.weights) if instruction.opcode == "dot"]:
            is_read = dot.users or dot is entry.root
            pieces = _pieces(dot, self.piece_bytes) if is_read else []
            if len(pieces) > 1:
                changed |= _split(builder, dot, pieces, stored)
        if changed:
            entry.sort()
        return changed


def is_stored(value: Instruction, weights: set[Instruction]) -> bool:
    """Whether a matrix is a declared weight or a constant, in any order and type."""
    while value.opcode in ("convert", "transpose", "reshape", "bitcast", "copy"):
        value = value.operands[0]
    return value in weights or value.opcode == "constant"


def _pieces(dot: Instruction, limit: int) -> list[tuple[int, int]]:
    """Ranges of a product's columns whose matrices are no larger; none for a product of another form."""
    matrix = dot.operands[1].shape
    if dot.attribute("rhs_batch_dims") or matrix.rank != 2 or len(dot.attribute("rhs_contracting_dims")) != 1:
        return []
    columns = dot.shape.dims[-1]
    each = -(-columns // max(1, math.ceil(matrix.byte_size / limit)))
    each = -(-each // COLUMNS) * COLUMNS
    return [(start, min(start + each, columns)) for start in range(0, columns, each)]


def _split(builder: Builder, dot: Instruction, pieces: Sequence[tuple[int, int]], stored: set[Instruction]) -> bool:
    """Whether the product was taken apart."""
    found = _followers(dot, stored)
    builder.location = dot.location
    if found is not None:
        members, sums = found
        copies = [_copied(builder, members, *piece) for piece in pieces]
        for one in sums:
            builder.computation.replace(one, _summed(builder, one, copies, pieces))
        return True
    if dot.shape.byte_size * JOINED_SHARE > dot.operands[1].shape.byte_size:
        return False
    joined = builder.make("concatenate", *(_copied(builder, [dot], *piece)[dot] for piece in pieces),
                          dimensions=(dot.shape.rank - 1,))
    builder.computation.replace(dot, joined)
    return True


def _followers(dot: Instruction, stored: set[Instruction]) -> tuple[list[Instruction], list[Instruction]] | None:
    """The product with the elementwise work on it, in order, and the products that sum over its columns; None if anything else
    reads it."""
    members, sums = {dot: None}, dict[Instruction, None]()
    waiting = [dot]
    root = dot.parent.root if dot.parent is not None else None
    while waiting:
        value = waiting.pop()
        if value is root or not value.users or value.control_predecessors or len(members) > MEMBERS_MAX:
            return None
        for user in value.users:
            if _sums_over(user, value, stored):
                sums[user] = None
            elif not _continues(user, dot):
                return None
            elif user not in members:
                members[user] = None
                waiting.append(user)
    assert dot.parent is not None
    return [i for i in dot.parent.post_order() if i in members], list(sums)


def _continues(user: Instruction, dot: Instruction) -> bool:
    """Whether it is elementwise work on the product's elements."""
    return is_elementwise(user) and all(o.shape.is_array and o.shape.dims == dot.shape.dims for o in user.operands)


def _sums_over(user: Instruction, value: Instruction, stored: set[Instruction]) -> bool:
    """Whether it is a product of the value's columns with a matrix that is stored."""
    return (user.opcode == "dot" and user.operands[0] is value and not user.attribute("lhs_batch_dims")
            and user.attribute("lhs_contracting_dims") == (value.shape.rank - 1,) and user.operands[1].shape.rank == 2
            and is_stored(user.operands[1], stored) and user.shape.dtype.is_float)


def _copied(builder: Builder, members: Sequence[Instruction], start: int, stop: int) -> dict[Instruction, Instruction]:
    """The members on these columns alone; the first one is the product."""
    dot, *rest = members
    matrix = dot.operands[1]
    columns = 1 - dot.attribute("rhs_contracting_dims")[0]
    found = {dot: _resized(builder, dot, [dot.operands[0], _part(builder, matrix, columns, start, stop)], stop - start)}
    for member in rest:
        operands = [found.get(o) or _part(builder, o, o.shape.rank - 1, start, stop) for o in member.operands]
        found[member] = _resized(builder, member, operands, stop - start)
    return found


def _resized(builder: Builder, instruction: Instruction, operands: Sequence[Instruction], columns: int) -> Instruction:
    copy = clone_instruction(instruction, operands, name=builder.unique_name(instruction.name))
    copy.shape = Shape(instruction.shape.dtype, (*instruction.shape.dims[:-1], columns))
    return builder.computation.add(copy)


def _part(builder: Builder, value: Instruction, dimension: int, start: int, stop: int) -> Instruction:
    """A range of a value along a dimension; of what is repeated, what is repeated there."""
    dims = value.shape.dims
    if value.opcode != "broadcast":
        return builder.slice(value, [start if d == dimension else 0 for d in range(len(dims))],
                             [stop if d == dimension else size for d, size in enumerate(dims)])
    source, places = value.operands[0], value.attribute("dimensions")
    if dimension in places:
        source = _part(builder, source, places.index(dimension), start, stop)
    return builder.broadcast(source, [stop - start if d == dimension else size for d, size in enumerate(dims)], places)


def _summed(builder: Builder, one: Instruction, copies: Sequence[dict[Instruction, Instruction]],
            pieces: Sequence[tuple[int, int]]) -> Instruction:
    """A product as the sum of those over the pieces of what it sums over, in f32."""
    (summed,) = one.attribute("rhs_contracting_dims")
    total: Instruction | None = None
    for copy, (start, stop) in zip(copies, pieces, strict=True):
        operands = [copy[one.operands[0]], _part(builder, one.operands[1], summed, start, stop)]
        product = clone_instruction(one, operands, name=builder.unique_name(one.name))
        product.shape = one.shape.with_dtype(F32)
        builder.computation.add(product)
        total = product if total is None else builder.make("add", total, product)
    assert total is not None
    return total if one.shape.dtype is F32 else builder.convert(total, one.shape.dtype)


def stored_products(module: Module, weights: frozenset[int]) -> list[Instruction]:
    """The entry's products and convolutions whose matrices or kernels are stored. weights: numbers of parameters."""
    stored = {p for n, p in enumerate(module.entry.parameters) if n in weights}
    return [instruction for instruction in module.entry.post_order()
            if instruction.opcode in ("dot", "convolution") and is_stored(instruction.operands[1], stored)]
