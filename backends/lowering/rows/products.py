"""Products of row programs: what is multiplied lies on the chip with the summed dimension k on partitions.

A left side is loaded as it lies, rows on partitions, and turned by the tensor engine; so is a matrix whose neighbours lie along
k. Any other matrix is loaded as it lies. Either stays for all rows that use it, so that weights are read once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.tiling import unfolded
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass

TRANSFER_BYTES = 1 << 18
"""Bytes of one transfer of a matrix: products begin with the first, and none is too short for the bandwidth."""

TRANSFERS_MAX = 10
"""Transfers of one matrix at most: each takes a semaphore."""

TRANSFERS_BESIDE = 96
"""Transfers of all matrices of a line, about, at most: the rest of half the semaphores is for what else is moved."""

AHEAD_MARGIN = 1.1
"""Bytes of matrices that wait for the DMA engines at once: as many as are moved from a transfer's end until the one that it
lets start begins, and so much more. What else is to be moved must not stand behind more of them."""

RAWS_BESIDE = 3
"""Tiles of columns of a turned matrix that are loaded side by side; more are looped over, two at a time."""

BLOCKS_BESIDE = 4
"""Blocks of a group that are written one after the other when several groups are turned; more are looped over."""

SPREAD_BYTES = 1 << 16
"""Bytes from which a row is repeated on all partitions by the tensor engine and not by the transfer."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Matrices [k, columns], one for each of `groups`, with k on partitions.

    tile: [partitions, blocks, columns]. `packed` groups lie in one block, below each other, if their k divides the
    partitions; else each has blocks of its own, which follow each other or are `step` blocks apart, with those of other groups
    between. parts: numbers of blocks that came with one transfer each, in order.
    """

    tile: Access
    depth: int
    lanes: int
    packed: int = 1
    parts: tuple[int, ...] = ()
    step: int = 1

    @property
    def blocks(self) -> int:
        """Blocks of a group, the last of them perhaps not full."""
        return -(-self.depth // self.lanes)

    @property
    def columns(self) -> int:
        return self.tile.sizes[-1]

    def block(self, group: int, number: Index) -> Access:
        """[k, columns] of a full block of a group."""
        return self._rows(group, number, min(self.depth, self.lanes))

    def rest(self, group: int) -> Access | None:
        """The last block, if it is not full."""
        size = self.depth % self.lanes
        return self._rows(group, self.blocks - 1, size) if size and self.blocks > 1 else None

    @property
    def full(self) -> int:
        """Full blocks of a group; the only one counts."""
        return max(1, self.depth // self.lanes)

    def of(self, start: Index) -> Sides:
        """The groups from `start` on, a multiple of those that share a block."""
        first = expr(start)
        blocks = Expr(first.constant // self.packed, tuple((s, c // self.packed) for s, c in first.terms)) \
            if self.packed > 1 else first * self._pitch
        return replace(self, tile=self.tile.cut(0, blocks, self.tile.sizes[1]))

    def _rows(self, group: int, number: Index, size: int) -> Access:
        if self.packed > 1:
            place = group % self.packed * self.depth
            return self.tile.at(0, group // self.packed).rows(place, size)
        return self.tile.at(0, expr(number) * self.step + group * self._pitch).rows(0, size)

    @property
    def _pitch(self) -> int:
        """Blocks from one group's to the next's."""
        return 1 if self.step > 1 else self.blocks


def sides(kernel: Kernel, depth: int, groups: int, columns: int, dtype: DType, packs: bool) -> Sides:
    """Room for matrices [depth, columns]. packs: whether groups of small depth may share the partitions."""
    lanes = kernel.target.partitions
    packed = lanes // depth if packs and groups > 1 and lanes % depth == 0 and depth % 32 == 0 else 1
    blocks = -(-groups // packed) if packed > 1 else groups * -(-depth // lanes)
    partitions = min(lanes, depth * min(packed, groups))
    return Sides(kernel.sbuf((partitions, blocks, columns), dtype), depth, lanes, packed)


def sides_bytes(depth: int, columns: int, dtype: DType, lanes: int) -> int:
    """Bytes a partition that one matrix takes."""
    return -(-depth // lanes) * columns * dtype.byte_size


def turn(kernel: Kernel, raw: Access, to: Sides, column: Index = 0, scale: float = 1.0) -> None:
    """Columns from `column` of `to` = raw [rows, groups, k] turned, times a power of two.

    Where groups share blocks, or k fills its blocks, rows are cut into blocks as if they had one long k. Few blocks of several
    groups are turned side by side.
    """
    rows, groups, depth = raw.sizes
    if groups > 1 and to.packed == 1 and depth % to.lanes and to.blocks <= BLOCKS_BESIDE:
        _turn_beside(kernel, raw, to, column, scale)
        return
    if to.packed > 1 or depth % to.lanes == 0:
        with kernel.scope():
            run = raw.flat()
            if len(run.dims) > 1:  # one number repeated along k does not lie as a run
                spread = kernel.sbuf(raw.sizes, raw.dtype)
                kernel.copy(spread, raw)
                run = spread.flat()
            _turn_run(kernel, run, to.tile, column, rows, scale)
        return
    for group in range(groups):
        tile = to.tile.cut(0, group * to.blocks, to.blocks)
        _turn_run(kernel, raw.at(0, group), tile, column, rows, scale)


def _turn_run(kernel: Kernel, raw: Access, tile: Access, column: Index, rows: int, scale: float) -> None:
    """Blocks of `tile` = raw [rows, k] in pieces of as many k as there are partitions; a bank of PSUM takes several.

    Two banks take turns, so that the tensor engine fills one while the other is emptied.
    """
    lanes = kernel.target.partitions
    full, rest = divmod(raw.free, lanes)
    per = max(1, min(kernel.target.psum.bank_bytes // (rows * raw.dtype.byte_size), (full + 1) // 2))
    place = tile.cut(1, column, rows)
    with kernel.scope():
        turns = max(1, min(2, full, kernel.psum_free_banks))
        banks = itertools.cycle([kernel.psum((lanes, per, rows), raw.dtype) for _ in range(turns)]) if full else iter(())
        for start, count in kernel.tiles(full, per, turns=turns):
            bank = next(banks).cut(0, 0, count)
            for number in range(count):
                kernel.pe_transpose(bank.at(0, number), raw.cut(0, (start + number) * lanes, lanes))
            kernel.activation(place.cut(0, start, count), bank, scale=scale)
    if rest:
        with kernel.scope():
            bank = kernel.psum((rest, rows), raw.dtype)
            kernel.pe_transpose(bank, raw.cut(0, full * lanes, rest))
            kernel.activation(place.at(0, full).rows(0, rest), bank, scale=scale)


def _turn_beside(kernel: Kernel, raw: Access, to: Sides, column: Index, scale: float) -> None:
    """As `turn`, block by block for all groups: as many as a bank of PSUM holds leave it together, by two banks in turns."""
    rows, groups, depth = raw.sizes
    place = to.tile.reshape(groups, to.blocks, to.columns).cut(2, column, rows)
    per = min(groups, kernel.target.psum.bank_bytes // (rows * raw.dtype.byte_size))
    with kernel.scope():
        count = max(1, min(2, to.blocks * -(-groups // per), kernel.psum_free_banks))
        banks = itertools.cycle([kernel.psum((min(depth, to.lanes), per, rows), raw.dtype) for _ in range(count)])
        for number, start in itertools.product(range(to.blocks), range(0, groups, per)):
            size, together = min(to.lanes, depth - number * to.lanes), min(per, groups - start)
            bank = next(banks).rows(0, size).cut(0, 0, together)
            for group in range(together):
                kernel.pe_transpose(bank.at(0, group), raw.at(0, start + group).cut(0, number * to.lanes, size))
            kernel.activation(place.cut(0, start, together).at(1, number).rows(0, size), bank, scale=scale)


def is_turned(view: View) -> bool:
    """Whether neighbours along k, not along the columns, lie together in memory. view: [groups.., k, columns]."""
    (k_stride, depth), (stride, columns) = view.dims[-2:]
    unit = view.dtype.byte_size
    return abs(stride) != unit and k_stride == unit and depth > 1 and columns > 1


def bring(kernel: Kernel, view: View, packs: bool) -> Sides:
    """Matrices [groups, k, columns] from HBM. packs: see `sides`; only turned ones are."""
    groups, depth, columns = view.sizes
    if is_turned(view):
        return _bring_turned(kernel, view, packs)
    to = replace(sides(kernel, depth, groups, columns, view.dtype, False), step=groups)
    parts = bring_blocks(kernel, view, to)
    return replace(to, parts=parts if groups == 1 else ())


def _bring_turned(kernel: Kernel, view: View, packs: bool) -> Sides:
    groups, depth, columns = view.sizes
    to = sides(kernel, depth, groups, columns, view.dtype, packs)
    rows = view.permute((2, 0, 1))
    lanes = kernel.target.partitions
    if columns <= RAWS_BESIDE * lanes:
        # not in a scope: what is loaded next would wait for these tiles' memory
        starts = range(0, columns, lanes)
        pieces = [rows.cut(0, start, min(lanes, columns - start)) for start in starts]
        raws = [kernel.sbuf(piece.sizes, piece.dtype) for piece in pieces]
        for raw, piece in zip(raws, pieces, strict=True):
            kernel.dma(raw, piece)
        for raw, start in zip(raws, starts, strict=True):
            turn(kernel, raw, to, start)
        return to
    for place, count in kernel.tiles(columns, lanes):
        raw = kernel.sbuf((count, *rows.sizes[1:]), rows.dtype)
        kernel.dma(raw, rows.cut(0, place, count))
        turn(kernel, raw, to, place)
    return to


class UnderWay:
    """Transfers of matrices: where each goes and its bytes, in order; few of them wait at once."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        dma, sequencer = kernel.target.dma, kernel.target.sequencer
        idle = dma.start_ns + dma.completion_ns + sequencer.semaphore_hop_ns + 2 * sequencer.trigger_ns
        self.ahead = AHEAD_MARGIN * idle * 1e-9 * dma.engines * dma.bytes_per_second_per_engine
        self.rows: list[tuple[Access, int]] = []
        self.transfer_bytes = TRANSFER_BYTES

    def share(self, total: int) -> None:
        """So many bytes come in no more transfers than half of the semaphores allow, so that another region fits beside."""
        self.transfer_bytes = max(TRANSFER_BYTES, -(-total // TRANSFERS_BESIDE))

    def add(self, tile: Access, size: int) -> None:
        """Let Sync start no transfer while more than enough is to come of those before; then note one of `size` bytes."""
        waiting = 0
        for number in reversed(range(len(self.rows))):
            if waiting >= self.ahead:
                self.kernel.hold(self.rows[number][0], Engine.SYNC)
                break
            waiting += self.rows[number][1]
        self.rows.append((tile, size))


def bring_blocks(kernel: Kernel, view: View, to: Sides, before: UnderWay | None = None) -> tuple[int, ...]:
    """Matrices as they lie, in a few transfers of whole blocks each; returns the blocks of each transfer of full ones.

    before: earlier transfers of other matrices; added to.
    """
    groups, depth, columns = view.sizes
    lanes, full = to.lanes, max(1, depth // to.lanes)
    height = min(depth, lanes)
    size = height * columns * view.dtype.byte_size * groups
    under_way = before or UnderWay(kernel)
    per = max(-(-full // TRANSFERS_MAX), min(full, round(under_way.transfer_bytes / max(1, size))), 1)
    per = -(-full // -(-full // per))
    parts = tuple(min(per, full - start) for start in range(0, full, per))
    split = to.tile.reshape(to.blocks, groups, columns)
    paced = kernel.copies.rotates and kernel.target.features.registers  # else weights come early, and values stay on chip
    for number, count in enumerate(parts):
        if paced:
            under_way.add(to.tile.cut(0, number * per * to.step, 1), count * size)
        source = view.cut(1, number * per * lanes, count * height)
        shaped = source.reshape((groups, count, height, columns))
        assert shaped is not None
        kernel.dma(split.cut(0, number * per, count).rows(0, height), shaped.permute((2, 1, 0, 3)))
    rest = depth - full * height
    if rest:
        kernel.dma(split.at(0, full).rows(0, rest), view.cut(1, full * lanes, rest).permute((1, 0, 2)))
    return parts


def multiply(kernel: Kernel, out: Access, left: Sides, right: Sides, group: int, rows: tuple[Index, int],
             columns: tuple[Index, int], opens: bool = True) -> None:
    """out [rows, columns] = sum over k of left[k, rows] * right[k, columns], each from a start on; sums stay in PSUM.
    opens: whether nothing of the sums is there yet.

    Blocks of k that came with different transfers are walked over one after the other, so that the first products need not
    wait for the last transfer.
    """
    width = kernel.target.tensor.moving_max
    pieces = [(start, min(width, columns[1] - start)) for start in range(0, columns[1], width)]

    def step(a: Access, b: Access, first: bool) -> None:
        stationary = a.cut(0, *rows)
        for start, size in pieces:
            kernel.matmul(out.cut(0, start, size), stationary, b.cut(0, expr(columns[0]) + start, size),
                          accumulate=not (first and opens))

    start = 0
    for count in right.parts or left.parts or (left.full,):
        for number, first in _walk(kernel, count, start == 0):
            block = expr(number) + start
            step(left.block(group, block), right.block(group, block), first)
        start += count
    a, b = left.rest(group), right.rest(group)
    if a is not None and b is not None:
        step(a, b, False)


def _walk(kernel: Kernel, count: int, opening: bool) -> Iterator[tuple[Expr, bool]]:
    """Numbers 0..count, and whether it is the one that opens the sums, which stands apart from the loop over the others."""
    if opening:
        yield expr(0), True
    for number, _ in kernel.tiles(count - opening, 1):
        yield number + int(opening), False


@dataclass(frozen=True, slots=True)
class Spread:
    """A row that is to be repeated on all partitions. line: [1, columns] on the chip; ones: what the tensor engine repeats
    it with, [1, partitions]."""

    line: Access
    ones: Access

    def write(self, kernel: Kernel, tile: Access) -> None:
        """tile [partitions, columns] = the row."""
        _, columns = tile.sizes
        most = kernel.target.tensor.moving_max
        banks = itertools.cycle([kernel.psum((tile.partitions, min(columns, most)))
                                 for _ in range(max(1, min(2, -(-columns // most), kernel.psum_free_banks)))])
        for first, size in kernel.tiles(columns, most):
            bank = next(banks).cut(0, 0, size)
            kernel.matmul(bank, self.ones, self.line.cut(0, first, size), exact=True)
            kernel.copy(tile.cut(0, first, size), bank, Engine.SCALAR)


def to_spread(kernel: Kernel, row: View, lanes: int) -> Spread | None:
    """Bring a row of HBM [columns..] for `Spread`; None where a transfer repeats it as well."""
    if lanes * row.elements * row.dtype.byte_size < SPREAD_BYTES or row.dtype not in kernel.target.engines[Engine.PE].dtypes:
        return None
    line = kernel.sbuf((1, row.elements), row.dtype)
    kernel.dma(unfolded(line, row.insert(0)), row.insert(0))
    ones = kernel.sbuf((1, lanes), row.dtype)
    kernel.memset(ones, 1.0)
    return Spread(line, ones)


def repeat(kernel: Kernel, row: View, tile: Access) -> None:
    """tile [partitions, columns] = a row of HBM [columns..], repeated by the transfer."""
    repeated = View(row.memory, row.dtype, row.address, ((0, tile.partitions), *row.dims))
    kernel.dma(unfolded(tile, repeated), repeated)
