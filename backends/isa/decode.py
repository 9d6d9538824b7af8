"""Engine images to program. Trusts nothing: any bytes decode, or are a CompileError(NXC0403) that says where and why.

Quick, since every run of a NEFF passes here: what follows a header is unpacked in one go, and operands that occur again are
built once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nxcc.backends.isa import layout as L
from nxcc.backends.isa.program import (
    ENGINE_MEMBERS,
    REGISTERS,
    AccessPattern,
    Affine,
    DmaPattern,
    Engine,
    FieldKind,
    FieldSpec,
    Function,
    Instruction,
    Operand,
    Program,
    Resident,
    Signal,
    Stream,
    Wait,
)
from nxcc.backends.isa.templates import documented, pattern, read_template
from nxcc.ir.diagnostics import PROGRAM_INVALID, CompileError

Terms = tuple[tuple[int, int], ...]
NO_TERMS: Terms = ()


def decode(images: L.Images, table: dict[str, Any], members: Mapping[Engine, str] = ENGINE_MEMBERS) -> Program:
    """The program of these images and function table (see `encode`); CompileError(NXC0403) if they are malformed."""
    try:
        return _decode(images, table, members)
    except ValueError as error:
        raise CompileError(PROGRAM_INVALID, "cannot decode the function table", where="def.json", why=str(error)) from error


def _decode(images: L.Images, table: dict[str, Any], members: Mapping[Engine, str]) -> Program:
    encoding = _entry(table, "encoding", str)
    if encoding != L.ENCODING:
        raise ValueError(f"encoding {encoding!r}, this is {L.ENCODING!r}")
    readers = {members[engine]: _Reader(engine, members[engine], image) for engine, image in images.items()}
    functions: list[Function] = []
    entries: list[Function] = []
    for row in _entry(table, "functions", list):
        (entries if _entry(row, "entry", bool) else functions).append(_function(row, readers))
    for reader in readers.values():
        reader.finish()
    sbuf, hbm, semaphores = (_entry(table, key, int) for key in ("sbuf_bytes", "hbm_bytes", "semaphores"))
    return Program(functions, entries, sbuf, hbm, semaphores, _resident(table, entries))


def _resident(table: dict[str, Any], entries: list[Function]) -> Resident | None:
    if "resident" not in table:
        return None
    row = _entry(table, "resident", dict)
    found = Resident(_entry(row, "entry", str), _entry(row, "offset", int))
    if found.entry not in {entry.name for entry in entries}:
        raise ValueError(f"resident: there is no entry {found.entry!r}")
    return found


def _entry(row: Any, key: str, kind: type) -> Any:
    value = row.get(key) if isinstance(row, dict) else None
    if type(value) is not kind or (isinstance(value, int) and value < 0):
        raise ValueError(f"{key}: missing or not valid")
    return value


def _function(row: Any, readers: dict[str, _Reader]) -> Function:
    streams: dict[Engine, Stream] = {}
    for name, extent in _entry(row, "streams", dict).items():
        reader = readers.get(name)
        if reader is None:
            raise ValueError(f"streams: there is no engine image {name!r}")
        if not isinstance(extent, list) or len(extent) != 2 or not all(isinstance(n, int) and n >= 0 for n in extent):
            raise ValueError(f"streams: {name}: not [first slot, slots]")
        streams[reader.engine] = reader.stream(*extent)
    return Function(_entry(row, "name", str), streams)


class _Reader:
    """Reads one engine's image in order; every slot belongs to one stream, every template to one trigger."""

    def __init__(self, engine: Engine, member: str, image: L.EngineImage) -> None:
        self.engine = engine
        self.member = member
        self.data = image.binary
        self.next_slot = 0
        self.instructions = 0
        self.patterns: dict[tuple[bytes, Terms], Operand] = {}
        self.affines: dict[int, Affine] = {}
        self.synchronisation: dict[tuple[Any, ...], tuple[tuple[Wait, ...], tuple[Signal, ...]]] = {}
        if len(self.data) % L.SLOT_BYTES:
            raise self._error("image", f"{len(self.data)} bytes are no whole number of {L.SLOT_BYTES}-byte slots")
        self.templates = self._read_templates(image.json)
        self.templates_used = 0

    def _error(self, field: str, why: str) -> CompileError:
        return CompileError(PROGRAM_INVALID, "cannot decode the instruction stream", why=f"{field}: {why}",
                            where=f"{self.member} {self.instructions}")

    def _read_templates(self, document: Any) -> list[dict[str, Any]]:
        rows = document.get("dma", []) if isinstance(document, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._error("dma", "no array of objects")
        return rows

    def stream(self, first: int, slots: int) -> Stream:
        """The instructions of the next `slots` slots, which must begin where the stream before ended."""
        if first != self.next_slot or (first + slots) * L.SLOT_BYTES > len(self.data):
            raise self._error("stream", f"slots {first}..{first + slots} do not follow {self.next_slot} within the image")
        self.next_slot += slots
        return list(self._instructions(first * L.SLOT_BYTES, self.next_slot * L.SLOT_BYTES))

    def finish(self) -> None:
        """Refuse what no stream and no trigger has claimed."""
        if self.next_slot * L.SLOT_BYTES != len(self.data):
            raise self._error("image", f"slots from {self.next_slot} on belong to no function")
        if self.templates_used != len(self.templates):
            raise self._error("dma", f"{len(self.templates)} templates, {self.templates_used} triggers")

    def _instructions(self, position: int, end: int) -> Iterator[Instruction]:
        data, layout, unpack_header = self.data, L.layout, L.HEADER.unpack_from
        while position < end:
            opcode, slots, *shape, debug = unpack_header(data, position)
            try:
                form = layout(opcode, *shape)
                size = form.slots * L.SLOT_BYTES
                if slots != form.slots or position + size > end:
                    raise LookupError(f"slots: {slots}, the instruction takes {form.slots}")
                if data[position + form.size:position + size] != form.padding:
                    raise LookupError("padding: not zero")
                yield self._instruction(form, form.body.unpack_from(data, position + L.HEADER.size), debug)
            except (LookupError, ValueError) as error:
                raise self._error(L.BY_OPCODE[opcode].name if opcode in L.BY_OPCODE else "opcode", str(error)) from error
            position += size
            self.instructions += 1

    def _instruction(self, form: L.Layout, values: tuple[Any, ...], debug: int) -> Instruction:
        terms = _terms(values[-1]) if form.terms else {}
        synchronised = 2 * (form.waits + form.signals)
        head = values[:synchronised]
        if terms:
            waits, signals = _synchronisation(form, head, terms)
        else:
            key = (form.waits, head)
            known = self.synchronisation.get(key)
            if known is None:
                known = self.synchronisation[key] = _synchronisation(form, head, terms)
            waits, signals = known
        ordinal = 2 * form.waits + form.signals
        instruction = Instruction(form.spec, {}, {}, waits, signals, debug)
        at = self._operands(form, values, synchronised, terms, ordinal, instruction)
        self._fields(form, values, at, terms, ordinal + len(form.operands), instruction)
        if form.trigger:
            self._check_template(instruction, values[at - 1])
        if terms:
            raise ValueError(f"terms: value {min(terms)} does not exist")
        return instruction

    def _operands(self, form: L.Layout, values: tuple[Any, ...], at: int, terms: dict[int, Terms], ordinal: int,
                  instruction: Instruction) -> int:
        """Fill in the operands; the position in `values` of what follows them and the template's number."""
        if form.trigger:
            number = values[at + sum(not o.dma for o in form.operands)]
            rows, immediates = self._template(form, number)
            instruction.fields.update(immediates)
        for declared in form.operands:
            own = terms.pop(ordinal, NO_TERMS) if terms else NO_TERMS
            ordinal += 1
            if form.trigger and declared.dma:
                instruction.operands[declared.name] = pattern(rows[declared.name], own)
                continue
            key = (values[at], own)
            at += 1
            operand = self.patterns.get(key)
            if operand is None:
                read = _element if declared.dma else _pattern
                operand = self.patterns[key] = read(declared.name, *key)
            instruction.operands[declared.name] = operand
        return at + form.trigger

    def _template(self, form: L.Layout, number: int) -> tuple[Any, Any]:
        if number != self.templates_used or number >= len(self.templates):
            raise ValueError(f"template: {number}, the next of {len(self.templates)} is {self.templates_used}")
        self.templates_used += 1
        return read_template(form.spec, self.templates[number])

    def _check_template(self, instruction: Instruction, number: int) -> None:
        member = self.templates[number]
        if documented(instruction, number, self.member) | {"nxcc": member["nxcc"]} != member:
            raise ValueError(f"template {number}: the documented keys describe another transfer")

    def _fields(self, form: L.Layout, values: tuple[Any, ...], at: int, terms: dict[int, Terms], ordinal: int,
                instruction: Instruction) -> None:
        for declared in form.fields:
            if declared.kind is FieldKind.AFFINE:
                instruction.fields[declared.name] = self._affine(values[at], terms.pop(ordinal, NO_TERMS))
                ordinal += 1
                at += 1
            else:
                width = L.VALUES_OF_KIND[declared.kind]
                instruction.fields[declared.name] = _FIELD_CODECS[declared.kind](declared, values[at:at + width])
                at += width

    def _affine(self, constant: int, terms: Terms) -> Affine:
        if terms:
            return Affine(constant, terms)
        known = self.affines.get(constant)
        if known is None:
            known = self.affines[constant] = Affine(constant)
        return known


def _terms(raw: bytes) -> dict[int, Terms]:
    """Register terms by the ordinal of their value; refuses what the encoder never writes, so that encodings are unique."""
    rows = list(L.TERM.iter_unpack(raw))
    if any(before[:2] >= after[:2] for before, after in itertools.pairwise(rows)):
        raise ValueError("terms: not ascending")
    grouped: dict[int, list[tuple[int, int]]] = {}
    for ordinal, register, coefficient in rows:
        if register >= REGISTERS or not coefficient:
            raise ValueError(f"terms: register {register} times {coefficient}")
        grouped.setdefault(ordinal, []).append((register, coefficient))
    if any(len(group) > L.TERMS_MAX for group in grouped.values()):
        raise ValueError(f"terms: more than {L.TERMS_MAX} of one value")
    return {ordinal: tuple(group) for ordinal, group in grouped.items()}


def _synchronisation(form: L.Layout, values: tuple[Any, ...],
                     terms: dict[int, Terms]) -> tuple[tuple[Wait, ...], tuple[Signal, ...]]:
    def affine(constant: int, ordinal: int) -> Affine:
        return Affine(constant, terms.pop(ordinal, NO_TERMS))

    count = form.waits
    waits = tuple([Wait(affine(values[2 * i], 2 * i), affine(values[2 * i + 1], 2 * i + 1)) for i in range(count)])
    signals = tuple([Signal(affine(values[2 * (count + i)], 2 * count + i), values[2 * (count + i) + 1])
                     for i in range(form.signals)])
    return waits, signals


def _pattern(name: str, raw: bytes, terms: Terms) -> AccessPattern:
    memory, dtype, partition, partitions, dims, offset, *flat = L.PATTERN.unpack(raw)
    if memory not in L.MEMORIES or dtype not in L.ELEMENT_TYPES or dims > L.DIMS_MAX:
        raise ValueError(f"{name}: memory {memory}, dtype {dtype} or {dims} free dimensions do not exist")
    if any(flat[2 * dims:]) or any(raw[5:8]):
        raise ValueError(f"{name}: padding: not zero")
    return AccessPattern(L.MEMORIES[memory], L.ELEMENT_TYPES[dtype], partition, partitions, Affine(offset, terms),
                         tuple(zip(flat[:2 * dims:2], flat[1:2 * dims:2], strict=True)))


def _element(name: str, raw: bytes, terms: Terms) -> DmaPattern:
    memory, dtype, address = L.ELEMENT.unpack(raw)
    if memory not in L.MEMORIES or dtype not in L.ELEMENT_TYPES or any(raw[2:8]):
        raise ValueError(f"{name}: memory {memory} or dtype {dtype} does not exist, or padding is not zero")
    return DmaPattern(L.MEMORIES[memory], L.ELEMENT_TYPES[dtype], Affine(address, terms), ())


def _flag(declared: FieldSpec, values: tuple[Any, ...]) -> bool:
    if values[0] > 1:
        raise ValueError(f"{declared.name}: {values[0]} is no flag")
    return bool(values[0])


def _choice(declared: FieldSpec, values: tuple[Any, ...]) -> str:
    if values[0] >= len(declared.choices):
        raise ValueError(f"{declared.name}: {values[0]} of {len(declared.choices)} choices")
    choice: str = declared.choices[values[0]]
    return choice


def _ints(declared: FieldSpec, values: tuple[Any, ...]) -> tuple[int, ...]:
    count = values[0]
    if count > L.INTS_MAX or any(values[1 + count:]):
        raise ValueError(f"{declared.name}: {count} integers, or padding is not zero")
    return values[1:1 + count]


def _register(declared: FieldSpec, values: tuple[Any, ...]) -> int:
    if values[0] >= REGISTERS:
        raise ValueError(f"{declared.name}: register {values[0]} of {REGISTERS}")
    return int(values[0])


def _plain(declared: FieldSpec, values: tuple[Any, ...]) -> Any:
    return values[0]


_FIELD_CODECS: dict[FieldKind, Callable[[FieldSpec, tuple[Any, ...]], Any]] = {
    FieldKind.FLAG: _flag, FieldKind.ENUM: _choice, FieldKind.INTS: _ints, FieldKind.REGISTER: _register,
    FieldKind.INT: _plain, FieldKind.FLOAT: _plain, FieldKind.FUNCTION: _plain,
}
