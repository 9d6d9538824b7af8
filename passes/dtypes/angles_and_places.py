"""Values of which every digit counts: angles, and numbers that become places.

Rounded to fewer digits a large angle is another one, and so is a place: pixel 300.2 is pixel 300, and 0.8 of it; in bf16 it is
300 and all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.ir.hlo.module import Instruction

PERIODIC = ("sine", "cosine", "tan")
ROUNDING = ("floor", "ceil", "round-nearest-even", "round-nearest-afz")
MOVING = frozenset(("reshape", "transpose", "broadcast", "reverse", "copy", "slice", "gather", "dynamic-slice", "pad",
                    "concatenate", "dynamic-update-slice"))
"""Operators whose results hold their first operands' values."""

MAX_SEARCHED = 64
"""Users that `makes_angle` looks at."""


def angles_and_places(order: Sequence[Instruction]) -> set[Instruction]:
    """Of instructions in order those that periodic functions are taken of or that become whole numbers, elementwise work and
    moves that make them, and what is left of a number without its whole part."""
    found: set[Instruction] = set()
    for instruction in reversed(order):
        if instruction in found or instruction.opcode in PERIODIC or _becomes_whole(instruction):
            found.update(filter(_keeps_places, instruction.operands))
    fractions = {i for i in order if i.opcode == "subtract" and any(o in found for o in i.operands)
                 and any(o.opcode in ROUNDING or o.opcode == "convert" for o in i.operands)}
    return found | fractions


def _becomes_whole(instruction: Instruction) -> bool:
    return instruction.opcode in ROUNDING or \
        instruction.opcode == "convert" and instruction.shape.dtype.is_integer and instruction.operands[0].shape.dtype.is_float


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
