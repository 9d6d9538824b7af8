"""The HBM arena: one address space for inputs, weights, constants, outputs and scratch values."""

from __future__ import annotations

import bisect

from nxcc.backends.tile.program import ARGUMENT_UNIT
from nxcc.ir.diagnostics import OUT_OF_MEMORY, CompileError
from nxcc.ir.facts import dataclass


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A block of bytes that holds values from the first to the last of these regions, and nothing that outlives a run."""

    address: int
    size: int
    first: int
    last: int


class Buffer:
    """A block of the arena. references: values that live in it; pinned blocks are never given back.

    mutable: a region may write its result over the old content once nobody else reads it. loans: references whose holders
    allow that, such as the loop that owns a carried value. first: the region for which it was made.
    """

    __slots__ = ("address", "size", "references", "pinned", "mutable", "loans", "first")

    def __init__(self, address: int, size: int, pinned: bool, mutable: bool, first: int = 0) -> None:
        self.address = address
        self.size = size
        self.references = 0
        self.pinned = pinned
        self.mutable = mutable
        self.loans = 0
        self.first = first


class Arena:
    """First-fit allocator over a growing range; neighbours that are free are joined.

    region: the number of the next region, kept by the caller. lifetimes: of blocks that were given back.
    """

    def __init__(self, limit: int, region: int = 0) -> None:
        self.limit = limit
        self.end = 0
        self.region = region
        self.lifetimes: list[Lifetime] = []
        self._free: list[tuple[int, int]] = []

    def allocate(self, size: int, *, pinned: bool = False, mutable: bool = True) -> Buffer:
        """A block of at least `size` bytes, aligned to ARGUMENT_UNIT; CompileError(NXC0302) beyond the device's memory.

        A pinned block has its content before the program starts and keeps it to the end, so it shares memory with no other.
        """
        rounded = max(ARGUMENT_UNIT, -(-size // ARGUMENT_UNIT) * ARGUMENT_UNIT)
        if pinned:
            return self._extend(rounded, True, mutable)
        for index, (start, length) in enumerate(self._free):
            if length >= rounded:
                if length == rounded:
                    del self._free[index]
                else:
                    self._free[index] = (start + rounded, length - rounded)
                return Buffer(start, rounded, pinned, mutable, self.region)
        if self._free and sum(self._free[-1]) == self.end:
            self.end = self._free.pop()[0]
        return self._extend(rounded, pinned, mutable)

    def _extend(self, size: int, pinned: bool, mutable: bool) -> Buffer:
        start = self.end
        self.end = start + size
        if self.end > self.limit:
            raise CompileError(OUT_OF_MEMORY, f"the module needs more than the {self.limit} bytes of device memory a core has",
                               remedy="use a smaller batch, a narrower dtype (--auto-cast all) or shard the model")
        return Buffer(start, size, pinned, mutable, self.region)

    def retain(self, buffer: Buffer) -> None:
        buffer.references += 1

    def release(self, buffer: Buffer) -> None:
        """Drop one reference; the block is free when none is left."""
        buffer.references -= 1
        if buffer.references == 0 and not buffer.pinned:
            self.lifetimes.append(Lifetime(buffer.address, buffer.size, buffer.first, self.region - 1))
            self._give_back(buffer.address, buffer.size)

    def _give_back(self, start: int, size: int) -> None:
        index = bisect.bisect(self._free, (start, 0))
        if index < len(self._free) and start + size == self._free[index][0]:
            size += self._free.pop(index)[1]
        if index and sum(self._free[index - 1]) == start:
            start, before = self._free.pop(index - 1)
            size += before
            index -= 1
        self._free.insert(index, (start, size))
