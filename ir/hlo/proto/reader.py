"""Reads a serialized HloModuleProto, HloProto, HloSnapshot or HloUnoptimizedSnapshot into a Module.

The file is mapped and its wire format walked down to the instructions. Literals are cut out and stay where they are; the
small rest of each message is parsed by the protobuf library. So there is no limit of 2 GiB, and no copy of any weight.
What the messages mean: HLO format reference, sections 1, 2 and 6.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from nxcc.ir.diagnostics import EMPTY_INPUT, INVALID_MODULE, CompileError
from nxcc.ir.dtypes import DType
from nxcc.ir.files import map_file
from nxcc.ir.hlo.attributes import IoAlias, Kind
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.operator import Operator, find
from nxcc.ir.hlo.proto.codecs import attributes_of
from nxcc.ir.hlo.proto.framing import COMPUTATIONS, module_ranges
from nxcc.ir.hlo.proto.literals import read_literal
from nxcc.ir.hlo.proto.metadata import location_from_proto, origin_from_proto, statistics_from_proto, tables_from_proto
from nxcc.ir.hlo.proto.schema import message_type
from nxcc.ir.hlo.proto.shapes import shape_from_proto
from nxcc.ir.hlo.proto.sharding import sharding_from_proto
from nxcc.ir.hlo.proto.wire import Buffer, Range, Record, WireError, corrupt, find_fault, split
from nxcc.ir.literals import Literal
from nxcc.ir.location import Location
from nxcc.ir.shapes import Shape

INSTRUCTIONS = 2
SHAPE, METADATA, LITERAL = 3, 7, 8
_CUT_FROM_MODULE = frozenset((COMPUTATIONS,))
_CUT_FROM_COMPUTATION = frozenset((INSTRUCTIONS,))
_CUT_FROM_INSTRUCTION = frozenset((SHAPE, METADATA, LITERAL))
_MAIN_THREAD = "main"
ALIAS_KINDS = ("may-alias", "may-alias", "must-alias")
"""IoAlias.kind by the number of the protobuf's Kind; 0 is undefined."""


def read_module(source: str | os.PathLike[str] | Buffer, *, name: str = "<bytes>") -> Module:
    """The module in a file (a path) or in memory (bytes).

    name: what errors call bytes. Literals are views of the mapped file, or of the given bytes, and keep them alive.
    Raises CompileError: FILE_UNREADABLE, EMPTY_INPUT, PROTO_CORRUPT with the byte offset, UNKNOWN_OPERATOR, INVALID_MODULE
    for references that lead nowhere, LIMIT_EXCEEDED.
    """
    if isinstance(source, bytes | memoryview):
        data = memoryview(source)
    else:
        name = os.fspath(source)
        data = map_file(name)
    if not len(data):
        raise CompileError(EMPTY_INPUT, f"{name} holds no bytes", remedy="give a serialized HLO module")
    try:
        return _ModuleReader(data, name).read(module_ranges(data))
    except WireError as error:
        raise corrupt(error, name) from None


