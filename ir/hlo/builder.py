"""Makes instructions with inferred shapes: the only way in which passes and readers of other formats create them.

Also here, because reader, verifier and builder share it: how an operator's shape rule is called (`infer_shape`), and
how instructions, computations and modules are copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nxcc.ir.dtypes import PRED, DType
from nxcc.ir.hlo.attributes import SliceDimension
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.operator import Operator, ShapeError, find
from nxcc.ir.literals import Array, Literal, literal_of, splat
from nxcc.ir.location import NOWHERE, Location
from nxcc.ir.shapes import Shape

DimensionLists = tuple[Sequence[int], Sequence[int]]
"""Dimensions of the left and of the right operand."""


def check_arity(operator: Operator, count: int) -> None:
    """ShapeError if the operator does not take this many operands."""
    low, high = operator.min_operands, operator.max_operands
    if count < low or (high is not None and count > high):
        wanted = f"{low}" if low == high else f"at least {low}" if high is None else f"{low} to {high}"
        raise ShapeError(f"{operator.name} takes {wanted} operands, {count} were given")


def infer_shape(operator: Operator, operand_shapes: Sequence[Shape], attributes: dict[str, Any],
                called: Sequence[Computation] = ()) -> Shape:
    """The result shape by the operator's rule.

    The rule is called as `operator.shape(*operand_shapes, **attributes)` with every declared attribute, defaults filled
    in, and, for operators that call computations, `called=` (Computation objects in protobuf order, parameters and root
    readable). Attributes that are not declared are left to the verifier and never reach the rule.
    Raises ShapeError where operands or attributes break the rule, or where the operator's result must be declared.
    """
    check_arity(operator, len(operand_shapes))
    if operator.shape is None:
        raise ShapeError(f"the result shape of {operator.name} cannot be inferred; it must be declared")
    defaults = operator.defaults
    values = {**defaults, **attributes}
    if len(values) > len(defaults):
        values = {key: values[key] for key in defaults}
    if operator.called:
        values["called"] = called
    return operator.shape(*operand_shapes, **values)


class Names:
    """Names in a module, or in a computation without one: found by a walk when the first is asked for, added to from then on.

    Whoever makes instructions in many places shares one.
    """

    def __init__(self, scope: Module | Computation) -> None:
        self._scope = scope
        self._instructions: set[str] | None = None
        self._computations: set[str] | None = None
        self._next: dict[str, int] = {}

    def of_instruction(self, base: str) -> str:
        """`base`, or `base.1`, `base.2` ...: a name that no instruction has, taken from now on."""
        if self._instructions is None:
            scope = self._scope
            self._instructions = {i.name for i in (scope.instructions() if isinstance(scope, Module) else scope.instructions)}
        taken = self._instructions
        name, number = base, self._next.get(base, 0)
        if number or base in taken:
            number = max(number, 1)
            while (name := f"{base}.{number}") in taken:
                number += 1
            self._next[base] = number + 1
        taken.add(name)
        return name

    def of_computation(self, base: str) -> str:
        """The same for computations of the module."""
        assert isinstance(self._scope, Module)
        if self._computations is None:
            self._computations = {computation.name for computation in self._scope.computations}
        return self._scope.unique_name(base, self._computations)


class Builder:
    """Appends instructions to one computation.

    Names are unique in the module (or the computation, while it has no module) and depend only on what was there and on
    the order of calls. `location` is given to each new instruction and may be set between calls. Use one Builder for
    many instructions, and `within`, or the same Names, for another computation of the same module: finding the taken names
    costs a walk. New instructions come last in definition order; `Computation.post_order()` is the order to trust after
    rewriting.
    """

    def __init__(self, computation: Computation, location: Location = NOWHERE, names: Names | None = None) -> None:
        self.computation = computation
        self.location = location
        self.names = names or Names(computation.parent or computation)

    def within(self, computation: Computation) -> Builder:
        """A builder for another computation that shares the names of this one."""
        return Builder(computation, self.location, self.names)

    def make(self, opcode: str, *operands: Instruction, shape: Shape | None = None, called: Sequence[Computation] = (),
             name: str | None = None, **attributes: Any) -> Instruction:
        """Append one instruction and return it.

        shape: the result; inferred by the operator's rule if absent. attributes: by Attribute.key; optional ones that
        equal their default are left out, so that equal instructions have equal dictionaries.
        Raises ShapeError if operands or attributes break the operator's rule.
        """
        operator = find(opcode)
        kept = canonical_attributes(operator, attributes)
        if shape is None:
            shape = infer_shape(operator, [o.shape for o in operands], kept, called)
        else:
            check_arity(operator, len(operands))
        made = Instruction(self.unique_name(name or opcode), operator, shape, operands, kept, called, self.location)
        return self.computation.add(made)

    def unique_name(self, base: str) -> str:
        """`base`, or `base.1`, `base.2` ...: a name that no instruction has, taken from now on."""
        return self.names.of_instruction(base)

    # The instructions that passes make most.

    def parameter(self, number: int, shape: Shape, name: str | None = None) -> Instruction:
        return self.make("parameter", shape=shape, name=name or f"p{number}", parameter_number=number)

    def literal(self, literal: Literal, name: str | None = None) -> Instruction:
        return self.make("constant", shape=literal.shape, name=name, literal=literal)

    def constant(self, values: Array, name: str | None = None) -> Instruction:
        """A constant over an array, which is not copied; its numpy dtype says the element type."""
        return self.literal(literal_of(np.asarray(values)), name)

    def splat(self, dtype: DType, dims: Sequence[int], value: Any) -> Instruction:
        """A constant whose elements are all `value`, in the memory of one element."""
        return self.literal(splat(dtype, tuple(dims), value))

    def broadcast(self, x: Instruction, dims: Sequence[int], dimensions: Sequence[int] = ()) -> Instruction:
        """Operand dimension i becomes result dimension dimensions[i]; `dims` are the sizes of the result."""
        return self.make("broadcast", x, shape=Shape(x.shape.dtype, tuple(dims)), dimensions=tuple(dimensions))

    def reshape(self, x: Instruction, dims: Sequence[int]) -> Instruction:
        return self.make("reshape", x, shape=Shape(x.shape.dtype, tuple(dims)))

    def transpose(self, x: Instruction, permutation: Sequence[int]) -> Instruction:
        """Result dimension i is operand dimension permutation[i]."""
        return self.make("transpose", x, dimensions=tuple(permutation))

    def convert(self, x: Instruction, dtype: DType) -> Instruction:
        shape = x.shape
        return self.make("convert", x, shape=Shape(dtype, shape.dims, dynamic=shape.dynamic))

    def compare(self, left: Instruction, right: Instruction, direction: str, type: str = "") -> Instruction:
        shape = Shape(PRED, left.shape.dims, dynamic=left.shape.dynamic)
        return self.make("compare", left, right, shape=shape, direction=direction, type=type)

    def tuple(self, *elements: Instruction) -> Instruction:
        return self.make("tuple", *elements)

    def get_tuple_element(self, x: Instruction, index: int) -> Instruction:
        return self.make("get-tuple-element", x, index=index)

    def slice(self, x: Instruction, starts: Sequence[int], limits: Sequence[int],
              strides: Sequence[int] | None = None) -> Instruction:
        steps = strides or [1] * len(starts)
        return self.make("slice", x, slice=tuple(map(SliceDimension, starts, limits, steps)))

    def dot(self, lhs: Instruction, rhs: Instruction, contracting: DimensionLists,
            batch: DimensionLists = ((), ()), dtype: DType | None = None, **attributes: Any) -> Instruction:
        """A dot; contracting and batch are (lhs, rhs) dimension lists, dtype the result's if not the operands'."""
        attributes |= {"lhs_batch_dims": tuple(batch[0]), "lhs_contracting_dims": tuple(contracting[0]),
                       "rhs_batch_dims": tuple(batch[1]), "rhs_contracting_dims": tuple(contracting[1])}
        shape = infer_shape(find("dot"), [lhs.shape, rhs.shape], attributes)
        if dtype is not None:
            shape = shape.with_dtype(dtype)
        return self.make("dot", lhs, rhs, shape=shape, **attributes)


def canonical_attributes(operator: Operator, attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes without optional ones that equal their default; the keys must be declared."""
    kept = {}
    for declared in operator.attributes:
        if declared.key in attributes:
            value = attributes[declared.key]
            if declared.required or value != declared.default:
                kept[declared.key] = value
    undeclared = attributes.keys() - operator.defaults.keys()
    assert not undeclared, f"{operator.name} has no attribute {sorted(undeclared)}"
    return kept


