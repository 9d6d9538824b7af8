"""Float arithmetic and rounding on tiles. Narrower floats are computed in f32 and rounded once, on the way out."""

from __future__ import annotations

import math

import numpy as np

from nxcc.backends.lowering.pointwise.formulas import formula
from nxcc.backends.lowering.terms import Kind, Span, Term, activate, alu, bits, cast, constant, part, reciprocal, select, term
from nxcc.ir.dtypes import F32, U8, U32
from nxcc.ir.hlo.module import Instruction

ROUNDER = 1.5 * 2.0**23
"""Adding and subtracting it rounds an f32 of magnitude below 2^22 to the nearest even integer."""

WHOLE_FROM = 2.0**22
"""Magnitudes from which an f32 is no longer rounded by ROUNDER; from 2^23 all are integers."""

LARGEST = float(np.finfo(np.float32).max)

LEAST_ROOTED = 2.0**-104
"""What is smaller counts as this before its root is taken, whose 2^-52 then is lost in a sum ..."""

LEAST_RAISE = 2.0**-27
"""... with a number from here on."""

SIGN = 0x80000000
BINARY = {"add": "add", "subtract": "subtract", "multiply": "multiply", "maximum": "maximum", "minimum": "minimum"}


def word(x: Term) -> Term:
    """The bits of an f32."""
    return part(x, U32)


def from_word(x: Term) -> Term:
    return part(x, F32)


def magnitude(x: Term) -> Term:
    return alu("abs_max", x, 0.0)


def with_sign_of(x: Term, y: Term) -> Term:
    """x with y's sign bit set too; both f32."""
    return from_word(bits("bitwise_or", word(x), bits("bitwise_and", word(y), SIGN)))


@formula(*BINARY)
def binary(instruction: Instruction, x: Term, y: Term) -> Term:
    return alu(BINARY[instruction.opcode], x, y)


@formula("divide", temporaries=1)
def divide(instruction: Instruction, x: Term, y: Term) -> Term:
    """x * (1 / y), within one unit of the last place or two; zeros, infinities and NaN fall out right."""
    return quotient(x, y)


def quotient(x: Term, y: Term) -> Term:
    found = _root_and_number(y)
    if found is not None:
        return x * _inverse_of_raised_root(*found)
    if y.span is Span.NUMBER:
        with np.errstate(divide="ignore", over="ignore"):
            return x * float(np.float32(1) / np.float32(y.number))
    return reciprocal(y) if x.span is Span.NUMBER and x.number == 1 else x * reciprocal(y)


def _root_and_number(y: Term) -> tuple[Term, float] | None:
    """(z, c) where y is sqrt(z) + c with a number c against which roots of the smallest z are nothing."""
    if y.kind is not Kind.ALU or y.op != "add" or y.span is not Span.TILE:
        return None
    for root, number in (y.inputs, y.inputs[::-1]):
        if root.kind is Kind.ALU and root.op == "sqrt" and number.span is Span.NUMBER and LEAST_RAISE <= number.number <= 1:
            return root.inputs[0], float(number.number)
    return None


def _inverse_of_raised_root(z: Term, c: float) -> Term:
    """1 / (sqrt(z) + c) on the scalar engine, within its functions' ranges: the square of an inverse root, which reaches
    farther than its reciprocal. Numbers are moved by powers of two. NaN below zero, zero where z is infinite."""
    not_below = alu("multiply", alu("greater_equal", z, 0.0), math.inf)  # NaN where it is
    within = alu("minimum", alu("minimum", alu("maximum", z, LEAST_ROOTED), LARGEST), not_below)
    raised = activate("sqrt", within, 2.0**-12) + constant(term(c / 2.0**6))
    inverse = activate("square", activate("rsqrt", raised), 2.0**-3)
    return alu("multiply", alu("less", z, math.inf), inverse)


@formula("negate")
def negate(instruction: Instruction, x: Term) -> Term:
    return -x


@formula("abs")
def absolute(instruction: Instruction, x: Term) -> Term:
    return magnitude(x)


@formula("sign", temporaries=1)
def sign(instruction: Instruction, x: Term) -> Term:
    """Scaled until even denormals pass 1, then clipped: zeros keep their sign, NaN stays."""
    return alu("minimum", alu("maximum", x * 2.0**127 * 2.0**127, -1.0), 1.0)


@formula("is-finite")
def is_finite(instruction: Instruction, x: Term) -> Term:
    return magnitude(x) < math.inf


@formula("clamp", temporaries=1)
def clamp(instruction: Instruction, low: Term, x: Term, high: Term) -> Term:
    return alu("minimum", alu("maximum", x, low), high)


@formula("real")
def real(instruction: Instruction, x: Term) -> Term:
    return x


@formula("imag")
def imaginary(instruction: Instruction, x: Term) -> Term:
    """Zero, for NaN and infinities too."""
    return alu("logical_and", x, 0.0)


def nearest(x: Term) -> Term:
    """x rounded to the nearest even integer, for magnitudes below WHOLE_FROM."""
    return x + ROUNDER - ROUNDER


def floor_of(x: Term) -> Term:
    """The largest integer up to x, for magnitudes below WHOLE_FROM."""
    whole = nearest(x)
    return whole - alu("greater", whole, x)


def _ceiling_of(x: Term) -> Term:
    whole = nearest(x)
    return whole + alu("less", whole, x)


def _half_away(x: Term) -> Term:
    """|x| rounded, halves up; adding 0.5 first would round 0.49999997 up."""
    size = magnitude(x)
    whole = floor_of(size)
    return whole + alu("greater_equal", size - whole, 0.5)


_ROUNDINGS = {"floor": floor_of, "ceil": _ceiling_of, "round-nearest-even": nearest, "round-nearest-afz": _half_away}


@formula(*_ROUNDINGS, temporaries=5)
def rounding(instruction: Instruction, x: Term) -> Term:
    """Large magnitudes, infinities and NaN as they are; the sign bit is x's, so that -0.3 rounds up to -0."""
    x = cast(x, F32)
    small = alu("less", magnitude(x), WHOLE_FROM, U8)
    rounded = _ROUNDINGS[instruction.opcode](x)
    return with_sign_of(select(small, rounded, x), x) if instruction.opcode != "round-nearest-afz" else \
        with_sign_of(select(small, rounded, _half_away_large(x)), x)


def _half_away_large(x: Term) -> Term:
    """From 2^22 to 2^23 halves remain: adding 0.5 in f32 is exact there, and cutting the fraction is a mask."""
    raised = word(magnitude(x) + 0.5)
    return select(alu("less", magnitude(x), 2.0**23, U8), from_word(bits("bitwise_and", raised, 0xFFFFFFFE)), x)


ACTIVATIONS = {"exponential": "exp", "tanh": "tanh", "logistic": "sigmoid", "erf": "erf"}
"""Operator -> activation function."""


@formula(*ACTIVATIONS)
def activation(instruction: Instruction, x: Term) -> Term:
    """Functions of the scalar engine that are valid for all inputs."""
    return activate(ACTIVATIONS[instruction.opcode], x)
