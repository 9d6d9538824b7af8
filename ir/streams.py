"""What is no regular file: the standard streams (`-`), pipes and devices.

What is read from one is kept in a nameless temporary file and mapped, so that a stage sees bytes as of any other file; what is
written to one goes there when it is complete.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import IO, BinaryIO, cast

from nxcc.ir.diagnostics import FILE_UNREADABLE, FILE_UNWRITABLE, LIMIT_EXCEEDED, USAGE, CompileError

STANDARD = "-"
"""In place of a file's name: the standard input where one is read, the standard output where one is written."""

MAX_PIPE_BYTES, MAX_DEVICE_BYTES = 4 << 30, 64 << 20
"""Of a pipe, which ends when its writer is done, and of a device, which may have no end."""

PIECE_BYTES = 1 << 20

_kept: ContextVar[dict[str, IO[bytes]] | None] = ContextVar("kept", default=None)


@contextmanager
def streams_kept() -> Iterator[None]:
    """Within, who reads a stream again by the same name gets the same bytes: a command may open its model twice."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def is_stream(path: str) -> bool:
    """Whether a name stands for something that can be read or written, and is neither a regular file nor a folder."""
    return path == STANDARD or (os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path))


def shown(path: str) -> str:
    """An input's name in messages."""
    return "<stdin>" if path == STANDARD else path


def shown_output(path: str) -> str:
    """An output's name in messages."""
    return "<stdout>" if path == STANDARD else path


def open_stream(path: str) -> IO[bytes]:
    """All that a stream gives, as a file that can be mapped.

    Raises OSError, or CompileError: FILE_UNREADABLE for a closed standard input, LIMIT_EXCEEDED for a stream without an end.
    """
    kept = _kept.get()
    if kept is not None and path in kept:
        return kept[path]
    if path != STANDARD:
        with open(path, "rb") as source:
            found = _spooled(source, path)
    elif sys.stdin is None:
        raise CompileError(FILE_UNREADABLE, "cannot read the standard input", why="it is closed")
    else:
        found = _spooled(sys.stdin.buffer, shown(path))
    if kept is not None:
        kept[path] = found
    return found


def _spooled(source: BinaryIO, name: str) -> IO[bytes]:
    limit = MAX_DEVICE_BYTES if _is_device(source) else MAX_PIPE_BYTES
    file = tempfile.TemporaryFile()
    while piece := source.read(PIECE_BYTES):
        file.write(piece)
        if file.tell() > limit:
            raise CompileError(LIMIT_EXCEEDED, f"{name} gives more than {limit} bytes", remedy="give a regular file")
    file.flush()
    return file


def _is_device(source: BinaryIO) -> bool:
    try:
        mode = os.fstat(source.fileno()).st_mode
    except OSError:
        return False  # a stream of Python's own
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


@contextmanager
def whole_stream(path: str) -> Iterator[BinaryIO]:
    """A nameless file whose bytes go to a stream when the block ends well. Raises OSError, CompileError(FILE_UNWRITABLE)."""
    with tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        if is_standard_output(path):
            target = _standard_output()
            shutil.copyfileobj(file, target, PIECE_BYTES)
            target.flush()
        else:
            with open(path, "wb") as target:
                shutil.copyfileobj(file, target, PIECE_BYTES)


def _standard_output() -> BinaryIO:
    sys.stdout.flush()
    found = getattr(sys.stdout, "buffer", None)
    if found is None:
        raise CompileError(FILE_UNWRITABLE, "cannot write to the standard output", why="what stands for it takes no bytes")
    return cast(BinaryIO, found)


def is_standard_output(path: str) -> bool:
    """Whether what is written there comes out of the standard output: `-`, or another name of the same thing."""
    if path == STANDARD:
        return True
    try:
        there, here = os.stat(path), os.fstat(1)
    except (OSError, ValueError):
        return False
    return os.path.samestat(there, here) and (not stat.S_ISCHR(here.st_mode) or os.isatty(1))


def check_stream(path: str) -> None:
    """Fail before the work is done if nothing can be written to a stream: CompileError(FILE_UNWRITABLE)."""
    if path != STANDARD and not os.access(path, os.W_OK):
        raise CompileError(FILE_UNWRITABLE, f"cannot write {path}", why="it may not be written to")


def refuse_terminal(path: str) -> None:
    """CompileError(USAGE) if bytes that are no text would go to a terminal."""
    if path and is_standard_output(path) and sys.stdout.isatty():
        raise CompileError(USAGE, "the standard output is a terminal", why="what is written is no text",
                           remedy="send it to a file or to another program")
