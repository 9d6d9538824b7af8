"""The memories of one core as host arrays, and the numpy views that operands are.

SBUF and PSUM are held with a row pitch that is not a power of two: partitions a multiple of 4 KiB apart would fall into
the same cache sets, which makes column-wise work several times slower. Only this file knows the pitch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np

from nxcc.backends.isa.program import DMA_PARTITION_STRIDE, AccessPattern, Affine, DmaPattern, Memory
from nxcc.ir.diagnostics import PROGRAM_INVALID, CompileError
from nxcc.ir.dtypes import PRED, DType

Array = np.ndarray[Any, np.dtype[Any]]
PITCH_PADDING = 192
"""Bytes added to each partition's row; not a multiple of 256, so that neighbouring partitions use different cache sets."""

_RAW = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}


def invalid(what: str, why: str = "") -> CompileError:
    """The error of a program that breaks a rule; whoever runs the instruction adds where."""
    return CompileError(PROGRAM_INVALID, what, why=why)


def storage(dtype: DType) -> np.dtype[Any]:
    """The numpy type of elements in memory; pred is a byte of any value, which numpy's bool must not hold."""
    return _RAW[1] if dtype is PRED else dtype.numpy


def raw(dtype: DType) -> np.dtype[Any]:
    """The unsigned integer type that moves elements of this dtype bit by bit; complex128 has none."""
    if dtype.byte_size not in _RAW:
        raise invalid(f"elements of {dtype} cannot be moved")
    return _RAW[dtype.byte_size]


def extent(dims: Iterable[tuple[int, int]], item_bytes: int) -> tuple[int, int]:
    """Lowest byte and one past the highest that a walk over (stride in bytes, size) touches, from its start."""
    low = high = 0
    for stride, size in dims:
        reach = stride * (size - 1)
        low, high = low + min(reach, 0), high + max(reach, 0)
    return low, high + item_bytes


class View:
    """An operand of a compute instruction: makes the array for an evaluated offset.

    affine: the register-dependent part that `at` takes evaluated. low, high: bytes touched in a partition, relative to it.
    """

    __slots__ = ("affine", "shape", "dtype", "strides", "low", "high", "limit", "origin", "buffer", "memory")

    def __init__(self, memories: Memories, pattern: AccessPattern, dims: Sequence[tuple[int, int]],
                 dtype: np.dtype[Any] | None = None) -> None:
        """pattern with its free dimensions given anew as `dims` (stride in elements, size); dtype: another of equal size."""
        self.memory, self.affine = pattern.memory, pattern.offset
        self.buffer, self.limit, pitch = memories.on_chip(pattern.memory)
        if pattern.partition < 0 or pattern.partitions < 1 or pattern.partition + pattern.partitions > memories.partitions:
            raise invalid(f"partitions {pattern.partition}..{pattern.partition + pattern.partitions - 1} do not exist")
        if any(size < 1 for _, size in dims):
            raise invalid("an access pattern has an empty dimension")
        self.dtype = dtype if dtype is not None else storage(pattern.dtype)
        item = self.dtype.itemsize
        in_bytes = [(stride * item, size) for stride, size in dims]
        self.shape = (pattern.partitions, *(size for _, size in in_bytes))
        self.strides = (pitch, *(stride for stride, _ in in_bytes))
        self.low, self.high = extent(in_bytes, item)
        self.origin = pattern.partition * pitch

    def at(self, offset: int) -> Array:
        if offset + self.low < 0 or offset + self.high > self.limit:
            raise invalid(f"bytes {offset + self.low}..{offset + self.high - 1} lie outside a partition of {self.memory!r}",
                          f"it has {self.limit} bytes")
        return np.ndarray(self.shape, self.dtype, self.buffer, self.origin + offset, self.strides)


class LinearView:
    """One side of a DMA in HBM: makes the array for an evaluated address."""

    __slots__ = ("affine", "shape", "dtype", "strides", "low", "high", "buffer", "memory")

    def __init__(self, memories: Memories, address: Affine, dtype: np.dtype[Any], sizes: Sequence[int],
                 strides: Sequence[int]) -> None:
        self.memory, self.affine, self.buffer, self.dtype = Memory.HBM, address, memories.hbm, dtype
        self.shape, self.strides = tuple(sizes), tuple(strides)
        self.low, self.high = extent(zip(strides, sizes, strict=True), dtype.itemsize)

    def at(self, address: int) -> Array:
        if address + self.low < 0 or address + self.high > self.buffer.size:
            raise invalid(f"bytes {address + self.low}..{address + self.high - 1} lie outside HBM",
                          f"the program's arena has {self.buffer.size} bytes")
        return np.ndarray(self.shape, self.dtype, self.buffer, address, self.strides)


