"""How the bytes of an instruction lie: shared by encoder, decoder and the reference that is printed from it.

An engine's binary is a row of slots of SLOT_BYTES. An instruction takes one slot; if its waits, operands and register terms
need more it takes the following ones too, as its header says. What follows the header depends on the header alone, so each
distinct header has one precompiled `struct.Struct`. A DMA trigger holds the number of its template; the template, which is all
of the transfer but registers and semaphores, is in the engine's JSON member.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from nxcc.backends.isa import instructions as _declared  # noqa: F401  (declares INSTRUCTIONS)
from nxcc.backends.isa.program import (
    INSTRUCTIONS,
    Engine,
    FieldKind,
    FieldSpec,
    InstructionSpec,
    Memory,
    OperandSpec,
)
from nxcc.ir.dtypes import DTYPES, DType
from nxcc.ir.facts import dataclass

ENCODING = "nxcc-isa-1"
SLOT_BYTES = 256
WAITS_MAX = 4
SIGNALS_MAX = 4
TERMS_MAX = 4
"""Register terms of one affine value."""
INTS_MAX = 8
DIMS_MAX = 4

HEADER = struct.Struct("<BBBBBBHi")
"""opcode, slots, waits, signals, mask of operands present, mask of fields present, register terms, debug index."""
PATTERN = struct.Struct("<BBBBBxxxqhHhHhHhH")
"""memory, dtype, first partition, partitions, free dimensions, 3 x 0, offset, 4 x (stride, size), unused ones 0."""
ELEMENT = struct.Struct("<BBxxxxxxq")
"""memory, dtype, 6 x 0, address: one element that a sequencer reads or writes."""
TERM = struct.Struct("<BBq")
"""ordinal of the affine value in this instruction, register, coefficient."""

MEMORY_CODES: dict[Memory, int] = {Memory.SBUF: 1, Memory.PSUM: 2, Memory.HBM: 3}
MEMORIES: dict[int, Memory] = {code: memory for memory, code in MEMORY_CODES.items()}
ELEMENT_TYPES: dict[int, DType] = {row.number: row for row in DTYPES if row.is_array}
BY_OPCODE: dict[int, InstructionSpec] = {spec.number: spec for spec in INSTRUCTIONS.values()}

FIELD_FORMATS: dict[FieldKind, str] = {
    FieldKind.FLAG: "B", FieldKind.INT: "q", FieldKind.FLOAT: "d", FieldKind.ENUM: "B", FieldKind.REGISTER: "B",
    FieldKind.AFFINE: "q", FieldKind.INTS: "B8i", FieldKind.FUNCTION: "H",
}
"""FLOAT takes 8 bytes, since memset and tensor_scalar hold integers beyond 2^24; AFFINE is its constant."""

VALUES_OF_KIND = {kind: 9 if kind is FieldKind.INTS else 1 for kind in FieldKind}

TEMPLATE_KINDS = (FieldKind.FLAG, FieldKind.INT, FieldKind.ENUM, FieldKind.INTS)
"""Kinds of immediates that a DMA template can hold; the others depend on registers."""


@dataclass()
class EngineImage:
    """One engine's part of a program as it lies in a NEFF: members <engine>.json and <engine>.bin."""

    json: dict[str, Any]
    binary: bytes


Images = Mapping[Engine, EngineImage]


@functools.cache
def is_trigger(spec: InstructionSpec) -> bool:
    """Whether the instruction starts a transfer that has a template: it has DMA operands and sizes."""
    return any(o.dma for o in spec.operands) and any(f.name == "sizes" for f in spec.fields)


@functools.cache
def binary_fields(spec: InstructionSpec) -> tuple[FieldSpec, ...]:
    """Immediates that lie in the binary, in the order of the declaration."""
    return tuple(f for f in spec.fields if not (is_trigger(spec) and f.kind in TEMPLATE_KINDS))


@functools.cache
def template_fields(spec: InstructionSpec) -> tuple[FieldSpec, ...]:
    """Immediates of a DMA trigger that lie in its template."""
    return tuple(f for f in spec.fields if f not in binary_fields(spec))


@dataclass(frozen=True, eq=False)
class Layout:
    """What follows the header of an instruction.

    body: waits x (index, value), signals x (index, amount), operands, template number, immediates, terms.
    operands, fields: those present; a template operand takes no bytes, but counts as an affine value.
    size: bytes with the header; slots: what that rounds up to.
    """

    spec: InstructionSpec
    waits: int
    signals: int
    operands: tuple[OperandSpec, ...]
    fields: tuple[FieldSpec, ...]
    terms: int
    body: struct.Struct
    size: int
    slots: int
    trigger: bool
    padding: bytes = field(repr=False)


def operand_in_template(spec: InstructionSpec, operand: OperandSpec) -> bool:
    return operand.dma and is_trigger(spec)


