"""Every opcode that the vendor's compiler for v2 takes: its code looked at (golden), and its results compared in each dtype."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nxcc.backends.capability.support import device_dtypes
from nxcc.backends.target import load_target
from nxcc.compiler.reports.operator_forms import EXPANDED, FORMS
from nxcc.compiler.reports.operator_support import DEVICE, form_of, support_rows
from nxcc.ir.dtypes import F32
from nxcc.ir.hlo.text.writer import write_text

from harness.forms import LOWERED
from harness.inputs import small_value
from harness.whole import check_whole

TESTS = Path(__file__).parents[1]
GOLDEN = TESTS / "golden"
TARGET = load_target("v2")
STATUS = dict(line.split() for line in (TESTS / "data" / "opcodes_v2.txt").read_text().splitlines() if line[0] != "#")
TAKEN = sorted(opcode for opcode, status in STATUS.items() if status in ("yes", "limited", "meta"))
"""What the vendor's compiler takes, at least in some forms."""
HOST = {"complex": "makes complex numbers, which the device has not"}
"""Opcodes of these that run on the host."""

BATCH_NORM, COLLECTIVE = "expand-batch-norm", "expand-collectives"
WRITTEN_BY = {
    **{opcode: BATCH_NORM for opcode in EXPANDED if opcode.startswith("batch-norm")},
    **{opcode: COLLECTIVE for opcode in EXPANDED if opcode.startswith(("all-", "collective-", "reduce-scatter"))},
    "rng": "expand-random",
}
"""The pass that writes an opcode in others, whose golden texts show how."""


def golden(opcode: str) -> bool:
    """Whether a file shows what becomes of the opcode: a tile program, a machine program, or what a pass makes of it."""
    if opcode in WRITTEN_BY:
        return any(f" {opcode}(" in path.read_text() for path in (GOLDEN / "passes" / WRITTEN_BY[opcode]).glob("*.hlo"))
    return any((GOLDEN / folder / f"{opcode}.txt").exists() for folder in ("lowering", "structure"))


@pytest.mark.parametrize("opcode", TAKEN)
def test_its_code_was_looked_at_and_it_is_placed_on_the_device(opcode: str) -> None:
    if opcode in HOST:
        return
    assert golden(opcode)
    row = next(row for row in support_rows("v2") if row["opcode"] == opcode)
    assert row["placement"] == DEVICE


@pytest.mark.parametrize("opcode", [opcode for opcode in TAKEN if opcode in FORMS and opcode not in LOWERED])
def test_its_results_in_each_dtype(opcode: str) -> None:
    """What is no region of its own; `test_operator_forms` has the others."""
    tried = 0
    for dtype in device_dtypes(TARGET) if "T[" in FORMS[opcode] else (F32,):
        instruction = form_of(opcode, dtype)
        if instruction is None:
            continue
        assert instruction.parent is not None and instruction.parent.parent is not None
        module = instruction.parent.parent
        values = [small_value(parameter.shape, np.random.default_rng(0)) for parameter in module.entry.parameters]
        check_whole(write_text(module), values, levels=("0", "2"))
        tried += 1
    assert tried
