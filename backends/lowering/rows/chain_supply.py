"""What a chain of row programs loads once, in the order of use, and where it lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr
from nxcc.ir.diagnostics import OUT_OF_MEMORY, CompileError
from nxcc.ir.dtypes import F32


class Part:
    """size: bytes of a partition. load: loads it to an offset, or to fresh memory, and says what it became: its value."""

    __slots__ = ("size", "load", "value")

    def __init__(self, size: int, load: Callable[[Expr | None], Any]) -> None:
        self.size, self.load = size, load
        self.value: Any = None


class Supply:
    """Parts that follow each other: all of them stay or, with a ring, each takes a place that earlier ones have left."""

    def __init__(self, kernel: Kernel, parts: list[Part], ring: Ring | None = None) -> None:
        self.kernel, self.parts, self.ring = kernel, parts, ring
        self.brought = 0

    def advance(self, last: Part | None = None) -> None:
        """Load as many parts as there is room for, up to the last one that is wanted."""
        while self.brought < len(self.parts) and (last is None or last.value is None):
            part = self.parts[self.brought]
            offset = None if self.ring is None else self.ring.take(part)
            if self.ring is not None and offset is None:
                return
            part.value = part.load(offset)
            self.brought += 1

    def require(self, part: Part) -> Any:
        """The value of a part."""
        if part.value is None:
            self.advance()
        if part.value is None:
            raise CompileError(OUT_OF_MEMORY, f"{self.kernel.program.name} has no room for a matrix beside those before it")
        return part.value

    def release(self, part: Part) -> None:
        """Nothing that is written from here on reads the part."""
        if self.ring is not None:
            self.ring.release(part)
            self.advance()


class Places:
    """Places in a block of bytes of each partition for what is there from one member to another. size: of the block."""

    def __init__(self, align: int) -> None:
        self.align, self.size = align, 0
        self.taken: list[tuple[int, int, int, int]] = []

    def take(self, size: int, first: int, last: int) -> int:
        """The lowest place that nothing has while members first .. last work."""
        needed = -(-size // self.align) * self.align
        start = 0
        for low, high in sorted((low, high) for low, high, since, until in self.taken if since <= last and first <= until):
            if start + needed <= low:
                break
            start = max(start, high)
        self.taken.append((start, start + needed, first, last))
        self.size = max(self.size, start + needed)
        return start

    def top(self, first: int) -> int:
        """Where what is there before member `first` is done ends."""
        return max((high for _, high, since, _ in self.taken if since <= first), default=0)


class Ring:
    """Bytes of each partition in which parts follow each other round about."""

    def __init__(self, kernel: Kernel, size: int) -> None:
        self.align = kernel.target.sbuf.align_bytes
        self.size = min(size, kernel.sbuf_free_bytes) // self.align * self.align
        if self.size <= 0:
            raise CompileError(OUT_OF_MEMORY, f"{kernel.program.name} has no room for matrices")
        self.start = kernel.sbuf_at_end((kernel.target.partitions, self.size // F32.byte_size), F32).offset
        self.cursor = 0
        self.taken: list[tuple[int, int, Part]] = []

    def take(self, part: Part) -> Expr | None:
        """Where a part may lie, the next place behind the one before; None if there is no room yet."""
        needed = -(-part.size // self.align) * self.align
        starts = sorted({self.cursor, 0, *(high for _, high, _ in self.taken)}, key=lambda start: (start < self.cursor, start))
        for start in starts:
            end = start + needed
            if end <= self.size and not any(start < high and low < end for low, high, _ in self.taken):
                self.taken.append((start, end, part))
                self.cursor = end
                return self.start + start
        return None

    def release(self, part: Part) -> None:
        self.taken = [row for row in self.taken if row[2] is not part]
