"""Indices as 32-bit words on tiles, and the element offsets that they name: made on GpSimd, whose integers are native."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.tiling import unfolded
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import S32, S64, U32, U64

LARGEST = 2**31 - 1

Places = tuple[Access, Access]
"""Where windows are read and where they are written: element offsets [1, n]."""


def index_words(kernel: Kernel, indices: View, *, rows: bool) -> list[Access]:
    """Components of [n, components] indices as s32 tiles: [n, 1] if rows, else [1, n]; see `word_tiles`."""
    return word_tiles(kernel, indices.insert(1 if rows else 0))


def word_tiles(kernel: Kernel, indices: View) -> list[Access]:
    """Components of indices [partitions.., n, components] as s32 tiles [partitions, n].

    Values beyond the range of s32 become the largest s32 or a negative number, so that what is out of bounds stays so.
    """
    sizes = (math.prod(indices.sizes[:-2]), *indices.sizes[-2:])
    if not sizes[-1]:
        return []
    if indices.dtype in (S64, U64):
        words = kernel.sbuf((*sizes, 2), S32)
        halves = View(indices.memory, S32, indices.address, (*indices.dims, (4, 2)))
        kernel.dma(unfolded(words, halves), halves)
        tile = kernel.sbuf(sizes, S32)
        _saturate(kernel, tile, words.at(2, 0), words.at(2, 1), indices.dtype is S64)
    elif indices.dtype is U32:
        raw, tile = kernel.sbuf(sizes, S32), kernel.sbuf(sizes, S32)
        kernel.dma(unfolded(raw, indices), indices.retype(S32))
        _saturate(kernel, tile, raw, None, False)
    else:
        tile = kernel.sbuf(sizes, S32)
        kernel.dma(unfolded(tile, indices), indices)
    return [tile.at(1, component) for component in range(sizes[-1])]


def _saturate(kernel: Kernel, out: Access, low: Access, high: Access | None, signed: bool) -> None:
    """out = an integer of an unsigned low word and, maybe, a high word, in the range of s32; -1 for all negative ones."""
    def native(to: Access, data: Access, op0: str, scalar0: float, op1: str = "bypass", scalar1: float = 0.0) -> None:
        kernel.tensor_scalar(to, data, op0, scalar0, op1, scalar1, engine=Engine.GPSIMD)

    over, part = kernel.sbuf(out.sizes, S32), kernel.sbuf(out.sizes, S32)
    native(over, low, "less", 0)
    if high is not None:
        native(part, high, "not_equal", 0)
        kernel.tensor_tensor(over, over, part, "maximum", Engine.GPSIMD)
    native(part, over, "multiply", -1, "add", 1)
    kernel.tensor_tensor(out, low, part, "multiply", Engine.GPSIMD)
    native(over, over, "multiply", LARGEST)
    kernel.tensor_tensor(out, out, over, "add", Engine.GPSIMD)
    if high is not None and signed:
        native(part, high, "greater_equal", 0)
        kernel.tensor_tensor(out, out, part, "multiply", Engine.GPSIMD)
        native(part, part, "subtract", 1)
        kernel.tensor_tensor(out, out, part, "add", Engine.GPSIMD)


def element_offsets(kernel: Kernel, indices: View, limits: Sequence[tuple[int, int]]) -> Access:
    """[n, components] indices as one element offset each, [n, 1]: components clamped to 0..high, times their strides."""
    return clamped_offsets(kernel, index_words(kernel, indices, rows=True), (indices.sizes[0], 1), limits)


def clamped_offsets(kernel: Kernel, words: Sequence[Access], sizes: tuple[int, int],
                    limits: Sequence[tuple[int, int]]) -> Access:
    """As `element_offsets`, of components that are tiles of these sizes."""
    offsets = kernel.sbuf(sizes, S32)
    if not limits:
        kernel.memset(offsets, 0, Engine.GPSIMD)
        return offsets
    place = kernel.sbuf(sizes, S32)
    for number, (column, (stride, high)) in enumerate(zip(words, limits, strict=True)):
        target = place if number else offsets
        kernel.tensor_scalar(target, column, "maximum", 0, "minimum", high, engine=Engine.GPSIMD)
        if stride != 1:
            kernel.tensor_scalar(target, target, "multiply", stride, engine=Engine.GPSIMD)
        if number:
            kernel.tensor_tensor(offsets, offsets, place, "add", Engine.GPSIMD)
    return offsets


def window_offsets(kernel: Kernel, indices: View, limits: Sequence[tuple[int, int]], outside: int) -> Places:
    """[n, components] indices as one element offset each, [1, n], of windows that lie inside; others are read at 0 and written
    at `outside`."""
    return offsets_of(kernel, index_words(kernel, indices, rows=False), (1, indices.sizes[0]), limits, outside)


def offsets_of(kernel: Kernel, words: Sequence[Access], sizes: tuple[int, int], limits: Sequence[tuple[int, int]],
               outside: int) -> Places:
    """As `window_offsets`, of components that are tiles of these sizes."""
    inside, offsets, writes = (kernel.sbuf(sizes, S32) for _ in range(3))
    kernel.memset(inside, 1, Engine.GPSIMD)
    kernel.memset(offsets, 0, Engine.GPSIMD)
    with kernel.scope():
        part = kernel.sbuf(sizes, S32)
        for column, (stride, high) in zip(words, limits, strict=True):
            kernel.tensor_scalar(part, column, "greater_equal", 0, engine=Engine.GPSIMD)
            kernel.tensor_tensor(inside, inside, part, "multiply", Engine.GPSIMD)
            kernel.tensor_scalar(part, column, "less_equal", high, engine=Engine.GPSIMD)
            kernel.tensor_tensor(inside, inside, part, "multiply", Engine.GPSIMD)
            kernel.tensor_scalar(part, column, "multiply", stride, engine=Engine.GPSIMD)
            kernel.tensor_tensor(offsets, offsets, part, "add", Engine.GPSIMD)
    kernel.tensor_scalar(writes, offsets, "subtract", outside, engine=Engine.GPSIMD)
    kernel.tensor_tensor(writes, writes, inside, "multiply", Engine.GPSIMD)
    kernel.tensor_scalar(writes, writes, "add", outside, engine=Engine.GPSIMD)
    kernel.tensor_tensor(offsets, offsets, inside, "multiply", Engine.GPSIMD)
    return offsets, writes
