"""One part of the images after the other through the stages of an image program."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.lowering.images.forms import Action
from nxcc.backends.lowering.images.geometry import Channels, Image, Phase, Strip, on_partitions, spread, whole
from nxcc.backends.lowering.images.heads import Place, Product, product_pieces, reduce_window, total
from nxcc.backends.lowering.images.packed import load_packed, load_packed_weights, packed_pieces
from nxcc.backends.lowering.images.stages import ALIGNMENT, Program
from nxcc.backends.lowering.images.taps import Taps, has_diagonals, load_taps, tell_of
from nxcc.backends.lowering.images.weights import Weights, load_weights
from nxcc.backends.lowering.images.work import Work
from nxcc.backends.lowering.reduction import combiner
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Access, View, contiguous
from nxcc.ir.dtypes import F32, U8
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.imagespace import COLUMN, ROW
from nxcc.ir.hlo.module import Instruction

BANKS = 4
"""PSUM banks that take turns."""

STORES = 8
"""Blocks of channels that are written one after the other, each stored when it is done."""

LOADS = 4
"""Transfers of one image, at most, so that work begins with the first."""

_BLOCKS_LAST = 0, 2, 3, 4, 1
"""Dimensions [lanes, blocks, images, rows, columns] of values with one place an image as they lie in SBUF."""

_FROM_BLOCKS_LAST = 3, 0, 1, 2
"""Back, without lanes."""

VECTOR_SUMS = 2
"""Tiles that take turns for what Vector sums up."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is worked on at a time: images (first, number), and a strip of outputs of the one head's rows."""

    start: Index
    count: int
    rows: Strip | None = None