# Copies. Literals, attribute records and shapes are immutable and shared.


def clone_instruction(instruction: Instruction, operands: Iterable[Instruction],
                      called: Iterable[Computation] | None = None, name: str | None = None) -> Instruction:
    """A copy over other operands, in no computation yet; control predecessors are left to the caller."""
    copy = Instruction(name or instruction.name, instruction.operator, instruction.shape, operands,
                       dict(instruction.attributes), instruction.called if called is None else called,
                       instruction.location)
    copy.frontend_attributes = dict(instruction.frontend_attributes)
    copy.backend_config = instruction.backend_config
    copy.sharding = instruction.sharding
    copy.statistics = instruction.statistics
    copy.origin = instruction.origin
    return copy


def _copy_body(source: Computation, target: Computation, computations: dict[Computation, Computation]) -> None:
    """Fill an empty computation with copies of all instructions of another, calls mapped by `computations`."""
    copies: dict[Instruction, Instruction] = {}
    for old in source.post_order():
        callees = [computations.get(c, c) for c in old.called]
        copies[old] = clone_instruction(old, [copies[o] for o in old.operands], callees)
    # post_order may differ from definition order, which a scheduled module promises to keep
    for old in source.instructions:
        copy = target.add(copies[old])
        copy.control_predecessors = tuple(copies[p] for p in old.control_predecessors)
    target.root = copies[source.root]
    target.execution_thread = source.execution_thread
    target.is_fusion = source.is_fusion


