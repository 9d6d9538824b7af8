"""Numbers that are known up to one unknown: x[i:i + 2] has two elements whatever i is.

Places come as vectors made of scalars; each element is followed to the scalar that it was made of, and the constants that
were added on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction

if TYPE_CHECKING:
    from nxcc.ir.graphdef.constants import Constants

MAX_STEPS = 64
"""How many instructions are followed; sums of constants are short."""
_SAME_VALUE = frozenset(("reshape", "convert", "bitcast", "copy"))


@dataclass(frozen=True, slots=True)
class Number:
    """base + offset; no base: the offset alone. index: which element of the base."""

    offset: int
    base: Instruction | None = None
    index: int = 0

    def distance_from(self, other: Number) -> int | None:
        """How far it lies from another number, if that is known."""
        same = self.base is other.base and self.index == other.index
        return self.offset - other.offset if same else None


def number_at(constants: Constants, vector: Instruction, index: int) -> Number:
    """One element of a small vector or scalar of integers."""
    total = 0
    for _ in range(MAX_STEPS):
        known = constants.value(vector)
        if known is not None:
            return Number(total + int(known.reshape(-1)[index]))
        step = _step(constants, vector, index)
        if step is None:
            break
        vector, index, amount = step
        total += amount
    return Number(total, vector, index)


def _step(constants: Constants, vector: Instruction, index: int) -> tuple[Instruction, int, int] | None:
    """What an element was made of: a vector, the place in it, and what was added."""
    operands = vector.operands
    if vector.opcode in _SAME_VALUE and operands[0].shape.dtype.is_integer:
        return operands[0], index, 0
    if vector.opcode == "broadcast" and operands[0].shape.element_count == 1:
        return operands[0], 0, 0
    if vector.opcode == "concatenate" and vector.shape.rank == 1:
        for part in operands:
            if index < part.shape.element_count:
                return part, index, 0
            index -= part.shape.element_count
    if vector.opcode in ("add", "subtract"):
        return _sum(constants, vector, index)
    return None


def _sum(constants: Constants, vector: Instruction, index: int) -> tuple[Instruction, int, int] | None:
    left, right = vector.operands
    known = constants.value(right)
    if known is not None:
        amount = int(known.reshape(-1)[index])
        return left, index, amount if vector.opcode == "add" else -amount
    known = constants.value(left)
    return (right, index, int(known.reshape(-1)[index])) if known is not None and vector.opcode == "add" else None
