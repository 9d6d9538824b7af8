"""Values that stay on chip between regions: what transfers store to device memory and load again moves to SBUF.

Before: a region stores its result to the arena, and the regions that read it load it from there. After: the arena's bytes have
places in SBUF that no region works in while the value lives, and the same transfers go there; device memory, whose bandwidth
cores share, is left to weights, inputs and results. Waits and signals stay as they are: what was ordered still is.

Programs without registers only: every address is a number. A value falls into pieces that no transfer joins (an image of a
batch, a block of rows), so that a part of it can stay. A piece lies on chip as one of its transfers has it in its tile.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from nxcc.backends.codegen.arena import Lifetime
from nxcc.backends.isa.addresses import split
from nxcc.backends.isa.program import (
    DMA_PARTITION_STRIDE,
    Affine,
    DmaPattern,
    Engine,
    Function,
    Instruction,
    Memory,
    Program,
)
from nxcc.backends.onchip.placing import Places, Timeline
from nxcc.backends.onchip.reads import at_offset, offset_of
from nxcc.backends.onchip.transfers import bytes_of, reach_of, side_of, sizes_of
from nxcc.backends.target import Target
from nxcc.ir.facts import dataclass

CELLS_MAX = 1 << 22
"""Grains of a block beyond which it stays in memory: what pieces it has is found grain by grain."""

Rows = dict[int, Instruction]
"""What stands in place of an instruction of a stream, by index."""


@dataclass(frozen=True)
class Kept:
    """program: with what stays. bytes: that transfers of one run no longer move to and from device memory; left: that those of
    the same blocks still do."""

    program: Program
    bytes: int
    left: int


def keep(program: Program, blocks: Sequence[Lifetime], places: Places, target: Target) -> Kept:
    """Keep as much of the blocks on chip as fits beside the work of regions.

    blocks: parts of the arena that hold values of the program's own, from the first to the last region (debug index) that may
    touch them. places: of the program's regions; what stays is added. What saves most traffic for its bytes and its time comes
    first.
    """
    assert not program.functions, "streams are straight"
    timeline = places.timeline
    touched = [_uses(entry, blocks) for entry in program.entries]
    pieces = [piece for number, uses in enumerate(touched) for piece in _pieces(number, uses, target)]
    kept = [(piece, place) for piece in sorted(pieces, key=lambda piece: (-piece.worth(timeline), piece.first))
            if (place := places.put(piece.layout.size, piece.partitions, piece.first, piece.last)) is not None]
    rows: list[dict[Engine, Rows]] = [defaultdict(dict) for _ in program.entries]
    for piece, place in kept:
        for use, walk in zip(piece.uses, piece.walks, strict=True):
            rows[piece.entry][use.engine][use.index] = _on_chip(use, walk, place)
    border = program.resident.offset if program.resident is not None else places.limit
    entries = [_rewritten(entry, found, timeline, border) for entry, found in zip(program.entries, rows, strict=True)]
    changed = replace(program, entries=entries, sbuf_bytes=max(places.top, program.sbuf_bytes if program.resident else 0))
    found = sum(piece.bytes for piece, _ in kept)
    everything = sum(use.bytes for uses in touched for block in uses.values() for use in block)
    return Kept(changed, found, everything - found)


# ---- what is touched when -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Use:
    """A transfer between a block and SBUF. name: of its operand that lies in the block."""

    engine: Engine
    index: int
    instruction: Instruction
    name: str

    @property
    def region(self) -> int:
        return self.instruction.debug

    @property
    def side(self) -> DmaPattern:
        return side_of(self.instruction, self.name)

    @property
    def other(self) -> str:
        return "destination" if self.name == "source" else "source"

    @property
    def tile(self) -> DmaPattern:
        return side_of(self.instruction, self.other)

    @property
    def sizes(self) -> tuple[int, ...]:
        return sizes_of(self.instruction)

    @property
    def bytes(self) -> int:
        return bytes_of(self.instruction, self.name)


# ---- pieces -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """A digit of an address within a piece: `size` values `stride` bytes apart in the arena, that step over so many partitions
    and bytes of each on chip."""

    stride: int
    size: int
    partitions: int
    bytes: int


_Dimension = tuple[int, tuple[int, ...], int]
"""Of a transfer: its size, its step in each digit of the address, its step in the tile."""


@dataclass(frozen=True)
class Step:
    """A dimension of a transfer after it went on chip: its size, its steps on chip and in the tile's memory."""

    size: int
    partitions: int
    bytes: int
    other: int


