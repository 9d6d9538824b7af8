"""One row program of a chain (see nxcc.backends.lowering.rows.chain): the tiles that it keeps, its work on one tile of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from nxcc.backends.capability.chains import CHUNK_BYTES, LENT_BYTES
from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.lowering.rows.chain_supply import Part
from nxcc.backends.lowering.rows.products import (
    SPREAD_BYTES,
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
from nxcc.backends.lowering.rows.program import RowProgram, columns_of
from nxcc.backends.lowering.rows.values import Pool, Values, sums_banks, sums_pitch
from nxcc.backends.lowering.tiling import store, unfolded
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Access, View, contiguous, merge_dims
from nxcc.ir.diagnostics import OUT_OF_MEMORY, CompileError
from nxcc.ir.dtypes import F32, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.rowspace import COLUMN

if TYPE_CHECKING:
    from nxcc.backends.lowering.rows.chain import Chain

ROTATING_BANKS = 2
"""PSUM banks that pieces of columns take in turns."""


@dataclass(frozen=True, slots=True)
class Handed:
    """A result of a member: the numbers of both."""

    member: int
    result: int


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Rows first .. first + depth, columns column .. column + columns of a matrix."""

    part: Part
    first: int
    depth: int
    column: int
    columns: int


class Member:
    """handed: which results of other members its parameters are. stored: numbers of the results that are read outside. lent:
    PSUM that no product wants, for temporaries of one that multiplies nothing."""

    hands_turned = False
    """Whether its result lies as a product wants its left side; see nxcc.backends.lowering.rows.chain_turned."""

    def __init__(self, chain: Chain, number: int, program: RowProgram, handed: Mapping[Instruction, Handed],
                 stored: frozenset[int]) -> None:
        self.chain, self.kernel, self.number = chain, chain.kernel, number
        self.program, self.handed, self.stored = program, handed, stored
        self.sources = list(dict.fromkeys(program.lefts.values()))
        own = [row for row in program.inputs if row.instruction not in handed]
        self.fixed_inputs = [row for row in own if row.fixed]
        self.moving = [row for row in own if not row.fixed]
        self.turning: list[tuple[Access, Access]] = []
        self.raws: dict[View, Access] = {}
        self.chunks: dict[Instruction, list[Chunk]] = {dot: [] for dot in program.dots}
        self.parts: list[Part] = []
        self.fixed_parts: list[Part] = []
        self.fixed: dict[Instruction, Access] = {}
        self.spreads: list[tuple[Spread, Access]] = []
        self.loads: dict[Instruction, list[Access]] = {}
        self.lefts: dict[Instruction, list[Sides]] = {}
        self.fetched: set[tuple[Instruction, int]] = set()
        self.ready: dict[Instruction, Sides] = {}
        self.results: list[list[Access]] = []
        self.banks_kept: list[Access] = []
        self.lent: Sequence[Access] = ()
        self.views: dict[Instruction, View] = {}
        self.stores: dict[int, View] = {}

    # ---- sizes --------------------------------------------------------------------------------------------------

    @property
    def sums(self) -> int:
        """Banks of PSUM for the sums of one product."""
        if self.program.is_parallel:
            return 1
        widest = max((self.program.columns(dot, None) for dot in self.program.dots), default=1)
        most = (self.kernel.room.psum_banks - ROTATING_BANKS) // max(1, self.program.sums_alive())
        return max(1, min(most, sums_banks(self.kernel, widest, 1)))

    @property
    def banks(self) -> int:
        """Banks of PSUM that it would keep for itself."""
        return ROTATING_BANKS if self.program.is_parallel else self.sums * self.program.sums_alive()

    def temporary_bytes(self) -> int:
        """Bytes of a partition for values on the way, at most."""
        program = self.program
        widths = [program.columns(step.value, None) for step in program.plan.steps]
        widest = max(widths, default=1)
        if self.lends:
            return program.values_alive() * widest * F32.byte_size + LENT_BYTES
        return program.alive() * (min(widest, self.piece) if program.is_parallel else widest) * F32.byte_size

    @property
    def lends(self) -> bool:
        """Whether temporaries lie in PSUM where sums were read: a single tile of rows has no next one that wants the place, and
        in a wave the next one comes a whole step later."""
        alone = self.chain.count == 1 if self.chain.is_line else self.number < self.chain.leading
        return alone and not self.program.is_parallel

    @property
    def piece(self) -> int:
        """Columns that are worked on together where they do not depend on each other."""
        total, bank = self.program.total_columns(), self.kernel.target.tensor.moving_max
        even = -(-total // -(-total // bank))
        return min(total, bank, -(-even // 64) * 64)

    def cuts(self, dot: Instruction) -> list[tuple[int, int, int, int]]:
        """(first k, number, first column, number) of the chunks that a matrix comes in: whole, or as it is used."""
        _, depth, columns = self.program.side(dot).insert(0).sizes
        if not self.chain.is_line:
            return [(0, depth, 0, columns)]
        if self.program.is_parallel:
            return [(0, depth, start, min(self.piece, columns - start)) for start in range(0, columns, self.piece)]
        lanes = self.kernel.target.partitions
        step = max(1, CHUNK_BYTES // (columns * dot.operands[1].shape.dtype.byte_size)) * lanes
        return [(start, min(step, depth - start), 0, columns) for start in range(0, depth, step)]

    # ---- memory -------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Say what is loaded once."""
        self._join()
        for row in self.fixed_inputs:
            view = columns_of(row, self.program.rows)
            self.fixed_parts.append(Part(self.fixed_bytes(view), partial(self.load_fixed, row.instruction, view)))
        chunks = [chunk for dot in self.program.dots for chunk in self._chunks(dot)]
        chunks.sort(key=lambda chunk: (chunk.column, chunk.first))
        self.parts = [*self.fixed_parts, *(chunk.part for chunk in chunks)]

    def take_tiles(self) -> None:
        """Take tiles for what is loaded, turned and handed on."""
        for row in self.moving:
            self._loaded(row.instruction)
        for source in self.sources:
            self._prepare_left(source)
        self.take_results()

    def take_results(self) -> None:
        for index, root in enumerate(self.program.roots):
            sizes = self.chain.lanes, 1, self.program.columns(root, None)
            value = Handed(self.number, index)
            self.results.append([self.chain.tile(sizes, root.shape.dtype, self.number, self.chain.last(value))
                                 for _ in range(self.chain.buffers(value))])

    def _join(self) -> None:
        """Views [rows, columns..] of what is loaded and what is stored."""
        program = self.program
        outer = [source for source in self.sources if source not in self.handed]
        loaded = {**{row.instruction: row.view for row in self.moving}, **{source: program.left(source) for source in outer}}
        stored = {index: program.outputs[index] for index in sorted(self.stored)}
        views = [_one_row_dimension(view, program.rows) for view in (*loaded.values(), *stored.values())]
        if None in views:
            raise CompileError(OUT_OF_MEMORY, f"{self.kernel.program.name} has rows that do not lie in one stride")
        self.views = dict(zip(loaded, views, strict=False))  # type: ignore[arg-type]
        self.stores = dict(zip(stored, views[len(loaded):], strict=True))  # type: ignore[arg-type]

    def _loaded(self, source: Instruction) -> None:
        view = self.views[source]
        if source not in self.loads:
            sizes = self.chain.lanes, 1, math.prod(view.sizes[1:])
            self.loads[source] = [self.chain.tile(sizes, view.dtype, 0, self.number) for _ in range(self.chain.count)]

    def _prepare_left(self, source: Instruction) -> None:
        handed = self.handed.get(source)
        if handed is not None and self.chain.members[handed.member].hands_turned:
            return
        left = self.program.left(source)
        depth = math.prod(left.sizes[self.program.rows:])
        self.lefts[source] = [self._sides(depth, left.dtype, self.number) for _ in range(self.chain.count)]
        if handed is None and is_turned(self.views[source].permute((1, 0))):
            self._loaded(source)

    def _sides(self, depth: int, dtype: DType, last: int) -> Sides:
        """Room for rows of a tile, turned."""
        lanes = self.kernel.target.partitions
        sizes = min(lanes, depth), -(-depth // lanes), self.chain.lanes
        return Sides(self.chain.tile(sizes, dtype, self.number, last), depth, lanes)

    def take_banks(self, beside: int = 0, more: int = 0) -> None:
        """PSUM of its own for sums; those of tiles that follow each other lie apart if so many banks are left beside them.

        more: banks that nobody else wants, which pieces of columns take as well.
        """
        if self.program.is_parallel:
            sizes = self.kernel.target.partitions, 1, self.kernel.target.tensor.moving_max
            self.banks_kept = [self.kernel.psum(sizes) for _ in range(ROTATING_BANKS + more)]
        elif self.program.dots:
            widest = max(self.program.columns(dot, None) for dot in self.program.dots)
            if sums_banks(self.kernel, widest, 1) <= self.sums:
                sizes = self.chain.lanes, 1, sums_pitch(self.kernel, widest)
                alive, free = self.program.sums_alive(), self.kernel.psum_free_banks
                apart = beside and 2 * alive * sums_banks(self.kernel, widest, 1) + beside <= free
                self.banks_kept = [self.kernel.psum(sizes).cut(1, 0, widest) for _ in range(alive * (2 if apart else 1))]

    def borrow_banks(self, beside: int) -> None:
        """PSUM for temporaries as wide as a row, if so many banks are left for others."""
        if not self.program.dots and not self.program.is_parallel:
            pitch = sums_pitch(self.kernel, max(self.program.columns(step.value, None) for step in self.program.plan.steps))
            if -(-pitch // self.kernel.target.tensor.moving_max) + beside <= self.kernel.psum_free_banks:
                self.lent = [self.kernel.psum((self.chain.lanes, 1, pitch))]

    # ---- what is loaded once ------------------------------------------------------------------------------------

    def fixed_bytes(self, view: View) -> int:
        """Bytes of a partition that a row takes which is the same for all."""
        if self._spreads(view):
            self.chain.ones(view.dtype)
        return view.elements * view.dtype.byte_size

    def _spreads(self, view: View) -> bool:
        """Whether the tensor engine repeats a row; else the transfer does."""
        size = view.elements * self.chain.lanes * view.dtype.byte_size
        return size >= SPREAD_BYTES and view.dtype in self.kernel.target.engines[Engine.PE].dtypes

    def load_fixed(self, name: Instruction, view: View, offset: Expr | None) -> Access:
        tile = self.tile((self.chain.lanes, view.elements), view.dtype, offset)
        self.fixed[name] = tile
        if self._spreads(view):
            place = self.chain.line_partition()
            line, ones = tile.rows(place, 1), self.chain.ones(view.dtype).rows(place, 1)
            self.kernel.dma(unfolded(line, view.insert(0)), view.insert(0))
            self.spreads.append((Spread(line, ones), tile))
        else:
            repeat(self.kernel, view, tile)
        return tile

    def tile(self, sizes: Sequence[int], dtype: DType, offset: Expr | None) -> Access:
        if offset is None:
            return self.kernel.sbuf(sizes, dtype)
        return Access(Memory.SBUF, dtype, 0, sizes[0], offset, contiguous(sizes[1:]))

    def spread(self) -> None:
        """Repeat on all partitions what is the same for all rows."""
        for part in self.fixed_parts:
            self.chain.supply.require(part)
        for spread, tile in self.spreads:
            with self.kernel.scope():
                spread.write(self.kernel, tile)

    def _chunks(self, dot: Instruction) -> list[Chunk]:
        matrix = self.program.side(dot).insert(0)
        if self.chain.is_line and is_turned(matrix):
            raise CompileError(OUT_OF_MEMORY, f"{self.kernel.program.name} turns a matrix, for which the ring has no room")
        for first, depth, column, columns in self.cuts(dot):
            view = matrix.cut(1, first, depth).cut(2, column, columns)
            size = sides_bytes(depth, columns, view.dtype, self.kernel.target.partitions)
            self.chunks[dot].append(Chunk(Part(size, partial(self._bring, view)), first, depth, column, columns))
        return self.chunks[dot]

    def _bring(self, view: View, offset: Expr | None) -> Sides:
        if is_turned(view):
            return bring(self.kernel, view, False)
        _, depth, columns = view.sizes
        lanes = self.kernel.target.partitions
        to = Sides(self.tile((min(lanes, depth), -(-depth // lanes), columns), view.dtype, offset), depth, lanes)
        return replace(to, parts=bring_blocks(self.kernel, view, to, self.chain.under_way))

    # ---- work ---------------------------------------------------------------------------------------------------

    @property
    def loads_left(self) -> bool:
        """Whether all left sides come from outside."""
        return bool(self.sources) and not any(source in self.handed for source in self.sources)

    def fetch(self, tiles: Sequence[tuple[int, int]]) -> None:
        """Load all rows from outside, what is multiplied first. tiles: numbers and rows."""
        for source in sorted(self.loads, key=lambda source: source not in self.sources):
            for number, rows in tiles:
                self._load(source, expr(number), number, rows)
                self.fetched.add((source, number))

    def turn(self, number: Expr, slot: int, rows: int) -> None:
        """Bring the left sides of a tile of rows, which `run` multiplies. slot: the tile modulo the buffers of any value."""
        self.ready = {source: self.left(source, number, slot, rows) for source in self.sources}

    def run(self, number: Expr, slot: int, rows: int, after: Callable[[], None] | None = None) -> None:
        """Work on a tile of rows. after: written behind the last product."""
        given = self._given(number, slot, rows)
        results = [tiles[slot % len(tiles)].rows(0, rows) for tiles in self.results]
        with self.kernel.scope():
            self._work(given, results, slot, rows, after)
        for index, view in self.stores.items():
            store(self.kernel, self._part(view, number, rows), results[index])

    def release(self, chunk: Chunk) -> None:
        """Nothing for this tile of rows reads a chunk any more."""
        if self.chain.closes:
            self.chain.supply.release(chunk.part)

    def turned_result(self, slot: int) -> Sides:
        """The result of a member that hands it on as a left side."""
        raise AssertionError("this member's results lie row by row")

    def result(self, index: int, slot: int) -> Access:
        tiles = self.results[index]
        return tiles[slot % len(tiles)]

    def left(self, source: Instruction, number: Expr, slot: int, rows: int) -> Sides:
        """A left side with its summed dimension on partitions."""
        handed = self.handed.get(source)
        maker = None if handed is None else self.chain.members[handed.member]
        if maker is not None and maker.hands_turned:
            return maker.turned_result(slot)
        place = self.lefts[source][slot % self.chain.count]
        if handed is not None and maker is not None:
            raw = maker.result(handed.result, slot).rows(0, rows)
        elif source in self.loads:
            raw = self._load(source, number, slot, rows)
        else:
            part = self._part(self.views[source], number, rows)
            to = replace(place, tile=place.tile.cut(1, 0, rows))  # the last tile has fewer
            return replace(to, parts=bring_blocks(self.kernel, part.permute((1, 0)).insert(0), to))
        turn(self.kernel, raw, place)
        return place

    def _given(self, number: Expr, slot: int, rows: int) -> dict[Instruction, Access]:
        read = {row.instruction for row in self.program.inputs}
        given = {name: tile.rows(0, rows).insert(0) for name, tile in self.fixed.items()}
        given |= {row.instruction: self._load(row.instruction, number, slot, rows) for row in self.moving
                  if row.instruction not in self.sources}
        given |= {name: self._loads(name, slot).rows(0, rows) for name in self.sources if name in read and name in self.loads}
        given |= {name: self.chain.members[source.member].result(source.result, slot).rows(0, rows)
                  for name, source in self.handed.items() if name in read}
        return given

    def _loads(self, source: Instruction, slot: int) -> Access:
        return self.loads[source][slot % self.chain.count]

    def _load(self, source: Instruction, number: Expr, slot: int, rows: int) -> Access:
        """A tile of rows; the first ones by the queue of results, since matrices are waiting in the other."""
        tile, part = self._loads(source, slot).rows(0, rows), self._part(self.views[source], number, rows)
        if (source, slot) in self.fetched:
            return tile
        engine = self.kernel.target.storing_engine if self.chain.opens else Engine.SYNC
        self.kernel.dma(unfolded(tile, part), part, engine=engine)
        return tile

    def _part(self, view: View, number: Expr, rows: int) -> View:
        return view.cut(0, number * self.chain.lanes, rows)

    def _work(self, given: Mapping[Instruction, Access], results: Sequence[Access], slot: int, rows: int,
              after: Callable[[], None] | None) -> None:
        program = self.program
        first = slot % 2 * (len(self.banks_kept) // 2)
        banks = self.banks_kept[first:] + self.banks_kept[:first]
        spare = 0 if banks else ROTATING_BANKS
        pool = Pool(self.kernel, rows, 1, banks or self.lent, spare=spare, lends=self.lends or bool(self.lent))
        pieces = self._pieces()
        for start, width in pieces:
            part = {name: self._cut(name, tile, start, width) for name, tile in given.items()}
            places = {root: self._cut(root, tile, start, width) for root, tile in zip(program.roots, results, strict=True)}
            product = _Product(self, self.ready, start, after if (start, width) == pieces[-1] else None)
            values = Values(self.kernel, program.plan, pool, partial(program.columns, width=width), part, product, self.sums,
                            {program.plan.shown.get(root, root): place for root, place in places.items()})
            values.run()
            for root, place in places.items():
                values.settle(root, place)
        if after is not None and not program.dots:
            after()

    def _pieces(self) -> list[tuple[int, int | None]]:
        """Start and number of columns that are worked on together; None for all."""
        if not self.program.is_parallel:
            return [(0, None)]
        total = self.program.total_columns()
        return [(start, min(self.piece, total - start)) for start in range(0, total, self.piece)]

    def _cut(self, value: Instruction, tile: Access, start: int, width: int | None) -> Access:
        return tile if width is None or COLUMN not in self.program.maps[value] else tile.cut(1, start, width)


def _one_row_dimension(view: View, rows: int) -> View | None:
    """[rows, columns..] of [row dimensions.., columns..]; None if rows do not lie in one stride."""
    dims = merge_dims(view.dims[:rows])
    if len(dims) > 1:
        return None
    return replace(view, dims=((*dims, *view.dims[rows:]) if dims else ((0, 1), *view.dims[rows:])))


class _Product:
    """Products of one tile of rows. column: where its columns begin in the matrices."""

    def __init__(self, member: Member, lefts: Mapping[Instruction, Sides], column: int,
                 after: Callable[[], None] | None) -> None:
        self.member, self.lefts, self.column, self.after = member, lefts, column, after

    def __call__(self, dot: Instruction, left: Access | None, out: Access) -> None:
        member, kernel = self.member, self.member.kernel
        rows, _, columns = out.sizes
        source = member.program.lefts.get(dot)
        if source is not None:
            side = self.lefts[source]
        else:
            assert left is not None
            side = sides(kernel, left.sizes[2], 1, rows, left.dtype, False)
            turn(kernel, left, side)
        chunks = [c for c in member.chunks[dot] if c.column <= self.column and self.column + columns <= c.column + c.columns]
        if out.memory is Memory.PSUM:
            self._sums(out.at(0, 0), side, chunks, self.column, columns, True)
        else:
            for chunk in chunks:
                member.chain.supply.require(chunk.part)
            for start, size in kernel.tiles(columns, kernel.target.tensor.moving_max):
                bank = kernel.psum((rows, size))
                self._sums(bank, side, chunks, expr(self.column) + start, size, False)
                kernel.copy(out.at(0, 0).cut(0, start, size), bank)
            for chunk in chunks:
                member.release(chunk)
        if self.after is not None and dot is member.program.dots[-1]:
            self.after()


    def _sums(self, out: Access, left: Sides, chunks: Sequence[Chunk], column: Index, columns: int, once: bool) -> None:
        """once: whether nothing else reads the chunks."""
        kernel, supply = self.member.kernel, self.member.chain.supply
        for chunk in chunks:
            matrix, part = supply.require(chunk.part), left
            if len(chunks) > 1:
                blocks = -(-chunk.depth // left.lanes)
                part = replace(left, tile=left.tile.cut(0, chunk.first // left.lanes, blocks), depth=chunk.depth, parts=())
            start = expr(column) + -chunk.column
            multiply(kernel, out, part, matrix, 0, (0, out.partitions), (start, columns), opens=chunk is chunks[0])
            if once:
                self.member.release(chunk)
