"""A limit of the clock for work whose end is not known: a simulated loop may depend on data that never ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from nxcc.ir.diagnostics import LIMIT_EXCEEDED, CompileError


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise CompileError(LIMIT_EXCEEDED) in the main thread once so many seconds of the clock are over; None: no limit.

    A call into a library is waited for. Where the platform has no such alarm, and in other threads, nothing is limited.
    """
    error = CompileError(LIMIT_EXCEEDED, f"the simulation did not end within {seconds:g} seconds", where="--time-limit",
                         why="a loop whose condition depends on data may never end",
                         remedy="a longer --time-limit, or other inputs") if seconds is not None else None
    with raised_after(seconds, error):
        yield


@contextmanager
def raised_after(seconds: float | None, error: BaseException | None) -> Iterator[None]:
    """Raise an error inside after so many seconds of the clock, as `time_limit` says."""
    if error is None or not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(number: int, frame: FrameType | None) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds or 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
