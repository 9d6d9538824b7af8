"""From raw computations to a Module: names resolved, attributes typed, missing shapes inferred, names made unique as in XLA."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from nxcc.ir.diagnostics import INVALID_MODULE, CompileError, near
from nxcc.ir.hlo.attributes import Attribute
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.operator import Operator, find, operators
from nxcc.ir.hlo.text.attributes import read_attribute
from nxcc.ir.hlo.text.completion import COMPLETED, complete_async, default_comparison, without_element_bits
from nxcc.ir.hlo.text.cursor import Cursor, TextError
from nxcc.ir.hlo.text.header import frame_place, read_module_attribute, read_tables
from nxcc.ir.hlo.text.inferred import InferredShapes
from nxcc.ir.hlo.text.keys import BRANCHES, text_keys, unknown_key
from nxcc.ir.hlo.text.lexer import Token
from nxcc.ir.hlo.text.literals import read_literal
from nxcc.ir.hlo.text.names import Names
from nxcc.ir.hlo.text.notes import COMMON
from nxcc.ir.hlo.text.shapes import ShapeReader
from nxcc.ir.hlo.text.sharding import of_tuple
from nxcc.ir.hlo.text.syntax import RawAttribute, RawComputation, RawInstruction, RawOperand
from nxcc.ir.location import Location
from nxcc.ir.shapes import Shape, tuple_of

_ASYNC = re.compile(r"(.+)-(start|update|done)")
_NO_ASYNC_SUGAR = frozenset(("all-gather", "all-reduce", "collective-permute", "copy", "send", "recv"))


class _Scope:
    """Names visible inside one computation; `open` lets unknown operands become parameters (a bare instruction)."""

    __slots__ = ("computation", "instructions", "open", "parameters")

    def __init__(self, computation: Computation, open: bool = False) -> None:
        self.computation = computation
        self.instructions: dict[str, Instruction] = {}
        self.parameters: dict[int, Instruction] = {}
        self.open = open


class ModuleReader:
    """Turns raw computations into a Module."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.shapes = ShapeReader()
        self.result: Module = Module("")
        self.computations: dict[str, Computation] = {}
        self.values: dict[tuple[str, str, str], Any] = {}
        self.defined: dict[Instruction, Token] = {}
        self.inferred = InferredShapes()

    # The module

    def module(self, parts: list[Any]) -> Module:
        header, *rest = parts
        computations = [p for p in rest if isinstance(p, RawComputation)]
        tables = [p for p in rest if isinstance(p, Token)]
        marked = [c for c in computations if c.entry is not None]
        if len(marked) > 1:
            raise TextError(_start(marked[1].entry), "two computations are marked ENTRY")
        entry = marked[0] if marked else computations[-1]
        module = self.result
        if header is not None:
            self._header(header)
        elif computations[0].signature is not None and computations[0].entry is None:
            raise TextError(computations[0].name.start, "a text without a HloModule line starts with ENTRY or with `name {`")
        else:
            module.name = "module_" + str(entry.name.value)
        if tables:
            module.stack_frames = read_tables((t.value for t in tables), tables[0].start)
        for raw in computations:
            self._computation(raw, raw is entry)
        return self._finish()

    def bare(self, raw: RawInstruction) -> Module:
        """A module around one instruction whose unknown operands become parameters."""
        module = self.result
        module.name = "_"
        module.is_scheduled = True
        computation = Computation("_")
        scope = _Scope(computation, open=True)
        computation.root = self._instruction(raw, scope)
        if raw.name is None:
            computation.root.name = "_"
        module.add(computation, entry=True)
        return self._finish()

    def _header(self, header: list[Token]) -> None:
        name, *attributes = header
        self.result.name = name.value
        seen: set[str] = set()
        for token in attributes:
            if token.value in seen:
                raise TextError(token.start, f"attribute {token.value} is given twice")
            seen.add(token.value)
            read_module_attribute(self.result, token.value, Cursor(self.source, token.start, token.end), _key_start(token))

    def _finish(self) -> Module:
        module = self.result
        names, computation_names = Names(), Names()
        for computation in module.computations:
            computation.name = computation_names.unique(computation.name)
            for instruction in computation.instructions:
                instruction.name = names.unique(instruction.name)
                if instruction.opcode == "fusion":
                    instruction.called[0].is_fusion = True
        self._check_entry_layout()
        return module

    def _check_entry_layout(self) -> None:
        module = self.result
        if module.entry_layout is None:
            return
        parameters, result = module.entry_layout
        actual = module.entry.parameters
        if len(parameters) != len(actual):
            raise TextError(0, f"entry_computation_layout has {len(parameters)} parameters, the entry {len(actual)}",
                            INVALID_MODULE)
        pairs = [*zip(parameters, (p.shape for p in actual), strict=True), (result, module.entry.root.shape)]
        for declared, shape in pairs:
            if declared.dims != shape.dims:
                raise TextError(0, f"entry_computation_layout says {declared} where the entry has {shape}", INVALID_MODULE)

    # Computations

    def _computation(self, raw: RawComputation, is_entry: bool) -> None:
        name = raw.name.value
        if name in self.computations:
            raise TextError(raw.name.start, f"computation {name} is defined twice", INVALID_MODULE)
        computation = self._body(raw.body, name)
        if raw.signature is not None:
            declared = self._shape(raw.signature)
            if declared != computation.root.shape:
                raise TextError(raw.signature.start, f"the signature says {declared}, the root yields {computation.root.shape}",
                                INVALID_MODULE)
        for token in raw.attributes:
            if token.value != "execution_thread":
                raise TextError(_key_start(token), f"computations have no attribute {token.value!r}",
                                remedy="only execution_thread is known")
            computation.execution_thread = Cursor(self.source, token.start, token.end).string()
        self.computations[name] = computation
        self.result.add(computation, entry=is_entry)

    def _body(self, body: list[RawInstruction], name: str) -> Computation:
        computation = Computation(name)
        scope = _Scope(computation)
        root: Instruction | None = None
        for raw in body:
            instruction = self._instruction(raw, scope)
            if raw.is_root:
                if root is not None:
                    raise TextError(_start(raw.name), f"computation {name} has two roots", INVALID_MODULE)
                root = instruction
        computation.root = root or instruction
        self._check_parameters(scope)
        return computation

    def _check_parameters(self, scope: _Scope) -> None:
        numbers = scope.parameters
        for expected in range(len(numbers)):
            if expected not in numbers:
                highest = numbers[max(numbers)]
                raise TextError(self.defined[highest].start, f"parameter {expected} is missing, "
                                f"there is a parameter {max(numbers)}", INVALID_MODULE)

    # Instructions

    def _instruction(self, raw: RawInstruction, scope: _Scope) -> Instruction:
        opcode = raw.opcode.value
        name_token = raw.name or raw.opcode
        name = name_token.value if raw.name else f"{opcode}.anon"
        if raw.name and name in scope.instructions:
            before = self.defined[scope.instructions[name]]
            line = self.source.count("\n", 0, before.start) + 1
            raise TextError(name_token.start, f"instruction {name} is defined twice in this computation", INVALID_MODULE,
                            why=f"the first is in line {line}")
        operator, wrapped = self._operator(raw.opcode)
        if operator.name == "parameter":
            made = self._parameter(raw, scope, name, operator)
        elif operator.name == "constant":
            made = self._constant(raw, scope, name, operator)
        else:
            made = self._general(raw, scope, name, operator, wrapped)
        if made.sharding is not None and made.shape.is_tuple:
            made.sharding = of_tuple(made.sharding, made.shape)
        scope.computation.add(made)
        if raw.name:
            scope.instructions[name] = made
        self.defined[made] = name_token
        return made

    def _operator(self, token: Token) -> tuple[Operator, str]:
        """The operator, and for async sugar such as `negate-start` the name of the one that it wraps."""
        row = operators().get(token.value)
        if row is not None:
            return row, ""
        sugar = _ASYNC.fullmatch(token.value)
        if sugar and sugar[1] in operators() and sugar[1] not in _NO_ASYNC_SUGAR:
            return find(f"async-{sugar[2]}"), sugar[1]
        try:
            return find(token.value), ""
        except CompileError as unknown:
            raise TextError(token.start, unknown.what, unknown.code, remedy=unknown.remedy) from None

    def _parameter(self, raw: RawInstruction, scope: _Scope, name: str, operator: Operator) -> Instruction:
        number_token = self._one_value(raw, "INT", "parameter takes its number: parameter(0)")
        number = int(self.source[number_token.start:number_token.end][:18])
        if number < 0 or number in scope.parameters:
            raise TextError(_start(raw.name or raw.opcode), f"parameter {number} is defined twice" if number >= 0 else
                            f"{number} is no parameter number", INVALID_MODULE)
        made = Instruction(name, operator, self._declared_shape(raw), attributes={"parameter_number": number})
        scope.parameters[number] = made
        self._attributes(made, raw, scope)
        return made

    def _constant(self, raw: RawInstruction, scope: _Scope, name: str, operator: Operator) -> Instruction:
        token = self._one_value(raw, "LITERAL", "constant takes a literal")
        shape = self._declared_shape(raw)
        shape = without_element_bits(shape)
        literal = read_literal(Cursor(self.source, token.start, token.end), shape)
        made = Instruction(name, operator, shape, attributes={"literal": literal})
        self._attributes(made, raw, scope)
        return made

    def _one_value(self, raw: RawInstruction, kind: str, complaint: str) -> Token:
        if len(raw.operands) == 1:
            token = raw.operands[0][1]
            if isinstance(token, Token) and token.type == kind:
                return token
        raise TextError(raw.opcode.start, complaint)

    def _declared_shape(self, raw: RawInstruction) -> Shape:
        if raw.shape is None:
            raise TextError(raw.opcode.start, f"{raw.opcode.value} needs its shape written before it", INVALID_MODULE)
        return self._shape(raw.shape)

    def _general(self, raw: RawInstruction, scope: _Scope, name: str, operator: Operator, wrapped: str) -> Instruction:
        operands = [self._operand(o, scope) for o in _named(raw.operands, scope)]
        if wrapped and operator.name == "async-start":
            return self._async_start(raw, scope, name, operator, find(wrapped), operands)
        low, high = operator.min_operands, operator.max_operands
        if len(operands) < low or high is not None and len(operands) > high:
            takes = f"{low}" if low == high else f"at least {low}" if high is None else f"{low} to {high}"
            raise TextError(raw.opcode.start, f"{operator.name} takes {takes} operands, {len(operands)} were given",
                            INVALID_MODULE)
        made = Instruction(name, operator, operands[0].shape if operands else tuple_of(), operands)
        self._attributes(made, raw, scope)
        if wrapped:
            self._check_async(raw.opcode, made, wrapped)
        made.shape = self._shape(raw.shape) if raw.shape is not None else self.inferred.shape(made, raw.opcode.start)
        complete = COMPLETED.get(operator.name)
        if complete:
            complete(made)
        return made

    def _operand(self, raw: RawOperand, scope: _Scope) -> Instruction:
        shape_token, what, indices = raw
        if isinstance(what, RawInstruction):
            return self._instruction(what, scope)
        if what is not None and what.type != "NAME":
            raise TextError(what.start, "an operand is the name of an instruction or an instruction in place")
        if what is None or what.value not in scope.instructions:
            found = self._unknown_operand(shape_token, what, scope)
        else:
            found = scope.instructions[what.value]
        for index in indices:
            found = self._element(found, index, scope)
        if shape_token is not None:
            shape = self._shape(shape_token)
            if shape != found.shape:
                raise TextError(shape_token.start, f"the operand is written as {shape}, but {found.name} is {found.shape}",
                                INVALID_MODULE)
        return found

    def _unknown_operand(self, shape_token: Token | None, name: Token | None, scope: _Scope) -> Instruction:
        """A parameter in a bare instruction; anywhere else the error that no such instruction exists so far."""
        if scope.open and shape_token is not None:
            number = len(scope.parameters)
            made = Instruction(name.value if name else f"_{number}", find("parameter"), self._shape(shape_token),
                               attributes={"parameter_number": number})
            scope.parameters[number] = scope.instructions[made.name] = made
            self.defined[made] = name or shape_token
            return scope.computation.add(made)
        if name is None:
            raise TextError(_start(shape_token), "an operand's name was expected after its shape")
        raise TextError(name.start, f"no instruction {name.value} stands before this line in this computation", INVALID_MODULE,
                        why="operands must be defined before their use",
                        remedy=near(name.value, list(scope.instructions)[-2000:]))

    def _element(self, whole: Instruction, index_token: Token, scope: _Scope) -> Instruction:
        """The element that `%t#1` names, as an instruction of its own."""
        index = int(self.source[index_token.start:index_token.end][:18])
        if not whole.shape.is_tuple or not 0 <= index < len(whole.shape.elements):
            raise TextError(index_token.start, f"{whole.name} has no element {index}", INVALID_MODULE)
        made = Instruction(f"{whole.name}.{index}", find("get-tuple-element"), whole.shape.elements[index], (whole,),
                           {"index": index})
        self.defined[made] = index_token
        return scope.computation.add(made)

    def _shape(self, token: Token) -> Shape:
        return self.shapes.read(self.source, token.start, token.end)

    # Async sugar

    def _async_start(self, raw: RawInstruction, scope: _Scope, name: str, operator: Operator, wrapped: Operator,
                     operands: list[Instruction]) -> Instruction:
        """`x-start(operands)`: an async-start around a computation that holds x alone."""
        shape = self._declared_shape(raw)
        if not shape.is_tuple or len(shape.elements) < 2:
            raise TextError(_start(raw.shape), "the result of an async start is ((operands), result, ..)", INVALID_MODULE)
        inner = Computation("async_wrapped")
        parameters = [inner.add(Instruction("async_param", find("parameter"), o.shape, attributes={"parameter_number": n}))
                      for n, o in enumerate(operands)]
        work = Instruction(wrapped.name, wrapped, shape.elements[1], parameters)
        outer = Instruction(name, operator, shape, operands)
        own = {"async_execution_thread", "output_to_operand_aliasing"} - wrapped.defaults.keys()
        common = COMMON.keys()
        mine: list[RawAttribute] = []
        rest: list[RawAttribute] = []
        for attribute in raw.attributes:
            key = attribute[0].value
            (mine if key in own or key in common else rest).append(attribute)
        self._attributes(work, _with_attributes(raw, rest), scope)
        outer.called = (inner,)
        self._attributes(outer, _with_attributes(raw, mine), scope)
        inner.root = inner.add(work)
        complete_async(outer)
        self.result.add(inner)
        return outer

    def _check_async(self, token: Token, made: Instruction, wrapped: str) -> None:
        """An update or done must continue a start of the operator that it names."""
        start = made.operands[0]
        while start.opcode == "async-update":
            start = start.operands[0]
        if start.opcode != "async-start" or start.called[0].root.opcode != wrapped:
            raise TextError(token.start, f"{token.value} must continue a {wrapped}-start", INVALID_MODULE)

    # Attributes

    def _attributes(self, made: Instruction, raw: RawInstruction, scope: _Scope) -> None:
        declared = text_keys(made.operator)
        seen: dict[str, list[Computation]] = {}
        for token, callees in raw.attributes:
            key = token.value
            if key in seen:
                raise TextError(_key_start(token), f"attribute {key} is given twice")
            seen[key] = []
            if callees is not None and key in declared.calls:
                seen[key] = [self._callee(c) for c in callees]
            elif key in declared.typed:
                self._typed(made, declared.typed[key], token)
            elif key in declared.ignored:
                continue
            elif key in COMMON:
                self._common(made, key, token, scope)
            else:
                raise unknown_key(made, key, _key_start(token), declared)
        for key in declared.required:
            if key not in seen:
                raise TextError(raw.opcode.start, f"{made.opcode} needs the attribute {key}", INVALID_MODULE)
        made.attributes |= {key: value for key, value in declared.absent.items() if key not in seen}
        if declared.calls and not made.called:
            made.called = self._called(made, seen, raw.opcode)

    def _typed(self, made: Instruction, attribute: Attribute, token: Token) -> None:
        key = attribute.key
        known = key, attribute.enum, self.source[token.start:token.end]
        value = self.values.get(known)
        if value is None:
            value = read_attribute(attribute, Cursor(self.source, token.start, token.end))
            self.values[known] = value
        if value != attribute.default or attribute.required:
            made.attributes[key] = value
        if key == "channel_id":
            made.attributes[key] = value
        if key == "type" and value == default_comparison(made.operands[0].shape):
            del made.attributes[key]

    def _common(self, made: Instruction, key: str, token: Token, scope: _Scope) -> None:
        cursor = Cursor(self.source, token.start, token.end)
        if key == "control-predecessors":
            made.control_predecessors = self._predecessors(cursor, scope)
        else:
            read = COMMON[key]
            assert read is not None
            read(made, cursor)
        cursor.finish()
        if key == "metadata" and made.location.stack_frame_id:
            made.location = self._framed(made.location)

    def _framed(self, location: Location) -> Location:
        """The location with file and line of its stack frame where it has none of its own; a frame without row is dropped."""
        tables = self.result.stack_frames
        if tables is None or not 0 < location.stack_frame_id <= len(tables["StackFrames"]):
            return replace(location, stack_frame_id=0)
        if location.source_file:
            return location
        return replace(location, **frame_place(tables, location.stack_frame_id))  # type: ignore[arg-type]

    def _predecessors(self, cursor: Cursor, scope: _Scope) -> tuple[Instruction, ...]:
        cursor.expect("{")
        found: list[Instruction] = []
        while not cursor.take("}"):
            if found:
                cursor.expect(",")
            cursor.take("%")
            start = cursor.position
            name = cursor.word()
            if name not in scope.instructions:
                raise TextError(start, f"no instruction {name} stands before this line in this computation", INVALID_MODULE)
            found.append(scope.instructions[name])
        return tuple(found)

    def _callee(self, raw: Token | list[RawInstruction]) -> Computation:
        if isinstance(raw, list):
            computation = self._body(raw, "_")
            self.result.add(computation)
            return computation
        found = self.computations.get(raw.value)
        if found is None:
            raise TextError(raw.start, f"no computation {raw.value} stands before this line", INVALID_MODULE,
                            why="computations must be defined before their use")
        return found

    def _called(self, made: Instruction, seen: dict[str, list[Computation]], opcode: Token) -> tuple[Computation, ...]:
        """The called computations in protobuf order."""
        if made.opcode == "conditional" and BRANCHES[0] in seen:
            wanted: Iterable[str] = BRANCHES
        elif made.opcode == "custom-call" and "to_apply" in seen:
            wanted = ("to_apply",)
        else:
            wanted = made.operator.called
        found: list[Computation] = []
        for key in wanted:
            computations = seen.get(key.rstrip("*"))
            if not key.endswith("*") and (computations is None or len(computations) != 1):
                raise TextError(opcode.start, f"{made.opcode} needs one computation as {key}", INVALID_MODULE)
            found += computations or []
        if made.opcode == "conditional" and not found:
            raise TextError(opcode.start, "conditional needs branch_computations, or true_computation and false_computation",
                            INVALID_MODULE)
        return tuple(found)


def _named(operands: Sequence[RawOperand], scope: _Scope) -> Sequence[RawOperand]:
    """Operands without shapes that stand alone before another: XLA reads over a comma behind an operand's shape."""
    if scope.open:
        return operands
    last = len(operands) - 1
    return [row for number, row in enumerate(operands) if number == last or row[0] is None or row[1] is not None]


def _start(token: Token | None) -> int:
    return token.start if token is not None else 0


def _key_start(token: Token) -> int:
    """Where the key of an attribute stands; its token begins at the value, or for computations at the comma."""
    return token.start - len(token.value) - 1 if token.type == "ATTR" else token.start


def _with_attributes(raw: RawInstruction, attributes: list[RawAttribute]) -> RawInstruction:
    return RawInstruction(raw.is_root, raw.name, raw.shape, raw.opcode, raw.operands, attributes)
