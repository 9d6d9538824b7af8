"""The 1024 bytes in front of the archive: one frozen dataclass, packed and unpacked at the documented offsets.

Decides what a header may say. Whether the archive behind it keeps that promise (digest, number of subgraphs) is the
reader's business. Source: NEFF reference, section 7.1 (documented), 7.4 for the feature bits (ours).
"""

from __future__ import annotations

import struct

from nxcc.ir.diagnostics import NEFF_INVALID, NEFF_VERSION, CompileError
from nxcc.ir.facts import dataclass

HEADER_BYTES = 1024
VERSION_MAJOR = 2
VERSION_MINOR = 0
PKG_SHA256 = 1
PKG_MD5 = 2
LNC_SIZE = 1
MAX_CORES = 64
FEATURE_HOST_REGIONS = 1 << 61
FEATURE_NXCC_ENCODING = 1 << 62

_LAYOUT = struct.Struct("<5Q128sI32s16s256sI64sQI468s")
_BUILD_VERSION_BYTES = 128
_NAME_BYTES = 256
_DIGEST_BYTES = 32
_UUID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Header:
    """All fields of the header.

    data_size: bytes of the payload as stored. digest: 32 bytes, SHA-256 (pkg_version 1) or MD5 and 16 zeros
    (pkg_version 2) of the payload as stored. tpb_per_node: subgraphs of each kelf node, without trailing zeros.
    is_padding_zero: False when bytes that should be zero were not; packing always writes zeros.
    """

    data_size: int
    digest: bytes
    uuid: bytes
    name: str
    build_version: str
    num_tpb: int
    tpb_per_node: tuple[int, ...]
    requested_tpb_count: int = 1
    feature_bits: int = FEATURE_NXCC_ENCODING
    pkg_version: int = PKG_SHA256
    version_major: int = VERSION_MAJOR
    version_minor: int = VERSION_MINOR
    lnc_size: int = LNC_SIZE
    is_padding_zero: bool = True

    @property
    def is_ours(self) -> bool:
        """Whether the engine binaries are in the nxcc encoding; a vendor's file can be shown, not run."""
        return bool(self.feature_bits & FEATURE_NXCC_ENCODING)

    @property
    def has_host_regions(self) -> bool:
        return self.is_ours and bool(self.feature_bits & FEATURE_HOST_REGIONS)

    @property
    def file_bytes(self) -> int:
        """Size of the whole file."""
        return HEADER_BYTES + self.data_size

    @property
    def digest_name(self) -> str:
        """The digest that pkg_version stands for, as hashlib names it."""
        return {PKG_SHA256: "sha256", PKG_MD5: "md5"}[self.pkg_version]

    def pack(self) -> bytes:
        """The 1024 bytes; texts must fit with their NUL (see `cut_text`)."""
        assert len(self.digest) == _DIGEST_BYTES and len(self.uuid) == _UUID_BYTES
        assert len(self.tpb_per_node) <= MAX_CORES
        build_version, name = self.build_version.encode(), self.name.encode()
        assert len(build_version) < _BUILD_VERSION_BYTES and len(name) < _NAME_BYTES, "text does not fit the header"
        assert b"\0" not in build_version + name, "NUL inside a header text"
        return _LAYOUT.pack(
            self.pkg_version, HEADER_BYTES, self.data_size, self.version_major, self.version_minor, build_version,
            self.num_tpb, self.digest, self.uuid, name, self.requested_tpb_count, bytes(self.tpb_per_node),
            self.feature_bits, self.lnc_size, b"",
        )


def header_name(text: str) -> str:
    """A module name as the header holds it: up to the first NUL, at most 255 bytes, cut between characters."""
    return cut_text(text.partition("\0")[0], _NAME_BYTES - 1)


def cut_text(text: str, limit_bytes: int) -> str:
    """The longest prefix of whole characters that takes at most limit_bytes in UTF-8."""
    return text.encode()[:limit_bytes].decode("utf-8", "ignore")


