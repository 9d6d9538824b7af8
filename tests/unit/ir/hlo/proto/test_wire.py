"""The wire format: records cut out of messages, and the offset of what is no record."""

from __future__ import annotations

import pytest

from nxcc.ir.hlo.proto.schema import message_type
from nxcc.ir.hlo.proto.wire import (
    BYTES,
    FIXED32,
    VARINT,
    WireError,
    find_fault,
    read_varint,
    records,
    split,
    write_record,
    write_varint,
)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**32, 2**63, 2**64 - 1])
def test_varints_come_back(value: int) -> None:
    content = write_varint(value)
    assert read_varint(b"\xff" + content, 1, 1 + len(content)) == (value, 1 + len(content))


def test_negative_varint_takes_ten_bytes() -> None:
    assert write_varint(-1) == b"\xff" * 9 + b"\x01"


def test_records_of_all_wire_types_are_walked() -> None:
    content = b"\x08\x96\x01" + b"\x12\x02hi" + b"\x1d\0\0\x80\x3f" + write_record(300, 1) + b"x"
    assert list(records(content, 0, len(content))) == [
        (1, VARINT, 1, 3), (2, BYTES, 5, 7), (3, FIXED32, 8, 12), (300, BYTES, 15, 16)]


def test_split_cuts_wanted_fields_and_keeps_the_rest() -> None:
    content = b"\x08\x01" + b"\x12\x03abc" + b"\x18\x07" + b"\x12\x01d"
    rest, cut = split(content, [(0, len(content))], frozenset({2}))
    assert rest == b"\x08\x01\x18\x07"
    assert [content[start:end] for _, _, start, end in cut] == [b"abc", b"d"]


@pytest.mark.parametrize(("content", "offset", "why"), [
    (b"\x08\x01\x12\x05ab", 2, "declares 5 bytes, 2 are left"),
    (b"\x08\x01\x0b", 2, "wire type 3"),
    (b"\x08\x01\x02\x01", 2, "field number 0"),
    (b"\x08\x80", 1, "runs past"),
    (b"\x08" + b"\x80" * 10 + b"\x01", 1, "longer than 10"),
    (b"\x1d\0\0", 0, "takes 4 bytes, 2 are left"),
    (b"\x12" + b"\xff" * 9 + b"\x01", 0, "declares 18446744073709551615 bytes"),
])
def test_fault_has_its_offset(content: bytes, offset: int, why: str) -> None:
    with pytest.raises(WireError, match=why) as caught:
        split(content, [(0, len(content))], frozenset())
    assert caught.value.offset == offset


def test_fault_inside_a_message_is_found() -> None:
    shape = b"\x10\x0b" + b"\x2a\x03" + b"\x0a\x01\x80"
    fault = find_fault(shape, [(0, len(shape))], message_type("ShapeProto").DESCRIPTOR)
    assert (fault.offset, fault.why) == (6, "a varint runs past its container")


def test_text_that_is_not_utf8_is_found() -> None:
    content = b"\x0a\x03a\xffb"
    fault = find_fault(content, [(0, len(content))], message_type("HloModuleProto").DESCRIPTOR)
    assert (fault.offset, fault.why) == (3, "HloModuleProto.name is not UTF-8")
