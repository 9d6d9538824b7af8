"""The tar behind the header: how a member is announced, and a bounded parser that reads nothing but headers.

Written: USTAR, pax records (`path`, `size`) only where USTAR has no room, nothing about time or owners.
Read: what we write, and what a vendor's tar may hold (directories, GNU long names, other pax keys), never links or
devices. Source: POSIX.1-2001 pax interchange format; NEFF reference, sections 7.3 (limits) and 7.5 (writer).
"""

from __future__ import annotations

import struct

from nxcc.ir.diagnostics import NEFF_INVALID, CompileError
from nxcc.ir.facts import dataclass
from nxcc.neff.header import cut_text

BLOCK_BYTES = 512
RECORD_BYTES = 10240
MAX_MEMBERS = 100_000
MAX_TOTAL_BYTES = 1 << 40
MAX_NAME_BYTES = 1024

_MAX_USTAR_SIZE = 0o77777777777
_MAX_EXTENSION_BYTES = 64 << 10
_MAX_TRAILER_BYTES = 1 << 20
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_CHECKSUM = slice(148, 156)
_BLANK_CHECKSUM = b" " * 8
_ZERO_BLOCK = bytes(BLOCK_BYTES)
_REGULAR = (b"0", b"\0")
_DIRECTORY = b"5"
_PAX = b"x"
_LONG_NAME = b"L"
_MEANINGLESS_PAX_KEYS = frozenset(
    ("atime", "ctime", "mtime", "uid", "gid", "uname", "gname", "comment", "charset", "hdrcharset"))


@dataclass(frozen=True, slots=True)
class Entry:
    """A member: its name, and where its bytes lie, counted from the start of the payload."""

    name: str
    offset: int
    size: int


def name_fault(name: str) -> str:
    """Why a member may not have this name; empty when it may."""
    parts = name.split("/")
    faults = (
        (not name or "" in parts, "is empty, absolute or has an empty part"),
        ("." in parts or ".." in parts, "has a part `.` or `..`"),
        ("\\" in name, "has a backslash"),
        (any(ord(character) < 0x20 or ord(character) == 0x7F for character in name), "has a control character"),
        (len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES, f"is longer than {MAX_NAME_BYTES} bytes"),
    )
    return next((fault for is_so, fault in faults if is_so), "")


def padding_bytes(size: int, unit: int = BLOCK_BYTES) -> int:
    """Zeros that follow `size` bytes up to a multiple of unit."""
    return -size % unit


def member_header(name: str, size: int) -> bytes:
    """The blocks before a member's data: a USTAR header, with a pax header in front where it has no room."""
    assert not name_fault(name), f"member name {name!r} {name_fault(name)}"
    encoded = name.encode()
    split = _split_name(encoded)
    records = b""
    if split is None:
        records += _pax_record("path", encoded)
        split = (b"", cut_text(name, 100).encode())
    if size > _MAX_USTAR_SIZE:
        records += _pax_record("size", str(size).encode())
        size = 0
    extension = b""
    if records:
        extension = _ustar_header(b"", b"pax_header", len(records), _PAX)
        extension += records + bytes(padding_bytes(len(records)))
    return extension + _ustar_header(*split, size, b"0")


def archive_end(payload_bytes: int) -> bytes:
    """Two zero blocks and the padding after a payload of so many bytes."""
    end = 2 * BLOCK_BYTES
    return bytes(end + padding_bytes(payload_bytes + end, RECORD_BYTES))


def _split_name(name: bytes) -> tuple[bytes, bytes] | None:
    """The prefix and name fields of USTAR, or None if the name fits in no split."""
    if len(name) <= 100:
        return b"", name
    cut = name.find(b"/", len(name) - 101)
    return (name[:cut], name[cut + 1:]) if 0 < cut <= 155 else None


def _pax_record(key: str, value: bytes) -> bytes:
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def _ustar_header(prefix: bytes, name: bytes, size: int, kind: bytes) -> bytes:
    zero = b"%07o\0" % 0
    device = b""
    header = bytearray(_HEADER.pack(
        name, b"%07o\0" % 0o644, zero, zero, b"%011o\0" % size, b"%011o\0" % 0, _BLANK_CHECKSUM, kind, b"",
        b"ustar\0", b"00", b"", b"", device, device, prefix,
    ))
    header[_CHECKSUM] = b"%06o\0 " % sum(header)
    return bytes(header)


def read_archive(payload: memoryview, where: str) -> dict[str, Entry]:
    """The regular members in archive order, by name, from their headers alone.

    Raises NEFF_INVALID with the payload offset for: a damaged or foreign header block, a name that could leave the
    folder, duplicate names, a name that is also a folder, links and devices, data past the end, too many members,
    an archive without its end mark or with bytes behind it.
    """
    if len(payload) > MAX_TOTAL_BYTES:
        raise CompileError(NEFF_INVALID, f"archive of {len(payload)} bytes", where, why=f"the limit is {MAX_TOTAL_BYTES}")
    entries: dict[str, Entry] = {}
    offset = 0
    while True:
        member = _read_member(payload, offset, where)
        if member is None:
            break
        entry, offset, is_regular = member
        if not is_regular:
            continue
        if entry.name in entries:
            raise _fault("duplicate member", entry.name, entry.offset, where)
        entries[entry.name] = entry
        if len(entries) > MAX_MEMBERS:
            raise CompileError(NEFF_INVALID, f"more than {MAX_MEMBERS} members", where)
    _check_trailer(payload, offset, where)
    _check_folders(entries, where)
    return entries


