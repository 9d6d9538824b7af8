"""Scan spaces: computations around a linear recurrence, whose values have rows, states and steps in time.

Rows are independent. Each row has a recurrence for each of its states, and a sum over the states may follow: a selective state
space is h = scan(exp(delta a), delta u b), y = sum over the states of c h. Every value has some of these dimensions, each at
most once; the steps are the columns. Fusion asks for the maps of a region, the backend for those of its body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.recurrences import is_linear_recurrence
from nxcc.ir.hlo.rowspace import COLUMN, UNIT, RowMap, is_elementwise, reshape_map, transpose_map
from nxcc.ir.hlo.spaces import follow

STATE = -3
"""Mark in a map: the dimension of the states."""


def scan_map(root: Instruction, steps: int) -> RowMap:
    """The map of a root whose dimension `steps` is time; all others are rows."""
    rows = iter(range(root.shape.rank))
    marks = [-1 if d == steps else next(rows) for d in range(root.shape.rank)]
    return tuple(UNIT if size == 1 and d != steps else COLUMN if d == steps else marks[d]
                 for d, size in enumerate(root.shape.dims))


def scan_maps(instruction: Instruction, result: RowMap) -> list[RowMap | None] | None:
    """Maps of the operands, given the result's; None if the instruction is none of a scan space."""
    if instruction.shape.is_array and is_elementwise(instruction):
        return [result if operand.shape.rank else () for operand in instruction.operands]
    rule = _RULES.get(instruction.opcode)
    return rule(instruction, result) if rule else None


def _broadcast(instruction: Instruction, result: RowMap) -> list[RowMap | None] | None:
    return [tuple(result[d] for d in instruction.attribute("dimensions"))]


def _element(instruction: Instruction, result: RowMap) -> list[RowMap | None] | None:
    """Every state of the recurrence, not its last one alone."""
    return [result] if instruction.operands[0].opcode == "scan" and instruction.attribute("index") == 0 else None


def _scan(instruction: Instruction, result: RowMap) -> list[RowMap | None] | None:
    d = instruction.attribute("dimensions")[0]
    if not is_linear_recurrence(instruction) or result[d] != COLUMN:
        return None
    return [result, result, result[:d] + result[d + 1:]]


def _reduce(instruction: Instruction, result: RowMap) -> list[RowMap | None] | None:
    """A sum over the states."""
    reduced = instruction.attribute("dimensions")
    if STATE in result or len(instruction.operands) != 2 or len(reduced) != 1:
        return None
    return [(*result[:reduced[0]], STATE, *result[reduced[0]:]), None]


_RULES: dict[str, Callable[[Instruction, RowMap], list[RowMap | None] | None]] = {
    "broadcast": _broadcast, "reshape": reshape_map, "transpose": transpose_map, "get-tuple-element": _element, "scan": _scan,
    "reduce": _reduce}


def scan_maps_of(order: Iterable[Instruction], root: Instruction, steps: int) -> dict[Instruction, RowMap] | None:
    """Maps of all that the root reaches; None if that is no scan space. order: operands before users."""
    return follow(order, {root: scan_map(root, steps)}, scan_maps)
