"""How results are held against stored ones; how far they may lie from them is the compiler's own table (`tolerances`).

An output's error is max|got - expected| / max|expected| over what both sides have finite; NaN stands against NaN and an
infinity against itself. Integers, predicates and shapes must agree exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nxcc.compiler.tolerances import longest_sum, scale, tolerance
from nxcc.ir.dtypes import DType

__all__ = ["longest_sum", "output_error", "tolerance", "within_rule"]

Array = np.ndarray[Any, Any]

def output_error(got: Array, expected: Array, dtype: DType) -> float:
    """The error of one output; infinite where shapes differ, integers differ, or only one side is finite."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return math.inf
    if got.size == 0:
        return 0.0
    if not (dtype.is_float or dtype.is_complex):
        return 0.0 if bool((got == expected).all()) else math.inf
    return _float_error(_real_parts(got, dtype), _real_parts(expected, dtype), scale(expected))


def _real_parts(values: Array, dtype: DType) -> Array:
    if dtype.is_complex:
        return np.stack([values.real, values.imag]).astype(np.float64)
    return values.astype(np.float64)


def _float_error(got: Array, expected: Array, whole: float) -> float:
    with np.errstate(invalid="ignore"):
        open_ = ~((got == expected) | (np.isnan(got) & np.isnan(expected)))
    if not open_.any():
        return 0.0
    if not np.isfinite(got[open_]).all() or not np.isfinite(expected[open_]).all():
        return math.inf
    return float(np.abs(got[open_] - expected[open_]).max()) / whole


def within_rule(got: Array, expected: Array, check: Mapping[str, Any]) -> bool:
    """Whether an output passes the check that its test states itself: an absolute distance, for values of few digits."""
    if check.get("rule") != "absolute" or got.shape != expected.shape or got.dtype != expected.dtype:
        return False
    with np.errstate(invalid="ignore"):
        return bool((np.abs(got - expected) <= check["atol"]).all())
