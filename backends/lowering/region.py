"""Row programs: fused regions that run tiles of rows through elementwise work, row reductions and matrix products in SBUF.

The region is a `fusion` whose frontend attribute ROWS tells how many leading dimensions of each root are rows (see
nxcc.ir.hlo.rowspace). Values with columns are tiles [rows, columns]; values without are columns [rows, 1]; what is equal
everywhere stays a number. Nothing but the region's operands and results touches HBM.

Four schedules. Without products, tiles of rows follow each other. With products by matrices for all rows, matrices are
loaded once and stay, or else stream past a block of rows whose left sides stay (rowtiles). Products with a matrix for each of
many, as attention has for each head, take several of these in step (rowbatches), or, where rows are long, go through
stages that work on several tiles of rows at a time (rowwide).
"""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.backends.lowering.rowbatches import RowBatches
from nxcc.backends.lowering.rowprogram import RowProgram
from nxcc.backends.lowering.rowspread import RowSpread
from nxcc.backends.lowering.rowtiles import RowTiles
from nxcc.backends.lowering.rowwide import RowWide, stages_of
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import View
from nxcc.ir.hlo.module import Instruction

ROWS = "nxcc.rows"
"""Frontend attribute of a fusion that is a row program: its number of row dimensions."""


def is_row_program(instruction: Instruction) -> bool:
    return instruction.opcode == "fusion" and ROWS in instruction.frontend_attributes


def lower_row_program(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Write the tile program of a fused region."""
    rows = int(instruction.frontend_attributes[ROWS])
    program = RowProgram(kernel, instruction.called[0], rows, operands, results)
    stages = stages_of(program)
    if stages is not None:
        RowWide(program, stages).lower()
    else:
        (RowBatches if program.batch else RowTiles if program.dots else RowSpread)(program).lower()
