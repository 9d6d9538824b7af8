"""Compute equal things once.

Before:
  a = f32[4] exponential(p)    b = f32[4] exponential(p)    ROOT s = f32[4] add(a, b)
After:
  a = f32[4] exponential(p)    ROOT s = f32[4] add(a, a)

Equal: the same operator, attributes, shape and operands, and called computations of the same structure. Small constants are
compared by their bits, large ones by being the same literal. Random numbers and side effects are never merged.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.literals import Literal
from nxcc.passes.effects import anchors, has_side_effect
from nxcc.passes.rewriting import flow_computations, settle

COMPARED_BYTES = 1 << 16
"""Constants up to this size are compared by content."""

Key = tuple[Hashable, ...]


@dataclass(frozen=True)
class CommonSubexpressions:
    name: str = "common-subexpressions"

    def run(self, module: Module) -> bool:
        changed = False
        structures: dict[Computation, Key] = {}
        for computation in flow_computations(module):
            changed |= _merge(computation, structures)
        return changed


def _merge(computation: Computation, structures: dict[Computation, Key]) -> bool:
    kept = anchors(computation)
    first: dict[Key, Instruction] = {}
    changed = False
    for instruction in computation.post_order():
        if instruction in kept or not _may_merge(instruction):
            continue
        key = instruction_key(instruction, instruction.operands, structures)
        found = first.setdefault(key, instruction)
        if found is not instruction:
            computation.replace(instruction, found)
            computation.remove(instruction)
            changed = True
    if changed:
        settle(computation)
    return changed


def _may_merge(instruction: Instruction) -> bool:
    if instruction.opcode == "parameter" or instruction.control_predecessors or not instruction.shape.is_array:
        return instruction.opcode in ("tuple", "get-tuple-element") and not instruction.control_predecessors
    return not has_side_effect(instruction)


def instruction_key(instruction: Instruction, operands: tuple[Any, ...], structures: dict[Computation, Key]) -> Key:
    """Equal for instructions that compute the same, were these their operands. structures: of called computations, added to."""
    if instruction.operator.commutative and len(operands) == 2 and id(operands[1]) < id(operands[0]):
        operands = (operands[1], operands[0])
    attributes = instruction.attributes
    if instruction.opcode == "constant":
        return "constant", instruction.shape, literal_key(attributes["literal"])
    rows = tuple((key, literal_key(value) if isinstance(value, Literal) else value)
                 for key, value in sorted(attributes.items())) if attributes else ()
    called = tuple(_structure(c, structures) for c in instruction.called) if instruction.called else ()
    notes = tuple(sorted(instruction.frontend_attributes.items())) if instruction.frontend_attributes else ()
    return instruction.opcode, instruction.shape, operands, rows, called, notes, instruction.backend_config


def literal_key(literal: Literal) -> Hashable:
    """Equal for literals that hold the same bits, as far as that is cheap to tell; else the literal itself."""
    if literal.elements or literal.shape.byte_size > COMPARED_BYTES:
        return literal
    return literal.shape, literal.array.tobytes()


def _structure(computation: Computation, structures: dict[Computation, Key]) -> Key:
    """A computation as a value: its instructions in order, operands by position. Callees are known before callers."""
    found = structures.get(computation)
    if found is None:
        waiting = [computation]
        while waiting:
            top = waiting[-1]
            missing = [c for i in top.instructions for c in i.called if c not in structures]
            if missing:
                waiting += missing
                continue
            waiting.pop()
            structures[top] = _body_key(top, structures)
        found = structures[computation]
    return found


def _body_key(computation: Computation, structures: dict[Computation, Key]) -> Key:
    order = computation.post_order()
    numbers = {instruction: n for n, instruction in enumerate(order)}
    rows = tuple(_position_key(i, numbers, structures) for i in order)
    return (*rows, numbers[computation.root])


def _position_key(instruction: Instruction, numbers: dict[Instruction, int], structures: dict[Computation, Key]) -> Key:
    attributes = tuple((key, literal_key(value) if isinstance(value, Literal) else value)
                       for key, value in sorted(instruction.attributes.items()))
    called = tuple(structures[c] for c in instruction.called)
    return instruction.opcode, instruction.shape, tuple(numbers[o] for o in instruction.operands), attributes, called
