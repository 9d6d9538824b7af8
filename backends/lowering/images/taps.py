"""Weights of convolutions that keep channels apart: one a partition and window cell.

The tensor engine multiplies each partition by its own weight where those lie on the diagonal of a matrix, which GpSimd makes of
them. All matrices of a region are made ahead, while the region before is worked on; if they are large, those of one block of
channels at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.images.geometry import Channels, on_partitions
from nxcc.backends.lowering.images.weights import cells_of, weights_view
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import F32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction

RESIDENT_BYTES = 40960
"""Bytes a partition of all matrices of a convolution, at most; beyond, blocks take turns."""

TURNS = 2
"""Blocks whose matrices are there together, where they take turns."""


@dataclass(frozen=True, slots=True)
class Taps:
    """raw: [lanes; blocks, cells], the weights. factors: the same as they are multiplied by Vector. diagonals: [lanes; blocks,
    cells, lanes], or None.

    repeated: the weights [lanes; blocks, cells, lanes], each again and again. turns: places of one block's matrices.
    """

    raw: Access
    factors: Access
    diagonals: Access | None
    repeated: Access
    turns: Iterator[Access] | None = None

    def matrices(self, kernel: Kernel, block: Index) -> Access | None:
        """[lanes; cells, lanes] of one block; None where Vector multiplies."""
        if self.turns is None:
            return None if self.diagonals is None else self.diagonals.at(0, block)
        place = next(self.turns)
        _put_on_diagonals(kernel, self.repeated.at(0, block), place)
        return place


def taps_bytes(convolution: Instruction, channels: Channels) -> int:
    """Bytes a partition of a convolution's taps."""
    each, cells = convolution.operands[1].shape.dtype.byte_size, cells_of(convolution)
    matrices = cells * channels.lanes * each
    blocks = TURNS if _take_turns(channels.blocks * matrices) else channels.blocks
    return blocks * matrices + channels.blocks * cells * (each + F32.byte_size)


def _take_turns(size: int) -> bool:
    return size > RESIDENT_BYTES


def load_taps(kernel: Kernel, convolution: Instruction, view: View, channels: Channels, on_vector: bool) -> Taps:
    """Bring the weights, one a partition and cell. on_vector: whether Vector multiplies by some of them."""
    source = weights_view(convolution, view)
    cells, lanes = cells_of(convolution), channels.lanes
    part = on_partitions(source.permute((len(source.dims) - 1, *range(len(source.dims) - 1))), channels)
    raw = kernel.sbuf((lanes, channels.blocks, *part.sizes[2:]), view.dtype)
    kernel.dma(raw, part, engine=Engine.SYNC)
    raw = raw.reshape(channels.blocks, cells)
    factors = raw
    if on_vector and view.dtype is not F32:
        factors = kernel.sbuf((lanes, channels.blocks, cells), F32)
        kernel.copy(factors.flat(), raw.flat())
    repeated = replace(raw, dims=(*raw.dims, (0, lanes)))
    if not has_diagonals(kernel):
        return Taps(raw, factors, None, repeated)
    if _take_turns(channels.blocks * cells * lanes * view.dtype.byte_size):
        places = [kernel.sbuf((lanes, cells, lanes), view.dtype) for _ in range(TURNS)]
        return Taps(raw, factors, None, repeated, itertools.cycle(places))
    diagonals = kernel.sbuf((lanes, channels.blocks, cells, lanes), view.dtype)
    for block in range(channels.blocks):
        _put_on_diagonals(kernel, repeated.at(0, block), diagonals.at(0, block))
    return Taps(raw, factors, diagonals, repeated)


def tell_of(kernel: Kernel, taps: Taps, bank: Access) -> None:
    """A product of the taps, which nobody reads: it tells the host if one is not finite. Vector leaves out what meets padding,
    and would give 0 for it where a product with the padding's zero is NaN."""
    count = taps.raw.free
    for start in range(0, count, bank.free):
        size = min(bank.free, count - start)
        kernel.matmul(bank.rows(0, 1).cut(0, 0, size), taps.raw.flat().cut(0, 0, 1), taps.raw.flat().cut(0, start, size))


def _put_on_diagonals(kernel: Kernel, repeated: Access, place: Access) -> None:
    """place [lanes; cells, lanes] = the weights where the partition is the column, zeros elsewhere."""
    kernel.emit(isa.gpsimd.AFFINE_SELECT, fields={"base": expr(0), "channel_multiplier": 1, "steps": (0, -1),
                                                  "compare": "equal", "fill": 0.0}, data=repeated, out=place)


def has_diagonals(kernel: Kernel) -> bool:
    """Whether the tensor engine multiplies channels that stay apart: GpSimd makes its matrices, and what is no number may
    spread from one channel to others."""
    return Engine.GPSIMD in kernel.target.engines and not kernel.exact_transposes
