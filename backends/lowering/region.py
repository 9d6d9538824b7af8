"""Row programs: fused regions that run a tile of rows through elementwise work, row reductions and matrix products in SBUF.

The region is a `fusion` whose frontend attribute ROWS tells how many leading dimensions of each root are rows (see
nxcc.ir.hlo.rowspace). Values with columns are tiles [rows, columns]; values without are columns [rows, 1]; what is equal
everywhere stays a number. Nothing but the region's operands and results touches HBM.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.pointwise import Tile, emits
from nxcc.backends.lowering.reduction import emit_row_reduce
from nxcc.backends.lowering.registry import rule
from nxcc.backends.lowering.tiling import loops, store, unfolded
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import DType
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.hlo.rowspace import (
    COLUMN,
    RowMap,
    is_column_parallel,
    maps_of,
    parameter_of,
    peak_tiles,
    row_map,
)

ROWS = "nxcc.rows"
"""Frontend attribute of a fusion that is a row program: its number of row dimensions."""


def is_row_program(instruction: Instruction) -> bool:
    return instruction.opcode == "fusion" and ROWS in instruction.frontend_attributes


@dataclass
class _Input:
    """An operand as the program reads it. view: [row dimensions.., column dimensions..]; fixed: the same in all rows."""

    instruction: Instruction
    view: View
    fixed: bool


@rule("fusion", follows=True)
def lower_row_program(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Write the tile program of a fused region."""
    body = instruction.called[0]
    rows = int(instruction.frontend_attributes[ROWS])
    _RowProgram(kernel, body, rows, operands, results).lower()


