"""Whether a combiner may take elements in any grouping.

HLO leaves the order of a reduction open and asks for combiners that do not mind. XLA's CPU backend takes elements one after
another, so that one that does mind (a - b, a / 2 + b) has a result there, which people rely on. Whether it does is tried on
numbers: no rule over the computation's instructions would know the many ways to write a maximum with its place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nxcc.ir.dtypes import PRED, DType
from nxcc.ir.hlo.module import Computation
from nxcc.ir.hlo.scalar_function import ScalarFunction
from nxcc.ir.hlo.wide_bodies import widened
from nxcc.ir.literals import Array

TRIPLES = 256
LARGEST = 9
"""Samples are whole numbers and halves up to this size: ties are common among them, and sums and products nearly exact."""
STEPS = 64
"""How many roundings of its type a result may be off."""


def takes_any_grouping(computation: Computation) -> bool:
    """Whether the combiner is associative, in f32 where it has narrower floats; see `is_associative`."""
    return is_associative(ScalarFunction(widened(computation) or computation, _unused))


def is_associative(function: ScalarFunction) -> bool:
    """Whether f(f(a, b), c) is f(a, f(b, c)) on samples, where both are finite and up to rounding.

    function: accumulators.., values.. -> accumulators... One that is not elementwise is taken for associative; one whose
    values are of other types than its accumulators is not.
    """
    dtypes = [parameter.shape.dtype for parameter in function.computation.parameters]
    count = len(dtypes) // 2
    if dtypes[:count] != dtypes[count:]:
        return False
    if not function.is_elementwise:
        return True
    random = np.random.default_rng(0)
    a, b, c = ([_samples(random, dtype) for dtype in dtypes[:count]] for _ in range(3))
    with np.errstate(all="ignore"):
        left = function(*function(*a, *b), *c)
        right = function(*a, *function(*b, *c))
    return all(_same(x, y, dtype) for x, y, dtype in zip(left, right, dtypes, strict=False))


def _unused(*_: object) -> None:
    raise AssertionError("an elementwise computation is evaluated on arrays")


def _samples(random: np.random.Generator, dtype: DType) -> Array:
    if dtype is PRED:
        return random.integers(0, 2, TRIPLES).astype(np.bool_)
    low = -LARGEST if dtype.is_float or dtype.is_complex or dtype.is_signed else 0
    whole = random.integers(low, LARGEST, TRIPLES, endpoint=True)
    if dtype.is_integer:
        least, most = (-(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1) if dtype.is_signed else (0, (1 << dtype.bits) - 1)
        return np.clip(whole, least, most).astype(dtype.numpy)
    return (whole / 2).astype(dtype.numpy)


def _same(x: Array, y: Array, dtype: DType) -> bool:
    if not (dtype.is_float or dtype.is_complex):
        return bool((x == y).all())
    wide = np.complex128 if dtype.is_complex else np.float64
    one, other = x.astype(wide), y.astype(wide)
    finite = np.isfinite(one) & np.isfinite(other)
    allowed = STEPS * _rounding(dtype) * max(1.0, float(np.abs(one[finite]).max(initial=0.0)))
    return bool((np.abs(one - other)[finite] <= allowed).all())


def _rounding(dtype: DType) -> float:
    """Half a step of the type at 1."""
    values: Sequence[float] = [2.0**-n for n in range(1, 60)]
    part = np.float64 if dtype.is_complex else dtype.numpy
    return next(v for v in values if np.asarray(1 + v).astype(part).astype(np.float64) == 1)
