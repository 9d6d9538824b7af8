"""Many small products: a partition takes some of them, and Vector multiplies and adds up.

The tensor engine takes a pass for each, and a transfer brings few bytes to many partitions. Here batches lie on the partitions,
whole matrices beside each other in the order of memory, and one multiplication makes all terms:

  terms [batch; m, n, k] = left [batch; m, -, k] * right [batch; -, n, k]        out [batch; m, n] = sum over k
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from nxcc.backends.lowering.tiling import parted
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import BF16, F16, F32, DType

TERMS = 4096
"""Terms that a partition holds at a time, of all its products."""

FLOATS = (F32, BF16, F16)


def can_be_small(kernel: Kernel, left: View, right: View, out: View) -> bool:
    """Whether many small products left [b, m, k] x right [b, n, k] to out [b, m, n] lie so that they are multiplied here."""
    if not kernel.copies.rotates or any(len(view.dims) != 3 or view.dtype not in FLOATS for view in (left, right, out)):
        return False
    return all(map(_is_dense, (left, right, out)))


def multiply_small(kernel: Kernel, left: View, right: View, out: View) -> None:
    """out[b, m, n] = sum over k of left[b, m, k] * right[b, n, k]."""
    (batch, m, k), n = left.sizes, right.sizes[1]
    lanes = kernel.target.partitions
    groups = max(1, min(TERMS // (m * n * k), batch // (2 * lanes)))
    for start, rows, together in _pieces(kernel, batch, lanes, groups):
        a, b = (_load(kernel, parted(view.cut(0, start, rows * together), 0, together)) for view in (left, right))
        part = parted(out.cut(0, start, rows * together), 0, together)
        whole, shaped = _tile(kernel, part, out.dtype)
        terms = kernel.sbuf((rows, together, m, n, k), F32) if k > 1 else shaped.insert(3)
        kernel.tensor_tensor(terms, a.insert(2, n), b.insert(1, m), "multiply")
        if k > 1:
            kernel.tensor_reduce(shaped, terms, "add")
        kernel.dma(part.permute(_order(part)), whole)


def _pieces(kernel: Kernel, batch: int, lanes: int, groups: int) -> Iterator[tuple[Index, int, int]]:
    """(first batch, partitions, batches on each)."""
    full = batch // (lanes * groups) * lanes * groups
    for start, size in kernel.tiles(full, lanes * groups):
        yield start, size // groups, groups
    rest = batch - full
    if rest:
        rows, left = divmod(rest, groups)
        with kernel.scope():
            if rows:
                yield full, rows, groups
        with kernel.scope():
            if left:
                yield full + rows * groups, left, 1


def _is_dense(view: View) -> bool:
    """Whether each matrix is one run of memory."""
    ordered = view.permute((0, *sorted((1, 2), key=lambda d: -abs(view.dims[d][0]))))
    flat = ordered.reshape((view.sizes[0], math.prod(view.sizes[1:])))
    return flat is not None and (flat.sizes[1] == 1 or flat.dims[1][0] == view.dtype.byte_size)


def _order(part: View) -> tuple[int, ...]:
    """Dimensions of [partitions, together, x, y] as a matrix lies in memory."""
    return (0, 1, *sorted((2, 3), key=lambda d: -abs(part.dims[d][0])))


def _tile(kernel: Kernel, part: View, dtype: DType) -> tuple[Access, Access]:
    """A tile that lies as memory does, and the same with free dimensions [together, x, y]."""
    order = _order(part)
    whole = kernel.sbuf(part.permute(order).sizes, dtype)
    return whole, whole if order == (0, 1, 2, 3) else whole.permute((0, 2, 1))


def _load(kernel: Kernel, part: View) -> Access:
    whole, shaped = _tile(kernel, part, part.dtype)
    kernel.dma(whole, part.permute(_order(part)))
    return shaped