class _RowProgram:
    def __init__(self, kernel: Kernel, body: Computation, rows: int, operands: Sequence[View], results: Sequence[View]) -> None:
        self.kernel = kernel
        self.rows = rows
        self.order = body.post_order()
        self.roots = list(body.root.operands) if body.root.opcode == "tuple" else [body.root]
        maps = maps_of(self.order, {root: row_map(root, rows) for root in self.roots})
        assert maps is not None, f"{body.name} is no row program"
        self.maps = maps
        self.operands = {p: operands[int(p.attributes["parameter_number"])] for p in body.parameters}
        self.sizes = self._row_sizes()
        self.outputs = [_arrange(view, self.maps[root], rows) for root, view in zip(self.roots, results, strict=True)]
        self.inputs = [self._input(p) for p in self.operands if p in maps]
        self.batch = max((len(i.attribute("lhs_batch_dims")) for i in self.order if i.opcode == "dot"), default=0)
        self.sides = [i.operands[1] for i in self.order if i.opcode == "dot"]
        self.last_use = {operand: user for user in self.order for operand in user.operands}
        self.turned: dict[Instruction, Turned] = {}
        self.width: int | None = None

    def _row_sizes(self) -> tuple[int, ...]:
        sizes = [1] * self.rows
        for value, marks in self.maps.items():
            for size, mark in zip(value.shape.dims, marks, strict=True):
                if mark >= 0:
                    sizes[mark] = size
        return tuple(sizes)

    def _input(self, parameter: Instruction) -> _Input:
        view = _arrange(self.operands[parameter], self.maps[parameter], self.rows)
        dims = tuple((stride, size) if size == full else (0, full)
                     for (stride, size), full in zip(view.dims, self.sizes, strict=False))
        fixed = all(stride == 0 for stride, _ in dims) and len(view.dims) > self.rows
        return _Input(parameter, View(view.memory, view.dtype, view.address, (*dims, *view.dims[self.rows:])), fixed)

    def lower(self) -> None:
        """Columns that do not depend on each other are cut into tiles as well; else a tile has whole rows."""
        if is_column_parallel(self.order, self.maps, self.roots):
            self._lower_by_columns()
        else:
            self._lower_by_rows()

    def _lower_by_columns(self) -> None:
        """Left sides of products are loaded and turned once a tile of rows; all else runs a tile of columns at a time."""
        lefts = [dot.operands[0] for dot in self.order if dot.opcode == "dot"]
        inputs = {i.instruction: i.view for i in self.inputs}
        sources = [parameter_of(left) for left in lefts]
        views = [*inputs.values(), *self.outputs]
        sides = [self._side(dot) for dot in self.sides]
        joined, batch = self._join_rows(views)
        columns = self.outputs[0].dims[self.rows:]
        total = columns[0][1] if columns else 1
        width = self._column_width(total)
        for cut, side_cut in _row_tiles(self.kernel, joined, self._row_count, sides, batch):
            tiles = dict(zip(inputs, cut, strict=False))
            outputs = cut[len(inputs):]
            rows = math.prod(outputs[0].sizes[:self._tile_rows(outputs[0], self.roots[0])])
            pool = _Pool(self.kernel, rows)
            for dot, source in zip((i for i in self.order if i.opcode == "dot"), sources, strict=True):
                self.turned[dot] = turn(self.kernel, pool.load(tiles[source]))
            for start, size in self.kernel.tiles(total, width):
                part = {i: self._cut_columns(i, v, start, size) for i, v in tiles.items() if self._is_read(i)}
                sides_part = {s: v.cut(len(v.dims) - 1, start, size) for s, v in zip(self.sides, side_cut, strict=True)}
                self._tile(part, [self._cut_columns(r, v, start, size) for r, v in zip(self.roots, outputs, strict=True)],
                           {}, sides_part, size)

    def _cut_columns(self, value: Instruction, view: View, start: Index, size: int) -> View:
        """Columns start.. of a value's view; a value without columns stays as it is."""
        return view.cut(len(view.dims) - 1, start, size) if COLUMN in self.maps[value] else view

    def _is_read(self, value: Instruction) -> bool:
        """Whether anything but the left side of a product reads this input."""
        if value in self.roots:
            return True
        users = [u for u in value.users if u in self.maps]
        return any(self._is_read(u) if u.opcode in ("reshape", "transpose") else u.opcode != "dot" for u in users)

    def _column_width(self, total: int) -> int:
        """Columns of a tile, so that all values alive at once fit, twice over where tiles rotate."""
        bank = self.kernel.target.tensor.moving_max
        alive = peak_tiles(self.order, self.maps)
        budget = self.kernel.sbuf_free_bytes * 6 // 10 // (4 * alive * self.kernel.copies.inner)
        width = budget // bank * bank if budget >= bank else max(64, budget // 64 * 64)
        return max(1, min(total, width, 4 * bank))

    def _lower_by_rows(self) -> None:
        """Load what is the same for all rows once; then run tile by tile."""
        lanes = min(self.kernel.target.partitions, math.prod(self.sizes))
        fixed = {i.instruction: self._load_fixed(i, lanes) for i in self.inputs if i.fixed}
        moving = [i for i in self.inputs if not i.fixed]
        views = [*(i.view for i in moving), *self.outputs]
        sides = [self._side(dot) for dot in self.sides]
        joined, batch = self._join_rows(views)
        for cut, side_cut in _row_tiles(self.kernel, joined, self._row_count, sides, batch):
            self._tile(dict(zip((i.instruction for i in moving), cut[:len(moving)], strict=True)),
                       cut[len(moving):], fixed, dict(zip(self.sides, side_cut, strict=True)))

    def _join_rows(self, views: list[View]) -> tuple[list[View], int]:
        """Join neighbouring row dimensions where all views allow it; dimensions that select a matrix stay apart."""
        groups: list[list[int]] = []
        for d in range(self.rows):
            if groups and d > self.batch and groups[-1][-1] >= self.batch and all(
                    v.dims[groups[-1][-1]][0] == v.dims[d][0] * v.dims[d][1] for v in views):
                groups[-1].append(d)
            else:
                groups.append([d])
        self._row_count = len(groups)
        joined = []
        for v in views:
            dims = tuple((v.dims[g[-1]][0], math.prod(v.dims[d][1] for d in g)) for g in groups)
            joined.append(View(v.memory, v.dtype, v.address, (*dims, *v.dims[self.rows:])))
        return joined, self.batch

    def _side(self, parameter: Instruction) -> View:
        """The right operand of a dot as [batch rows.., k, n]."""
        dot = next(i for i in self.order if i.opcode == "dot" and i.operands[1] is parameter)
        view = self.operands[parameter]
        batch, summed = dot.attribute("rhs_batch_dims"), dot.attribute("rhs_contracting_dims")
        free = [d for d in range(len(view.dims)) if d not in batch and d not in summed]
        view = view.permute((*batch, *summed, *free))
        for _ in range(self.batch - len(batch)):
            view = view.insert(0)
        return View(view.memory, view.dtype, view.address, tuple(
            (stride, self.sizes[d]) if d < self.batch else (stride, size) for d, (stride, size) in enumerate(view.dims)))

    def _load_fixed(self, source: _Input, lanes: int) -> Tile:
        """One row, repeated on all partitions that a tile may use."""
        columns = source.view.dims[self.rows:]
        row = View(source.view.memory, source.view.dtype, source.view.address, ((0, lanes), *columns))
        tile = self.kernel.sbuf((lanes, math.prod(size for _, size in columns)), row.dtype)
        self.kernel.dma(unfolded(tile, row), row)
        return tile

    def _tile(self, inputs: dict[Instruction, View], outputs: Sequence[View], fixed: dict[Instruction, Tile],
              sides: dict[Instruction, View], width: int | None = None) -> None:
        """Run one tile; width: its columns where they are cut, else every value has its own."""
        self.width = width
        rows = math.prod(outputs[0].sizes[:self._tile_rows(outputs[0], self.roots[0])])
        pool = _Pool(self.kernel, rows)
        values: dict[Instruction, Tile] = {}
        owned: set[Instruction] = set()
        for instruction in self.order:
            if instruction not in self.maps or instruction.opcode == "tuple":
                continue
            if instruction in fixed:
                tile = fixed[instruction]
                values[instruction] = tile.rows(0, rows) if isinstance(tile, Access) else tile
            elif instruction in inputs:
                values[instruction] = pool.load(inputs[instruction])
                owned.add(instruction)
            elif instruction.opcode == "parameter":
                continue
            elif self._emit(instruction, values, pool, sides):
                owned.add(instruction)
            for operand in dict.fromkeys(instruction.operands):
                if self.last_use[operand] is instruction and operand in owned and operand in values:
                    self._give_back(operand, values, pool)
        for root, view in zip(self.roots, outputs, strict=True):
            store(self.kernel, view, self._whole(values[root], root, pool))

    def _tile_rows(self, view: View, root: Instruction) -> int:
        return len(view.dims) - sum(1 for mark in self.maps[root] if mark == COLUMN)

    def _give_back(self, operand: Instruction, values: dict[Instruction, Tile], pool: _Pool) -> None:
        """Return a tile to the pool unless it is a result or another name (a broadcast, a reshape) still stands for it."""
        if operand in self.roots:
            return
        tile = values.pop(operand)
        if not any(other is tile for other in values.values()):
            pool.give_back(tile)

    def _columns(self, instruction: Instruction) -> int:
        marks = self.maps[instruction]
        if self.width is not None and COLUMN in marks:
            return self.width
        return math.prod(size for size, mark in zip(instruction.shape.dims, marks, strict=True) if mark == COLUMN)

    def _emit(self, instruction: Instruction, values: dict[Instruction, Tile], pool: _Pool,
              sides: dict[Instruction, View]) -> bool:
        """Compute one value; True if it has a tile of its own."""
        opcode = instruction.opcode
        if opcode == "constant":
            values[instruction] = instruction.attributes["literal"].splat_value.item()
            return False
        if opcode in ("broadcast", "reshape", "transpose"):
            if instruction.operands[0] not in values:
                return False
            values[instruction] = values[instruction.operands[0]]
            return True
        out = pool.take(self._columns(instruction), instruction.shape.dtype)
        if opcode == "reduce":
            emit_row_reduce(self.kernel, instruction, self._operand(instruction.operands[0], values, pool), out)
        elif opcode == "dot":
            matrix = sides[instruction.operands[1]]
            if instruction in self.turned:
                multiply_turned(self.kernel, self.turned[instruction], matrix, out)
            else:
                emit_row_dot(self.kernel, self._operand(instruction.operands[0], values, pool), matrix, out)
        else:
            inputs: list[Tile] = [values[operand] for operand in instruction.operands]
            if all(not isinstance(t, Access) or t.free < out.free for t in inputs):
                inputs[0] = self._operand(instruction.operands[0], values, pool)
            emits()[opcode](self.kernel, instruction, inputs, out)
        values[instruction] = out
        return True

    def _operand(self, operand: Instruction, values: dict[Instruction, Tile], pool: _Pool) -> Access:
        """The value as a tile with all its columns; repetition along columns is a stride of 0."""
        return self._whole(values[operand], operand, pool)

    def _whole(self, tile: Tile, instruction: Instruction, pool: _Pool) -> Access:
        columns = self._columns(instruction)
        if not isinstance(tile, Access):
            number, tile = tile, pool.take(columns, instruction.shape.dtype)
            self.kernel.memset(tile, number)
            return tile
        if tile.free == columns:
            return tile
        return Access(tile.memory, tile.dtype, tile.partition, tile.partitions, tile.offset, ((0, columns),))


