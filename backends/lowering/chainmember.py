"""One row program of a chain (see nxcc.backends.lowering.rowchain): the tiles that it keeps, its work on one tile of rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.lowering.rowproducts import (
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
from nxcc.backends.lowering.rowprogram import RowProgram, columns_of
from nxcc.backends.lowering.rowvalues import Pool, Values, sums_banks, sums_pitch
from nxcc.backends.lowering.tiling import store, unfolded
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Access, View, contiguous, merge_dims
from nxcc.ir.diagnostics import OUT_OF_MEMORY, CompileError
from nxcc.ir.dtypes import F32
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.rowspace import COLUMN

if TYPE_CHECKING:
    from nxcc.backends.lowering.rowchain import Chain, Ring

ROTATING_BANKS = 2
"""PSUM banks that pieces of columns take in turns."""

CHUNK_COLUMNS = 768
"""Columns of a matrix that come together where columns lie on partitions: the first are used before the last are there."""


@dataclass(frozen=True, slots=True)
class Handed:
    """A result of a member: the numbers of both."""

    member: int
    result: int


class Member:
    """handed: which results of other members its parameters are. stored: numbers of the results that are read outside."""

    def __init__(self, chain: Chain, number: int, program: RowProgram, handed: Mapping[Instruction, Handed],
                 stored: frozenset[int]) -> None:
        self.chain, self.kernel, self.number = chain, chain.kernel, number
        self.program, self.handed, self.stored = program, handed, stored
        self.sources = list(dict.fromkeys(program.lefts.values()))
        own = [row for row in program.inputs if row.instruction not in handed]
        self.fixed_inputs = [row for row in own if row.fixed]
        self.moving = [row for row in own if not row.fixed]
        self.turning: list[tuple[Access, Access]] = []
        self.matrices: dict[Instruction, list[Sides]] = {dot: [] for dot in program.dots}
        self.pending = [(dot, view) for dot in program.dots for view in self.chunks(program.side(dot).insert(0))]
        self.fetched = False
        self.fixed: dict[Instruction, Access] = {}
        self.spreads: list[tuple[Spread, Access]] = []
        self.loads: dict[Instruction, Access] = {}
        self.lefts: dict[Instruction, Sides] = {}
        self.ready: dict[Instruction, Sides] = {}
        self.results: list[list[Access]] = []
        self.banks_kept: list[Access] = []
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
        return program.alive() * (min(widest, self.piece) if program.is_parallel else widest) * F32.byte_size

    @property
    def piece(self) -> int:
        """Columns that are worked on together where they do not depend on each other."""
        total, bank = self.program.total_columns(), self.kernel.target.tensor.moving_max
        even = -(-total // -(-total // bank))
        return min(total, bank, -(-even // 64) * 64)

    def chunks(self, matrix: View) -> Iterator[View]:
        """A matrix [1, k, n] in the pieces that come together."""
        yield matrix

    # ---- memory -------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Take the tiles that stay."""
        self._join()
        for row in self.fixed_inputs:
            self.fixed[row.instruction] = self.fixed_tile(columns_of(row, self.program.rows))
        for row in self.moving:
            self._loaded(row.instruction)
        for source in self.sources:
            self._prepare_left(source)
        self.take_results()

    def fixed_tile(self, view: View) -> Access:
        tile = self.kernel.sbuf((self.chain.lanes, view.elements), view.dtype)
        repeats = view.elements * tile.partitions * view.dtype.byte_size < SPREAD_BYTES
        if not repeats and view.dtype in self.kernel.target.engines[Engine.PE].dtypes:
            self.spreads.append((Spread(tile.rows(0, 1), self.chain.ones(view.dtype)), tile))
        return tile

    def take_results(self) -> None:
        for index, root in enumerate(self.program.roots):
            sizes = self.chain.lanes, 1, self.program.columns(root, None)
            count = self.chain.buffers(Handed(self.number, index))
            self.results.append([self.kernel.sbuf(sizes, root.shape.dtype) for _ in range(count)])

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
            self.loads[source] = self.kernel.sbuf((self.chain.lanes, 1, math.prod(view.sizes[1:])), view.dtype)

    def _prepare_left(self, source: Instruction) -> None:
        handed = self.handed.get(source)
        if handed is not None and isinstance(self.chain.members[handed.member], Turned):
            return
        left = self.program.left(source)
        depth = math.prod(left.sizes[self.program.rows:])
        self.lefts[source] = sides(self.kernel, depth, 1, self.chain.lanes, left.dtype, False)
        if handed is None and is_turned(self.views[source].permute((1, 0))):
            self._loaded(source)

    def take_banks(self) -> None:
        """PSUM of its own for sums."""
        if self.program.is_parallel:
            sizes = self.kernel.target.partitions, 1, self.kernel.target.tensor.moving_max
            self.banks_kept = [self.kernel.psum(sizes) for _ in range(ROTATING_BANKS)]
        elif self.program.dots:
            widest = max(self.program.columns(dot, None) for dot in self.program.dots)
            if sums_banks(self.kernel, widest, 1) <= self.sums:
                sizes = self.chain.lanes, 1, sums_pitch(self.kernel, widest)
                self.banks_kept = [self.kernel.psum(sizes).cut(1, 0, widest) for _ in range(self.program.sums_alive())]

    # ---- what stays ---------------------------------------------------------------------------------------------

    def fetch(self) -> None:
        """Load what is the same for all rows, once."""
        for row in () if self.fetched else self.fixed_inputs:
            self.fetch_fixed(columns_of(row, self.program.rows), self.fixed[row.instruction])
        self.fetched = True

    def fetch_fixed(self, view: View, tile: Access) -> None:
        line = next((spread.line for spread, spread_to in self.spreads if spread_to is tile), None)
        if line is None:
            repeat(self.kernel, view, tile)
        else:
            self.kernel.dma(unfolded(line, view.insert(0)), view.insert(0))

    def spread(self) -> None:
        """Repeat on all partitions what is the same for all rows."""
        for spread, tile in self.spreads:
            with self.kernel.scope():
                spread.write(self.kernel, tile)

    def bring(self, ring: Ring | None) -> bool:
        """Load matrices, as many as there is room for; whether all are under way."""
        self.fetch()
        while self.pending:
            dot, view = self.pending[0]
            found = self._bring(view, ring)
            if found is None:
                return False
            self.matrices[dot].append(found)
            self.pending.pop(0)
        return True

    def _bring(self, view: View, ring: Ring | None) -> Sides | None:
        if is_turned(view):
            return bring(self.kernel, view, False)
        _, depth, columns = view.sizes
        lanes = self.kernel.target.partitions
        if ring is None:
            to = sides(self.kernel, depth, 1, columns, view.dtype, False)
        else:
            offset = ring.take(sides_bytes(depth, columns, view.dtype, lanes), self.number)
            if offset is None:
                return None
            dims = contiguous((-(-depth // lanes), columns))
            to = Sides(Access(Memory.SBUF, view.dtype, 0, min(lanes, depth), offset, dims), depth, lanes)
        return replace(to, parts=bring_blocks(self.kernel, view, to, self.chain.under_way))

    # ---- work ---------------------------------------------------------------------------------------------------

    @property
    def loads_left(self) -> bool:
        """Whether all left sides come from outside."""
        return bool(self.sources) and not any(source in self.handed for source in self.sources)

    def turn(self, number: Expr, slot: int, rows: int) -> None:
        """Bring the left sides of a tile of rows, which `run` multiplies. slot: the tile modulo the buffers of any value."""
        self.ready = {source: self.left(source, number, slot, rows) for source in self.sources}

    def run(self, number: Expr, slot: int, rows: int, after: Callable[[], None] | None = None) -> None:
        """Work on a tile of rows. after: written behind the last product."""
        given = self._given(number, slot, rows)
        results = [tiles[slot % len(tiles)].rows(0, rows) for tiles in self.results]
        with self.kernel.scope():
            self._work(given, results, self.ready, rows, after)
        for index, view in self.stores.items():
            part = self._part(view, number, rows)
            store(self.kernel, part, results[index])

    def result(self, index: int, slot: int) -> Access:
        tiles = self.results[index]
        return tiles[slot % len(tiles)]

    def left(self, source: Instruction, number: Expr, slot: int, rows: int) -> Sides:
        """A left side with its summed dimension on partitions."""
        handed = self.handed.get(source)
        if handed is not None:
            maker = self.chain.members[handed.member]
            if isinstance(maker, Turned):
                return maker.columns_out[slot % len(maker.columns_out)]
            raw = maker.result(handed.result, slot).rows(0, rows)
        elif source in self.loads:
            raw = self._load(source, number, rows)
        else:
            part, to = self._part(self.views[source], number, rows), self.lefts[source]
            return replace(to, parts=bring_blocks(self.kernel, part.permute((1, 0)).insert(0), to))
        turn(self.kernel, raw, self.lefts[source])
        return self.lefts[source]

    def _given(self, number: Expr, slot: int, rows: int) -> dict[Instruction, Access]:
        read = {row.instruction for row in self.program.inputs}
        given = {name: tile.rows(0, rows).insert(0) for name, tile in self.fixed.items()}
        given |= {row.instruction: self._load(row.instruction, number, rows) for row in self.moving
                  if row.instruction not in self.sources}
        given |= {name: self.loads[name].rows(0, rows) for name in self.sources if name in read and name in self.loads}
        given |= {name: self.chain.members[source.member].result(source.result, slot).rows(0, rows)
                  for name, source in self.handed.items() if name in read}
        return given

    def _load(self, source: Instruction, number: Expr, rows: int) -> Access:
        """A tile of rows; the first ones by the queue of results, since matrices are waiting in the other."""
        tile, part = self.loads[source].rows(0, rows), self._part(self.views[source], number, rows)
        engine = self.kernel.target.storing_engine if self.chain.opens else Engine.SYNC
        self.kernel.dma(unfolded(tile, part), part, engine=engine)
        return tile

    def _part(self, view: View, number: Expr, rows: int) -> View:
        return view.cut(0, number * self.chain.lanes, rows)

    def _work(self, given: Mapping[Instruction, Access], results: Sequence[Access], lefts: Mapping[Instruction, Sides],
              rows: int, after: Callable[[], None] | None) -> None:
        program = self.program
        pool = Pool(self.kernel, rows, 1, self.banks_kept, spare=0 if self.banks_kept else ROTATING_BANKS)
        pieces = self._pieces()
        for start, width in pieces:
            part = {name: self._cut(name, tile, start, width) for name, tile in given.items()}
            places = {root: self._cut(root, tile, start, width) for root, tile in zip(program.roots, results, strict=True)}
            product = _Product(self, lefts, start, after if (start, width) == pieces[-1] else None)
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
        (matrix,) = member.matrices[dot]
        if out.memory is Memory.PSUM:
            multiply(kernel, out.at(0, 0), side, matrix, 0, (0, rows), (self.column, columns))
        else:
            for start, size in kernel.tiles(columns, kernel.target.tensor.moving_max):
                bank = kernel.psum((rows, size))
                multiply(kernel, bank, side, matrix, 0, (0, rows), (expr(self.column) + start, size))
                kernel.copy(out.at(0, 0).cut(0, start, size), bank)
        if self.after is not None and dot is member.program.dots[-1]:
            self.after()


class Turned(Member):
    """A member whose result others only multiply from the left: columns lie on partitions, as the product wants them.

    Its matrix is multiplied from the left, by as many columns at a time as there are partitions; what is added to each column
    is one value a partition. Nothing of it is to be turned.
    """

    columns_out: list[Sides]

    @staticmethod
    def fits(program: RowProgram, handed: Mapping[Instruction, Handed],
             readers: Sequence[tuple[Instruction, RowProgram]]) -> bool:
        """Whether a program has this form. readers: programs that read its result, and as which parameter."""
        lanes = program.kernel.target.partitions
        if not (len(program.roots) == len(program.dots) == len(program.lefts) == 1 and program.is_parallel and readers):
            return False
        if any(not row.fixed or row.instruction in handed or len(row.view.dims) != program.rows + 1 for row in program.inputs):
            return False
        if any(parameter in {row.instruction for row in reader.inputs} for parameter, reader in readers):
            return False
        total = program.total_columns()
        return total % lanes == 0 and total <= lanes * lanes

    def chunks(self, matrix: View) -> Iterator[View]:
        columns = matrix.sizes[2]
        step = CHUNK_COLUMNS if columns % CHUNK_COLUMNS == 0 else columns
        for start in range(0, columns, step):
            yield matrix.cut(2, start, step)

    def temporary_bytes(self) -> int:
        return 2 * ROTATING_BANKS * self.program.alive() * self.chain.lanes * F32.byte_size

    def fixed_tile(self, view: View) -> Access:
        lanes = self.kernel.target.partitions
        tile = self.kernel.sbuf((lanes, view.elements // lanes), view.dtype)
        if view.dtype in self.kernel.target.engines[Engine.PE].dtypes:
            self.turning.append((self.kernel.sbuf((tile.free, lanes), view.dtype), tile))
        return tile

    def take_results(self) -> None:
        (root,) = self.program.roots
        self.columns_out = [sides(self.kernel, self.program.total_columns(), 1, self.chain.lanes, root.shape.dtype, False)
                            for _ in range(self.chain.buffers(Handed(self.number, 0)))]

    def fetch_fixed(self, view: View, tile: Access) -> None:
        """Loaded as it lies, a run on each partition, for `spread` to turn; element by element what cannot be turned."""
        shaped = view.reshape((tile.free, tile.partitions))
        assert shaped is not None, f"{view.dims} is no row"
        raw = next((raw for raw, turned in self.turning if turned is tile), None)
        self.kernel.dma(tile if raw is None else raw, shaped.permute((1, 0)) if raw is None else shaped)

    def spread(self) -> None:
        for raw, tile in self.turning:
            with self.kernel.scope():
                bank = self.kernel.psum((tile.partitions, tile.free), raw.dtype)
                self.kernel.pe_transpose(bank, raw)
                self.kernel.copy(tile, bank, Engine.SCALAR)

    def run(self, number: Expr, slot: int, rows: int, after: Callable[[], None] | None = None) -> None:
        program, kernel = self.program, self.kernel
        (dot,), (root,), (left,) = program.dots, program.roots, self.ready.values()
        out = self.columns_out[slot % len(self.columns_out)]
        lanes, start = kernel.target.partitions, 0
        banks = itertools.cycle(self.banks_kept)

        def columns(value: Instruction) -> int:
            return rows if any(mark >= 0 for mark in program.maps[value]) else 1

        for matrix in self.matrices[dot]:
            for block, _ in kernel.tiles(matrix.columns // lanes, 1):
                place = out.tile.cut(0, block + start, 1).cut(1, 0, rows)
                given = {name: tile.cut(0, block + start, 1).insert(0) for name, tile in self.fixed.items()}
                kept = [next(banks)] if self.banks_kept else []
                pool = Pool(kernel, lanes, 1, kept, spare=0)
                values = Values(kernel, program.plan, pool, columns, given, _Turn(self, left, matrix, block * lanes), 1,
                                {program.plan.shown.get(root, root): place})
                values.run()
                values.settle(root, place)
            start += matrix.columns // lanes
        if after is not None:
            after()


class _Turn:
    """The product of some columns of a matrix, from the left, by a left side. column: the first of them."""

    def __init__(self, member: Turned, left: Sides, matrix: Sides, column: Index) -> None:
        self.member, self.left, self.matrix, self.column = member, left, matrix, column

    def __call__(self, dot: Instruction, left: Access | None, out: Access) -> None:
        kernel, (lanes, _, rows) = self.member.kernel, out.sizes
        bank = out.at(0, 0) if out.memory is Memory.PSUM else kernel.psum((lanes, rows))
        multiply(kernel, bank, self.matrix, self.left, 0, (self.column, lanes), (0, rows))
        if out.memory is not Memory.PSUM:
            kernel.copy(out.at(0, 0), bank)
