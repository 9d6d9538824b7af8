"""Gathers at known places become strided slices, for a target whose addresses cannot come from data.

Before (rows 0, 0, 1, 1, 2, 2 of x, as a picture is enlarged):
  i = s32[6] constant({0, 0, 1, 1, 2, 2})    ROOT g = f32[6,8] gather(x, i), offset_dims={1}, start_index_map={0}, ..
After:
  a = f32[3,1,8] reshape(slice(x))    c = f32[3,2,8] concatenate(a, a)    ROOT r = f32[6,8] reshape(c)

Where each element comes from is computed by gathering positions. If every coordinate of these depends on one dimension of the
result, the operand is cut dimension by dimension; else it is read as one row of elements. A list of places is cut into runs of
equal steps, of which up to MAX_PHASES may take turns. More than MAX_PIECES slices stay a gather.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.oracle import evaluate_instruction
from nxcc.ir.literals import Array
from nxcc.passes.patterns import reshape_to, transpose_to
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode

MAX_PIECES = 96
MAX_PHASES = 8
MAX_ELEMENTS = 1 << 24
"""Of a result whose positions are looked at."""
_KNOWN = frozenset(("iota", "broadcast", "reshape", "transpose", "convert", "concatenate", "slice", "reverse"))
"""Operators through which indices are followed to constants."""


@dataclass(frozen=True)
class KnownGathers:
    """enabled: whether the target needs it."""

    enabled: bool
    name: str = "known-gathers"

    def run(self, module: Module) -> bool:
        return self.enabled and rewrite_module(module, _RULES)


def _gather(instruction: Instruction, builder: Builder) -> Instruction | None:
    x, indices = instruction.operands
    count = x.shape.element_count
    if not 0 < instruction.shape.element_count <= MAX_ELEMENTS or not 0 < count <= MAX_ELEMENTS:
        return None
    places = known_values(indices)
    if places is None:
        return None
    evaluate = instruction.operator.evaluate
    assert evaluate is not None
    positions = np.asarray(evaluate(instruction, np.arange(count).reshape(x.shape.dims), places))
    return _by_dimension(x, positions, builder) or _as_row(x, positions, builder)


def known_values(value: Instruction) -> Array | None:
    """The elements of a value that is made of constants by moving them; None if it is not."""
    if value.opcode == "constant":
        return np.asarray(value.attributes["literal"].array)
    if value.opcode not in _KNOWN or value.shape.element_count > MAX_ELEMENTS:
        return None
    operands = []
    for operand in value.operands:
        found = known_values(operand)
        if found is None:
            return None
        operands.append(found)
    return np.asarray(evaluate_instruction(value, operands))


# ---- what is cut -----------------------------------------------------------------------------------------------------


def _by_dimension(x: Instruction, positions: Array, builder: Builder) -> Instruction | None:
    """Take along one dimension of the operand after the other; None if its coordinates do not part."""
    axes: list[int | None] = []
    lists = []
    for coordinate in np.unravel_index(positions, x.shape.dims):
        axis = _only_axis(coordinate)
        if axis is False or axis is not None and axis in axes:
            return None
        axes.append(axis)
        lists.append(coordinate[tuple(slice(None) if d == axis else 0 for d in range(coordinate.ndim))].reshape(-1))
    runs = [list(_runs(places)) for places in lists]
    if sum(run.phases for found in runs for run in found) > MAX_PIECES + len(runs):
        return None
    for d, found in enumerate(runs):
        x = _taken(x, d, found, builder)
    return _arranged(x, axes, positions.shape, builder)


def _only_axis(coordinate: Array) -> int | bool | None:
    """The one dimension that the coordinate depends on; None if it is the same everywhere, False if there are several."""
    axes = [d for d, size in enumerate(coordinate.shape)
            if size > 1 and bool((coordinate != coordinate.take([0], d)).any())]
    return False if len(axes) > 1 else axes[0] if axes else None


def _arranged(x: Instruction, axes: list[int | None], dims: tuple[int, ...], builder: Builder) -> Instruction:
    """What was taken, its dimensions put where the result has them, and repeated along the others."""
    named = [(axis, size) for axis, size in zip(axes, x.shape.dims, strict=True) if axis is not None]
    x = reshape_to(builder, x, [size for _, size in named])
    order = sorted(range(len(named)), key=lambda i: named[i][0])
    x = transpose_to(builder, x, order)
    kept = [named[i][0] for i in order]
    if len(kept) == len(dims):
        return x
    return builder.broadcast(x, dims, kept)


def _as_row(x: Instruction, positions: Array, builder: Builder) -> Instruction | None:
    """Take from the operand's elements in a row."""
    runs = list(_runs(positions.reshape(-1)))
    if sum(run.phases for run in runs) > MAX_PIECES:
        return None
    row = reshape_to(builder, x, (x.shape.element_count,))
    return reshape_to(builder, _taken(row, 0, runs, builder), positions.shape)


