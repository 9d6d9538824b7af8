"""Transcendental functions beyond the documented ranges of the scalar engine: range reduction and special values.

Accuracy aims at 1e-6 relative to the result where the scalar engine's functions are that good. Denormal inputs count as zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from nxcc.backends.lowering.pointwise.float import magnitude, with_sign_of
from nxcc.backends.lowering.pointwise.formulas import formula
from nxcc.backends.lowering.terms import Span, Term, activate, alu, bits, cast, native, part, reciprocal, select
from nxcc.ir.dtypes import F32, S32, U8
from nxcc.ir.hlo.module import Instruction

TINY = 2.0**-126
"""The smallest normal f32."""

LN2 = math.log(2)
ROOT_HALF_BITS = 0x3F3504F3
EXPONENT_FIELD = 0xFF800000


def root(x: Term) -> Term:
    """The square root of an f32: zeros and infinity as they are, NaN below zero."""
    return alu("sqrt", x, 0.0)


@formula("sqrt", temporaries=2)
def square_root(instruction: Instruction, x: Term) -> Term:
    return root(cast(x, F32))


@formula("rsqrt", temporaries=2)
def reciprocal_root(instruction: Instruction, x: Term) -> Term:
    """Over the whole range, infinite at zeros with their sign."""
    return alu("rsqrt", cast(x, F32), 0.0)


@formula("cbrt", temporaries=2)
def cube_root(instruction: Instruction, x: Term) -> Term:
    x = cast(x, F32)
    return with_sign_of(alu("power", magnitude(x), 1 / 3), x)


@formula("power", temporaries=1)
def power(instruction: Instruction, x: Term, y: Term) -> Term:
    """Small whole exponents by products, others by GpSimd's power, whose special cases are C's."""
    simple = _WHOLE_POWERS.get(y.number) if y.span is Span.NUMBER else None
    return simple(x) if simple else alu("power", x, y)


_WHOLE_POWERS: dict[int | float, Callable[[Term], Term]] = {
    1: lambda x: x, 2: lambda x: x * x, 3: lambda x: x * x * x, -1: reciprocal}


def _log_inside(x: Term) -> Term:
    """log of a positive normal f32: x = m * 2^e with m in [sqrt(1/2), sqrt(2)), so that nothing cancels.

    Any other bits give some number, without leaving the engine's range.
    """
    raw = part(x, S32)
    exponent = bits("bitwise_and", native("subtract", raw, ROOT_HALF_BITS), EXPONENT_FIELD)
    mantissa = part(native("subtract", raw, exponent), F32)
    return exponent * (LN2 / 2**23) + activate("log", mantissa)


def _log_limits(x: Term, inside: Term) -> Term:
    """`inside` for positive normal x; -inf at zero, NaN below, infinity and NaN as they are."""
    below = alu("greater_equal", x, 0.0) * -math.inf
    above = alu("equal", alu("less", x, math.inf), 0.0, U8)
    return select(above, x, select(x < TINY, below, inside))


@formula("log", temporaries=4)
def logarithm(instruction: Instruction, x: Term) -> Term:
    x = cast(x, F32)
    return _log_limits(x, _log_inside(x))


def log_plus_one(x: Term) -> Term:
    """log(1 + x) for an f32 x: what 1 + x lost by rounding comes back as a first-order term."""
    sum_ = x + 1.0
    lost = x - (sum_ - 1.0)
    inside = _log_inside(sum_) + lost * reciprocal(sum_)
    return select(x.equals(0.0), x, _log_limits(sum_, inside))


@formula("log-plus-one", temporaries=5)
def logarithm_plus_one(instruction: Instruction, x: Term) -> Term:
    return log_plus_one(cast(x, F32))


@formula("exponential-minus-one", temporaries=2)
def exponential_minus_one(instruction: Instruction, x: Term) -> Term:
    """tanh(x / 2) * (exp(x) + 1): nothing cancels near 0."""
    return (activate("exp", x) + 1.0) * activate("tanh", x, 0.5)


def _hyperbolic_cosine(x: Term) -> Term:
    """(exp(x) + exp(-x)) / 2 as products of halves, which overflow no earlier than the result."""
    up, down = activate("exp", x, 0.5), activate("exp", x, -0.5)
    return up * 0.5 * up + down * 0.5 * down


@formula("cosh", temporaries=3)
def hyperbolic_cosine(instruction: Instruction, x: Term) -> Term:
    return _hyperbolic_cosine(x)


@formula("sinh", temporaries=3)
def hyperbolic_sine(instruction: Instruction, x: Term) -> Term:
    return activate("tanh", x) * _hyperbolic_cosine(x)


LARGE = 2.0**30
"""From here on asinh(x) and acosh(x) are log(2x) to f32 accuracy."""


@formula("asinh", temporaries=6)
def inverse_hyperbolic_sine(instruction: Instruction, x: Term) -> Term:
    """log1p(a + a^2 / (1 + sqrt(1 + a^2))) of the magnitude a."""
    x = cast(x, F32)
    size = magnitude(x)
    square = size * size
    grown = size + square * reciprocal(root(square + 1.0) + 1.0)
    return with_sign_of(_log_doubled(size, grown), x)


@formula("acosh", temporaries=6)
def inverse_hyperbolic_cosine(instruction: Instruction, x: Term) -> Term:
    """log1p(t + sqrt(t * (t + 2))) with t = x - 1; NaN below 1, for which -1 stands."""
    x = cast(x, F32)
    t = alu("maximum", x - 1.0, -1.0)
    return _log_doubled(x, t + root((t + 2.0) * t))


def _log_doubled(x: Term, grown: Term) -> Term:
    """log1p(grown), or log(2x) where x is large."""
    large = alu("greater_equal", x, LARGE)
    return large * LN2 + log_plus_one(select(x >= LARGE, x, grown))


@formula("atanh", temporaries=6)
def inverse_hyperbolic_tangent(instruction: Instruction, x: Term) -> Term:
    x = cast(x, F32)
    size = magnitude(x)
    return with_sign_of(log_plus_one(size * 2.0 * reciprocal(1.0 - size)) * 0.5, x)
