"""Row programs: fused regions that run tiles of rows through elementwise work, row reductions and matrix products in SBUF.

The region is a `fusion` whose frontend attribute ROWS tells how many leading dimensions of each root are rows (see
nxcc.ir.hlo.rowspace). Values with columns are tiles [rows, columns]; values without are columns [rows, 1]; what is equal
everywhere stays a number. Nothing but the region's operands and results touches HBM.

Six schedules. Without products, tiles of rows follow each other; rows too long for the chip are passed over in pieces
(passes). With products by matrices for all rows, matrices are loaded once and stay, or else stream past a block of rows whose
left sides stay (tiles); where all left sides fit, they stream past these, so that work begins with their first columns
(streams). Products with a matrix for each of many, as attention has for each head, take several of these in step
(batches), or, where rows are long, go through stages that work on several tiles of rows at a time (wide).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nxcc.backends.lowering.rows.batches import RowBatches
from nxcc.backends.lowering.rows.passes import RowPasses, comes_in_passes
from nxcc.backends.lowering.rows.program import RowProgram
from nxcc.backends.lowering.rows.spread import RowSpread
from nxcc.backends.lowering.rows.streams import RowStream, streams
from nxcc.backends.lowering.rows.tiles import RowTiles
from nxcc.backends.lowering.rows.wide import RowWide
from nxcc.backends.lowering.rows.wide_course import course_of
from nxcc.backends.lowering.turning import comes_in_elements, unlike_the_first
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import View
from nxcc.ir.hlo.marks import row_dims
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.hlo.rowspace import COLUMN, RowMap, is_column_parallel, maps_of, row_map, shown


def runs_along(instruction: Instruction, order: Sequence[int]) -> bool:
    """Whether a result that lies in this order of dimensions is stored in runs: along columns, or where any may be columns."""
    rows, dims = row_dims(instruction), instruction.shape.dims
    fastest = next((d for d in reversed(order) if dims[d] > 1), rows)
    return fastest >= rows or _is_free(instruction)


def rows_together(instruction: Instruction, operands: Sequence[View | None]) -> Iterator[tuple[int, Sequence[int]]]:
    """Operands whose rows lie together in memory, which tiles would read element by element, with the order that suits them.

    What is multiplied comes either way, and a program whose dimensions may be rows or columns chooses (see RowProgram).
    """
    if _is_free(instruction):
        if instruction.shape.is_array:
            yield from unlike_the_first(instruction.shape.dims, operands)
        return
    body, maps = instruction.called[0], _maps(instruction)
    multiplied = {shown(side) for value in body.post_order() if value.opcode == "dot" for side in value.operands}
    for parameter in body.parameters:
        number = int(parameter.attributes["parameter_number"])
        view, marks = operands[number], maps.get(parameter, ())
        if view is None or parameter in multiplied or COLUMN not in marks:
            continue
        if any(mark >= 0 and comes_in_elements(view, d) for d, mark in enumerate(marks)):
            yield number, sorted(range(len(marks)), key=lambda d: (marks[d] == COLUMN, marks[d], d))


def _maps(instruction: Instruction) -> dict[Instruction, RowMap]:
    body, rows = instruction.called[0], row_dims(instruction)
    maps = maps_of(body.post_order(), {root: row_map(root, rows) for root in _roots(body)})
    assert maps is not None, f"{body.name} is no row program"
    return maps


def _roots(body: Computation) -> Sequence[Instruction]:
    return body.root.operands if body.root.opcode == "tuple" else [body.root]


def _is_free(instruction: Instruction) -> bool:
    """Whether any dimension may be the columns: elementwise work alone."""
    body = instruction.called[0]
    order = body.post_order()
    return all(i.opcode != "dot" for i in order) and is_column_parallel(order, _maps(instruction), _roots(body))


def lower_row_program(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Write the tile program of a fused region."""
    rows = row_dims(instruction)
    program = RowProgram(kernel, instruction.called[0], rows, operands, results)
    course = course_of(program)
    if course is not None:
        RowWide(program, course).lower()
    elif comes_in_passes(program):
        RowPasses(program).lower()
    elif not program.batch and streams(program):
        RowStream(program).lower()
    else:
        (RowBatches if program.batch else RowTiles if program.dots else RowSpread)(program).lower()
