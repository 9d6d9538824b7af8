"""Special functions that HLO has no operator for, by series.

lgamma and digamma: Lanczos' approximation with g = 7 and nine terms (coefficients by Godfrey), reflected below 1/2.
erfinv: Giles 2010, "Approximating the erfinv function", single precision.
"""

from __future__ import annotations

import math
from functools import reduce

from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.module import Instruction

_G = 7.0
_BASE = 0.99999999999980993
_TERMS = (676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059, 12.507343278686905,
          -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7)


def _reflected(e: Emitter, x: Instruction) -> tuple[Instruction, Instruction]:
    """Whether x is below 1/2, and the argument of the series: -x there, else x - 1."""
    below = e.compare(x, e.like(x, 0.5), "LT")
    return below, e.select(below, e.make("negate", x), e.offset(x, -1))


@rule("Lgamma")
def lgamma(call: Call) -> Value:
    e = call.emit
    x = e.wide(call.x(0))
    below, z = _reflected(e, x)
    total = e.like(x, _BASE)
    for number, term in enumerate(_TERMS, 1):
        total = e.add(total, e.divide(e.like(x, term), e.offset(z, number)))
    t = e.offset(z, _G + 0.5)
    log_t = e.offset(e.make("log-plus-one", e.scaled(z, 1 / (_G + 0.5))), math.log(_G + 0.5))
    power = e.multiply(e.subtract(e.offset(z, 0.5), e.divide(t, log_t)), log_t)
    value = e.add(e.offset(power, 0.5 * math.log(2 * math.pi)), e.make("log", total))
    # sin(pi x) by the distance to the next whole number, which keeps its digits near the poles
    size = e.make("abs", x)
    part = e.subtract(size, e.make("floor", size))
    near = e.select(e.compare(part, e.like(x, 0.5), "GT"), e.subtract(e.like(x, 1), part), part)
    wave = e.make("log", e.make("sine", e.scaled(near, math.pi)))
    mirrored = e.subtract(e.subtract(e.like(x, math.log(math.pi)), wave), value)
    found = e.select(below, e.select(e.make("is-finite", wave), mirrored, e.make("negate", wave)), value)
    endless = e.compare(size, e.like(x, math.inf), "EQ")
    return e.convert(e.select(endless, e.like(x, math.inf), found), call.x(0).shape.dtype)


@rule("Digamma")
def digamma(call: Call) -> Value:
    e = call.emit
    x = e.wide(call.x(0))
    below, z = _reflected(e, x)
    numerator, denominator = e.like(x, 0), e.like(x, _BASE)
    for number, term in enumerate(_TERMS, 1):
        place = e.offset(z, number)
        part = e.divide(e.like(x, term), place)
        numerator = e.subtract(numerator, e.divide(part, place))
        denominator = e.add(denominator, part)
    t = e.offset(z, _G + 0.5)
    log_t = e.offset(e.make("log-plus-one", e.scaled(z, 1 / (_G + 0.5))), math.log(_G + 0.5))
    value = e.subtract(e.add(log_t, e.divide(numerator, denominator)), e.divide(e.like(x, _G), t))
    angle = e.scaled(e.add(x, e.make("abs", e.make("floor", e.offset(x, 0.5)))), math.pi)
    mirrored = e.subtract(value, e.divide(e.scaled(e.make("cosine", angle), math.pi), e.make("sine", angle)))
    found = e.select(below, mirrored, value)
    whole = e.make("and", e.compare(x, e.like(x, 0), "LE"), e.compare(x, e.make("floor", x), "EQ"))
    return e.convert(e.select(whole, e.like(x, math.nan), found), call.x(0).shape.dtype)


_NEAR = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
         0.246640727, 1.50140941)
_FAR = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
        1.00167406, 2.83297682)


def erfinv(e: Emitter, x: Instruction) -> Instruction:
    w = e.make("negate", e.make("log-plus-one", e.make("negate", e.multiply(x, x))))
    near, far = e.offset(w, -2.5), e.offset(e.make("sqrt", w), -3.0)

    def series(row: tuple[float, ...], v: Instruction) -> Instruction:
        return reduce(lambda total, c: e.offset(e.multiply(total, v), c), row[1:], e.like(x, row[0]))

    value = e.multiply(e.select(e.compare(w, e.like(w, 5.0), "LT"), series(_NEAR, near), series(_FAR, far)), x)
    edge = e.compare(e.make("abs", x), e.like(x, 1.0), "EQ")
    return e.select(edge, e.scaled(x, math.inf), value)


@rule("Erfinv")
def erf_inverse(call: Call) -> Value:
    e = call.emit
    return e.convert(erfinv(e, e.wide(call.x(0))), call.x(0).shape.dtype)
