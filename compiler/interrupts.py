"""What Ctrl-C does: it ends the process at once while modules are imported, and is an exception while a command works.

As an exception it could come out of an import as another error, or as a traceback. Nothing that takes time is imported here.
"""

from __future__ import annotations

import os
import signal

INTERRUPTED = 130
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
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pass_over_interrupts() -> None:
    """What was asked for is done: from now on an interrupt changes nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
