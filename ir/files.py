"""Files in and out: read ones are mapped, a pipe or device is read up to a limit; written ones appear whole or not at all."""

from __future__ import annotations

import mmap
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from nxcc.ir.diagnostics import FILE_UNREADABLE, FILE_UNWRITABLE, LIMIT_EXCEEDED, CompileError, near

MAX_STREAM_BYTES = 256 << 20
"""Of a pipe, which is read, not mapped."""


def map_file(path: str, *, pipes: bool = True) -> memoryview:
    """The bytes of a file, mapped read-only; of a pipe or device, where they may be given, read.

    Raises CompileError(FILE_UNREADABLE).
    """
    try:
        if not (pipes or stat.S_ISREG(os.stat(path).st_mode)):
            raise CompileError(FILE_UNREADABLE, f"cannot read {path}", why="it is not a regular file")
        with open(path, "rb") as file:
            return mapped(file) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else read_stream(file, path)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CompileError(FILE_UNREADABLE, f"cannot read {path}", why=why, remedy=near_file(path)) from None


def mapped(file: BinaryIO) -> memoryview:
    """An open regular file as a read-only view; an empty one cannot be mapped and is an empty view."""
    if os.fstat(file.fileno()).st_size == 0:
        return memoryview(b"")
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def read_stream(file: BinaryIO, name: str) -> memoryview:
    """All bytes of a pipe or device; CompileError(LIMIT_EXCEEDED) if they do not end."""
    data = file.read(MAX_STREAM_BYTES + 1)
    if len(data) > MAX_STREAM_BYTES:
        raise CompileError(LIMIT_EXCEEDED, f"{name} gives more than {MAX_STREAM_BYTES} bytes",
                           remedy="give a regular file, which is mapped, not read")
    return memoryview(data)


def near_file(path: str) -> str:
    """For a file that does not exist: which one of its folder may be meant, or that the folder is not there either."""
    folder = os.path.dirname(path)
    if "\0" in path or os.path.lexists(path):
        return ""
    if not os.path.isdir(folder or "."):
        return f"there is no folder {folder}"
    return near(path, [os.path.join(folder, other) for other in sorted(os.listdir(folder or "."))])


@contextmanager
def whole_file(path: str, *, devices: bool = True) -> Iterator[BinaryIO]:
    """A new file that takes the place of path (links followed) when the block ends well, and vanishes otherwise.

    It is written beside its place under another name, then renamed. devices: one, such as /dev/null, is written to.
    Raises CompileError(FILE_UNWRITABLE): folder missing or read-only, disk full, a device where none may be.
    """
    target = os.path.realpath(path)
    # A long name plus the suffix could pass the file system's limit of 255 bytes.
    temporary = os.path.join(os.path.dirname(target), f".{os.path.basename(target)[:64]}.{secrets.token_hex(8)}.tmp")
    is_special = os.path.exists(target) and not os.path.isfile(target)
    if is_special and not devices:
        raise CompileError(FILE_UNWRITABLE, f"cannot write {path}", why="it exists and is not a regular file")
    try:
        with open(target if is_special else temporary, "wb" if is_special else "xb") as file:
            yield file
        if not is_special:
            os.replace(temporary, target)
    except OSError as error:
        raise CompileError(FILE_UNWRITABLE, f"cannot write {path}", why=error.strerror or str(error),
                           remedy="choose another place, or make room") from error
    finally:
        if not is_special and os.path.lexists(temporary):
            os.unlink(temporary)


def write_whole(path: str, content: str | bytes) -> None:
    """Write one text or byte string."""
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def check_writable(path: str) -> None:
    """Fail before the work is done if its result cannot be written there: CompileError(FILE_UNWRITABLE)."""
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
