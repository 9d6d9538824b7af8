"""How a matrix product is cut: found by trying all cuts that fit on the cost model. The same product, the same plan.

The left operand of a block of rows stays in SBUF for the whole depth; the right one streams past it in chunks of k, `wide` PSUM
banks of columns at a time, for `group` tiles of rows. Where the whole depth of the right operand's columns is one chunk, the
rows that stay may be several groups. A second set of sums lets the tensor engine go on while the first one leaves.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.products.spans import Span, even, ragged
from nxcc.backends.target import Target
from nxcc.ir.facts import dataclass

SLACK = 1024
"""Bytes for rounding tiles up."""

RESULTS = 2
"""Tiles of results: one is filled while the other is stored."""

ROWS_AGAIN, COLUMNS_AGAIN = 1 / 64, 1 / 32
"""Of a product, at most, that is computed again so that all its pieces have one size."""

ALIKE_FROM = 1000
"""Rows, columns and depth, at least, of products that are to have the same code."""

ALIKE = 1.06
"""How much slower than the quickest cut the one may be that large products have: then the code is the same."""

TRIES = 4
"""Numbers of tiles of columns that are looked at."""

LATENCY_S = 0.7e-6
"""From the end of a transfer's data to the engine that waits for it, and back to the queue; assumed."""


