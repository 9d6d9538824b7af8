"""Give collectives the meaning that they have on one device.

Before:  r = f32[8] all-reduce(x), to_apply=add        i = u32[] replica-id()
After:   what read r reads x                           i = u32[] constant(0)

One replica and one partition: what is reduced or gathered over one device is the operand itself, scattered is its first part,
permuted without a source is zeros. What would need the data of other devices stays, for the host to refuse by name.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.ops.collective import group_size
from nxcc.passes.rewriting import settle


@dataclass(frozen=True)
class ExpandCollectives:
    name: str = "expand-collectives"

    def run(self, module: Module) -> bool:
        changed, names = False, Names(module)
        for computation in module.reachable():
            changed |= _expand(Builder(computation, names=names))
        return changed


def _expand(builder: Builder) -> bool:
    computation = builder.computation
    changed = False
    for instruction in list(computation.instructions):
        rule = _RULES.get(instruction.opcode)
        if rule is None:
            continue
        builder.location = instruction.location
        replacement = rule(instruction, builder)
        if replacement is not None:
            computation.replace(instruction, replacement)
            changed = True
    if changed:
        settle(computation)
    return changed


def _operands(instruction: Instruction, builder: Builder) -> Instruction | None:
    """The operands as they are, where the result has their shapes."""
    operands = instruction.operands
    if not operands:
        return None
    if len(operands) == 1:
        return operands[0] if operands[0].shape == instruction.shape else None
    same = instruction.shape.is_tuple and tuple(o.shape for o in operands) == instruction.shape.elements
    return builder.tuple(*operands) if same else None


def _first_part(instruction: Instruction, builder: Builder) -> Instruction | None:
    shapes = instruction.shape.elements if instruction.shape.is_tuple else (instruction.shape,)
    parts = [o if o.shape.dims == shape.dims else builder.slice(o, [0] * shape.rank, shape.dims)
             for o, shape in zip(instruction.operands, shapes, strict=True)]
    return parts[0] if len(parts) == 1 else builder.tuple(*parts)


def _exchanged(instruction: Instruction, builder: Builder) -> Instruction | None:
    alone = len(instruction.operands) == 1 and (group_size(instruction.attribute("replica_groups")) or 1) == 1
    return _operands(instruction, builder) if alone and instruction.attribute("dimensions") else None


def _permuted(instruction: Instruction, builder: Builder) -> Instruction | None:
    if len(instruction.operands) != 1 or instruction.operands[0].shape != instruction.shape or not instruction.shape.is_array:
        return None
    if (0, 0) in instruction.attribute("source_target_pairs"):
        return instruction.operands[0]
    return _zeros(instruction, builder)


def _zeros(instruction: Instruction, builder: Builder) -> Instruction:
    """Bytes of zero, which are 2^-127 in f8e8m0fnu."""
    dtype = instruction.shape.dtype
    return builder.splat(dtype, instruction.shape.dims, np.zeros((), dtype.numpy))


Meaning = Callable[[Instruction, Builder], Instruction | None]


def _done(meaning: Meaning) -> Meaning:
    """The end of an asynchronous pair: its start's operands, where the pair means just that."""

    def expand(instruction: Instruction, builder: Builder) -> Instruction | None:
        start = instruction.operands[0]
        if not start.opcode.endswith("-start"):
            return None
        if instruction.shape.is_tuple and meaning is _operands:
            same = tuple(o.shape for o in start.operands) == instruction.shape.elements
            return builder.tuple(*start.operands) if same else None
        if len(start.operands) != 1 or start.operands[0].shape != instruction.shape:
            return None
        if meaning is _permuted and (0, 0) not in start.attribute("source_target_pairs"):
            return _zeros(instruction, builder)
        return start.operands[0]

    return expand


def _zero(instruction: Instruction, builder: Builder) -> Instruction:
    return builder.constant(np.zeros((), np.uint32))


_RULES: dict[str, Meaning] = {
    "all-reduce": _operands,
    "all-gather": _operands,
    "collective-broadcast": _operands,
    "reduce-scatter": _first_part,
    "all-to-all": _exchanged,
    "collective-permute": _permuted,
    "all-reduce-done": _done(_operands),
    "all-gather-done": _done(_operands),
    "collective-permute-done": _done(_permuted),
    "replica-id": _zero,
    "partition-id": _zero,
}