class _ModuleReader:
    """Turns the messages of one module into a Module; remembers equal shapes and locations by their bytes."""

    def __init__(self, data: Buffer, name: str) -> None:
        self.data = data
        self.name = name
        self.shapes: dict[bytes, Shape] = {}
        self.locations: dict[bytes, Location] = {}
        self.computations: dict[int, Computation] = {}
        self.calls: list[tuple[Instruction, Any]] = []
        self.module = Module("")
        self.message: Any = None

    def read(self, ranges: list[Range]) -> Module:
        message, computations = self.parse(message_type("HloModuleProto"), ranges, _CUT_FROM_MODULE)
        self.message = message
        module = self.module
        module.name = message.name
        module.is_scheduled = message.HasField("schedule")
        for record in computations:
            self._computation([_payload(record)])
        self._link_calls()
        module.computations = callees_first(module)
        module.entry = self._entry()
        self._header()
        return module

    # Messages

    def parse(self, kind: Any, ranges: list[Range], cut: frozenset[int]) -> tuple[Any, list[Record]]:
        """A message without the records of some fields, and these records."""
        rest, found = split(self.data, ranges, cut)
        return self._from_bytes(kind, rest, ranges), found

    def _from_bytes(self, kind: Any, content: bytes, ranges: list[Range]) -> Any:
        from google.protobuf.message import DecodeError
        try:
            return kind.FromString(content)
        except DecodeError:
            raise find_fault(self.data, ranges, kind.DESCRIPTOR) from None

    def _bytes(self, ranges: list[Range]) -> bytes:
        return b"".join(self.data[start:end] for start, end in ranges)

    def shape(self, ranges: list[Range]) -> Shape:
        content = self._bytes(ranges)
        shape = self.shapes.get(content)
        if shape is None:
            try:
                shape = shape_from_proto(self._from_bytes(message_type("ShapeProto"), content, ranges))
            except CompileError as error:
                error.where = error.where or self.place(ranges)
                raise
            self.shapes[content] = shape
        return shape

    def location(self, ranges: list[Range]) -> Location:
        content = self._bytes(ranges)
        location = self.locations.get(content)
        if location is None:
            metadata = self._from_bytes(message_type("OpMetadata"), content, ranges)
            location = self.locations[content] = location_from_proto(metadata, self.message.stack_frame_index)
        return location

    def place(self, ranges: list[Range]) -> str:
        return f"{self.name}: byte {ranges[0][0]}" if ranges else self.name

    def invalid(self, what: str, where: str = "", location: str = "") -> CompileError:
        return CompileError(INVALID_MODULE, what, where or self.name, location)

    # Computations

    def _computation(self, ranges: list[Range]) -> None:
        message, instructions = self.parse(message_type("HloComputationProto"), ranges, _CUT_FROM_COMPUTATION)
        computation = Computation(message.name)
        computation.is_fusion = message.is_fusion_computation
        computation.execution_thread = message.execution_thread if message.execution_thread != _MAIN_THREAD else ""
        if message.id in self.computations:
            raise self.invalid(f"computations {self.computations[message.id].name} and {message.name} have the same id",
                                self.place(ranges))
        self.computations[message.id] = computation
        body = _BodyReader(self, computation)
        for record in instructions:
            body.add([_payload(record)])
        body.finish(message.root_id, self.message.schedule.sequences, message.id)
        self.module.add(computation)

    def _link_calls(self) -> None:
        for instruction, ids in self.calls:
            called = []
            for number in ids:
                if number not in self.computations:
                    raise self.invalid(f"{instruction.name} calls computation {number}, which does not exist",
                                        instruction.name, location=str(instruction.location))
                called.append(self.computations[number])
            instruction.called = tuple(called)
            if instruction.opcode == "fusion":
                for computation in called:
                    computation.is_fusion = True

    def _entry(self) -> Computation:
        message = self.message
        entry = self.computations.get(message.entry_computation_id)
        if entry is not None and (message.entry_computation_id or entry.name == message.entry_computation_name):
            return entry
        for computation in self.module.computations:
            if computation.name == message.entry_computation_name:
                return computation
        wanted = message.entry_computation_name or message.entry_computation_id
        raise self.invalid(f"the entry computation {wanted} does not exist")

    # What the module says besides its computations

    def _header(self) -> None:
        module, message = self.module, self.message
        module.aliases = tuple(sorted((self._alias(entry) for entry in message.input_output_alias.entries),
                                      key=lambda alias: alias.output_index))
        module.buffer_donors = tuple((entry.parameter_number, tuple(entry.parameter_shape_index))
                                     for entry in message.buffer_donor.entries)
        if message.HasField("host_program_shape"):
            shape = message.host_program_shape
            module.entry_layout = (tuple(map(shape_from_proto, shape.parameters)), shape_from_proto(shape.result))
        module.frontend_attributes = dict(sorted(message.frontend_attributes.map.items()))
        if message.stack_frame_index.stack_frames:
            module.stack_frames = tables_from_proto(message.stack_frame_index)

    def _alias(self, entry: Any) -> IoAlias:
        if not 0 <= entry.kind < len(ALIAS_KINDS):
            raise self.invalid(f"input_output_alias has the unknown kind {entry.kind}")
        return IoAlias(tuple(entry.output_shape_index), entry.parameter_number, tuple(entry.parameter_shape_index),
                       ALIAS_KINDS[entry.kind])


