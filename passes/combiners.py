"""Computations that passes call: the plain combiners of reductions."""

from __future__ import annotations

from nxcc.ir.dtypes import DType
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.combiners import plain_opcode
from nxcc.ir.hlo.module import Computation, Module
from nxcc.ir.shapes import Shape


def combiner(module: Module, opcode: str, dtype: DType, builder: Builder) -> Computation:
    """A computation of the module that is this operator on two scalars; made in front of all others if there is none."""
    for found in module.computations:
        if found.root.shape == Shape(dtype) and not found.is_fusion and plain_opcode(found) == opcode:
            return found
    made = Computation(builder.names.of_computation(f"{opcode}_{dtype}"))
    made.parent = module
    module.computations.insert(0, made)
    inner = builder.within(made)
    left, right = (inner.parameter(n, Shape(dtype), inner.unique_name(name)) for n, name in enumerate(("left", "right")))
    made.root = inner.make(opcode, left, right)
    return made
