"""Steps that make a failing module smaller: each proposes candidates, of which one that still fails takes its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from nxcc.compiler.debugging.candidate import KEPT, Candidate, Value, can_be_parameter, depended_on, extract, recorded
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import SliceDimension, Window
from nxcc.ir.hlo.builder import Builder, clone_module, infer_shape, inline_call
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.operator import ShapeError
from nxcc.ir.literals import Literal, splat
from nxcc.ir.shapes import Shape

Step = Callable[[Candidate], Iterator[Candidate | None]]


def _recorded_or_nothing(candidate: Candidate) -> dict[Instruction, Value]:
    try:
        return recorded(candidate)
    except CompileError:
        return {}


def _fewer_results(candidate: Candidate) -> Iterator[Candidate | None]:
    """Halves of a tuple's elements, then all but one."""
    root = candidate.module.entry.root
    if root.opcode != "tuple" or not root.operands:
        return
    elements = list(root.operands)
    size = len(elements) // 2
    while size:
        for at in range(0, len(elements), size):
            yield extract(candidate, elements[at:at + size], frozenset())
            if size > 1 or len(elements) > 2:
                rest = elements[:at] + elements[at + size:]
                if rest:
                    yield extract(candidate, rest, frozenset())
        size //= 2
    if len(elements) == 1:
        yield extract(candidate, elements, frozenset())


def _earlier_result(candidate: Candidate) -> Iterator[Candidate | None]:
    """The result is what the result is computed from."""
    for operand in dict.fromkeys(candidate.module.entry.root.operands):
        if operand.opcode not in KEPT:
            yield extract(candidate, [operand], frozenset())