def unpack_header(data: bytes | memoryview, where: str) -> Header:
    """Read the first 1024 bytes of a file by any compiler; NEFF_INVALID for what no NEFF may say.

    Rules that hold only for files of ours are in `check_own_header`.
    """
    if len(data) < HEADER_BYTES:
        raise CompileError(NEFF_INVALID, f"file of {len(data)} bytes ends inside the {HEADER_BYTES}-byte header", where,
                           why="this is no NEFF, or it is truncated")
    (pkg_version, header_size, data_size, major, minor, build_version, num_tpb, digest, uuid, name,
     requested, tpb_per_node, feature_bits, lnc_size, pad) = _LAYOUT.unpack(data[:HEADER_BYTES])
    if header_size != HEADER_BYTES:
        raise CompileError(NEFF_INVALID, f"header_size is {header_size}, not {HEADER_BYTES}", f"{where}: offset 0x8",
                           why="this is no NEFF, or its header is damaged")
    if pkg_version not in (PKG_SHA256, PKG_MD5):
        raise CompileError(NEFF_VERSION, f"pkg_version is {pkg_version}", f"{where}: offset 0x0",
                           why=f"only {PKG_SHA256} (SHA-256) and {PKG_MD5} (MD5) are known")
    build_text, build_is_clean = _text(build_version, f"{where}: build version at 0x28")
    name_text, name_is_clean = _text(name, f"{where}: name at 0xdc")
    return Header(
        data_size=data_size, digest=digest, uuid=uuid, name=name_text, build_version=build_text, num_tpb=num_tpb,
        tpb_per_node=tuple(tpb_per_node.rstrip(b"\0")), requested_tpb_count=requested, feature_bits=feature_bits,
        pkg_version=pkg_version, version_major=major, version_minor=minor, lnc_size=lnc_size,
        is_padding_zero=build_is_clean and name_is_clean and not pad.strip(b"\0"),
    )


def _text(field: bytes, where: str) -> tuple[str, bool]:
    """The text before the first NUL, and whether all bytes after it are zero."""
    text, terminator, rest = field.partition(b"\0")
    if not terminator:
        raise CompileError(NEFF_INVALID, "text in the header is not NUL-terminated", where)
    try:
        return text.decode(), not rest.strip(b"\0")
    except UnicodeDecodeError as error:
        raise CompileError(NEFF_INVALID, "text in the header is not UTF-8", where, why=str(error)) from None


def check_own_header(header: Header, where: str) -> None:
    """Rules for a file with feature bit 62: NEFF_VERSION for what a newer nxcc may mean, NEFF_INVALID for the rest."""
    if header.version_major != VERSION_MAJOR:
        raise CompileError(NEFF_VERSION, f"NEFF version {header.version_major}.{header.version_minor}",
                           f"{where}: offset 0x18", why=f"this nxcc reads major version {VERSION_MAJOR}",
                           remedy="compile the model again with this version")
    unknown = header.feature_bits & ~(FEATURE_HOST_REGIONS | FEATURE_NXCC_ENCODING)
    if unknown:
        numbers = ", ".join(str(bit) for bit in range(64) if unknown >> bit & 1)
        raise CompileError(NEFF_VERSION, f"unknown feature bits: {numbers}", f"{where}: offset 0x220",
                           why="each bit is a feature that a reader must know")
    rules = (
        (1 <= header.num_tpb <= MAX_CORES, f"num_tpb is {header.num_tpb}, not 1 to {MAX_CORES}", 0xA8),
        (header.requested_tpb_count >= 1, "requested_tpb_count is 0", 0x1DC),
        (sum(header.tpb_per_node) == header.num_tpb,
         f"tpb_per_node adds up to {sum(header.tpb_per_node)}, num_tpb is {header.num_tpb}", 0x1E0),
        (header.lnc_size == LNC_SIZE, f"lnc_size is {header.lnc_size}, not {LNC_SIZE}", 0x228),
        (header.is_padding_zero, "padding is not zero", 0x22C),
    )
    for holds, what, offset in rules:
        if not holds:
            raise CompileError(NEFF_INVALID, what, f"{where}: offset {offset:#x}")
