"""Compute at compile time what depends on constants alone.

Before:
  a = f32[] constant(3)    i = s32[4] iota(), iota_dimension=0    ROOT s = (f32[], s32[4]) tuple(negate(a), add(i, i))
After:
  c = f32[] constant(-3)    d = s32[4] constant({0, 2, 4, 6})    ROOT s = (f32[], s32[4]) tuple(c, d)

Only small values: weights stay what they are, and so do broadcasts and counts, which cost nothing where they are.
"""

from __future__ import annotations

import numpy as np

from nxcc.ir.diagnostics import CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.oracle import evaluate_instruction
from nxcc.ir.literals import Array
from nxcc.passes.effects import anchors, has_side_effect
from nxcc.passes.rewriting import flow_computations, remove_unread, settle

_KEPT = frozenset(("constant", "iota", "broadcast", "parameter", "while", "conditional", "call", "fusion", "custom-call",
                   "partition-id", "replica-id"))
"""Opcodes that stay: no work, or work without a bound, or not known here."""


@dataclass(frozen=True)
class FoldConstants:
    """max_bytes: of a folded value and of each value that it is computed from."""

    max_bytes: int = 65536
    name: str = "fold-constants"

    def run(self, module: Module) -> bool:
        changed, names = False, Names(module)
        for computation in flow_computations(module):
            changed |= _fold(Builder(computation, names=names), self.max_bytes)
        return changed


def _fold(builder: Builder, max_bytes: int) -> bool:
    computation = builder.computation
    values: dict[Instruction, Array] = {}
    folded: list[Instruction] = []
    kept = anchors(computation)
    for instruction in computation.post_order():
        if not _is_small(instruction, max_bytes) or any(o not in values for o in instruction.operands):
            continue
        if instruction.opcode not in _SOURCES and not instruction.operands or instruction in kept:
            continue
        value = _evaluate(instruction, values)
        if value is None:
            continue
        values[instruction] = value
        if instruction.opcode not in _KEPT:
            folded.append(instruction)
    for instruction in reversed(folded):
        # what only folded instructions read has gone with them
        if instruction.parent is None:
            continue
        builder.location = instruction.location
        computation.replace(instruction, builder.constant(values[instruction]))
        remove_unread(computation, [instruction], kept)
    if folded:
        settle(computation)
    return bool(folded)


_SOURCES = frozenset(("constant", "iota"))


def _is_small(instruction: Instruction, max_bytes: int) -> bool:
    shape = instruction.shape
    if not shape.is_array or shape.dynamic or shape.byte_size > max_bytes or instruction.control_predecessors:
        return False
    return instruction.opcode not in _KEPT or instruction.opcode in ("constant", "iota", "broadcast")


def _evaluate(instruction: Instruction, values: dict[Instruction, Array]) -> Array | None:
    if has_side_effect(instruction) or instruction.operator.evaluate is None:
        return None
    try:
        value = evaluate_instruction(instruction, [values[o] for o in instruction.operands])
    except CompileError:
        # what cannot be evaluated is reported where it is compiled
        return None
    return np.asarray(value)
