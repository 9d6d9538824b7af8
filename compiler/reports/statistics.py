"""Counts over a module: multiply-accumulates, bytes in and out; for hlo_stats.json and the reports."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nxcc.compiler.interface.parameters import WEIGHT, Tensor
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.neff.members import Statistics


def module_statistics(module: Module, tensors: Sequence[Tensor]) -> Statistics:
    """What one call of the module does; a loop's body counts once, since its trip count may depend on data."""
    instructions = [i for computation in module.reachable() for i in computation.instructions]
    macs = sum(multiply_accumulates(i) for i in instructions)
    constants = sum(i.shape.byte_size for i in module.entry.instructions if i.opcode == "constant")
    declared = sum(t.shape.byte_size for t in tensors if t.role == WEIGHT)
    taken = sum(t.shape.byte_size for t in tensors if t.role != WEIGHT)
    other = sum(i.shape.element_count for i in instructions if i.operator.elementwise and i.shape.is_array)
    return Statistics(macs, 2 * macs + other, taken, module.entry.root.shape.byte_size, constants + declared, len(instructions))


def multiply_accumulates(instruction: Instruction) -> int:
    """Multiply-accumulates of a dot or convolution, padding and dilation counted as if they were data; 0 for others."""
    if instruction.opcode == "dot":
        contracted = instruction.attribute("lhs_contracting_dims")
        dims = instruction.operands[0].shape.dims
        return instruction.shape.element_count * math.prod([dims[int(d)] for d in contracted])
    if instruction.opcode == "convolution":
        labels = instruction.attribute("dim_labels")
        kernel = instruction.operands[1].shape
        features = kernel.dims[int(labels.kernel_output_feature)]
        return instruction.shape.element_count * kernel.element_count // max(features, 1)
    return 0
