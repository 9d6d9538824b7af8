"""Each pass by itself: whatever it is given, it leaves a module that the verifier takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nxcc.backends.target import load_target
from nxcc.compiler.debugging.trial import AGREES, BROKEN, REFUSED, Verdict
from nxcc.compiler.driver import pass_settings
from nxcc.compiler.options import CompileOptions
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import clone_module
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.verifier import verify
from nxcc.passes.pipeline import run_pipeline


class InvalidModule(Exception):
    """What a pass left is no module; the text says which pass, and why."""


def run_verified(module: Module, options: CompileOptions) -> None:
    """All passes on a module, in place; InvalidModule names the first that breaks it."""
    def observe(name: str, found: Module, changed: bool) -> bool:
        try:
            verify(found)
        except CompileError as error:
            raise InvalidModule(f"{name}: {error}") from None
        return True

    run_pipeline(module, pass_settings(options, load_target(options.target)), observe=observe)


@dataclass(frozen=True)
class PassTrial:
    """A judge of random modules (see nxcc.compiler.debugging.trial.Trial) that looks behind each pass."""

    options: CompileOptions

    def judge(self, module: Module, inputs: Sequence[Any]) -> Verdict:
        try:
            run_verified(clone_module(module), self.options)
        except CompileError as error:
            return Verdict(REFUSED, error.code.name, str(error))
        except InvalidModule as error:
            return Verdict(BROKEN, f"invalid after {str(error).partition(':')[0]}", str(error))
        return Verdict(AGREES)