def _parameters_for_instructions(candidate: Candidate) -> Iterator[Candidate | None]:
    """Parameters in place of the first half of the instructions, of quarters, and so on down to one."""
    values = _recorded_or_nothing(candidate)
    entry = candidate.module.entry
    order = [i for i in entry.post_order() if i in values and can_be_parameter(i) and i is not entry.root]
    size = max(1, len(order) // 2)
    while order:
        for at in range(0, len(order), size):
            yield extract(candidate, [entry.root], frozenset(order[at:at + size]), values)
        if size == 1:
            return
        size //= 2


def _operands_for_instructions(candidate: Candidate) -> Iterator[Candidate | None]:
    """An operand of equal shape in place of an instruction, in any computation; zeros inside called ones."""
    for c, computation in enumerate(candidate.module.computations):
        for n, instruction in enumerate(computation.instructions):
            if instruction.opcode in KEPT:
                continue
            for o, operand in enumerate(instruction.operands):
                if _type(operand.shape) == _type(instruction.shape):
                    yield _substituted(candidate, c, n, lambda copy, _, o=o: copy.operands[o])  # type: ignore[misc]
            if computation is not candidate.module.entry and instruction.shape.is_array and not instruction.shape.dynamic:
                yield _substituted(candidate, c, n, lambda copy, builder: builder.literal(
                    splat(copy.shape.dtype, copy.shape.dims, 0)))


def _type(shape: Shape) -> Shape:
    return shape.without_layout()


def _substituted(candidate: Candidate, computation: int, instruction: int,
                 choose: Callable[[Instruction, Builder], Instruction]) -> Candidate | None:
    """A copy in which one instruction, found by its numbers, is replaced by what `choose` gives."""
    module = clone_module(candidate.module)
    inside = module.computations[computation]
    old = list(inside.instructions)[instruction]
    inside.replace(old, choose(old, Builder(inside)))
    inside.sort()
    return _trimmed(Candidate(module, candidate.values))


def _trimmed(candidate: Candidate) -> Candidate:
    """Without instructions that nothing needs, in any computation."""
    for computation in candidate.module.computations:
        needed = depended_on([computation.root], frozenset())
        for instruction in reversed(computation.post_order()):
            if instruction not in needed and instruction.opcode != "parameter":
                computation.remove(instruction)
    return extract(candidate, [candidate.module.entry.root], frozenset())


def _inlined_calls(candidate: Candidate) -> Iterator[Candidate | None]:
    """The instructions of a call or a fusion in its place."""
    for n, instruction in enumerate(candidate.module.entry.instructions):
        if instruction.opcode in ("call", "fusion"):
            module = clone_module(candidate.module)
            call = list(module.entry.instructions)[n]
            inline_call(call, Builder(module.entry))
            module.entry.sort()
            yield _trimmed(Candidate(module, candidate.values))


# Smaller dimensions


def _smaller_dimensions(candidate: Candidate) -> Iterator[Candidate | None]:
    """One size, wherever it occurs, replaced by a smaller one."""
    instructions = candidate.module.instructions()
    sizes = {size for i in instructions for leaf in i.shape.leaves() if not leaf.dynamic for size in leaf.dims}
    for size in sorted(sizes, reverse=True):
        for smaller in dict.fromkeys((1, 2, size // 4, size // 2, size - 1)):
            if 0 < smaller < size:
                yield _resized(candidate, size, smaller)


def _resized(candidate: Candidate, size: int, smaller: int) -> Candidate | None:
    """Every dimension of one size cut to another; None where the operators do not allow it."""
    module = clone_module(candidate.module)
    resize = _Resize(size, smaller)
    module.entry_layout = None
    try:
        for computation in module.reachable():
            for instruction in computation.post_order():
                resize.instruction(instruction)
    except ShapeError:
        return None
    return Candidate(module, tuple(resize.value(value) for value in candidate.values))


@dataclass(frozen=True)
class _Resize:
    size: int
    smaller: int

    def number(self, size: int) -> int:
        return self.smaller if size == self.size else size

    def shape(self, shape: Shape) -> Shape:
        return Shape(shape.dtype, tuple(map(self.number, shape.dims)), tuple(map(self.shape, shape.elements)), shape.dynamic,
                     shape.layout)

    def value(self, value: Value) -> Value:
        if isinstance(value, tuple):
            return tuple(map(self.value, value))
        if value is None:
            return None
        part = value[tuple(slice(self.number(d)) for d in value.shape)]
        return np.ascontiguousarray(part).reshape(part.shape)  # which makes a scalar a vector of one

    def instruction(self, instruction: Instruction) -> None:
        """Resize attributes, then take the shape that the operator gives, or the resized one where it gives none."""
        attributes = {key: self.attribute(value) for key, value in instruction.attributes.items()}
        instruction.attributes = attributes
        operator = instruction.operator
        wanted = self.shape(instruction.shape)
        if operator.shape is not None and instruction.operands:
            inferred = infer_shape(operator, [o.shape for o in instruction.operands], attributes, instruction.called)
            wanted = inferred if _dtypes(inferred) == _dtypes(wanted) else wanted
        instruction.shape = wanted

    def attribute(self, value: Any) -> Any:
        if isinstance(value, Literal):
            return self.literal(value)
        if isinstance(value, Window):
            return Window(tuple(replace(dim, size=self.number(dim.size)) for dim in value.dims))
        if isinstance(value, tuple) and value and all(isinstance(part, SliceDimension) for part in value):
            return tuple(replace(part, limit=self.number(part.limit)) for part in value)
        if isinstance(value, tuple) and self.size > 4 and value and all(type(part) is int for part in value):
            return tuple(map(self.number, value))
        return value

    def literal(self, literal: Literal) -> Literal:
        if literal.shape.is_tuple:
            return Literal(self.shape(literal.shape), elements=tuple(map(self.literal, literal.elements)))
        return Literal(self.shape(literal.shape), self.value(literal.array))


def _dtypes(shape: Shape) -> list[Any]:
    return [leaf.dtype for leaf in shape.leaves()]


STEPS: tuple[Step, ...] = (_fewer_results, _earlier_result, _parameters_for_instructions, _inlined_calls,
                           _operands_for_instructions, _smaller_dimensions)
"""In the order in which they are tried: what cuts most comes first."""
