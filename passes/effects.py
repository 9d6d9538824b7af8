"""What an instruction does besides computing its result, as passes that drop, merge or repeat instructions must know."""

from __future__ import annotations

from nxcc.ir.hlo.module import Computation, Instruction, Module


def has_side_effect(instruction: Instruction) -> bool:
    """Whether something happens that no user of the result can see: transfers, random state, calls that say so."""
    if not instruction.called:
        return instruction.operator.side_effect or _calls_out(instruction)
    stack = [instruction]
    seen: set[Computation] = set()
    while stack:
        current = stack.pop()
        if current.operator.side_effect or _calls_out(current):
            return True
        for computation in current.called:
            if computation not in seen:
                seen.add(computation)
                stack.extend(computation.instructions)
    return False


def _calls_out(instruction: Instruction) -> bool:
    return instruction.opcode == "custom-call" and bool(instruction.attribute("custom_call_has_side_effect"))


def is_ordered(module: Module) -> bool:
    """Whether control dependencies mean anything: only side effects can tell one order from another."""
    return any(has_side_effect(i) for i in module.entry.instructions)


def anchors(computation: Computation) -> set[Instruction]:
    """Instructions that others must run after; they stay where they are."""
    return {before for i in computation.instructions for before in i.control_predecessors}


def is_pinned(instruction: Instruction) -> bool:
    """Whether an instruction must stay even if nobody reads it."""
    return instruction.opcode == "parameter" or bool(instruction.control_predecessors) or has_side_effect(instruction)
