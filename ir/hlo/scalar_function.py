"""A computation of scalars (a combiner, a comparator, the body of a map) as a function on arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.literals import Array
from nxcc.ir.shapes import Shape

Run = Callable[..., Any]
"""run(computation, *values) -> value"""

_PASSING = frozenset({"reshape", "bitcast", "broadcast", "transpose", "copy", "opt-barrier", "domain"})
"""Operators that change nothing when operand and result are scalars of one type."""
_CALLS = frozenset({"call", "fusion", "map"})
_STRUCTURE: dict[str, Callable[..., Any]] = {
    "tuple": lambda i, *values: values,
    "get-tuple-element": lambda i, x: x[i.attribute("index")],
    "constant": lambda i: i.attribute("literal").array,
}


class ScalarFunction:
    """A computation of scalars as a function on arrays of one shape, element by element.

    Calling it with arrays (or scalars, which are repeated) returns a tuple of arrays, one a result, all of the common
    shape. Code that is not elementwise (a loop, a reduction inside) is evaluated once per element by `run`.
    """

    def __init__(self, computation: Computation, run: Run) -> None:
        self.computation = computation
        self.result_types = [leaf.dtype.numpy for leaf in computation.root.shape.leaves()]
        self._run = run
        self._order = computation.post_order()
        self._callees = {i: ScalarFunction(i.called[0], run) for i in self._order if i.opcode in _CALLS}
        self.is_elementwise = all(map(self._is_elementwise, self._order))

    def _is_elementwise(self, instruction: Instruction) -> bool:
        if not _is_scalar(instruction.shape):
            return False
        opcode = instruction.opcode
        if opcode in _PASSING:
            operand = instruction.operands[0].shape
            return _is_scalar(operand) and operand.dtype is instruction.shape.dtype
        if opcode in _CALLS:
            return self._callees[instruction].is_elementwise
        known = instruction.operator.elementwise and instruction.operator.evaluate is not None
        return known or opcode in _STRUCTURE or opcode == "parameter"

    def __call__(self, *values: Any) -> tuple[Array, ...]:
        shape = np.broadcast_shapes(*(np.shape(value) for value in values))
        if not self.is_elementwise:
            return self._one_by_one(shape, values)
        result = self._evaluate(values)
        parts = result if self.computation.root.shape.is_tuple else (result,)
        return tuple(np.broadcast_to(part, shape) for part in parts)

    def _evaluate(self, values: Sequence[Any]) -> Any:
        known: dict[Instruction, Any] = {}
        for instruction in self._order:
            operands = [known[o] for o in instruction.operands]
            opcode = instruction.opcode
            if opcode == "parameter":
                known[instruction] = values[instruction.attributes["parameter_number"]]
            elif opcode in _STRUCTURE:
                known[instruction] = _STRUCTURE[opcode](instruction, *operands)
            elif opcode in _PASSING:
                known[instruction] = operands[0]
            elif opcode in _CALLS:
                known[instruction] = self._callees[instruction]._evaluate(operands)
            else:
                evaluate = instruction.operator.evaluate
                assert evaluate is not None
                known[instruction] = evaluate(instruction, *operands)
        return known[self.computation.root]

    def _one_by_one(self, shape: tuple[int, ...], values: Sequence[Any]) -> tuple[Array, ...]:
        columns = [np.broadcast_to(value, shape).reshape(-1) for value in values]
        results = [np.empty(shape, dtype) for dtype in self.result_types]
        flat = [result.reshape(-1) for result in results]
        for place in range(int(np.prod(shape))):
            result = self._run(self.computation, *(np.asarray(column[place]) for column in columns))
            parts = result if self.computation.root.shape.is_tuple else (result,)
            for column, part in zip(flat, parts, strict=True):
                column[place] = part
        return tuple(results)


def _is_scalar(shape: Shape) -> bool:
    return not shape.dims and (shape.is_array or (shape.is_tuple and all(map(_is_scalar, shape.elements))))
