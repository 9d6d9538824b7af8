"""The same model for another batch or length: one dimension of some inputs gets another size, and what follows from it too.

Which dimensions follow is found from marks that walk over the instructions, both ways, by one rule an operator: a mark says
that a dimension holds `outer * old * inner` elements and is to hold `outer * new * inner`. Merging reshapes change `inner`,
splitting ones find the part that it fits. Where the old size is 1, shared values have dimensions of size 1 as well: then marks
walk from operands to results only, and a shared operand is broadcast where it meets what has grown.
Only shapes matter here: constants are repeated or cut to their new size, since the answer serves to estimate times. The
result is verified; a model whose shapes do not follow gives None.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from nxcc.ir.diagnostics import CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import SliceDimension
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.verifier import verify
from nxcc.ir.literals import Literal
from nxcc.ir.shapes import Shape, tuple_of

Place = tuple[int, int]
"""An operand's number, or RESULT, and a dimension of it."""
RESULT = -1
Links = Iterator[tuple[Place, Place]]


@dataclass(frozen=True)
class Resize:
    """New size of a dimension that has `old` elements, at these (parameter, dimension) pairs.

    of_samples: samples are independent of each other: a dimension of which a part is taken counts something else, as layers.
    """

    places: tuple[tuple[int, int], ...]
    old: int
    new: int
    of_samples: bool = False


def resized(module: Module, resize: Resize, fixed: frozenset[int] = frozenset()) -> Module | None:
    """The module, changed in place, if its shapes follow; else None, and the module is of no further use.

    fixed: parameters that keep their shapes, as weights do: a dimension that changes theirs is none of samples or places.
    """
    if resize.old == 1:
        _restore_units(module)
    marks = _Marks(module, resize)
    try:
        marks.walk()
        if any(module.entry.parameters[number] in marks.inner for number in fixed):
            return None
        links = {instruction: list(_links(instruction)) for instruction in module.entry.instructions}
        for instruction, dims in marks.inner.items():
            _apply(instruction, {dim: marks.size(instruction, dim) for dim in dims})
        for instruction in module.entry.post_order():
            _settle(instruction, links[instruction], marks, Builder(module.entry))
        module.entry.sort()
        module.entry_layout = None
        verify(module)
    except (CompileError, _CannotFollow):
        return None
    return module


def _restore_units(module: Module) -> None:
    """Broadcasts read values with their dimensions of size 1, which simplifying had removed: one of them may be the batch."""
    for instruction in module.entry.post_order():
        _reshape_behind(module.entry, instruction)
    module.entry.sort()
    for instruction in list(module.entry.instructions):
        source = instruction.operands[0] if instruction.opcode == "broadcast" else None
        if source is None or source.opcode != "reshape":
            continue
        whole = source.operands[0]
        if not _drops_units(source):
            continue
        dimensions = _with_units(whole.shape.dims, source.shape.dims, instruction)
        if dimensions is not None:
            module.entry.set_operands(instruction, [whole])
            instruction.attributes["dimensions"] = dimensions
            if not source.users and source is not module.entry.root:
                module.entry.remove(source)


def _drops_units(reshape: Instruction) -> bool:
    """Whether only dimensions of size 1 come or go."""
    old, new = reshape.operands[0].shape.dims, reshape.shape.dims
    return [size for size in old if size > 1] == [size for size in new if size > 1]


def _reshape_behind(entry: Computation, instruction: Instruction) -> None:
    """Work on reshaped values and numbers is done before the reshape, if that only drops dimensions of size 1."""
    moved = [o for o in instruction.operands if o.opcode == "reshape" and _drops_units(o)]
    rest = [o for o in instruction.operands if o not in moved]
    dims = {o.operands[0].shape.dims for o in moved}
    if not instruction.operator.elementwise or instruction.attributes or len(dims) != 1:
        return
    if any(o.opcode != "broadcast" or o.operands[0].shape.rank for o in rest):
        return
    builder = Builder(entry)
    (whole,) = dims
    found = builder.make(instruction.opcode, *(o.operands[0] if o in moved else builder.broadcast(o.operands[0], whole)
                                               for o in instruction.operands))
    entry.replace(instruction, builder.reshape(found, instruction.shape.dims))
    entry.remove(instruction)


