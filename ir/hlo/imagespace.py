"""Image spaces: computations on images that keep channels on one dimension, and what each dimension of a value runs over.

An image program is made of convolutions, pooling windows, sums over whole images, concatenations of channels and elementwise
work. Its values have at most a batch, a channel and two spatial dimensions, in any order; what has a channel dimension alone
(a bias, the statistics of a norm) repeats everywhere else. Fusion asks whether a set of instructions is one; the backend asks
for the maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.rowspace import UNIT, is_elementwise, reshape_map, transpose_map
from nxcc.ir.hlo.spaces import follow

BATCH, CHANNEL, ROW, COLUMN = range(4)
"""Marks in a map. Windows over one spatial dimension have columns only."""

SPATIAL = (ROW, COLUMN)

ImageMap = tuple[int, ...]
"""For each dimension of a value what it runs over, or UNIT where its size is 1."""


def marked(dims: Iterable[int], marks: Iterable[int]) -> ImageMap:
    """A map without marks on dimensions of size 1."""
    return tuple(UNIT if size == 1 else mark for size, mark in zip(dims, marks, strict=True))


def labelled(rank: int, batch: int, feature: int, spatial: Iterable[int], dims: Iterable[int]) -> ImageMap | None:
    """The map of a convolution's operand or result by its labels; None for more than two spatial dimensions."""
    spatial = tuple(spatial)
    if len(spatial) > len(SPATIAL):
        return None
    places = {batch: BATCH, feature: CHANNEL} | dict(zip(spatial, SPATIAL[len(SPATIAL) - len(spatial):], strict=True))
    return marked(dims, (places[d] for d in range(rank)))


def convolution_maps(convolution: Instruction) -> tuple[ImageMap, ImageMap] | None:
    """Maps of a convolution's data and of its result."""
    labels = convolution.attribute("dim_labels")
    data = convolution.operands[0].shape
    given = labelled(data.rank, labels.input_batch, labels.input_feature, labels.input_spatial, data.dims)
    result = labelled(data.rank, labels.output_batch, labels.output_feature, labels.output_spatial, convolution.shape.dims)
    return None if given is None or result is None else (given, result)


def is_depthwise(instruction: Instruction) -> bool:
    """Whether a convolution makes each channel of its result of the same channel of its image alone."""
    if instruction.opcode != "convolution" or instruction.attribute("batch_group_count") > 1:
        return False
    labels, kernel = instruction.attribute("dim_labels"), instruction.operands[1].shape.dims
    groups: int = instruction.attribute("feature_group_count")
    outputs: int = kernel[labels.kernel_output_feature]
    return groups == outputs and kernel[labels.kernel_input_feature] == 1


def operand_maps(instruction: Instruction, result: ImageMap) -> list[ImageMap | None] | None:
    """Maps of the operands, given the result's; None if the instruction is no work on images.

    An operand's entry is None where it is no image: weights, the initial value of a reduction.
    """
    if is_elementwise(instruction):
        return [result if operand.shape.rank else () for operand in instruction.operands]
    rule = _RULES.get(instruction.opcode)
    return rule(instruction, result) if rule else None


def _broadcast(instruction: Instruction, result: ImageMap) -> list[ImageMap | None] | None:
    """Numbers and channels repeat; so does what already has all dimensions."""
    dims = instruction.operands[0].shape.dims
    found = marked(dims, (result[d] for d in instruction.attribute("dimensions")))
    kept = {mark for mark in found if mark != UNIT}
    return [found] if kept <= {CHANNEL} or kept == {mark for mark in result if mark != UNIT} else None


def _convolution(instruction: Instruction, result: ImageMap) -> list[ImageMap | None] | None:
    maps = convolution_maps(instruction)
    return [maps[0], None] if maps is not None and maps[1] == result else None


