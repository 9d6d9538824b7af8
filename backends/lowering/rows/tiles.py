"""Row programs tile by tile: without products, and with products by matrices that all rows share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.lowering.rows.products import (
    Sides,
    Spread,
    bring,
    bring_blocks,
    is_turned,
    multiply,
    repeat,
    sides,
    sides_bytes,
    turn,
)
from nxcc.backends.lowering.rows.program import Input, RowProgram, columns_of
from nxcc.backends.lowering.rows.values import Pool, Values, sums_banks, sums_pitch
from nxcc.backends.lowering.tiling import loops, store, unfolded
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.diagnostics import OUT_OF_MEMORY, CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.rowspace import COLUMN

RESIDENT_SHARE = 0.6
"""Part of SBUF that matrices may take which stay for all rows."""

LEFT_SHARE = 0.3
"""Part of SBUF for the turned left sides of a block of rows."""

BLOCK_TILES = 4
"""Tiles of rows in a block where matrices stay: enough to turn the next tile's left side during this one's work."""

PIECES_MAX = 4
"""Pieces of the columns that may be written one after the other; more are looped over."""

TURNING_BANKS = 2
"""PSUM banks for turning left sides while sums of another tile of rows are there."""

COLUMNS_LEAST = 128
"""Columns of a tile, at least, that a search tries."""

STREAM_SHARE = 0.25
"""Part of SBUF for the columns of matrices that stream by."""

STREAM_MOST = 0.75
"""The same, where rows of the columns would else be shorter than what a transfer moves well."""

WHOLE_SHARE = 0.5
"""Part of the free SBUF that operands and results of a tile of rows may take with all their columns."""

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
    """Tiles of rows one after the other. groups: so many rows on each partition; written: pieces of columns so far."""

    def __init__(self, program: RowProgram) -> None:
        self.program = program
        self.kernel = program.kernel
        self.lanes = min(self.kernel.target.partitions, math.prod(program.sizes))
        self.sides = {dot: program.side(dot).insert(0) for dot in program.dots}
        rows = program.fixed_rows(program.inputs, self.lanes) if program.shares == 1 else {}
        self.matrices = self._matrices()
        self.fixed = {i.instruction: self._fixed(i, rows[i.instruction]) for i in program.inputs if i.instruction in rows}
        self.groups = 1
        self.moving: list[Input] = [i for i in program.inputs if i.instruction not in rows]
        self.sources = list(dict.fromkeys(program.lefts.values()))
        self.is_late = self.rotates = False
        self.written = 0
        self.banks: list[Access] = []

    def _fixed(self, row: Input, spread: Spread | None) -> Access:
        """[partitions, columns] of what is the same for all rows."""
        view = columns_of(row, self.program.rows)
        tile = self.kernel.sbuf((self.lanes, view.elements), view.dtype)
        if spread is None:
            repeat(self.kernel, view, tile)
        else:
            with self.kernel.scope():
                spread.write(self.kernel, tile)
        return tile

    def lower(self) -> None:
        program = self.program
        views, lead = program.join_rows([*(i.view for i in self.moving), *program.outputs,
                                         *map(program.left, self.sources)], 0)
        first = len(views) - len(self.sources)
        if lead == 1 and self.matrices and self.sources and self.kernel.copies.rotates:
            self._ahead(views[:first], views[first:])
            return
        for block in self._blocks(views, lead):
            lefts = {source: self._left(Rows([view], block.lead, block.count, block.tiles))
                     for source, view in zip(self.sources, block.views[first:], strict=True)}
            own = Rows(block.views[:first], block.lead, block.count, block.tiles)
            if self.program.is_parallel and self.sides and not self.matrices:
                self._around_columns(own, lefts)
            else:
                for number, _ in self.kernel.tiles(own.tiles, 1):
                    self.row_tile(own.tile(number), lefts, number)

    def _ahead(self, views: Sequence[View], sources: Sequence[View]) -> None:
        """Matrices stay: the left side of the next tile of rows is loaded and turned before this one is worked on."""
        kernel, lanes = self.kernel, self.kernel.target.partitions
        full, rest = divmod(views[0].sizes[0], lanes)
        lefts = [_Lefts(self, sources, lanes)] if full else []
        if full > 1:
            lefts.append(_Lefts(self, sources, lanes, lefts[0].raws))
        rows = _Ahead(self, views, lefts, full)
        reach = 4 if rows.is_late else 3  # tiles from a pair's first on whose left sides it may turn
        rounds = (full - reach) // 2 if full > 4 else 0
        if full:
            rows.open()
        if rounds:
            with kernel.scope():
                rows.pair(expr(0), 4)
            with kernel.loop(rounds) as index:
                rows.pair(index * 2 + 2, 4)
        for number in range(2 * rounds + 2 * bool(rounds), full, 2):
            with kernel.scope():
                rows.pair(expr(number), full - number)
        if rest:
            if rows.rotating:
                self.banks = rows.rotating[0]
            last = _Lefts(self, [v.cut(0, full * lanes, rest) for v in sources], rest)
            last.load(expr(0))
            last.turn()
            self.row_tile(Rows([v.cut(0, full * lanes, rest) for v in views], 1, rest), last.sides, 0)

    def _around_columns(self, rows: Rows, lefts: Mapping[Instruction, Sides]) -> None:
        """Matrices stream by: tiles of columns around all tiles of rows of a block."""
        for start, size in self.kernel.tiles(self.program.total_columns(), self._width()):
            chunk = {dot: bring(self.kernel, view.cut(2, start, size), False) for dot, view in self.sides.items()}
            for number, _ in self.kernel.tiles(rows.tiles, 1):
                self._tile(rows.tile(number), lefts, chunk, number, (start, size), 0)

    def row_tile(self, rows: Rows, lefts: Mapping[Instruction, Sides], number: Index,
                 after: Callable[[], None] | None = None) -> None:
        """One tile of rows with all its columns: in pieces, if columns do not depend on each other; see _Product for after."""
        total = self.program.total_columns() if self.program.is_parallel else 0
        width = self._width() if self.program.is_parallel else 0
        if total <= width:
            self._tile(rows, lefts, self.matrices, number, (0, total or None), after=after)
        elif not self._fits_whole(rows):
            for start, size in self.kernel.tiles(total, width):
                self._tile(rows, lefts, self.matrices, number, (start, size))
        else:
            self._pieces(rows, lefts, number, total, width)

    def _fits_whole(self, rows: Rows) -> bool:
        """Whether operands and results of a tile of rows may lie on the chip with all their columns."""
        each = sum(view.elements // rows.count * view.dtype.byte_size for view in rows.views)
        return each * self.kernel.copies.inner <= WHOLE_SHARE * self.kernel.sbuf_free_bytes

    def _pieces(self, rows: Rows, lefts: Mapping[Instruction, Sides], number: Index, total: int, width: int) -> None:
        """Operands come and results leave in one transfer each, for all pieces of the columns."""
        kernel, program = self.kernel, self.program
        given = self._given(rows, 0, None)
        results = {root: kernel.sbuf((rows.count, 1, program.columns(root, None)), root.shape.dtype) for root in program.roots}
        pool = self._pool(rows.count)
        unrolled = total <= PIECES_MAX * width
        pieces = [(expr(s), min(width, total - s)) for s in range(0, total, width)] if unrolled else kernel.tiles(total, width)
        for start, size in pieces:
            part = {name: tile.cut(1, start, size) if COLUMN in program.maps[name] else tile for name, tile in given.items()}
            places = {program.plan.shown.get(root, root): tile.cut(1, start, size) for root, tile in results.items()}
            product = _Product(self, lefts, self.matrices, expr(number) * self.lanes, start)
            values = self._values(pool if unrolled else self._pool(rows.count), part, product, size, places)
            values.run()
            for root, tile in results.items():
                values.settle(root, tile.cut(1, start, size))
        for root, view in zip(program.roots, rows.views[len(self.moving):], strict=True):
            store(kernel, view, results[root])

    def _tile(self, rows: Rows, lefts: Mapping[Instruction, Sides], matrices: Mapping[Instruction, Sides], number: Index,
              columns: tuple[Index, int | None], offset: Index | None = None, after: Callable[[], None] | None = None) -> None:
        """Load, run and store one tile. columns: start and number, None for all; offset: where they begin in the matrices."""
        program, (start, width) = self.program, columns
        roots = dict(zip(program.roots, rows.views[len(self.moving):], strict=True))
        if width is not None:
            roots = {root: program.cut_columns(root, view, start, width) for root, view in roots.items()}
        product = _Product(self, lefts, matrices, expr(number) * self.lanes, start if offset is None else offset, after)
        values = self._values(self._pool(rows.count), self._given(rows, start, width), product, width, {})
        values.run()
        for root, view in roots.items():
            store(self.kernel, view, values.result(root))

    def _given(self, rows: Rows, start: Index, width: int | None) -> dict[Instruction, Access]:
        """Tiles of the operands of a tile of rows; width: None for all columns."""
        program = self.program
        given = {name: tile.rows(0, rows.count).insert(0, self.groups) for name, tile in self.fixed.items()}
        if width is not None:
            given = {name: tile.cut(1, start, width) for name, tile in given.items()}
        for row, view in zip(self.moving, rows.views, strict=False):
            part = view if width is None else program.cut_columns(row.instruction, view, start, width)
            given[row.instruction] = program.load(part, rows.count, self.groups)
        return given

    def _pool(self, rows: int) -> Pool:
        """Tiles for the values of a piece; those that are written one after the other begin at another bank each."""
        spare = 0 if self.banks else self.kernel.room.psum_banks // self.kernel.copies.inner
        first = self.written % self.kernel.copies.inner * self.program.sums_alive() if self.rotates else 0
        self.written += 1
        return Pool(self.kernel, rows, self.groups, [*self.banks[first:], *self.banks[:first]], spare=spare)

    def _values(self, pool: Pool, given: Mapping[Instruction, Access], product: _Product, width: int | None,
                places: Mapping[Instruction, Access]) -> Values:
        program = self.program
        return Values(self.kernel, program.plan, pool, lambda i: program.columns(i, width), given, product, self._sums_max(),
                      places)

    def take_banks(self) -> None:
        """PSUM for the sums of one tile of rows at a time: the next tile may have it once the first step has read them."""
        columns = max(self.program.columns(dot, None) for dot in self.program.dots)
        if sums_banks(self.kernel, columns, 1) <= self._sums_max():
            pitch = sums_pitch(self.kernel, columns)
            tiles = [self.kernel.psum((self.lanes, 1, pitch)) for _ in range(self.program.sums_alive())]
            self.banks = [tile.cut(1, 0, columns) for tile in tiles]

    def take_rotating(self, tiles: int) -> list[list[Access]]:
        """PSUM for pieces of columns, a bank each, of so many tiles of rows that are worked on in turns."""
        kernel = self.kernel
        banks = (kernel.room.psum_banks - TURNING_BANKS) // tiles
        if banks < 2 and kernel.room.psum_banks < kernel.target.psum.banks:
            raise CompileError(OUT_OF_MEMORY, f"{kernel.program.name} has {banks} banks of PSUM for a tile of rows")
        self.rotates = True
        sizes = kernel.target.partitions, 1, kernel.target.tensor.moving_max
        return [[kernel.psum(sizes) for _ in range(max(banks, self.program.sums_alive()))] for _ in range(tiles)]

    def _sums_max(self) -> int:
        """Banks of PSUM for the sums of one product."""
        if self.rotates:
            return 1
        banks = self.kernel.room.psum_banks
        rotating = banks - TURNING_BANKS if self.is_late else banks // self.kernel.copies.inner
        return max(1, rotating // max(1, self.program.sums_alive()))

    def _width(self) -> int:
        """Columns of a tile, so that all values alive at once fit, and matrices that stream by."""
        bank = self.kernel.target.tensor.moving_max
        copies = self.kernel.copies.inner
        budget = int(self.kernel.sbuf_free_bytes * VALUE_SHARE) // (4 * self.program.alive() * copies)
        if self.sides and not self.matrices:
            budget = min(budget, self._streamed() // copies)
        width = budget // bank * bank if budget >= bank else max(64, budget // 64 * 64)
        most = bank * (self._sums_max() if self.sides else 4)
        total = self.program.total_columns()
        pieces = -(-total // max(1, min(total, width, most)))
        even = -(-total // pieces)
        found = max(1, min(total, width, most, -(-even // 64) * 64 if pieces > 1 else total))
        return self.kernel.choose("columns", found, *(part for part in (found // 2, found // 4) if part >= COLUMNS_LEAST))

    def _streamed(self) -> int:
        """Columns of all matrices together that have room while they stream by."""
        kernel, views = self.kernel, self.sides.values()
        each = sum(sides_bytes(view.sizes[1], 1, view.dtype, kernel.target.partitions) for view in views)
        long = -(-kernel.target.dma.descriptor_bytes_min // min(view.dtype.byte_size for view in views))
        few, many = (int(kernel.room.sbuf_bytes * share) // each for share in (STREAM_SHARE, STREAM_MOST))
        return max(few, min(many, long * kernel.copies.inner))

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
            view = self.program.left(source)
            depth = math.prod(view.sizes[self.program.rows:])
            each += sides_bytes(depth, lanes, view.dtype, lanes)
        most = int(self.kernel.room.sbuf_bytes * LEFT_SHARE) // (each * copies.outer)
        if self.matrices:
            most = min(most, BLOCK_TILES)
        found = max(1, min(full, most))
        return self.kernel.choose("tiles", found, max(1, found // 2), min(full, found + 1), min(full, 2 * found))

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
        """Matrices that stay on the chip, by product: all of them or none. Where several tiles of rows would read them
        again, a region takes the whole machine rather."""
        lanes = self.kernel.target.partitions
        whole = self.kernel.target.sbuf.usable_bytes
        size = sum(sides_bytes(view.sizes[1], view.sizes[2], view.dtype, lanes) for view in self.sides.values())
        if size > RESIDENT_SHARE * self.kernel.room.sbuf_bytes:
            if math.prod(self.program.sizes) > lanes and self.kernel.room.sbuf_bytes < whole and size <= RESIDENT_SHARE * whole:
                raise CompileError(OUT_OF_MEMORY, f"{self.kernel.program.name} keeps {size} bytes a partition of matrices")
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


class _Ahead:
    """Tiles of rows whose left sides are turned ahead: of the next tile before this one's products, where epilogues of pieces
    of columns follow close behind; else of the tile after the next between products and epilogue, which is long.

    loaded: so many tiles have been loaded from the start."""

    def __init__(self, tiles: RowTiles, views: Sequence[View], lefts: list[_Lefts], full: int) -> None:
        self.tiles, self.views, self.lefts, self.full = tiles, views, lefts, full
        self.is_late = tiles.is_late = not tiles.program.is_parallel
        if self.is_late:
            tiles.take_banks()
        self.loaded = 0
        self.rotating = [] if self.is_late else tiles.take_rotating(min(2, full) or 1)

    def pair(self, number: Expr, remaining: int) -> None:
        """Two tiles of rows from `number` on, if there are; remaining: how many there are from there, or more."""
        for step in range(min(2, remaining)):
            ahead = self._ahead(number + step, step, remaining - step, number.terms == () and number.constant == 0)
            if not self.is_late:
                self.tiles.banks = self.rotating[step]
                ahead()
            self._work(number + step, self.lefts[step], ahead if self.is_late else None)

    def open(self) -> None:
        """The first tiles are loads of the engine that turns them, which matrices do not stand before; it has nothing else to
        do until these come. Each is on its way as soon as the one before is turned."""
        early = min(self.full, 2 if self.is_late else 1)
        with self.tiles.kernel.loading(Engine.PE):
            self.lefts[0].load(expr(0))
            for number in range(early):
                self.lefts[number].turn()
                if number + 1 < min(self.full, early + 1):
                    self.lefts[(number + 1) % 2].load(expr(number + 1))
        self.loaded = min(self.full, early + 1)

    def _ahead(self, number: Expr, step: int, remaining: int, is_first: bool) -> Callable[[], None]:
        """Turns the left sides that are due. is_first: whether this is for the first two tiles."""
        reach = 2 if self.is_late else 1

        def ahead() -> None:
            if remaining > reach:
                following = number + reach
                if not (is_first and following.constant < self.loaded):
                    self.lefts[(step + reach) % 2].load(following)
                self.lefts[(step + reach) % 2].turn()
        return ahead

    def _work(self, number: Expr, own: _Lefts, after: Callable[[], None] | None) -> None:
        lanes = own.rows
        rows = Rows([v.cut(0, number * lanes, lanes) for v in self.views], 1, lanes)
        self.tiles.row_tile(rows, own.sides, 0, after)


class _Lefts:
    """Room for the left sides of one tile of rows. raws: where they lie before they are turned."""

    def __init__(self, tiles: RowTiles, views: Sequence[View], rows: int, raws: Sequence[Access] = ()) -> None:
        self.kernel, self.rows, self.views = tiles.kernel, rows, views
        self.sides = {source: sides(self.kernel, view.sizes[1], 1, rows, view.dtype, False)
                      for source, view in zip(tiles.sources, views, strict=True)}
        self.raws = raws or [self.kernel.sbuf((rows, 1, view.sizes[1]), view.dtype) for view in views]

    def load(self, number: Expr) -> None:
        for (source, to), raw, view in zip(list(self.sides.items()), self.raws, self.views, strict=True):
            part = view.cut(0, number * self.rows, self.rows)
            if is_turned(view.permute((1, 0))):
                self.kernel.dma(unfolded(raw, part), part)
            else:
                self.sides[source] = replace(to, parts=bring_blocks(self.kernel, part.permute((1, 0)).insert(0), to))

    def turn(self) -> None:
        """Put what was loaded as it lies in order."""
        for to, raw, view in zip(self.sides.values(), self.raws, self.views, strict=True):
            if is_turned(view.permute((1, 0))):
                turn(self.kernel, raw, to)


class _Product:
    """Products of one tile. row, column: where its rows and columns begin in left sides and matrices; after: what is to be
    written behind the last product."""

    def __init__(self, tiles: RowTiles, lefts: Mapping[Instruction, Sides], matrices: Mapping[Instruction, Sides], row: Index,
                 column: Index, after: Callable[[], None] | None = None) -> None:
        self.after = after
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
        else:
            for start, size in kernel.tiles(columns, kernel.target.tensor.moving_max):
                bank = kernel.psum((rows, size))
                sums(bank, expr(self.column) + start, size)
                kernel.copy(out.at(0, 0).cut(0, start, size), bank)
        if self.after is not None and dot is self.tiles.program.dots[-1]:
            self.after()

    def _sums(self, dot: Instruction, left: Sides, row: Index, out: Access, column: Index, columns: int) -> None:
        kernel = self.tiles.kernel
        matrix = self.matrices.get(dot)
        if matrix is None:
            matrix, column = bring(kernel, self.tiles.sides[dot].cut(2, column, columns), False), 0
        multiply(kernel, out, left, matrix, 0, (row, out.partitions), (column, columns))
