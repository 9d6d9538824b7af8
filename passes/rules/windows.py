"""Rules for windows: what lies in padding alone is known.

A window that reaches nothing but padding gives the initial value of a sum or an extreme, and a convolution's gives 0. Such
results are put around the others, so that nobody walks over padding of any width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nxcc.ir.hlo.attributes import PaddingDimension, Window, WindowDimension
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.combiners import IDENTITIES, plain_opcode
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.shapes import Shape
from nxcc.passes.patterns import splat_value
from nxcc.passes.rewriting import Rule


def _reduce_window(x: Instruction, builder: Builder) -> Instruction | None:
    """Windows of one array whose padding is the identity of its combiner."""
    if len(x.operands) != 2 or not x.shape.is_array:
        return None
    opcode = plain_opcode(x.called[0])
    value = splat_value(x.operands[1])
    if opcode not in IDENTITIES or value is None or value != IDENTITIES[opcode]:
        return None
    return _with_margins(x, range(x.shape.rank), x.operands[0].shape.dims, x.operands[1], builder)


def _convolution(x: Instruction, builder: Builder) -> Instruction | None:
    labels = x.attribute("dim_labels")
    extents = [x.operands[0].shape.dims[d] for d in labels.input_spatial]
    return _with_margins(x, labels.output_spatial, extents, None, builder)


def _with_margins(x: Instruction, places: Sequence[int], extents: Sequence[int], margin: Instruction | None,
                  builder: Builder) -> Instruction | None:
    """The results that see data, in margins of the others. places: the result's dimension of each of the window's; extents:
    of the data in it; margin: what the others are, 0 by default."""
    windows, dims = x.attribute("window").dims, list(x.shape.dims)
    edges = [(0, 0)] * len(dims)
    found = []
    for window, place, extent in zip(windows, places, extents, strict=True):
        low, high = edges[place] = _beyond(window, extent, dims[place])
        dims[place] -= low + high
        found.append(replace(window, padding_low=window.padding_low - low * window.stride,
                             padding_high=window.padding_high - high * window.stride))
    if not any(map(any, edges)):
        return None
    inner = builder.make(x.opcode, *x.operands, shape=Shape(x.shape.dtype, tuple(dims)), called=x.called,
                         **dict(x.attributes) | {"window": Window(tuple(found))})
    inner.frontend_attributes = dict(x.frontend_attributes)
    padding = tuple(PaddingDimension(low, high) for low, high in edges)
    return builder.make("pad", inner, builder.splat(x.shape.dtype, (), 0) if margin is None else margin, padding=padding)


def _beyond(window: WindowDimension, extent: int, results: int) -> tuple[int, int]:
    """How many windows at the low and at the high end reach padding alone; one is left at least."""
    if not extent or results < 2:
        return 0, 0
    reach = (window.size - 1) * window.window_dilation + 1
    last = (extent - 1) * window.base_dilation
    low = max(0, -(-(window.padding_low - reach + 1) // window.stride))
    low = min(low, results - 1)
    first_beyond = (last + window.padding_low) // window.stride + 1
    return low, max(0, min(results - first_beyond, results - low - 1))


RULES = (Rule("window-margins", ("reduce-window",), _reduce_window),
         Rule("convolution-margins", ("convolution",), _convolution))
