"""How the dimensions of a region's values follow from those of its results: one walk for row, image and scan programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from nxcc.ir.hlo.module import Instruction

DimMap = TypeVar("DimMap")
"""What each dimension of a value is in a kind of program, as `rowspace.RowMap`."""


def follow(order: Iterable[Instruction], roots: Mapping[Instruction, DimMap],
           operand_maps: Callable[[Instruction, DimMap], Sequence[DimMap | None] | None]) -> dict[Instruction, DimMap] | None:
    """Maps of all instructions that the roots reach, or None if an operator has no rule or two readers disagree.

    order: instructions of the computation, operands before users. operand_maps: maps of an instruction's operands that follow
    from its own, None for an operand that may be anything; None if the instruction cannot be part of such a program.
    """
    maps: dict[Instruction, DimMap] = dict(roots)
    for instruction in reversed(list(order)):
        result = maps.get(instruction)
        if result is None or not instruction.operands:
            continue
        operands = operand_maps(instruction, result)
        if operands is None:
            return None
        for operand, found in zip(instruction.operands, operands, strict=True):
            if found is not None and maps.setdefault(operand, found) != found:
                return None
    return maps