class _Pool:
    """Tiles of one row tile's scope; those given back are used again for values of the same size."""

    def __init__(self, kernel: Kernel, rows: int) -> None:
        self.kernel = kernel
        self.rows = rows
        self._free: dict[tuple[int, DType], list[Access]] = {}

    def take(self, columns: int, dtype: DType) -> Access:
        free = self._free.get((columns, dtype))
        return free.pop() if free else self.kernel.sbuf((self.rows, columns), dtype)

    def give_back(self, tile: Tile) -> None:
        if isinstance(tile, Access) and all(stride for stride, _ in tile.dims):
            self._free.setdefault((tile.free, tile.dtype), []).append(tile)

    def load(self, view: View) -> Access:
        columns = view.elements // self.rows
        tile = self.take(columns, view.dtype)
        self.kernel.dma(unfolded(tile, view), view)
        return tile


def _arrange(view: View, marks: RowMap, rows: int) -> View:
    """[row dimensions in order.., column dimensions..]; a row dimension that the value lacks has size 1."""
    dims: list[tuple[int, int]] = [(0, 1)] * rows
    columns = []
    for dim, mark in zip(view.dims, marks, strict=True):
        if mark >= 0:
            dims[mark] = dim
        elif mark == COLUMN:
            columns.append(dim)
    return View(view.memory, view.dtype, view.address, (*dims, *columns))


