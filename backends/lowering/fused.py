"""Fusions that are programs of their own: of rows or of images. Any other fusion dissolves into its instructions."""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.backends.lowering.images import image_order, is_image_program, lower_image_program
from nxcc.backends.lowering.region import is_row_program, lower_row_program
from nxcc.backends.lowering.registry import rule
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import View
from nxcc.ir.hlo.module import Instruction


def is_program(instruction: Instruction) -> bool:
    """Whether a fusion is lowered as a whole."""
    return is_row_program(instruction) or is_image_program(instruction)


def _order(instruction: Instruction) -> Sequence[int] | None:
    return image_order(instruction) if is_image_program(instruction) else None


@rule("fusion", follows=True, order=_order)
def lower_fusion(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Write the tile program of a fused region."""
    lower = lower_image_program if is_image_program(instruction) else lower_row_program
    lower(kernel, instruction, operands, results)