# ---- runs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """places[i * phases + k] = starts[k] + i * steps[k], for `count` values of i."""

    starts: tuple[int, ...]
    steps: tuple[int, ...]
    count: int

    @property
    def phases(self) -> int:
        return len(self.starts)


def _runs(places: Array) -> Iterator[_Run]:
    """Cut a list of places into runs, from the front, the one with most places a slice first."""
    at = 0
    while at < len(places):
        rest = places[at:]
        found = max((_longest(rest, phases) for phases in range(1, min(MAX_PHASES, len(rest)) + 1)),
                    key=lambda run: (run.count, -run.phases))
        yield found
        at += found.count * found.phases


def _longest(places: Array, phases: int) -> _Run:
    steps = places[phases:] - places[:-phases]
    same = steps[phases:] == steps[:-phases]
    until = int(np.argmin(same)) if not same.all() else len(same)
    count = (until + 2 * phases) // phases if len(steps) >= phases else 1
    count = min(count, len(places) // phases)
    return _Run(tuple(int(p) for p in places[:phases]), tuple(int(s) for s in steps[:phases]) if count > 1 else (1,) * phases,
                count)


def _taken(x: Instruction, d: int, runs: list[_Run], builder: Builder) -> Instruction:
    """The places of the runs along dimension d."""
    if len(runs) == 1 and runs[0] == _Run((0,), (1,), x.shape.dims[d]):
        return x
    return _joined([_phases(x, d, run, builder) for run in runs], d, builder)


def _phases(x: Instruction, d: int, run: _Run, builder: Builder) -> Instruction:
    parts = [_strided(x, d, start, step, run.count, builder) for start, step in zip(run.starts, run.steps, strict=True)]
    if len(parts) == 1:
        return parts[0]
    dims = parts[0].shape.dims
    stacked = [reshape_to(builder, part, (*dims[:d + 1], 1, *dims[d + 1:])) for part in parts]
    return reshape_to(builder, _joined(stacked, d + 1, builder), (*dims[:d], math.prod((run.count, run.phases)), *dims[d + 1:]))


def _strided(x: Instruction, d: int, start: int, step: int, count: int, builder: Builder) -> Instruction:
    first, dims = start, x.shape.dims
    if step < 0:
        first = start + (count - 1) * step
    number = 1 if step == 0 else count
    found = builder.slice(x, [first if i == d else 0 for i in range(len(dims))],
                          [first + (number - 1) * abs(step) + 1 if i == d else size for i, size in enumerate(dims)],
                          [max(1, abs(step)) if i == d else 1 for i in range(len(dims))])
    if step < 0 and count > 1:
        return builder.make("reverse", found, dimensions=(d,))
    if step == 0 and count > 1:
        flat = reshape_to(builder, found, (*dims[:d], *dims[d + 1:]))
        return builder.broadcast(flat, (*dims[:d], count, *dims[d + 1:]), [i for i in range(len(dims)) if i != d])
    return found


def _joined(parts: list[Instruction], d: int, builder: Builder) -> Instruction:
    return parts[0] if len(parts) == 1 else builder.make("concatenate", *parts, dimensions=(d,))


_RULES = rules_by_opcode((Rule("gather-at-known-places", ("gather",), _gather),))
