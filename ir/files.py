"""Files in and out: read ones are mapped; written ones appear whole or not at all. `-` and pipes: see `streams`."""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO

from nxcc.ir.diagnostics import FILE_UNREADABLE, FILE_UNWRITABLE, CompileError, near
from nxcc.ir.streams import check_stream, is_standard_output, is_stream, open_stream, shown, shown_output, whole_stream


def map_file(path: str) -> memoryview:
    """The bytes of a file, mapped read-only; of a stream, what it gives.

    Raises CompileError: FILE_UNREADABLE, or LIMIT_EXCEEDED for a stream without an end.
    """
    try:
        if is_stream(path):
            return mapped(open_stream(path))
        with open(path, "rb") as file:
            return mapped(file)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CompileError(FILE_UNREADABLE, f"cannot read {shown(path)}", why=why, remedy=near_file(path)) from None


def mapped(file: IO[bytes]) -> memoryview:
    """An open regular file as a read-only view; an empty one cannot be mapped and is an empty view."""
    if os.fstat(file.fileno()).st_size == 0:
        return memoryview(b"")
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def near_file(path: str) -> str:
    """For a file that does not exist: which one of its folder may be meant, or that the folder is not there either."""
    folder = os.path.dirname(path)
    if "\0" in path or os.path.lexists(path) or is_stream(path):
        return ""
    if not os.path.isdir(folder or "."):
        return f"there is no folder {folder}"
    return near(path, [os.path.join(folder, other) for other in sorted(os.listdir(folder or "."))])


@contextmanager
def whole_file(path: str) -> Iterator[BinaryIO]:
    """A new file that takes the place of path (links followed) when the block ends well, and vanishes otherwise.

    It is written beside its place under another name, then renamed; to a stream it goes when it is complete.
    Raises CompileError(FILE_UNWRITABLE): folder missing or read-only, disk full.
    """
    try:
        with whole_stream(path) if is_stream(path) or is_standard_output(path) else _renamed(path) as file:
            yield file
    except OSError as error:
        if isinstance(error, BrokenPipeError) and is_standard_output(path):
            raise
        raise CompileError(FILE_UNWRITABLE, f"cannot write {shown_output(path)}", why=error.strerror or str(error),
                           remedy="choose another place, or make room") from error


@contextmanager
def _renamed(path: str) -> Iterator[BinaryIO]:
    target = os.path.realpath(path)
    # A long name plus the suffix could pass the file system's limit of 255 bytes.
    temporary = os.path.join(os.path.dirname(target), f".{os.path.basename(target)[:64]}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, target)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


def write_whole(path: str, content: str | bytes) -> None:
    """Write one text or byte string."""
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def check_writable(path: str) -> None:
    """Fail before the work is done if its result cannot be written there: CompileError(FILE_UNWRITABLE)."""
    if is_stream(path):
        check_stream(path)
        return
    folder = os.path.dirname(os.path.realpath(path)) or "."
    why = ""
    if not os.path.isdir(folder):
        why = f"folder {folder} does not exist"
    elif os.path.isdir(path):
        why = "it is a folder"
    elif not os.access(folder, os.W_OK):
        why = f"folder {folder} may not be written to"
    if why:
        raise CompileError(FILE_UNWRITABLE, f"cannot write {path}", why=why, remedy="choose another place")
