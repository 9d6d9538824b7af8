"""Writes a Module as a serialized HloModuleProto: deterministic bytes, dense ids, weights streamed from their views.

Computations come callees first and are numbered from 1; an instruction's id is (computation id << 32) + its place, as
XLA's own files have it. read_module of the result gives an equal module. What the protobuf has no place for (replica_count,
num_partitions and other settings of the text header) is lost: HLO format reference, section 1.2.
"""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO

from nxcc.ir.files import whole_file
from nxcc.ir.hlo.attributes import Kind
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.proto.bodies import INSTRUCTIONS, LITERAL, default_comparison
from nxcc.ir.hlo.proto.codecs import attributes_of
from nxcc.ir.hlo.proto.framing import COMPUTATIONS
from nxcc.ir.hlo.proto.literals import Piece, literal_pieces, pieces_size
from nxcc.ir.hlo.proto.metadata import location_to_proto, origin_to_proto, statistics_to_proto, tables_to_proto
from nxcc.ir.hlo.proto.reader import ALIAS_KINDS, callees_first
from nxcc.ir.hlo.proto.schema import message_type
from nxcc.ir.hlo.proto.shapes import shape_to_proto
from nxcc.ir.hlo.proto.sharding import sharding_to_proto
from nxcc.ir.hlo.proto.wire import write_record
from nxcc.ir.location import NOWHERE
from nxcc.ir.shapes import Shape

_MAIN_THREAD = "main"


def module_bytes(module: Module) -> bytes:
    """The serialized module in memory, weights included; for small modules and tests."""
    out = io.BytesIO()
    write_module(module, out)
    return out.getvalue()


def write_module(module: Module, target: str | os.PathLike[str] | BinaryIO) -> None:
    """Write the serialized module to a file, which appears whole or not at all, or to an open binary file.

    Literals are read piece by piece; a file beyond 2 GiB is written, though only readers that walk the wire format take it.
    Raises CompileError(FILE_UNWRITABLE).
    """
    pieces = _module_pieces(module)
    if not isinstance(target, str | os.PathLike):
        _write(pieces, target)
        return
    with whole_file(os.fspath(target)) as file:
        _write(pieces, file)


def _write(pieces: list[Piece], file: BinaryIO) -> None:
    for piece in pieces:
        if isinstance(piece, bytes):
            file.write(piece)
        else:
            file.writelines(piece[1]())


class _Ids:
    """Numbers of computations and instructions."""

    def __init__(self, computations: list[Computation]) -> None:
        self.of_computation = {computation: number for number, computation in enumerate(computations, 1)}
        self.bodies = {computation: computation.post_order() for computation in computations}
        self.of_instruction = {instruction: (self.of_computation[computation] << 32) + place
                               for computation, body in self.bodies.items() for place, instruction in enumerate(body)}


def _module_pieces(module: Module) -> list[Piece]:
    computations = callees_first(module)
    ids = _Ids(computations)
    pieces = [_bytes(_header(module, ids))]
    for computation in computations:
        pieces += _framed(COMPUTATIONS, _computation_pieces(computation, ids))
    return pieces


def _bytes(message: Any) -> Piece:
    content: bytes = message.SerializeToString(deterministic=True)
    return content


def _framed(number: int, pieces: list[Piece]) -> list[Piece]:
    return [write_record(number, pieces_size(pieces)), *pieces]