class _BodyReader:
    """The instructions of one computation, by id."""

    __slots__ = ("module", "computation", "by_id", "forward", "controls")

    def __init__(self, module: _ModuleReader, computation: Computation) -> None:
        self.module = module
        self.computation = computation
        self.by_id: dict[int, Instruction] = {}
        self.forward: list[tuple[Instruction, Any]] = []
        self.controls: list[tuple[Instruction, Any]] = []

    def add(self, ranges: list[Range]) -> None:
        module = self.module
        message, cut = module.parse(message_type("HloInstructionProto"), ranges, _CUT_FROM_INSTRUCTION)
        place = f"{message.name}, {module.place(ranges)}"
        operator = self._operator(message, place)
        if message.id in self.by_id:
            raise module.invalid(f"instructions {self.by_id[message.id].name} and {message.name} have the same id", place)
        known = self.by_id
        ids = message.operand_ids
        try:
            operands = [known[i] for i in ids]
        except KeyError:
            operands = []
        made = Instruction(message.name, operator, module.shape(_of(cut, SHAPE)), operands)
        made.location = module.location(_of(cut, METADATA))
        if len(operands) != len(ids):
            self.forward.append((made, ids))
        self.computation.add(made)
        known[message.id] = made
        try:
            self._attributes(made, message)
            self._literal(made, _of(cut, LITERAL))
            self._common(made, message)
        except CompileError as error:
            error.where = error.where or place
            error.location = error.location or str(made.location)
            raise

    def _operator(self, message: Any, place: str) -> Operator:
        try:
            return find(message.opcode)
        except CompileError as unknown:
            unknown.where = place
            raise

    def _attributes(self, made: Instruction, message: Any) -> None:
        values = made.attributes
        for bound in attributes_of(made.operator):
            attribute = bound.attribute
            value = bound.read(message)
            if attribute.required:
                if value is None:
                    raise CompileError(INVALID_MODULE, f"{made.opcode} needs {attribute.key}")
                values[attribute.key] = value
            elif value is not None and value != attribute.default:
                values[attribute.key] = value
        if values.get("type") and made.operands and values["type"] == default_comparison(made.operands[0].shape.dtype):
            del values["type"]

    def _literal(self, made: Instruction, ranges: list[Range]) -> None:
        for attribute in made.operator.attributes:
            if attribute.kind is Kind.LITERAL and (ranges or attribute.required):
                literal = read_literal(self.module.data, ranges, self.module.shape, self.module.name)
                if made.opcode == "constant":
                    literal = self._of_constant(made, literal)
                made.attributes[attribute.key] = literal

    def _of_constant(self, made: Instruction, literal: Literal) -> Literal:
        if literal.shape != made.shape:
            raise CompileError(INVALID_MODULE, f"the constant {made.name} is {made.shape}, its literal is {literal.shape}")
        return literal

    def _common(self, made: Instruction, message: Any) -> None:
        """What every instruction may carry; almost all carry nothing, so each is asked for presence first."""
        module = self.module
        if message.called_computation_ids:
            module.calls.append((made, message.called_computation_ids))
        if message.control_predecessor_ids:
            self.controls.append((made, message.control_predecessor_ids))
        if message.frontend_attributes.map:
            made.frontend_attributes = dict(sorted(message.frontend_attributes.map.items()))
        if message.HasField("sharding"):
            made.sharding = sharding_from_proto(message.sharding, module.message.stack_frame_index)
        made.backend_config = message.backend_config or self._config_payload(message)
        made.statistics = statistics_from_proto(message.statistics_viz)
        if message.HasField("original_value"):
            made.origin = origin_from_proto(message.original_value)
        if message.HasField("parameter_replication"):
            made.attributes["parameter_replication"] = tuple(message.parameter_replication.replicated_at_leaf_buffers)

    def _config_payload(self, message: Any) -> bytes:
        payload = message.backend_config_payload
        if not payload.HasField("id"):
            return bytes(payload.value)
        payloads = self.module.message.payloads
        if not 0 <= payload.id < len(payloads):
            raise CompileError(INVALID_MODULE, f"backend_config_payload names payload {payload.id} of {len(payloads)}")
        return bytes(payloads[payload.id])

    # References

    def finish(self, root_id: int, sequences: Any, computation_id: int) -> None:
        computation = self.computation
        if not computation.instructions:
            raise self.module.invalid(f"computation {computation.name} has no instructions")
        for made, ids in self.forward:
            computation.set_operands(made, [self._find(i, made, "operand") for i in ids])
        for made, ids in self.controls:
            made.control_predecessors = tuple(self._find(i, made, "control predecessor") for i in ids)
        if root_id not in self.by_id:
            raise self.module.invalid(f"the root {root_id} of computation {computation.name} does not exist")
        computation.root = self.by_id[root_id]
        if self.module.module.is_scheduled and computation_id in sequences:
            self._schedule(list(sequences[computation_id].instruction_ids))
        elif self.forward:
            computation.sort()
        self._check_order()

    def _find(self, number: int, user: Instruction, role: str) -> Instruction:
        found = self.by_id.get(number)
        if found is None:
            raise self.module.invalid(f"{user.name} has the {role} {number}, which does not exist in computation "
                                       f"{self.computation.name}", user.name, location=str(user.location))
        return found

    def _schedule(self, ids: list[int]) -> None:
        if len(ids) != len(self.by_id) or set(ids) != self.by_id.keys():
            raise self.module.invalid(f"the schedule of {self.computation.name} does not name each instruction once")
        self.computation.arrange(self.by_id[i] for i in ids)
        for instruction in self.computation.instructions:
            self.computation.set_operands(instruction, instruction.operands)

    def _check_order(self) -> None:
        """Operands before users; after sorting, only a cycle can break that."""
        if not (self.forward or self.module.module.is_scheduled):
            return
        seen: set[Instruction] = set()
        for instruction in self.computation.instructions:
            seen.add(instruction)
            for operand in instruction.operands:
                if operand not in seen or operand is instruction:
                    raise self.module.invalid(
                        f"{instruction.name} is computed before its operand {operand.name}, or from itself", instruction.name)


