"""Gathers read what elementwise work reads, and fewer elements are worked on; scatters of one element a row are choices.

Before (the logarithm of the probability of each row's label):
  w = f32[128,1000] subtract(x, broadcast(m))     g = f32[128] gather(w, y), collapsed_slice_dims={1}, start_index_map={1},
                                                      operand_batching_dims={0}, start_indices_batching_dims={0}, ..
After:
  h = f32[128] gather(x, y), ..                   g = f32[128] subtract(h, m)

A value that others read as well is only passed by on the way to one that lies in memory anyway: a parameter or a product.

Rows that indices name by counting them, as x[arange(n), y] does, are batching dimensions. A scatter that changes at most one
element of each row (the gradient of the above) is elementwise:
  s = f32[128,1000] scatter(z, y, u), to_apply=add, ..    is    select(compare(iota, broadcast(y)), add(z, broadcast(u)), z)

Short windows of a small table are gathered from the table turned, in which each element of the window has a row of its own:
  g = f32[2401,12] gather(t, i), offset_dims={1}, ..      is    transpose(gather(transpose(t), i)), offset_dims={0}, ..
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nxcc.ir.dtypes import S32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.combiners import plain_opcode, returned_parameter
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.shapes import Shape
from nxcc.passes.known_gathers import known_values
from nxcc.passes.patterns import broadcast_to, reshape_to, splat_value, transpose_to
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode
from nxcc.passes.rules.movement import SUNK

WINDOW_MAX = 64
"""Elements of a window that are gathered one by one: transfers fetch longer ones as fast."""

TABLE_BYTES = 1 << 15
"""Of a row of a turned table, at most: it stands on a partition, together with what is picked."""

CHOICES_MAX = 1 << 22
"""Elements of a value that is written as a whole though one of each row changes: it might be changed in place otherwise."""

PICKS_MIN = 1024
"""Windows from which a small table is turned for them."""

IN_MEMORY = frozenset(("parameter", "constant", "get-tuple-element", "dot", "convolution"))
"""What is read from memory whoever else reads it."""


@dataclass(frozen=True)
class EarlyGathers:
    """enabled: whether the target computes addresses."""

    enabled: bool = True
    name: str = "early-gathers"

    def run(self, module: Module) -> bool:
        return self.enabled and rewrite_module(module, _TABLE)


# ---- rows that are counted -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Words:
    """How a gather and a scatter call the same things."""

    batching: str
    index_batching: str
    collapsed: str
    mapped: str
    windows: str


GATHER = _Words("operand_batching_dims", "start_indices_batching_dims", "collapsed_slice_dims", "start_index_map",
                "offset_dims")
SCATTER = _Words("input_batching_dims", "scatter_indices_batching_dims", "inserted_window_dims", "scatter_dims_to_operand_dims",
                 "update_window_dims")


def _counted_rows(instruction: Instruction, builder: Builder) -> Instruction | None:
    words = GATHER if instruction.opcode == "gather" else SCATTER
    if len(instruction.operands) > (2 if words is GATHER else 3):
        return None
    x, indices, *updates = instruction.operands
    vector, mapped = instruction.attribute("index_vector_dim"), instruction.attribute(words.mapped)
    collapsed = instruction.attribute(words.collapsed)
    if indices.opcode != "concatenate" or indices.attribute("dimensions") != (vector,) or len(indices.operands) != len(mapped):
        return None
    taken = set(instruction.attribute(words.index_batching))
    rows: dict[int, int] = {}
    for d, piece in zip(mapped, indices.operands, strict=True):
        counted = _counts(piece, vector)
        if counted is not None and counted not in taken and d in collapsed and x.shape.dims[d] == piece.shape.dims[counted]:
            rows[d] = counted
            taken.add(counted)
    left = [piece for d, piece in zip(mapped, indices.operands, strict=True) if d not in rows]
    if not rows or not left:
        return None
    pairs = dict(zip(instruction.attribute(words.batching), instruction.attribute(words.index_batching), strict=True)) | rows
    joined = left[0] if len(left) == 1 else builder.make("concatenate", *left, dimensions=(vector,))
    order = sorted(pairs)
    attributes: dict[str, Any] = {
        **instruction.attributes, words.batching: tuple(order), words.index_batching: tuple(pairs[d] for d in order),
        words.collapsed: tuple(d for d in collapsed if d not in rows), words.mapped: tuple(d for d in mapped if d not in rows)}
    attributes.pop("indices_are_sorted", None)
    made = builder.make(instruction.opcode, x, joined, *updates, shape=instruction.shape.without_layout(),
                        called=instruction.called, **attributes)
    made.frontend_attributes = dict(instruction.frontend_attributes)
    return made


def _counts(piece: Instruction, vector: int) -> int | None:
    """The dimension whose places are this part of an index vector, if there is one of several places."""
    values = known_values(piece) if piece.shape.dims[vector] == 1 else None
    if values is None:
        return None
    for d, size in enumerate(values.shape):
        if size > 1 and bool((values == np.arange(size).reshape([size if e == d else 1 for e in range(values.ndim)])).all()):
            return d
    return None


# ---- gathers before elementwise work ---------------------------------------------------------------------------------


def _before_work(gather: Instruction, builder: Builder) -> Instruction | None:
    x, indices = gather.operands
    if x.opcode not in SUNK or 2 * gather.shape.element_count > x.shape.element_count:
        return None
    places = _places(gather)
    main = _main(x, places)
    if main is None or not (len(x.users) == 1 or _lies_in_memory(main, places)):
        return None
    shape = Shape(main.shape.dtype, gather.shape.dims)
    read = builder.make("gather", main, indices, shape=shape, **gather.attributes)
    operands = [read if operand is main else _spread(operand, places, gather.shape.dims, builder) for operand in x.operands]
    made = builder.make(x.opcode, *operands, shape=Shape(x.shape.dtype, gather.shape.dims), **x.attributes)
    made.frontend_attributes = dict(x.frontend_attributes)
    return made


def _places(gather: Instruction) -> dict[int, int]:
    """Of operand dimensions that are taken whole, or shared with the indices: which dimensions of the result they are."""
    x, indices = gather.operands
    offsets, vector = gather.attribute("offset_dims"), gather.attribute("index_vector_dim")
    batching = gather.attribute("operand_batching_dims")
    batch = [d for d in range(gather.shape.rank) if d not in offsets]
    index_batch = [d for d in range(indices.shape.rank) if d != vector]
    found = {}
    for d, other in zip(batching, gather.attribute("start_indices_batching_dims"), strict=True):
        if x.shape.dims[d] == indices.shape.dims[other]:
            found[d] = batch[index_batch.index(other)]
    kept = [d for d in range(x.shape.rank) if d not in batching and d not in gather.attribute("collapsed_slice_dims")]
    found |= {d: place for d, place in zip(kept, offsets, strict=True) if gather.shape.dims[place] == x.shape.dims[d]}
    return found


def _main(x: Instruction, places: dict[int, int]) -> Instruction | None:
    """The one operand of elementwise work that is no repeated row; None if there is another, or a row that lies otherwise."""
    others = [operand for operand in x.operands if operand.shape.rank and not _is_spread(operand, places)]
    return others[0] if len(set(others)) == 1 else None


def _is_spread(operand: Instruction, places: dict[int, int]) -> bool:
    if splat_value(operand) is not None:
        return True
    return operand.opcode == "broadcast" and set(operand.attribute("dimensions")) <= set(places)


def _lies_in_memory(value: Instruction | None, places: dict[int, int]) -> bool:
    """Whether elementwise work on one value leads to what is in memory anyway."""
    while value is not None and value.opcode in SUNK:
        value = _main(value, places)
    return value is not None and value.opcode in IN_MEMORY


def _spread(operand: Instruction, places: dict[int, int], dims: Sequence[int], builder: Builder) -> Instruction:
    """A repeated row, or one number, over the dimensions of what is gathered."""
    if operand.shape.rank == 0:
        return operand
    if operand.opcode != "broadcast" or splat_value(operand) is not None:
        return builder.splat(operand.shape.dtype, dims, splat_value(operand))
    wanted = [places[d] for d in operand.attribute("dimensions")]
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    return broadcast_to(builder, transpose_to(builder, operand.operands[0], order), dims, sorted(wanted))


# ---- short windows of small tables -----------------------------------------------------------------------------------


def _from_turned(gather: Instruction, builder: Builder) -> Instruction | None:
    x, indices = gather.operands
    collapsed, offsets = gather.attribute("collapsed_slice_dims"), gather.attribute("offset_dims")
    kept = [d for d in range(x.shape.rank) if d not in collapsed]
    if gather.attribute("operand_batching_dims") or not kept or not collapsed or set(gather.attribute("start_index_map")) - \
            set(collapsed) or not gather.shape.element_count or kept == list(range(len(kept))):
        return None
    window = math.prod(x.shape.dims[d] for d in kept)
    length = x.shape.element_count // window * x.shape.dtype.byte_size
    if any(gather.attribute("slice_sizes")[d] != x.shape.dims[d] for d in kept) or window > WINDOW_MAX or length > TABLE_BYTES:
        return None
    if gather.shape.element_count // window < PICKS_MIN or x.shape.dtype.bits > 32 or window == 1:
        return None
    order = [*kept, *(d for d in range(x.shape.rank) if d in collapsed)]
    batch = [d for d in range(gather.shape.rank) if d not in offsets]
    sizes = gather.attribute("slice_sizes")
    made = builder.make(
        "gather", builder.transpose(x, order), indices, offset_dims=tuple(range(len(kept))),
        shape=Shape(gather.shape.dtype, tuple(gather.shape.dims[d] for d in (*offsets, *batch))),
        collapsed_slice_dims=tuple(range(len(kept), x.shape.rank)), index_vector_dim=gather.attribute("index_vector_dim"),
        start_index_map=tuple(order.index(d) for d in gather.attribute("start_index_map")),
        slice_sizes=tuple(sizes[d] for d in order))
    made.frontend_attributes = dict(gather.frontend_attributes)
    return transpose_to(builder, made, [[*offsets, *batch].index(d) for d in range(gather.shape.rank)])


# ---- scatters of one element a row -----------------------------------------------------------------------------------


def _as_choice(scatter: Instruction, builder: Builder) -> Instruction | None:
    if len(scatter.operands) != 3 or not scatter.shape.is_array or not scatter.shape.element_count:
        return None
    x, indices, updates = scatter.operands
    attribute = scatter.attribute
    mapped, batching = attribute("scatter_dims_to_operand_dims"), attribute("input_batching_dims")
    opcode = "" if returned_parameter(scatter.called[0]) == 1 else plain_opcode(scatter.called[0])
    if opcode is None or len(mapped) != 1 or attribute("update_window_dims") or indices.shape.dtype.bits > 32:
        return None
    rows = [size for d, size in enumerate(x.shape.dims) if d != mapped[0]]
    if sorted((*batching, *mapped)) != list(range(x.shape.rank)) or updates.shape.element_count != math.prod(rows):
        return None
    if splat_value(x) is None and x.shape.element_count > CHOICES_MAX:
        return None
    vector, shared = attribute("index_vector_dim"), attribute("scatter_indices_batching_dims")
    index_batch = [d for d in range(indices.shape.rank) if d != vector]
    if any(x.shape.dims[d] != indices.shape.dims[other] for d, other in zip(batching, shared, strict=True)):
        return None
    pairs = sorted(zip(batching, (index_batch.index(d) for d in shared), strict=True))
    alone = [n for n in range(len(index_batch)) if n not in [place for _, place in pairs]]
    order = [*alone, *(place for _, place in pairs)]
    places = reshape_to(builder, indices, updates.shape.dims)
    wanted, values = (reshape_to(builder, transpose_to(builder, value, order), rows) for value in (places, updates))
    if wanted.shape.dtype.bits < S32.bits:
        wanted = builder.convert(wanted, S32)
    kept, dims = [d for d, _ in pairs], x.shape.dims
    count = builder.make("iota", shape=Shape(wanted.shape.dtype, dims), iota_dimension=mapped[0])
    is_there = builder.compare(count, builder.broadcast(wanted, dims, kept), "EQ")
    new = builder.broadcast(values, dims, kept)
    if opcode and not (opcode == "add" and splat_value(x) == 0):
        new = builder.make(opcode, x, new)
    return builder.make("select", is_there, new, x)


RULES = (
    Rule("counted-rows", ("gather", "scatter"), _counted_rows),
    Rule("gather-before-work", ("gather",), _before_work),
    Rule("gather-from-turned-table", ("gather",), _from_turned),
    Rule("scatter-as-choice", ("scatter",), _as_choice),
)
_TABLE = rules_by_opcode(RULES)
