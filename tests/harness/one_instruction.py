"""Evaluate one operator on given values, through its own declaration, for tests of meaning."""

from __future__ import annotations

from typing import Any

import numpy as np

from nxcc.ir.dtypes import from_numpy
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.hlo.oracle import Value, evaluate_instruction
from nxcc.ir.shapes import Shape, tuple_of


def shape_of(value: Value) -> Shape:
    """The shape of a value: an array, or a tuple of values."""
    if isinstance(value, tuple):
        return tuple_of(*map(shape_of, value))
    return Shape(from_numpy(value.dtype), value.shape)


def instruction_on(opcode: str, *shapes: Shape, config: bytes = b"", **options: Any) -> Instruction:
    """One instruction over parameters of these shapes; options as Builder.make, config is the backend_config."""
    builder = Builder(Computation("test"))
    operands = [builder.parameter(number, shape) for number, shape in enumerate(shapes)]
    made = builder.make(opcode, *operands, **options)
    made.backend_config = config
    return made


def result_of(opcode: str, *values: Any, config: bytes = b"", **options: Any) -> Value:
    """The operator's value for these arrays; its check and the inferred shape are held to it."""
    arrays = [value if isinstance(value, tuple) else np.asarray(value) for value in values]
    made = instruction_on(opcode, *map(shape_of, arrays), config=config, **options)
    if made.operator.check is not None:
        made.operator.check(made)
    result = evaluate_instruction(made, arrays)
    assert shape_of(result) == made.shape
    return result
