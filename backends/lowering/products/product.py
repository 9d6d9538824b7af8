"""Matrix products where tiles rotate, as `plan` cuts them: the left operand stays, the right one streams past it.

What comes in is one block of rows ahead of what is computed. An operand whose rows are contiguous along k is loaded as it lies
and turned by the tensor engine: the left one once a block, before its products; the right one as it streams by.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.halo import blocked
from nxcc.backends.lowering.products.operands import Depth, bring, depth_of, turns
from nxcc.backends.lowering.products.plan import RESULTS, Machine, Plan, Product, machine, plan, ruled_plan
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.diagnostics import OUT_OF_MEMORY, CompileError
from nxcc.ir.dtypes import F32, DType
from nxcc.ir.facts import dataclass


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
    if kernel.level == 1:
        found = ruled_plan(product, on, kernel.sbuf_free_bytes, kernel.room.psum_banks)
        return None if found is None else (found, product)
    found = plan(product, on, kernel.sbuf_free_bytes, kernel.room.psum_banks)
    whole = kernel.whole
    if kernel.room != whole and _gains(found, plan(product, on, whole.sbuf_bytes, whole.psum_banks), on):
        raise CompileError(OUT_OF_MEMORY, f"{kernel.program.name} is quicker with the whole machine")
    if kernel.level > 2:
        # It writes products itself, and needs what a compile without it does not load.
        from nxcc.backends.lowering.products.trial import quickest
        found = quickest(kernel, (left, right, out), dtype, batch, product, on)
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
    """out[m, n] = sum over k of left[m, k outer, k inner] * right[n, k outer, k inner], by a plan.

    The code is as long for large operands as for small ones: whatever repeats is a loop, and what takes turns (tiles, sums,
    halves of the left operand) is addressed by the loops' variables. Only partial pieces at the ends are written again.
    """

    def __init__(self, kernel: Kernel, plan: Plan, product: Product, dtype: DType) -> None:
        self.kernel, self.plan, self.product, self.dtype = kernel, plan, product, dtype
        self.lanes, self.bank = kernel.target.partitions, kernel.target.tensor.moving_max
        self.columns = min(plan.wide * self.bank, product.columns)
        self.engines = itertools.cycle((Engine.VECTOR, Engine.SCALAR))
        dma = kernel.target.dma
        # Bytes that keep a queue busy until it takes the next transfer.
        self.least_transfer = dma.issue_interval_ns / 1e9 * dma.engines * dma.bytes_per_second_per_engine
        turning = kernel.psum((self.lanes, 2, self._bank_of(dtype)), dtype) if product.right_turns else None
        self.sums = kernel.psum((self.lanes, plan.sets + plan.spare, plan.group, plan.wide, self.bank))
        self.turning = turning or self._turning_in_sums()

    def _bank_of(self, dtype: DType) -> int:
        return self.kernel.target.psum.bank_bytes // dtype.byte_size

    def _turning_in_sums(self) -> Access:
        """The banks of sums, four of them if there are: the left operand is turned before its products."""
        banks = self.plan.sets * self.plan.group * self.plan.wide
        bank = self._bank_of(self.dtype)
        return replace(self.sums, dtype=self.dtype, dims=((bank, min(4, banks)), (1, bank)))

    def run(self, left: View, right: View, out: View, batch: Batch) -> None:
        """All products of a batch; a block of rows is loaded while the one before is multiplied."""
        kernel, product, plan = self.kernel, self.product, self.plan
        depth = depth_of(kernel, (left.sizes[1], left.sizes[2]))
        rows = min(plan.rows, product.rows)
        pieces = -(-product.rows // rows)
        across = batch.count > 1 and pieces == 1
        ring = 1 if product.left_turns or (pieces == 1 and not across) else 2
        engine = Engine.SYNC if across else STAGING
        unit, lanes = min(depth.unit, depth.total), self.lanes
        resident = kernel.sbuf((unit, ring, depth.blocks, rows), self.dtype)
        raw = kernel.sbuf((min(lanes, rows), -(-rows // lanes), depth.total), self.dtype) if product.left_turns else None
        chunk = min(plan.chunk, depth.blocks)
        tiles = plan.tiles(product)
        self.moving = kernel.sbuf((unit, tiles, chunk, self.columns), self.dtype)
        if product.right_turns:
            raw_tile = -(-self.columns // lanes), min(chunk * depth.unit, depth.total)
            self.raw_moving = kernel.sbuf((min(lanes, self.columns), tiles, *raw_tile), self.dtype)
        stored = RESULTS + plan.spare, min(plan.group, -(-rows // lanes)), self.columns
        self.results = kernel.sbuf((min(lanes, rows), *stored), out.dtype)

        def stage(one: Batch, at: Index, m: Index, rows: int, buffer: Index) -> Stage:
            block = _shifted(left, one.left, at).cut(0, m, rows)

            def bring_part(k: Index, size: int) -> None:
                if raw is not None:
                    part = block.cut(1, blocked(k, depth.inner), size // depth.inner)
                    self._load_rows(part, raw.cut(1, k, size), rows, engine)
                else:
                    place = resident.at(0, buffer).cut(0, blocked(k, depth.unit), -(-size // depth.unit)).cut(1, 0, rows)
                    bring(kernel, block, depth, k, size, place, None, engine)
            return bring_part

        def compute(one: Batch, at: Index, m: Index, rows: int, turn: Index, then: Stage | None) -> None:
            if raw is not None:
                self._turn_rows(raw, resident.at(0, 0), depth, depth.total, rows)
            self._block(resident.at(0, turn if ring > 1 else 0).cut(1, 0, rows), _shifted(right, one.right, at),
                        _shifted(out, one.out, at).cut(0, m, rows), depth, turn, then)

        if across:
            for at, _, turn in _pieces(kernel, batch.count, 1, RESULTS):
                stage(batch, at, 0, rows, turn if ring > 1 else 0)(0, depth.total)
                compute(batch, at, 0, rows, turn, None)
            return
        with _loop(kernel, batch.count) as at:
            stage(batch, at, 0, rows, 0)(0, depth.total)
            _ahead(kernel, product.rows, rows, lambda m, size, turn: stage(batch, at, m, size, turn if ring > 1 else 0),
                   lambda m, size, turn, then: compute(batch, at, m, size, turn, then))

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

    def _turn_rows(self, raw: Access, out: Access, depth: Depth, size: int, rows: int) -> None:
        """out [unit, blocks, rows] = raw [128, tiles, k] turned, as many blocks of k at once as a bank holds.

        Banks take turns from group to group of blocks or, where there is one group, from tile to tile.
        """
        for start, count, tiles in _tiles_of(rows, self.lanes):
            at_once = max(1, self._bank_of(self.dtype) // count)
            single = size // depth.unit <= at_once
            banks = self.turning.dims[0][1] if single else 1
            for tile, _, number in _pieces(self.kernel, tiles, 1, banks, written=True):
                self._turn(raw.at(0, tile + start // self.lanes).rows(0, count), out.cut(1, tile * self.lanes + start, count),
                           depth, size, number if single else None)

    def _turn(self, raw: Access, out: Access, depth: Depth, size: int, number: Index | None) -> None:
        """out [unit, blocks, rows] = raw [rows, k] turned; number: of the bank, if one is enough."""
        rows = raw.partitions
        at_once = max(1, self._bank_of(self.dtype) // rows)
        full, rest = divmod(size, depth.unit)
        banks = self.turning.dims[0][1] if number is None else 1
        for b, count, turn in _pieces(self.kernel, full, at_once, banks, written=True):
            bank = self.turning.at(0, turn if number is None else number)
            bank = bank.rows(0, depth.unit).cut(0, 0, count * rows).reshape(count, rows)
            with _loop(self.kernel, count) as one:
                self.kernel.pe_transpose(bank.at(0, one), raw.cut(0, (b + one) * depth.unit, depth.unit))
            self.kernel.copy(out.cut(0, b, count).rows(0, depth.unit), bank, next(self.engines))
        if rest:
            bank = self.turning.at(0, number or 0).rows(0, rest).cut(0, 0, rows)
            self.kernel.pe_transpose(bank, raw.cut(0, full * depth.unit, rest))
            self.kernel.copy(out.at(0, full).rows(0, rest), bank, next(self.engines))

    # ---- a block of rows ------------------------------------------------------------------------------------------------

    def _block(self, left: Access, right: View, out: View, depth: Depth, turn: Index, then: Stage | None) -> None:
        """out [rows, n] from a left operand [unit, blocks, rows] that stays.

        turn: 0 or 1, from block to block. then: brings the next rows meanwhile.
        """
        kernel, plan, alone = self.kernel, self.plan, right.sizes[0] <= self.columns
        for n, columns, number in self._column_tiles(right.sizes[0], depth, then):
            slot = turn if alone else number
            matrix, place = right.cut(0, n, columns), out.cut(1, n, columns)
            if not plan.whole(self.product):
                self._stream(left, matrix, place, depth, slot)
                continue
            moving = self._moving(matrix, depth, 0, depth.total, slot)
            group = plan.group * self.lanes
            for g, rows, at in _pieces(kernel, left.sizes[-1], group, RESULTS, plan.spare):
                sums = self._sums(slot if left.sizes[-1] <= group else at, rows, columns)
                self._multiply(left.cut(1, g, rows), 0, moving, depth, depth.total, sums)
                self._leave(sums, place.cut(0, g, rows), slot if left.sizes[-1] <= group else at)

    def _column_tiles(self, total: int, depth: Depth, then: Stage | None) -> Iterator[tuple[Expr, int, Index]]:
        """The columns in tiles; the next rows come in parts between them, so that nothing waits long behind one."""
        turns, spare = total // self.columns // RESULTS, self.plan.spare and not self.plan.whole(self.product)
        parts = 1
        if then is not None:
            parts = max((d for d in range(1, turns + 1) if turns % d == 0 and depth.blocks % d == 0
                         and (d == 1 or depth.total % depth.unit == 0)), default=1)
            if parts == 1:
                then(0, depth.total)
        if parts == 1:
            yield from _pieces(self.kernel, total, self.columns, RESULTS, spare)
            return
        assert then is not None
        step, part = turns // parts * RESULTS * self.columns, depth.total // parts
        with self.kernel.loop(parts) as index:
            then(index * part, part)
            for n, columns, slot in _pieces(self.kernel, step, self.columns, RESULTS):
                yield index * step + n, columns, slot
        for n, columns, slot in _pieces(self.kernel, total - parts * step, self.columns, RESULTS):
            yield n + parts * step, columns, slot + RESULTS * (spare and total - parts * step <= self.columns)

    def _stream(self, left: Access, matrix: View, out: View, depth: Depth, slot: Index) -> None:
        """One group of rows and the columns of one set of sums; the right operand comes in chunks of k."""
        sums = self._sums(slot, left.sizes[-1], matrix.sizes[0])
        chunks, rest = self.plan.chunks(self.product)
        ring = self.plan.ring
        # Fewer chunks than the ring has tiles: those of two tiles of columns take turns.
        first: Index = slot * (chunks + rest) if chunks < ring else 0
        written = matrix.sizes[0] * min(self.plan.chunk * depth.unit, depth.total) * self.dtype.byte_size < self.least_transfer
        for k, size, turn in _pieces(self.kernel, depth.total, self.plan.chunk * depth.unit, ring, ring, written):
            self._multiply(left, k, self._moving(matrix, depth, k, size, first + turn), depth, size, sums)
        self._leave(sums, out, slot)

    def _sums(self, slot: Index, rows: int, columns: int) -> list[list[Access]]:
        """A set: for each tile of rows its banks."""
        banks = self.sums.at(0, slot if self.plan.sets > 1 else 0)
        return [[banks.at(0, number).at(0, place).rows(0, min(self.lanes, rows - start)).cut(0, 0, min(self.bank, columns - at))
                 for place, at in enumerate(range(0, columns, self.bank))]
                for number, start in enumerate(range(0, rows, self.lanes))]

    def _moving(self, matrix: View, depth: Depth, k: Index, size: int, tile: Index) -> Access:
        """The right operand [unit, blocks, columns] from k on, in a tile of this number."""
        columns = matrix.sizes[0]
        place = self.moving.at(0, tile).rows(0, min(depth.unit, size)).cut(0, 0, -(-size // depth.unit)).cut(1, 0, columns)
        if not self.product.right_turns:
            bring(self.kernel, matrix, depth, k, size, place, None)
            return place
        raw = self.raw_moving.at(0, tile).cut(1, 0, size)
        self._load_rows(matrix.cut(1, blocked(k, depth.inner), size // depth.inner), raw, columns)
        self._turn_rows(raw, place, depth, size, columns)
        return place

    def _multiply(self, left: Access, k: Index, moving: Access, depth: Depth, size: int, sums: list[list[Access]]) -> None:
        """Add the products of `size` elements of k; those of k = 0 open the sums."""
        first = blocked(k, depth.unit)
        full, rest = divmod(size, depth.unit)
        if full:
            with _loop(self.kernel, full) as block:
                self._pass(left.at(0, first + block), moving.at(0, block), depth.unit, sums, first + block)
        if rest:
            self._pass(left.at(0, first + full), moving.at(0, full), rest, sums, first + full)

    def _pass(self, left: Access, moving: Access, part: int, sums: list[list[Access]], turn: Expr) -> None:
        """Products of one block of k; turn: which of them it is."""
        for number, row in enumerate(sums):
            for place, bank in enumerate(row):
                self.kernel.matmul(bank, left.rows(0, part).cut(0, number * self.lanes, bank.partitions),
                                   moving.rows(0, part).cut(0, place * self.bank, bank.free), accumulate=turn)

    def _leave(self, sums: list[list[Access]], out: View, slot: Index) -> None:
        """Store sums with the result's dtype: one transfer for all whole tiles of rows."""
        tile = self.results.at(0, slot)
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
def _loop(kernel: Kernel, count: int, slots: bool = False) -> Iterator[Expr]:
    """A loop, or nothing around a single run."""
    if count == 1:
        yield Expr()
        return
    with kernel.loop(count, slots) as index:
        yield index


