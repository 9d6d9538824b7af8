"""Checks that a module is valid HLO before anything trusts it.

Invariants of a module:
- the entry is one of the module's computations; computation names are unique; called computations belong to the module;
- no computation calls itself, directly or through others; calls nest at most MAX_CALL_DEPTH deep;
- entry_layout, input_output_alias and buffer_donor name parameters and parts of them (and of the result) that exist, with
  as many bytes; no part of the result and no part of a parameter is aliased twice.
Invariants of a computation:
- it has a root, which is one of its instructions; instruction names are unique in it;
- operands and control predecessors are instructions of the same computation, and list their users; there is no cycle of
  operands (definition order is not required: after rewriting the post-order is the order to trust);
- parameters are numbered 0 to n-1 without holes or repetition.
Invariants of an instruction:
- its operator's operand count; attributes declared, of the declared kind, the required ones present; as many called
  computations as the operator has;
- its shape: sizes not negative (or unbounded), below MAX_BYTES, tuples nested at most MAX_TUPLE_DEPTH deep, a layout that
  is a permutation of the dimensions;
- output_to_operand_aliasing joins parts that exist and have equal shapes;
- the operator's shape rule holds and gives the declared shape (up to layout and which dimensions are dynamic; dot and
  convolution may declare another element type than their operands have), and the operator's own check holds.
  Signatures of called computations are part of these rules.
Not checked: instructions with unbounded dimensions beyond their structure, since their rules cannot compute with sizes;
shardings; execution threads; whether control dependences alone form a cycle.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from nxcc.ir.diagnostics import INVALID_MODULE, LIMIT_EXCEEDED, Code, CompileError
from nxcc.ir.dtypes import BUFFER
from nxcc.ir.hlo.attributes import (
    Attribute,
    ConvolutionDimensions,
    Domain,
    Kind,
    OperandAlias,
    PaddingDimension,
    ReplicaGroups,
    ResultAccuracy,
    SliceDimension,
    Window,
)
from nxcc.ir.hlo.builder import check_arity, infer_shape
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.operator import Operator, ShapeError
from nxcc.ir.hlo.ops.checks import compatible
from nxcc.ir.literals import Literal
from nxcc.ir.shapes import UNBOUNDED, Shape

MAX_CALL_DEPTH = 100
MAX_TUPLE_DEPTH = 64
MAX_BYTES = 2**48
"""Of one value: far above any device, and low enough that no product of sizes overflows 64 bits."""

RESULT_TYPE_IS_DECLARED = frozenset({"dot", "ragged-dot", "scaled-dot", "convolution"})
"""Operators whose result may have another element type than the rule infers: a wider one to accumulate in."""

_MEMBER_TYPES: dict[Kind, type] = {
    Kind.INTS: int, Kind.NAMES: str, Kind.PADDING: PaddingDimension, Kind.SLICES: SliceDimension, Kind.PAIRS: tuple,
    Kind.SHAPES: Shape, Kind.ALIASES: OperandAlias}

COMMON_ATTRIBUTES = frozenset({"parameter_replication"})
"""Kept from the input although no operator declares them: they have no meaning on one device."""

_TYPES: dict[Kind, type | tuple[type, ...]] = {
    Kind.INT: int, Kind.BOOL: bool, Kind.FLOAT: (float, int), Kind.STRING: str, Kind.NAME: str, Kind.WINDOW: Window,
    Kind.CONV_DIMS: ConvolutionDimensions, Kind.GROUPS: ReplicaGroups, Kind.SHAPE: Shape, Kind.ACCURACY: ResultAccuracy,
    Kind.DOMAIN: Domain, Kind.LITERAL: Literal, Kind.SPARSITY: str}


class _Problems:
    """What was found so far; the first one becomes the error, all of them its details."""

    def __init__(self) -> None:
        self.found: list[tuple[Code, str, str, str, str]] = []

    def at(self, instruction: Instruction, why: str, code: Code = INVALID_MODULE) -> None:
        parent = instruction.parent
        where = f"%{instruction.name}" + (f" in {parent.name}" if parent is not None else "")
        self.found.append((code, f"{instruction.opcode} is not valid", where, str(instruction.location), why))

    def of(self, what: str, where: str, why: str, code: Code = INVALID_MODULE) -> None:
        self.found.append((code, f"{what} is not valid", where, "", why))

    def report(self) -> None:
        if not self.found:
            return
        code, what, where, location, why = self.found[0]
        more = len(self.found) - 1
        raise CompileError(code, what, where, location, why, f"{more} more problems were found" if more else "",
                           tuple(f"{where}: {why}" for _, _, where, _, why in self.found))


def verify(module: Module) -> None:
    """Raise CompileError(NXC0106, or NXC0107 for a limit) if the module breaks an invariant; `details` holds them all."""
    problems = _Problems()
    _verify_computation_list(module, problems)
    for computation in module.computations:
        _verify_structure(computation, module, problems)
    problems.report()
    _verify_call_graph(module, problems)
    problems.report()
    _verify_instructions(module, problems)
    _verify_interface(module, problems)
    problems.report()


# The module


def _repeated(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]


def _verify_computation_list(module: Module, problems: _Problems) -> None:
    for name in _repeated(c.name for c in module.computations):
        problems.of("module", module.name, f"two computations are named {name}")
    if module.entry is None or module.entry not in module.computations:
        problems.of("module", module.name, "it has no entry computation")


def _callees(computation: Computation) -> list[Computation]:
    return list(dict.fromkeys(callee for i in computation.instructions for callee in i.called))


def _verify_call_graph(module: Module, problems: _Problems) -> None:
    callees = {c: _callees(c) for c in module.computations}
    waiting = dict.fromkeys(module.computations, 0)
    for called in callees.values():
        for callee in called:
            waiting[callee] += 1
    depth = dict.fromkeys(module.computations, 1)
    ready = deque(c for c, callers in waiting.items() if not callers)
    while ready:
        caller = ready.popleft()
        for callee in callees[caller]:
            depth[callee] = max(depth[callee], depth[caller] + 1)
            waiting[callee] -= 1
            if not waiting[callee]:
                ready.append(callee)
    recursive = [c.name for c, callers in waiting.items() if callers]
    if recursive:
        problems.of("module", module.name, f"computations call themselves: {', '.join(recursive)}")
    elif max(depth.values()) > MAX_CALL_DEPTH:
        problems.of("module", module.name, f"calls nest more than {MAX_CALL_DEPTH} deep", LIMIT_EXCEEDED)


def _part(shape: Shape, path: Iterable[int]) -> Shape | None:
    """The part of a shape that a path names, or None."""
    for index in path:
        if not 0 <= index < len(shape.elements):
            return None
        shape = shape.elements[index]
    return shape


def _verify_interface(module: Module, problems: _Problems) -> None:
    parameters = [p.shape for p in module.entry.parameters]
    result = module.entry.root.shape
    for reason in (*_layout_reasons(module, parameters, result), *_alias_reasons(module, parameters, result)):
        problems.of("module", module.name, reason)


def _layout_reasons(module: Module, parameters: list[Shape], result: Shape) -> Iterator[str]:
    if module.entry_layout is None:
        return
    declared, declared_result = module.entry_layout
    if len(declared) != len(parameters) or not all(map(compatible, declared, parameters)):
        yield f"entry_computation_layout has other parameters than the entry {module.entry.name}"
    if not compatible(declared_result, result):
        yield f"entry_computation_layout returns {declared_result}, the entry {module.entry.name} returns {result}"


MUST_ALIAS = "must-alias"
"""The kind of alias that is a promise; the other kind is an offer, which parts of different sizes cannot take."""


def _alias_reasons(module: Module, parameters: list[Shape], result: Shape) -> Iterator[str]:
    outputs: set[tuple[int, ...]] = set()
    inputs: set[tuple[int, tuple[int, ...]]] = set()
    for alias in module.aliases:
        output = _part(result, alias.output_index)
        source = _parameter_part(parameters, alias.parameter, alias.parameter_index)
        what = f"input_output_alias of output {list(alias.output_index)} and parameter {alias.parameter}"
        if output is None or source is None:
            yield f"{what} {list(alias.parameter_index)} names what does not exist"
        elif output.byte_size != source.byte_size and alias.kind == MUST_ALIAS:
            yield f"{what} joins {output} and {source}"
        if alias.output_index in outputs or (alias.parameter, alias.parameter_index) in inputs:
            yield f"{what} repeats one of them"
        outputs.add(alias.output_index)
        inputs.add((alias.parameter, alias.parameter_index))
    for number, path in module.buffer_donors:
        if _parameter_part(parameters, number, path) is None:
            yield f"buffer_donor names parameter {number} {list(path)}, which does not exist"


def _parameter_part(parameters: list[Shape], number: int, path: Iterable[int]) -> Shape | None:
    return _part(parameters[number], path) if 0 <= number < len(parameters) else None


# A computation


def _verify_structure(computation: Computation, module: Module, problems: _Problems) -> None:
    instructions = computation.instructions
    if computation.root is None or computation.root not in instructions:
        problems.of("computation", computation.name, "it has no root among its instructions")
    for name in _repeated(i.name for i in instructions):
        problems.of("computation", computation.name, f"two instructions are named {name}")
    in_order = True
    before: set[Instruction] = set()
    for instruction in instructions:
        for operand in instruction.operands:
            if operand not in before:
                in_order = False
            if operand.parent is not computation or instruction not in operand.users:
                problems.at(instruction, f"operand %{operand.name} is not an instruction of {computation.name}")
        before.add(instruction)
        if instruction.control_predecessors or instruction.called:
            _verify_references(instruction, module, problems)
    if not in_order and _has_cycle(computation):
        problems.of("computation", computation.name, "instructions use each other's results in a circle")
    _verify_parameter_numbers(computation, problems)


def _verify_references(instruction: Instruction, module: Module, problems: _Problems) -> None:
    for predecessor in instruction.control_predecessors:
        if predecessor.parent is not instruction.parent:
            problems.at(instruction, f"control predecessor %{predecessor.name} is in another computation")
    for callee in instruction.called:
        if callee.parent is not module:
            problems.at(instruction, f"called computation {callee.name} is not part of the module")


def _has_cycle(computation: Computation) -> bool:
    waiting = {i: len(set(i.operands)) for i in computation.instructions}
    ready = deque(i for i, operands in waiting.items() if not operands)
    done = 0
    while ready:
        done += 1
        for user in ready.popleft().users:
            if user in waiting:
                waiting[user] -= 1
                if not waiting[user]:
                    ready.append(user)
    return done < len(waiting)


def _verify_parameter_numbers(computation: Computation, problems: _Problems) -> None:
    numbers = [i.attributes.get("parameter_number") for i in computation.instructions if i.opcode == "parameter"]
    if any(type(n) is not int for n in numbers) or sorted(numbers) != list(range(len(numbers))):  # type: ignore[type-var]
        problems.of("computation", computation.name, f"parameter numbers must be 0 to {len(numbers) - 1} without holes, "
                                                     f"they are {', '.join(map(str, numbers))}")


# An instruction


def _verify_instructions(module: Module, problems: _Problems) -> None:
    """Each instruction, but of those that say the same about the same shapes only the first: readers share what is equal."""
    valid: set[tuple[object, ...]] = set()
    for computation in module.computations:
        for instruction in computation.instructions:
            if instruction.called or not _looks_at_shapes(instruction.operator):
                _verify_instruction(instruction, problems)
                continue
            key = (instruction.opcode, *map(id, instruction.attributes.values()), *instruction.attributes,
                   *[id(operand.shape) for operand in instruction.operands], id(instruction.shape))
            if key not in valid and _verify_instruction(instruction, problems):
                valid.add(key)


@cache
def _looks_at_shapes(operator: Operator) -> bool:
    """Whether what must hold of an instruction depends on nothing but its attributes and shapes."""
    return operator.check is None or operator.elementwise or operator.moves_data


def _verify_instruction(instruction: Instruction, problems: _Problems) -> bool:
    """Whether it is valid."""
    try:
        _check_shape(instruction.shape)
        _check_attributes(instruction)
        _check_called(instruction)
        _check_rule(instruction)
        _check_output_aliases(instruction)
        return True
    except ShapeError as error:
        problems.at(instruction, str(error))
    except _LimitError as error:
        problems.at(instruction, str(error), LIMIT_EXCEEDED)
    return False


class _LimitError(Exception):
    """A value is larger, or nested deeper, than nxcc takes."""


def _check_shape(shape: Shape) -> None:
    level: Sequence[Shape] = (shape,)
    depth = 0
    while level:
        depth += 1
        if depth > MAX_TUPLE_DEPTH:
            raise _LimitError(f"tuples nest more than {MAX_TUPLE_DEPTH} deep")
        inner: list[Shape] = []
        for part in level:
            if part.elements:
                inner.extend(part.elements)
            else:
                _check_leaf(part)
        level = inner


def _check_leaf(shape: Shape) -> None:
    dims = shape.dims
    for d, size in enumerate(dims):
        if size < 0 and (size != UNBOUNDED or d not in shape.dynamic):
            raise ShapeError(f"size {size} of dimension {d} is negative")
    if dims and math.prod(dims) * shape.dtype.byte_size > MAX_BYTES and UNBOUNDED not in dims:
        raise _LimitError(f"{shape} takes more than {MAX_BYTES} bytes")
    layout = shape.layout
    if layout is not None and len(dims) > 1 and sorted(layout.minor_to_major) != list(range(len(dims))):
        raise ShapeError(f"layout {layout} is not an order of the {len(dims)} dimensions of {shape}")


@cache
def _declared(operator: Operator) -> tuple[dict[str, Attribute], tuple[str, ...]]:
    """The attributes by key, and the keys of those that must be given."""
    required = tuple(a.key for a in operator.attributes if a.required and a.default is None)
    return {a.key: a for a in operator.attributes}, required


def _check_attributes(instruction: Instruction) -> None:
    declared, required = _declared(instruction.operator)
    attributes = instruction.attributes
    for key in required:
        if attributes.get(key) is None:
            raise ShapeError(f"attribute {key} is missing")
    for key, value in attributes.items():
        attribute = declared.get(key)
        if attribute is None and key in COMMON_ATTRIBUTES:
            continue
        if attribute is None:
            raise ShapeError(f"{instruction.opcode} has no attribute {key}")
        if value is not None and not _is_of_kind(value, attribute.kind):
            raise ShapeError(f"attribute {key} must be {attribute.kind.value}, it is {value!r}")


def _is_of_kind(value: Any, kind: Kind) -> bool:
    member = _MEMBER_TYPES.get(kind)
    if member is not None:
        return isinstance(value, tuple) and all(type(v) is member for v in value)
    if not isinstance(value, _TYPES[kind]):
        return False
    return kind is not Kind.INT or not isinstance(value, bool)


def _check_called(instruction: Instruction) -> None:
    keys, given = instruction.operator.called, len(instruction.called)
    if keys and keys[-1].endswith("*"):
        return
    if given != len(keys):
        raise ShapeError(f"{instruction.opcode} calls {len(keys)} computations, {given} are given")


def _check_rule(instruction: Instruction) -> None:
    operator = instruction.operator
    try:
        if operator.shape is None:
            check_arity(operator, len(instruction.operands))
        else:
            inferred = infer_shape(operator, [o.shape for o in instruction.operands], instruction.attributes,
                                   instruction.called)
            _check_declared(instruction, inferred)
        if operator.check is not None:
            operator.check(instruction)
    except ShapeError:
        # rules compute with sizes, and an unbounded size is no number to compute with
        if not _is_unbounded(instruction):
            raise


def _check_declared(instruction: Instruction, inferred: Shape) -> None:
    declared = instruction.shape
    if instruction.opcode in RESULT_TYPE_IS_DECLARED and declared.is_array:
        inferred = inferred.with_dtype(declared.dtype)
    if instruction.opcode == "scan" and declared.is_array and len(inferred.elements) == 1:
        inferred = inferred.elements[0]
    if not compatible(declared, inferred):
        raise ShapeError(f"the result is declared as {declared}, it is {inferred}")


def _check_output_aliases(instruction: Instruction) -> None:
    for alias in instruction.attributes.get("output_to_operand_aliasing") or ():
        operands = [o.shape for o in instruction.operands]
        output, source = _part(instruction.shape, alias.output_index), _parameter_part(operands, alias.operand,
                                                                                       alias.operand_index)
        what = f"output_to_operand_aliasing of {list(alias.output_index)} and operand {alias.operand}"
        if output is None or source is None:
            raise ShapeError(f"{what} {list(alias.operand_index)} names what does not exist")
        if not compatible(*map(_held, (output, source))):
            raise ShapeError(f"{what} joins {output} and {source}")


def _held(shape: Shape) -> Shape:
    """Of a buffer the array that it holds: pinning an array keeps its memory."""
    return shape.elements[0] if shape.dtype is BUFFER else shape


def _is_unbounded(instruction: Instruction) -> bool:
    shapes = [instruction.shape, *(o.shape for o in instruction.operands)]
    return any(UNBOUNDED in leaf.dims for shape in shapes for leaf in shape.leaves())
