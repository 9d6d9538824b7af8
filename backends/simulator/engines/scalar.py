"""Scalar engine: activation functions of data * scale + bias, evaluated exactly to f32 rounding.

The error of the hardware's tables is not published, so functions are evaluated as well as f32 allows. Inputs outside the
documented range give wrong results on the machine: here an error in strict mode; in fast mode NaN where the machine's answer
would look plausible (sin, arctan), else the function's value.
Source of names and ranges: hardware model 2.6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nxcc.backends.isa.instructions import scalar as isa
from nxcc.backends.simulator.memory import Array, invalid
from nxcc.backends.simulator.numerics import immediate, narrow, widen
from nxcc.backends.simulator.operation import Kernel, Operation, Prepared, semantics
from nxcc.ir.dtypes import F32
from nxcc.ir.facts import dataclass

ONE = immediate(1.0)
HALF = immediate(0.5)
ZERO = immediate(0.0)

Evaluate = Callable[[Array, Array, Array], Any]
"""(x, out, work): out = function(x); work is of x's shape and overlaps neither; out may be x, so it is written last."""


def _unary(ufunc: Any) -> Evaluate:
    return lambda x, out, work: ufunc(x, out)


def _sigmoid_denominator(x: Array, work: Array, slope: Array) -> None:
    """work = 1 + exp(-slope * x)."""
    np.multiply(x, -slope, work)
    np.exp(work, work)
    np.add(work, ONE, work)


def _sigmoid(x: Array, out: Array, work: Array) -> None:
    _sigmoid_denominator(x, work, ONE)
    np.divide(ONE, work, out)


def _times_sigmoid(slope: float) -> Evaluate:
    factor = immediate(slope)

    def evaluate(x: Array, out: Array, work: Array) -> None:
        _sigmoid_denominator(x, work, factor)
        np.divide(x, work, out)
    return evaluate


def _rsqrt(x: Array, out: Array, work: Array) -> None:
    np.sqrt(x, work)
    np.divide(ONE, work, out)


ERF_BOUND = immediate(3.95)
"""From here on erf is 1 in f32."""
ERF_NUMERATOR = tuple(map(immediate, (1.12837914, 0.191540129, 0.0528738759, 3.80766325e-3, 2.8466662e-4, 2.02585906e-6)))
ERF_DENOMINATOR = tuple(map(immediate, (1.0, 0.503080698, 0.114555213, 0.0150540995, 1.17058636e-3, 3.78301819e-5)))
"""erf(x) / x as a quotient of polynomials in x * x, fitted here: 2e-8 off on the interval, 5e-7 when evaluated in f32.
Five times as fast as scipy's erf."""


def _polynomial(coefficients: tuple[Array, ...], x: Array, out: Array) -> None:
    np.multiply(x, coefficients[-1], out)
    for coefficient in coefficients[-2:0:-1]:
        np.add(out, coefficient, out)
        np.multiply(out, x, out)
    np.add(out, coefficients[0], out)


def _erf(x: Array, out: Array, work: Array) -> None:
    within, square = np.empty_like(work), np.empty_like(work)
    np.minimum(np.maximum(x, -ERF_BOUND, out=within), ERF_BOUND, out=within)
    np.multiply(within, within, square)
    _polynomial(ERF_NUMERATOR, square, work)
    np.multiply(within, work, within)
    _polynomial(ERF_DENOMINATOR, square, work)
    np.divide(within, work, within)
    np.minimum(np.maximum(within, -ONE, out=within), ONE, out=out)


def _gelu(x: Array, out: Array, work: Array) -> None:
    ratio = np.multiply(x, immediate(math.sqrt(0.5)))
    _erf(ratio, ratio, work)
    np.add(ratio, ONE, work)
    np.multiply(work, HALF, work)
    np.multiply(x, work, out)


def _gelu_tanh(x: Array, out: Array, work: Array) -> None:
    # 0.5 * (1 + tanh(u)) is sigmoid(2 u), which keeps its precision for negative u.
    np.multiply(x, x, work)
    np.multiply(work, immediate(-2 * 0.044715 * math.sqrt(2 / math.pi)), work)
    np.subtract(work, immediate(2 * math.sqrt(2 / math.pi)), work)
    np.multiply(work, x, work)
    np.exp(work, work)
    np.add(work, ONE, work)
    np.divide(x, work, out)


def _softplus(x: Array, out: Array, work: Array) -> None:
    np.abs(x, work)
    np.negative(work, work)
    np.exp(work, work)
    np.log1p(work, work)
    np.add(work, np.maximum(x, ZERO), out)


def _mish(x: Array, out: Array, work: Array) -> None:
    soft = np.empty_like(work)
    _softplus(x, soft, work)
    np.tanh(soft, soft)
    np.multiply(x, soft, out)


