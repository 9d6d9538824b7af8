"""How results are held against stored ones; how far they may lie from them is the compiler's own table (`tolerances`).

An output's error is max|got - expected| / max|expected| over what both sides have finite; NaN stands against NaN and an
infinity against itself. Integers, predicates and shapes must agree exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nxcc.compiler import tolerances
from nxcc.compiler.tolerances import longest_sum, tolerance
from nxcc.ir.dtypes import DType

__all__ = ["longest_sum", "output_error", "tolerance", "within_rule"]

Array = np.ndarray[Any, Any]


def output_error(got: Array, expected: Array, dtype: DType) -> float:
    """The error of one output; infinite where element types differ, and where an integer or predicate does."""
    error = tolerances.output_error(got, expected)
    is_exact = not (dtype.is_float or dtype.is_complex)
    return math.inf if got.dtype != expected.dtype or (is_exact and error) else error


def within_rule(got: Array, expected: Array, check: Mapping[str, Any]) -> bool:
    """Whether an output passes the check that its test states itself: an absolute distance, for values of few digits."""
    if check.get("rule") != "absolute" or got.shape != expected.shape or got.dtype != expected.dtype:
        return False
    with np.errstate(invalid="ignore"):
        return bool((np.abs(got - expected) <= check["atol"]).all())
