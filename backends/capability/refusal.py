"""Whether a rule's code is legal on a target: it is written, held against the machine's rules, and thrown away.

Rules are written for a core with all engines, registers and casts in transfers. On one that lacks some of them, this finds
out what an instruction's code would need, whichever rule wrote it; on a complete one there is nothing to ask.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nxcc.backends.assembly import assemble, plan_of
from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.isa.rules import CONTROL_FLOW, REGISTER_INSTRUCTIONS, breaches
from nxcc.backends.lowering.registry import Rule
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr
from nxcc.backends.tile.program import Loop, ScalarLoad, Statement, View, contiguous
from nxcc.ir.diagnostics import LIMIT_EXCEEDED, OUT_OF_MEMORY, UNSUPPORTED, CompileError
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.shapes import Shape

UNROLLED = frozenset((*CONTROL_FLOW, *REGISTER_INSTRUCTIONS))
"""Instructions that are gone once a program is unrolled."""

_found: dict[Any, str | None] = {}


def is_complete(target: Target) -> bool:
    """Whether the target has all that rules may use, so that there is nothing to refuse."""
    return target.features.registers and len(target.engines) == len(Engine)


def refusal(rule: Rule, instruction: Instruction, key: Any, target: Target) -> str | None:
    """Why the target cannot run the code that the rule writes for an instruction; None if it can.

    key: equal for instructions whose code is the same but for addresses.
    """
    key = target.name, key, tuple(str(operand.shape) for operand in instruction.operands)
    if key not in _found:
        _found[key] = _refusal(rule, instruction, target)
    return _found[key]


def _refusal(rule: Rule, instruction: Instruction, target: Target) -> str | None:
    kernel = Kernel(instruction.opcode, target)
    operands = [view for operand in instruction.operands for view in _views(operand.shape)]
    results = list(_views(instruction.shape))
    if not any(view.elements for view in results):
        return None
    try:
        rule.lower(kernel, instruction, operands, results)
        if not target.features.registers and _reads_scalars(kernel.program.body):
            return f"it computes addresses from data, and {target.name} has no registers"
        function = assemble(kernel.program, target, plan_of(kernel.program, target, overlapped=False)).function
    except CompileError as error:
        if error.code not in (UNSUPPORTED, OUT_OF_MEMORY, LIMIT_EXCEEDED):
            raise
        return f"{error.what}; {error.why}" if error.why else error.what
    for engine, stream in function.streams.items():
        for one in stream:
            if one.spec.name not in UNROLLED:
                broken = next(breaches(one, engine, target), None)
                if broken is not None:
                    return f"its code is not legal on {target.name}: {one.spec.name}: {broken}"
    return None


def _views(shape: Shape) -> Iterable[View]:
    return (View(Memory.HBM, leaf.dtype, Expr(), contiguous(leaf.dims, leaf.dtype.byte_size)) for leaf in shape.leaves())


def _reads_scalars(statements: list[Statement]) -> bool:
    return any(isinstance(one, ScalarLoad) or isinstance(one, Loop) and _reads_scalars(one.body) for one in statements)
