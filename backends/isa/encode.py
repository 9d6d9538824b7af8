"""Program to engine images: binaries of instruction slots, DMA templates as JSON, and the function table."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
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
    OperandSpec,
    Program,
    Stream,
)
from nxcc.backends.isa.templates import template_member
from nxcc.ir.diagnostics import PROGRAM_INVALID, CompileError

_HEADER_PACK = L.HEADER.pack
_PATTERN_PACK = L.PATTERN.pack
_NO_DIMS = tuple((0, 0) * (L.DIMS_MAX - n) for n in range(L.DIMS_MAX + 1))


def encode(program: Program,
           members: Mapping[Engine, str] = ENGINE_MEMBERS) -> tuple[dict[Engine, L.EngineImage], dict[str, Any]]:
    """The images of all engines that have a stream, and the function table (the "nxcc" member of def.json).

    members: stems of the engines' files, by which the table and the queues name them.

    CompileError(NXC0403) naming engine, instruction and field if a value does not fit the encoding.
    """
    writers = {engine: _Writer(engine, members[engine]) for engine in Engine
               if any(e is engine for _, e, _ in program.streams())}
    functions = [_write_function(function, writers, entry=False) for function in program.functions]
    functions += [_write_function(function, writers, entry=True) for function in program.entries]
    table = {"encoding": L.ENCODING, "functions": functions, "sbuf_bytes": program.sbuf_bytes,
             "hbm_bytes": program.hbm_bytes, "semaphores": program.semaphores}
    if program.resident is not None:
        table["resident"] = {"entry": program.resident.entry, "offset": program.resident.offset}
    return {engine: writer.image() for engine, writer in writers.items()}, table


def _write_function(function: Function, writers: dict[Engine, _Writer], *, entry: bool) -> dict[str, Any]:
    streams = {writers[engine].member: writers[engine].write(stream) for engine, stream in function.streams.items()}
    return {"name": function.name, "entry": entry, "streams": streams}


class _Writer:
    """The growing image of one engine."""

    def __init__(self, engine: Engine, member: str) -> None:
        self.engine = engine
        self.member = member
        self.chunks: list[bytes] = []
        self.templates: list[dict[str, Any]] = []
        self.slots = 0

    def write(self, stream: Stream) -> list[int]:
        """Append a stream; its first slot and the number of its slots."""
        first = self.slots
        for index, instruction in enumerate(stream):
            try:
                self._write_instruction(instruction)
            except (struct.error, ValueError, LookupError, TypeError) as error:
                raise CompileError(PROGRAM_INVALID, f"cannot encode {instruction.spec.name}", why=str(error),
                                   where=f"{self.engine.value} {index}") from error
        return [first, self.slots - first]

    def _write_instruction(self, instruction: Instruction) -> None:
        spec = instruction.spec
        trigger = L.is_trigger(spec)
        terms: list[tuple[int, Affine]] = []
        ordinal = 0
        values: list[Any] = []
        for wait in instruction.waits:
            values += (wait.index.constant, wait.value.constant)
            terms += ((ordinal, wait.index), (ordinal + 1, wait.value))
            ordinal += 2
        for signal in instruction.signals:
            values += (signal.index.constant, signal.amount)
            terms.append((ordinal, signal.index))
            ordinal += 1
        operand_mask, ordinal = self._operands(instruction, trigger, values, terms, ordinal)
        if trigger:
            values.append(len(self.templates))
            self.templates.append(template_member(instruction, len(self.templates), self.member))
        field_mask = _fields(instruction, values, terms, ordinal)
        raw = _terms(terms)
        values.append(raw)
        form = L.layout(spec.number, len(instruction.waits), len(instruction.signals), operand_mask, field_mask,
                        len(raw) // L.TERM.size)
        self.chunks.append(_HEADER_PACK(spec.number, form.slots, form.waits, form.signals, operand_mask, field_mask, form.terms,
                                        instruction.debug))
        self.chunks.append(form.body.pack(*values))
        self.chunks.append(form.padding)
        self.slots += form.slots

    @staticmethod
    def _operands(instruction: Instruction, trigger: bool, values: list[Any], terms: list[tuple[int, Affine]],
                  ordinal: int) -> tuple[int, int]:
        mask = 0
        present = instruction.operands
        for position, declared in enumerate(instruction.spec.operands):
            operand = present.get(declared.name)
            if operand is None:
                continue
            mask |= 1 << position
            if isinstance(operand, AccessPattern):
                values.append(_pattern(declared, operand))
                terms.append((ordinal, operand.offset))
            else:
                if not trigger:
                    values.append(_element(declared, operand))
                terms.append((ordinal, operand.address))
            ordinal += 1
        if mask.bit_count() != len(present):
            names = sorted(set(present) - {o.name for o in instruction.spec.operands})
            raise ValueError(f"{', '.join(names)}: no such operand")
        return mask, ordinal

    def image(self) -> L.EngineImage:
        return L.EngineImage({"dma": self.templates, "nxcc": {"encoding": L.ENCODING, "slots": self.slots}},
                             b"".join(self.chunks))


def _pattern(declared: OperandSpec, p: AccessPattern) -> bytes:
    if declared.dma:
        raise ValueError(f"{declared.name}: an access pattern where a DMA pattern belongs")
    if len(p.dims) > L.DIMS_MAX:
        raise ValueError(f"{declared.name}: {len(p.dims)} free dimensions, at most {L.DIMS_MAX}")
    flat = [number for dim in p.dims for number in dim]
    try:
        return _PATTERN_PACK(L.MEMORY_CODES[p.memory], p.dtype.number, p.partition, p.partitions, len(p.dims),
                             p.offset.constant, *flat, *_NO_DIMS[len(p.dims)])
    except struct.error as error:
        raise ValueError(f"{declared.name}: {error}") from error


def _element(declared: OperandSpec, p: DmaPattern) -> bytes:
    if p.strides:
        raise ValueError(f"{declared.name}: strides, where one element is meant")
    return L.ELEMENT.pack(L.MEMORY_CODES[p.memory], p.dtype.number, p.address.constant)


def _fields(instruction: Instruction, values: list[Any], terms: list[tuple[int, Affine]], ordinal: int) -> int:
    mask = 0
    count = 0
    spec = instruction.spec
    given = instruction.fields
    for position, declared in enumerate(L.binary_fields(spec)):
        if declared.name not in given:
            continue
        value = given[declared.name]
        mask |= 1 << position
        count += 1
        if declared.kind is FieldKind.AFFINE:
            values.append(value.constant)
            terms.append((ordinal, value))
            ordinal += 1
        else:
            values += _FIELD_CODECS[declared.kind](declared, value)
    known = count + sum(f.name in given for f in L.template_fields(spec))
    if known != len(given):
        raise ValueError(f"{', '.join(sorted(set(given) - {f.name for f in spec.fields}))}: no such immediate")
    return mask


def _flag(declared: FieldSpec, value: Any) -> Iterable[Any]:
    if not isinstance(value, bool):
        raise ValueError(f"{declared.name}: {value!r} is no flag")
    return (value,)


def _choice(declared: FieldSpec, value: Any) -> Iterable[Any]:
    if value not in declared.choices:
        raise ValueError(f"{declared.name}: {value!r} is none of {', '.join(declared.choices)}")
    return (declared.choices.index(value),)


def _ints(declared: FieldSpec, value: Any) -> Iterable[Any]:
    if len(value) > L.INTS_MAX:
        raise ValueError(f"{declared.name}: {len(value)} integers, at most {L.INTS_MAX}")
    return (len(value), *value, *(0,) * (L.INTS_MAX - len(value)))


def _plain(declared: FieldSpec, value: Any) -> Iterable[Any]:
    return (value,)


_FIELD_CODECS: dict[FieldKind, Callable[[FieldSpec, Any], Iterable[Any]]] = {
    FieldKind.FLAG: _flag, FieldKind.ENUM: _choice, FieldKind.INTS: _ints, FieldKind.INT: _plain, FieldKind.FLOAT: _plain,
    FieldKind.REGISTER: _plain, FieldKind.FUNCTION: _plain,
}


def _terms(values: list[tuple[int, Affine]]) -> bytes:
    raw = b""
    for ordinal, affine in values:
        if affine.terms:
            if len(affine.terms) > L.TERMS_MAX or not _canonical(affine):
                raise ValueError(f"{affine}: register terms must ascend, not be zero, and be at most {L.TERMS_MAX}")
            raw += b"".join([L.TERM.pack(ordinal, register, coefficient) for register, coefficient in affine.terms])
    return raw


def _canonical(affine: Affine) -> bool:
    registers = [register for register, coefficient in affine.terms if coefficient and 0 <= register < REGISTERS]
    return len(registers) == len(affine.terms) and registers == sorted(set(registers))
