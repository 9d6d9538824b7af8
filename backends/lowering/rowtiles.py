"""Row programs tile by tile: without products, and with products by matrices that all rows share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from nxcc.backends.isa.program import Memory
from nxcc.backends.lowering.rowproducts import Sides, bring, is_turned, multiply, sides, sides_bytes, turn
from nxcc.backends.lowering.rowprogram import Input, RowProgram
from nxcc.backends.lowering.rowvalues import Pool, Values
from nxcc.backends.lowering.tiling import loops, store
from nxcc.backends.tile.expressions import Index, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.hlo.module import Instruction

RESIDENT_SHARE = 0.6
"""Part of SBUF that matrices may take which stay for all rows."""

LEFT_SHARE = 0.3
"""Part of SBUF for the turned left sides of a block of rows."""

BLOCK_TILES = 4
"""Tiles of rows in a block where matrices stay: enough to turn the next tile's left side during this one's work."""

STREAM_SHARE = 0.25
"""Part of SBUF for the columns of matrices that stream by."""

VALUE_SHARE = 0.6
"""Part of the free SBUF that the values of a tile with cut columns may take."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Views of consecutive rows, in `tiles` tiles of `count` rows each. lead: leading dimensions of each view that are rows;
    one where there are several tiles."""

    views: list[View]
    lead: int
    count: int
    tiles: int = 1

    def tile(self, number: Index) -> Rows:
        if self.tiles == 1:
            return self
        return Rows([v.cut(0, expr(number) * self.count, self.count) for v in self.views], 1, self.count)


class RowTiles:
    """Tiles of rows one after the other."""

    def __init__(self, program: RowProgram) -> None:
        self.program = program
        self.kernel = program.kernel
        self.lanes = min(self.kernel.target.partitions, math.prod(program.sizes))
        self.sides = {dot: program.side(dot).insert(0) for dot in program.dots}
        self.matrices = self._matrices()
        self.fixed = program.fixed_tiles(program.inputs, self.lanes)
        self.moving: list[Input] = [i for i in program.inputs if i.instruction not in self.fixed]
        self.sources = list(dict.fromkeys(program.lefts.values()))

    def lower(self) -> None:
        program = self.program
        views, lead = program.join_rows([*(i.view for i in self.moving), *program.outputs,
                                         *map(program.arranged, self.sources)], 0)
        first = len(views) - len(self.sources)
        for block in self._blocks(views, lead):
            lefts = {source: self._left(Rows([view], block.lead, block.count, block.tiles))
                     for source, view in zip(self.sources, block.views[first:], strict=True)}
            own = Rows(block.views[:first], block.lead, block.count, block.tiles)
            if self.program.is_parallel:
                self._by_columns(own, lefts)
            else:
                for number, _ in self.kernel.tiles(own.tiles, 1):
                    self._tile(own.tile(number), lefts, self.matrices, number, (0, None))

    def _by_columns(self, rows: Rows, lefts: Mapping[Instruction, Sides]) -> None:
        """Tiles of columns: for each tile of rows where matrices stay, else around all tiles of rows of a block."""
        total, width = self.program.total_columns(), self._width()
        if self.matrices or not self.sides:
            for number, _ in self.kernel.tiles(rows.tiles, 1):
                for start, size in self.kernel.tiles(total, width):
                    self._tile(rows.tile(number), lefts, self.matrices, number, (start, size))
            return
        for start, size in self.kernel.tiles(total, width):
            chunk = {dot: bring(self.kernel, view.cut(2, start, size), False) for dot, view in self.sides.items()}
            for number, _ in self.kernel.tiles(rows.tiles, 1):
                self._tile(rows.tile(number), lefts, chunk, number, (start, size), 0)

    def _tile(self, rows: Rows, lefts: Mapping[Instruction, Sides], matrices: Mapping[Instruction, Sides], number: Index,
              columns: tuple[Index, int | None], offset: Index | None = None) -> None:
        """Load, run and store one tile. columns: start and number, None for all; offset: where they begin in the matrices."""
        program, (start, width) = self.program, columns
        pool = Pool(self.kernel, rows.count, 1)
        roots = dict(zip(program.roots, rows.views[len(self.moving):], strict=True))
        given = {name: tile.rows(0, rows.count).insert(0) for name, tile in self.fixed.items()}
        if width is not None:
            roots = {root: program.cut_columns(root, view, start, width) for root, view in roots.items()}
            given = {name: tile.cut(1, start, width) for name, tile in given.items()}
        for row, view in zip(self.moving, rows.views, strict=False):
            part = view if width is None else program.cut_columns(row.instruction, view, start, width)
            given[row.instruction] = program.load(part, rows.count)
        product = _Product(self, lefts, matrices, expr(number) * self.lanes, start if offset is None else offset)
        values = Values(self.kernel, program.plan, pool, lambda i: program.columns(i, width), given, product, self._sums_max())
        values.run()
        for root, view in roots.items():
            store(self.kernel, view, values.result(root))

    def _sums_max(self) -> int:
        """Banks of PSUM for the sums of one product."""
        return max(1, self.kernel.room.psum_banks // (self.kernel.copies.inner * max(1, len(self.sides))))

    def _width(self) -> int:
        """Columns of a tile, so that all values alive at once fit, and matrices that stream by."""
        bank = self.kernel.target.tensor.moving_max
        copies = self.kernel.copies.inner
        budget = int(self.kernel.sbuf_free_bytes * VALUE_SHARE) // (4 * self.program.alive() * copies)
        if self.sides and not self.matrices:
            each = sum(sides_bytes(view.sizes[1], 1, view.dtype, self.kernel.target.partitions) for view in self.sides.values())
            budget = min(budget, int(self.kernel.room.sbuf_bytes * STREAM_SHARE) // (each * copies))
        width = budget // bank * bank if budget >= bank else max(64, budget // 64 * 64)
        most = bank * (self._sums_max() if self.sides else 4)
        return max(1, min(self.program.total_columns(), width, most))

    # ---- rows ---------------------------------------------------------------------------------------------------

    def _blocks(self, views: list[View], lead: int) -> Iterator[Rows]:
        """All rows: as blocks of several tiles where rows are one dimension and left sides are turned."""
        lanes = self.kernel.target.partitions
        if lead != 1 or not self.sources or views[0].sizes[0] <= lanes:
            yield from self._single_tiles(views, lead)
            return
        full, rest = divmod(views[0].sizes[0], lanes)
        for start, count in self.kernel.tiles(full, self._block_tiles(full), outer=True):
            yield Rows([v.cut(0, start * lanes, count * lanes) for v in views], 1, lanes, count)
        if rest:
            yield Rows([v.cut(0, full * lanes, rest) for v in views], 1, rest)

    def _block_tiles(self, full: int) -> int:
        """Tiles of rows whose left sides are on the chip at once."""
        copies = self.kernel.copies
        lanes = self.kernel.target.partitions
        each = 0
        for source in self.sources:
            view = self.program.arranged(source)
            depth = math.prod(view.sizes[self.program.rows:])
            each += sides_bytes(depth, lanes, view.dtype, lanes)
        most = int(self.kernel.room.sbuf_bytes * LEFT_SHARE) // (each * copies.outer)
        if self.matrices:
            most = min(most, BLOCK_TILES)
        return max(1, min(full, most))

    def _single_tiles(self, views: list[View], lead: int) -> Iterator[Rows]:
        """Tiles of at most as many rows as there are partitions."""
        if lead == 0:
            yield Rows([v.insert(0) for v in views], 1, 1)
            return
        limit = self.kernel.target.partitions
        sizes = views[0].sizes[:lead]
        first, count = lead, 1
        while first and count * sizes[first - 1] <= limit:
            first -= 1
            count *= sizes[first]
        step = limit // count
        if first == 0 or (step < 2 and count > 1):
            for cut in loops(self.kernel, views, first):
                yield Rows(cut, lead - first, count)
            return
        for outer in loops(self.kernel, views, first - 1):
            for start, size in self.kernel.tiles(sizes[first - 1], step, outer=True):
                yield Rows([v.cut(0, start, size) for v in outer], lead - first + 1, size * count)

    # ---- products -----------------------------------------------------------------------------------------------

    def _matrices(self) -> dict[Instruction, Sides]:
        """Matrices that stay on the chip, by product: all of them or none."""
        lanes = self.kernel.target.partitions
        size = sum(sides_bytes(view.sizes[1], view.sizes[2], view.dtype, lanes) for view in self.sides.values())
        if size > RESIDENT_SHARE * self.kernel.room.sbuf_bytes:
            return {}
        return {dot: bring(self.kernel, view, False) for dot, view in self.sides.items()}

    def _left(self, block: Rows) -> Sides:
        """The left side of a block of rows [rows.., k] with k on partitions."""
        (view,) = block.views
        depth = view.elements // (block.count * block.tiles)
        if block.lead == 1 and len(view.dims) == 2 and not is_turned(view.permute((1, 0))):
            return bring(self.kernel, view.permute((1, 0)).insert(0), False)
        to = sides(self.kernel, depth, 1, block.count * block.tiles, view.dtype, False)
        for number, _ in self.kernel.tiles(block.tiles, 1):
            raw = self.program.load(block.tile(number).views[0], block.count)
            turn(self.kernel, raw, to, expr(number) * block.count)
        return to


class _Product:
    """Products of one tile. row, column: where its rows and columns begin in left sides and matrices."""

    def __init__(self, tiles: RowTiles, lefts: Mapping[Instruction, Sides], matrices: Mapping[Instruction, Sides], row: Index,
                 column: Index) -> None:
        self.tiles, self.lefts, self.matrices, self.row, self.column = tiles, lefts, matrices, row, column

    def __call__(self, dot: Instruction, left: Access | None, out: Access) -> None:
        kernel = self.tiles.kernel
        rows, _, columns = out.sizes
        given = self.tiles.program.lefts.get(dot)
        if given is not None:
            side, row = self.lefts[given], self.row
        else:
            assert left is not None
            side, row = sides(kernel, left.sizes[2], 1, rows, left.dtype, False), expr(0)
            turn(kernel, left, side)
        sums = partial(self._sums, dot, side, row)
        if out.memory is Memory.PSUM:
            sums(out.at(0, 0), self.column, columns)
            return
        for start, size in kernel.tiles(columns, kernel.target.tensor.moving_max):
            bank = kernel.psum((rows, size))
            sums(bank, expr(self.column) + start, size)
            kernel.copy(out.at(0, 0).cut(0, start, size), bank)

    def _sums(self, dot: Instruction, left: Sides, row: Index, out: Access, column: Index, columns: int) -> None:
        kernel = self.tiles.kernel
        matrix = self.matrices.get(dot)
        if matrix is None:
            matrix, column = bring(kernel, self.tiles.sides[dot].cut(2, column, columns), False), 0
        multiply(kernel, out, left, matrix, 0, (row, out.partitions), (column, columns))
