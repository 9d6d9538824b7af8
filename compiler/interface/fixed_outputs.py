"""Which outputs depend on no input: their values are fixed when the model is compiled, which is seldom meant."""

from __future__ import annotations

from collections.abc import Collection

from nxcc.compiler.interface.parameters import leaf_shapes
from nxcc.ir.hlo.module import Instruction, Module


def fixed_outputs(module: Module, inputs: Collection[int]) -> list[int]:
    """Numbers of the output leaves that no input reaches; none if there are no inputs, or if anything has side effects.

    inputs: numbers of the entry parameters that are neither weights nor constants. A tuple counts as one value, so an output
    that comes out of a loop or a call which an input enters is not named.
    """
    if not inputs or any(row.operator.side_effect for row in module.instructions()):
        return []
    entry = module.entry
    parameters = entry.parameters
    reached = {parameters[number] for number in inputs}
    for row in entry.post_order():
        if not reached.isdisjoint(row.operands):
            reached.add(row)
    return [k for k, leaf in enumerate(_leaves(entry.root)) if leaf not in reached]


def _leaves(root: Instruction) -> list[Instruction]:
    """For each array leaf of a result the instruction that makes it, as far as tuples are written out."""
    if root.operator.name == "tuple":
        return [leaf for operand in root.operands for leaf in _leaves(operand)]
    return [root] * len(leaf_shapes(root.shape))
