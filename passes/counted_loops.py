"""What is known of loops that count: where they start, how they step, and when they end.

A loop is counted if one element of its state starts at a constant, a constant is added to it in each turn, and the condition
compares it with a constant.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nxcc.ir.dtypes import DType
from nxcc.ir.hlo.module import Computation, Instruction

TURNS_MAX = 50_000
"""Turns that are counted."""

_HOLDS: dict[str, Callable[[int, int], bool]] = {
    "LT": operator.lt, "LE": operator.le, "GT": operator.gt, "GE": operator.ge, "NE": operator.ne}


@dataclass(frozen=True)
class Count:
    """Element `index` of a loop's state counts: its values turn by turn."""

    index: int
    dtype: DType
    values: range


def counted(loop: Instruction) -> Count | None:
    """How a loop counts; None if that is not known."""
    body, condition = loop.called
    test = condition.root
    if test.opcode != "compare" or body.root.opcode != "tuple" or loop.operands[0].opcode != "tuple":
        return None
    start = loop.operands[0].operands
    direction = test.attribute("direction")
    left, right = test.operands
    index = _element(left, condition)
    bound = _known(right, condition, body, start)
    if index is None or bound is None or direction not in _HOLDS:
        return None
    first, step = number_of(start[index]), _step(body, index)
    if first is None or not step:
        return None
    values = _values(first, step, bound, _HOLDS[direction])
    return None if values is None else Count(index, start[index].shape.dtype, values)


def _values(first: int, step: int, bound: int, holds: Callable[[int, int], bool]) -> range | None:
    """The counter's values; None for more than TURNS_MAX."""
    value = first
    while holds(value, bound):
        value += step
        if abs(value - first) > TURNS_MAX * abs(step):
            return None
    return range(first, value, step)


def number_of(value: Instruction) -> int | None:
    """The one integer of a constant."""
    if value.opcode != "constant" or value.shape.rank or not value.shape.dtype.is_integer:
        return None
    return int(value.attributes["literal"].array[()])


def _element(value: Instruction, computation: Computation) -> int | None:
    """Which element of the computation's parameter a value is."""
    if value.opcode == "get-tuple-element" and value.operands[0] is computation.parameters[0]:
        return int(value.attribute("index"))
    return None


def _known(value: Instruction, condition: Computation, body: Computation, start: Sequence[Instruction]) -> int | None:
    """A constant, or an element of the state that starts as one and never changes."""
    index = _element(value, condition)
    if index is None:
        return number_of(value)
    return number_of(start[index]) if _element(body.root.operands[index], body) == index else None


def _step(body: Computation, index: int) -> int | None:
    """What is added to an element in each turn."""
    after = body.root.operands[index]
    if after.opcode != "add":
        return None
    for x, y in (after.operands, after.operands[::-1]):
        if _element(x, body) == index:
            return number_of(y)
    return None
