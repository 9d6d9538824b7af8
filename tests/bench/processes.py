"""Child processes and what they cost: CPU seconds with their children, peak memory, what they wrote."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """A finished process: exit status (negative: killed by that signal), CPU seconds, wall seconds, what it wrote.

    peak_mib: resident, mapped files included. anonymous_mib: the most that was seen of its own memory, looking every 10 ms;
    0 where the system does not tell.
    """

    status: int
    cpu_s: float
    wall_s: float
    peak_mib: float
    anonymous_mib: float
    out: str
    err: str

    @property
    def failure(self) -> str:
        """The first line that says why it failed; empty if it did not."""
        if self.status == 0:
            return ""
        if self.status == -signal.SIGKILL:
            return f"stopped after {self.wall_s:.0f} s"
        lines = [line for line in self.err.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower() or "Error" in line]
        return (errors or lines or [f"exit status {self.status}"])[-1 if not errors else 0][:160]


def run(words: Sequence[str], timeout_s: float = 600.0, environment: Mapping[str, str] | None = None) -> Cost:
    """Run a program to its end, or kill it at the timeout. environment: variables besides this process's own."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start, anonymous = time.monotonic(), 0.0
        child = subprocess.Popen(words, stdout=out, stderr=err, stdin=subprocess.DEVNULL,
                                 env={**os.environ, **(environment or {})})
        while True:
            pid, state, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - start > timeout_s:
                child.kill()
                _, state, usage = os.wait4(child.pid, 0)
                break
            anonymous = max(anonymous, _anonymous_mib(child.pid))
            time.sleep(0.01)
        child.returncode = os.waitstatus_to_exitcode(state)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return Cost(child.returncode, usage.ru_utime + usage.ru_stime, time.monotonic() - start, usage.ru_maxrss / 1024,
                    anonymous, *texts)


def _anonymous_mib(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            rows = [line.split() for line in file if line.startswith("RssAnon:")]
    except OSError:
        return 0.0
    return int(rows[0][1]) / 1024 if rows else 0.0
