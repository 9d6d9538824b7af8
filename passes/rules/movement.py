"""Chains of shape operators become the one operator that they amount to; what repeats is repeated as late as possible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nxcc.ir.dtypes import DType
from nxcc.ir.hlo.attributes import PaddingDimension, SliceDimension
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.literals import Literal, splat
from nxcc.ir.shapes import Shape
from nxcc.passes.patterns import broadcast_to, is_identity, reshape_to, segments, transpose_to
from nxcc.passes.rewriting import Rule

COMPARED_BYTES = 4096
"""Constants up to this size are looked at element by element, to see whether they are one number."""

COUNTED_INDICES = 65536
"""Constant gathers up to this many elements are looked at."""


def _reshape(instruction: Instruction, builder: Builder) -> Instruction | None:
    """To the same sizes; of a reshape; of a count; of a broadcast, where only dimensions of size 1 come or go."""
    x = instruction.operands[0]
    dims = instruction.shape.dims
    if x.shape.dims == dims:
        return x
    if x.opcode == "reshape":
        return reshape_to(builder, x.operands[0], dims)
    if x.shape.element_count == 0:
        return None
    if x.opcode == "constant" and not x.shape.rank:
        return builder.broadcast(x, dims)
    if x.opcode == "iota" or x.opcode == "broadcast":
        places = _unit_places(x.shape.dims, dims)
        if places is not None:
            return _REPLACED[x.opcode](x, dims, places, builder)
    return None


def _unit_places(source: tuple[int, ...], dims: tuple[int, ...]) -> list[int | None] | None:
    """Where each dimension of the source is in the result, None for one of size 1 that goes; None if others change."""
    places: list[int | None] = [None] * len(source)
    for left, right in segments(source, dims):
        if len(left) == len(right) == 1:
            places[left[0]] = right[0]
        elif left and right:
            return None
    return places


def _reshaped_iota(x: Instruction, dims: tuple[int, ...], places: list[int | None], builder: Builder) -> Instruction:
    place = places[x.attribute("iota_dimension")]
    if place is None:
        return broadcast_to(builder, builder.splat(x.shape.dtype, (), 0), dims, ())
    return _iota(x.shape.dtype, dims, place, builder)


def _iota(dtype: DType, dims: tuple[int, ...], dimension: int, builder: Builder) -> Instruction:
    return builder.make("iota", shape=Shape(dtype, dims), iota_dimension=dimension)


def _reshaped_broadcast(x: Instruction, dims: tuple[int, ...], places: list[int | None], builder: Builder) -> Instruction:
    source = x.operands[0]
    kept = [(d, places[place]) for d, place in enumerate(x.attribute("dimensions")) if places[place] is not None]
    inner = reshape_to(builder, source, [source.shape.dims[d] for d, _ in kept])
    return broadcast_to(builder, inner, dims, [place for _, place in kept if place is not None])


_REPLACED = {"iota": _reshaped_iota, "broadcast": _reshaped_broadcast}


def _transpose(instruction: Instruction, builder: Builder) -> Instruction | None:
    """Of the identity; of a transpose; of a broadcast or count; where only dimensions of size 1 move."""
    x = instruction.operands[0]
    permutation = instruction.attribute("dimensions")
    if is_identity(permutation):
        return x
    if x.opcode == "transpose":
        inner = x.attribute("dimensions")
        return transpose_to(builder, x.operands[0], [inner[p] for p in permutation])
    if x.opcode == "broadcast":
        places = [permutation.index(d) for d in x.attribute("dimensions")]
        return broadcast_to(builder, x.operands[0], instruction.shape.dims, places)
    if x.opcode == "iota":
        return _iota(x.shape.dtype, instruction.shape.dims, permutation.index(x.attribute("iota_dimension")), builder)
    large = [p for p in permutation if x.shape.dims[p] != 1]
    return reshape_to(builder, x, instruction.shape.dims) if large == sorted(large) else None


def _broadcast(instruction: Instruction, builder: Builder) -> Instruction | None:
    """That repeats nothing; of a broadcast, a count, or a reshape that only adds or drops dimensions of size 1."""
    x = instruction.operands[0]
    dims, places = instruction.shape.dims, instruction.attribute("dimensions")
    if x.shape.rank and instruction.shape.element_count == x.shape.element_count or x.shape.dims == dims:
        order = sorted(range(len(places)), key=places.__getitem__)
        return reshape_to(builder, transpose_to(builder, x, order), dims)
    if x.opcode == "broadcast":
        return broadcast_to(builder, x.operands[0], dims, [places[d] for d in x.attribute("dimensions")])
    if x.opcode == "iota":
        return _iota(x.shape.dtype, dims, places[x.attribute("iota_dimension")], builder)
    return _without_units(x, dims, places, builder)


def _without_units(x: Instruction, dims: tuple[int, ...], places: Sequence[int], builder: Builder) -> Instruction | None:
    """The operand of a broadcast has no dimension of size 1, and is no reshape that only takes some away."""
    kept = [d for d, size in enumerate(x.shape.dims) if size != 1]
    if len(kept) != x.shape.rank:
        inner = reshape_to(builder, x, [x.shape.dims[d] for d in kept])
        return broadcast_to(builder, inner, dims, [places[d] for d in kept])
    return None


def _split_constant(instruction: Instruction, builder: Builder) -> Instruction | None:
    """A constant of equal elements is one number, repeated."""
    literal: Literal = instruction.attributes["literal"]
    shape = literal.shape
    if not shape.is_array or not shape.rank or shape.element_count == 0:
        return None
    if not literal.is_splat and not _all_equal(literal):
        return None
    value = literal.array[(0,) * shape.rank]
    return builder.broadcast(builder.literal(splat(shape.dtype, (), value)), shape.dims)


def _all_equal(literal: Literal) -> bool:
    if literal.shape.byte_size > COMPARED_BYTES:
        return False
    data = np.ascontiguousarray(literal.array).tobytes()
    size = len(data) // literal.shape.element_count
    return data == data[:size] * literal.shape.element_count


def _slice(instruction: Instruction, builder: Builder) -> Instruction | None:
    """Of everything; of a slice; of a broadcast; of a concatenation, where one operand holds it all."""
    x = instruction.operands[0]
    pieces: tuple[SliceDimension, ...] = instruction.attribute("slice")
    if instruction.shape.dims == x.shape.dims:
        return x
    rule = _SLICED.get(x.opcode)
    return rule(instruction, x, pieces, builder) if rule else None


Pieces = Sequence[SliceDimension]


def _slice_of_slice(instruction: Instruction, x: Instruction, pieces: Pieces, builder: Builder) -> Instruction:
    joined = [_joined(inner, outer) if size else SliceDimension(inner.start, inner.start)
              for inner, outer, size in zip(x.attribute("slice"), pieces, instruction.shape.dims, strict=True)]
    return builder.make("slice", x.operands[0], slice=tuple(joined))


def _joined(inner: SliceDimension, outer: SliceDimension) -> SliceDimension:
    start = inner.start + outer.start * inner.stride
    limit = min(inner.limit, inner.start + (outer.limit - 1) * inner.stride + 1)
    return SliceDimension(start, limit, inner.stride * outer.stride)


def _slice_of_broadcast(instruction: Instruction, x: Instruction, pieces: Pieces, builder: Builder) -> Instruction:
    places = x.attribute("dimensions")
    source = x.operands[0]
    if any(instruction.shape.dims[p] != x.shape.dims[p] for p in places):
        source = builder.make("slice", source, slice=tuple(pieces[place] for place in places))
    return broadcast_to(builder, source, instruction.shape.dims, places)


def _slice_of_concatenate(instruction: Instruction, x: Instruction, pieces: Pieces, builder: Builder) -> Instruction | None:
    dim = x.attribute("dimensions")[0]
    piece, start = pieces[dim], 0
    if not instruction.shape.element_count:
        return None
    for part in x.operands:
        stop = start + part.shape.dims[dim]
        if start <= piece.start and piece.limit <= stop:
            moved = SliceDimension(piece.start - start, piece.limit - start, piece.stride)
            return builder.make("slice", part, slice=(*pieces[:dim], moved, *pieces[dim + 1:]))
        start = stop
    return None


_SLICED = {"slice": _slice_of_slice, "broadcast": _slice_of_broadcast, "concatenate": _slice_of_concatenate}


def _concatenate(instruction: Instruction, builder: Builder) -> Instruction | None:
    """Of one operand; of operands without elements; of a concatenation along the same dimension."""
    dim = instruction.attribute("dimensions")[0]
    flat: list[Instruction] = []
    for part in instruction.operands:
        nested = part.opcode == "concatenate" and part.attribute("dimensions")[0] == dim and len(part.users) == 1
        flat.extend(part.operands if nested else (part,))
    full = [part for part in flat if part.shape.dims[dim]] or flat[:1]
    if len(full) == 1:
        return full[0]
    if full == list(instruction.operands):
        return None
    return builder.make("concatenate", *full, dimensions=(dim,))


def _pad(instruction: Instruction, builder: Builder) -> Instruction | None:
    """By nothing."""
    padding: tuple[PaddingDimension, ...] = instruction.attribute("padding")
    sizes = instruction.operands[0].shape.dims
    if any(p.low or p.high or p.interior and size > 1 for p, size in zip(padding, sizes, strict=True)):
        return None
    return instruction.operands[0]


def _reverse(instruction: Instruction, builder: Builder) -> Instruction | None:
    """Of dimensions of size 1; of a reverse."""
    x = instruction.operands[0]
    dims = instruction.attribute("dimensions")
    if x.opcode == "reverse":
        both = set(dims) ^ set(x.attribute("dimensions"))
        return builder.make("reverse", x.operands[0], dimensions=tuple(sorted(both)))
    kept = tuple(d for d in dims if x.shape.dims[d] > 1)
    if not kept:
        return x
    return None if kept == tuple(dims) else builder.make("reverse", x, dimensions=kept)


def _constants_at(instructions: Sequence[Instruction]) -> list[int] | None:
    if any(i.opcode != "constant" for i in instructions):
        return None
    return [int(i.attributes["literal"].splat_value) for i in instructions]


def _dynamic_slice(instruction: Instruction, builder: Builder) -> Instruction | None:
    """At places that are known, or of everything."""
    x = instruction.operands[0]
    sizes = instruction.attribute("dynamic_slice_sizes")
    if tuple(sizes) == x.shape.dims:
        return x
    starts = instruction.operands[1:]
    if len(starts) == 1 and starts[0].shape.rank:
        return None
    places = _constants_at(starts)
    if places is None:
        return None
    first = [min(max(place, 0), total - size) for place, total, size in zip(places, x.shape.dims, sizes, strict=True)]
    return builder.slice(x, first, [place + size for place, size in zip(first, sizes, strict=True)])


def _dynamic_update_slice(instruction: Instruction, builder: Builder) -> Instruction | None:
    """Of everything, or of nothing."""
    x, update = instruction.operands[:2]
    if update.shape.element_count == 0:
        return x
    return update if update.shape.dims == x.shape.dims else None


def _gather_of_all(instruction: Instruction, builder: Builder) -> Instruction | None:
    """Single elements at known places that are all elements in order."""
    x, indices = instruction.operands
    count = x.shape.element_count
    if indices.opcode != "constant" or instruction.shape.element_count != count or not 0 < count <= COUNTED_INDICES:
        return None
    if not _takes_single_elements(instruction):
        return None
    places = np.moveaxis(indices.attributes["literal"].array, instruction.attribute("index_vector_dim"), -1)
    index = places.reshape(count, -1).astype(np.int64)
    wanted = np.stack(np.unravel_index(np.arange(count), x.shape.dims), axis=-1)
    return reshape_to(builder, x, instruction.shape.dims) if np.array_equal(index, wanted) else None


def _takes_single_elements(gather: Instruction) -> bool:
    rank = gather.operands[0].shape.rank
    if gather.attribute("operand_batching_dims") or gather.attribute("offset_dims"):
        return False
    whole = tuple(range(rank))
    indices = gather.operands[1].shape
    single = bool(gather.attribute("collapsed_slice_dims") == whole and gather.attribute("start_index_map") == whole)
    return single and 0 <= gather.attribute("index_vector_dim") < indices.rank


def _sink_broadcast(instruction: Instruction, builder: Builder) -> Instruction | None:
    """Elementwise work on values that are all repeated alike is done before they are repeated.

    Operands: broadcasts over the same dimensions, of the same sizes, and single numbers.
    """
    places: tuple[int, ...] | None = None
    sizes: tuple[int, ...] = ()
    for operand in instruction.operands:
        if operand.opcode != "broadcast":
            if operand.shape.rank == 0:
                continue
            return None
        source = operand.operands[0].shape
        if source.rank and places is None:
            places, sizes = operand.attribute("dimensions"), source.dims
        elif source.rank and (operand.attribute("dimensions") != places or source.dims != sizes):
            return None
    if not instruction.shape.rank:
        return None
    narrow = [_narrowed(operand, sizes, builder) for operand in instruction.operands]
    attributes = dict(instruction.attributes)
    shape = Shape(instruction.shape.dtype, sizes)
    inner = builder.make(instruction.opcode, *narrow, shape=shape, called=instruction.called, **attributes)
    inner.frontend_attributes = dict(instruction.frontend_attributes)
    return broadcast_to(builder, inner, instruction.shape.dims, places or ())


def _narrowed(operand: Instruction, sizes: tuple[int, ...], builder: Builder) -> Instruction:
    source = operand.operands[0] if operand.opcode == "broadcast" else operand
    return source if source.shape.dims == sizes else builder.broadcast(source, sizes)


SUNK = ("abs", "add", "and", "atan2", "cbrt", "ceil", "clamp", "compare", "convert", "cosine", "divide", "erf", "exponential",
        "exponential-minus-one", "floor", "is-finite", "log", "log-plus-one", "logistic", "maximum", "minimum", "multiply",
        "negate", "not", "or", "popcnt", "power", "remainder", "round-nearest-afz", "round-nearest-even", "rsqrt", "select",
        "shift-left", "shift-right-arithmetic", "shift-right-logical", "sign", "sine", "sqrt", "subtract", "tan", "tanh", "xor")
"""Elementwise operators that commute with moving and repeating elements."""

RULES = (
    Rule("reshape", ("reshape",), _reshape),
    Rule("transpose", ("transpose",), _transpose),
    Rule("broadcast", ("broadcast",), _broadcast),
    Rule("constant-of-one-number", ("constant",), _split_constant),
    Rule("slice", ("slice",), _slice),
    Rule("concatenate", ("concatenate",), _concatenate),
    Rule("pad", ("pad",), _pad),
    Rule("reverse", ("reverse",), _reverse),
    Rule("dynamic-slice", ("dynamic-slice",), _dynamic_slice),
    Rule("dynamic-update-slice", ("dynamic-update-slice",), _dynamic_update_slice),
    Rule("gather-of-all", ("gather",), _gather_of_all),
    Rule("work-before-broadcast", SUNK, _sink_broadcast),
)
