"""Matrix products where tiles rotate, as `product_plan` cuts them: the left operand stays, the right one streams past it.

What comes in is one block of rows ahead of what is computed. An operand whose rows are contiguous along k is loaded as it lies
and turned by the tensor engine: the left one once a block, before its products; the right one as it streams by.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from nxcc.backends.berths import Berth, room
from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.halo import blocked
from nxcc.backends.lowering.operands import Depth, block_sizes, bring, depth_of, steady, turns
from nxcc.backends.lowering.product_plan import RESULTS, Machine, Plan, Product, machine, plan
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.diagnostics import OUT_OF_MEMORY, CompileError
from nxcc.ir.dtypes import F32, DType


@dataclass(frozen=True, slots=True)
class Batch:
    """A product that is repeated: how often, and bytes from one to the next of each operand and the result."""

    count: int = 1
    left: int = 0
    right: int = 0
    out: int = 0

    def swapped(self) -> Batch:
        """Of the transposed product."""
        return replace(self, left=self.right, right=self.left)

    def each(self, kernel: Kernel, left: View, right: View, out: View) -> Iterator[tuple[View, View, View]]:
        """The products one after the other."""
        with _loop(kernel, self.count) as index:
            yield _shifted(left, self.left, index), _shifted(right, self.right, index), _shifted(out, self.out, index)


ONCE = Batch()


def planned(kernel: Kernel, left: View, right: View, out: View, dtype: DType, batch: Batch) -> tuple[Plan, Product] | None:
    """The plan for this part of the machine; None if nothing fits into it, CompileError(OUT_OF_MEMORY) if the whole machine
    would be quicker by more than what a neighbour could hide."""
    depth = depth_of(kernel, (left.sizes[1], left.sizes[2]))
    product = Product(left.sizes[0], right.sizes[0], depth.total, depth.unit, batch.count, dtype.byte_size, out.dtype.byte_size,
                      _run(left) * dtype.byte_size, _run(right) * dtype.byte_size, _run(out) * out.dtype.byte_size,
                      turns(kernel, left), turns(kernel, right))
    on = machine(kernel.target, "tf32" if kernel.tf32 and dtype is F32 else dtype.name)
    found = plan(product, on, kernel.sbuf_free_bytes, kernel.room.psum_banks)
    whole = room(kernel.target, Berth.WHOLE)
    if kernel.room != whole and _gains(found, plan(product, on, whole.sbuf_bytes, whole.psum_banks), on):
        raise CompileError(OUT_OF_MEMORY, f"{kernel.program.name} is quicker with the whole machine")
    return None if found is None else (found, product)


def _gains(half: Plan | None, whole: Plan | None, on: Machine) -> bool:
    if whole is None:
        return False
    return half is None or half.seconds - half.exposed > whole.seconds


def _run(view: View) -> int:
    """Elements that lie one after another, at most."""
    longest, unit = 1, view.dtype.byte_size
    for stride, size in sorted(view.dims):
        if size > 1 and stride == unit * longest:
            longest *= size
    return longest


class Multiplication:
    """out[m, n] = sum over k of left[m, k outer, k inner] * right[n, k outer, k inner], by a plan."""

    def __init__(self, kernel: Kernel, plan: Plan, product: Product, dtype: DType) -> None:
        self.kernel, self.plan, self.product, self.dtype = kernel, plan, product, dtype
        self.lanes, self.bank = kernel.target.partitions, kernel.target.tensor.moving_max
        self.columns = min(plan.wide * self.bank, product.columns)
        self.engines = itertools.cycle((Engine.VECTOR, Engine.SCALAR))
        self.turning = [kernel.psum((self.lanes, self._bank_of(dtype)), dtype) for _ in range(2 * product.right_turns)]
        self.sums = [[[kernel.psum((self.lanes, self.bank)) for _ in range(plan.wide)] for _ in range(plan.group)]
                     for _ in range(plan.sets)]
        if not self.turning:
            whole = ((1, self._bank_of(dtype)),)
            self.turning = [replace(bank, dtype=dtype, dims=whole) for one in self.sums for row in one for bank in row][:4]
        self.next_sums = itertools.cycle(self.sums)
        self.next_bank = itertools.cycle(self.turning)

    def _bank_of(self, dtype: DType) -> int:
        return self.kernel.target.psum.bank_bytes // dtype.byte_size

    def run(self, left: View, right: View, out: View, batch: Batch) -> None:
        """All products of a batch; a block of rows is loaded while the one before is multiplied."""
        kernel, product, plan = self.kernel, self.product, self.plan
        depth = depth_of(kernel, (left.sizes[1], left.sizes[2]))
        rows = min(plan.rows, product.rows)
        pieces = -(-product.rows // rows)
        across = batch.count > 1 and pieces == 1
        ring = 1 if product.left_turns or (pieces == 1 and not across) else 2
        resident = [kernel.sbuf((min(depth.unit, depth.total), depth.blocks, rows), self.dtype) for _ in range(ring)]
        raw = None
        if product.left_turns:
            raw = kernel.sbuf((min(self.lanes, rows), -(-rows // self.lanes), depth.total), self.dtype)
        tile = (min(depth.unit, depth.total), min(plan.chunk, depth.blocks), self.columns)
        self.moving = itertools.cycle([kernel.sbuf(tile, self.dtype) for _ in range(2 if plan.whole(product) else plan.ring)])
        raw_tile = min(self.lanes, self.columns), -(-self.columns // self.lanes), min(plan.chunk * depth.unit, depth.total)
        self.raw_moving = itertools.cycle([kernel.sbuf(raw_tile, self.dtype) for _ in range(2 * product.right_turns)])
        self.results = itertools.cycle([
            kernel.sbuf((min(self.lanes, rows), min(plan.group, -(-rows // self.lanes)), self.columns), out.dtype)
            for _ in range(RESULTS)])

        def stage(one: Batch, at: Index, m: Index, rows: int, buffer: int) -> Stage:
            block = _shifted(left, one.left, at).cut(0, m, rows)

            def bring_part(k: Index, size: int) -> None:
                if raw is not None:
                    part = block.cut(1, blocked(k, depth.inner), size // depth.inner)
                    self._load_rows(part, raw.cut(1, k, size), rows, STAGING)
                else:
                    place = resident[buffer].cut(0, blocked(k, depth.unit), -(-size // depth.unit)).cut(1, 0, rows)
                    bring(kernel, block, depth, k, size, place, None, STAGING)
            return bring_part

        def compute(one: Batch, at: Index, m: Index, rows: int, buffer: int, then: Stage | None) -> None:
            if raw is not None:
                self._turn_rows(raw, resident[0], depth, rows)
            self._block(resident[buffer].cut(1, 0, rows), _shifted(right, one.right, at),
                        _shifted(out, one.out, at).cut(0, m, rows), depth, then)

        def ahead(total: int, step: int, stage: Callable[[Index, int, int], Stage],
                  compute: Callable[[Index, int, int, Stage | None], None]) -> None:
            stage(0, min(step, total), 0)(0, depth.total)
            _ahead(kernel, total, step, ring, stage, compute)

        if across:
            ahead(batch.count, 1, lambda at, _, buffer: stage(batch, at, 0, rows, buffer),
                  lambda at, _, buffer, then: compute(batch, at, 0, rows, buffer, then))
            return
        with _loop(kernel, batch.count) as at:
            ahead(product.rows, rows, lambda m, size, buffer: stage(batch, at, m, size, buffer),
                  lambda m, size, buffer, then: compute(batch, at, m, size, buffer, then))

    # ---- the left operand ---------------------------------------------------------------------------------------------

    def _load_rows(self, block: View, raw: Access, rows: int, engine: Engine = Engine.SYNC) -> None:
        """raw [128, tiles, k] = rows as they lie."""
        outer, inner = block.sizes[1:]
        for start, count, tiles in _tiles_of(rows, self.lanes):
            place = raw.cut(0, start // self.lanes, tiles).rows(0, count)
            (pitch, _), (tile, _), (near, _) = place.linear().dims
            (stride, _), *depths = block.cut(0, start, count * tiles).dims
            source = replace(block.cut(0, start, count * tiles), dims=((stride, count), (stride * count, tiles), *depths))
            self.kernel.dma(replace(place.linear(), dims=((pitch, count), (tile, tiles), (near * inner, outer), (near, inner))),
                            source, engine=engine)

    def _turn_rows(self, raw: Access, resident: Access, depth: Depth, rows: int) -> None:
        """resident [unit, blocks, rows] = raw [128, tiles, k] turned, as many blocks of k at once as a bank holds."""
        for start, count, tiles in _tiles_of(rows, self.lanes):
            with _loop(self.kernel, tiles) as tile:
                place = resident.cut(1, tile * self.lanes + start, count)
                self._turn(raw.at(0, tile + start // self.lanes).rows(0, count), place, depth, depth.total, len(self.turning))

    def _turn(self, raw: Access, out: Access, depth: Depth, size: int, copies: int) -> None:
        """out [unit, blocks, rows] = raw [rows, k] turned."""
        rows, most = raw.partitions, self._bank_of(self.dtype)
        at_once = max(1, most // rows)
        full, rest = divmod(size, depth.unit)
        for b, count in steady(self.kernel, full, at_once, copies):
            bank = next(self.next_bank).rows(0, depth.unit).cut(0, 0, count * rows).reshape(count, rows)
            for one in range(count):
                self.kernel.pe_transpose(bank.at(0, one), raw.cut(0, (b + one) * depth.unit, depth.unit))
            self.kernel.copy(out.cut(0, b, count).rows(0, depth.unit), bank, next(self.engines))
        if rest:
            bank = next(self.next_bank).rows(0, rest).cut(0, 0, rows)
            self.kernel.pe_transpose(bank, raw.cut(0, full * depth.unit, rest))
            self.kernel.copy(out.at(0, full).rows(0, rest), bank, next(self.engines))

    # ---- a block of rows ------------------------------------------------------------------------------------------------

    def _block(self, left: Access, right: View, out: View, depth: Depth, then: Stage | None) -> None:
        """out [rows, n] from a left operand [unit, blocks, rows] that stays; then: brings the next rows meanwhile."""
        kernel, plan, group = self.kernel, self.plan, self.plan.group * self.lanes
        whole = plan.whole(self.product)
        for n, columns in self._column_tiles(right.sizes[0], 2 if whole else plan.sets, depth, then):
            matrix, place = right.cut(0, n, columns), out.cut(1, n, columns)
            if not whole:
                self._stream(left, matrix, place, depth)
                continue
            moving = self._moving(matrix, depth, 0, depth.total)
            for g, rows in steady(kernel, left.sizes[-1], group, plan.sets):
                sums = self._sums(rows, columns)
                self._multiply(left.cut(1, g, rows), 0, moving, depth, depth.total, sums, True)
                self._leave(sums, place.cut(0, g, rows))

    def _column_tiles(self, total: int, copies: int, depth: Depth, then: Stage | None) -> Iterator[tuple[Expr, int]]:
        """The columns in tiles; the next rows come in parts between them, so that nothing waits long behind one."""
        full, parts = total // self.columns, 1
        if then is not None:
            parts = max((d for d in range(1, full // copies + 1) if full % (d * copies) == 0 and depth.blocks % d == 0
                         and (d == 1 or depth.total % depth.unit == 0)), default=1)
            if parts == 1:
                then(0, depth.total)
        if parts == 1:
            yield from steady(self.kernel, total, self.columns, copies)
            return
        assert then is not None
        step, part = full // parts * self.columns, depth.total // parts
        with self.kernel.loop(parts) as index:
            then(index * part, part)
            for n, columns in steady(self.kernel, step, self.columns, copies):
                yield index * step + n, columns
        for n, columns in steady(self.kernel, total - full * self.columns, self.columns, copies):
            yield n + full * self.columns, columns

    def _stream(self, left: Access, matrix: View, out: View, depth: Depth) -> None:
        """One group of rows and the columns of one set of sums; the right operand comes in chunks of k."""
        sums = self._sums(left.sizes[-1], matrix.sizes[0])
        chunk = self.plan.chunk * depth.unit

        def step(k: Index, size: int, first: bool) -> None:
            self._multiply(left, k, self._moving(matrix, depth, k, size), depth, size, sums, first)

        step(0, min(chunk, depth.total), True)
        for k, size in steady(self.kernel, depth.total - min(chunk, depth.total), chunk, self.plan.ring):
            step(k + chunk, size, False)
        self._leave(sums, out)

    def _sums(self, rows: int, columns: int) -> list[list[Access]]:
        """The next set: for each tile of rows its banks."""
        found = next(self.next_sums)
        return [[bank.rows(0, min(self.lanes, rows - start)).cut(0, 0, min(self.bank, columns - at))
                 for bank, at in zip(found[number], range(0, columns, self.bank), strict=False)]
                for number, start in enumerate(range(0, rows, self.lanes))]

    def _moving(self, matrix: View, depth: Depth, k: Index, size: int) -> Access:
        """The right operand [unit, blocks, columns] from k on."""
        columns = matrix.sizes[0]
        tile = next(self.moving).rows(0, min(depth.unit, size)).cut(0, 0, -(-size // depth.unit)).cut(1, 0, columns)
        if not self.product.right_turns:
            bring(self.kernel, matrix, depth, k, size, tile, None)
            return tile
        raw = next(self.raw_moving).cut(1, 0, size)
        self._load_rows(matrix.cut(1, blocked(k, depth.inner), size // depth.inner), raw, columns)
        for start, count, tiles in _tiles_of(columns, self.lanes):
            for number in range(tiles):
                at = start + number * self.lanes
                self._turn(raw.at(0, at // self.lanes).rows(0, count), tile.cut(1, at, count), depth, size, 1)
        return tile

    def _multiply(self, left: Access, k: Index, moving: Access, depth: Depth, size: int, sums: list[list[Access]],
                  first: bool) -> None:
        """Add the products of `size` elements of k; the first of them opens the sums."""
        if isinstance(k, int) and size > UNROLLED * depth.unit:
            self._multiply(left, k, moving.cut(0, 0, 1), depth, depth.unit, sums, first)
            with self.kernel.loop(size // depth.unit - 1) as index:
                self._pass(left.at(0, index + 1 + k // depth.unit), moving.at(0, index + 1), depth.unit, sums, True)
            if size % depth.unit:
                block = size // depth.unit
                self._pass(left.at(0, block + k // depth.unit), moving.at(0, block), size % depth.unit, sums, True)
            return
        for b, part in enumerate(block_sizes(size, depth.unit)):
            self._pass(left.at(0, blocked(k, depth.unit) + b), moving.at(0, b), part, sums, not (first and b == 0))

    def _pass(self, left: Access, moving: Access, part: int, sums: list[list[Access]], accumulate: bool) -> None:
        """Products of one block of k."""
        for number, row in enumerate(sums):
            for place, bank in enumerate(row):
                self.kernel.matmul(bank, left.rows(0, part).cut(0, number * self.lanes, bank.partitions),
                                   moving.rows(0, part).cut(0, place * self.bank, bank.free), accumulate=accumulate)

    def _leave(self, sums: list[list[Access]], out: View) -> None:
        """Store sums with the result's dtype: one transfer for all whole tiles of rows."""
        tile = next(self.results)
        for number, row in enumerate(sums):
            for place, bank in enumerate(row):
                self.kernel.copy(tile.at(0, number).rows(0, bank.partitions).cut(0, place * self.bank, bank.free), bank,
                                 next(self.engines))
        rows, columns = out.sizes
        for start, count, tiles in _tiles_of(rows, self.lanes):
            stored = tile.cut(0, start // self.lanes, tiles).cut(1, 0, columns).rows(0, count)
            (stride, _), column = out.dims
            target = replace(out.cut(0, start, count * tiles), dims=((stride, count), (stride * count, tiles), column))
            self.kernel.dma(target, stored.linear())


STAGING = Engine.SCALAR
"""Whose queue loads the next rows: what waits for the tiles of the right operand must not wait behind them."""

UNROLLED = 16
"""Blocks of k that are written one by one; more become a loop."""


def _shifted(view: View, stride: int, index: Index) -> View:
    return replace(view, address=view.address + expr(index) * stride)


def _tiles_of(rows: int, lanes: int) -> Iterator[tuple[int, int, int]]:
    """(first row, rows of a tile, tiles): the whole tiles, then what is left."""
    full, rest = divmod(rows, lanes)
    if full:
        yield 0, lanes, full
    if rest:
        yield full * lanes, rest, 1


@contextmanager
def _loop(kernel: Kernel, count: int) -> Iterator[Expr]:
    """A loop, or nothing around a single run."""
    if count == 1:
        yield Expr()
        return
    with kernel.loop(count) as index:
        yield index


Stage = Callable[[Index, int], None]
"""stage(k, size): bring so much of the depth of a block of rows, from k on."""


def _ahead(kernel: Kernel, total: int, step: int, ring: int, stage: Callable[[Index, int, int], Stage],
           compute: Callable[[Index, int, int, Stage | None], None]) -> None:
    """Cut 0..total into pieces of `step`, each of which has been staged before. stage, compute: of a start, a size and a
    buffer; compute with what stages the next piece."""
    full, rest = divmod(total, step)
    pieces = full + bool(rest)

    def one(piece: Index, now: int, then: int, buffer: int) -> None:
        following = stage((piece + 1) * step, then, (buffer + 1) % ring) if then else None
        compute(piece * step, now, buffer, following)

    rounds = max(0, full - 1) // ring
    if rounds > 1:
        with kernel.loop(rounds) as index:
            for buffer in range(ring):
                one(index * ring + buffer, step, step, buffer)
    for piece in range(rounds * ring if rounds > 1 else 0, pieces):
        size = [step if number < full else rest if number < pieces else 0 for number in (piece, piece + 1)]
        one(piece, size[0], size[1], piece % ring)
