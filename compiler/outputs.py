"""Files that appear whole or not at all: written beside their place under another name, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from nxcc.ir.diagnostics import FILE_UNWRITABLE, CompileError


@contextmanager
def whole_file(path: str) -> Iterator[BinaryIO]:
    """A new file that takes the place of path when the block ends well, and vanishes otherwise.

    Raises CompileError(FILE_UNWRITABLE): folder missing or read-only, disk full. A device such as /dev/null is written to.
    """
    target = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(target), f".{os.path.basename(target)[:64]}.{secrets.token_hex(8)}.tmp")
    is_special = os.path.exists(target) and not os.path.isfile(target)
    try:
        if is_special:
            with open(target, "wb") as file:
                yield file
            return
        with open(temporary, "xb") as file:
            yield file
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
        raise CompileError(FILE_UNWRITABLE, f"cannot write {path}", why=why, remedy="choose another place with -o")
