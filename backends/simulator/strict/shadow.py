"""Who wrote and read each byte of memory last, for the strict mode."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nxcc.backends.isa.program import Memory
from nxcc.backends.simulator.memory import Array, extent

NOBODY, FIRST_EVENT = 0, 1
"""Numbers of accesses: of bytes that no instruction wrote, and of the first access."""


class Shadow:
    """Access numbers of a memory's bytes: the last writer's, and the last reader's of each kind of reader.

    Arrays are made when first used, and take host memory only where memory is touched.
    """

    def __init__(self, memory: Memory, buffer: Array) -> None:
        self.memory, self.buffer = memory, buffer
        self.base = int(buffer.__array_interface__["data"][0])
        self.writer = np.zeros(buffer.size, np.int32)
        self.readers: dict[int, Array] = {}
        self.marks = np.zeros(buffer.size, np.uint8)
        self.host: list[tuple[int, int]] = []
        """Ranges that the host wrote; weights are too large for an entry a byte."""

    def host_wrote(self, start: int, stop: int) -> None:
        """Remember a range, joined with those it touches."""
        touching = [r for r in self.host if r[0] <= stop and start <= r[1]]
        self.host = [r for r in self.host if r not in touching]
        self.host.append((min([start, *(r[0] for r in touching)]), max([stop, *(r[1] for r in touching)])))

    def unwritten(self, array: Array) -> Array | None:
        """Which bytes of an array nobody wrote, [..., bytes of an element]; None if all are written."""
        written = self.cells(array, self.writer)
        if written.all():
            return None
        start = self.offset(array)
        low, high = extent(zip(array.strides, array.shape, strict=True), array.dtype.itemsize)
        if any(first <= start + low and start + high <= last for first, last in self.host):
            return None
        missing = written == NOBODY
        places = start + sum(np.ogrid[tuple(slice(n) for n in missing.shape)][axis] * stride
                             for axis, stride in enumerate((*array.strides, 1)))
        for first, last in self.host:
            missing &= (places < first) | (places >= last)
        return missing if missing.any() else None

    def forget(self) -> None:
        """Nothing was written or read."""
        self.writer = np.zeros(self.buffer.size, np.int32)
        self.readers.clear()

    def offset(self, array: Array) -> int:
        """Where in the buffer the array's first element lies."""
        start: int = array.__array_interface__["data"][0]
        return start - self.base

    def cells(self, array: Array, of: Array) -> Array:
        """The entries of `of` (one a byte) for each byte of each element of the array, a view [..., bytes of an element]."""
        width = of.dtype.itemsize
        strides = (*(stride * width for stride in array.strides), width)
        return np.ndarray((*array.shape, array.dtype.itemsize), of.dtype, of, self.offset(array) * width, strides)

    def reader(self, kind: int) -> Array:
        if kind not in self.readers:
            self.readers[kind] = np.zeros(self.buffer.size, np.int32)
        return self.readers[kind]

    def overlap(self, first: Array, second: Array) -> bool:
        """Whether two arrays share a byte, exactly."""
        if not np.may_share_memory(first, second):
            return False
        self.cells(first, self.marks)[...] = 1
        shared = bool(self.cells(second, self.marks).any())
        self.cells(first, self.marks)[...] = 0
        return shared


def numbers(cells: Array, since: int) -> Iterator[int]:
    """The distinct access numbers in cells from `since` on."""
    low, high = int(cells.min()), int(cells.max())
    if high < since:
        return iter(())
    found = [high] if low == high else [int(n) for n in np.unique(cells) if n >= since]
    return iter(found)


def place_of(shadow: Shadow, array: Array, bad: Array, pitch: int) -> str:
    """Memory, partition and byte of the first of an array's bytes that is bad, for messages."""
    index = tuple(int(k[0]) for k in np.nonzero(bad))
    at = shadow.offset(array) + sum(k * stride for k, stride in zip(index, (*array.strides, 1), strict=True))
    if shadow.memory is Memory.HBM:
        return f"HBM byte {at}"
    return f"{shadow.memory.name} partition {at // pitch} byte {at % pitch}"
