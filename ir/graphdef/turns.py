"""How often a loop turns, where its condition compares a counter with a limit, and both are known."""

from __future__ import annotations

from collections.abc import Mapping

from nxcc.ir.facts import dataclass
from nxcc.ir.graphdef.constants import Constants
from nxcc.ir.graphdef.distances import number_at
from nxcc.ir.hlo.module import Instruction

_MIRRORED = {"GT": "LT", "GE": "LE", "LT": "GT", "LE": "GE"}


@dataclass(frozen=True, slots=True)
class Counter:
    """A variable that begins with a known number and grows by a known one each turn."""

    start: int
    step: int


def count_turns(constants: Constants, condition: Instruction, counters: Mapping[Instruction, Counter]) -> int | None:
    """The number of turns; None if it is not known, or if conditions that must hold together say different numbers."""
    found = set()
    todo = [condition]
    while todo:
        top = todo.pop()
        if top.opcode == "and":
            todo += top.operands
        elif top.opcode in ("reshape", "copy"):
            todo += top.operands
        elif (known := constants.value(top)) is None or not known.all():
            found.add(_turns(constants, top, counters))
    return found.pop() if len(found) == 1 else None


def _turns(constants: Constants, compare: Instruction, counters: Mapping[Instruction, Counter]) -> int | None:
    if compare.opcode != "compare" or any(o.shape.element_count != 1 or not o.shape.dtype.is_integer for o in compare.operands):
        return None
    left, right = (number_at(constants, operand, 0) for operand in compare.operands)
    direction = str(compare.attribute("direction"))
    if left.base is None:
        left, right, direction = right, left, _MIRRORED.get(direction, direction)
    counter = counters.get(left.base) if left.base is not None else None
    if counter is None or right.base is not None or counter.step <= 0 or direction not in ("LT", "LE"):
        return None
    way = right.offset - left.offset - counter.start + (direction == "LE")
    return max(-(-way // counter.step), 0)
