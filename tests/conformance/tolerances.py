"""THE table of tolerances: how far a result may lie from the expected one, by dtype and by the length of its sums.

An output's error is max|got - expected| / max|expected| over what both sides have finite; NaN stands against NaN and an
infinity against itself. Integers, predicates and shapes must agree exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nxcc.ir.dtypes import DType
from nxcc.ir.hlo.module import Instruction, Module

Array = np.ndarray[Any, Any]

TOLERANCES: dict[str, tuple[float, str]] = {
    "f64": (1e-10, "the host computes it in f64; libraries differ by some last places"),
    "c128": (1e-10, "as f64"),
    "f32": (1e-4, "sums in another order, and engine functions that are good to about 2^-20"),
    "c64": (1e-4, "as f32"),
    "f16": (2e-3, "two steps of 2^-10: intermediate values may or may not be rounded"),
    "bf16": (2e-2, "two to three steps of 2^-7, for the same reason"),
    "f8e3m4": (0.07, "one step of 2^-4 at the largest value"),
    "f8e4m3": (0.13, "one step of 2^-3"),
    "f8e4m3fn": (0.13, "one step of 2^-3"),
    "f8e4m3fnuz": (0.13, "one step of 2^-3"),
    "f8e4m3b11fnuz": (0.13, "one step of 2^-3"),
    "f8e5m2": (0.26, "one step of 2^-2"),
    "f8e5m2fnuz": (0.26, "one step of 2^-2"),
    "f8e8m0fnu": (0.0, "powers of two are exact"),
    "f6e3m2fn": (0.26, "one step of 2^-2"),
    "f6e2m3fn": (0.13, "one step of 2^-3"),
    "f4e2m1fn": (0.51, "one step of 2^-1"),
}
"""dtype -> (limit of the error, its reason). What is not here is exact."""

FREE_LENGTH = 1024
"""Sums up to this many terms are within the table; the error of a longer one grows as the square root of its length."""


def tolerance(dtype: DType, length: int = 1) -> float:
    """The limit for an output of this dtype in a module whose longest sum has `length` terms."""
    limit, _ = TOLERANCES.get(dtype.name, (0.0, ""))
    return limit * max(1.0, math.sqrt(length / FREE_LENGTH))


def longest_sum(module: Module) -> int:
    """The number of terms of the longest dot, convolution, reduction or window in a module."""
    return max((_terms(instruction) for instruction in module.instructions()), default=1)


def _terms(instruction: Instruction) -> int:
    """Terms that one element of the result is summed from."""
    count = _TERMS.get(instruction.opcode)
    return count(instruction) if count else 1


def _contracted(dot: Instruction) -> int:
    dims = dot.operands[0].shape.dims
    return math.prod(dims[d] for d in dot.attribute("lhs_contracting_dims"))


def _kernel_taps(convolution: Instruction) -> int:
    kernel = convolution.operands[1].shape
    features = kernel.dims[convolution.attribute("dim_labels").kernel_output_feature]
    return kernel.element_count // max(1, features)


def _reduced(reduce: Instruction) -> int:
    result = next(reduce.shape.leaves()).element_count
    return reduce.operands[0].shape.element_count // max(1, result)


_TERMS: dict[str, Callable[[Instruction], int]] = {
    "dot": _contracted,
    "convolution": _kernel_taps,
    "reduce": _reduced,
    "reduce-window": lambda window: math.prod(d.size for d in window.attribute("window").dims),
}


def output_error(got: Array, expected: Array, dtype: DType) -> float:
    """The error of one output; infinite where shapes differ, integers differ, or only one side is finite."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return math.inf
    if got.size == 0:
        return 0.0
    if not (dtype.is_float or dtype.is_complex):
        return 0.0 if bool((got == expected).all()) else math.inf
    return _float_error(_real_parts(got, dtype), _real_parts(expected, dtype))


def _real_parts(values: Array, dtype: DType) -> Array:
    if dtype.is_complex:
        return np.stack([values.real, values.imag]).astype(np.float64)
    return values.astype(np.float64)


def _float_error(got: Array, expected: Array) -> float:
    with np.errstate(invalid="ignore"):
        open_ = ~((got == expected) | (np.isnan(got) & np.isnan(expected)))
    if not open_.any():
        return 0.0
    if not np.isfinite(got[open_]).all() or not np.isfinite(expected[open_]).all():
        return math.inf
    scale = float(np.abs(expected[np.isfinite(expected)]).max())
    worst = float(np.abs(got[open_] - expected[open_]).max())
    return worst / scale if scale else math.inf


def within_rule(got: Array, expected: Array, check: Mapping[str, Any]) -> bool:
    """Whether an output passes the check that its test states itself: an absolute distance, for values of few digits."""
    if check.get("rule") != "absolute" or got.shape != expected.shape or got.dtype != expected.dtype:
        return False
    with np.errstate(invalid="ignore"):
        return bool((np.abs(got - expected) <= check["atol"]).all())
