"""Worker processes, one module at a time each; one that hangs or dies costs its own module only."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from conformance.walk import INTERNAL_ERROR, SLOW, Failure, TooSlow, WalkOutcome

C_contra = TypeVar("C_contra", contravariant=True)
O_co = TypeVar("O_co", bound=WalkOutcome, covariant=True)
C = TypeVar("C")
O = TypeVar("O", bound=WalkOutcome)  # noqa: E741


class Runner(Protocol[C_contra, O_co]):
    """Takes one case through its steps; `lost` is the outcome of a case that did not come back, without its failure."""

    def __call__(self, case: C_contra, /) -> O_co: ...

    def lost(self, case: C_contra, /) -> O_co: ...


GRACE_FACTOR = 5.0
"""The limit is CPU time, so that a busy machine makes no module slow. After this many limits of the clock the process is
ended: an alarm does not interrupt a call into a library."""
MEMORY_BYTES = 48 << 30
"""Address space of a worker: three times a core's HBM, most of which is never touched."""

RESIDENT_SHARE = 0.4
"""Of the machine's memory that a worker may touch: two of them stay clear of the system's own way to end processes."""


def run_all(cases: Sequence[C], runner: Runner[C, O], jobs: int, limit_seconds: float) -> Iterator[O]:
    """The outcome of every case, in the order in which they finish."""
    waiting = deque(cases)
    workers = [_Worker(runner, limit_seconds) for _ in range(min(jobs, len(cases)))]
    try:
        for worker in workers:
            worker.give(waiting)
        while any(worker.case for worker in workers):
            ready = wait([w.pipe for w in workers if w.case], timeout=1.0)
            for worker in workers:
                if worker.case and (worker.pipe in ready or worker.is_overdue() or worker.is_too_large()):
                    yield worker.take()
                    worker.give(waiting)
    finally:
        for worker in workers:
            worker.stop()


class _Worker(Generic[C, O]):
    """A process and the case it is at."""

    def __init__(self, runner: Runner[C, O], limit_seconds: float) -> None:
        self.runner = runner
        self.limit_seconds = limit_seconds
        self.case: C | None = None
        self.since = 0.0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe: Connection[Any, Any]
        self.pipe, theirs = context.Pipe()
        self.process: ForkProcess = context.Process(target=_work, args=(theirs, self.runner, self.limit_seconds), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, waiting: deque[C]) -> None:
        if waiting:
            self.case, self.since = waiting.popleft(), time.monotonic()
            self.pipe.send(self.case)

    def is_overdue(self) -> bool:
        return time.monotonic() - self.since > GRACE_FACTOR * self.limit_seconds

    def is_too_large(self) -> bool:
        return resident_bytes(self.process.pid) > RESIDENT_SHARE * _memory_bytes()

    def take(self) -> O:
        """The outcome of the current case; a new process if this one is overdue, too large or dead."""
        case, self.case = self.case, None
        assert case is not None
        try:
            if self.pipe.poll():
                found: O = self.pipe.recv()
                return found
            words = "needs too much memory" if self.is_too_large() else "does not come back from a library call"
            failure = Failure("any", SLOW, words)
        except (EOFError, ConnectionResetError):
            failure = Failure("any", INTERNAL_ERROR, "the process died")
        self.stop()
        self._start()
        return _failed(self.runner, case, failure)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def resident_bytes(process: int | None) -> int:
    """Memory that a process has touched; 0 where the system does not say."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def _memory_bytes() -> int:
    """Of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()


def _work(pipe: Connection[Any, Any], runner: Runner[C, O], limit_seconds: float) -> None:
    """What a worker does until the pipe closes."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.RLIM_INFINITY))
    signal.signal(signal.SIGPROF, _too_slow)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            case = pipe.recv()
        except EOFError:
            return
        pipe.send(timed(runner, case, limit_seconds))


def timed(runner: Runner[C, O], case: C, limit_seconds: float) -> O:
    """The runner with an alarm; what the alarm interrupts between two steps counts as too slow all the same."""
    signal.setitimer(signal.ITIMER_PROF, limit_seconds)
    try:
        return runner(case)
    except TooSlow:
        return _failed(runner, case, Failure("any", SLOW, "too slow between steps"))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _failed(runner: Runner[C, O], case: C, failure: Failure) -> O:
    outcome = runner.lost(case)
    outcome.failures.append(failure)
    return outcome


def _too_slow(number: int, frame: Any) -> None:
    raise TooSlow
