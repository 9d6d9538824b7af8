"""What Ctrl-C does: it ends the process at once while modules are imported, and is an exception while a command works.

As an exception it could come out of an import as another error, or as a traceback. What a command imports while it works is
imported whole first: files may be half written, so the process cannot end there. Nothing that takes time is imported here.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time
from types import FrameType

INTERRUPTED = 130
IMPORT_S = 0.01
"""After so many seconds an interrupt comes again that found modules half imported."""

MESSAGE = "nxcc: interrupted; nothing was written\n"


def leave_when_interrupted() -> None:
    """From now on an interrupt ends the process, unless the caller had it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: object) -> None:
    os.write(2, MESSAGE.encode())
    os._exit(INTERRUPTED)


def raise_when_interrupted() -> None:
    """From now on an interrupt is a KeyboardInterrupt again, so that what is half done is cleaned up."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, _raise)
        sys.unraisablehook = _again


def _raise(number: int, frame: FrameType | None) -> None:
    if _is_importing(frame):
        _thread.start_new_thread(_interrupt_later, (_thread.get_ident(),))
    else:
        raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _again(swallowed: sys.UnraisableHookArgs) -> None:
    """What Python must pass over (in a finalizer, at a fork) comes again if it was an interrupt."""
    if issubclass(swallowed.exc_type, KeyboardInterrupt):
        _thread.start_new_thread(_interrupt_later, (_thread.get_ident(),))
    else:
        sys.__unraisablehook__(swallowed)


def _interrupt_later(main: int) -> None:
    """main: the thread that handles signals, which may wait for something by then."""
    time.sleep(IMPORT_S)
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()


def pass_over_interrupts() -> None:
    """What was asked for is done: from now on an interrupt changes nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
