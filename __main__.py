"""`nxcc` as a program, also as `python -m nxcc`."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

from nxcc.compiler.console.interrupts import leave_when_interrupted, pass_over_interrupts


def entry() -> None:
    """Run the command line and leave at once.

    Taking a module of thousands of instructions apart again would be a tenth of a compile; nothing waits for it.
    """
    leave_when_interrupted()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no failure
    from nxcc.cli import main
    status = main()
    pass_over_interrupts()
    if sys.getprofile() or sys.gettrace():
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            continue
    os._exit(status)


if __name__ == "__main__":
    entry()
