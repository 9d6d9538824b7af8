"""Moves part of a computation into one of its own, called by a fusion that says which kind of program it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nxcc.ir.hlo.builder import Builder, clone_instruction
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.operator import find


def outline(module: Module, computation: Computation, root: Instruction, is_inside: Callable[[Instruction], bool], name: str,
            attributes: Mapping[str, str], builder: Builder) -> Instruction:
    """Replace the root by a fusion of what is inside, and return it; what nobody reads any more is removed.

    What is inside is copied; all else that it reads becomes an operand. attributes: frontend attributes of the fusion.
    """
    body = Computation(builder.names.of_computation(name))
    body.is_fusion = True
    inner = Builder(body)
    copies: dict[Instruction, Instruction] = {}
    inputs: list[Instruction] = []
    stack = [root]
    while stack:
        current = stack[-1]
        if current in copies:
            stack.pop()
            continue
        if is_inside(current):
            missing = [o for o in current.operands if o not in copies]
            if missing:
                stack.extend(missing)
                continue
            copies[current] = body.add(clone_instruction(current, [copies[o] for o in current.operands],
                                                         name=inner.unique_name(current.name)))
        else:
            copies[current] = inner.parameter(len(inputs), current.shape.without_layout(), f"p{len(inputs)}")
            inputs.append(current)
        stack.pop()
    body.root = copies[root]
    module.add(body)
    fusion = Instruction(builder.unique_name(root.name + ".fused"), find("fusion"), root.shape, inputs,
                         {"kind": "kCustom"}, (body,), root.location)
    fusion.frontend_attributes = dict(attributes)
    computation.add(fusion)
    computation.replace(root, fusion)
    _remove_dead(computation, root)
    return fusion


def _remove_dead(computation: Computation, start: Instruction) -> None:
    stack = [start]
    while stack:
        instruction = stack.pop()
        if instruction.users or instruction is computation.root or instruction not in computation.instructions:
            continue
        if instruction.opcode == "parameter":
            continue
        operands = instruction.operands
        computation.remove(instruction)
        stack.extend(operands)
