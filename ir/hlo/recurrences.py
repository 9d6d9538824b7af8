"""The linear recurrence h' = a * h + b as the body of a scan: made by passes, recognised by backends."""

from __future__ import annotations

from nxcc.ir.dtypes import F32
from nxcc.ir.hlo.builder import Builder, Names
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.shapes import Shape

NAME = "recurrence"


def recurrence_body(module: Module, shape: Shape, names: Names) -> Computation:
    """A body (a, b, h) -> (h', h') with h' = a * h + b, all of `shape`; names: of the module."""
    computation = Computation(names.of_computation(NAME))
    module.computations.insert(module.computations.index(module.entry), computation)
    computation.parent = module
    builder = Builder(computation, names=names)
    a, b, h = (builder.parameter(number, Shape(shape.dtype, shape.dims)) for number in range(3))
    after = builder.make("add", builder.make("multiply", a, h), b)
    computation.root = builder.tuple(after, after)
    return computation


def is_linear_recurrence(scan: Instruction) -> bool:
    """Whether a scan is h' = a * h + b in f32, with every h' as its array and the last one as its carry."""
    body = scan.called[0]
    if len(scan.operands) != 3 or scan.attribute("num_carries") != 1 or body.root.opcode != "tuple":
        return False
    if len(body.root.operands) != 2 or body.root.operands[0] is not body.root.operands[1]:
        return False
    after = body.root.operands[0]
    a, b, h = body.parameters
    if after.opcode != "add" or after.shape.dtype is not F32:
        return False
    products = [o for o in after.operands if o is not b]
    return len(products) == 1 and products[0].opcode == "multiply" and set(products[0].operands) == {a, h}
