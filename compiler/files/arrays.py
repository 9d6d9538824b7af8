"""Reads named arrays from npz and safetensors files without copying and without trusting them; writes npz.

An array is a view into the mapped file where the file stores it plainly; a compressed npz member is inflated when asked
for. Never unpickles. npz: zip of npy, as numpy writes it. safetensors: 8-byte length, JSON header, raw data (format
page of the safetensors project). Types that numpy lacks lie in an npz as unsigned integers with the bit pattern.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.lib import format as npy

from nxcc.compiler.files.recognition import description
from nxcc.ir.diagnostics import ARRAYS_UNREADABLE, EMPTY_INPUT, CompileError
from nxcc.ir.dtypes import BF16, F8E4M3FN, F8E5M2, F16, F32, F64, PRED, S8, S16, S32, S64, U8, U16, U32, U64, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.files import map_file
from nxcc.ir.hlo.texts import is_text
from nxcc.ir.literals import Array

MAX_HEADER_BYTES = 100 << 20
MAX_NPY_HEADER_BYTES = 10_000
SAFETENSORS_DTYPES: dict[str, DType] = {
    "BOOL": PRED, "U8": U8, "I8": S8, "U16": U16, "I16": S16, "F16": F16, "BF16": BF16, "U32": U32, "I32": S32, "F32": F32,
    "F64": F64, "U64": U64, "I64": S64, "F8_E4M3": F8E4M3FN, "F8_E5M2": F8E5M2,
}


@dataclass(frozen=True)
class ArrayFile(Mapping[str, Array]):
    """The arrays of one file by name; each is read when asked for.

    path: for messages. arrays: what makes each array, which may raise CompileError(ARRAYS_UNREADABLE).
    """

    path: str
    arrays: dict[str, Callable[[], Array]]

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


def read_arrays(path: str) -> ArrayFile:
    """Open an npz or safetensors file, recognised by content.

    Raises CompileError: FILE_UNREADABLE, EMPTY_INPUT, or ARRAYS_UNREADABLE with the reason and, where known, the offset.
    """
    data = map_file(path)
    if not len(data):
        raise CompileError(EMPTY_INPUT, "the file holds no bytes", path)
    if bytes(data[:4]) in (b"PK\x03\x04", b"PK\x05\x06"):
        return ArrayFile(path, _npz(data, path))
    if len(data) >= 8 and bytes(data[8:9]) == b"{":
        return ArrayFile(path, _safetensors(data, path))
    kind = description(data)
    raise _unreadable(path, "it is neither an npz nor a safetensors file" + (f" but looks like {kind}" if kind else ""),
                      "numpy.savez and safetensors.numpy.save_file write such files")


def _unreadable(where: str, why: str, remedy: str = "") -> CompileError:
    return CompileError(ARRAYS_UNREADABLE, "the array file cannot be read", where, why=why, remedy=remedy)


# npz


def _npz(data: memoryview, path: str) -> dict[str, Callable[[], Array]]:
    try:
        archive = zipfile.ZipFile(_MappedFile(data))
        members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error, OverflowError) as error:
        raise _unreadable(path, f"damaged zip: {error}") from None
    found: dict[str, Callable[[], Array]] = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name in found:
            raise _unreadable(path, f"array {name!r} is there twice")
        found[name] = partial(_npy_member, archive, member, data, path)
    return found


class _MappedFile(io.RawIOBase):
    """A seekable file over mapped bytes, so that zipfile inflates from the map."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self.position, len(self.data))[whence]
        if base + offset < 0:
            # zipfile looks for optional records before the start and expects what a file would raise
            raise OSError(f"offset {base + offset} is before the file")
        self.position = base + offset
        return self.position

    def readinto(self, buffer: Any) -> int:
        piece = self.data[self.position:self.position + len(buffer)]
        buffer[:len(piece)] = piece
        self.position += len(piece)
        return len(piece)


def _npy_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, data: memoryview, path: str) -> Array:
    where = f"{path}: {member.filename}"
    try:
        if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
            content = _stored_bytes(data, member)
        else:
            content = memoryview(archive.read(member)) if _is_plausible(archive, member, where) else memoryview(b"")
        stream = io.BytesIO(content[:MAX_NPY_HEADER_BYTES + 16])
        shape, fortran, dtype = _npy_header(stream, where)
        size = math.prod(shape) * dtype.itemsize
        start = stream.tell()
        if len(content) - start != size:
            raise _unreadable(where, f"its header promises {size} bytes of data, {len(content) - start} are there")
        array = np.frombuffer(content, dtype, math.prod(shape), start) if size else np.zeros(shape, dtype)
        array = array.reshape(shape, order="F" if fortran else "C")
        return array if dtype.isnative else array.astype(dtype.newbyteorder("="))
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, struct.error, NotImplementedError,
            _inflate_error()) as error:
        raise _unreadable(where, str(error)) from None


def _inflate_error() -> type[Exception]:
    import zlib
    return zlib.error


