"""Whether the device can run an instruction, and if not, why: asked by the partition and printed by list-operators."""

from __future__ import annotations

from nxcc.backends.capability.refusal import is_complete, refusal
from nxcc.backends.codegen.control import STRUCTURAL
from nxcc.backends.codegen.structure import structure_of
from nxcc.backends.isa.program import Memory
from nxcc.backends.lowering.pointwise.formulas import emits
from nxcc.backends.lowering.registry import rules
from nxcc.backends.lowering.views import VIEW_OPCODES, as_view
from nxcc.backends.target import Target
from nxcc.backends.tile.expressions import Expr
from nxcc.backends.tile.program import View, contiguous
from nxcc.ir.dtypes import DType
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.shapes import Shape


def unsupported(instruction: Instruction, target: Target) -> str | None:
    """None if the device can run the instruction, with all that it calls; else the reason in words."""
    reason = _own_reason(instruction, target)
    if reason is not None or instruction.opcode not in _FLOW:
        return reason
    for computation in instruction.called:
        for inner in computation.instructions:
            inside = unsupported(inner, target)
            if inside is not None:
                return f"{inner.name} inside {computation.name}: {inside}"
    return None


_FLOW = ("call", "fusion", "while", "conditional")

BRANCHES = {"while": "only loops whose count is known, and small, are written out",
            "conditional": "only one whose selector is known dissolves"}
"""Opcodes that branch on data, and what becomes of the others on a target without branches."""


def _own_reason(instruction: Instruction, target: Target) -> str | None:
    for shape in (instruction.shape, *(operand.shape for operand in instruction.operands)):
        reason = _shape_reason(shape, target)
        if reason is not None:
            return reason
    opcode = instruction.opcode
    if opcode in BRANCHES and not target.features.control_flow:
        return f"{target.name} has no branches; {BRANCHES[opcode]}"
    if opcode in STRUCTURAL:
        return None
    rule = rules().get(opcode)
    if rule is not None:
        reason = rule.unsupported(instruction, target) if rule.unsupported else None
        if reason is not None or is_complete(target) or _is_view(instruction) or is_written_for_any_target(opcode):
            return reason
        return refusal(rule, instruction, structure_of(instruction), target)
    if opcode in VIEW_OPCODES and all(o.shape.is_array for o in instruction.operands):
        return None if _is_view(instruction) else f"this {opcode} moves data between layouts"
    if instruction.operator.defaults.keys() & {"replica_groups", "source_target_pairs"}:
        return f"{opcode} takes the data of several devices: it can be compiled, but not run on one"
    return f"{opcode} has no lowering for {target.name}"


def is_written_for_any_target(opcode: str) -> bool:
    """Whether an operator's code asks of a target no more than its rule says: formulas take the engines that there are. Others
    are tried."""
    return opcode in emits() and opcode != "copy"


def _is_view(instruction: Instruction) -> bool:
    """Whether the result is another view of an operand, so that no code is written for it."""
    if not all(o.shape.is_array for o in instruction.operands):
        return False
    views = [View(Memory.HBM, o.shape.dtype, Expr(), contiguous(o.shape.dims, o.shape.dtype.byte_size))
             for o in instruction.operands]
    return as_view(instruction, views) is not None


def _shape_reason(shape: Shape, target: Target) -> str | None:
    if not shape.dynamic and shape.dtype in device_dtypes(target):
        return None
    for leaf in shape.leaves():
        if leaf.dynamic:
            return f"{leaf} has a dynamic dimension"
        if leaf.dtype not in device_dtypes(target):
            return f"{leaf.dtype} is not a dtype of {target.name}"
    return None


def device_dtypes(target: Target) -> tuple[DType, ...]:
    """Element types that values may have in the target's memory."""
    return target.dma.dtypes
