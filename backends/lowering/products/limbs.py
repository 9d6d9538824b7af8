"""Integer products on the tensor engine, exact modulo the result's width.

Operands are cut into bytes, which bf16 holds exactly; one pass over at most 128 k sums products of two bytes below 2^24, exact
in f32. GpSimd then adds the sums, shifted into place, in wrapping 32-bit arithmetic, for 64-bit results in pairs of words.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering import terms
from nxcc.backends.lowering.emission import emit_term, emit_terms
from nxcc.backends.lowering.pointwise.integer import sign_mask
from nxcc.backends.lowering.pointwise.wide import sum_of, words
from nxcc.backends.lowering.products.operands import bring, depth_of, split_depth
from nxcc.backends.lowering.terms import Span, bits, constant, input_term, native, term
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access, View
from nxcc.backends.tile.walks import words_of
from nxcc.ir.dtypes import BF16, PRED, S8, S32, U8, U32, DType


def as_bytes(view: View) -> View:
    """pred is moved as its byte."""
    return view.retype(U8) if view.dtype is PRED else view


def multiply_integers(kernel: Kernel, left: View, right: View, out: View) -> None:
    """out [m, n] = sum over k of left [m, k..] * right [n, k..], wrapping in out's dtype."""
    left, right = as_bytes(left), as_bytes(right)
    for a, b, place in _blocks(kernel, left, right, out):
        total = kernel.sbuf(place.sizes, out.dtype if out.dtype.bits > 32 else S32)
        kernel.memset(total, 0)
        for stationary, moving in _depths(kernel, a, b):
            add_products(kernel, limbs_of(kernel, stationary), limbs_of(kernel, moving), total, out.dtype.byte_size)
        kernel.dma(place, narrowed(kernel, total, out.dtype))


def multiply_truths(kernel: Kernel, left: View, right: View, out: View) -> None:
    """out [m, n] = whether left [m, k..] and right [n, k..] are true together for any k."""
    for a, b, place in _blocks(kernel, as_bytes(left), as_bytes(right), as_bytes(out)):
        total = kernel.sbuf(place.sizes, U8)
        kernel.memset(total, 0.0)
        for stationary, moving in _depths(kernel, a, b):
            sums = kernel.psum(place.sizes)
            kernel.matmul(sums, limbs_of(kernel, stationary)[0], limbs_of(kernel, moving)[0])
            kernel.tensor_tensor(total, sums, total, "maximum")
        kernel.tensor_scalar(total, total, "greater", 0.0)
        kernel.dma(place, total)


def _blocks(kernel: Kernel, left: View, right: View, out: View) -> Iterator[tuple[View, View, View]]:
    """Pieces of the result that one pass of the tensor engine covers, with their rows of the operands."""
    facts = kernel.target.tensor
    for m, rows in kernel.tiles(out.sizes[0], facts.stationary_max, outer=True):
        for n, columns in kernel.tiles(out.sizes[1], facts.moving_max):
            yield left.cut(0, m, rows), right.cut(0, n, columns), out.cut(0, m, rows).cut(1, n, columns)


def _depths(kernel: Kernel, left: View, right: View) -> Iterator[tuple[Access, Access]]:
    """Tiles [k, rows] of both operands for each block of k."""
    if left.elements == 0:
        return
    a, b = split_depth(kernel, left), split_depth(kernel, right)
    order = (*range(1, len(a.dims) - 2), 0, len(a.dims) - 2, len(a.dims) - 1)
    depth = depth_of(kernel, (a.sizes[-2], a.sizes[-1]))
    with kernel.scope():
        for piece in _outer(kernel, a.permute(order), b.permute(order), len(a.dims) - 3):
            for k, size in kernel.tiles(depth.total, depth.unit):
                tiles = [kernel.sbuf((size, 1, side.sizes[0]), side.dtype) for side in piece]
                for side, tile in zip(piece, tiles, strict=True):
                    bring(kernel, side, depth, k, size, tile, None)
                yield tiles[0].at(0, 0), tiles[1].at(0, 0)


def _outer(kernel: Kernel, left: View, right: View, count: int) -> Iterator[tuple[View, View]]:
    """Loops over the first `count` dimensions of both."""
    if count == 0:
        yield left, right
        return
    with kernel.loop(left.sizes[0]) as index:
        yield from _outer(kernel, left.at(0, index), right.at(0, index), count - 1)


