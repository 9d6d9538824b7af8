"""Scalar engine: func(in * scale + bias), with an optional running sum along the free dimensions."""

from nxcc.backends.isa.program import Engine, FieldKind, FieldSpec, OperandSpec, instruction
from nxcc.ir.dtypes import F32

ACTIVATIONS = ("copy", "square", "abs", "sign", "relu", "exp", "log", "sqrt", "rsqrt", "reciprocal", "sigmoid", "tanh",
               "gelu", "gelu_apprx_tanh", "gelu_apprx_sigmoid", "silu", "softplus", "mish", "erf", "sin", "arctan")
"""Functions of hardware model 2.6; their valid input ranges are declared with the simulator's semantics."""

ACTIVATION = instruction(
    "activation", 0x10, Engine.SCALAR,
    (OperandSpec("data", "r"), OperandSpec("out", "w"), OperandSpec("scale_tensor", "r", dtypes=(F32,), optional=True),
     OperandSpec("bias", "r", optional=True), OperandSpec("sum", "w", dtypes=(F32,), optional=True)),
    (FieldSpec("function", FieldKind.ENUM, ACTIVATIONS), FieldSpec("scale", FieldKind.FLOAT, default=1.0)),
    meaning="out = function(data * scale + bias), computed in f32. scale: immediate, or scale_tensor [P, 1]; bias: [P, 1]. "
            "sum: [P, 1], the sum of the results over the free dimensions.")
