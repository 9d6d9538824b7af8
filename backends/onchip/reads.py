"""Which transfer each read of SBUF depends on, for straight streams: one legal order is followed, a byte at a time.

Bytes and partitions that no access tells apart are one: bytes in grains of which all accesses are multiples, partitions in rows
between the bounds of all accesses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import field, replace

import numpy as np

from nxcc.backends.isa.addresses import extent, split
from nxcc.backends.isa.program import (
    DMA_PARTITION_STRIDE,
    AccessPattern,
    Affine,
    DmaPattern,
    Engine,
    Function,
    Instruction,
    Memory,
    Operand,
)
from nxcc.backends.onchip.transfers import Weights, bytes_of, side_of, sizes_of
from nxcc.backends.target import Target
from nxcc.ir.facts import dataclass

NOBODY = 0


@dataclass(eq=False)
class Load:
    """A transfer of a piece of a weight into SBUF: partitions first..last-1, bytes low..high-1 of each.

    readers: engine, index and operand of what reads it. partner: another load whose bytes are read together with its own;
    is_mixed: with bytes that are no weight's, or not certain.
    """

    engine: Engine
    index: int
    instruction: Instruction
    first: int
    last: int
    low: int
    high: int
    readers: list[tuple[Engine, int, str]] = field(default_factory=list)
    partner: Load | None = None
    is_mixed: bool = False

    @property
    def source(self) -> DmaPattern:
        return side_of(self.instruction, "source")

    @property
    def target(self) -> DmaPattern:
        return side_of(self.instruction, "destination")

    @property
    def sizes(self) -> tuple[int, ...]:
        return sizes_of(self.instruction)

    @property
    def bytes(self) -> int:
        return bytes_of(self.instruction, "source")

    def root(self) -> Load:
        """The load that stands for all that are read together with this one."""
        root = self
        while root.partner is not None:
            root = root.partner
        return root


@dataclass(frozen=True, slots=True)
class Footprint:
    """Ranges of partitions and, in each, the bytes at `offset` with a walk over (stride, size), all in bytes.

    is_exact: all of these bytes are touched in all of these partitions; otherwise some may not be.
    """

    partitions: tuple[tuple[int, int], ...]
    offset: int
    dims: tuple[tuple[int, int], ...]
    item: int
    is_exact: bool = True

    @property
    def low(self) -> int:
        return self.offset + extent(list(self.dims), self.item)[0]

    @property
    def high(self) -> int:
        return self.offset + extent(list(self.dims), self.item)[1]


def footprint(operand: Operand, sizes: Sequence[int]) -> Footprint:
    """Where an operand with a constant address touches SBUF. sizes: of the transfer."""
    item = operand.dtype.byte_size
    if isinstance(operand, AccessPattern):
        dims = tuple([(stride * item, size) for stride, size in operand.dims])
        return Footprint(((operand.partition, operand.partition + operand.partitions),), operand.offset.constant, dims, item)
    partition, offset = divmod(operand.address.constant, DMA_PARTITION_STRIDE)
    steps = [(split(stride), size) for stride, size in zip(operand.strides, sizes, strict=True)]
    touched = {partition}
    for step, size in steps:
        if step[0]:
            touched = {start + step[0] * i for start in touched for i in range(size)}
    dims = tuple((step[1], size) for step, size in steps if step[1])
    return Footprint(_ranges(touched), offset, dims, item, not any(step[0] and step[1] and size > 1 for step, size in steps))


def _ranges(numbers: set[int]) -> tuple[tuple[int, int], ...]:
    """Ascending numbers as half-open ranges."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number:
            found[-1][1] = number + 1
        else:
            found.append([number, number + 1])
    return tuple((first, last) for first, last in found)


def offset_of(operand: Operand) -> int:
    """The byte of its partition at which an operand with a constant address begins."""
    if isinstance(operand, AccessPattern):
        return operand.offset.constant
    return operand.address.constant % DMA_PARTITION_STRIDE


def at_offset(operand: Operand, shift: int) -> Operand:
    """The operand with its bytes moved within their partitions."""
    if isinstance(operand, AccessPattern):
        return replace(operand, offset=Affine(operand.offset.constant + shift))
    return replace(operand, address=Affine(operand.address.constant + shift))


def legal_order(entry: Function) -> Iterator[tuple[Engine, int, Instruction]]:
    """The instructions of straight streams in an order that their waits allow; transfers are done at once."""
    counts: dict[int, int] = {}
    at = dict.fromkeys(entry.streams, 0)
    progress = True
    while progress:
        progress = False
        for engine, stream in entry.streams.items():
            while at[engine] < len(stream):
                instruction = stream[at[engine]]
                if any(counts.get(wait.index.constant, 0) < wait.value.constant for wait in instruction.waits):
                    break
                yield engine, at[engine], instruction
                for signal in instruction.signals:
                    counts[signal.index.constant] = counts.get(signal.index.constant, 0) + signal.amount
                at[engine] += 1
                progress = True
    assert all(at[engine] == len(stream) for engine, stream in entry.streams.items()), "the engines wait for each other"


