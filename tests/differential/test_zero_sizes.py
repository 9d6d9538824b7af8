"""Each operator's small form with one size made zero: nothing to compute, or nothing to reduce, is no reason to fail."""

from __future__ import annotations

import re

import numpy as np
import pytest

from nxcc.compiler.reports.operator_forms import FORMS
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.text.writer import write_text
from nxcc.ir.hlo.verifier import verify

from harness.inputs import small_value
from harness.whole import check_whole

SIZES = ("6", "9", "4", "5", "2")


def emptied(form: str, size: str, dtype: str) -> Module | None:
    """The form with every dimension of this size empty; None where that is not valid HLO or changes nothing."""
    def dims(match: re.Match[str]) -> str:
        return f"[{','.join('0' if word == size else word for word in match[1].split(','))}]"

    text = re.sub(r"\[([\d,]*)\]", dims, form)
    try:
        module = read_text("r = " + re.sub(r"\bT\[", f"{dtype}[", text))
        verify(module)
    except CompileError:
        return None
    return module if text != form else None


@pytest.mark.parametrize("opcode", sorted(FORMS))
def test_nothing_is_computed_without_a_fault(opcode: str) -> None:
    for size in SIZES:
        for dtype in ("f32", "u16"):
            module = emptied(FORMS[opcode], size, dtype)
            if module is not None:
                values = [small_value(parameter.shape, np.random.default_rng(0)) for parameter in module.entry.parameters]
                check_whole(write_text(module), values, levels=("0", "2"))
