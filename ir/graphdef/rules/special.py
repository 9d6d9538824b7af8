"""Special functions that HLO has no operator for, by series.

lgamma and digamma: Lanczos' approximation with g = 7 and nine terms (coefficients by Godfrey), reflected below 1/2.
erfinv: Giles 2010, "Approximating the erfinv function", single precision.
Modified Bessel functions: Chebyshev series of exp(-x) I0(x) and exp(-x) I1(x) / x up to 8, beyond of sqrt(x) exp(-x) I0(x) and
sqrt(x) exp(-x) I1(x) in 16 / x - 1; fitted in double precision at Chebyshev points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.registry import row, rule
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

    def series(terms: tuple[float, ...], v: Instruction) -> Instruction:
        return reduce(lambda total, c: e.offset(e.multiply(total, v), c), terms[1:], e.like(x, terms[0]))

    value = e.multiply(e.select(e.compare(w, e.like(w, 5.0), "LT"), series(_NEAR, near), series(_FAR, far)), x)
    edge = e.compare(e.make("abs", x), e.like(x, 1.0), "EQ")
    return e.select(edge, e.scaled(x, math.inf), value)


@rule("Erfinv")
def erf_inverse(call: Call) -> Value:
    e = call.emit
    return e.convert(erfinv(e, e.wide(call.x(0))), call.x(0).shape.dtype)


_I0_NEAR = (0.338397637205, -0.304682672343, 0.171620901522, -0.094901097048, 0.0493052842397, -0.0237374148059,
            0.0105464603946, -0.00432430999505, 0.00163947561694, -0.000576375574538, 0.000188502885095,
            -5.75419501008e-05, 1.64484480711e-05, -4.41673835851e-06, 1.11738753894e-06, -2.6707938531e-07,
            6.0469950355e-08, -1.30002506464e-08, 2.65982387677e-09, -5.18979997079e-10)
_I0_FAR = (0.402245205507, 0.00336911647826, 6.88975834691e-05, 2.89137052078e-06, 2.04891858906e-07, 2.2666689844e-08,
           3.3962319884e-09, 4.94060195129e-10)
_I1_NEAR = (0.126293593222, -0.176416518358, 0.10264365869, -0.0529459812081, 0.0247264490306, -0.0105640848946,
            0.00415642294431, -0.00151357245063, 0.000512285956169, -0.000161760815826, 4.78156510753e-05,
            -1.32731636561e-05, 3.47025130836e-06, -8.56872026526e-07, 2.00329475288e-07, -4.4450591263e-08,
            9.38153749683e-09, -1.88725007766e-09, 3.62559122961e-10)
_I1_FAR = (0.389288117509, -0.00976109749136, -0.000110588938763, -3.88256480889e-06, -2.5122362381e-07,
           -2.63146884701e-08, -3.83538039676e-09, -5.58974361124e-10)
_BORDER = 8.0


def _chebyshev(e: Emitter, t: Instruction, terms: tuple[float, ...]) -> Instruction:
    """Clenshaw's sum of terms[k] T_k(t)."""
    twice = e.scaled(t, 2)
    now, before = e.like(t, terms[-1]), e.like(t, 0)
    for c in terms[-2:0:-1]:
        now, before = e.offset(e.subtract(e.multiply(twice, now), before), c), now
    return e.offset(e.subtract(e.multiply(t, now), before), terms[0])


def _bessel(near: tuple[float, ...], far: tuple[float, ...], odd: bool, scaled: bool) -> Callable[[Call], Value]:
    def lower(call: Call) -> Value:
        e = call.emit
        x = e.wide(call.x(0))
        size = e.make("abs", x)
        small = _chebyshev(e, e.offset(e.scaled(e.minimum(size, e.like(x, _BORDER)), 2 / _BORDER), -1), near)
        large = e.maximum(size, e.like(x, _BORDER))
        beyond = e.multiply(_chebyshev(e, e.offset(e.divide(e.like(x, 2 * _BORDER), large), -1), far), e.make("rsqrt", large))
        value = e.select(e.compare(size, e.like(x, _BORDER), "GT"), beyond, e.multiply(small, size) if odd else small)
        if not scaled:
            value = e.multiply(value, e.make("exponential", size))
        if odd:
            value = e.multiply(value, e.make("sign", x))
        return e.convert(value, call.x(0).shape.dtype)
    return lower


for _order, _near_row, _far_row in ((0, _I0_NEAR, _I0_FAR), (1, _I1_NEAR, _I1_FAR)):
    row(f"BesselI{_order}", _bessel(_near_row, _far_row, odd=_order == 1, scaled=False))
    row(f"BesselI{_order}e", _bessel(_near_row, _far_row, odd=_order == 1, scaled=True))
