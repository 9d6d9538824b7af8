"""Loops that count: one element of the state starts at a constant, moves by a constant and is compared with a constant."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.passes.dtypes.intervals import fits

_HOLDS: dict[str, Callable[[int, int], bool]] = {
    "LT": operator.lt, "LE": operator.le, "GT": operator.gt, "GE": operator.ge, "NE": operator.ne}

_BEYOND = {"LE": 1, "GE": -1}
"""How far past the bound the counter stops."""


@dataclass(frozen=True)
class Count:
    """Element `index` of a loop's state counts: its values turn by turn."""

    index: int
    dtype: DType
    values: range

    @property
    def last(self) -> int:
        """The value after the last turn."""
        return self.values[-1] + self.values.step if self.values else self.values.start


def counted(loop: Instruction) -> Count | None:
    """How a loop counts; None if that is not known."""
    body, condition = loop.called
    test = condition.root
    if test.opcode != "compare" or body.root.opcode != "tuple" or loop.operands[0].opcode != "tuple":
        return None
    start = loop.operands[0].operands
    direction = test.attribute("direction")
    left, right = test.operands
    index = element_of(left, condition)
    bound = _known(right, condition, body, start)
    if index is None or bound is None or direction not in _HOLDS:
        return None
    first, step = number_of(start[index]), _step(body, index)
    if first is None or not step:
        return None
    values = _values(first, step, bound, direction)
    if values is None:
        return None
    found = Count(index, start[index].shape.dtype, values)
    return found if fits((found.last, found.last), found.dtype) else None


def _values(first: int, step: int, bound: int, direction: str) -> range | None:
    """The counter's values; None if it runs away from the bound, or past it."""
    if not _HOLDS[direction](first, bound):
        return range(first, first, step)
    if direction == "NE":
        return range(first, bound, step) if (bound - first) * step > 0 and (bound - first) % step == 0 else None
    return range(first, bound + _BEYOND.get(direction, 0), step) if (step > 0) == (direction in ("LT", "LE")) else None


def number_of(value: Instruction) -> int | None:
    """The one integer of a constant."""
    if value.opcode != "constant" or value.shape.rank or not value.shape.dtype.is_integer:
        return None
    return int(value.attributes["literal"].array[()])


def element_of(value: Instruction, computation: Computation) -> int | None:
    """Which element of the computation's parameter a value is."""
    if value.opcode == "get-tuple-element" and value.operands[0] is computation.parameters[0]:
        return int(value.attribute("index"))
    return None


def _known(value: Instruction, condition: Computation, body: Computation, start: Sequence[Instruction]) -> int | None:
    """A constant, or an element of the state that starts as one and never changes."""
    index = element_of(value, condition)
    if index is None:
        return number_of(value)
    return number_of(start[index]) if element_of(body.root.operands[index], body) == index else None


def _step(body: Computation, index: int) -> int | None:
    """What is added to an element in each turn."""
    after = body.root.operands[index]
    if after.opcode != "add":
        return None
    for x, y in (after.operands, after.operands[::-1]):
        if element_of(x, body) == index:
            return number_of(y)
    return None