def _with_units(whole: tuple[int, ...], cut: tuple[int, ...], broadcast: Instruction) -> tuple[int, ...] | None:
    """The broadcast's dimensions for an operand with further dimensions of size 1, if its result has room for them."""
    old = [dim for dim, size in zip(broadcast.attribute("dimensions"), cut, strict=True) if size > 1]
    found: list[int] = []
    for place, size in enumerate(whole):
        if size > 1:
            found.append(old[sum(1 for other in whole[:place] if other > 1)])
            continue
        least = found[-1] + 1 if found else 0
        room = [dim for dim in range(least, broadcast.shape.rank) if broadcast.shape.dims[dim] == 1 and dim not in old]
        if not room:
            return None
        found.append(room[0])
    return tuple(found) if found == sorted(set(found)) else None


class _CannotFollow(Exception):
    """A dimension cannot be cut into the parts that it would have to have."""


class _Marks:
    """inner: of each marked dimension, how many elements one of the changed dimension stands for."""

    def __init__(self, module: Module, resize: Resize) -> None:
        self.resize = resize
        self.inner: dict[Instruction, dict[int, int]] = {}
        self.work: deque[tuple[Instruction, int]] = deque()
        parameters = module.entry.parameters
        for number, dim in resize.places:
            self.mark(parameters[number], dim, 1)

    def mark(self, instruction: Instruction, dim: int, inner: int) -> None:
        dims = self.inner.setdefault(instruction, {})
        if dim not in dims:
            dims[dim] = inner
            self.work.append((instruction, dim))

    def walk(self) -> None:
        while self.work:
            instruction, dim = self.work.popleft()
            self._spread(instruction, RESULT, dim, self.inner[instruction][dim])
            for user in instruction.users:
                for number, operand in enumerate(user.operands):
                    if operand is instruction:
                        self._spread(user, number, dim, self.inner[instruction][dim])

    def _spread(self, instruction: Instruction, number: int, dim: int, inner: int) -> None:
        """From one place of an instruction to those that go with it."""
        if instruction.opcode in _RESHAPES:
            self._through_reshape(instruction, number, dim, inner)
            return
        if self.resize.of_samples and inner == 1 and number == 0 and _takes_part(instruction, dim):
            raise _CannotFollow
        for one, other in _links(instruction):
            for here, there in ((one, other), (other, one)):
                if here == (number, dim) and self._may_follow(instruction, there):
                    self.mark(_at(instruction, there[0]), there[1], inner)

    def _may_follow(self, instruction: Instruction, there: Place) -> bool:
        """Whether a mark may walk to this place: against the flow of values only where that is not ambiguous."""
        if self.resize.old > 1 or there[0] == RESULT:
            return True
        target = instruction.operands[there[0]]
        return target.opcode == "broadcast" and there[1] not in target.attribute("dimensions")

    def _through_reshape(self, instruction: Instruction, number: int, dim: int, inner: int) -> None:
        operand = instruction.operands[0]
        if number == RESULT and self.resize.old == 1:
            return
        source, target = (operand, instruction) if number == 0 else (instruction, operand)
        for group, other in _groups(source.shape.dims, target.shape.dims):
            if dim not in group:
                continue
            reach = inner * math.prod(source.shape.dims[d] for d in group if d > dim)
            stride = 1
            found: tuple[int, int] | None = None
            for there in reversed(other):
                if stride <= reach and reach % stride == 0:
                    found = there, reach // stride
                stride *= target.shape.dims[there]
            if found is not None:
                self.mark(target, *found)

    def size(self, instruction: Instruction, dim: int) -> int:
        """The new size of a marked dimension."""
        now, inner = _like(instruction.shape).dims[dim], self.inner[instruction][dim]
        if now % (self.resize.old * inner):
            raise _CannotFollow
        return now // self.resize.old * self.resize.new


