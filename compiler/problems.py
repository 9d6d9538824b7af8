"""Many problems as one error: the first one in full, the others behind it, so that a user sees all in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nxcc.ir.diagnostics import CompileError


def raise_problems(problems: Sequence[CompileError]) -> None:
    """Raise the first problem with the text of all the others as its details; nothing if there are none."""
    if problems:
        first = problems[0]
        others = tuple(str(problem) for problem in problems[1:])
        raise replace(first, details=(*first.details, *others))