Touch = tuple[str, str, Footprint]
"""An operand in SBUF: its name, how it is accessed ("r", "w", "rw"), where."""


class Trace:
    """Follows one entry. loads: its transfers of weights, in order; spans: (address, bytes) of the weights, ascending."""

    def __init__(self, entry: Function, spans: Sequence[tuple[int, int]], target: Target) -> None:
        self.weights = Weights(spans)
        self.loads: list[Load] = []
        steps = [(engine, index, instruction, _touched(instruction)) for engine, index, instruction in legal_order(entry)]
        steps = [step for step in steps if step[3]]
        self._divide([place for *_, touches in steps for _, _, place in touches], target.sbuf.partition_bytes)
        for engine, index, instruction, touches in steps:
            for name, access, place in touches:
                if "r" in access:
                    self._read(place, (engine, index, name), "w" in access)
            for _, access, place in touches:
                if "w" in access:
                    self._write(place, self._load(engine, index, instruction, place))

    def tiles(self) -> Iterator[list[Load]]:
        """Loads that belong together, as far as all of them could stay on chip."""
        found: dict[int, list[Load]] = {}
        for load in self.loads:
            found.setdefault(id(load.root()), []).append(load)
        return (loads for loads in found.values() if not any(load.is_mixed for load in loads))

    def _divide(self, places: Sequence[Footprint], partition_bytes: int) -> None:
        """Rows of partitions, and grains of bytes, such that no access covers a part of one."""
        ranges = {(first, last) for place in places for first, last in place.partitions}
        bounds = sorted({bound for pair in ranges for bound in pair})
        number = {bound: index for index, bound in enumerate(bounds)}
        self.rows = {pair: slice(number[pair[0]], number[pair[1]]) for pair in ranges}
        self.grain = math.gcd(partition_bytes, *{number for place in places for number in (
            place.offset, place.item, *[stride for stride, _ in place.dims])})
        self.owners = np.zeros((len(bounds), partition_bytes // self.grain), np.int32)

    def _load(self, engine: Engine, index: int, instruction: Instruction, place: Footprint) -> int:
        """The number of the load that the instruction is, NOBODY if it is none."""
        if not self.weights.feed(instruction):
            return NOBODY
        first, last = place.partitions[0][0], place.partitions[-1][1]
        self.loads.append(Load(engine, index, instruction, first, last, place.low, place.high, is_mixed=not place.is_exact))
        return len(self.loads)

    def _cells(self, place: Footprint) -> Iterator[np.ndarray]:
        """The owners' cells that a footprint touches, for each of its ranges of partitions."""
        sizes = [*[size for _, size in place.dims], place.item // self.grain]
        strides = [4 * stride // self.grain for stride, _ in place.dims] + [4]
        for pair in place.partitions:
            rows = self.owners[self.rows[pair]]
            yield np.ndarray((len(rows), *sizes), np.int32, rows, 4 * place.offset // self.grain, (rows.strides[0], *strides))

    def _owners(self, place: Footprint) -> set[int]:
        found: set[int] = set()
        for cells in self._cells(place):
            first = int(cells.min())
            found |= {first} if first == int(cells.max()) else {int(n) for n in np.unique(cells)}
        return found

    def _read(self, place: Footprint, reader: tuple[Engine, int, str], is_written: bool) -> None:
        numbers = self._owners(place)
        loads = [self.loads[number - 1] for number in sorted(numbers - {NOBODY})]
        for load in loads:
            load.is_mixed |= is_written or NOBODY in numbers
            _join(loads[0], load)
        if loads:
            loads[0].readers.append(reader)

    def _write(self, place: Footprint, number: int) -> None:
        if not place.is_exact:
            for before in self._owners(place) - {NOBODY}:
                self.loads[before - 1].is_mixed = True
        for cells in self._cells(place):
            cells[...] = number


def _touched(instruction: Instruction) -> list[Touch]:
    sizes = instruction.fields.get("sizes", ())
    return [(declared.name, declared.access, footprint(instruction.operands[declared.name], sizes))
            for declared in instruction.spec.operands
            if declared.name in instruction.operands and instruction.operands[declared.name].memory is Memory.SBUF]


def _join(one: Load, other: Load) -> None:
    first, second = one.root(), other.root()
    if first is not second:
        second.partner = first
