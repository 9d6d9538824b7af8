"""The steps that a case goes through, one after another, and the class that it ends in.

A case either passes, or is in exactly one class: the worst of what its steps found.
"""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from nxcc.ir.diagnostics import INTERNAL, NEFF_INVALID, PROGRAM_INVALID, CompileError

PASSED, REJECTED, SLOW, INTERNAL_ERROR, WRONG = "passed", "rejected", "too slow", "internal error", "wrong result"
CLASSES = (PASSED, REJECTED, SLOW, INTERNAL_ERROR, WRONG)
"""From best to worst."""


class TooSlow(BaseException):
    """The case's time is over; no CompileError, and no Exception, so that nothing catches it on the way."""


@dataclass
class Failure:
    """What a step found. cause: what failures are grouped by. code: of a CompileError."""

    step: str
    kind: str
    cause: str
    detail: str = ""
    code: str = ""


@dataclass
class WalkOutcome:
    """What a case went through. steps: name -> passed, for the steps that ran.

    expected: the class in which the case ends elsewhere too, and which then does not count.
    """

    source: str
    name: str
    family: str
    scored: bool
    expected: str
    steps: dict[str, bool] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """The one class of the case."""
        return max((f.kind for f in self.failures), key=CLASSES.index, default=PASSED)


class Stopped(Exception):
    """A step failed, and what depends on it cannot run."""


class Differs(Exception):
    """A result or a round trip is not what it must be."""


O = TypeVar("O", bound=WalkOutcome)  # noqa: E741


class Walk(Generic[O]):
    """Runs steps and keeps what they find; `steps` says which."""

    def __init__(self, outcome: O) -> None:
        self.outcome = outcome
        self.step = ""

    faults: tuple[str, ...] = ("machine",)
    """First words of steps where a refusal is a fault of ours: what the compiler wrote must load and run."""

    def steps(self) -> None:
        raise NotImplementedError

    def run(self) -> O:
        """The outcome; whatever goes wrong is in it."""
        try:
            self.steps()
        except Stopped:
            pass
        except TooSlow:
            self.fail(self.step, SLOW, f"too slow in {self.step}", "")
        return self.outcome

    @contextmanager
    def optional(self) -> Iterator[None]:
        """What follows goes on though a step in here failed."""
        with suppress(Stopped):
            yield

    def do(self, step: str, action: Callable[[], Any]) -> Any:
        """Run a step; what it raises becomes a failure, and then Stopped."""
        self.step = step
        start = time.perf_counter()
        try:
            found = action()
        except CompileError as error:
            self._refused(step, error)
        except Differs as error:
            self.fail(step, WRONG, f"{step.partition(' ')[0]}: {cause_words(str(error))}", str(error))
        except MemoryError:
            self.fail(step, SLOW, f"needs too much memory in {step}", "")
        except Exception as error:  # noqa: BLE001  whatever else comes out is a fault of ours, and is what this looks for
            self.fail(step, INTERNAL_ERROR, *described(error))
        else:
            self.outcome.steps[step] = True
            return found
        finally:
            self.outcome.seconds[step] = time.perf_counter() - start
        raise Stopped

    def _refused(self, step: str, error: CompileError) -> None:
        ours = step.startswith(self.faults) or error.code in (INTERNAL, PROGRAM_INVALID, NEFF_INVALID)
        words = f"{error.code.name}: {error.what}{': ' + error.why if error.why else ''}"
        self.fail(step, INTERNAL_ERROR if ours else REJECTED, cause_words(words), str(error), error.code.name)

    def fail(self, step: str, kind: str, cause: str, detail: str, code: str = "") -> None:
        """Note that a step failed."""
        self.outcome.steps[step] = False
        self.outcome.failures.append(Failure(step, kind, cause, detail[:500], code))


def described(error: Exception) -> tuple[str, str]:
    """Cause and detail of a fault: its type and the innermost line of nxcc."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/tests/" not in f.filename]
    ours = [f for f in frames if any(part in f.filename for part in ("/ir/", "/passes/", "/backends/", "/compiler/", "/neff/"))]
    places = [f"{'/'.join(f.filename.split('/')[-2:])}:{f.lineno}" for f in (ours or frames)[-3:]]
    message = str(error).split("\n")[0]
    cause = f"{type(error).__name__} at {places[-1] if places else '?'}: {cause_words(message)}"
    return cause, f"{message} via {' > '.join(places)}"


def cause_words(words: str) -> str:
    """A message without names and numbers, so that equal causes have equal words."""
    words = re.sub(r"'[^']*'|\"[^\"]*\"|%[\w.\-]+", "_", words)
    words = re.sub(r"\b\w+\[[\d,<=]*\](\{[^}]*\})?", "SHAPE", words)
    words = re.sub(r"[\w\-]+\.\d+\b", "_", words)
    return re.sub(r"-?\d[\d.e+\-]*", "N", words)[:160]