def clone_computation(computation: Computation, name: str,
                      computations: dict[Computation, Computation] | None = None) -> Computation:
    """A copy under another name, in no module yet; instruction names stay, called computations are shared or mapped."""
    copy = Computation(name)
    _copy_body(computation, copy, computations or {})
    return copy


def clone_module(module: Module) -> Module:
    """A copy that shares nothing mutable with the original; literals stay shared views."""
    copy = replace(module, computations=[], frontend_attributes=dict(module.frontend_attributes),
                   header=dict(module.header))
    pairs = {old: Computation(old.name) for old in module.computations}
    for old, new in pairs.items():
        copy.add(new, entry=old is module.entry)
        _copy_body(old, new, pairs)
    return copy


def inline_call(instruction: Instruction, builder: Builder) -> Instruction:
    """Replace a call or fusion by the instructions of its computation; returns what stands for its result.

    The called computation is left as it is. Copies without a location take the call's.
    """
    caller = builder.computation
    assert instruction.parent is caller and len(instruction.called) == 1
    callee = instruction.called[0]
    copies = dict(zip(callee.parameters, instruction.operands, strict=True))
    for old in callee.post_order():
        if old in copies:
            continue
        copy = clone_instruction(old, [copies[o] for o in old.operands], name=builder.unique_name(old.name))
        if copy.location == NOWHERE:
            copy.location = instruction.location
        copies[old] = caller.add(copy)
    result = copies[callee.root]
    for old, copy in copies.items():
        if old.opcode != "parameter":
            inner = tuple(copies[p] for p in old.control_predecessors)
            copy.control_predecessors = inner + instruction.control_predecessors
    for other in caller.instructions:
        if instruction in other.control_predecessors:
            other.control_predecessors = tuple(result if p is instruction else p for p in other.control_predecessors)
    caller.replace(instruction, result)
    caller.remove(instruction)
    return result
