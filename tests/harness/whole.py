"""A module through the whole compiler and the simulator, held against the oracle, at every optimisation level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nxcc.compiler.debugging.trial import AGREES, Trial
from nxcc.compiler.options import CompileOptions
from nxcc.ir.hlo.builder import clone_module
from nxcc.ir.hlo.text.reader import read_text

from harness.device import random_inputs
from harness.passwise import run_verified


def check_whole(text: str, inputs: Sequence[Any] | None = None, levels: Sequence[str] = ("0", "1", "2"), *,
                strict: bool = False, target: str = "v2", relayout: str = "fast") -> None:
    """Assert that every pass leaves a valid module, and that the simulated NEFF and the oracle agree.

    inputs: by default small random values of array parameters. relayout: fast, so that small modules are turned as large ones
    are.
    """
    module = read_text(text)
    values = random_inputs(module) if inputs is None else inputs
    for level in levels:
        options = CompileOptions(optlevel=level, target=target, relayout=relayout)
        run_verified(clone_module(module), options)
        verdict = Trial(options, strict).judge(module, values)
        assert verdict.kind == AGREES, f"-O{level}: {verdict.text}"