@dataclass(frozen=True)
class Path:
    """A transfer's way through a piece: where it begins, and its dimensions."""

    partition: int
    offset: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Layout:
    """How a piece lies on chip. address: of its first byte in the arena, partition: of that; levels: largest stride first."""

    address: int
    partition: int
    levels: tuple[Level, ...]
    item: int

    @property
    def size(self) -> int:
        """Bytes of a partition."""
        return self.item + sum(level.bytes * (level.size - 1) for level in self.levels)

    @property
    def partitions(self) -> int:
        return 1 + sum(level.partitions * (level.size - 1) for level in self.levels)

    @classmethod
    def of(cls, use: Use) -> Layout | None:
        """As the transfer has it in its tile; None where that is no dense block of its own."""
        item = use.side.dtype.byte_size
        first, _ = divmod(use.tile.address.constant, DMA_PARTITION_STRIDE)
        if use.tile.memory is not Memory.SBUF:
            return None
        rows = sorted(((stride, size, split(tile)) for stride, size, tile
                       in zip(use.side.strides, use.sizes, use.tile.strides, strict=True) if size > 1), reverse=True)
        levels: list[Level] = []
        reach, dense = item, item
        for stride, size, (partitions, bytes_) in reversed(rows):
            if stride < reach or bool(partitions) == bool(bytes_):
                return None
            levels.append(Level(stride, size, partitions, 0 if partitions else dense))
            dense *= 1 if partitions else size
            reach = stride * (size - 1) + reach
        return cls(use.side.address.constant, first, tuple(reversed(levels)), item)

    def widened(self, address: int) -> Layout:
        """As wide as the next larger stride, from an address on: for a piece whose transfers each reach some of the columns."""
        levels: list[Level] = []
        dense = self.item
        outer = (0, *(level.stride for level in self.levels))
        for level, before in zip(reversed(self.levels), reversed(outer[:-1]), strict=True):
            size = before // level.stride if before and not level.partitions and before % level.stride == 0 else level.size
            levels.append(replace(level, size=size, bytes=0 if level.partitions else dense))
            dense *= 1 if level.partitions else size
        return replace(self, address=address, levels=tuple(reversed(levels)))

    def digits(self, distance: int) -> tuple[int, ...] | None:
        """A distance in bytes as a sum of strides, the largest first; None if it is none."""
        found = []
        for level in self.levels:
            digit, distance = divmod(distance, level.stride)
            found.append(digit)
        return tuple(found) if distance == 0 else None

    def path(self, use: Use) -> Path | None:
        """A transfer's way on chip; None if it takes more than affine steps."""
        at = self.digits(use.side.address.constant - self.address) if use.side.address.constant >= self.address else None
        if at is None or use.side.dtype.byte_size != self.item:
            return None
        dims: list[_Dimension] = []
        for stride, size, other in zip(use.side.strides, use.sizes, use.tile.strides, strict=True):
            if stride < 0:
                return None
            found = self._dimension(stride, size, other, at)
            if found is None:
                return None
            dims += found
        reach = [digit + sum((size - 1) * steps[k] for size, steps, _ in dims) for k, digit in enumerate(at)]
        if any(most >= level.size for most, level in zip(reach, self.levels, strict=True)):
            return None
        steps = tuple(Step(size, *self._place(digits), other) for size, digits, other in dims if size > 1) or (
            Step(1, 0, self.item, self.item),)
        partition, offset = self._place(at)
        return Path(self.partition + partition, offset, steps)

    def _dimension(self, stride: int, size: int, other: int, at: Sequence[int]) -> list[_Dimension] | None:
        """A dimension as one or, where it runs over the border of a digit, two: size, step of each digit, step of the tile."""
        digits = self.digits(stride)
        if digits is None:
            return None
        last = max((k for k, digit in enumerate(digits) if digit), default=None)
        if size == 1 or last is None:
            return [(size, digits, other)]
        level, step = self.levels[last], digits[last]
        if at[last] + step * (size - 1) < level.size or last == 0:
            return [(size, digits, other)]
        inner = level.size // step
        if any(digits[:last]) or level.size % step or size % inner or at[last] >= step or \
                self.levels[last - 1].stride != level.stride * level.size:
            return [(size, digits, other)]
        outer = self._dimension(self.levels[last - 1].stride, size // inner, other * inner, at)
        return outer and [*outer, (inner, digits, other)]

    def _place(self, digits: Sequence[int]) -> tuple[int, int]:
        """Partitions and bytes from the first byte of the piece."""
        return (sum(digit * level.partitions for digit, level in zip(digits, self.levels, strict=True)),
                sum(digit * level.bytes for digit, level in zip(digits, self.levels, strict=True)))

    def is_walk(self, path: Path, target: Target) -> bool:
        """Whether a transfer has dimensions for it; elements that do not lie together take one more."""
        together = path.steps[-1].bytes == path.steps[-1].other == self.item and not path.steps[-1].partitions
        return len(path.steps) <= (target.dma.dims_max if together else target.dma.loops_max)

    def agrees(self, use: Use, path: Path) -> bool:
        """Whether the transfer's tile is laid out as the piece is."""
        return all(split(step.other) == (step.partitions, step.bytes) for step in path.steps if step.size > 1)


@dataclass
class _Piece:
    """Transfers of one block that reach the same bytes, and how they go on chip."""

    entry: int
    uses: list[Use]
    layout: Layout
    walks: list[Path]

    @property
    def bytes(self) -> int:
        return sum(use.bytes for use in self.uses)

    @property
    def first(self) -> int:
        return min(use.region for use in self.uses)

    @property
    def last(self) -> int:
        return max(use.region for use in self.uses)

    @property
    def partitions(self) -> tuple[int, int]:
        return self.layout.partition, self.layout.partition + self.layout.partitions

    def worth(self, timeline: Timeline) -> float:
        """Bytes of traffic for a byte of a partition and a step of time."""
        return self.bytes / (self.layout.size * (timeline.finish[self.last] - timeline.begin[self.first]))


def _pieces(number: int, touched: Mapping[Lifetime, list[Use]], target: Target) -> Iterator[_Piece]:
    """Pieces of an entry's blocks that may stay: written and read, all of it by transfers that find their way on chip."""
    for block, uses in touched.items():
        for group in _groups(block, uses):
            piece = _piece(number, group, target)
            if piece is not None:
                yield piece


def _uses(entry: Function, blocks: Sequence[Lifetime]) -> Mapping[Lifetime, list[Use]]:
    """The transfers of each block; blocks that anything else reaches, or a transfer only in part, are left out."""
    alive: dict[int, list[Lifetime]] = defaultdict(list)
    for block in blocks:
        for region in range(block.first, block.last + 1):
            alive[region].append(block)
    found: dict[Lifetime, list[Use]] = defaultdict(list)
    spoilt: set[Lifetime] = set()
    for engine, stream in entry.streams.items():
        for index, instruction in enumerate(stream):
            for name, operand in instruction.operands.items():
                if operand.memory is not Memory.HBM:
                    continue
                low, high = reach_of(instruction, name)
                for block in alive.get(instruction.debug, ()):
                    if low < block.address + block.size and block.address < high:
                        use = Use(engine, index, instruction, name)
                        found[block].append(use)
                        inside = block.address <= low and high <= block.address + block.size
                        if not inside or use.tile.memory is not Memory.SBUF or instruction.spec.name != "dma_copy":
                            spoilt.add(block)
    return {block: uses for block, uses in found.items() if block not in spoilt}


def _groups(block: Lifetime, uses: Sequence[Use]) -> list[list[Use]]:
    """Transfers that touch common bytes, directly or through others."""
    grain = _grain(block, uses)
    if block.size // grain > CELLS_MAX:
        return []
    cells = np.full(block.size // grain + 1, -1, np.int32)
    parent = list(range(len(uses)))
    for number, use in enumerate(uses):
        item = use.side.dtype.byte_size
        run, dims = _run(use, item)
        view = np.ndarray((*[size for _, size in dims], run // grain), np.int32, cells,
                          4 * ((use.side.address.constant - block.address) // grain), (*[4 * s // grain for s, _ in dims], 4))
        for owner in np.unique(view).tolist():
            if owner >= 0:
                parent[_root(parent, owner)] = _root(parent, number)
        view[...] = number
    groups: dict[int, list[Use]] = defaultdict(list)
    for number, use in enumerate(uses):
        groups[_root(parent, number)].append(use)
    return list(groups.values())


def _root(parent: list[int], number: int) -> int:
    while parent[number] != number:
        parent[number] = number = parent[parent[number]]
    return number


def _run(use: Use, item: int) -> tuple[int, list[tuple[int, int]]]:
    """Bytes that lie one after another, and the dimensions outside."""
    dims = [(stride, size) for stride, size in zip(use.side.strides, use.sizes, strict=True) if size > 1]
    run = item
    while dims and dims[-1][0] == run:
        run *= dims.pop()[1]
    return run, dims


def _grain(block: Lifetime, uses: Sequence[Use]) -> int:
    """Bytes that all transfers move together."""
    grain = 0
    for use in uses:
        run, dims = _run(use, use.side.dtype.byte_size)
        grain = math.gcd(grain, run, use.side.address.constant - block.address, *[stride for stride, _ in dims])
    return max(1, grain)


def _piece(number: int, uses: list[Use], target: Target) -> _Piece | None:
    """The piece as one of its transfers has it in its tile: one that reaches all of it, and agrees with most others."""
    if not any(use.name == "destination" for use in uses) or not any(use.name == "source" for use in uses):
        return None
    best: tuple[int, _Piece] | None = None
    tried: set[Layout] = set()
    everything = sum(use.bytes for use in uses)
    for layout in _layouts(uses, min(use.side.address.constant for use in uses)):
        if layout in tried:
            continue
        tried.add(layout)
        walks = _walks(layout, uses, target)
        if walks is None:
            continue
        agreeing = sum(use.bytes for use, walk in zip(uses, walks, strict=True) if layout.agrees(use, walk))
        if best is None or agreeing > best[0]:
            best = agreeing, _Piece(number, uses, layout, walks)
        if agreeing == everything:
            break
    return best and best[1]


def _layouts(uses: Sequence[Use], lowest: int) -> Iterator[Layout]:
    """As transfers that reach its first byte have the piece in their tiles, the largest first; then as wide as rows are, where
    none reaches all of it."""
    found = [layout for use in sorted(uses, key=lambda use: -use.bytes) if (layout := Layout.of(use)) is not None]
    yield from (layout for layout in found if layout.address == lowest)
    yield from (layout.widened(lowest) for layout in found)


def _walks(layout: Layout, uses: Sequence[Use], target: Target) -> list[Path] | None:
    """How all transfers go on chip in a layout; None if one of them cannot."""
    walks = []
    for use in uses:
        walk = layout.path(use)
        if walk is None or not layout.is_walk(walk, target):
            return None
        walks.append(walk)
    return walks


# ---- rewriting ----------------------------------------------------------------------------------------------------


def _on_chip(use: Use, path: Path, place: int) -> Instruction:
    """The transfer with its side on chip; where its dimensions are divided, the tile's are as well."""
    one = use.instruction
    side = DmaPattern(Memory.SBUF, use.side.dtype, Affine(path.partition * DMA_PARTITION_STRIDE + place + path.offset),
                      tuple(step.partitions * DMA_PARTITION_STRIDE + step.bytes for step in path.steps))
    tile = replace(use.tile, strides=tuple(step.other for step in path.steps))
    operands = one.operands | {use.name: side, use.other: tile}
    fields = one.fields | {"sizes": tuple(step.size for step in path.steps)}
    return Instruction(one.spec, operands, fields, one.waits, one.signals, one.debug)


def _rewritten(entry: Function, rows: Mapping[Engine, Rows], timeline: Timeline, border: int) -> Function:
    """The entry with its regions at their new places. border: what lies from there on stays."""
    return Function(entry.name, {engine: [_moved(instruction, rows.get(engine, {}).get(index), timeline, border)
                                          for index, instruction in enumerate(stream)]
                                 for engine, stream in entry.streams.items()})


def _moved(one: Instruction, changed: Instruction | None, timeline: Timeline, border: int) -> Instruction:
    """The instruction, or what stands in its place, with the tiles of its region moved."""
    shift = timeline.shift.get(one.debug, 0)
    if not shift:
        return changed or one
    new = changed or one
    operands = {name: at_offset(new.operands[name], shift) if operand.memory is Memory.SBUF and offset_of(operand) < border
                else new.operands[name] for name, operand in one.operands.items()}
    return Instruction(new.spec, operands, new.fields, new.waits, new.signals, new.debug)
