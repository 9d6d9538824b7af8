"""Orders: of a computation's instructions, of values in the arena, of a value's dimensions in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nxcc.backends.codegen.code import DeviceNode
from nxcc.backends.codegen.structure import SMALL_CONSTANT_BYTES
from nxcc.backends.lowering.registry import Rule
from nxcc.backends.lowering.views import VIEW_OPCODES
from nxcc.backends.tile.program import View
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.hlo.rowspace import is_elementwise
from nxcc.ir.literals import Literal

LITTLE_BYTES = 1 << 16
"""Bytes that a region reads and writes at most to run before all others if it waits for none of them."""


def order_of_use(nodes: Sequence[DeviceNode]) -> Iterator[str | Literal]:
    """Names and large constants that nodes read, and names that they write, in the order in which code does."""
    for node in nodes:
        entry = node.module.entry
        names = dict(zip(entry.parameters, node.inputs, strict=True))
        root = entry.root
        results = root.operands if root.opcode == "tuple" else (root,)
        written: dict[Instruction, list[str]] = {}
        for result, name in zip(results, node.outputs, strict=False):
            written.setdefault(result, []).append(name)
        for instruction in entry.post_order():
            for operand in instruction.operands:
                if operand in names:
                    yield names[operand]
                elif operand.opcode == "constant" and _is_large(operand.attributes["literal"]):
                    yield operand.attributes["literal"]
            yield from written.get(instruction, ())


def _is_large(literal: Literal) -> bool:
    return not literal.shape.is_tuple and literal.shape.byte_size > SMALL_CONSTANT_BYTES and not literal.is_splat


def needed(computation: Computation, order: Sequence[Instruction]) -> set[Instruction]:
    """Instructions that the root depends on; on the device nothing has side effects."""
    found = {computation.root}
    for instruction in reversed(order):
        if instruction in found:
            found.update(instruction.operands)
    return found


def in_order(order: Sequence[Instruction], early: bool) -> list[Instruction]:
    """Parameters and their tuple elements first, so that the tuple as a whole holds no element longer than needed.

    early: then little regions that wait for nothing, such as a mask made of an input. Where they are first read they would run
    between two large ones, and the weights of the second are loaded while the first works only if they follow each other.
    """
    ranks: dict[Instruction, int] = {}
    for instruction in order:
        if instruction.opcode == "parameter":
            ranks[instruction] = 0
        elif instruction.opcode == "get-tuple-element" and instruction.operands[0].opcode == "parameter":
            ranks[instruction] = 1
        else:
            little = early and _is_little(instruction) and all(ranks[o] < 3 for o in instruction.operands)
            ranks[instruction] = 2 if little else 3
    return sorted(order, key=ranks.__getitem__)


def _is_little(instruction: Instruction) -> bool:
    """Whether an instruction moves next to nothing: a fused region, or what is free."""
    if instruction.opcode != "fusion" and instruction.opcode not in _NO_CODE:
        return False
    values = (instruction, *instruction.operands)
    return all(v.shape.is_array for v in values) and sum(v.shape.byte_size for v in values) <= LITTLE_BYTES


def order_of_result(rule: Rule, instruction: Instruction, operands: Sequence[View]) -> Sequence[int] | None:
    """How a result lies in memory: as its rule says, or as an operand of its dimensions whose order suits it."""
    order = rule.order(instruction) if rule.order is not None else None
    if order is not None:
        return order
    if rule.follows is None:
        return None
    for operand in operands:
        dims = operand.dims
        alike = len(dims) == instruction.shape.rank if rule.resizes else operand.sizes == instruction.shape.dims
        if alike and all(stride > 0 for stride, size in dims if size > 1):
            order = sorted(range(len(dims)), key=lambda d: (-dims[d][0] if dims[d][1] > 1 else 0, d))
            if rule.follows(instruction, order):
                return order
    return None


_NO_CODE = frozenset(("parameter", "constant", "tuple", "get-tuple-element")) | VIEW_OPCODES


def works_alone(entry: Computation) -> bool:
    """Whether one region has all the work, but for conversions of what it reads and elementwise work on what it makes."""
    regions = [instruction for instruction in entry.post_order() if instruction.opcode not in _NO_CODE]
    return len(regions) == 1 or sum(not is_elementwise(region) for region in regions) == 1
