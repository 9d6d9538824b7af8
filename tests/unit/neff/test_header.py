"""The header at its documented offsets; the worked example of the NEFF reference, section 7.1, byte by byte."""

import hashlib
from dataclasses import replace

import pytest

from nxcc.ir.diagnostics import NEFF_INVALID, NEFF_VERSION, CompileError
from nxcc.neff.archive import archive_end, member_header, padding_bytes
from nxcc.neff.header import Header, check_own_header, cut_text, header_name, unpack_header
from nxcc.neff.writer import content_uuid

MEMBER = b'{"graphs":[{"definition":"sg00/def.json","name":"sg00"}],"version":"0.5"}'
PAYLOAD_SHA256 = "6ce963abb974e00394d13355e174056a3779cfdb2939dd9cc9ed76c1fd68b659"
ROWS = {
    0x000: "01 00 00 00 00 00 00 00 00 04 00 00 00 00 00 00",
    0x010: "00 28 00 00 00 00 00 00 02 00 00 00 00 00 00 00",
    0x020: "00 00 00 00 00 00 00 00 6e 78 63 63 20 30 2e 31",
    0x030: "2e 30 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
    0x0A0: "00 00 00 00 00 00 00 00 01 00 00 00 6c e9 63 ab",
    0x0B0: "b9 74 e0 03 94 d1 33 55 e1 74 05 6a 37 79 cf db",
    0x0C0: "29 39 dd 9c c9 ed 76 c1 fd 68 b6 59 c2 8f 28 c3",
    0x0D0: "5a 7b 8b 78 a8 97 3b c6 e1 21 3c 5d 6d 6c 70 00",
    0x1D0: "00 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00",
    0x1E0: "01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
    0x220: "00 00 00 00 00 00 00 40 01 00 00 00 00 00 00 00",
}


def example_bytes() -> bytes:
    data = bytearray(1024)
    for offset, row in ROWS.items():
        data[offset:offset + 16] = bytes.fromhex(row)
    return bytes(data)


def example_header() -> Header:
    digest = bytes.fromhex(PAYLOAD_SHA256)
    return Header(data_size=10240, digest=digest, uuid=content_uuid("nxcc 0.1.0", digest), name="mlp",
                  build_version="nxcc 0.1.0", num_tpb=1, tpb_per_node=(1,))


def test_worked_example_packs_to_documented_bytes() -> None:
    assert example_header().pack() == example_bytes()


def test_worked_example_unpacks_to_same_header() -> None:
    assert unpack_header(example_bytes(), "x") == example_header()


def test_worked_example_payload_has_documented_digest() -> None:
    payload = member_header("kelf-0.json", len(MEMBER)) + MEMBER + bytes(padding_bytes(len(MEMBER)))
    payload += archive_end(len(payload))
    assert len(payload) == 10240
    assert hashlib.sha256(payload).hexdigest() == PAYLOAD_SHA256


def patched(offset: int, *values: int) -> bytes:
    data = bytearray(example_bytes())
    data[offset:offset + len(values)] = bytes(values)
    return bytes(data)


@pytest.mark.parametrize(("data", "code", "text"), [
    (b"", NEFF_INVALID, "0 bytes ends inside"),
    (example_bytes()[:1023], NEFF_INVALID, "1023 bytes ends inside"),
    (patched(8, 0xC8), NEFF_INVALID, "header_size is 1224"),
    (patched(0, 3), NEFF_VERSION, "pkg_version is 3"),
    (patched(0xDC, *b"a" * 256), NEFF_INVALID, "not NUL-terminated"),
    (patched(0x28, 0xFF), NEFF_INVALID, "not UTF-8"),
    (patched(0x18, 3), NEFF_VERSION, "NEFF version 3.0"),
    (patched(0x220, 0x21), NEFF_VERSION, "unknown feature bits: 0, 5"),
    (patched(0x227, 0xC0), NEFF_VERSION, "unknown feature bits: 63"),
    (patched(0xA8, 0), NEFF_INVALID, "num_tpb is 0"),
    (patched(0xA8, 65), NEFF_INVALID, "num_tpb is 65"),
    (patched(0x1DC, 0), NEFF_INVALID, "requested_tpb_count is 0"),
    (patched(0x1E1, 1), NEFF_INVALID, "tpb_per_node adds up to 2"),
    (patched(0x228, 2), NEFF_INVALID, "lnc_size is 2"),
    (patched(0x3FF, 1), NEFF_INVALID, "padding is not zero"),
    (patched(0xE1, 1), NEFF_INVALID, "padding is not zero"),
])
def test_broken_header_is_refused(data: bytes, code: object, text: str) -> None:
    with pytest.raises(CompileError) as caught:
        check_own_header(unpack_header(data, "x.neff"), "x.neff")
    assert caught.value.code is code
    assert text in caught.value.what
    assert caught.value.where.startswith("x.neff")


def test_minor_version_and_uuid_are_free() -> None:
    header = replace(example_header(), version_minor=7, uuid=b"u" * 16)
    check_own_header(unpack_header(header.pack(), "x"), "x")


def test_vendor_feature_bits_unpack_and_are_not_ours() -> None:
    header = unpack_header(replace(example_header(), feature_bits=0x80000000000000FF).pack(), "x")
    assert not header.is_ours
    assert not header.has_host_regions


def test_name_is_cut_between_characters() -> None:
    assert cut_text("añb", 2) == "a"
    assert cut_text("añb", 3) == "añ"
    assert len(header_name("é" * 200).encode()) == 254
    assert header_name("a\0b") == "a"
    replace(example_header(), name=header_name("é" * 200)).pack()
