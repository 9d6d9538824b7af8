"""Fusions that are programs of their own: of rows, chains of those, images, recurrences. Any other dissolves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nxcc.backends.lowering.images.program import channels_last, image_order, lower_image_program
from nxcc.backends.lowering.registry import rule
from nxcc.backends.lowering.rows.chain import lower_row_chain, members_together
from nxcc.backends.lowering.rows.region import lower_row_program, rows_together, runs_along
from nxcc.backends.lowering.scanprogram import lower_scan_program, steps_last
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import View
from nxcc.ir.hlo.marks import is_image_program, is_row_chain, is_row_program, is_scan_program
from nxcc.ir.hlo.module import Instruction

_PROGRAMS = {is_row_program: lower_row_program, is_row_chain: lower_row_chain, is_image_program: lower_image_program,
             is_scan_program: lower_scan_program}
_LIES = {is_row_program: rows_together, is_row_chain: members_together, is_image_program: channels_last,
         is_scan_program: steps_last}


def is_program(instruction: Instruction) -> bool:
    """Whether a fusion is lowered as a whole."""
    return any(is_one(instruction) for is_one in _PROGRAMS)


def has_products(instruction: Instruction) -> bool:
    """Whether it is a program of rows that multiplies, alone or in a chain."""
    if not (is_row_program(instruction) or is_row_chain(instruction)):
        return False
    inside = list(instruction.called[0].post_order())
    return any(one.opcode == "dot" or one.opcode == "fusion" and has_products(one) for one in inside)


def _order(instruction: Instruction) -> Sequence[int] | None:
    return image_order(instruction) if is_image_program(instruction) else None


def _lies(instruction: Instruction, operands: Sequence[View | None]) -> Iterable[tuple[int, Sequence[int]]]:
    lies = next(rule for is_one, rule in _LIES.items() if is_one(instruction))
    return lies(instruction, operands)


def _follows(instruction: Instruction, order: Sequence[int]) -> bool:
    if is_row_chain(instruction):
        return next((d for d in reversed(order) if instruction.shape.dims[d] > 1), 0) == instruction.shape.rank - 1
    if is_scan_program(instruction):
        return False
    return is_image_program(instruction) or runs_along(instruction, order)


@rule("fusion", follows=_follows, order=_order, lies=_lies)
def lower_fusion(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Write the tile program of a fused region."""
    lower = next(lower for is_one, lower in _PROGRAMS.items() if is_one(instruction))
    lower(kernel, instruction, operands, results)
