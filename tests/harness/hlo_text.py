"""Modules written as HLO text, for tests: read, verified, and run by the oracle."""

from __future__ import annotations

from typing import Any

from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.oracle import evaluate
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.verifier import verify

SCALARS = """
add_f32 { a = f32[] parameter(0) b = f32[] parameter(1) ROOT r = f32[] add(a, b) }
max_f32 { a = f32[] parameter(0) b = f32[] parameter(1) ROOT r = f32[] maximum(a, b) }
add_s32 { a = s32[] parameter(0) b = s32[] parameter(1) ROOT r = s32[] add(a, b) }
last_f32 { a = f32[] parameter(0) ROOT b = f32[] parameter(1) }
"""
"""Combiners that many tests call."""


def module_of(entry: str, computations: str = "") -> Module:
    """A module whose entry has these lines; SCALARS and `computations` stand before it."""
    return read_text(f"HloModule test\n{SCALARS}\n{computations}\nENTRY main {{\n{entry}\n}}\n")


def value_of(entry: str, *inputs: Any, computations: str = "") -> Any:
    """The verified entry's value for these inputs."""
    module = module_of(entry, computations)
    verify(module)
    return evaluate(module, list(inputs))