def limbs_of(kernel: Kernel, tile: Access) -> list[Access]:
    """The bytes of integers [k, n], least first, as bf16; the highest of a narrow signed dtype carries its sign."""
    dtype = tile.dtype
    limbs = []
    for place in range(dtype.byte_size):
        is_signed = dtype.is_signed and place == dtype.byte_size - 1
        limb = kernel.sbuf(tile.sizes, BF16)
        kernel.copy(limb, byte_of(tile, place, S8 if is_signed else U8))
        limbs.append(limb)
    return limbs


def byte_of(tile: Access, place: int, dtype: DType) -> Access:
    """One byte of every element, as elements of their own."""
    ratio = tile.dtype.byte_size
    dims = tuple((stride * ratio, size) for stride, size in tile.dims)
    return replace(tile, dtype=dtype, offset=tile.offset + place, dims=dims)


def add_products(kernel: Kernel, left: list[Access], right: list[Access], total: Access, byte_size: int) -> None:
    """total [m, n], 32 or 64 bits, += products of the limbs [k, m] and [k, n] that reach the lowest `byte_size` bytes."""
    with kernel.scope():
        spare = itertools.cycle([(kernel.psum(total.sizes), kernel.sbuf(total.sizes, S32)) for _ in range(2)])
        for i, stationary in enumerate(left):
            for j, moving in enumerate(right[:max(0, byte_size - i)]):
                sums, part = next(spare)
                kernel.matmul(sums, stationary, moving)
                add_shifted(kernel, total, sums, i + j, part)


def add_shifted(kernel: Kernel, total: Access, sums: Access, places: int, part: Access) -> None:
    """total += sums << so many bytes, wrapping; sums are integers below 2^24 in f32; part: s32, as large as total."""
    kernel.copy(part, sums)
    if total.dtype.bits > 32:
        _add_wide(kernel, total, part, places)
        return
    if places:
        kernel.tensor_scalar(part, part, "shift_left", 8 * places)
    add_words(kernel, total, part)


def _add_wide(kernel: Kernel, total: Access, part: Access, places: int) -> None:
    """total, 64 bits, += part, s32, << so many bytes."""
    value = input_term(1, S32, Span.TILE)
    raw, sign = terms.part(value, U32), terms.part(sign_mask(value), U32)
    shift = 8 * (places % 4)
    low = bits("shift_left", raw, shift) if shift else raw
    high = bits("bitwise_or", bits("shift_left", sign, shift), bits("shift_right_logical", raw, 32 - shift)) if shift else sign
    added = (low, high) if places < 4 else (constant(term(0, U32)), low)
    with kernel.scope():
        fresh = kernel.sbuf(total.sizes, total.dtype)
        emit_terms(kernel, sum_of(words(input_term(0, total.dtype, Span.TILE)), added), (total, part), words_of(fresh))
        kernel.copy(total, fresh)


def add_words(kernel: Kernel, total: Access, part: Access) -> None:
    """total += part, 32-bit integers that wrap: natively on GpSimd, else by halves on Vector."""
    if Engine.GPSIMD in kernel.target.engines:
        kernel.tensor_tensor(total, total, part, "add", Engine.GPSIMD)
        return
    with kernel.scope():
        operands = [input_term(place, tile.dtype, Span.TILE) for place, tile in enumerate((total, part))]
        fresh = kernel.sbuf(total.sizes, total.dtype)
        emit_term(kernel, native("add", *operands), (total, part), fresh)
        kernel.copy(total.flat(), fresh.flat())


def narrowed(kernel: Kernel, tile: Access, dtype: DType) -> Access:
    """32-bit integers wrapped to a dtype: their low bytes."""
    if dtype.byte_size == tile.dtype.byte_size:
        return tile.retype(dtype)
    ratio = tile.dtype.byte_size // dtype.byte_size
    wide = tile.flat()
    narrow = kernel.sbuf(tile.sizes, dtype)
    kernel.copy(narrow.flat(), replace(wide, dtype=dtype, dims=tuple((stride * ratio, size) for stride, size in wide.dims)))
    return narrow
