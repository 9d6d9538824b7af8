"""Which operators the device runs, and the rule that writes the tile program of each."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import View
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction

FAMILIES = ("elementwise", "mapping", "contraction", "convolution", "reduction", "window", "scan", "movement", "indexing",
            "scatter", "sort", "random", "fused")
"""Modules of this package that declare rules; imported on first look-up."""

Lowering = Callable[[Kernel, Instruction, Sequence[View], Sequence[View]], None]
"""lower(kernel, instruction, operands, results): read the operand views in HBM, write the result views (one per array leaf,
contiguous unless the instruction is computed in place)."""

Support = Callable[[Instruction, Target], str | None]
"""Why the device cannot run this instruction, in words; None if it can."""


@dataclass(frozen=True, eq=False)
class Rule:
    """How one opcode is lowered.

    in_place: the operand whose buffer the result may take over; its view then equals the result's.
    contiguous: operands that the rule wants row-major; others are copied first.
    follows: whether the result may lie in memory as an operand of the same sizes does, in this order; resizes: also as one of
    other sizes. order: how it lies, dimensions from the slowest to the fastest, if the rule cares; without either it is
    row-major. lies: operands (None for what
    is no array) that the rule would read element by element, and the order in which they are to lie; they are copied first.
    """

    opcode: str
    lower: Lowering
    unsupported: Support | None = None
    in_place: int | None = None
    contiguous: tuple[int, ...] = ()
    follows: Callable[[Instruction, Sequence[int]], bool] | None = None
    resizes: bool = False
    order: Callable[[Instruction], Sequence[int] | None] | None = None
    lies: Callable[[Instruction, Sequence[View | None]], Iterable[tuple[int, Sequence[int]]]] | None = None


def always(instruction: Instruction, order: Sequence[int]) -> bool:
    """For rules that work in any order of memory."""
    return True


RULES: dict[str, Rule] = {}


def rule(*opcodes: str, **properties: Any) -> Callable[[Lowering], Lowering]:
    """Declare the lowering of opcodes; properties are the fields of Rule."""

    def register(lower: Lowering) -> Lowering:
        for opcode in opcodes:
            assert opcode not in RULES, f"{opcode} has two lowerings"
            RULES[opcode] = Rule(opcode, lower, **properties)
        return lower

    return register


@cache
def _load() -> None:
    for family in FAMILIES:
        importlib.import_module(f"nxcc.backends.lowering.{family}")


def rules() -> dict[str, Rule]:
    """All rules by opcode."""
    _load()
    return RULES