def _stored_bytes(data: memoryview, member: zipfile.ZipInfo) -> memoryview:
    """The bytes of a member that is not compressed, from its local header; they have the checksum that is written there."""
    import zlib
    header = bytes(data[member.header_offset:member.header_offset + 30])
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"no local header at offset {member.header_offset}")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    start = member.header_offset + 30 + name_length + extra_length
    if start + member.file_size > len(data):
        raise zipfile.BadZipFile(f"data at offset {start} runs past the end of the file")
    content = data[start:start + member.file_size]
    if zlib.crc32(content) != member.CRC:
        raise zipfile.BadZipFile("its bytes do not have the checksum that the archive gives")
    return content


MAX_INFLATION = 1100
"""Deflate cannot do better than about 1030 to 1 (zlib's technical details)."""


def _is_plausible(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> bool:
    """Check the declared size against the npy header before anything is inflated whole."""
    if member.file_size > max(member.compress_size, 1) * MAX_INFLATION:
        raise _unreadable(where, f"{member.compress_size} bytes cannot inflate to {member.file_size}")
    with archive.open(member) as stream:
        shape, _, dtype = _npy_header(stream, where)
    if math.prod(shape) * dtype.itemsize > member.file_size:
        raise _unreadable(where, "its header promises more data than there is")
    return True


_NPY_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
_NPY_ENTRIES = {
    "descr": re.compile(r"""['"]descr['"]\s*:\s*['"]([<>|=]?[A-Za-z][0-9]{0,6})['"]"""),
    "fortran_order": re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)\b"""),
    "shape": re.compile(r"""['"]shape['"]\s*:\s*\(([0-9,L\s]*)\)"""),
}


def _npy_header(stream: Any, where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type from the header of an npy file.

    Matched, never evaluated: numpy's own reader passes it to the Python parser, which damage drives into many exceptions.
    """
    version = npy.read_magic(stream)
    if version not in _NPY_LENGTH_BYTES:
        raise _unreadable(where, f"npy version {version} is not known")
    length = int.from_bytes(stream.read(_NPY_LENGTH_BYTES[version]), "little")
    if length > MAX_NPY_HEADER_BYTES:
        raise _unreadable(where, f"its header is longer than {MAX_NPY_HEADER_BYTES} bytes")
    header = stream.read(length).decode("latin-1")
    found = {key: entry.search(header) for key, entry in _NPY_ENTRIES.items()}
    missing = [key for key, match in found.items() if match is None]
    if missing:
        raise _unreadable(where, f"its header has no plain {' and '.join(missing)}", "save plain numeric arrays")
    descr, order, sizes = (match[1] for match in found.values() if match is not None)
    try:
        dtype = np.dtype(descr)
    except TypeError:
        raise _unreadable(where, f"type {descr!r} is not known") from None
    if dtype.hasobject:
        raise _unreadable(where, "it holds pickled Python objects", "save plain numeric arrays")
    dims = re.findall(r"[0-9]+", sizes)
    if max(map(len, dims), default=0) > 18:
        raise _unreadable(where, f"its shape ({sizes.strip()}) is not possible")
    return tuple(map(int, dims)), order == "True", dtype


def write_npz(file: Any, arrays: Mapping[str, Array]) -> None:
    """Write arrays as an npz that is equal for equal arrays; bf16 and the like become their bit patterns."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            with archive.open(member, "w", force_zip64=True) as stream:
                npy.write_array(stream, np.asarray(bit_pattern(array), order="C"), allow_pickle=False)


def bit_pattern(array: Array) -> Array:
    """The array itself, or, for a type that numpy has not of itself, its bits as unsigned integers."""
    foreign = array.dtype.kind == "V" or (array.dtype.isbuiltin != 1 and not is_text(array.dtype))
    return array.view(f"u{array.dtype.itemsize}") if foreign else array


# safetensors


def _safetensors(data: memoryview, path: str) -> dict[str, Callable[[], Array]]:
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES or 8 + length > len(data):
        raise _unreadable(path, f"the header's length {length} at offset 0 runs past the file or the limit")
    try:
        header = json.loads(bytes(data[8:8 + length]).decode())
    except (ValueError, RecursionError) as error:
        raise _unreadable(f"{path}: offset 8", f"the header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise _unreadable(f"{path}: offset 8", "the header is not an object")
    body = data[8 + length:]
    found: dict[str, Callable[[], Array]] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            found[name] = partial(np.asarray, _tensor(body, entry, f"{path}: {name}"))
    return found


def _tensor(body: memoryview, entry: Any, where: str) -> Array:
    """One tensor as a view; its place and size are checked against the file."""
    try:
        word, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise _unreadable(where, "its header entry lacks dtype, shape or data_offsets") from None
    dtype = SAFETENSORS_DTYPES.get(word) if isinstance(word, str) else None
    if dtype is None:
        raise _unreadable(where, f"dtype {word!r} is not known")
    numbers = [start, end, *shape] if isinstance(shape, list) else [-1]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise _unreadable(where, "shape and data_offsets must be counts")
    size = math.prod(shape) * dtype.byte_size
    if end - start != size or end > len(body):
        raise _unreadable(where, f"data_offsets {start}..{end} do not hold {size} bytes of the file")
    if not size:
        return np.zeros(shape, dtype.numpy)
    return np.frombuffer(body[start:end], dtype.numpy).reshape(shape)
