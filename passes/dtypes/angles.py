"""Angles: what sines and cosines are taken of. Rounded to fewer digits a large angle is another one."""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.ir.hlo.module import Instruction

PERIODIC = ("sine", "cosine", "tan")
MOVING = frozenset(("reshape", "transpose", "broadcast", "reverse", "copy", "slice", "gather", "dynamic-slice", "pad",
                    "concatenate", "dynamic-update-slice"))
"""Operators whose results hold their first operands' values."""

MAX_SEARCHED = 64
"""Users that `makes_angle` looks at."""


def angles(order: Sequence[Instruction]) -> set[Instruction]:
    """Of instructions in order those that periodic functions are taken of, and elementwise work and moves that make them."""
    found: set[Instruction] = set()
    for instruction in reversed(order):
        if instruction in found or instruction.opcode in PERIODIC:
            found.update(filter(_keeps_places, instruction.operands))
    return found


def makes_angle(instruction: Instruction) -> bool:
    """Whether a periodic function is taken of a value, or of what elementwise work and moves make of it."""
    found, stack = {instruction}, [instruction]
    while stack and len(found) < MAX_SEARCHED:
        for user in stack.pop().users:
            if user.opcode in PERIODIC:
                return True
            if user not in found and _keeps_places(user):
                found.add(user)
                stack.append(user)
    return False


def _keeps_places(instruction: Instruction) -> bool:
    return instruction.operator.elementwise or instruction.opcode in MOVING