_RESHAPES = frozenset(("reshape", "bitcast"))


def _groups(source: tuple[int, ...], target: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Dimensions of two shapes of as many elements, in smallest groups of equal products; ones go with what follows them."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(source) or j < len(target):
        left: list[int] = []
        right: list[int] = []
        a = b = 1
        while True:
            if i < len(source) and (a < b or (a == b and not left) or source[i] == 1):
                a *= source[i]
                left.append(i)
                i += 1
            elif j < len(target) and (b < a or not right or target[j] == 1):
                b *= target[j]
                right.append(j)
                j += 1
            elif (a == b and a > 1) or (i == len(source) and j == len(target)):
                break
            elif i < len(source):
                a *= source[i]
                left.append(i)
                i += 1
            else:
                break
        groups.append((left, right))
    return groups


def _like(shape: Shape) -> Shape:
    """An array's shape; of a tuple that a reduction or a sort of several arrays gives, whose dimensions are the same."""
    return shape.elements[0] if shape.is_tuple else shape


def _at(instruction: Instruction, number: int) -> Instruction:
    return instruction if number == RESULT else instruction.operands[number]


# Which dimensions have the same size because of an operator


def _links(instruction: Instruction) -> Links:
    rule = _RULES.get(instruction.opcode)
    if rule is not None:
        yield from rule(instruction)
    elif instruction.operator.elementwise or instruction.opcode == "sort" or _keeps_shape(instruction):
        yield from _elementwise(instruction)


def _keeps_shape(instruction: Instruction) -> bool:
    """A function of one array that nothing else is known of, as a call of a known function or a copy."""
    return len(instruction.operands) == 1 and instruction.shape.is_array \
        and instruction.operands[0].shape.dims == instruction.shape.dims


def _elementwise(instruction: Instruction) -> Links:
    for number, operand in enumerate(instruction.operands):
        if operand.shape.dims == _like(instruction.shape).dims:
            yield from (((number, dim), (RESULT, dim)) for dim in range(operand.shape.rank))


def _broadcast(instruction: Instruction) -> Links:
    return (((0, place), (RESULT, dim)) for place, dim in enumerate(instruction.attribute("dimensions")))


def _transpose(instruction: Instruction) -> Links:
    return (((0, source), (RESULT, dim)) for dim, source in enumerate(instruction.attribute("dimensions")))


def _reduce(instruction: Instruction) -> Links:
    gone = set(instruction.attribute("dimensions"))
    inputs = len(instruction.operands) // 2
    kept = [dim for dim in range(instruction.operands[0].shape.rank) if dim not in gone]
    for number in range(1, inputs):
        yield from (((0, dim), (number, dim)) for dim in range(instruction.operands[0].shape.rank))
    yield from (((0, dim), (RESULT, place)) for place, dim in enumerate(kept))


def _element(instruction: Instruction) -> Links:
    if instruction.shape.is_array and instruction.operands[0].opcode in ("reduce", "sort"):
        yield from (((0, dim), (RESULT, dim)) for dim in range(instruction.shape.rank))


def _dot(instruction: Instruction) -> Links:
    sides = []
    for number, side in enumerate(("lhs", "rhs")):
        batch, summed = instruction.attribute(f"{side}_batch_dims"), instruction.attribute(f"{side}_contracting_dims")
        free = [d for d in range(instruction.operands[number].shape.rank) if d not in (*batch, *summed)]
        sides.append((batch, summed, free))
    (batch, summed, free), (other_batch, other_summed, other_free) = sides
    yield from (((0, a), (1, b)) for a, b in zip((*batch, *summed), (*other_batch, *other_summed), strict=True))
    yield from (((0, dim), (RESULT, place)) for place, dim in enumerate((*batch, *free)))
    yield from (((1, dim), (RESULT, place)) for place, dim in enumerate(other_free, len(batch) + len(free)))


def _convolution(instruction: Instruction) -> Links:
    dims = instruction.attribute("dim_labels")
    if instruction.attribute("batch_group_count") == 1:
        yield (0, dims.input_batch), (RESULT, dims.output_batch)


def _concatenate(instruction: Instruction) -> Links:
    (joined,) = instruction.attribute("dimensions")
    for number, operand in enumerate(instruction.operands):
        yield from (((number, dim), (RESULT, dim)) for dim in range(operand.shape.rank) if dim != joined)


def _where_equal(instruction: Instruction) -> Links:
    """Dimensions that an instruction leaves whole."""
    operand = instruction.operands[0].shape
    return (((0, dim), (RESULT, dim)) for dim in range(operand.rank) if operand.dims[dim] == instruction.shape.dims[dim])


def _takes_part(instruction: Instruction, dim: int) -> bool:
    """Whether an instruction takes some elements of its operand's dimension and leaves others."""
    return instruction.opcode in ("slice", "dynamic-slice") \
        and instruction.operands[0].shape.dims[dim] != instruction.shape.dims[dim]


def _update(instruction: Instruction) -> Links:
    data, update = instruction.operands[0].shape, instruction.operands[1].shape
    for dim in range(data.rank):
        yield (0, dim), (RESULT, dim)
        if update.dims[dim] == data.dims[dim]:
            yield (1, dim), (RESULT, dim)


def _windowed(instruction: Instruction) -> Links:
    if not instruction.shape.is_array:
        return
    plain = [(d.size, d.stride, d.padding_low, d.padding_high) == (1, 1, 0, 0) for d in instruction.attribute("window").dims]
    yield from (((0, dim), (RESULT, dim)) for dim, is_plain in enumerate(plain) if is_plain)


def _gather(instruction: Instruction) -> Links:
    offsets, gone = instruction.attribute("offset_dims"), instruction.attribute("collapsed_slice_dims")
    batching, own = instruction.attribute("operand_batching_dims"), instruction.attribute("start_indices_batching_dims")
    data, indices = instruction.operands[0].shape, instruction.operands[1].shape
    sizes = instruction.attribute("slice_sizes")
    kept = [dim for dim in range(data.rank) if dim not in (*gone, *batching)]
    yield from (((0, dim), (RESULT, place)) for place, dim in zip(offsets, kept, strict=True) if sizes[dim] == data.dims[dim])
    places = [dim for dim in range(instruction.shape.rank) if dim not in offsets]
    rows = [dim for dim in range(indices.rank) if dim != instruction.attribute("index_vector_dim")]
    yield from (((1, dim), (RESULT, place)) for place, dim in zip(places, rows, strict=True))
    yield from (((0, a), (1, b)) for a, b in zip(batching, own, strict=True))


_RULES: Mapping[str, Callable[[Instruction], Links]] = {
    "broadcast": _broadcast, "transpose": _transpose, "reduce": _reduce, "dot": _dot, "convolution": _convolution,
    "concatenate": _concatenate, "slice": _where_equal, "dynamic-slice": _where_equal, "pad": _where_equal,
    "reverse": _elementwise, "dynamic-update-slice": _update, "reduce-window": _windowed, "gather": _gather,
    "reduce-precision": _elementwise, "get-tuple-element": _element,
}


# Giving an instruction its new sizes


def _apply(instruction: Instruction, sizes: dict[int, int]) -> None:
    old = instruction.shape
    dims = tuple(sizes.get(dim, size) for dim, size in enumerate(_like(old).dims))
    leaves = [Shape(leaf.dtype, dims) for leaf in old.leaves()]
    instruction.shape = tuple_of(*leaves) if old.is_tuple else leaves[0]
    change = _CHANGES.get(instruction.opcode)
    if change is not None:
        change(instruction, sizes)


def _settle(instruction: Instruction, links: list[tuple[Place, Place]], marks: _Marks, builder: Builder) -> None:
    """Tuples have their elements' shapes; operands that all samples share grow where they meet others."""
    if instruction.opcode == "tuple":
        instruction.shape = tuple_of(*(operand.shape for operand in instruction.operands))
    if marks.resize.old > 1 or instruction.opcode in _RESHAPES:
        return
    for one, other in links:
        for here, there in ((one, other), (other, one)):
            inner = marks.inner.get(_at(instruction, here[0]), {}).get(here[1])
            if inner is None or there[0] == RESULT or there[1] in marks.inner.get(_at(instruction, there[0]), {}):
                continue
            operands = list(instruction.operands)
            grown = _grown(operands[there[0]], there[1], inner, marks.resize.new, builder)
            marks.inner[grown] = dict(marks.inner.get(operands[there[0]], {})) | {there[1]: inner}
            operands[there[0]] = grown
            builder.computation.set_operands(instruction, operands)


def _grown(value: Instruction, dim: int, inner: int, factor: int, builder: Builder) -> Instruction:
    """The value with a dimension of outer * inner elements repeated to outer * factor * inner."""
    dims = value.shape.dims
    if dims[dim] % inner:
        raise _CannotFollow
    split = (*dims[:dim], dims[dim] // inner, inner, *dims[dim + 1:])
    whole = (*split[:dim + 1], factor, *split[dim + 1:])
    kept = [place for place in range(len(whole)) if place != dim + 1]
    repeated = builder.broadcast(builder.reshape(value, split), whole, kept)
    return builder.reshape(repeated, (*dims[:dim], dims[dim] * factor, *dims[dim + 1:]))


def _resize_constant(instruction: Instruction, sizes: dict[int, int]) -> None:
    array = instruction.attributes["literal"].array
    pads = [(0, max(0, size - have)) for size, have in zip(instruction.shape.dims, array.shape, strict=True)]
    array = np.pad(array, pads, mode="wrap")[tuple(slice(size) for size in instruction.shape.dims)]
    instruction.attributes["literal"] = Literal(instruction.shape, np.ascontiguousarray(array))


def _resize_slice(instruction: Instruction, sizes: dict[int, int]) -> None:
    parts: list[SliceDimension] = list(instruction.attribute("slice"))
    for dim, size in sizes.items():
        parts[dim] = dataclasses.replace(parts[dim], start=0, limit=size)
    instruction.attributes["slice"] = tuple(parts)


def _resize_sizes(key: str) -> Callable[[Instruction, dict[int, int]], None]:
    def change(instruction: Instruction, sizes: dict[int, int]) -> None:
        instruction.attributes[key] = tuple(sizes.get(dim, size) for dim, size in enumerate(instruction.attribute(key)))
    return change


def _resize_gather(instruction: Instruction, sizes: dict[int, int]) -> None:
    offsets, gone = instruction.attribute("offset_dims"), instruction.attribute("collapsed_slice_dims")
    batching = instruction.attribute("operand_batching_dims")
    kept = [dim for dim in range(instruction.operands[0].shape.rank) if dim not in (*gone, *batching)]
    slices: list[Any] = list(instruction.attribute("slice_sizes"))
    for place, dim in zip(offsets, kept, strict=True):
        slices[dim] = sizes.get(place, slices[dim])
    instruction.attributes["slice_sizes"] = tuple(slices)


_CHANGES: Mapping[str, Callable[[Instruction, dict[int, int]], None]] = {
    "constant": _resize_constant, "slice": _resize_slice, "dynamic-slice": _resize_sizes("dynamic_slice_sizes"),
    "gather": _resize_gather,
}