@functools.lru_cache(maxsize=4096)
def layout(opcode: int, waits: int, signals: int, operand_mask: int, field_mask: int, terms: int) -> Layout:
    """The layout that a header announces; LookupError with the reason if no instruction has such a header."""
    spec = BY_OPCODE.get(opcode)
    if spec is None:
        raise LookupError(f"opcode: no instruction has number {opcode:#04x}")
    if waits > WAITS_MAX or signals > SIGNALS_MAX:
        raise LookupError(f"waits/signals: {waits} and {signals}, at most {WAITS_MAX} and {SIGNALS_MAX}")
    operands = _present(spec.operands, operand_mask, "operands", [o.name for o in spec.operands if not o.optional])
    own = binary_fields(spec)
    fields = _present(own, field_mask, "fields", [f.name for f in own if f.default is None])
    affine = 2 * waits + signals + len(operands) + sum(f.kind is FieldKind.AFFINE for f in fields)
    if terms > TERMS_MAX * affine:
        raise LookupError(f"terms: {terms}, but only {affine} affine values")
    inline = [o for o in operands if not operand_in_template(spec, o)]
    formats = ["qq" * waits, "qi" * signals, *(f"{(ELEMENT if o.dma else PATTERN).size}s" for o in inline),
               "I" if is_trigger(spec) else "", *(FIELD_FORMATS[f.kind] for f in fields), f"{TERM.size * terms}s"]
    body = struct.Struct("<" + "".join(formats))
    size = HEADER.size + body.size
    slots = -(-size // SLOT_BYTES)
    return Layout(spec, waits, signals, operands, fields, terms, body, size, slots, is_trigger(spec),
                  bytes(slots * SLOT_BYTES - size))


def _present(declared: tuple[Any, ...], mask: int, what: str, required: list[str]) -> tuple[Any, ...]:
    if mask >> len(declared):
        raise LookupError(f"{what}: mask {mask:#x} names one that is not declared")
    present = tuple(row for position, row in enumerate(declared) if mask >> position & 1)
    missing = [name for name in required if name not in [row.name for row in present]]
    if missing:
        raise LookupError(f"{what}: {', '.join(missing)} missing")
    return present


def encoding_reference() -> str:
    """The encoding in Markdown, from the declarations: for ARCHITECTURE.md."""
    rows = [_REFERENCE_HEAD.format(encoding=ENCODING, slot=SLOT_BYTES, header=HEADER.size, pattern=PATTERN.size,
                                   element=ELEMENT.size, term=TERM.size, waits=WAITS_MAX, signals=SIGNALS_MAX, terms=TERMS_MAX)]
    rows += [f"| {kind.name} | {kind.value} | `{FIELD_FORMATS[kind]}` |" for kind in FieldKind]
    rows += ["", "| number | instruction | engines | operands | immediates | meaning |", "|---|---|---|---|---|---|"]
    rows += [_reference_row(spec) for spec in sorted(INSTRUCTIONS.values(), key=lambda s: s.number)]
    return "\n".join(rows) + "\n"


def _reference_row(spec: InstructionSpec) -> str:
    engines = "all" if set(spec.engines) == set(Engine) else ", ".join(e.value for e in spec.engines)
    operands = ", ".join(f"{o.name} ({o.access}{', optional' if o.optional else ''}{_place(spec, o)})" for o in spec.operands)
    in_template = template_fields(spec)
    fields = ", ".join(f"{f.name}: {f.kind.name}{' (template)' if f in in_template else ''}"
                       f"{'' if f.default is None else f' = {f.default}'}" for f in spec.fields)
    return f"| {spec.number:#04x} | {spec.name} | {engines} | {operands or '-'} | {fields or '-'} | {spec.meaning} |"


def _place(spec: InstructionSpec, operand: OperandSpec) -> str:
    return ", template" if operand_in_template(spec, operand) else ", element" if operand.dma else ""


_REFERENCE_HEAD = """\
An engine's binary (`{encoding}`) is a row of {slot}-byte slots, little endian, without padding inside an instruction.
An instruction takes one slot, or the following ones too if its header says so; what is left of its last slot is zero.

| bytes | what |
|---|---|
| {header} | header: opcode, slots, waits, signals, mask of operands, mask of immediates: u8 each; terms u16, debug index i32 |
| 16 each, at most {waits} | waits: semaphore i64, value i64 |
| 12 each, at most {signals} | signals: semaphore i64, amount i32 |
| {pattern} each | access patterns: memory, dtype, partition, partitions, dims: u8 each; 3 x 0; offset i64; 4 x (i16, u16) |
| {element} each | elements that a sequencer reads or writes: memory u8, dtype u8, 6 x 0, address i64 |
| 4 | DMA triggers only: `id` of the template in the engine's JSON member |
| by kind | immediates present, in the order of the declaration |
| {term} each | register terms, ascending: ordinal of the affine value u8, register u8, coefficient i64, not zero |

Memory is 1 for SBUF, 2 for PSUM, 3 for HBM; dtype is HLO's PrimitiveType; the pairs are stride and size. Every i64 of a
wait, a signal, an offset, an address or an AFFINE immediate is the constant of an affine value,
and so is the constant address of each template operand; ordinals count them in this order. At most {terms} terms a value.
An operand or immediate that is absent has its declared default.

| kind | meaning | format (Python struct) |
|---|---|---|"""