def _reduce_window(instruction: Instruction, result: ImageMap) -> list[ImageMap | None] | None:
    """A window over spatial dimensions of one array; each has a mark, though its result may have size 1."""
    if len(instruction.operands) != 2:
        return None
    data = instruction.operands[0].shape.dims
    windows = instruction.attribute("window").dims
    moved = [d for d, w in enumerate(windows) if w.size > 1 or w.stride > 1 or instruction.shape.dims[d] != data[d]]
    if len(moved) == len(SPATIAL):
        places = dict(zip(moved, SPATIAL, strict=True))
        if all(result[d] in (mark, UNIT) for d, mark in places.items()):
            return [marked(data, [places.get(d, mark) for d, mark in enumerate(result)]), None]
    if any(result[d] not in SPATIAL for d in moved):
        return None
    return [marked(data, result), None]


def _reduce(instruction: Instruction, result: ImageMap) -> list[ImageMap | None] | None:
    """A sum over the spatial dimensions, which come last of what is reduced."""
    if len(instruction.operands) != 2 or any(mark in SPATIAL for mark in result):
        return None
    reduced = sorted(instruction.attribute("dimensions"))
    dims = instruction.operands[0].shape.dims
    if not 1 <= len(reduced) <= len(SPATIAL):
        return None
    places = dict(zip(reduced, SPATIAL[len(SPATIAL) - len(reduced):], strict=True))
    kept = iter(result)
    return [marked(dims, [places[d] if d in places else next(kept) for d in range(len(dims))]), None]


def _concatenate(instruction: Instruction, result: ImageMap) -> list[ImageMap | None] | None:
    """Images beside each other along channels."""
    dim = instruction.attribute("dimensions")[0]
    if result[dim] != CHANNEL:
        return None
    return [marked(operand.shape.dims, result) for operand in instruction.operands]


_RULES: dict[str, Callable[[Instruction, ImageMap], list[ImageMap | None] | None]] = {
    "broadcast": _broadcast,
    "reshape": reshape_map,
    "transpose": transpose_map,
    "convolution": _convolution,
    "reduce-window": _reduce_window,
    "reduce": _reduce,
    "concatenate": _concatenate,
}

VIEWS = frozenset(("broadcast", "reshape", "transpose", "constant"))
"""Operators that cost nothing inside an image program."""

HEADS = frozenset(("convolution", "reduce-window", "reduce"))
"""Operators that read an image as a whole, not place by place."""


def maps_of(order: Iterable[Instruction], root: Instruction, marks: ImageMap) -> dict[Instruction, ImageMap] | None:
    """Maps of all instructions that the root reaches, or None if they do not form an image program.

    order: instructions of the computation, operands before users.
    """
    return follow(order, {root: marks}, operand_maps)


def sizes_of(dims: Iterable[int], marks: ImageMap) -> tuple[int, int, int, int]:
    """Batch, channels, rows and columns of a value with this map."""
    sizes = [1, 1, 1, 1]
    for size, mark in zip(dims, marks, strict=True):
        if mark != UNIT:
            sizes[mark] = size
    return sizes[BATCH], sizes[CHANNEL], sizes[ROW], sizes[COLUMN]


def channel_like(values: Iterable[Instruction], maps: Mapping[Instruction, ImageMap], images: Iterable[Instruction],
                 leaves: Iterable[Instruction] = ()) -> set[Instruction]:
    """Which of some values (operands before users) have one number for each channel, or one for all.

    images: values that are images whatever their sizes: what heads read and make. leaves: values that come from outside.
    """
    taken, outside = set(images), set(leaves)
    found: set[Instruction] = set()
    for value in values:
        if value in taken or value not in maps or value.opcode in HEADS and value not in outside:
            continue
        marks = {mark for mark in maps[value] if mark != UNIT}
        if value.opcode == "broadcast" and value.operands[0] in found:
            found.add(value)
        elif marks <= {CHANNEL} and (value in outside or all(operand in found for operand in value.operands)):
            found.add(value)
    return found
