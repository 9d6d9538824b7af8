"""The protobuf wire format without a schema: walk records, cut some out, leave the rest as it is.

No length limit but the buffer's own, so messages beyond the 2 GiB of protobuf libraries can be walked; a payload is passed
over by its length and never touched. Source of the encoding: HLO format reference, section 6.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from nxcc.ir.diagnostics import LIMIT_EXCEEDED, PROTO_CORRUPT, CompileError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_VARINT_BYTES = 10
MAX_DEPTH = 100
"""Nesting of messages that protobuf parsers take by default."""
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}

Buffer = bytes | memoryview
Range = tuple[int, int]
"""Start and end of a payload in the buffer."""
Record = tuple[int, int, int, int]
"""Field number, wire type, and start and end of the payload (of a varint: its bytes)."""


class WireError(Exception):
    """Bytes that are no message of ours: the offset, why, and whether they break a limit rather than the format."""

    def __init__(self, offset: int, why: str, is_limit: bool = False) -> None:
        super().__init__(why)
        self.offset = offset
        self.why = why
        self.is_limit = is_limit


def corrupt(error: WireError, source: str) -> CompileError:
    """The fault as the user sees it."""
    where = f"{source}: byte {error.offset}"
    if error.is_limit:
        return CompileError(LIMIT_EXCEEDED, "the serialized module exceeds a limit", where, why=error.why)
    return CompileError(PROTO_CORRUPT, "the serialized module is truncated or corrupt", where, why=error.why,
                        remedy="write or copy the file again")


def read_varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    """The unsigned 64-bit varint at an offset, and the offset behind it."""
    value = 0
    for index in range(MAX_VARINT_BYTES):
        if at + index >= end:
            raise WireError(at, "a varint runs past its container")
        byte = data[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + index + 1
    raise WireError(at, f"a varint is longer than {MAX_VARINT_BYTES} bytes")


def write_varint(value: int) -> bytes:
    """A varint; negative numbers in two's complement of 64 bits."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_record(number: int, size: int) -> bytes:
    """Tag and length in front of a payload of `size` bytes."""
    return write_varint(number << 3 | BYTES) + write_varint(size)


def _payload(data: Buffer, tag: int, record: int, at: int, end: int) -> Range:
    """Where the payload of a record lies whose tag is read; anything but the short length-delimited form."""
    kind = tag & 7
    if tag >> 3 == 0:
        raise WireError(record, "field number 0 is not possible")
    if kind == BYTES:
        size, at = read_varint(data, at, end)
        if size > end - at:
            raise WireError(record, f"field {tag >> 3} declares {size} bytes, {end - at} are left in its container")
        return at, at + size
    if kind == VARINT:
        return at, read_varint(data, at, end)[1]
    if kind not in _FIXED_SIZES:
        raise WireError(record, f"wire type {kind} of field {tag >> 3} is not possible")
    size = _FIXED_SIZES[kind]
    if size > end - at:
        raise WireError(record, f"field {tag >> 3} takes {size} bytes, {end - at} are left in its container")
    return at, at + size


def records(data: Buffer, start: int, end: int) -> Iterator[Record]:
    """The records between two offsets, in order."""
    at = start
    while at < end:
        record = at
        tag = data[at]
        at += 1
        if tag >= 0x80:
            tag, at = read_varint(data, record, end)
        payload, at = _payload(data, tag, record, at, end)
        yield tag >> 3, tag & 7, payload, at


def split(data: Buffer, ranges: Iterable[Range], wanted: frozenset[int]) -> tuple[bytes, list[Record]]:
    """Cut the records of some fields out of a message.

    ranges: the parts of the message (protobuf merges a message that is there twice).
    Returns the bytes of all other records, to be parsed by a library, and the records cut out.
    """
    rest: list[Any] = []
    found: list[Record] = []
    for start, end in ranges:
        at = kept = start
        while at < end:
            record = at
            tag = data[at]
            at += 1
            if tag >= 0x80:
                tag, at = read_varint(data, record, end)
            if tag & 7 == BYTES and tag > 7 and at < end and data[at] < 0x80 and at + data[at] < end:
                payload = at + 1
                at = payload + data[at]
            else:
                payload, at = _payload(data, tag, record, at, end)
            if tag >> 3 in wanted:
                found.append((tag >> 3, tag & 7, payload, at))
                rest.append(data[kept:record])
                kept = at
        rest.append(data[kept:end])
    return b"".join(rest), found


def is_message(data: Buffer, start: int, end: int) -> bool:
    """True if the bytes walk cleanly as records."""
    try:
        for _ in records(data, start, end):
            pass
    except WireError:
        return False
    return True


def _check_packed(data: Buffer, at: int, end: int, field: Any) -> None:
    """Raise WireError if the elements of a packed field do not fill its record."""
    size = {field.TYPE_FLOAT: 4, field.TYPE_DOUBLE: 8}.get(field.type)
    if size is not None and (end - at) % size:
        raise WireError(at, f"{end - at} bytes of {field.name} are no multiple of {size}")
    while size is None and at < end:
        at = read_varint(data, at, end)[1]


def find_fault(data: Buffer, ranges: Iterable[Range], descriptor: Any) -> WireError:
    """Why a protobuf library refused a message, by walking it with its descriptor; slow, for the error's sake only."""
    stack: list[tuple[int, int, Any, int]] = [(start, end, descriptor, 0) for start, end in reversed(list(ranges))]
    first = min((start for start, *_ in stack), default=0)
    try:
        while stack:
            start, end, message, depth = stack.pop()
            if depth >= MAX_DEPTH:
                return WireError(start, f"messages nest more than {MAX_DEPTH} deep", is_limit=True)
            for number, kind, payload, stop in records(data, start, end):
                field = message.fields_by_number.get(number)
                if field is None or kind != BYTES:
                    continue
                if field.message_type is not None:
                    stack.append((payload, stop, field.message_type, depth + 1))
                elif field.type == field.TYPE_STRING:
                    bytes(data[payload:stop]).decode()
                elif field.type != field.TYPE_BYTES:
                    _check_packed(data, payload, stop, field)
    except WireError as error:
        return error
    except UnicodeDecodeError as error:
        return WireError(payload + error.start, f"{message.name}.{field.name} is not UTF-8")
    return WireError(first, f"{descriptor.name} cannot be parsed")