def _header(module: Module, ids: _Ids) -> Any:
    """Everything of the module but its computations."""
    message = message_type("HloModuleProto")(
        name=module.name, entry_computation_name=module.entry.name, entry_computation_id=ids.of_computation[module.entry])
    parameters, result = module.entry_layout or _signature(module.entry)
    _program_shape(message.host_program_shape, parameters, result, [f"p{n}" for n in range(len(parameters))])
    for alias in module.aliases:
        message.input_output_alias.entries.add(
            output_shape_index=alias.output_index, parameter_number=alias.parameter,
            parameter_shape_index=alias.parameter_index,
            kind=max(number for number, kind in enumerate(ALIAS_KINDS) if kind == alias.kind))
    for parameter, index in module.buffer_donors:
        message.buffer_donor.entries.add(parameter_number=parameter, parameter_shape_index=index)
    if module.is_scheduled:
        message.schedule.SetInParent()
        for computation, body in ids.bodies.items():
            sequence = message.schedule.sequences[ids.of_computation[computation]]
            sequence.instruction_ids.extend(ids.of_instruction[i] for i in body)
    message.frontend_attributes.map.update(module.frontend_attributes)
    if module.stack_frames:
        tables_to_proto(module.stack_frames, message.stack_frame_index)
    message.is_dynamic = any(leaf.dynamic for i in module.instructions() for leaf in i.shape.leaves())
    return message


def _signature(computation: Computation) -> tuple[tuple[Shape, ...], Shape]:
    return tuple(p.shape for p in computation.parameters), computation.root.shape


def _program_shape(message: Any, parameters: tuple[Shape, ...], result: Shape, names: list[str]) -> None:
    for shape in parameters:
        shape_to_proto(shape, message.parameters.add())
    shape_to_proto(result, message.result)
    message.parameter_names.extend(names)


def _computation_pieces(computation: Computation, ids: _Ids) -> list[Piece]:
    message = message_type("HloComputationProto")(
        name=computation.name, id=ids.of_computation[computation], root_id=ids.of_instruction[computation.root],
        is_fusion_computation=computation.is_fusion, execution_thread=computation.execution_thread or _MAIN_THREAD)
    _program_shape(message.program_shape, *_signature(computation), [p.name for p in computation.parameters])
    pieces = [_bytes(message)]
    for instruction in ids.bodies[computation]:
        pieces += _framed(INSTRUCTIONS, _instruction_pieces(instruction, ids))
    return pieces


def _instruction_pieces(instruction: Instruction, ids: _Ids) -> list[Piece]:
    message = message_type("HloInstructionProto")(
        name=instruction.name, opcode=instruction.opcode, id=ids.of_instruction[instruction],
        operand_ids=[ids.of_instruction[o] for o in instruction.operands],
        control_predecessor_ids=[ids.of_instruction[p] for p in instruction.control_predecessors],
        called_computation_ids=[ids.of_computation[c] for c in instruction.called],
        backend_config=instruction.backend_config)
    shape_to_proto(instruction.shape, message.shape)
    if instruction.location != NOWHERE:
        location_to_proto(instruction.location, message.metadata)
    message.frontend_attributes.map.update(instruction.frontend_attributes)
    if instruction.sharding is not None:
        sharding_to_proto(instruction.sharding, message.sharding)
    if instruction.statistics:
        statistics_to_proto(instruction.statistics, message.statistics_viz)
    if instruction.origin:
        origin_to_proto(instruction.origin, message.original_value)
    _attributes(instruction, message)
    pieces = [_bytes(message)]
    for attribute in instruction.operator.attributes:
        literal = instruction.attributes.get(attribute.key)
        if attribute.kind is Kind.LITERAL and literal is not None:
            pieces += _framed(LITERAL, literal_pieces(literal))
    return pieces


def _attributes(instruction: Instruction, message: Any) -> None:
    """Attributes that differ from what absence means; those that XLA's reader wants in any case are written always."""
    values = instruction.attributes
    for bound in attributes_of(instruction.operator):
        value = values.get(bound.attribute.key, bound.attribute.default)
        if value is not None and (bound.attribute.required or value != bound.attribute.default):
            bound.write(message, value)
    if instruction.opcode == "compare":
        message.comparison_type = values.get("type") or default_comparison(instruction.operands[0].shape.dtype)
    if instruction.opcode in ("convolution", "custom-call"):
        message.feature_group_count = instruction.attribute("feature_group_count")
        message.batch_group_count = instruction.attribute("batch_group_count")
    for flag in values.get("parameter_replication", ()):
        message.parameter_replication.replicated_at_leaf_buffers.append(flag)