def _within(limit: float, ufunc: Any) -> Evaluate:
    """NaN outside +-limit, where the machine's polynomial leaves the function."""
    bound = immediate(limit)

    def evaluate(x: Array, out: Array, work: Array) -> None:
        np.abs(x, work)
        outside = work > bound
        ufunc(x, out)
        np.copyto(out, np.nan, where=outside)
    return evaluate


@dataclass(frozen=True, slots=True)
class Activation:
    """evaluate: see Evaluate. smallest, largest: valid magnitudes; signed: negative inputs are valid too."""

    evaluate: Evaluate
    smallest: float = 0.0
    largest: float = math.inf
    signed: bool = True


FUNCTIONS: dict[str, Activation] = {
    "copy": Activation(lambda x, out, work: np.copyto(out, x)),
    "square": Activation(lambda x, out, work: np.multiply(x, x, out)),
    "abs": Activation(_unary(np.abs)),
    "sign": Activation(_unary(np.sign)),
    "relu": Activation(lambda x, out, work: np.maximum(x, ZERO, out=out)),
    "exp": Activation(_unary(np.exp)),
    "log": Activation(_unary(np.log), 2.0 ** -64, 2.0 ** 64, False),
    "sqrt": Activation(_unary(np.sqrt), 2.0 ** -116, 2.0 ** 118, False),
    "rsqrt": Activation(_rsqrt, 2.0 ** -87, 2.0 ** 97, False),
    "reciprocal": Activation(_unary(np.reciprocal), 2.0 ** -42, 2.0 ** 42),
    "sigmoid": Activation(_sigmoid),
    "tanh": Activation(_unary(np.tanh)),
    "gelu": Activation(_gelu),
    "gelu_apprx_tanh": Activation(_gelu_tanh),
    "gelu_apprx_sigmoid": Activation(_times_sigmoid(1.702)),
    "silu": Activation(_times_sigmoid(1.0)),
    "softplus": Activation(_softplus),
    "mish": Activation(_mish),
    "erf": Activation(_erf),
    "sin": Activation(_within(math.pi, np.sin), 0.0, math.pi),
    "arctan": Activation(_within(math.pi / 2, np.arctan), 0.0, math.pi / 2),
}


def check_range(name: str, x: Array) -> None:
    """Raise PROGRAM_INVALID if a number in x lies outside the documented range of the function; NaN passes."""
    function = FUNCTIONS[name]
    size = np.abs(x)
    # The bounds in f32: the nearest f32 to pi is what a range reduction yields.
    outside = (size < np.float32(function.smallest)) | (size > np.float32(function.largest))
    if not function.signed:
        outside |= x < 0
    if outside.any():
        raise invalid(f"{name} of {float(x[outside][0])!r}", "the input lies outside the documented range of the function")


@semantics(isa.ACTIVATION)
def activation(op: Operation) -> Prepared:
    data, out = op.aligned("data", "out")
    scale, bias, total = (op.per_partition(name, data) for name in ("scale_tensor", "bias", "sum"))
    name, shape = op.field("function"), data.shape
    evaluate = FUNCTIONS[name].evaluate
    if op.settings.check_ranges:
        evaluate = _checked(name, evaluate)
    entry = _affine(op, shape, bias is not None)
    target = op.pattern("out").dtype
    work, store = op.scratch.array("work", shape), narrow(target, shape, op.scratch)
    result = None if target is F32 else op.scratch.array("result", shape)
    axes = tuple(range(1, len(shape)))

    def kernel(x: Array, to: Array, factor: Array | None, offset: Array | None, sums: Array | None) -> None:
        values = to if result is None else result
        evaluate(entry(x, factor, offset), values, work)
        if sums is not None:
            np.add.reduce(values, axis=axes, keepdims=True, out=sums)
        if result is not None:
            store(result, to)
    return Prepared(kernel, (data, out, scale, bias, total))


def _checked(name: str, evaluate: Evaluate) -> Evaluate:
    def checked(x: Array, out: Array, work: Array) -> None:
        check_range(name, x)
        evaluate(x, out, work)
    return checked


def _affine(op: Operation, shape: tuple[int, ...], has_bias: bool) -> Kernel:
    """A function (data, scale or None, bias or None) that yields data * scale + bias in f32."""
    load = widen(op.pattern("data").dtype, shape, op.scratch, "a") or (lambda x: x)
    immediate_scale = immediate(op.field("scale"))
    if not op.has("scale_tensor") and not has_bias and op.field("scale") == 1.0:
        return lambda x, scale, bias: load(x)
    is_scaled = op.has("scale_tensor") or op.field("scale") != 1.0
    load_bias = (widen(op.pattern("bias").dtype, (shape[0],) + (1,) * (len(shape) - 1), op.scratch, "bias")
                 if has_bias else None) or (lambda x: x)
    argument = op.scratch.array("argument", shape)

    def entry(x: Array, scale: Array | None, bias: Array | None) -> Array:
        values = load(x)
        if is_scaled:
            values = np.multiply(values, immediate_scale if scale is None else scale, argument)
        return values if bias is None else np.add(values, load_bias(bias), argument)
    return entry
