"""Elementwise operators: one result element from the operands' elements at the same place."""

from nxcc.ir.hlo.attributes import (
    COMPARISON_TYPE,
    DIRECTION,
    EXPONENT_BITS,
    MANTISSA_BITS,
    OPTIONAL_DIMENSIONS,
    RESULT_ACCURACY,
)
from nxcc.ir.hlo.operator import operator

for _name in ("abs", "ceil", "count-leading-zeros", "floor", "imag", "is-finite", "negate", "not", "popcnt", "real",
              "round-nearest-afz", "round-nearest-even", "sign", "convert", "copy", "bitcast-convert"):
    operator(_name, 1, elementwise=_name != "bitcast-convert", identity=_name == "copy")
for _name in ("acos", "acosh", "asin", "asinh", "atanh", "cbrt", "cosh", "cosine", "erf", "exponential", "exponential-minus-one",
              "log", "log-plus-one", "logistic", "rsqrt", "sine", "sinh", "sqrt", "tan", "tanh"):
    operator(_name, 1, attributes=(RESULT_ACCURACY,), elementwise=True)
for _name in ("add", "and", "atan2", "complex", "divide", "maximum", "minimum", "mulhi", "multiply", "or", "power", "remainder",
              "shift-left", "shift-right-arithmetic", "shift-right-logical", "stochastic-convert", "subtract", "xor"):
    operator(_name, 2, elementwise=True, commutative=_name in ("add", "and", "maximum", "minimum", "mulhi", "multiply", "or", "xor"))
operator("compare", 2, attributes=(DIRECTION, COMPARISON_TYPE), elementwise=True)
operator("clamp", 3, elementwise=True)
operator("select", 3, elementwise=True)
operator("reduce-precision", 1, attributes=(EXPONENT_BITS, MANTISSA_BITS), elementwise=True)
operator("map", (0, None), attributes=(OPTIONAL_DIMENSIONS,), called=("to_apply",), calls_back=True)
