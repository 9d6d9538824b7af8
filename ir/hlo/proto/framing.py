"""Where in a file the HloModuleProto lies: alone, or inside one of the messages that XLA dumps it in.

Source: HLO format reference, section 1 (messages and how to tell them apart).
"""

from __future__ import annotations

from nxcc.ir.hlo.proto.wire import BYTES, Buffer, Range, WireError, is_message, read_varint, records

_MODULE = 1
COMPUTATIONS = 3


def holds_module(data: Buffer) -> bool:
    """Whether a HloModuleProto with computations lies in these bytes, in one of the messages that `read_module` takes."""
    try:
        return _looks_like_module(data, module_ranges(data))
    except WireError:
        return False


def module_ranges(data: Buffer) -> list[Range]:
    """Where the HloModuleProto lies: nothing in the file says which message it is, so its form decides.

    The payload of field 1 is a module's name, or a whole HloModuleProto (HloProto, HloUnoptimizedSnapshot), or a HloProto
    (HloSnapshot). Only the message has computations (field 3), and a name that walks as a message by chance has none.
    """
    outer = [(0, len(data))]
    if not is_message(data, *outer[0]):
        outer = _delimited(data) or outer
    first = _fields(data, outer, _MODULE)
    if _looks_like_module(data, first):
        return first
    if first and all(is_message(data, *r) for r in first):
        second = _fields(data, first, _MODULE)
        if _looks_like_module(data, second):
            return second
    return outer


def _delimited(data: Buffer) -> list[Range]:
    """The message behind its length, where the bytes begin with one.

    A dumped HloUnoptimizedSnapshot: XLA puts the raw arguments behind the message, so that they may be of any size.
    """
    try:
        size, start = read_varint(data, 0, len(data))
    except WireError:
        return []
    fits = 0 < size <= len(data) - start and is_message(data, start, start + size)
    message = [(start, start + size)]
    return message if fits and _looks_like_module(data, _fields(data, message, _MODULE)) else []


def _fields(data: Buffer, ranges: list[Range], number: int) -> list[Range]:
    return [(start, end) for r in ranges for found, kind, start, end in records(data, *r) if (found, kind) == (number, BYTES)]


def _looks_like_module(data: Buffer, ranges: list[Range]) -> bool:
    return bool(ranges) and all(is_message(data, *r) for r in ranges) and bool(_fields(data, ranges, COMPUTATIONS))
