"""Weights that stay on chip: transfers that bring the same weights in every run move to an entry that runs once, when loading.

Before: an entry loads a tile of a weight from device memory wherever it needs one. After: the tile lies in a part of SBUF
that nothing else writes, the instructions that read it read it there, and where the transfer was triggered a `nop` keeps its
waits and signals, so that the order of the engines is as it was.

Programs without registers only: every address is a number, so one legal order of the streams tells which transfer each
read depends on (in a program without races every order tells the same). A transfer is left alone where a read mixes its bytes
with others', or where it fills only part of what is read. Tiles that are read together keep their places to each other.
Source: NEFF reference 7.3, queue sets that are `pinned` (fill the state buffer at model start, not written again; Inf1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from nxcc.backends import cost
from nxcc.backends.berths import FIRST_OF_REGIONS
from nxcc.backends.isa.instructions import control, dma
from nxcc.backends.isa.program import (
    Affine,
    Engine,
    Function,
    Instruction,
    Program,
    Resident,
    Signal,
    Wait,
)
from nxcc.backends.onchip.reads import Load, Trace, at_offset
from nxcc.backends.target import Target
from nxcc.ir.facts import dataclass

ROW = 32
"""Partitions that a block takes together; those between two places where an operand may start."""

BOUNDARY = 64
"""Bytes; a tile keeps its place relative to these, and with it the alignment of what reads it."""

Rows = dict[Engine, dict[int, Instruction]]
"""What stands in place of an instruction of an entry, by engine and index."""

LOAD_ENTRY = "load"
"""The entry that fills what stays on chip."""


@dataclass(frozen=True)
class Pinned:
    """program: with the entry LOAD_ENTRY if anything is pinned. pinned_bytes: of weights that stay on chip. streamed_bytes: of
    weights that every run brings, each time counted. wanted_bytes: what all that can stay would take of a partition.
    needs: bytes of SBUF that it would take, by debug index of the region that reads it first.
    """

    program: Program
    pinned_bytes: int
    streamed_bytes: int
    wanted_bytes: int
    needs: Mapping[int, int]


def pin(program: Program, weights: Iterable[tuple[int, int]], target: Target, room: int | None = None) -> Pinned:
    """Pin as many of the weights as fit.

    weights: (address, bytes) of the blocks of the arena that the loader fills. room: bytes of a partition to take; by default
    what the program leaves free. Tiles whose transfers take longest for their bytes come first.
    """
    assert not program.functions, "streams are straight"
    spans = sorted(weights)
    traces = [Trace(entry, spans, target) for entry in program.entries]
    blocks = _blocks(traces)
    align = target.sbuf.align_bytes
    start = -(-program.sbuf_bytes // align) * align
    wanted = _Rows(align)
    for block in blocks:
        wanted.put(block)
    needs: Counter[int] = Counter()
    for block in blocks:
        needs[block.tiles[0].loads[0].instruction.debug] += block.size * len(block.rows) * ROW
    chosen = _choose(blocks, target.sbuf.usable_bytes - start if room is None else room, target)
    moved = [(block, start + offset) for block, offset in chosen]
    streams: list[Rows] = [{engine: {} for engine in entry.streams} for entry in program.entries]
    gone = 0
    for block, base in moved:
        for tile in block.tiles:
            gone += tile.bytes
            _rewrite(program.entries[tile.entry], streams[tile.entry], tile, base - tile.low)
    everything = sum(load.bytes for trace in traces for load in trace.loads)
    if not moved:
        return Pinned(program, 0, everything, wanted.top, needs)
    entries = [_changed(entry, rows) for entry, rows in zip(program.entries, streams, strict=True)]
    changed = replace(
        program, entries=[*entries, _load_entry(moved, list(program.entries[0].streams), target)],
        sbuf_bytes=start + max(offset + block.size for block, offset in chosen),
        semaphores=max(program.semaphores, FIRST_OF_REGIONS + 1), resident=Resident(LOAD_ENTRY, start))
    return Pinned(changed, sum(block.tiles[0].bytes for block, _ in moved), everything - gone, wanted.top, needs)


@dataclass
class _Tile:
    """Loads of one entry whose bytes are read together."""

    entry: int
    loads: list[Load]

    @property
    def bytes(self) -> int:
        return sum(load.bytes for load in self.loads)

    @property
    def low(self) -> int:
        """Where it begins in its partitions, down to a boundary that every alignment divides."""
        return min(load.low for load in self.loads) // BOUNDARY * BOUNDARY

    def key(self) -> Any:
        """Equal for tiles that hold the same weights in the same shape."""
        return tuple(sorted((load.first, load.low - self.low, load.source.address.constant, load.source.dtype.name,
                             load.source.strides, load.target.strides, load.sizes) for load in self.loads))


@dataclass
class _Block:
    """A place on chip for equal tiles."""

    tiles: list[_Tile] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of a partition."""
        return max(load.high for load in self.tiles[0].loads) - self.tiles[0].low

    @property
    def rows(self) -> range:
        loads = self.tiles[0].loads
        return range(min(load.first for load in loads) // ROW, -(-max(load.last for load in loads) // ROW))

    def ticks(self, target: Target) -> int:
        """Ticks of the DMA engines that pinning saves in each run."""
        return sum(cost.transfer(load.instruction, target).data for tile in self.tiles for load in tile.loads)


def _blocks(traces: Sequence[Trace]) -> list[_Block]:
    """A block for the tiles of all entries that hold the same, widest rows first."""
    found: dict[Any, _Block] = {}
    for number, trace in enumerate(traces):
        for loads in trace.tiles():
            tile = _Tile(number, loads)
            found.setdefault(tile.key(), _Block()).tiles.append(tile)
    return sorted(found.values(), key=lambda block: -len(block.rows))


class _Rows:
    """The next free byte of each row of partitions."""

    def __init__(self, align: int) -> None:
        self.align = align
        self.next: dict[int, int] = {}

    def put(self, block: _Block, limit: int | None = None) -> int | None:
        """Where the block lies, from the start of what stays; None if it would end beyond the limit."""
        offset = max((self.next.get(row, 0) for row in block.rows), default=0)
        end = -(-(offset + block.size) // self.align) * self.align
        if limit is not None and offset + block.size > limit:
            return None
        self.next |= dict.fromkeys(block.rows, end)
        return offset

    @property
    def top(self) -> int:
        return max(self.next.values(), default=0)


def _choose(blocks: list[_Block], room: int, target: Target) -> list[tuple[_Block, int]]:
    """Blocks that fit, with their offsets: all if they do, else those that save most for the bytes they take."""
    def saving(block: _Block) -> float:
        return -block.ticks(target) / (block.size * len(block.rows))

    rows = _Rows(target.sbuf.align_bytes)
    found = []
    for block in sorted(blocks, key=saving) if _overflows(blocks, room, target) else blocks:
        offset = rows.put(block, room)
        if offset is not None:
            found.append((block, offset))
    return found


def _overflows(blocks: list[_Block], room: int, target: Target) -> bool:
    rows = _Rows(target.sbuf.align_bytes)
    return any(rows.put(block, room) is None for block in blocks)


def _rewrite(entry: Function, rows: Rows, tile: _Tile, shift: int) -> None:
    """Put a tile's loads out of action and let its readers read at its new place."""
    for load in tile.loads:
        one = load.instruction
        rows[load.engine][load.index] = Instruction(control.NOP, waits=one.waits, signals=one.signals, debug=one.debug)
        for engine, index, name in load.readers:
            reader = rows[engine].get(index) or entry.streams[engine][index]
            operands = reader.operands | {name: at_offset(reader.operands[name], shift)}
            rows[engine][index] = Instruction(reader.spec, operands, reader.fields, reader.waits, reader.signals, reader.debug)


def _changed(entry: Function, rows: Rows) -> Function:
    return Function(entry.name, {engine: [rows[engine].get(index, one) for index, one in enumerate(stream)]
                                 for engine, stream in entry.streams.items()})


def _load_entry(moved: Sequence[tuple[_Block, int]], engines: Iterable[Engine], target: Target) -> Function:
    """Each pinned tile once, triggered by the Sync engine, which waits for all of them together."""
    stream: list[Instruction] = []
    semaphore, total = Affine(FIRST_OF_REGIONS), 0
    for block, base in moved:
        shift = base - block.tiles[0].low
        for load in block.tiles[0].loads:
            amount = sum(signal.amount for signal in load.instruction.signals)
            operands = {"source": load.source, "destination": at_offset(load.target, shift)}
            fields = load.instruction.fields | {"queue": target.dma.queues}
            stream.append(Instruction(dma.DMA_COPY, operands, fields, signals=(Signal(semaphore, amount),),
                                      debug=load.instruction.debug))
            total += amount
    stream.append(Instruction(control.NOP, waits=(Wait(semaphore, Affine(total)),)))
    halt = Instruction(control.HALT)
    return Function(LOAD_ENTRY, {engine: [*(stream if engine is Engine.SYNC else ()), halt] for engine in engines})
