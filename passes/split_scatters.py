"""The gradient of a window's maximum over a large image, a part of its rows at a time, which fits on the chip.

Before (windows of 3 x 3, steps of 2, over 112 x 112 places):
  g = f32[8,112,112,64] select-and-scatter(x, s, zero), window={size=1x3x3x1 stride=1x2x2x1 ..}, select=ge, scatter=add
After:
  a = f32[8,57,112,64] select-and-scatter(x[0:57], s[0:28], zero)
  b = f32[8,56,112,64] select-and-scatter(x[56:112], s[28:56], zero)
  g = concatenate(a[0:56], a[56:57] + b[0:1], b[1:56])

What neighbours both reach is added up, so this is for sums that begin at 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import Window
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.combiners import plain_opcode
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.passes.patterns import splat_value
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode

PLACES_MAX = 8192
"""Elements of an image that fit on a partition together with what its windows need."""

PLACES = 6144
"""The same of a part."""


@dataclass(frozen=True)
class SplitScatters:
    name: str = "split-scatters"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)


def _split(scatter: Instruction, builder: Builder) -> Instruction | None:
    data, source, zero = scatter.operands
    windows = scatter.attribute("window").dims
    moved = [d for d, w in enumerate(windows) if w.size > 1 or w.stride > 1]
    if plain_opcode(scatter.called[1]) != "add" or splat_value(zero) != 0 or not scatter.shape.dtype.is_float or not moved:
        return None
    places = math.prod(data.shape.dims[d] for d in moved)
    if any(w.window_dilation > 1 or w.base_dilation > 1 or w.reversal for w in windows) or places <= PLACES_MAX:
        return None
    along = max(moved, key=lambda d: (data.shape.dims[d], -d))
    w, size, count = windows[along], data.shape.dims[along], source.shape.dims[along]
    rows = PLACES // (places // size)
    step = (rows - w.size) // w.stride + 1 if rows >= w.size else 0
    if step < 1 or count <= step:
        return None
    step = -(-count // -(-count // step))
    if w.size > w.stride * (step + 1):  # a part must reach its neighbour only
        return None
    parts: list[tuple[int, int, Instruction]] = []
    for first in range(0, count, step):
        last = min(count, first + step)
        low, high = first * w.stride - w.padding_low, (last - 1) * w.stride - w.padding_low + w.size
        start, end = max(0, low), min(size, high)
        if start >= end or parts and start < parts[-1][0]:
            return None
        dims = [replace(one, padding_low=start - low, padding_high=high - end) if d == along else one
                for d, one in enumerate(windows)]
        inside, values = _rows(data, along, start, end, builder), _rows(source, along, first, last, builder)
        made = builder.make("select-and-scatter", inside, values, zero, called=scatter.called, window=Window(tuple(dims)))
        made.frontend_attributes = dict(scatter.frontend_attributes)
        parts.append((start, end, made))
    return _summed(parts, along, scatter.shape.dims, builder)


def _summed(parts: Sequence[tuple[int, int, Instruction]], along: int, dims: Sequence[int], builder: Builder) -> Instruction:
    """Parts of (first row, end, rows) as one: where two overlap their sum, where there is none zeros."""
    pieces: list[Instruction] = []
    done = 0
    carried: Instruction | None = None  # rows before `done` are in pieces; these follow and belong to two parts
    for number, (start, end, part) in enumerate(parts):
        if start > done and carried is None:
            pieces.append(_zeros(part, along, start - done, dims, builder))
            done = start
        shared = done
        if carried is not None:
            shared = done + carried.shape.dims[along]
            pieces.append(builder.make("add", carried, _rows(part, along, done - start, shared - start, builder)))
            carried = None
        following = parts[number + 1][0] if number + 1 < len(parts) else end
        alone = min(end, max(shared, following))
        if alone > shared:
            pieces.append(_rows(part, along, shared - start, alone - start, builder))
        if end > alone:
            carried = _rows(part, along, alone - start, end - start, builder)
        done = alone
    if done < dims[along]:
        pieces.append(_zeros(parts[-1][2], along, dims[along] - done, dims, builder))
    return builder.make("concatenate", *pieces, dimensions=(along,))


def _zeros(like: Instruction, along: int, count: int, dims: Sequence[int], builder: Builder) -> Instruction:
    sizes = [count if d == along else size for d, size in enumerate(dims)]
    return builder.broadcast(builder.splat(like.shape.dtype, (), 0), sizes, ())


def _rows(value: Instruction, along: int, start: int, end: int, builder: Builder) -> Instruction:
    starts, limits = [0] * value.shape.rank, list(value.shape.dims)
    starts[along], limits[along] = start, end
    return builder.slice(value, starts, limits)


RULES = (Rule("rows-of-windows", ("select-and-scatter",), _split),)
_TABLE = rules_by_opcode(RULES)
