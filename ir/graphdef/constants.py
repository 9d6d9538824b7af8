"""Values that are known while lowering: shape arithmetic folds because whatever depends on constants alone can be asked for.

Static shapes need no inference of their own here: each instruction is built with its shape, and Shape, Size and Rank become
constants. What a rule needs to know (a reshape's target, an axis) is evaluated by the oracle when the rule asks.
"""

from __future__ import annotations

from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.oracle import evaluate_instruction
from nxcc.ir.literals import Array

MAX_ELEMENTS = 1 << 22
"""Of any value on the way to one that is asked for: shape arithmetic is small, weights are left to the passes."""
_VARYING = frozenset(("parameter", "rng", "rng-bit-generator", "rng-get-and-update-state", "custom-call", "infeed", "recv"))


class Constants:
    """Remembers which instructions depend on constants alone, and the values that were asked for."""

    def __init__(self) -> None:
        self._fixed: dict[Instruction, bool] = {}
        self._values: dict[Instruction, Array] = {}

    def is_constant(self, instruction: Instruction) -> bool:
        """True if the value depends on no parameter and is small enough to be computed."""
        known = self._fixed
        stack = [instruction]
        while stack:
            top = stack[-1]
            if top in known:
                stack.pop()
            elif top.opcode in _VARYING:
                known[top] = False
            elif top.opcode == "constant":
                known[top] = True
            elif top.shape.is_array and top.shape.element_count > MAX_ELEMENTS:
                known[top] = False
            elif missing := [o for o in top.operands if o not in known]:
                stack.extend(missing)
            else:
                known[top] = all(known[o] for o in top.operands)
        return known[instruction]

    def value(self, instruction: Instruction) -> Array | None:
        """The value, or None if it depends on a parameter."""
        if not self.is_constant(instruction):
            return None
        values = self._values
        stack = [instruction]
        while stack:
            top = stack[-1]
            if top in values:
                stack.pop()
            elif top.opcode == "constant":
                values[top] = top.attribute("literal").array
            elif missing := [o for o in top.operands if o not in values]:
                stack.extend(missing)
            else:
                values[top] = evaluate_instruction(top, [values[o] for o in top.operands])
        return values[instruction]
