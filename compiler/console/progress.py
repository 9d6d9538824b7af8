"""What a user sees while the compiler works: the stage's name on a terminal, messages by level, a log file, stage times."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from nxcc.ir.diagnostics import FILE_UNWRITABLE, CompileError
from nxcc.ir.facts import dataclass

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
_WORDS = {DEBUG: "debug", INFO: "info", WARNING: "warning", ERROR: "error"}


@dataclass(frozen=True)
class StageTime:
    """Processor and wall-clock seconds of one stage of a command."""

    stage: str
    cpu_s: float
    wall_s: float


class Journal:
    """Messages and times of one command.

    level: what is shown; everything goes to the log. stages: finished stages in order. notices: warnings given, for reports.
    Between warnings and errors lies what frameworks pass (35): a dot a stage on a terminal, and nothing else but errors.
    """

    def __init__(self, level: int = WARNING, *, quiet: bool = False, logfile: str = "", stdout_is_data: bool = False) -> None:
        self.level = ERROR if quiet else level
        self.stages: list[StageTime] = []
        self.notices: list[str] = []
        on_terminal = not quiet and sys.stderr.isatty()
        self.is_interactive = on_terminal and level <= WARNING
        self.is_dotted = on_terminal and WARNING < level < ERROR
        self._dots = 0
        self._stdout_is_data = stdout_is_data
        self._log = _open_log(logfile) if logfile else None
        self._status: Any = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show and time one stage."""
        self._show(name)
        self._write_log(INFO, f"{name} begins")
        cpu, wall = time.process_time(), time.monotonic()
        try:
            yield
        finally:
            spent = StageTime(name, time.process_time() - cpu, time.monotonic() - wall)
            self.stages.append(spent)
            self._say(INFO, f"{name}: {spent.wall_s:.3f} s")

    def note(self, text: str, level: int = WARNING) -> None:
        """Give the user one line; warnings are kept for the report."""
        if level >= WARNING:
            self.notices.append(text)
        self._say(level, text)

    @property
    def wants_report(self) -> bool:
        """Whether the result is told on stdout."""
        return self.level <= WARNING

    @property
    def result(self) -> TextIO:
        """Where the result is told: stdout, unless that holds data."""
        return sys.stderr if self._stdout_is_data else sys.stdout

    @property
    def hears_all(self) -> bool:
        """Whether anything is made of messages below warnings."""
        return self.level <= INFO or self._log is not None

    def close(self) -> None:
        """Clear the progress line and finish the log."""
        if self._dots:
            sys.stderr.write("\n")
            self._dots = 0
        if self._status is not None:
            self._status.stop()
            self._status = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def _say(self, level: int, text: str) -> None:
        self._write_log(level, text)
        if level >= self.level:
            stream = self.result if level < WARNING else sys.stderr
            line = f"nxcc: {_WORDS[level]}: {text}\n"
            stream.write(line)
            stream.flush()

    def _write_log(self, level: int, text: str) -> None:
        if self._log is not None:
            try:
                self._log.write(f"{_WORDS[level]:8}{text}\n")
                self._log.flush()
            except OSError as error:
                log, self._log = self._log, None
                raise _unwritable(log.name, error) from None

    def _show(self, name: str) -> None:
        if self.is_dotted:
            self._dots += 1
            sys.stderr.write(".")
            sys.stderr.flush()
        if not self.is_interactive:
            return
        if self._status is None:
            from rich.console import Console
            self._status = Console(stderr=True).status(name)
            self._status.start()
        self._status.update(f"{name} …")


def _open_log(path: str) -> TextIO:
    import os
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: str, error: OSError) -> CompileError:
    return CompileError(FILE_UNWRITABLE, f"cannot write the log {path}", why=error.strerror or str(error),
                        remedy="choose another place, or make room")