def _row_tiles(kernel: Kernel, views: list[View], rows: int, sides: list[View],
               batch: int) -> Iterator[tuple[list[View], list[View]]]:
    """Loop over the batch dimensions of views and sides together, then cut the remaining rows into tiles."""
    if batch:
        size = views[0].sizes[0]
        if size == 1:
            yield from _row_tiles(kernel, [v.at(0, 0) for v in views], rows - 1, [s.at(0, 0) for s in sides], batch - 1)
            return
        with kernel.loop(size) as index:
            yield from _row_tiles(kernel, [v.at(0, index) for v in views], rows - 1, [s.at(0, index) for s in sides], batch - 1)
        return
    if rows == 0:
        yield [v.insert(0) for v in views], sides
        return
    limit = kernel.target.partitions
    first, lanes = rows, 1
    while first and lanes * views[0].sizes[first - 1] <= limit:
        first -= 1
        lanes *= views[0].sizes[first]
    step = limit // lanes
    if first == 0 or (step < 2 and lanes > 1):
        for cut in loops(kernel, views, first):
            yield cut, sides
        return
    for outer in loops(kernel, views, first - 1):
        for start, size in kernel.tiles(views[0].sizes[first - 1], step, outer=True):
            yield [v.cut(0, start, size) for v in outer], sides


def emit_row_dot(kernel: Kernel, lhs: Access, rhs: View, out: Access) -> None:
    """out[r, n] = sum_k lhs[r, k] * rhs[k, n]; lhs and out are tiles, rhs lies in HBM as [k.., n..].

    The left tile is turned by the tensor engine block by block, so that k lies on partitions; then the matrix streams by.
    """
    with kernel.scope():
        multiply_turned(kernel, turn(kernel, lhs), rhs, out)


@dataclass(frozen=True, slots=True)
class Turned:
    """The left side of a product with k on partitions: tile [k in a block, blocks, rows]; depth: k in all."""

    tile: Access
    depth: int


