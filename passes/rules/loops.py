"""What a loop gives is known where it only hands a value on, or only counts; a loop that nobody reads goes."""

from __future__ import annotations

from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction
from nxcc.passes.effects import has_side_effect
from nxcc.passes.loops.counted_loops import counted, element_of
from nxcc.passes.rewriting import Rule


def _element(instruction: Instruction, builder: Builder) -> Instruction | None:
    loop = instruction.operands[0]
    if loop.opcode != "while" or loop.control_predecessors:
        return None
    return _after(loop, int(instruction.attribute("index")), builder)


def _loop(instruction: Instruction, builder: Builder) -> Instruction | None:
    """A loop of which all elements are known."""
    count = len(instruction.shape.elements)
    if not count or has_side_effect(instruction):
        return None
    found = [_after(instruction, index, builder) for index in range(count)]
    known = [value for value in found if value is not None]
    return builder.tuple(*known) if len(known) == count else None


def _after(loop: Instruction, index: int, builder: Builder) -> Instruction | None:
    """An element of a loop's result, without the loop."""
    body, start = loop.called[0], loop.operands[0]
    if body.root.opcode == "tuple" and element_of(body.root.operands[index], body) == index:
        return start.operands[index] if start.opcode == "tuple" else builder.get_tuple_element(start, index)
    count = counted(loop)
    return builder.splat(count.dtype, (), count.last) if count is not None and count.index == index else None


RULES = (
    Rule("element-of-loop", ("get-tuple-element",), _element),
    Rule("loop-of-known-elements", ("while",), _loop),
)
