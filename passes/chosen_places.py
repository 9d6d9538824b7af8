"""Reads and writes at places that data decides become choices among all places, for a target without computed addresses.

Before:
  u = f32[4,8] dynamic-update-slice(x, row, i, zero)
After (v: where the row would go, the row repeated):
  ROOT u = f32[4,8] select(compare(iota, i'), v, x)

Read places are chosen by their bits: what is not chosen becomes 0, and the bits of what is left are joined by `or`, so that
a negative zero and a NaN stay what they are. Every read or write looks at all places, so this is for small ones: at most
MAX_ELEMENTS are looked at for one instruction, and a conditional whose arms are short computes all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from nxcc.ir.dtypes import PRED, S32, U8, U16, U32, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, inline_call
from nxcc.ir.hlo.combiners import plain_opcode, returned_parameter
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.shapes import Shape
from nxcc.passes.combiners import combiner
from nxcc.passes.effects import has_side_effect
from nxcc.passes.patterns import reshape_to, transpose_to
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode

MAX_ELEMENTS = 1 << 20
"""Elements that may be looked at for one instruction: about 10 microseconds of an engine with 128 lanes."""
MAX_UPDATES = 64
"""Updates of one scatter, which are written one after the other."""
MAX_ARM = 64
"""Instructions in the arms of a conditional that are computed whatever is chosen."""
_WORDS = {8: U8, 16: U16, 32: U32}
_LONG = frozenset(("while", "conditional", "sort", "dot", "convolution", "scatter", "custom-call", "call", "fusion"))
"""Operators that an arm is not computed for nothing with."""


@dataclass(frozen=True)
class ChosenPlaces:
    """enabled: whether the target needs it."""

    enabled: bool
    name: str = "chosen-places"

    def run(self, module: Module) -> bool:
        return self.enabled and rewrite_module(module, _RULES)


# ---- reading ---------------------------------------------------------------------------------------------------------


def _dynamic_slice(instruction: Instruction, builder: Builder) -> Instruction | None:
    x, *starts = instruction.operands
    sizes = instruction.attribute("dynamic_slice_sizes")
    if len(starts) != x.shape.rank:
        return None
    moving = [d for d, size in enumerate(sizes) if size < x.shape.dims[d]]
    if not _fits(x, [(sizes[d], d) for d in moving]) or any(starts[d].shape.dtype.bits > 32 for d in moving):
        return None
    for d in moving:
        start = _clamped(starts[d], x.shape.dims[d] - sizes[d], builder)
        x = _picked(x, d, _following(start, sizes[d], builder), builder)
    return x


def _gather(instruction: Instruction, builder: Builder) -> Instruction | None:
    """Along one dimension, windows of one element in it and whole in all others."""
    x, indices = instruction.operands
    attribute = instruction.attribute
    mapped, sizes = attribute("start_index_map"), attribute("slice_sizes")
    if len(mapped) != 1 or attribute("operand_batching_dims") or indices.shape.dtype.bits > 32:
        return None
    (d,) = mapped
    if sizes[d] != 1 or any(size != full for i, (size, full) in enumerate(zip(sizes, x.shape.dims, strict=True)) if i != d):
        return None
    vector = attribute("index_vector_dim")
    batch = [size for i, size in enumerate(indices.shape.dims) if i != vector]
    count = math.prod(batch)
    if not count or not _fits(x, [(count, d)]):
        return None
    places = _clamped(reshape_to(builder, indices, (count,)), x.shape.dims[d] - 1, builder)
    taken = _picked(x, d, places, builder)
    # [before, batch, after] to the batch first, then to where the result has it
    rank, offsets = len(batch), attribute("offset_dims")
    before, after = list(x.shape.dims[:d]), list(x.shape.dims[d + 1:])
    keeps = d not in attribute("collapsed_slice_dims")
    taken = reshape_to(builder, taken, (*before, *batch, *([1] if keeps else []), *after))
    window = [i for i in range(len(taken.shape.dims)) if not d <= i < d + rank]
    others = iter(range(d, d + rank))
    order = iter(window)
    return transpose_to(builder, taken, [next(order) if i in offsets else next(others) for i in range(len(taken.shape.dims))])


def _picked(x: Instruction, d: int, places: Instruction, builder: Builder) -> Instruction:
    """x with dimension d replaced by the elements at places s32[n], which lie inside."""
    word = _WORDS[x.shape.dtype.bits if x.shape.dtype is not PRED else 8]
    dims, count = x.shape.dims, places.shape.element_count
    wide = (*dims[:d], count, *dims[d:])
    raw = _as_word(x, word, builder)
    spread = builder.broadcast(raw, wide, [*range(d), *range(d + 1, len(dims) + 1)])
    here = builder.compare(builder.make("iota", shape=Shape(S32, (count, dims[d])), iota_dimension=1),
                           builder.broadcast(places, (count, dims[d]), (0,)), "EQ")
    mask = builder.broadcast(here, wide, (d, d + 1))
    chosen = builder.make("select", mask, spread, builder.splat(word, wide, 0))
    module = builder.computation.parent
    assert module is not None
    joined = builder.make("reduce", chosen, builder.splat(word, (), 0), called=(combiner(module, "or", word, builder),),
                          dimensions=(d + 1,))
    return _from_word(joined, x.shape.dtype, builder)


def _as_word(x: Instruction, word: DType, builder: Builder) -> Instruction:
    if x.shape.dtype is word:
        return x
    if x.shape.dtype is PRED:
        return builder.convert(x, word)
    return builder.make("bitcast-convert", x, shape=x.shape.with_dtype(word))


def _from_word(x: Instruction, dtype: DType, builder: Builder) -> Instruction:
    if dtype is PRED:
        return builder.compare(x, builder.splat(x.shape.dtype, x.shape.dims, 0), "NE")
    return x if x.shape.dtype is dtype else builder.make("bitcast-convert", x, shape=x.shape.with_dtype(dtype))


def _fits(x: Instruction, picks: Sequence[tuple[int, int]]) -> bool:
    """Whether the dtype has words, and picking so many along these dimensions in turn looks at few enough elements."""
    dtype, dims = x.shape.dtype, list(x.shape.dims)
    if not picks or dtype.is_complex or dtype is not PRED and dtype.bits not in _WORDS:
        return False
    looked_at = 0
    for count, d in picks:
        looked_at += count * math.prod(dims)
        dims[d] = count
    return 0 < looked_at <= MAX_ELEMENTS


def _clamped(start: Instruction, most: int, builder: Builder) -> Instruction:
    """Starts as s32 between 0 and `most`."""
    if start.shape.dtype is not S32:
        unsigned = not start.shape.dtype.is_signed
        if unsigned and start.shape.dtype.bits == 32:
            start = builder.make("minimum", start, builder.splat(start.shape.dtype, start.shape.dims, most))
        start = builder.convert(start, S32)
    low, high = (builder.splat(S32, start.shape.dims, bound) for bound in (0, most))
    return builder.make("clamp", low, start, high)


def _following(start: Instruction, count: int, builder: Builder) -> Instruction:
    """s32[count]: start, start + 1, .."""
    row = builder.broadcast(start, (count,))
    if count == 1:
        return row
    return builder.make("add", row, builder.make("iota", shape=row.shape, iota_dimension=0))


# ---- writing ---------------------------------------------------------------------------------------------------------


def _dynamic_update(instruction: Instruction, builder: Builder) -> Instruction | None:
    x, update, *starts = instruction.operands
    dims, sizes = x.shape.dims, update.shape.dims
    if len(starts) != len(dims):
        return None
    moving = [d for d, size in enumerate(sizes) if size < dims[d]]
    if not update.shape.element_count or x.shape.element_count > MAX_ELEMENTS or x.shape.dtype.is_complex:
        return None
    several = [d for d in moving if sizes[d] > 1]
    if several and not _fits(update, [(dims[d], d) for d in several]) or any(
            starts[d].shape.dtype.bits > 32 for d in moving):
        return None
    inside: Instruction | None = None
    for d in moving:
        start = builder.broadcast(_clamped(starts[d], dims[d] - sizes[d], builder), (dims[d],))
        place = builder.make("iota", shape=start.shape, iota_dimension=0)
        if sizes[d] == 1:
            here = builder.compare(place, start, "EQ")
            flat = reshape_to(builder, update, (*update.shape.dims[:d], *update.shape.dims[d + 1:]))
            update = builder.broadcast(flat, (*update.shape.dims[:d], dims[d], *update.shape.dims[d + 1:]),
                                       [i for i in range(len(dims)) if i != d])
        else:
            offset = builder.make("subtract", place, start)
            zero, last = (builder.splat(S32, (dims[d],), bound) for bound in (0, sizes[d] - 1))
            here = builder.make("and", builder.compare(offset, zero, "GE"), builder.compare(offset, last, "LE"))
            update = _picked(update, d, builder.make("clamp", zero, offset, last), builder)
        wide = builder.broadcast(here, dims, (d,))
        inside = wide if inside is None else builder.make("and", inside, wide)
    return update if inside is None else builder.make("select", inside, update, x)


def _scatter(instruction: Instruction, builder: Builder) -> Instruction | None:
    """One update after the other, windows of one element in indexed dimensions and whole in the others."""
    if len(instruction.operands) != 3:
        return None
    x, indices, updates = instruction.operands
    attribute = instruction.attribute
    mapped, windows = attribute("scatter_dims_to_operand_dims"), attribute("update_window_dims")
    inserted = attribute("inserted_window_dims")
    join = _joining(instruction.called[0])
    if join is None or attribute("input_batching_dims") or indices.shape.dtype.bits > 32 or not mapped:
        return None
    vector = attribute("index_vector_dim")
    batch = [d for d in range(updates.shape.rank) if d not in windows]
    count = math.prod(updates.shape.dims[d] for d in batch)
    kept = [d for d in range(x.shape.rank) if d not in inserted]
    sizes = dict(zip(kept, (updates.shape.dims[w] for w in windows), strict=True))
    if any(size != (1 if d in mapped else x.shape.dims[d]) for d, size in sizes.items()) or set(inserted) - set(mapped):
        return None
    if not 0 < count <= MAX_UPDATES or not 0 < count * x.shape.element_count <= MAX_ELEMENTS or x.shape.dtype.is_complex:
        return None
    if vector == indices.shape.rank:
        indices = reshape_to(builder, indices, (*indices.shape.dims, 1))
    else:
        indices = transpose_to(builder, indices, [*(d for d in range(indices.shape.rank) if d != vector), vector])
    indices = reshape_to(builder, indices, (count, len(mapped)))
    rows = transpose_to(builder, updates, [*batch, *windows])
    window = tuple(x.shape.dims[d] for d in sorted(sizes) if d not in mapped)
    rows = reshape_to(builder, rows, (count, *window))
    for k in range(count):
        x = _written(x, mapped, _row(indices, k, builder), _row(rows, k, builder), join, builder)
    return x


def _written(x: Instruction, mapped: Sequence[int], index: Instruction, row: Instruction,
             join: Callable[[Instruction, Instruction, Builder], Instruction], builder: Builder) -> Instruction:
    """x with one window joined in; an index outside of x changes nothing."""
    dims = x.shape.dims
    inside: Instruction | None = None
    for number, d in enumerate(mapped):
        wanted = builder.convert(reshape_to(builder, builder.slice(index, [number], [number + 1]), ()), S32)
        place = builder.make("iota", shape=Shape(S32, (dims[d],)), iota_dimension=0)
        wide = builder.broadcast(builder.compare(place, builder.broadcast(wanted, (dims[d],)), "EQ"), dims, (d,))
        inside = wide if inside is None else builder.make("and", inside, wide)
    assert inside is not None
    value = builder.broadcast(row, dims, [d for d in range(len(dims)) if d not in mapped])
    return builder.make("select", inside, join(x, value, builder), x)


def _row(x: Instruction, k: int, builder: Builder) -> Instruction:
    dims = x.shape.dims
    return reshape_to(builder, builder.slice(x, [k, *(0 for _ in dims[1:])], [k + 1, *dims[1:]]), dims[1:])


def _joining(computation: Computation) -> Callable[[Instruction, Instruction, Builder], Instruction] | None:
    """How an update joins what is there: replaces it, or by one operator."""
    if returned_parameter(computation) == 1:
        return lambda old, new, builder: new
    opcode = plain_opcode(computation)
    return (lambda old, new, builder: builder.make(opcode, old, new)) if opcode else None


# ---- conditionals ----------------------------------------------------------------------------------------------------


def _conditional(instruction: Instruction, builder: Builder) -> Instruction | None:
    """All arms, and a choice among their results; where arms are short and do nothing but compute."""
    arms = instruction.called
    if not instruction.shape.is_array and any(not element.is_array for element in instruction.shape.elements):
        return None
    if sum(1 for arm in arms for _ in arm.instructions) > MAX_ARM or any(
            i.opcode in _LONG or has_side_effect(i) for arm in arms for i in arm.instructions):
        return None
    selector, *operands = instruction.operands
    results = [inline_call(builder.make("call", operand, called=(arm,), shape=instruction.shape), builder)
               for arm, operand in zip(arms, operands, strict=True)]
    if instruction.shape.is_array:
        return _chosen(selector, results, builder)
    return builder.tuple(*(_chosen(selector, [builder.get_tuple_element(result, k) for result in results], builder)
                           for k in range(len(instruction.shape.elements))))


def _chosen(selector: Instruction, values: Sequence[Instruction], builder: Builder) -> Instruction:
    """A predicate chooses the first of two; a number one of all, the last where it is none of them."""
    if selector.shape.dtype is PRED:
        return _select(selector, values[0], values[1], builder)
    found = values[-1]
    for number, value in enumerate(values[:-1]):
        found = _select(builder.compare(selector, builder.splat(S32, (), number), "EQ"), value, found, builder)
    return found


def _select(predicate: Instruction, yes: Instruction, no: Instruction, builder: Builder) -> Instruction:
    wide = builder.broadcast(predicate, yes.shape.dims) if yes.shape.rank else predicate
    return builder.make("select", wide, yes, no)


_RULES = rules_by_opcode((
    Rule("choose-slice", ("dynamic-slice",), _dynamic_slice), Rule("choose-rows", ("gather",), _gather),
    Rule("choose-update", ("dynamic-update-slice",), _dynamic_update), Rule("choose-scatter", ("scatter",), _scatter),
    Rule("choose-arm", ("conditional",), _conditional)))
