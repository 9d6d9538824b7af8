"""Walks over memory: what two of them have in common, the block that one covers, parts of elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nxcc.backends.isa.program import DMA_PARTITION_STRIDE, Memory
from nxcc.backends.tile.expressions import Expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import U32, DType


def words_of(tile: Access) -> tuple[Access, Access]:
    """The low and the high words of 64-bit elements, as u32."""
    dims = tuple((2 * stride, size) for stride, size in tile.dims)
    low = replace(tile, dtype=U32, dims=dims)
    return low, replace(low, offset=tile.offset + 4)


def tile_of(view: View) -> tuple[Access, list[int]]:
    """The block of SBUF that a DMA sees as this view, with its dimensions' places in the view, partitions first.

    Dimensions over partitions must be the rows of one block, in order: start partition, and no stride above one.
    """
    rows = [d for d, (stride, size) in enumerate(view.dims) if size > 1 and stride and stride % DMA_PARTITION_STRIDE == 0]
    free = [d for d in range(len(view.dims)) if d not in rows and view.dims[d][1] > 1]
    rows.sort(key=lambda d: -view.dims[d][0])
    pitch = DMA_PARTITION_STRIDE
    for d in reversed(rows):
        stride, size = view.dims[d]
        assert stride == pitch, f"{view.dims} walks over partitions that are no block"
        pitch *= size
    unit = view.dtype.byte_size
    partition, offset = divmod(view.address.constant, DMA_PARTITION_STRIDE)
    dims = tuple((view.dims[d][0] // unit, view.dims[d][1]) for d in free)
    place = Access(Memory.SBUF, view.dtype, partition, pitch // DMA_PARTITION_STRIDE, Expr(offset, view.address.terms), dims)
    return place, rows + free


def part_of(access: Access, dtype: DType, place: int) -> Access:
    """One part of each element, as wide as the dtype; part 0 holds the lowest bits."""
    parts = access.dtype.byte_size // dtype.byte_size
    return replace(access, dtype=dtype, offset=access.offset + place * dtype.byte_size,
                   dims=tuple([(stride * parts, size) for stride, size in access.dims]))


def seen_as(staged: Access, view: View, order: Sequence[int]) -> View:
    """A fresh tile as a DMA sees it: sizes of the block that `view` walks over, in the order of the view's dimensions."""
    linear = staged.linear()
    split = linear.reshape([view.dims[d][1] for d in order])
    assert split is not None
    dims = [(0, 1)] * len(view.dims)
    for d, dim in zip(order, split.dims, strict=True):
        dims[d] = dim
    return View(linear.memory, linear.dtype, linear.address, tuple(dims))


def joint_dims(to: Access | View, of: Access | View) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Sizes and the strides of both sides, with neighbours joined where both sides allow it; at least one dimension."""
    sizes: list[int] = []
    to_strides: list[int] = []
    of_strides: list[int] = []
    for (to_stride, size), (of_stride, _) in zip(to.dims, of.dims, strict=True):
        if size == 1:
            continue
        if sizes and to_strides[-1] == to_stride * size and of_strides[-1] == of_stride * size:
            sizes[-1] *= size
            to_strides[-1], of_strides[-1] = to_stride, of_stride
        else:
            sizes.append(size)
            to_strides.append(to_stride)
            of_strides.append(of_stride)
    if not sizes:
        return (1,), (to.dtype.byte_size,), (of.dtype.byte_size,)
    return tuple(sizes), tuple(to_strides), tuple(of_strides)
