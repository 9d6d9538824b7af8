"""Row spaces: which computations work row by row, and which dimension of each value runs over rows or over columns.

A row program has a few row dimensions that all its values share; each value may have column dimensions of its own on top.
Elementwise work, reductions over all columns, and products with matrices from outside keep rows apart, so that a tile of
rows can run through the whole program. Fusion asks whether a set of instructions is one; the backend asks for the maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.ops.opaque import is_elementwise_call
from nxcc.ir.hlo.spaces import follow

COLUMN = -1
UNIT = -2
"""Marks in a map: a column dimension; a dimension of size 1."""

RowMap = tuple[int, ...]
"""For each dimension of a value: the row dimension it runs over, or COLUMN, or UNIT."""


def row_map(instruction: Instruction, rows: int) -> RowMap:
    """The map of a root whose first `rows` dimensions are the rows."""
    dims = instruction.shape.dims
    return tuple(UNIT if size == 1 else (d if d < rows else COLUMN) for d, size in enumerate(dims))


def operand_maps(instruction: Instruction, result: RowMap) -> list[RowMap | None] | None:
    """Maps of the operands, given the result's; None if the instruction mixes rows.

    An operand's entry is None where it is no part of the row space: the initial value of a reduction, the right side of a dot.
    """
    if is_elementwise(instruction):
        return [result if operand.shape.rank else () for operand in instruction.operands]
    rule = _RULES.get(instruction.opcode)
    return rule(instruction, result) if rule else None


def is_elementwise(instruction: Instruction) -> bool:
    """Element by element by its declaration, or as a custom call whose target is."""
    return instruction.operator.elementwise or instruction.opcode == "custom-call" and is_elementwise_call(instruction)


def _broadcast(instruction: Instruction, result: RowMap) -> list[RowMap | None] | None:
    """The operand has all the result's columns, in their order, or none: a tile repeats as a whole or not at all."""
    dimensions = instruction.attribute("dimensions")
    columns = [d for d in dimensions if result[d] == COLUMN]
    if columns and columns != [d for d, mark in enumerate(result) if mark == COLUMN]:
        return None
    return [tuple(result[d] for d in dimensions)]


def reshape_map(instruction: Instruction, result: RowMap) -> list[RowMap | None] | None:
    """Only dimensions of size 1 may come or go."""
    source = instruction.operands[0].shape.dims
    marks = [(size, mark) for size, mark in zip(instruction.shape.dims, result, strict=True) if size != 1]
    if [size for size, _ in marks] != [size for size in source if size != 1]:
        return None
    rest = iter(mark for _, mark in marks)
    return [tuple(UNIT if size == 1 else next(rest) for size in source)]


def transpose_map(instruction: Instruction, result: RowMap) -> list[RowMap | None] | None:
    """Dimensions keep their marks where they go."""
    operand = [UNIT] * len(result)
    for place, source in enumerate(instruction.attribute("dimensions")):
        operand[source] = result[place]
    return [tuple(operand)]


def _reduce(instruction: Instruction, result: RowMap) -> list[RowMap | None] | None:
    """A reduction of one array over columns; what remains must be rows alone."""
    if COLUMN in result or len(instruction.operands) != 2:
        return None
    reduced = set(instruction.attribute("dimensions"))
    kept = iter(result)
    dims = instruction.operands[0].shape.dims
    return [tuple((COLUMN if size != 1 else UNIT) if d in reduced else next(kept) for d, size in enumerate(dims)), None]


def _dot(instruction: Instruction, result: RowMap) -> list[RowMap | None] | None:
    """Batch and left free dimensions are rows, right free dimensions are columns; the left side's summed ones are columns."""
    batch = instruction.attribute("lhs_batch_dims")
    summed = instruction.attribute("lhs_contracting_dims")
    lhs = instruction.operands[0].shape
    free = [d for d in range(lhs.rank) if d not in batch and d not in summed]
    left = result[:len(batch) + len(free)]
    if COLUMN in left or any(mark >= 0 for mark in result[len(left):]):
        return None
    marks = dict(zip((*batch, *free), left, strict=True))
    return [tuple(marks.get(d, COLUMN if size != 1 else UNIT) for d, size in enumerate(lhs.dims)), None]


_RULES: dict[str, Callable[[Instruction, RowMap], list[RowMap | None] | None]] = {
    "broadcast": _broadcast,
    "reshape": reshape_map,
    "transpose": transpose_map,
    "reduce": _reduce,
    "dot": _dot,
}


def maps_of(order: Iterable[Instruction], roots: Mapping[Instruction, RowMap]) -> dict[Instruction, RowMap] | None:
    """Maps of all instructions that the roots reach, or None if they do not form a row program.

    order: instructions of the computation, operands before users.
    """
    return follow(order, roots, operand_maps)


FREE = frozenset(("broadcast", "reshape", "transpose", "constant"))
"""Operators that cost nothing inside a row program."""


def shown(value: Instruction) -> Instruction:
    """What a value shows through reshapes and transposes."""
    while value.opcode in ("reshape", "transpose"):
        value = value.operands[0]
    return value


def is_column_parallel(order: Iterable[Instruction], maps: Mapping[Instruction, RowMap], roots: Iterable[Instruction]) -> bool:
    """True if columns do not depend on each other either: no reduction, products only of what comes in, one width for all.

    Then tiles may be cut along columns too, and rows can have any length.
    """
    widths = {_widths(root, maps[root]) for root in roots}
    if len(widths) != 1 or len(next(iter(widths))) > 1:
        return False
    members = {i for i in order if i in maps and i.opcode not in FREE and i.opcode not in ("parameter", "tuple")}
    if any(i.opcode == "reduce" or i.opcode == "dot" and not _comes_in(i.operands[0], members) for i in members):
        return False
    width = next(iter(widths))
    return all(_widths(i, maps[i]) in ((), width) for i in members)


def _comes_in(left: Instruction, members: set[Instruction]) -> bool:
    """Whether the left side of a product is an operand of the region, not computed or made up inside."""
    source = shown(left)
    return source not in members and source.opcode not in ("broadcast", "constant")


def _widths(value: Instruction, marks: RowMap) -> tuple[int, ...]:
    """Sizes of the column dimensions."""
    return tuple(size for size, mark in zip(value.shape.dims, marks, strict=True) if mark == COLUMN)
