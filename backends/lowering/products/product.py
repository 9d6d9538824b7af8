"""Matrix products where tiles rotate, as `plan` cuts them: the left operand stays, the right one streams past it.

What comes in is one block of rows ahead of what is computed. An operand whose rows are contiguous along k is loaded as it lies
and turned by the tensor engine: the left one once a block, before its products; the right one as it streams by (`turning`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.halo import blocked
from nxcc.backends.lowering.products.operands import Depth, bring, depth_of, turns
from nxcc.backends.lowering.products.plan import ALIKE_FROM, RESULTS, Plan, Product, machine, plan, ruled_plan
from nxcc.backends.lowering.products.spans import Span, loop
from nxcc.backends.lowering.products.turning import Turning, load_rows, tile_rows, tiles_of
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
        with loop(kernel, self.count) as index:
            yield shifted(left, self.left, index), shifted(right, self.right, index), shifted(out, self.out, index)


ONCE = Batch()


def planned(kernel: Kernel, left: View, right: View, out: View, dtype: DType, batch: Batch) -> tuple[Plan, Product] | None:
    """The plan for this part of the machine; None if nothing fits into it, CompileError(OUT_OF_MEMORY) if the whole machine
    would be quicker by more than what a neighbour could hide, if there is one."""
    depth = depth_of(kernel, (left.sizes[1], left.sizes[2]))
    product = Product(left.sizes[0], right.sizes[0], depth.total, depth.unit, batch.count, dtype.byte_size, out.dtype.byte_size,
                      _run(left) * dtype.byte_size, _run(right) * dtype.byte_size, _run(out) * out.dtype.byte_size,
                      turns(kernel, left), turns(kernel, right))
    on = machine(kernel.target, "tf32" if kernel.tf32 and dtype is F32 else dtype.name)
    if kernel.level == 1:
        found = ruled_plan(product, on, kernel.sbuf_free_bytes, kernel.room.psum_banks)
        return None if found is None else (found, product)
    found = plan(product, on, kernel.sbuf_free_bytes, kernel.room.psum_banks, kernel.alone)
    whole = kernel.whole
    larger = plan(product, on, whole.sbuf_bytes, whole.psum_banks, kernel.alone) if kernel.room != whole else None
    if _gains(found, larger, kernel.alone):
        raise CompileError(OUT_OF_MEMORY, f"{kernel.program.name} is quicker with the whole machine")
    if kernel.level > 2:
        # It writes products itself, and needs what a compile without it does not load.
        from nxcc.backends.lowering.products.trial import quickest
        found = quickest(kernel, (left, right, out), dtype, batch, product, on)
    return None if found is None else (found, product)


def _gains(half: Plan | None, whole: Plan | None, alone: bool) -> bool:
    if whole is None:
        return False
    return alone or half is None or half.seconds - half.exposed > whole.seconds


def _run(view: View) -> int:
    """Elements that lie one after another, at most."""
    longest, unit = 1, view.dtype.byte_size
    for stride, size in sorted(view.dims):
        if size > 1 and stride == unit * longest:
            longest *= size
    return longest


class Multiplication:
    """out[m, n] = sum over k of left[m, k outer, k inner] * right[n, k outer, k inner], by a plan.

    The code is as long for large operands as for small ones: whatever repeats is a loop, what takes turns (tiles, sums, halves
    of the left operand) is addressed by the loops' variables, and pieces are of one size wherever that can be (`spans`).
    """

    def __init__(self, kernel: Kernel, plan: Plan, product: Product, dtype: DType) -> None:
        self.kernel, self.plan, self.product, self.dtype = kernel, plan, product, dtype
        self.lanes, self.bank = kernel.target.partitions, kernel.target.tensor.moving_max
        self.rows, self.cuts = plan.row_spans(product), plan.column_spans(product)
        # Products large enough for it have the same code, whatever their loops count.
        self.always = min(product.rows, product.columns, product.depth) >= ALIKE_FROM
        self.columns = max(span.size for span in self.cuts)
        self.engines = itertools.cycle(EVICTING)
        dma = kernel.target.dma
        # Bytes that keep a queue busy until it takes the next transfer.
        self.least_transfer = dma.issue_interval_ns / 1e9 * dma.engines * dma.bytes_per_second_per_engine
        bank = kernel.target.psum.bank_bytes // dtype.byte_size
        turning = kernel.psum((self.lanes, 2, bank), dtype) if product.right_turns else None
        self.sums = kernel.psum((self.lanes, plan.sets + plan.spare, plan.group, plan.wide, self.bank))
        self.turning = Turning(kernel, turning or self._turning_in_sums(bank), EVICTING, self.always)

    def _turning_in_sums(self, bank: int) -> Access:
        """The banks of sums, four of them if there are: the left operand is turned before its products."""
        banks = self.plan.sets * self.plan.group * self.plan.wide
        return replace(self.sums, dtype=self.dtype, dims=((bank, min(4, banks)), (1, bank)))

    def run(self, left: View, right: View, out: View, batch: Batch) -> None:
        """All products of a batch; a block of rows is loaded while the one before is multiplied."""
        kernel, product, plan = self.kernel, self.product, self.plan
        depth = depth_of(kernel, (left.sizes[1], left.sizes[2]))
        rows = max(span.size for span in self.rows)
        pieces = sum(span.count for span in self.rows)
        across = batch.count > 1 and pieces == 1
        ring = 1 if product.left_turns or (pieces == 1 and not across) else 2
        unit, lanes = min(depth.unit, depth.total), self.lanes
        resident = kernel.sbuf((unit, ring, depth.blocks, rows), self.dtype)
        raw = kernel.sbuf((min(lanes, rows), plan.tiles(rows), depth.total), self.dtype) if product.left_turns else None
        chunk = min(plan.chunk, depth.blocks)
        tiles = plan.right_tiles(product)
        self.moving = kernel.sbuf((unit, tiles, chunk, self.columns), self.dtype)
        if product.right_turns:
            raw_tile = -(-self.columns // lanes), min(chunk * depth.unit, depth.total)
            self.raw_moving = kernel.sbuf((min(lanes, self.columns), tiles, *raw_tile), self.dtype)
        stored = RESULTS + plan.spare, min(plan.group, plan.tiles(rows)), self.columns
        self.results = kernel.sbuf((min(lanes, rows), *stored), out.dtype)
        blocks = _Blocks(kernel, left, depth, resident, raw, ring, Engine.SYNC if across else STAGING)
        if across:
            (span,) = self.rows
            for at, _, turn in _pieces(kernel, batch.count, 1, RESULTS):
                blocks.stage(shifted(left, batch.left, at), turn, span.size)(0, depth.total)
                self._block(self._resident(blocks, turn, span.size), shifted(right, batch.right, at),
                            shifted(out, batch.out, at), depth, turn, ())
            return
        with loop(kernel, batch.count) as at:
            self._blocks(replace(blocks, left=shifted(left, batch.left, at)), shifted(right, batch.right, at),
                         shifted(out, batch.out, at))

    def _blocks(self, blocks: _Blocks, right: View, out: View) -> None:
        """All blocks of rows, each of which has been brought before: all of one size in a loop, whose last turn brings the
        first of the next size or nothing."""
        kernel, depth = self.kernel, blocks.depth

        def stage(m: Index, rows: int, buffer: Index) -> Stage:
            return blocks.stage(blocks.left.cut(0, m, rows), buffer, rows)

        stage(0, self.rows[0].size, 0)(0, depth.total)
        before = 0
        for span, following in zip(self.rows, (*self.rows[1:], None), strict=True):
            last = span.count - 1
            with loop(kernel, span.count, always=self.always) as index:
                turn: Index = kernel.scalar("modulo", index, 2, 0, 1) if last else before % 2
                then: list[tuple[Stage, Expr | None]] = []
                if last:
                    # The address stays inside the operand in the last turn as well, where nothing is brought.
                    at = span.at(kernel.scalar("minimum", index + 1, last, 1, last))
                    then.append((stage(at, span.size, turn * -1 + 1), kernel.scalar("less", index, last, 0, 1)))
                if following is not None:
                    then.append((stage(following.start, following.size, turn * -1 + 1),
                                 kernel.scalar("equal", index, last, 0, 1) if last else None))
                self._block(self._resident(blocks, turn, span.size), right, out.cut(0, span.at(index), span.size), depth, turn,
                            then)
            before += span.count

    def _resident(self, blocks: _Blocks, turn: Index, rows: int) -> Access:
        """The left operand [unit, blocks, rows], turned if it has to be."""
        if blocks.raw is not None:
            self.turning.turn(blocks.raw, blocks.resident.at(0, 0), blocks.depth, blocks.depth.total, rows)
        return blocks.resident.at(0, turn if blocks.ring > 1 else 0).cut(1, 0, rows)

    # ---- a block of rows ------------------------------------------------------------------------------------------------

    def _block(self, left: Access, right: View, out: View, depth: Depth, turn: Index, then: Following) -> None:
        """out [rows, n] from a left operand [unit, blocks, rows] that stays.

        turn: 0 or 1, from block to block. then: brings the next rows meanwhile.
        """
        plan, rows = self.plan, left.sizes[-1]
        alone = sum(span.count for span in self.cuts) == 1
        height = tile_rows(self.kernel, rows)
        group = plan.group * height
        for n, span, number in self._column_tiles(depth, then):
            slot = turn if alone else number
            matrix, place = right.cut(0, n, span.size), out.cut(1, n, span.step if span.count > 1 else span.size)
            if not plan.whole(self.product):
                self._stream(left, matrix, place, depth, slot)
                continue
            moving = self._moving(matrix, depth, 0, depth.total, slot)
            for g, size, at in _pieces(self.kernel, rows, group, RESULTS, plan.spare):
                sums = self._sums(slot if rows <= group else at, size, span.size, height)
                self._multiply(left.cut(1, g, size), 0, moving, depth, depth.total, sums)
                self._leave(sums, place.cut(0, g, size), slot if rows <= group else at, height)
        for span in self.cuts:
            if span.again:
                # The last piece alone has more columns than are stored on the way.
                self._store(out.cut(1, span.end - span.again, span.again), expr((span.count - 1) % RESULTS), height, span.step)

    def _column_tiles(self, depth: Depth, then: Following) -> Iterator[tuple[Expr, Span, Index]]:
        """The columns in tiles; the next rows come in parts between them, so that nothing waits long behind one."""
        kernel, first = self.kernel, self.cuts[0]
        rounds = first.count // RESULTS
        parts = max((d for d in range(1, rounds + 1) if depth.blocks % d == 0 and (d == 1 or depth.total % depth.unit == 0)),
                    default=1) if then else 1
        if parts == 1 and not (self.always and rounds):
            _bring(kernel, then, 0, depth.total, None)
            yield from _tiles(kernel, self.cuts)
            return
        part = depth.total // parts
        with loop(kernel, rounds, always=self.always) as index:
            few = parts < rounds
            place = kernel.scalar("minimum", index, parts - 1, 0, parts - 1) if few else index
            _bring(kernel, then, place * part, part, kernel.scalar("less", index, parts, 0, 1) if few else None)
            with loop(kernel, RESULTS, slots=True) as slot:
                yield first.at(index * RESULTS + slot), first, slot
        left = Span(first.at(rounds * RESULTS).constant, first.count - rounds * RESULTS, first.step, first.size)
        yield from _tiles(kernel, (left,) * bool(left.count) + self.cuts[1:])

    def _stream(self, left: Access, matrix: View, out: View, depth: Depth, slot: Index) -> None:
        """One group of rows and the columns of one set of sums; the right operand comes in chunks of k."""
        rows, columns = left.sizes[-1], matrix.sizes[0]
        height = tile_rows(self.kernel, rows)
        sums = self._sums(slot, rows, columns, height)
        chunks, rest = self.plan.chunks(self.product)
        ring = self.plan.ring
        # Fewer chunks than the ring has tiles: those of two tiles of columns take turns.
        first: Index = slot * (chunks + rest) if chunks < ring else 0
        written = columns * min(self.plan.chunk * depth.unit, depth.total) * self.dtype.byte_size < self.least_transfer
        for k, size, turn in _pieces(self.kernel, depth.total, self.plan.chunk * depth.unit, ring, ring, written, self.always):
            self._multiply(left, k, self._moving(matrix, depth, k, size, first + turn), depth, size, sums)
        self._leave(sums, out, slot, height)

    def _sums(self, slot: Index, rows: int, columns: int, height: int) -> list[list[Access]]:
        """A set: for each tile of rows its banks."""
        banks = self.sums.at(0, slot if self.plan.sets > 1 else 0)
        return [[banks.at(0, number).at(0, place).rows(0, min(height, rows - start)).cut(0, 0, min(self.bank, columns - at))
                 for place, at in enumerate(range(0, columns, self.bank))]
                for number, start in enumerate(range(0, rows, height))]

    def _moving(self, matrix: View, depth: Depth, k: Index, size: int, tile: Index) -> Access:
        """The right operand [unit, blocks, columns] from k on, in a tile of this number."""
        columns = matrix.sizes[0]
        place = self.moving.at(0, tile).rows(0, min(depth.unit, size)).cut(0, 0, -(-size // depth.unit)).cut(1, 0, columns)
        if not self.product.right_turns:
            bring(self.kernel, matrix, depth, k, size, place, None)
            return place
        raw = self.raw_moving.at(0, tile).cut(1, 0, size)
        load_rows(self.kernel, matrix.cut(1, blocked(k, depth.inner), size // depth.inner), raw, columns)
        self.turning.turn(raw, place, depth, size, columns)
        return place

    def _multiply(self, left: Access, k: Index, moving: Access, depth: Depth, size: int, sums: list[list[Access]]) -> None:
        """Add the products of `size` elements of k; those of k = 0 open the sums."""
        first = blocked(k, depth.unit)
        full, rest = divmod(size, depth.unit)
        if full:
            with loop(self.kernel, full, always=self.always) as block:
                self._pass(left.at(0, first + block), moving.at(0, block), depth.unit, sums, first + block)
        if rest:
            self._pass(left.at(0, first + full), moving.at(0, full), rest, sums, first + full)

    def _pass(self, left: Access, moving: Access, part: int, sums: list[list[Access]], turn: Expr) -> None:
        """Products of one block of k; turn: which of them it is."""
        start = 0
        for row in sums:
            for place, bank in enumerate(row):
                self.kernel.matmul(bank, left.rows(0, part).cut(0, start, bank.partitions),
                                   moving.rows(0, part).cut(0, place * self.bank, bank.free), accumulate=turn)
            start += row[0].partitions

    def _leave(self, sums: list[list[Access]], out: View, slot: Index, height: int) -> None:
        """Store sums with the result's dtype, as many columns as the result has here."""
        tile = self.results.at(0, slot)
        for number, row in enumerate(sums):
            for place, bank in enumerate(row):
                self.kernel.copy(tile.at(0, number).rows(0, bank.partitions).cut(0, place * self.bank, bank.free), bank,
                                 next(self.engines))
        self._store(out, slot, height, 0)

    def _store(self, out: View, slot: Index, height: int, column: int) -> None:
        """One transfer for all whole tiles of rows, from a column on."""
        rows, columns = out.sizes
        for start, count, tiles in tiles_of(rows, height):
            stored = self.results.at(0, slot).cut(0, start // height, tiles).cut(1, column, columns).rows(0, count)
            (stride, _), dims = out.dims
            target = replace(out.cut(0, start, count * tiles), dims=((stride, count), (stride * count, tiles), dims))
            self.kernel.dma(target, stored.linear())


EVICTING = (Engine.VECTOR, Engine.SCALAR)
"""Engines that empty PSUM, in turns."""

STAGING = Engine.SCALAR
"""Whose queue loads the next rows: what waits for the tiles of the right operand must not wait behind them."""

Stage = Callable[[Index, int], None]
"""stage(k, size): bring so much of the depth of a block of rows, from k on."""

Following = Sequence[tuple[Stage, Expr | None]]
"""What brings the next block of rows, and where: of one size each, all of them or none being there."""


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Where blocks of rows of the left operand come from and where they go: `resident` [unit, ring, blocks, rows], by way of
    `raw` [128, tiles, k] if they are turned."""

    kernel: Kernel
    left: View
    depth: Depth
    resident: Access
    raw: Access | None
    ring: int
    engine: Engine

    def stage(self, block: View, buffer: Index, rows: int) -> Stage:
        """What brings a block."""
        depth = self.depth

        def bring_part(k: Index, size: int) -> None:
            if self.raw is not None:
                part = block.cut(1, blocked(k, depth.inner), size // depth.inner)
                load_rows(self.kernel, part, self.raw.cut(1, k, size), rows, self.engine)
            else:
                place = self.resident.at(0, buffer if self.ring > 1 else 0).cut(1, 0, rows)
                bring(self.kernel, block, depth, k, size, place.cut(0, blocked(k, depth.unit), -(-size // depth.unit)), None,
                      self.engine)
        return bring_part


def _bring(kernel: Kernel, then: Following, k: Index, size: int, where: Expr | None) -> None:
    """A part of the next rows. where: see Kernel.where."""
    with kernel.where(where) if where is not None else nullcontext():
        for stage, this in then:
            with kernel.where(this) if this is not None else nullcontext():
                stage(k, size)


def shifted(view: View, stride: int, index: Index) -> View:
    return replace(view, address=view.address + expr(index) * stride)


def _tiles(kernel: Kernel, spans: Sequence[Span]) -> Iterator[tuple[Expr, Span, Index]]:
    """All pieces of some spans: (start, span, slot), two slots taking turns."""
    for span in spans:
        rounds, single = divmod(span.count, RESULTS)
        if rounds:
            with loop(kernel, rounds) as index, loop(kernel, RESULTS, slots=True) as slot:
                yield span.at(index * RESULTS + slot), span, slot
        if single:
            yield span.at(rounds * RESULTS), span, 0


def _pieces(kernel: Kernel, total: int, step: int, slots: int, spare: int = 0,
            written: bool = False, always: bool = False) -> Iterator[tuple[Expr, int, Index]]:
    """Cut 0..total into pieces of `step`: (start, size, slot), the slots taking turns.

    What is left over behind whole rounds has slots of its own if no more than `spare`, so that it does not stand between two
    uses of the others; else it begins with the first slot again. written: the slots are written one by one, so that queues can
    take turns as well. always: whether there is a loop for a single round as well, and for less than one.
    """
    full, rest = divmod(total, step)
    rounds, single = divmod(full, slots)
    if always and not rounds and single > 1:
        slots, rounds, single = single, 1, 0
    tail = slots if rounds and single + bool(rest) <= spare else 0
    if rounds:
        with loop(kernel, rounds, always=always) as index:
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
        with loop(kernel, count, slots=True) as slot:
            yield slot
