"""Reads the instructions of one computation.

Instructions that say the same but for their name, id, operands and origin are of one `Kind`, which is understood once: a model
has some hundred kinds, however many layers it has. What the fields mean: HLO format reference, section 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nxcc.ir.diagnostics import INVALID_MODULE, CompileError
from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import Kind as AttributeKind
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.hlo.operator import Operator, find
from nxcc.ir.hlo.proto.codecs import attributes_of
from nxcc.ir.hlo.proto.literals import read_literal
from nxcc.ir.hlo.proto.metadata import origin_from_proto, statistics_from_proto
from nxcc.ir.hlo.proto.schema import message_type
from nxcc.ir.hlo.proto.sharding import sharding_from_proto
from nxcc.ir.hlo.proto.wire import Buffer, Range, Record, split, write_record
from nxcc.ir.location import NOWHERE, Location
from nxcc.ir.shapes import Shape

if TYPE_CHECKING:
    from nxcc.ir.hlo.proto.reader import ModuleReader

INSTRUCTIONS = 2
"""Field number in HloComputationProto."""

SHAPE, METADATA, LITERAL = 3, 7, 8
_CUT = frozenset((SHAPE, METADATA, LITERAL))
_OWN = ("name", "id", "operand_ids", "metadata")
"""Fields in which instructions of one kind differ."""

SMALL_BYTES = 4096
"""Instructions up to this size are parsed many at a time, literals with them; a literal is still read where it lies."""

MANY = 512


@dataclass(frozen=True, slots=True)
class Kind:
    """What instructions have in common. called, controls: ids. is_plain: it has none of what is listed behind."""

    operator: Operator
    shape: Shape
    attributes: dict[str, Any]
    is_plain: bool
    called: tuple[int, ...]
    controls: tuple[int, ...]
    frontend_attributes: dict[str, str]
    sharding: Any
    backend_config: bytes
    statistics: str
    origin: str


class BodyReader:
    """The instructions of one computation, by id."""

    __slots__ = ("module", "computation", "by_id", "forward", "controls")

    def __init__(self, module: ModuleReader, computation: Computation) -> None:
        self.module = module
        self.computation = computation
        self.by_id: dict[int, Instruction] = {}
        self.forward: list[tuple[Instruction, tuple[int, ...]]] = []
        self.controls: list[tuple[Instruction, tuple[int, ...]]] = []

    def read(self, records: Sequence[Record]) -> None:
        for group in _groups([record[2:] for record in records]):
            if _size(group[0]) > SMALL_BYTES:
                self._large(group[0])
            else:
                for message, record in zip(self._parsed(group), group, strict=True):
                    self._small(message, record)

    def _parsed(self, records: list[Range]) -> Sequence[Any]:
        from google.protobuf.message import DecodeError
        content = _together(self.module.data, records)
        try:
            return message_type("HloComputationProto").FromString(content).instructions  # type: ignore[no-any-return]
        except DecodeError:
            return [self.module.parse(message_type("HloInstructionProto"), [record], frozenset())[0] for record in records]

    def _small(self, message: Any, record: Range) -> None:
        """An instruction that has been parsed whole; the message is taken over."""
        module = self.module
        name, number, ids = message.name, message.id, tuple(message.operand_ids)
        location = module.location(message.metadata) if message.HasField("metadata") else NOWHERE
        for field in _OWN:
            message.ClearField(field)
        content = message.SerializeToString()
        kind = module.kinds.get(content)
        if kind is None:
            cut = split(module.data, (record,), _CUT)[1]
            kind = module.kinds[content] = self._kind(message, cut, location, f"{name}, {module.place([record])}")
        self._add(kind, name, number, ids, location, record)

    def _large(self, record: Range) -> None:
        module = self.module
        message, cut = module.parse(message_type("HloInstructionProto"), [record], _CUT)
        location = module.location(module.message_of("OpMetadata", _of(cut, METADATA)))
        kind = self._kind(message, cut, location, f"{message.name}, {module.place([record])}")
        self._add(kind, message.name, message.id, tuple(message.operand_ids), location, record)

    def _add(self, kind: Kind, name: str, number: int, ids: tuple[int, ...], location: Location, record: Range) -> None:
        known = self.by_id
        if number in known:
            raise self.module.invalid(f"instructions {known[number].name} and {name} have the same id",
                                      f"{name}, {self.module.place([record])}")
        try:
            operands = [known[i] for i in ids]
        except KeyError:
            operands = []
        made = Instruction(name, kind.operator, kind.shape, operands, kind.attributes.copy(), (), location)
        if len(operands) != len(ids):
            self.forward.append((made, ids))
        self.computation.add(made)
        known[number] = made
        if operands and made.attributes and made.attributes.get("type") == default_comparison(operands[0].shape.dtype):
            del made.attributes["type"]
        if not kind.is_plain:
            self._rarities(kind, made)

    def _rarities(self, kind: Kind, made: Instruction) -> None:
        """What any instruction may carry and almost none does."""
        if kind.called:
            self.module.calls.append((made, kind.called))
        if kind.controls:
            self.controls.append((made, kind.controls))
        made.frontend_attributes = dict(kind.frontend_attributes)
        made.sharding, made.backend_config = kind.sharding, kind.backend_config
        made.statistics, made.origin = kind.statistics, kind.origin

    # Kinds

    def _kind(self, message: Any, cut: list[Record], location: Location, place: str) -> Kind:
        try:
            operator = find(message.opcode)
        except CompileError as unknown:
            unknown.where = place
            raise
        shape = self.module.shape(_of(cut, SHAPE))
        try:
            attributes = _attributes(operator, message)
            self._literal(operator, shape, attributes, _of(cut, LITERAL), message)
            rarities = self._rarities_of(message)
        except CompileError as error:
            error.where = error.where or place
            error.location = error.location or str(location)
            raise
        if message.HasField("parameter_replication"):
            attributes["parameter_replication"] = tuple(message.parameter_replication.replicated_at_leaf_buffers)
        return Kind(operator, shape, attributes, not any(rarities), *rarities)

    def _literal(self, operator: Operator, shape: Shape, attributes: dict[str, Any], ranges: list[Range], message: Any) -> None:
        module = self.module
        for attribute in operator.attributes:
            if attribute.kind is AttributeKind.LITERAL and (ranges or attribute.required):
                literal = read_literal(module.data, ranges, module.shape, module.name)
                if operator.name == "constant" and literal.shape != shape:
                    raise CompileError(INVALID_MODULE, f"the constant is {shape}, its literal is {literal.shape}")
                attributes[attribute.key] = literal

    def _rarities_of(self, message: Any) -> tuple[Any, ...]:
        """The fields of Kind behind is_plain; almost all are empty, so each is asked for presence first."""
        frontend, sharding = message.frontend_attributes.map, None
        if message.HasField("sharding"):
            sharding = sharding_from_proto(message.sharding, self.module.message.stack_frame_index)
        return (tuple(message.called_computation_ids), tuple(message.control_predecessor_ids),
                dict(sorted(frontend.items())) if frontend else {}, sharding,
                message.backend_config or self._config_payload(message), statistics_from_proto(message.statistics_viz),
                origin_from_proto(message.original_value) if message.HasField("original_value") else "")

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



def _together(data: Buffer, records: list[Range]) -> bytes:
    """Instructions as a computation holds them: a piece of the file where they follow each other there."""
    headers = [write_record(INSTRUCTIONS, records[0][1] - records[0][0])]
    first = records[0][0] - len(headers[0])
    at = records[0][1]
    for start, end in records[1:]:
        size = end - start
        # tag and length of so short a record take two bytes, or three
        if start - at != (2 if size < 0x80 else 3 if size < 0x4000 else 0):
            break
        at = end
    else:
        if bytes(data[first:records[0][0]]) == headers[0]:
            return bytes(data[first:at])
    return b"".join([write_record(INSTRUCTIONS, end - start) + data[start:end] for start, end in records])


def _groups(records: list[Range]) -> Iterator[list[Range]]:
    """Each large record alone, small ones many at a time, in order."""
    group: list[Range] = []
    for record in records:
        if group and (len(group) == MANY or max(_size(record), _size(group[0])) > SMALL_BYTES):
            yield group
            group = []
        group.append(record)
    if group:
        yield group


def _size(record: Range) -> int:
    return record[1] - record[0]


def _attributes(operator: Operator, message: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for bound in attributes_of(operator):
        attribute = bound.attribute
        value = bound.read(message)
        if attribute.required:
            if value is None:
                raise CompileError(INVALID_MODULE, f"{operator.name} needs {attribute.key}")
            values[attribute.key] = value
        elif value is not None and value != attribute.default:
            values[attribute.key] = value
    return values


def _of(cut: list[Record], number: int) -> list[Range]:
    return [(start, end) for found, _, start, end in cut if found == number]


def default_comparison(dtype: DType) -> str:
    """The comparison type that operands of a type have if nothing is said."""
    if dtype.is_float or dtype.is_complex:
        return "FLOAT"
    return "SIGNED" if dtype.is_signed else "UNSIGNED"