class Run:
    """Runs parts through the stages. operands: views of the parameters; result: of the root.

    cut: which channels of the one head's result are made (first, number); None for all. once: there is one part only.
    Weights and columns are loaded when it is made.
    """

    def __init__(self, kernel: Kernel, program: Program, operands: Mapping[Instruction, View], result: View,
                 cut: tuple[Index, int] | None, once: bool) -> None:
        self.kernel, self.program, self.operands, self.result = kernel, program, operands, result
        self.cut, self.once = cut, once
        bank = (kernel.target.partitions, kernel.target.tensor.moving_max)
        self.banks = itertools.cycle([kernel.psum(bank) for _ in range(BANKS)])
        self.images: dict[Instruction, Image] = {}
        self.scratch: dict[tuple[Instruction, Action], Iterator[Access]] = {}
        self.weights: dict[Instruction, Weights | Taps] = {}
        self.packed_weights: dict[Instruction, Access] = {}
        for head in program.heads:
            if head in program.packed:
                rows = program.phases(head, ROW)[0].cells
                self.packed_weights[head] = load_packed_weights(kernel, head, operands[head.operands[1]], program.packed[head],
                                                                rows, self.banks, cut, program.shifts(head))
            elif head in program.depthwise:
                on_vector = self._is_for_vector(head)
                self.weights[head] = taps = load_taps(kernel, head, operands[head.operands[1]], program.spread(head), on_vector)
                if on_vector and has_diagonals(kernel):
                    tell_of(kernel, taps, next(self.banks))
            elif head.opcode == "convolution":
                self.weights[head] = load_weights(kernel, head, operands[head.operands[1]], program.part_channels(head),
                                                  self.banks, cut, head in program.doubled, program.shifts(head))
        self.sums = self._places_of_sums()
        self.work = [] if once else self._works()

    def _is_for_vector(self, head: Instruction) -> bool:
        """Whether Vector sums up a convolution that keeps channels apart: alone, or in turn with a tensor engine that takes
        several passes for its type."""
        tensor = self.kernel.target.tensor
        return not has_diagonals(self.kernel) or tensor.passes[head.operands[0].shape.dtype.name] > 1

    def _places_of_sums(self) -> dict[Instruction, Iterator[Access]]:
        """Where the sums of convolutions that keep channels apart come to lie: in PSUM, in SBUF, or by turns."""
        taken = [head for head in self.program.heads if head in self.program.depthwise]
        shared: dict[Instruction, Iterator[Access]] = {head: self.banks for head in taken if not self._is_for_vector(head)}
        if len(shared) == len(taken):
            return shared
        tensor = self.kernel.target.tensor
        places = [self.kernel.sbuf((self.kernel.target.partitions, tensor.moving_max), F32) for _ in range(VECTOR_SUMS)]
        turns: Iterator[Access] = itertools.cycle(places)
        if has_diagonals(self.kernel):
            turns = itertools.chain.from_iterable(zip(self.banks, turns, strict=False))
        return shared | {head: turns for head in taken if head not in shared}

    def _works(self) -> list[Work]:
        works = [Work(self, number) for number in range(len(self.program.stages))]
        for work in works:
            work.prepare()
        return works

    def is_cut(self, value: Instruction) -> bool:
        """Whether only some channels of a value are worked on: of the one head's result and what is computed with it."""
        return self.cut is not None and (bool(self.program.stage_of[value])
                                         or not any(self.program.feeds(value, head) for head in self.program.heads))

    def spread(self, value: Instruction) -> Channels:
        if self.cut is None or not self.is_cut(value):
            return self.program.spread(value)
        found = spread(self.cut[1], self.kernel.target.partitions)
        assert found is not None
        return found

    def part(self, part: Part) -> None:
        """Load, compute, store."""
        program = self.program
        sizes = {value: self._tile_sizes(value, part) for value in program.stored}
        shared = {v: _aligned(math.prod(s[1:]) * v.shape.dtype.byte_size) for v, s in sizes.items() if not self._repeats(v)}
        places, total = program.arena(shared)
        arena = self.kernel.sbuf((self.kernel.target.partitions, total), U8)
        for value in program.stored:
            if value in places:
                offset = arena.offset + places[value]
            else:
                # nothing may be written over what other places still read
                offset = self.kernel.sbuf(sizes[value][:3], value.shape.dtype).offset
            self.images[value] = self._tile(value, part, sizes[value], offset)
            if value in program.outside:
                self._load(value, part)
        self.work = self.work or self._works()
        for number, stage in enumerate(program.stages):
            if stage.head is None:
                self.work[number].on_operands()
            else:
                self._head(number, stage.head, part)
        if not self._stores_blocks(part):
            self._store(part, 0, self.spread(program.root).blocks)

    # ---- images ---------------------------------------------------------------------------------------------------------

    def _rows(self, value: Instruction, part: Part) -> tuple[Index, int]:
        """The rows of a value that take part: those that the strip makes, or reads."""
        height = self.program.sizes(value)[2]
        if part.rows is None:
            return 0, height
        (head,), strip = self.program.heads, part.rows
        axes = self.program.phases(head, ROW)
        if self.program.stage_of[value] or not self.program.feeds(value, head):
            step = axes[0].step
            return strip.at * step, min(strip.count * step, height - strip.first * step)
        made = [(axis, min(strip.count, axis.count - strip.first)) for axis in axes]
        found = [axis.span(strip.first, count) for axis, count in made if count > 0]
        spans = [span for span in found if span[1]] or [(0, 1)]
        low = min(first for first, _ in spans)
        high = max(first + count for first, count in spans)
        return (strip.at - strip.first) * axes[0].stride + low, high - low

    def _tile_sizes(self, value: Instruction, part: Part) -> tuple[int, ...]:
        """Partitions, blocks, images, rows, columns."""
        made = self.spread(value)
        return made.lanes, made.blocks, part.count, self._rows(value, part)[1], self.program.sizes(value)[3]

    def _tile(self, value: Instruction, part: Part, sizes: tuple[int, ...], offset: Expr) -> Image:
        """Values with one place an image have their blocks side by side."""
        lanes, blocks, images, rows, columns = sizes
        repeats = self._repeats(value)
        places = (images, 1, 1) if repeats else (images, rows, columns)
        alone = places[1] * places[2] == 1
        dims = contiguous((*places, blocks)) if alone else contiguous((blocks, *places))
        tile = Access(Memory.SBUF, value.shape.dtype, self.program.first_lane(value), lanes, offset, dims)
        tile = tile.permute(_FROM_BLOCKS_LAST) if alone else tile
        if repeats:
            tile = replace(tile, dims=(*tile.dims[:2], (0, rows), (0, columns)))
        return Image(tile, expr(self._rows(value, part)[0]))

    def _repeats(self, value: Instruction) -> bool:
        """Whether a value from outside has one number for all places of an image's channel, which is brought once."""
        program = self.program
        if value not in program.outside or any(value in program.parts(head) for head in program.heads):
            return False
        *_, rows, columns = program.view(self.operands[value], value).dims
        return rows[1] * columns[1] > 1 and all(stride == 0 or size == 1 for stride, size in (rows, columns))

    def _part_view(self, view: View, value: Instruction, part: Part) -> View:
        """[lanes, blocks, images, rows, columns] of a view [channels, images, rows, columns]."""
        if self.cut is not None and self.is_cut(value):
            view = view.cut(0, *self.cut)
        first, count = self._rows(value, part)
        made = self.spread(value)
        made = replace(made, lanes=made.lanes // self.program.halves(value))
        return on_partitions(view.cut(1, part.start, part.count).cut(2, first, count), made)

    def _halves(self, value: Instruction, tile: Access, view: View) -> Iterator[tuple[Access, View]]:
        """The parts of a tile [lanes; blocks, images, rows, columns] and of its view [lanes, ..] for each row of a pair."""
        halves = self.program.halves(value)
        lanes, step = tile.partitions // halves, view.dims[3][0] // halves
        for half in range(halves):
            yield tile.rows(half * lanes, lanes), replace(view, address=view.address + half * step)

    def _load(self, value: Instruction, part: Part) -> None:
        """By Sync's queue behind the weights, so that the next region's weights do not come first."""
        source = self._part_view(self.program.view(self.operands[value], value), value, part)
        tile = self.images[value].tile
        if self._repeats(value):
            for place, lines in self._halves(value, tile, source):
                self.kernel.dma(place.at(2, 0).at(2, 0), lines.at(3, 0).at(3, 0), engine=Engine.SYNC)
            return
        twice = any(value in self.program.parts(head) for head in self.program.doubled)
        if twice and self._reads_every_second_row(value):
            self._load_every_second_row(value, part, tile, source)
            return
        blocks = tile.sizes[1]
        step = -(-blocks // LOADS) if self.once and self._has_long_runs(tile) else blocks
        for start in range(0, blocks, step):
            count = min(step, blocks - start)
            for place, lines in self._halves(value, tile, source):
                self.kernel.dma(place.cut(0, start, count), lines.cut(1, start, count), engine=Engine.SYNC)
        rows = tile.sizes[3] - 1
        if rows and twice:
            behind = replace(tile, partition=tile.partition + tile.partitions)
            self.kernel.dma(behind.cut(2, 0, rows), source.cut(3, 1, rows), engine=Engine.SYNC)

    def _reads_every_second_row(self, value: Instruction) -> bool:
        """Whether passes over an image that comes twice begin at every second row alone, and rows are worth a transfer each."""
        if len(self.program.heads) > 1:
            return False
        (head,) = self.program.doubled
        row = self.program.sizes(value)[3] * value.shape.dtype.byte_size
        least = self.kernel.target.dma.descriptor_bytes_min
        return self.program.phases(head, ROW)[0].stride % 2 == 0 and max(row, least) < 2 * row

    def _load_every_second_row(self, value: Instruction, part: Part, tile: Access, source: View) -> None:
        """Rows at which the first of two window rows may lie, with the next one behind; and the first row of the image, which
        the second of two reads alone where the first lies outside."""
        (head,) = self.program.doubled
        first = 0 if part.rows is None else self._rows_first(value, part)
        start = (self.program.phases(head, ROW)[0].cells[0].shift - first) % 2
        behind = replace(tile, partition=tile.partition + tile.partitions)
        rows = tile.sizes[3]
        if start:
            self.kernel.dma(tile.cut(2, 0, 1), source.cut(3, 0, 1), engine=Engine.SYNC)
        for place, offset in ((tile, 0), (behind, 1)):
            count = max(0, (rows - offset - start + 1) // 2)
            if count:
                self.kernel.dma(place.cut(2, start, count, 2), source.cut(3, start + offset, count, 2), engine=Engine.SYNC)

    def _has_long_runs(self, tile: Access) -> bool:
        """Whether each block of channels is a run that a transfer moves well."""
        return tile.at(0, 0).free * tile.dtype.byte_size >= self.kernel.target.dma.descriptor_bytes_min

    def _stores_blocks(self, part: Part) -> bool:
        """Whether the result is stored block by block while others are computed."""
        program = self.program
        head = program.stages[program.stage_of[program.root]].head
        if not self.once or head is None or head.opcode != "convolution" or head in program.packed:
            return False
        if self.spread(head).blocks > STORES:
            return False
        return self._has_long_runs(self.images[program.root].tile) and all(
            len(program.phases(head, mark)) == 1 for mark in (ROW, COLUMN))

    def _store(self, part: Part, block: Index, count: int) -> None:
        """Store some blocks of channels of the result."""
        root = self.program.root
        whole = self._part_view(self.result, root, part).cut(1, block, count)
        for place, lines in self._halves(root, self.images[root].tile.cut(0, block, count), whole):
            result, tile = lines, place.linear()
            if tile.sizes[3] * tile.sizes[4] == 1:
                result, tile = result.permute(_BLOCKS_LAST), tile.permute(_BLOCKS_LAST)
            self.kernel.dma(result, tile)

    # ---- heads ----------------------------------------------------------------------------------------------------------

    def _packed_pieces(self, head: Instruction, part: Part) -> Iterator[tuple[Place, Access]]:
        program, source = self.program, self.program.packed_source(head)
        ((phase, strip),), (columns,) = self._strips(head, ROW, part.rows), self._strips(head, COLUMN, None)
        view = program.view(self.operands[source], source)
        packed = load_packed(self.kernel, view, (part.start, part.count), phase, strip, program.packed[head],
                             head.operands[0].shape.dtype)
        made = self.spread(head)
        yield from packed_pieces(self.kernel, packed, self.packed_weights[head], (made.lanes, made.blocks), part.count, columns,
                                 self.banks)

    def _head(self, number: int, head: Instruction, part: Part) -> None:
        if head in self.program.packed:
            for place, sums in self._packed_pieces(head, part):
                self.work[number].on_piece(place, sums)
            return
        if head.opcode == "convolution":
            made, images = self.spread(head), self._read_by(head)
            stores = number == self.program.stage_of[self.program.root] and self._stores_blocks(part)
            product = Product(images, self.weights[head], made.lanes, made.blocks, part.count,
                              head.attribute("window").dims[-1].size, stores, head in self.program.doubled)
            rows = self._strips(head, ROW, part.rows)
            columns = self._strips(head, COLUMN, None)
            for done, sums in product_pieces(self.kernel, product, rows, columns, self.sums.get(head, self.banks)):
                if isinstance(done, Place):
                    self.work[number].on_piece(done, sums)
                elif stores:
                    self._store(part, done, 1)
            return
        for block, _ in self.kernel.tiles(self.spread(head).blocks, 1):
            place = self._everything(head, block, part)
            self.work[number].on_piece(place, self._reduced(head, place, part))

    def _read_by(self, head: Instruction) -> list[Image]:
        """The images of a convolution's passes: what lies beside each other, or twice, as one."""
        images = [self.images[part] for part in self.program.parts(head)]
        if head in self.program.stacked:
            lanes = sum(image.tile.partitions for image in images)
        elif head in self.program.doubled:
            lanes = 2 * images[0].tile.partitions
        else:
            return images
        return [replace(images[0], tile=replace(images[0].tile, partitions=lanes))]

    def _strips(self, head: Instruction, mark: int, strip: Strip | None) -> list[tuple[Phase, Strip]]:
        """What is made of each phase of an axis."""
        found = []
        for phase in self.program.phases(head, mark):
            if strip is None:
                found.append((phase, whole(phase)))
            elif strip.first < phase.count:
                found.append((phase, Strip(strip.at, min(strip.count, phase.count - strip.first), strip.first)))
        return found

    def _everything(self, head: Instruction, block: Index, part: Part) -> Place:
        """One block of channels of all that this part makes."""
        first, count = self._rows(head, part)
        return Place(block, (0, part.count), (first, count, 1), (0, self.program.sizes(head)[3], 1))

    def _reduced(self, head: Instruction, place: Place, part: Part) -> Access:
        """A window's or a sum's result for one block of channels, in its own tile or a fresh one."""
        kernel, (source,) = self.kernel, self.program.parts(head)
        data = self.images[source]
        op = combiner(head.called[0])
        assert op is not None
        sizes = (data.tile.partitions, place.images[1], place.rows[1], place.columns[1])
        if head in self.images:
            out = self.images[head].place(place.block, place.images, place.rows, place.columns)
        else:
            out = kernel.sbuf(sizes, head.shape.dtype)
        block = data.tile.at(0, place.block)
        if head.opcode == "reduce":
            total(kernel, op, block, out)
            return out.flat()
        (rows,), (columns,) = self._strips(head, ROW, part.rows), self._strips(head, COLUMN, None)
        scratch = kernel.sbuf((*sizes[:2], block.dims[1][1], sizes[3]), head.shape.dtype if op in ("max", "maximum", "minimum")
                              else F32)
        first_row = data.row.constant if part.rows is None else self._rows_first(source, part)
        reduce_window(kernel, op, block, out, scratch, rows, columns, first_row)
        return out.flat()

    def _rows_first(self, value: Instruction, part: Part) -> int:
        """The number of the first row, of the first of strips like this one."""
        assert part.rows is not None
        first = self._rows(value, replace(part, rows=replace(part.rows, at=expr(part.rows.first))))[0]
        return expr(first).constant


def group_size(images: int, each: int, budget: int, copies: int) -> int:
    """Images at a time: all, or as many as fit in every rotating copy; 0 if not even one does."""
    if images * each <= budget:
        return images
    most = budget // (each * copies)
    return math.ceil(images / math.ceil(images / most)) if 0 < most < images else max(0, min(most, images))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