@dataclass(frozen=True, slots=True)
class Product:
    """What is multiplied: [rows, depth] by [columns, depth], `count` times in a loop.

    unit: k on partitions in one block. size, out_size: bytes of an element on the chip and of the result. left_run, right_run,
    out_run: contiguous bytes of the operands in memory that a row of a tile can have at most. left_turns, right_turns: whether
    the tensor engine turns the operand.
    """

    rows: int
    columns: int
    depth: int
    unit: int
    count: int
    size: int
    out_size: int
    left_run: int
    right_run: int
    out_run: int
    left_turns: bool
    right_turns: bool

    @property
    def blocks(self) -> int:
        return -(-self.depth // self.unit)


@dataclass(frozen=True, slots=True)
class Plan:
    """rows: of the left operand that stay. group: tiles of rows summed at once. wide: banks of columns. sets: of sums.
    chunk: blocks of k in a transfer of the right operand. ring: tiles of the right operand. seconds: what it takes, alone;
    exposed: how much of it is the beginning and the end, where a neighbour could work. spare: one more set of sums for the
    last of an odd number of pieces, behind which the first set is needed again.
    lanes, width: of a pass. even: whether pieces are to have one size."""

    rows: int
    group: int
    wide: int
    sets: int
    chunk: int
    ring: int
    seconds: float
    exposed: float
    spare: bool = False
    lanes: int = 128
    width: int = 512
    even: bool = True

    def row_spans(self, product: Product) -> tuple[Span, ...]:
        """Blocks of rows."""
        return _row_spans(product.rows, self.rows, self.group, self.lanes, self.even)

    def column_spans(self, product: Product) -> tuple[Span, ...]:
        """Tiles of columns; in overlapping ones if what is stored of a tile is stored at once."""
        return _column_spans(product.columns, self.wide * self.width, self.rows <= self.group * self.lanes, self.even)

    def tiles(self, rows: int) -> int:
        """Of so many rows."""
        return -(-rows // self.lanes)

    def forms(self, product: Product) -> int:
        """How often the innermost work is written: for blocks of rows, tiles of columns and chunks of k of other sizes each."""
        depth = 1
        if not self.whole(product):
            chunks, rest = self.chunks(product)
            depth = (chunks >= self.ring) + bool(chunks % self.ring) + rest
        return depth * len(self.row_spans(product)) * len(self.column_spans(product))

    def whole(self, product: Product) -> bool:
        """Whether a tile of the right operand has the whole depth."""
        return self.chunk >= product.blocks

    def chunks(self, product: Product) -> tuple[int, bool]:
        """Whole chunks of the right operand, and whether there is a partial one behind them."""
        return _chunks(product, self.chunk)

    def right_tiles(self, product: Product) -> int:
        """Tiles of the right operand."""
        return _tiles(product, self.chunk, self.ring)


@dataclass(frozen=True, slots=True)
class Machine:
    """What of a target decides. lanes: rows and depth of a pass; width: its columns. passes: of the operands' dtype.
    dma_rate: bytes a second; dma_least: bytes that a descriptor costs at least; dma_start: seconds. evict_rate: elements a
    partition and second that leave PSUM."""

    lanes: int
    width: int
    pe_hz: float
    pass_factor: float
    pass_overhead: float
    least_columns: int
    passes: float
    dma_rate: float
    dma_least: int
    dma_start: float
    evict_rate: float
    loops: bool

    def pass_s(self, columns: int) -> float:
        """Of the tensor engine over so many columns."""
        return self.passes * (self.pass_factor * max(columns, self.least_columns) + self.pass_overhead) / self.pe_hz


def machine(target: Target, kind: str) -> Machine:
    """kind: name of the operands' dtype, or tf32."""
    pe, facts, dma = target.engines[Engine.PE], target.tensor, target.dma
    evict = sum(target.engines[engine].clock_hz for engine in (Engine.VECTOR, Engine.SCALAR) if engine in target.engines)
    return Machine(facts.stationary_max, facts.moving_max, pe.clock_hz, facts.pass_factor, facts.pass_overhead_cycles,
                   pe.initiation_cycles, facts.passes[kind], dma.engines * dma.bytes_per_second_per_engine,
                   dma.descriptor_bytes_min, dma.start_ns / 1e9, evict, target.features.registers)


@cache
def ruled_plan(product: Product, on: Machine, sbuf_bytes: int, banks: int) -> Plan | None:
    """The first cut that fits of a few that are good for most products: no search; None if none of them fits."""
    tiles = -(-product.rows // on.lanes)
    for group, sets in ((4, 2), (2, 2), (1, 2), (1, 1)):
        group = min(group, tiles)
        if group * sets > _free_banks(product, banks):
            continue
        for chunk, ring in ((4, 4), (2, 3), (1, 2)):
            # A right operand that comes in whole is used for as many rows as fit.
            for held in (tiles, group) if chunk >= product.blocks else (group,):
                found = _timed(product, on, sbuf_bytes, banks, (held, group, 1, sets, min(chunk, product.blocks), ring))
                if found is not None:
                    return found
    return None


def every_plan(product: Product, on: Machine, sbuf_bytes: int, banks: int) -> Iterator[Plan]:
    """All plans that fit, among more cuts than `plan` looks at; its own comes first among equals."""
    first = plan(product, on, sbuf_bytes, banks)
    if first is not None:
        yield first
    for cut in _cuts(product, on, banks, MANY):
        timed = _timed(product, on, sbuf_bytes, banks, cut)
        if timed is not None and timed != first:
            yield timed


@cache
def plan(product: Product, on: Machine, sbuf_bytes: int, banks: int, alone: bool = True) -> Plan | None:
    """The quickest cut that fits into so much SBUF a partition and so many PSUM banks; None if none does.

    If the product is alone and the cut of large ones hardly slower, that is taken, with chunks that need little code for what
    is left of the depth.
    """
    quickest = _quickest(product, on, sbuf_bytes, banks)
    if quickest is None:
        return None
    alike = alone and on.loops and min(product.rows, product.columns, product.depth) >= ALIKE_FROM
    large = _quickest(_large(product), on, sbuf_bytes, banks) if alike else None
    if large is None:
        return quickest
    found = [one for one in _plans(product, on, sbuf_bytes, banks)
             if (one.group, one.wide, one.sets) == (large.group, large.wide, large.sets) and one.rows == large.rows
             and one.seconds <= ALIKE * quickest.seconds]
    return min(found, default=quickest, key=lambda one: (
        one.forms(product), (one.chunk, one.ring) != (large.chunk, large.ring), one.seconds))


LARGE = 8192
"""Rows, columns and depth of a product whose cut others take if it serves them as well."""


def _large(product: Product) -> Product:
    """A large product of operands that lie as these do."""
    run = LARGE * product.size
    return replace(product, rows=LARGE, columns=LARGE, depth=LARGE // 128 * product.unit, count=1,
                   left_run=run, right_run=run, out_run=LARGE * product.out_size)


def _plans(product: Product, on: Machine, sbuf_bytes: int, banks: int) -> list[Plan]:
    return [timed for cut in _cuts(product, on, banks) if (timed := _timed(product, on, sbuf_bytes, banks, cut)) is not None]


@cache
def _quickest(product: Product, on: Machine, sbuf_bytes: int, banks: int) -> Plan | None:
    return min(_plans(product, on, sbuf_bytes, banks), key=lambda plan: plan.seconds, default=None)


_Cut = tuple[int, int, int, int, int, int]


def _row_spans(total: int, most: int, group: int, lanes: int, evenly: bool) -> tuple[Span, ...]:
    """Blocks of rows of one size, unless too much would be computed again."""
    tiles = -(-most // lanes)
    found = even(total, most, 1, tiles, again=tiles <= group) if evenly else None
    if found is not None and found.count * -(-found.size // lanes) <= -(-total // lanes) * (1 + ROWS_AGAIN):
        return (found,)
    return ragged(total, most)


def _column_spans(total: int, most: int, again: bool, evenly: bool) -> tuple[Span, ...]:
    found = even(total, most, RESULTS, again=again, tries=TRIES) if evenly else None
    if found is not None and found.count * found.size <= total * (1 + COLUMNS_AGAIN):
        return (found,)
    return ragged(total, most, RESULTS)


def _chunks(product: Product, chunk: int) -> tuple[int, bool]:
    full, rest = divmod(product.depth, chunk * product.unit)
    return full, bool(rest)


def _tiles(product: Product, chunk: int, ring: int) -> int:
    """A ring, and one for each chunk that is left over; of fewer chunks those of two tiles of columns."""
    if chunk >= product.blocks:
        return 2
    full, rest = _chunks(product, chunk)
    return ring + full % ring + rest if full >= ring else RESULTS * (full + rest)


def _is_odd(product: Product, on: Machine, cut: _Cut) -> bool:
    """Whether what the two sets of sums take turns with is an odd number of pieces, so that the last would be in the way."""
    held, group, wide, sets, chunk, _ = cut
    pieces = -(-min(held, -(-product.rows // on.lanes)) // group)
    if chunk < product.blocks:
        pieces = sum(span.count for span in _column_spans(product.columns, wide * on.width, held <= group, on.loops))
    return sets == RESULTS and pieces % RESULTS == 1 and pieces > 1


def _free_banks(product: Product, banks: int) -> int:
    """For sums; the right operand is turned while they fill."""
    return banks - 2 if product.right_turns else banks


@dataclass(frozen=True, slots=True)
class Choices:
    """Numbers that a search tries: tiles of rows summed at once, banks of columns, blocks of k in a transfer."""

    groups: tuple[int, ...]
    wides: tuple[int, ...]
    chunks: tuple[int, ...]


FEW = Choices((1, 2, 3, 4, 6, 8), (1, 2, 4), (1, 2, 4, 8, 16))
MANY = Choices((1, 2, 3, 4, 5, 6, 7, 8), (1, 2, 3, 4), (1, 2, 3, 4, 6, 8, 12, 16, 24, 32))


def _cuts(product: Product, on: Machine, banks: int, choices: Choices = FEW) -> Iterator[_Cut]:
    """rows, group, wide, sets, chunk, ring"""
    tiles = -(-product.rows // on.lanes)
    width = -(-product.columns // on.width)
    free = _free_banks(product, banks)
    for group, wide, sets in itertools.product(choices.groups, choices.wides, (2, 1)):
        if group * wide * sets > free or group > tiles or wide > width:
            continue
        for chunk, ring in itertools.product((*choices.chunks, product.blocks), (4, 3, 2, 5)):
            if chunk > product.blocks or (ring == 5 and _tiles(product, chunk, ring) != ring):
                continue
            most = tiles if chunk == product.blocks else group
            for held in dict.fromkeys((group, group * 2, group * 4, group * 8, most)):
                if held <= most:
                    yield held, group, wide, sets, chunk, ring


def _bytes(product: Product, on: Machine, cut: _Cut, pieces: int, spare: bool) -> int:
    """Of a partition of SBUF."""
    held, group, wide, _sets, chunk, ring = cut
    lanes, width = on.lanes, min(product.columns, wide * on.width)
    rows = min(held * lanes, product.rows)
    stays = product.blocks * rows * product.size
    if product.left_turns:
        stays += held * product.depth * product.size
    elif pieces > 1:
        stays *= 2
    moving = chunk * width * product.size
    if product.right_turns:
        moving += -(-width // lanes) * chunk * product.unit * product.size
    return stays + moving * _tiles(product, chunk, ring) + (RESULTS + spare) * group * width * product.out_size + SLACK


def _timed(product: Product, on: Machine, sbuf_bytes: int, banks: int, cut: _Cut) -> Plan | None:
    """The plan with its time: the slowest of streaming, tensor engine, transfers and eviction, and what cannot overlap; the
    next rows come in one go, and what waits for the right operand behind them lives on what is there."""
    held, group, wide, sets, chunk, ring = cut
    rows, blocks = held * on.lanes, product.blocks
    row_spans = _row_spans(product.rows, rows, group, on.lanes, on.loops)
    cuts = _column_spans(product.columns, wide * on.width, held <= group, on.loops)
    pieces, widths = sum(span.count for span in row_spans), sum(span.count for span in cuts)
    columns = max(span.size for span in cuts)
    odd = _is_odd(product, on, cut)
    spare = odd and chunk >= blocks and group * wide * (sets + 1) <= _free_banks(product, banks)
    if _bytes(product, on, cut, pieces * product.count, spare) > sbuf_bytes:
        return None
    tiles = sum(span.count * -(-span.size // on.lanes) for span in row_spans)
    row_pass = blocks * sum(span.count * (span.size // on.width * on.pass_s(on.width) + bool(span.size % on.width)
                                          * on.pass_s(span.size % on.width)) for span in cuts)
    right_turned = blocks * -(-product.columns // on.lanes) * product.right_turns
    turned = tiles * blocks * product.left_turns + pieces * right_turned

    def moved(elements: int, size: int, run: int) -> float:
        return elements * size * max(run, on.dma_least) / run / on.dma_rate

    left = moved(product.rows * product.depth, product.size,
                 product.left_run if product.left_turns else min(product.left_run, rows * product.size))
    right = moved(product.columns * product.depth, product.size,
                  min(product.right_run, (chunk * product.unit if product.right_turns else columns) * product.size))
    out = moved(product.rows * product.columns, product.out_size, min(product.out_run, columns * product.out_size))
    leaving = group * columns / on.evict_rate
    chunks = widths * -(-blocks // chunk)
    under_way = min(ring, _tiles(product, chunk, ring))

    def piece_s(size: int) -> float:
        """Of so many tiles of rows."""
        share = size / tiles
        pe = size * row_pass + (size * blocks * product.left_turns + right_turned) * on.pass_s(on.lanes)
        moving = right + (left + out) * share
        sums = -(-size // group) * widths
        apart = (pe + moving + chunks * (on.dma_start + LATENCY_S)) / under_way
        stored = (out * share + sums * (leaving + on.dma_start + 2 * LATENCY_S)) / RESULTS
        runs = widths if chunk >= blocks else -(-size // group)
        bubbles = (sums if sets == 1 else runs if odd and not spare else 0) * (leaving + LATENCY_S)
        if product.right_turns:
            # Products of a chunk wait for the last of it that is turned.
            bubbles += chunks * (2 * columns / on.evict_rate + LATENCY_S)
        parts = max(1, widths // 2) if pieces * product.count > 1 else 0
        wait = left * share / max(1, parts) + right / chunks + on.dma_start + LATENCY_S
        behind = parts * max(0.0, wait - (under_way - 1) * pe / chunks)
        evicted = (size * product.columns + (size * blocks + right_turned) * on.lanes) / on.evict_rate
        return max(pe, moving, apart, stored, evicted) + bubbles + behind

    opening = left / pieces + right / chunks + 2 * on.dma_start + turned / pieces * on.pass_s(on.lanes) * product.left_turns
    closing = out / (-(-tiles // group) * widths) + on.dma_start + leaving
    steady = sum(span.count * piece_s(-(-span.size // on.lanes)) for span in row_spans)
    exposed = opening + closing
    return Plan(rows, group, wide, sets, chunk, ring, steady * product.count + exposed, exposed, spare, on.lanes, on.width,
                on.loops)
