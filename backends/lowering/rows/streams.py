"""Row programs whose matrices stream past all rows: a few columns at a time, each for tile after tile of rows.

Left sides stay, so nothing waits for more than the first columns, and little of the chip is taken: another region works or
loads beside it. Where matrices stayed instead, nothing could be multiplied before all of them had come.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from nxcc.backends.lowering.rows.products import Sides, bring_blocks, is_turned, sides, sides_bytes, turn
from nxcc.backends.lowering.rows.program import RowProgram
from nxcc.backends.lowering.rows.tiles import LEFT_SHARE, Rows, RowTiles
from nxcc.backends.lowering.tiling import unfolded
from nxcc.backends.tile.expressions import Expr, expr
from nxcc.backends.tile.program import View
from nxcc.ir.hlo.module import Instruction

MATRICES_LEAST = 16384
"""Bytes of a partition from which matrices stream: of fewer, all are there soon."""

WIDTH_LEAST = 256
"""Columns of a piece at least: fewer lie in short runs."""

RAWS = 3
"""Tiles of rows that are under way at once to be turned."""

TURNS = 2
"""Pieces of the columns that are on the chip at once."""


def streams(program: RowProgram) -> bool:
    """Whether matrices stream though they might stay."""
    kernel, lanes = program.kernel, program.kernel.target.partitions
    suits = program.is_parallel and program.dots and kernel.copies.rotates and kernel.target.features.registers \
        and all(dot in program.lefts for dot in program.dots)
    if not suits:
        return False
    matrices = [program.side(dot).insert(0) for dot in program.dots]
    size = sum(sides_bytes(matrix.sizes[1], matrix.sizes[2], matrix.dtype, lanes) for matrix in matrices)
    if any(map(is_turned, matrices)) or size < MATRICES_LEAST:
        return False
    rows, lefts = math.prod(program.sizes), [program.left(source) for source in set(program.lefts.values())]
    stays = sum(sides_bytes(math.prod(view.sizes[program.rows:]), rows, view.dtype, lanes) for view in lefts)
    return rows > lanes and stays <= LEFT_SHARE * kernel.room.sbuf_bytes and _width(program) > 0


def _width(program: RowProgram) -> int:
    """Columns of a piece: all pieces are as wide, and there are more than lie on the chip at once; 0 if that cannot be."""
    total, bank = program.total_columns(), program.kernel.target.tensor.moving_max
    widths = (width for width in range(bank, WIDTH_LEAST - 1, -32) if total % width == 0 and total > TURNS * width)
    return next(widths, 0)


class RowStream(RowTiles):
    """places: where pieces of the columns of each matrix lie, in turns."""

    def _matrices(self) -> dict[Instruction, Sides]:
        return {}

    def lower(self) -> None:
        program, kernel = self.program, self.kernel
        views, lead = program.join_rows([*(i.view for i in self.moving), *program.outputs,
                                         *map(program.left, self.sources)], 0)
        if lead != 1:
            super().lower()
            return
        (self.banks,) = self.take_rotating(1)
        self.width = _width(program)
        self.places = [{dot: sides(kernel, view.sizes[1], 1, self.width, view.dtype, False) for dot, view in self.sides.items()}
                       for _ in range(TURNS)]
        self._stream(views)

    def _stream(self, views: Sequence[View]) -> None:
        """Left sides are turned a tile ahead of the first piece's products; a piece is under way while one is worked on."""
        kernel = self.kernel
        lefts = {source: sides(kernel, view.sizes[1], 1, view.sizes[0], view.dtype, False)
                 for source, view in zip(self.sources, self._lefts(views), strict=True)}
        last = self.program.total_columns() // self.width - 1
        here, coming = self._bring(expr(0), 0), self._bring(expr(1), 1)
        self._fill(views, lefts, expr(0))
        for number, is_last in self._tiles(views, RAWS):
            if not is_last:
                self._fill(views, lefts, number + 1)
            self._work(views, lefts, here, number, expr(0))
        turn_of = 1
        for piece, _ in kernel.tiles(last - 1, 1, turns=TURNS):
            here, turn_of = coming, 1 - turn_of
            coming = self._bring(piece + 2, turn_of)
            self._pass(views, lefts, here, piece + 1)
        self._pass(views, lefts, coming, expr(last))

    def _pass(self, views: Sequence[View], lefts: Mapping[Instruction, Sides], matrices: Mapping[Instruction, Sides],
              piece: Expr) -> None:
        """All tiles of rows with one piece of the columns."""
        for number, _ in self._tiles(views, 1):
            self._work(views, lefts, matrices, number, piece)

    def _tiles(self, views: Sequence[View], turns: int) -> Iterator[tuple[Expr, bool]]:
        """Numbers of the tiles of rows, and whether it is the last one, which may have fewer rows."""
        last = -(-views[0].sizes[0] // self.lanes) - 1
        for number, _ in self.kernel.tiles(last, 1, turns=turns):
            yield number, False
        yield expr(last), True

    def _work(self, views: Sequence[View], lefts: Mapping[Instruction, Sides], matrices: Mapping[Instruction, Sides],
              number: Expr, piece: Expr) -> None:
        rows = self._rows(views[:len(views) - len(self.sources)], number)
        self._tile(rows, lefts, matrices, number, (piece * self.width, self.width), 0)

    def _rows(self, views: Sequence[View], number: Expr) -> Rows:
        start, total = number * self.lanes, views[0].sizes[0]
        count = min(self.lanes, total - start.constant) if start.is_constant else self.lanes
        return Rows([view.cut(0, start, count) for view in views], 1, count)

    def _lefts(self, views: Sequence[View]) -> Sequence[View]:
        return views[len(views) - len(self.sources):]

    def _fill(self, views: Sequence[View], lefts: Mapping[Instruction, Sides], number: Expr) -> None:
        """Bring the left sides of a tile of rows."""
        rows = self._rows(self._lefts(views), number)
        for to, view in zip(lefts.values(), rows.views, strict=True):
            if is_turned(view.permute((1, 0))):
                raw = self.kernel.sbuf((rows.count, 1, view.sizes[1]), view.dtype)
                self.kernel.dma(unfolded(raw, view), view)
                turn(self.kernel, raw, to, number * self.lanes)
            else:
                place = replace(to, tile=to.tile.cut(1, number * self.lanes, rows.count))
                bring_blocks(self.kernel, view.permute((1, 0)).insert(0), place)

    def _bring(self, piece: Expr, turn_of: int) -> dict[Instruction, Sides]:
        """A piece of the columns of each matrix, on its way to where it lies."""
        brought = {}
        for dot, to in self.places[turn_of].items():
            view = self.sides[dot].cut(2, piece * self.width, self.width)
            brought[dot] = replace(to, parts=bring_blocks(self.kernel, view, to))
        return brought
