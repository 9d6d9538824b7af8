"""Values that are known while lowering: shape arithmetic folds because whatever depends on constants alone can be asked for.

Static shapes need no inference of their own here: each instruction is built with its shape, and Shape, Size and Rank become
constants. What a rule needs to know (a reshape's target, an axis) is evaluated by the oracle when the rule asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.oracle import evaluate_instruction
from nxcc.ir.literals import Array

MAX_ELEMENTS = 1 << 22
"""Of any value on the way to one that is asked for: shape arithmetic is small, weights are left to the passes."""
_VARYING = frozenset(("parameter", "rng", "rng-bit-generator", "rng-get-and-update-state", "custom-call", "infeed", "recv"))


MAX_PINNED = 64
MAX_LIMIT_DEPTH = 16
MAX_EXACT = 2.0**53
"""Limits are compared in double precision."""
_LIMITS: dict[str, Callable[..., Array]] = {"maximum": np.maximum, "minimum": np.minimum, "convert": lambda x: x,
                                            "reshape": lambda x: x}
"""Operators that limits pass through, as functions of their operands' limits."""


class Constants:
    """Remembers which instructions depend on constants alone, and the values that were asked for."""

    def __init__(self) -> None:
        self._fixed: dict[Instruction, bool] = {}
        self._values: dict[Instruction, Array] = {}
        self.counts: dict[Instruction, int] = {}
        """Scalars that count the valid places of Partial values, with their bounds."""

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
            return self._pinned(instruction)
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

    def _pinned(self, instruction: Instruction) -> Array | None:
        """The value of a small integer that limits leave no choice: min(6, max(6, x)) is 6, as sizes with a least and a most
        are written."""
        if not instruction.shape.is_array or not instruction.shape.dtype.is_integer:
            return None
        if instruction.shape.element_count > MAX_PINNED or instruction.opcode not in _LIMITS:
            return None
        low, high = self._limits(instruction, MAX_LIMIT_DEPTH)
        if not ((np.abs(low) <= MAX_EXACT) & (low == high)).all():
            return None
        return np.broadcast_to(low, instruction.shape.dims).astype(instruction.shape.dtype.numpy)

    def _limits(self, instruction: Instruction, depth: int) -> tuple[Array, Array]:
        """The least and the greatest that each element may be."""
        if self.is_constant(instruction) and instruction.shape.element_count <= MAX_PINNED:
            known = self.value(instruction)
            assert known is not None
            exact = known.astype(np.float64)
            return exact, exact
        if depth and instruction.opcode in _LIMITS:
            rows = [self._limits(operand, depth - 1) for operand in instruction.operands]
            low, high = (_LIMITS[instruction.opcode](*(row[side] for row in rows)) for side in (0, 1))
            return low.reshape(instruction.shape.dims), high.reshape(instruction.shape.dims)
        return np.full(instruction.shape.dims, -np.inf), np.full(instruction.shape.dims, np.inf)

    def value_at(self, instruction: Instruction, counts: Mapping[Instruction, Array]) -> Array | None:
        """The value if these counts had these values; None if it depends on anything else."""
        values: dict[Instruction, Array] = dict(counts)
        stack = [instruction]
        while stack:
            top = stack[-1]
            if top in values:
                stack.pop()
            elif self.is_constant(top):
                known = self.value(top)
                assert known is not None
                values[top] = known
            elif top.opcode in _VARYING or not top.shape.is_array or top.shape.element_count > MAX_ELEMENTS:
                return None
            elif missing := [o for o in top.operands if o not in values]:
                stack.extend(missing)
            else:
                values[top] = evaluate_instruction(top, [values[o] for o in top.operands])
        return values[instruction]

    def values_of_counts(self, instruction: Instruction) -> list[Array] | None:
        """The values that a small integer computation takes as counts run from nothing to their bounds; the last is at the
        bounds. None if it depends on anything but counts and constants."""
        found = []
        for share in (0.0, 0.34, 0.71, 1.0):
            counts = {count: np.asarray(int(bound * share), np.int32) for count, bound in self.counts.items()}
            value = self.value_at(instruction, counts)
            if value is None:
                return None
            found.append(value)
        return found
