"""Casts at the border of a compiled module."""

import ml_dtypes
import numpy as np
import pytest

from nxcc.compiler.interface.casts import cast
from nxcc.ir.diagnostics import INPUT_MISMATCH, CompileError
from nxcc.ir.dtypes import BF16, F16, S32, U32


def test_integers_must_fit() -> None:
    np.testing.assert_array_equal(cast(np.int64([-1, 2**31 - 1]), S32, "x"), np.int32([-1, 2**31 - 1]))
    with pytest.raises(CompileError, match=r"x holds 2147483648 at \[1\]") as caught:
        cast(np.int64([0, 2**31]), S32, "x")
    assert caught.value.code is INPUT_MISMATCH
    with pytest.raises(CompileError):
        cast(np.int64([-1]), U32, "x")
    with pytest.raises(CompileError):
        cast(np.uint64([2**63 + 5]), S32, "x")


def test_the_lowest_float_stays_finite_in_bf16() -> None:
    lowest = np.finfo(np.float32).min
    found = cast(np.float32([lowest, -np.inf, 1.0, -lowest]), BF16, "x")
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(np.isfinite(found), [True, False, True, True])
    assert found[0] < 0 < found[3]


def test_other_floats_overflow_to_infinity() -> None:
    assert np.isinf(cast(np.float32([1e6]), F16, "x"))[0]