class SbufLinearView:
    """One side of a DMA in SBUF: addresses and strides are those of the linear map, p * DMA_PARTITION_STRIDE + byte.

    Each stride is split into a step over partitions and one over bytes. The split follows from where the walk stays inside
    partitions, so it is made for the first address and kept while it fits.
    """

    __slots__ = ("affine", "shape", "dtype", "linear", "strides", "low", "high", "steps", "memories", "memory")

    def __init__(self, memories: Memories, address: Affine, dtype: np.dtype[Any], sizes: Sequence[int],
                 strides: Sequence[int]) -> None:
        self.memory, self.affine, self.memories, self.dtype = Memory.SBUF, address, memories, dtype
        self.shape, self.linear = tuple(sizes), tuple(strides)
        self._split(tuple(self._steps(stride)[0] for stride in strides))

    def _steps(self, stride: int) -> tuple[int, int]:
        """The two possible partition steps of a stride, the nearer first."""
        below = stride // DMA_PARTITION_STRIDE
        return (below, below + 1) if stride % DMA_PARTITION_STRIDE < DMA_PARTITION_STRIDE // 2 else (below + 1, below)

    def _split(self, partition_steps: tuple[int, ...]) -> None:
        byte_steps = [s - k * DMA_PARTITION_STRIDE for s, k in zip(self.linear, partition_steps, strict=True)]
        self.low, self.high = extent(zip(byte_steps, self.shape, strict=True), self.dtype.itemsize)
        self.steps = extent(zip(partition_steps, self.shape, strict=True), 1)
        self.strides = tuple(k * self.memories.sbuf_pitch + b for k, b in zip(partition_steps, byte_steps, strict=True))

    def fits(self, address: int) -> bool:
        partition, byte = divmod(address, DMA_PARTITION_STRIDE)
        return bool(byte + self.low >= 0 and byte + self.high <= self.memories.sbuf_bytes
                and partition + self.steps[0] >= 0 and partition + self.steps[1] <= self.memories.partitions)

    def _find_split(self, address: int) -> None:
        for choice in product(*(self._steps(stride) for stride in self.linear)):
            self._split(choice)
            if self.fits(address):
                return
        raise invalid(f"a transfer at SBUF address {address:#x} leaves the partitions",
                      f"sizes {self.shape}, strides {self.linear}")

    def at(self, address: int) -> Array:
        if not self.fits(address):
            self._find_split(address)
        partition, byte = divmod(address, DMA_PARTITION_STRIDE)
        memories = self.memories
        return np.ndarray(self.shape, self.dtype, memories.sbuf, partition * memories.sbuf_pitch + byte, self.strides)


AnyView = View | LinearView | SbufLinearView


class Memories:
    """SBUF, PSUM and HBM of one core, as bytes.

    sbuf_bytes, psum_bytes: of one partition. HBM is zero and takes host memory only where it is touched.
    """

    def __init__(self, hbm_bytes: int, sbuf_bytes: int, psum_bytes: int, partitions: int) -> None:
        self.partitions, self.sbuf_bytes, self.psum_bytes = partitions, sbuf_bytes, psum_bytes
        self.sbuf_pitch, self.psum_pitch = sbuf_bytes + PITCH_PADDING, psum_bytes + PITCH_PADDING
        self.sbuf = np.zeros(partitions * self.sbuf_pitch, np.uint8)
        self.psum = np.zeros(partitions * self.psum_pitch, np.uint8)
        self.hbm = np.zeros(hbm_bytes, np.uint8)

    def on_chip(self, memory: Memory) -> tuple[Array, int, int]:
        """Bytes, bytes usable in a partition, and row pitch of SBUF or PSUM."""
        if memory is Memory.SBUF:
            return self.sbuf, self.sbuf_bytes, self.sbuf_pitch
        if memory is Memory.PSUM:
            return self.psum, self.psum_bytes, self.psum_pitch
        raise invalid("a compute operand lies in HBM")

    def dma_view(self, pattern: DmaPattern, sizes: Sequence[int], strides: Sequence[int],
                 dtype: np.dtype[Any] | None = None) -> LinearView | SbufLinearView:
        """The walk of one side of a DMA; sizes and strides (bytes) replace the pattern's."""
        if pattern.memory is Memory.PSUM:
            raise invalid("a DMA cannot reach PSUM")
        kind = LinearView if pattern.memory is Memory.HBM else SbufLinearView
        return kind(self, pattern.address, dtype if dtype is not None else storage(pattern.dtype), sizes, strides)


def merge(sizes: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Drop dimensions of one element and join neighbours that every operand walks in one step.

    strides: one list an operand, in any unit. Returns the new sizes and strides; no dimension is left of a single element.
    """
    kept: list[int] = []
    columns: list[list[int]] = []
    for size, *column in zip(sizes, *strides, strict=True):
        if size == 1:
            continue
        if kept and all(outer == inner * size for outer, inner in zip(columns[-1], column, strict=True)):
            kept[-1], columns[-1] = kept[-1] * size, column
        else:
            kept.append(size)
            columns.append(column)
    return kept, [[column[k] for column in columns] for k in range(len(strides))]


def refine(dims: Sequence[Sequence[tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    """Cut the free dimensions of several operands so that all have the same sizes, then merge what can be.

    dims: per operand (stride, size), of equal products. Raises PROGRAM_INVALID if no common cutting exists.
    """
    sizes: list[int] = []
    strides: list[list[int]] = [[] for _ in dims]
    rest = [[list(pair) for pair in operand if pair[1] != 1] for operand in dims]
    while any(rest):
        if not all(rest):
            raise invalid("operands differ in their number of elements")
        step = min(operand[-1][1] for operand in rest)
        if any(operand[-1][1] % step for operand in rest):
            raise invalid("the free dimensions of the operands do not fit together")
        sizes.insert(0, step)
        for operand, column in zip(rest, strides, strict=True):
            stride, size = operand[-1]
            column.insert(0, stride)
            operand[-1] = [stride * step, size // step]
            if size == step:
                operand.pop()
    kept, merged = merge(sizes, strides)
    return [list(zip(column, kept, strict=True)) for column in merged]
