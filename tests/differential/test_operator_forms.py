"""Each operator's small form on the device against the oracle, in every element type that the device takes it in."""

from __future__ import annotations

import pytest

from nxcc.backends.capability.support import device_dtypes, unsupported
from nxcc.backends.target import load_target
from nxcc.compiler.reports.operator_forms import EXPANDED, FORMS
from nxcc.compiler.reports.operator_support import form_of
from nxcc.ir.dtypes import F32
from nxcc.ir.hlo.text.writer import write_text

from harness.device import check_module
from harness.forms import LOWERED
from harness.whole import check_whole

TARGET = load_target("v2")
LOOSE = {"power": 2.0**-15, "convolution": 2.0**-13, "dot": 2.0**-13, "stochastic-convert": 1.0}
"""Relative tolerances in f32: powers by GpSimd; sums that cancel; what is rounded at random."""


@pytest.mark.parametrize("opcode", LOWERED)
def test_operator_in_each_dtype(opcode: str) -> None:
    tried = 0
    for dtype in device_dtypes(TARGET) if "T[" in FORMS[opcode] else (F32,):
        instruction = form_of(opcode, dtype)
        if instruction is None or unsupported(instruction, TARGET) is not None:
            continue
        assert instruction.parent is not None and instruction.parent.parent is not None
        check_module(instruction.parent.parent, tolerance=LOOSE.get(opcode) if dtype is F32 else None)
        tried += 1
    assert tried


@pytest.mark.parametrize("opcode", sorted(set(FORMS) & (set(EXPANDED) | {"call", "fusion", "conditional"})))
def test_operator_that_dissolves(opcode: str) -> None:
    instruction = form_of(opcode, F32)
    assert instruction is not None and instruction.parent is not None and instruction.parent.parent is not None
    check_whole(write_text(instruction.parent.parent), levels=("0", "1"))
