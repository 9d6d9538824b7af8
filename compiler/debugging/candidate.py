"""A module with the inputs that it is tried with, and cutting a piece out of it, whose missing operands become inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, clone_computation, clone_instruction
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.operator import find
from nxcc.ir.hlo.oracle import evaluate

Value = Any

KEPT = frozenset(("parameter", "constant"))
"""What a smaller module has as it is."""


@dataclass(frozen=True)
class Candidate:
    """A module and one value a parameter."""

    module: Module
    values: tuple[Value, ...]

    @property
    def size(self) -> int:
        """Instructions of all computations that the entry reaches."""
        return sum(len(computation.instructions) for computation in self.module.reachable())


def extract(candidate: Candidate, roots: Sequence[Instruction], cut: frozenset[Instruction],
            values: Mapping[Instruction, Value] | None = None) -> Candidate:
    """A candidate with what `roots` need; instructions in `cut` become parameters that hold their values.

    One root is the result as it is, several become a tuple. Computations that are not called are left out, and so are
    aliases, layouts of the entry and other notes of the header.
    """
    module = candidate.module
    needed = depended_on(roots, cut)
    made = Module(module.name)
    computations: dict[Computation, Computation] = {}
    used = _called(needed - cut)
    for callee in module.reachable():
        if callee in used:
            computations[callee] = made.add(clone_computation(callee, callee.name, computations))
    entry = made.add(Computation(module.entry.name), entry=True)
    known = dict(zip(module.entry.parameters, candidate.values, strict=True)) | dict(values or {})
    copies: dict[Instruction, Instruction] = {}
    kept: list[Value] = []
    for old in module.entry.post_order():
        if old not in needed:
            continue
        if old.opcode == "parameter" or old in cut:
            copy = Instruction(old.name, find("parameter"), old.shape, (), {"parameter_number": len(kept)})
            kept.append(known[old])
        else:
            copy = clone_instruction(old, [copies[o] for o in old.operands], [computations[c] for c in old.called])
        copies[old] = entry.add(copy)
    entry.root = copies[roots[0]] if len(roots) == 1 else Builder(entry).make("tuple", *(copies[root] for root in roots))
    return Candidate(made, tuple(kept))


def depended_on(roots: Sequence[Instruction], cut: frozenset[Instruction]) -> set[Instruction]:
    """The roots and what they depend on, not looking behind what is cut."""
    found: set[Instruction] = set()
    stack = list(roots)
    while stack:
        instruction = stack.pop()
        if instruction not in found:
            found.add(instruction)
            if instruction not in cut:
                stack.extend(instruction.operands)
    return found


def _called(instructions: Iterable[Instruction]) -> set[Computation]:
    """Computations that instructions call, directly or not."""
    found: set[Computation] = set()
    stack = [c for i in instructions for c in i.called]
    while stack:
        computation = stack.pop()
        if computation not in found:
            found.add(computation)
            stack += [c for i in computation.instructions for c in i.called]
    return found


def recorded(candidate: Candidate) -> dict[Instruction, Value]:
    """What every instruction of the entry computes."""
    entry = candidate.module.entry
    found: dict[Instruction, Value] = {}

    def note(instruction: Instruction, value: Value) -> None:
        if instruction.parent is entry:
            found[instruction] = value

    evaluate(candidate.module, candidate.values, note)
    return found


def can_be_parameter(instruction: Instruction) -> bool:
    """Whether a parameter can stand for an instruction: arrays of static shape only, and no parameter or constant yet."""
    shapes = [instruction.shape]
    while shapes:
        shape = shapes.pop()
        if not (shape.is_array or shape.is_tuple) or shape.dynamic:
            return False
        shapes += shape.elements
    return instruction.opcode not in KEPT