Stage = Callable[[Index, int], None]
"""stage(k, size): bring so much of the depth of a block of rows, from k on."""


def _ahead(kernel: Kernel, total: int, step: int, stage: Callable[[Index, int, Index], Stage],
           compute: Callable[[Index, int, Index, Stage | None], None]) -> None:
    """Cut 0..total into pieces of `step`, each of which has been staged before. stage, compute: of a start, a size and 0 or 1
    in turns; compute with what stages the next piece."""
    full, rest = divmod(total, step)

    def one(piece: Index, turn: Index, now: int, then: int) -> None:
        following = stage((piece + 1) * step, then, turn * -1 + 1) if then else None
        compute(piece * step, now, turn, following)

    if full > 1:
        with _loop(kernel, full - 1) as index:
            one(index, kernel.scalar("modulo", index, 2, 0, 1) if full > 2 else 0, step, step)
    last = [(full - 1, step, rest)] * bool(full) + [(full, rest, 0)] * bool(rest)
    for piece, now, then in last:
        one(piece, piece % 2, now, then)


def _copies(kernel: Kernel, total: int, step: int, copies: int) -> Iterator[tuple[Expr, int, int]]:
    """As _pieces, the slots written one by one, so that engines can take turns as well."""
    full, rest = divmod(total, step)
    rounds, single = divmod(full, copies)
    if rounds:
        with _loop(kernel, rounds) as index:
            for copy in range(copies):
                yield index * (copies * step) + copy * step, step, copy
    for copy in range(single):
        yield expr((rounds * copies + copy) * step), step, copy
    if rest:
        yield expr(full * step), rest, single


def _pieces(kernel: Kernel, total: int, step: int, slots: int, spare: int = 0,
            written: bool = False) -> Iterator[tuple[Expr, int, Index]]:
    """Cut 0..total into pieces of `step`: (start, size, slot), the slots taking turns.

    What is left over behind whole rounds has slots of its own if no more than `spare`, so that it does not stand between two
    uses of the others; else it begins with the first slot again. written: the slots are written one by one, so that engines or
    queues can take turns as well.
    """
    full, rest = divmod(total, step)
    rounds, single = divmod(full, slots)
    tail = slots if rounds and single + bool(rest) <= spare else 0
    if rounds:
        with _loop(kernel, rounds) as index:
            for slot in _slots(kernel, slots, written):
                yield (index * slots + slot) * step, step, slot
    for slot in _slots(kernel, single, written):
        yield (slot + rounds * slots) * step, step, slot + tail
    if rest:
        yield expr(full * step), rest, single + tail


def _slots(kernel: Kernel, count: int, written: bool) -> Iterator[Expr]:
    if written:
        yield from map(expr, range(count))
    elif count:
        with _loop(kernel, count, slots=True) as slot:
            yield slot
