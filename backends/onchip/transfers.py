"""A transfer of a straight stream: its two sides, what it moves, whether that is a weight."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from nxcc.backends.isa.addresses import extent
from nxcc.backends.isa.program import DmaPattern, Instruction, Memory


def side_of(transfer: Instruction, name: str) -> DmaPattern:
    """Its "source" or its "destination"."""
    side = transfer.operands[name]
    assert isinstance(side, DmaPattern)
    return side


def sizes_of(transfer: Instruction) -> tuple[int, ...]:
    """Elements of each dimension, the outermost first."""
    sizes: tuple[int, ...] = transfer.fields["sizes"]
    return sizes


def bytes_of(transfer: Instruction, name: str) -> int:
    """Bytes that it moves, as many as one of its sides has."""
    return math.prod(sizes_of(transfer)) * side_of(transfer, name).dtype.byte_size


def reach_of(transfer: Instruction, name: str) -> tuple[int, int]:
    """The lowest byte of a side's memory, and the one behind the highest."""
    side = side_of(transfer, name)
    low, high = extent(list(zip(side.strides, sizes_of(transfer), strict=True)), side.dtype.byte_size)
    return side.address.constant + low, side.address.constant + high


class Weights:
    """Where weights lie in device memory. spans: (address, bytes), ascending."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        self._spans = spans
        self._starts = [start for start, _ in spans]

    def feed(self, instruction: Instruction) -> bool:
        """Whether an instruction copies a part of one weight to the chip."""
        if instruction.spec.name != "dma_copy" or instruction.operands["source"].memory is not Memory.HBM \
                or instruction.operands["destination"].memory is not Memory.SBUF:
            return False
        low, high = reach_of(instruction, "source")
        number = bisect.bisect_right(self._starts, low) - 1
        return number >= 0 and high <= sum(self._spans[number])
