"""The oracle: evaluates any HLO module with numpy, instruction by instruction. It is the judge of everything else.

Meaning lies in the operator declarations (`evaluate`); this file only walks a computation in order, binds parameters, frees
each value after its last use, and calls computations back. It shares no code with lowering or the simulator.

Values: a numpy array of `shape.dtype.numpy` for an array shape, a tuple of values for a tuple, None for a token. Values
are never written to, so that parameters and literals are used without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nxcc.ir.diagnostics import INPUT_MISMATCH, LIMIT_EXCEEDED, UNSUPPORTED_MODULE, CompileError
from nxcc.ir.hlo.module import Computation, Instruction, Module, operands_first
from nxcc.ir.memory import available_bytes
from nxcc.ir.shapes import UNBOUNDED, Shape

Array = np.ndarray[Any, Any]
Value = Any
"""A numpy array, a tuple of values, or None."""

Hook = Callable[[Instruction, Value], None]

CALL_DEPTH_LIMIT = 150
"""Nesting of calls that is evaluated; each level takes a few Python frames."""


LARGE_BYTES = 1 << 30
"""Of a result, from which on the memory that is left is looked at first."""

ROOM = 3
"""Times a result's bytes that evaluating it may take."""

_VIEWS = frozenset(("broadcast", "reshape", "transpose", "slice", "get-tuple-element", "tuple", "parameter", "constant"))
"""Whose results share memory with their operands, or with a file."""


def flatten(value: Value) -> list[Array]:
    """The arrays of a value, tuple leaves depth first; tokens are left out."""
    leaves, stack = [], [value]
    while stack:
        top = stack.pop()
        if isinstance(top, tuple):
            stack.extend(reversed(top))
        elif top is not None:
            leaves.append(top)
    return leaves


class _Step:
    """One instruction to evaluate: where its operands and result lie, and which values die afterwards."""

    __slots__ = ("instruction", "evaluate", "calls_back", "is_large", "operands", "result", "dead")

    def __init__(self, instruction: Instruction, operands: tuple[int, ...], result: int) -> None:
        self.instruction = instruction
        self.evaluate = instruction.operator.evaluate
        self.calls_back = instruction.operator.calls_back
        shape = instruction.shape
        self.is_large = shape.is_array and shape.byte_size >= LARGE_BYTES and instruction.opcode not in _VIEWS
        self.operands = operands
        self.result = result
        self.dead: tuple[int, ...] = ()


class _Plan:
    """A computation made ready to run many times: slots for values, and the steps that its root needs, in order."""

    __slots__ = ("parameters", "steps", "slots", "root")

    def __init__(self, computation: Computation) -> None:
        needed = operands_first([computation.root])
        slots = {instruction: slot for slot, instruction in enumerate(needed)}
        self.parameters = [(slots.get(parameter), parameter) for parameter in computation.parameters]
        self.steps = [_Step(instruction, tuple(slots[o] for o in instruction.operands), slots[instruction])
                      for instruction in needed if instruction.opcode != "parameter"]
        self.slots = len(needed)
        self.root = slots[computation.root]
        self._free_after_last_use()

    def _free_after_last_use(self) -> None:
        seen = {self.root}
        for step in reversed(self.steps):
            dead = dict.fromkeys(slot for slot in (*step.operands, step.result) if slot not in seen)
            seen.update(dead)
            step.dead = tuple(dead)



class _Run:
    """One evaluation: the plans made so far, the hook, and the depth of calls."""

    __slots__ = ("plans", "on_value", "depth")

    def __init__(self, on_value: Hook | None) -> None:
        self.plans: dict[Computation, _Plan] = {}
        self.on_value = on_value
        self.depth = 0

    def __call__(self, computation: Computation, *values: Value) -> Value:
        plan = self.plans.get(computation)
        if plan is None:
            plan = self.plans[computation] = _Plan(computation)
        self.depth += 1
        if self.depth > CALL_DEPTH_LIMIT:
            raise CompileError(LIMIT_EXCEEDED, f"calls are nested more than {CALL_DEPTH_LIMIT} deep", where=computation.name)
        result = self._steps(plan, values)
        self.depth -= 1
        return result

    def _steps(self, plan: _Plan, arguments: Sequence[Value]) -> Value:
        assert len(arguments) == len(plan.parameters)
        values: list[Value] = [None] * plan.slots
        for (slot, parameter), argument in zip(plan.parameters, arguments, strict=True):
            if slot is not None:
                values[slot] = argument
            if self.on_value is not None:
                self.on_value(parameter, argument)
        for step in plan.steps:
            result = self._evaluate(step, [values[slot] for slot in step.operands])
            if self.on_value is not None:
                self.on_value(step.instruction, result)
            values[step.result] = result
            for slot in step.dead:
                values[slot] = None
        return values[plan.root]

    def _evaluate(self, step: _Step, operands: list[Value]) -> Value:
        instruction = step.instruction
        if instruction.shape.dynamic and instruction.operator.elementwise:
            operands = _cropped(operands)
        if step.evaluate is None:
            raise CompileError(UNSUPPORTED_MODULE, f"{instruction.opcode} cannot be evaluated",
                               where=instruction.name, location=str(instruction.location))
        if step.is_large:
            _check_room(instruction)
        if step.calls_back:
            result = step.evaluate(instruction, *operands, run=self)
        else:
            result = step.evaluate(instruction, *operands)
        if isinstance(result, np.generic):
            result = np.asarray(result)
        assert _fits(result, instruction.shape), f"{instruction} gave {_description(result)}"
        return result