def _payload(record: Record) -> Range:
    return record[2], record[3]


def _of(cut: list[Record], number: int) -> list[Range]:
    return [(start, end) for found, _, start, end in cut if found == number]


def default_comparison(dtype: DType) -> str:
    """The comparison type that operands of a type have if nothing is said."""
    if dtype.is_float or dtype.is_complex:
        return "FLOAT"
    return "SIGNED" if dtype.is_signed else "UNSIGNED"


def callees_first(module: Module) -> list[Computation]:
    """The computations so that callees come before callers, else in their own order; iterative.

    Raises CompileError(INVALID_MODULE) if a computation calls itself, directly or through others.
    """
    order: list[Computation] = []
    state: dict[Computation, bool] = {}
    for start in module.computations:
        stack: list[tuple[Computation, Iterator[Computation]]] = []
        if start not in state:
            state[start] = False
            stack.append((start, _callees(start)))
        while stack:
            node, rest = stack[-1]
            callee = next((c for c in rest if not state.get(c, False)), None)
            if callee is None:
                state[node] = True
                order.append(node)
                stack.pop()
            elif callee in state:
                raise CompileError(INVALID_MODULE, f"computation {callee.name} calls itself", where=callee.name)
            else:
                state[callee] = False
                stack.append((callee, _callees(callee)))
    return order


def _callees(computation: Computation) -> Iterator[Computation]:
    for instruction in computation.instructions:
        yield from instruction.called
