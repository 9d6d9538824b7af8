"""Reads a serialized HloModuleProto, HloProto, HloSnapshot or HloUnoptimizedSnapshot into a Module.

The file is mapped and its wire format walked down to the instructions. Literals stay where they are; the small rest of each
message is parsed by the protobuf library. So there is no limit of 2 GiB, and no copy of any weight.
What the messages mean: HLO format reference, sections 1, 2 and 6.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from nxcc.ir.diagnostics import EMPTY_INPUT, INVALID_MODULE, CompileError
from nxcc.ir.files import map_file
from nxcc.ir.hlo.attributes import IoAlias
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.proto.bodies import INSTRUCTIONS, BodyReader, Kind
from nxcc.ir.hlo.proto.framing import COMPUTATIONS, module_ranges
from nxcc.ir.hlo.proto.metadata import location_from_proto, tables_from_proto
from nxcc.ir.hlo.proto.schema import message_type
from nxcc.ir.hlo.proto.shapes import shape_from_proto
from nxcc.ir.hlo.proto.wire import Buffer, Range, Record, WireError, corrupt, find_fault, split
from nxcc.ir.location import Location
from nxcc.ir.shapes import Shape

_CUT_FROM_MODULE = frozenset((COMPUTATIONS,))
_CUT_FROM_COMPUTATION = frozenset((INSTRUCTIONS,))
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
        return ModuleReader(data, name).read(module_ranges(data))
    except WireError as error:
        raise corrupt(error, name) from None


class ModuleReader:
    """Turns the messages of one module into a Module; remembers equal shapes, locations and kinds by their bytes."""

    def __init__(self, data: Buffer, name: str) -> None:
        self.data = data
        self.name = name
        self.shapes: dict[bytes, Shape] = {}
        self.locations: dict[bytes, Location] = {}
        self.kinds: dict[bytes, Kind] = {}
        self.computations: dict[int, Computation] = {}
        self.calls: list[tuple[Instruction, tuple[int, ...]]] = []
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
                shape = shape_from_proto(self.message_of("ShapeProto", ranges))
            except CompileError as error:
                error.where = error.where or self.place(ranges)
                raise
            self.shapes[content] = shape
        return shape

    def location(self, metadata: Any) -> Location:
        content = metadata.SerializeToString()
        location = self.locations.get(content)
        if location is None:
            location = self.locations[content] = location_from_proto(metadata, self.message.stack_frame_index)
        return location

    def message_of(self, kind: str, ranges: list[Range]) -> Any:
        return self._from_bytes(message_type(kind), self._bytes(ranges), ranges)

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
        body = BodyReader(self, computation)
        body.read(instructions)
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


def _payload(record: Record) -> Range:
    return record[2], record[3]


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