def _read_member(payload: memoryview, offset: int, where: str) -> tuple[Entry, int, bool] | None:
    """The member at offset, the offset after it, and whether it is a regular file; None at the end of the archive."""
    start = offset
    overrides: dict[str, str] = {}
    while True:
        block = bytes(payload[offset:offset + BLOCK_BYTES])
        if block == _ZERO_BLOCK and not overrides:
            return None
        name, size, kind = _parse_header(block, offset, where)
        offset += BLOCK_BYTES
        if kind not in (_PAX, _LONG_NAME):
            break
        if overrides or size > _MAX_EXTENSION_BYTES:
            raise _fault("extension header is too long or repeated", name, start, where)
        overrides = _EXTENSIONS[kind](bytes(_data(payload, name, offset, size, where)), start, where)
        offset += size + padding_bytes(size)
    name = overrides.get("path", name).removeprefix("./").rstrip("/" if kind == _DIRECTORY else "")
    size = int(overrides.get("size", size))
    if kind == _DIRECTORY:
        if name != "." and name and name_fault(name):
            raise _fault(f"folder name {name_fault(name)}", name, start, where)
        return Entry(name, offset, 0), offset, False
    if kind not in _REGULAR:
        raise _fault(f"member of type {kind!r} is neither a file nor a folder", name, start, where)
    if name_fault(name):
        raise _fault(f"member name {name_fault(name)}", name, start, where)
    _data(payload, name, offset, size, where)
    return Entry(name, offset, size), offset + size + padding_bytes(size), True


def _parse_header(block: bytes, offset: int, where: str) -> tuple[str, int, bytes]:
    """Name, size and type of one header block, its checksum verified."""
    if len(block) < BLOCK_BYTES:
        raise CompileError(NEFF_INVALID, "archive ends without its end mark", f"{where}: payload offset {offset:#x}")
    fields = _HEADER.unpack(block)
    name, size, checksum, kind, magic, prefix = (fields[index] for index in (0, 4, 6, 7, 9, 15))
    expected = sum(block) - sum(block[_CHECKSUM]) + sum(_BLANK_CHECKSUM)
    if magic not in (b"ustar\0", b"ustar ") or _octal(checksum) != expected:
        raise CompileError(NEFF_INVALID, "no tar header with a right checksum", f"{where}: payload offset {offset:#x}")
    size_bytes = _octal(size)
    if size_bytes is None:
        raise CompileError(NEFF_INVALID, "size in a tar header is not octal", f"{where}: payload offset {offset:#x}")
    encoded = name.partition(b"\0")[0]
    if magic == b"ustar\0" and prefix[0]:
        encoded = prefix.partition(b"\0")[0] + b"/" + encoded
    return _name_text(encoded, offset, where), size_bytes, kind


def _octal(field: bytes) -> int | None:
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else None


def _name_text(encoded: bytes, offset: int, where: str) -> str:
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        raise CompileError(NEFF_INVALID, "member name is not UTF-8", f"{where}: payload offset {offset:#x}") from None


def _data(payload: memoryview, name: str, offset: int, size: int, where: str) -> memoryview:
    if offset + size > len(payload):
        raise _fault(f"member of {size} bytes runs past the end of the archive", name, offset, where)
    return payload[offset:offset + size]


def _read_pax(records: bytes, offset: int, where: str) -> dict[str, str]:
    """`path` and `size` of a pax header; keys that change nothing about the bytes are skipped, others refused."""
    found: dict[str, str] = {}
    position = 0
    while position < len(records):
        digits, _, _ = records[position:position + 8].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        key, separator, value = records[position + len(digits) + 1:position + length].partition(b"=")
        is_whole = separator and value.endswith(b"\n") and position + length <= len(records)
        text = _name_text(value[:-1], offset, where)
        if not is_whole or (key == b"size" and not (value[:-1].isdigit() and len(value) < 20)):
            raise CompileError(NEFF_INVALID, "damaged pax record", f"{where}: payload offset {offset:#x}")
        if key in (b"path", b"size"):
            found[key.decode()] = text
        elif key.decode("latin-1") not in _MEANINGLESS_PAX_KEYS:
            raise CompileError(NEFF_INVALID, f"pax key {key!r} is not allowed", f"{where}: payload offset {offset:#x}")
        position += length
    return found


def _read_long_name(data: bytes, offset: int, where: str) -> dict[str, str]:
    return {"path": _name_text(data.partition(b"\0")[0], offset, where)}


_EXTENSIONS = {_PAX: _read_pax, _LONG_NAME: _read_long_name}


def _check_trailer(payload: memoryview, offset: int, where: str) -> None:
    """After the last member: at least two zero blocks, and nothing that is not zero."""
    length = len(payload) - offset
    if length < 2 * BLOCK_BYTES or length > _MAX_TRAILER_BYTES or bytes(payload[offset:]).strip(b"\0"):
        raise CompileError(NEFF_INVALID, "archive does not end in two zero blocks and zero padding",
                           f"{where}: payload offset {offset:#x}")


def _check_folders(entries: dict[str, Entry], where: str) -> None:
    folders = {name.rpartition("/")[0] for name in entries}
    folders |= {folder[:index] for folder in folders for index, letter in enumerate(folder) if letter == "/"}
    both = sorted(folders & entries.keys())
    if both:
        raise _fault("member is both a file and a folder", both[0], entries[both[0]].offset, where)


def _fault(what: str, name: str, offset: int, where: str) -> CompileError:
    return CompileError(NEFF_INVALID, f"{what}: {name!r}", f"{where}: payload offset {offset:#x}")