def _check_room(instruction: Instruction) -> None:
    """Raise CompileError(LIMIT_EXCEEDED) if this machine has not the memory for a result."""
    needed, left = instruction.shape.byte_size * ROOM, available_bytes()
    if left is not None and needed > left:
        raise CompileError(LIMIT_EXCEEDED, f"evaluating {instruction.shape} may take {needed} bytes, this machine has {left}",
                           where=instruction.name, location=str(instruction.location))


def _cropped(operands: list[Value]) -> list[Value]:
    """The operands cut to their common size: one of static shape meets one whose true size is below the bound."""
    common = [min(sizes) for sizes in zip(*(value.shape for value in operands if value.ndim), strict=True)]
    return [value[tuple(map(slice, common))] if value.ndim else value for value in operands]


def _fits(value: Value, shape: Shape) -> bool:
    """True if a value has the type of a shape; dynamic dimensions are open."""
    if not shape.is_array:
        return isinstance(value, tuple) == shape.is_tuple
    if not isinstance(value, np.ndarray) or value.dtype != shape.dtype.numpy:
        return False
    return value.shape == shape.dims or bool(shape.dynamic)


def _description(value: Value) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__


def _check_input(parameter: Instruction, value: Value, shape: Shape) -> None:
    if shape.is_tuple:
        if not isinstance(value, tuple) or len(value) != len(shape.elements):
            raise CompileError(INPUT_MISMATCH, f"parameter is {shape}, the value is not a tuple of that length",
                               where=parameter.name)
        for element, part in zip(value, shape.elements, strict=True):
            _check_input(parameter, element, part)
    elif shape.is_array and not (isinstance(value, np.ndarray) and value.dtype == shape.dtype.numpy
                                 and (value.shape == shape.dims or shape.dynamic)):
        raise CompileError(INPUT_MISMATCH, f"parameter is {shape}, the value is {_description(value)}", where=parameter.name)


def evaluate_computation(computation: Computation, values: Sequence[Value], on_value: Hook | None = None) -> Value:
    """The root's value for these parameter values, in parameter order.

    on_value(instruction, value) is called for each instruction as it is computed, in called computations too; scalar
    computations that a reduction or a map applies to many elements are left out.
    Raises CompileError for operators, custom-call targets and nesting that cannot be evaluated.
    """
    with np.errstate(all="ignore"):
        return _Run(on_value)(computation, *values)


def evaluate_instruction(instruction: Instruction, values: Sequence[Value]) -> Value:
    """One instruction's value for these operand values; errors as evaluate_computation."""
    step = _Step(instruction, (), 0)
    with np.errstate(all="ignore"):
        return _Run(None)._evaluate(step, list(values))


def _at_bound(value: Value, shape: Shape) -> Value:
    """The value with bounded dynamic dimensions, which are computed in their true size, filled up with zeros."""
    if isinstance(value, tuple):
        return tuple(_at_bound(part, element) for part, element in zip(value, shape.elements, strict=True))
    if not shape.dynamic or value is None or UNBOUNDED in shape.dims:
        return value
    return np.pad(value, [(0, bound - size) for bound, size in zip(shape.dims, value.shape, strict=True)])


def evaluate(module: Module, inputs: Sequence[Value], on_value: Hook | None = None) -> Value:
    """The module's result for these inputs, one value a parameter of the entry, in parameter order.

    A bounded dynamic dimension of the result has the size of its bound, zeros after the data.
    Raises CompileError(NXC0203) if an input has another shape or dtype than its parameter, and as evaluate_computation.
    """
    parameters = module.entry.parameters
    if len(parameters) != len(inputs):
        raise CompileError(INPUT_MISMATCH, f"the module takes {len(parameters)} inputs, {len(inputs)} were given")
    for parameter, value in zip(parameters, inputs, strict=True):
        _check_input(parameter, value, parameter.shape)
    return _at_bound(evaluate_computation(module.entry, inputs, on_value), module.entry.root.shape)
