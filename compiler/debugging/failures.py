"""Turns what a command raises into lines on stderr and an exit status; holds the one catch-all.

Exit: 0 done, 1 the input or the machine cannot do it, 2 wrong usage, 70 an error inside nxcc, 130 interrupted.
"""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from collections.abc import Callable, Sequence

from nxcc.compiler.console.interrupts import INTERRUPTED, MESSAGE, raise_when_interrupted
from nxcc.compiler.own_files import package_folder
from nxcc.ir.diagnostics import CODES, FILE_UNWRITABLE, INTERNAL, CompileError
from nxcc.ir.streams import streams_kept

MAX_REPRODUCER_BYTES = 64 << 20
MAX_DETAILS = 20
MAX_LINE = 2000
"""Characters of a message; names that come from files may be of any length."""

JSON_SCHEMA = 1
"""Version of every JSON object that a command prints; it grows when a key changes its meaning or goes."""


def guard(action: Callable[[], int], words: Sequence[str]) -> int:
    """Run a command and return the exit status; words: the command line, for messages and the reproducer."""
    _open_closed_streams()
    try:
        raise_when_interrupted()
        with streams_kept():
            status = action()
        sys.stdout.flush()
        return status
    except CompileError as error:
        return report(error, "--json" in words)
    except KeyboardInterrupt:
        sys.stderr.write(MESSAGE)
        return INTERRUPTED
    except BrokenPipeError:
        _give_up_stdout()
        return 1
    except OSError as error:
        return report(_refused(error), as_json=False)
    except MemoryError:
        return report(CompileError(CODES["NXC0302"], "the host has not enough memory for this"), "--json" in words)
    except Exception as error:  # noqa: BLE001  the one catch-all: a fault of ours must not look like the user's
        return _report_internal(error, words)


def _open_closed_streams() -> None:
    """A standard stream that the caller closed becomes the null device."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")


def _give_up_stdout() -> None:
    """Nobody takes what stdout still holds; without this Python complains once more when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refused(error: OSError) -> CompileError:
    """What the machine refused where no stage knows a better message: a full disk behind stdout, the log, temporary files."""
    try:
        sys.stdout.flush()
    except OSError:
        _give_up_stdout()
    return CompileError(FILE_UNWRITABLE, f"cannot read or write {error.filename or 'a file or the standard output'}",
                        why=error.strerror or str(error), remedy="make room; TMPDIR names the folder of temporary files")


def report(error: CompileError, as_json: bool) -> int:
    """Print an error and return its exit status; as_json: also one JSON object on stdout."""
    sys.stderr.write(f"nxcc: error: {one_line(str(error))}\n")
    if len(error.details) > 1 or (error.details and error.details[0] not in str(error)):
        for detail in error.details[:MAX_DETAILS]:
            sys.stderr.write(f"  {one_line(detail)}\n")
        if len(error.details) > MAX_DETAILS:
            sys.stderr.write(f"  ... and {len(error.details) - MAX_DETAILS} more\n")
    if as_json:
        import json
        body = {"code": error.code.name, "title": error.code.title, "what": error.what, "where": error.where,
                "location": error.location, "why": error.why, "remedy": error.remedy, "details": list(error.details)}
        sys.stdout.write(json.dumps({"schema": JSON_SCHEMA, "error": body}, sort_keys=True) + "\n")
    return error.code.exit_status


def one_line(text: str) -> str:
    """A message on one line of bounded length, control characters escaped, since parts of it come from files."""
    if len(text) > MAX_LINE:
        text = f"{text[:MAX_LINE // 2]} ... {text[-MAX_LINE // 2:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _report_internal(error: Exception, words: Sequence[str]) -> int:
    import traceback
    trace = traceback.format_exc()
    root = package_folder()
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((f for f in reversed(frames) if f.filename.startswith(root)), frames[-1])
    place = f"{os.path.relpath(frame.filename, root)}:{frame.lineno}"
    kept = _keep_reproducer(words, trace)
    text = str(CompileError(INTERNAL, f"{type(error).__name__}: {error}", place,
                            why=f"reproducer kept in {kept}" if kept else "no reproducer could be kept",
                            remedy="please report it with that folder"))
    sys.stderr.write(f"nxcc: {one_line(text)}\n")
    return INTERNAL.exit_status


def _keep_reproducer(words: Sequence[str], trace: str) -> str:
    """Keep command line, traceback and input files in the work folder; its path, or nothing if that fails."""
    import shutil
    import tempfile
    try:
        folder = _workdir(words)
        os.makedirs(folder or ".", exist_ok=True)
        kept = tempfile.mkdtemp(prefix="nxcc-error-", dir=folder or None)
        with open(os.path.join(kept, "error.txt"), "w", encoding="utf-8") as file:
            file.write(f"nxcc {shlex.join(words)}\nPython {sys.version}\n\n{trace}")
        for path in dict.fromkeys(words):
            if os.path.isfile(path) and os.path.getsize(path) <= MAX_REPRODUCER_BYTES:
                shutil.copy(path, kept)
        return kept
    except OSError:
        return ""


def _workdir(words: Sequence[str]) -> str:
    """The folder that --workdir names, empty without it."""
    for word, following in itertools.pairwise([*words, ""]):
        if word.startswith("--workdir="):
            return word.partition("=")[2]
        if word == "--workdir":
            return following
    return ""
