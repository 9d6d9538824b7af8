"""The tile program of each operator's small form, as it was when somebody last looked at it and found it good."""

from __future__ import annotations

from pathlib import Path

import pytest

from nxcc.backends.isa.program import Memory
from nxcc.backends.lowering.registry import rules
from nxcc.backends.target import load_target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr
from nxcc.backends.tile.program import View, contiguous
from nxcc.backends.tile.text import program_lines
from nxcc.compiler.reports.operator_forms import FORMS
from nxcc.compiler.reports.operator_support import form_of
from nxcc.ir.dtypes import F32, S32, DType
from nxcc.ir.hlo.module import Instruction

from harness.forms import LOWERED

FOLDER = Path(__file__).parent / "lowering"
LINES_MAX = 200
"""Lines that are kept of a long program."""


def lowered(instruction: Instruction) -> str:
    """The instruction, and what its rule writes at level 0 for operands and results at 0x10000, 0x20000, ..."""
    kernel = Kernel(instruction.opcode, load_target("v2"))
    shapes = [leaf for operand in instruction.operands for leaf in operand.shape.leaves()]
    shapes += instruction.shape.leaves()
    views = [View(Memory.HBM, leaf.dtype, Expr((n + 1) << 16), contiguous(leaf.dims, leaf.dtype.byte_size))
             for n, leaf in enumerate(shapes)]
    count = len(views) - len(list(instruction.shape.leaves()))
    rules()[instruction.opcode].lower(kernel, instruction, views[:count], views[count:])
    lines = list(program_lines(kernel.program))
    if len(lines) > LINES_MAX:
        lines = [*lines[:LINES_MAX], f"... {len(lines) - LINES_MAX} more"]
    return "\n".join([f"// {instruction}", *lines]) + "\n"


def dtype_of(opcode: str) -> DType:
    """f32 where the operator takes it."""
    return F32 if form_of(opcode, F32) is not None else S32


@pytest.mark.parametrize("opcode", LOWERED)
def test_lowering(opcode: str, request: pytest.FixtureRequest) -> None:
    instruction = form_of(opcode, dtype_of(opcode))
    assert instruction is not None
    found, path = lowered(instruction), FOLDER / f"{opcode}.txt"
    if request.config.getoption("--update-golden"):
        path.write_text(found)
    assert path.exists(), f"{path} is missing; --update-golden writes it"
    assert path.read_text() == found


def test_each_operator_has_a_form() -> None:
    assert set(rules()) <= set(FORMS)