def turn(kernel: Kernel, lhs: Access) -> Turned:
    """Turn a tile [rows, k], block by block of 128 k, on the tensor engine."""
    depth, lanes = lhs.free, kernel.target.partitions
    turned = kernel.sbuf((min(lanes, depth), -(-depth // lanes), lhs.partitions), lhs.dtype)
    for k, size in kernel.tiles(depth, lanes):
        block = kernel.psum((size, lhs.partitions), lhs.dtype)
        kernel.pe_transpose(block, lhs.flat().cut(0, k, size))
        kernel.copy(_block(turned, k, lanes).rows(0, size), block)
    return Turned(turned, depth)


def multiply_turned(kernel: Kernel, lhs: Turned, rhs: View, out: Access) -> None:
    """out[r, n] = sum_k lhs[k, r] * rhs[k, n]: blocks of the matrix stream by, sums stay in PSUM."""
    depth, lanes, rows = lhs.depth, kernel.target.partitions, lhs.tile.sizes[-1]
    matrix = rhs.reshape((depth, out.free))
    assert matrix is not None, "the matrix of a row product joins into [k, n]"
    with kernel.scope():
        for n, width in kernel.tiles(out.free, kernel.target.tensor.moving_max):
            fetch = _fetcher(kernel, matrix.cut(1, n, width))
            sums = kernel.psum((rows, width))

            def step(k: Index, size: int, first: bool, fetch: Fetch = fetch, sums: Access = sums) -> None:
                kernel.matmul(sums, _block(lhs.tile, k, lanes).rows(0, size), fetch(k, size), accumulate=not first)

            accumulate_blocks(kernel, depth, lanes, step)
            kernel.copy(out.flat().cut(0, n, width), sums)


def _is_turned(matrix: View) -> bool:
    """True if neighbours along k, not along n, lie together in memory: rows of n are then loaded and turned on the chip."""
    (k_stride, depth), (n_stride, columns) = matrix.dims
    unit = matrix.dtype.byte_size
    return abs(n_stride) != unit and k_stride == unit and depth > 1 and columns > 1


Fetch = Callable[[Index, int], Access]
"""fetch(k, size): a tile [k, n] of the matrix, k on partitions."""

RAW_BYTES = 98304
"""Bytes a partition that whole rows of n may take while they wait to be turned; longer ones come in pieces of 128 k."""


def _fetcher(kernel: Kernel, matrix: View) -> Fetch:
    """How tiles of a matrix [k, n], n at most one PSUM bank, come to the tensor engine."""
    if not _is_turned(matrix):
        return lambda k, size: _fetch_rows(kernel, matrix.cut(0, k, size))
    depth, width = matrix.sizes
    lanes = kernel.target.partitions
    starts = range(0, width, lanes)
    if len(starts) * depth * matrix.dtype.byte_size * kernel.copies.inner > RAW_BYTES:
        return lambda k, size: _turn_blocks(kernel, [_rows_of(kernel, matrix.cut(0, k, size), s) for s in starts], 0, size)
    raw = [_rows_of(kernel, matrix, start) for start in starts]
    return lambda k, size: _turn_blocks(kernel, raw, k, size)


def _fetch_rows(kernel: Kernel, block: View) -> Access:
    """A block [k, n] of the matrix as it lies."""
    moving = kernel.sbuf(block.sizes, block.dtype)
    kernel.dma(moving, block)
    return moving


def _rows_of(kernel: Kernel, matrix: View, start: int) -> Access:
    """Up to 128 columns of a matrix [k, n] that lies as [n, k], as they lie: n on partitions."""
    count = min(kernel.target.partitions, matrix.sizes[1] - start)
    raw = kernel.sbuf((count, matrix.sizes[0]), matrix.dtype)
    kernel.dma(raw, matrix.cut(1, start, count).permute((1, 0)))
    return raw


def _turn_blocks(kernel: Kernel, raw: Sequence[Access], k: Index, size: int) -> Access:
    """[k, n] from tiles [n, k..], turned by the tensor engine in squares."""
    width = sum(block.partitions for block in raw)
    moving = kernel.sbuf((size, width), raw[0].dtype)
    turned = kernel.psum((size, width), raw[0].dtype)
    start = 0
    for block in raw:
        kernel.pe_transpose(turned.cut(0, start, block.partitions), block.cut(0, k, size))
        start += block.partitions
    kernel.copy(moving, turned, Engine.SCALAR)
    return moving


def _block(turned: Access, k: Index, lanes: int) -> Access:
    """Block k // lanes of a tile [partitions, blocks, ..]; k is a multiple of lanes."""
    start = expr(k)
    return turned.at(0, Expr(start.constant // lanes, tuple((s, c // lanes) for s, c in start.terms)))


def accumulate_blocks(kernel: Kernel, depth: int, lanes: int, step: Callable[[Index, int, bool], None]) -> None:
    """Run step(k, size, first) over the summed dimension: the first block overwrites PSUM, the others add."""
    opening = min(lanes, depth)
    with kernel.scope():
        step(0, opening, True)
        for k, size in kernel.tiles(depth - opening, lanes):
            step(k + opening, size, False)
