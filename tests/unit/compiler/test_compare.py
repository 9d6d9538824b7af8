"""Errors of outputs, and what they may be."""

import ml_dtypes
import numpy as np
import pytest

from nxcc.compiler.tolerances import depths_of, output_error, tolerance
from nxcc.compiler.verify import compare
from nxcc.ir.dtypes import BF16, F32, S32

from harness.hlo_text import module_of

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(("got", "expected", "error"), [
    ([1.0, 2.0], [1.0, 2.5], 0.2),
    ([NAN, 1.0], [NAN, 1.0], 0.0),
    ([NAN, 1.0], [0.0, 1.0], INF),
    ([INF, 1.0], [INF, 2.0], 0.5),
    ([INF, 1.0], [-INF, 1.0], INF),
    ([0.0], [0.0], 0.0),
    ([1.0], [0.0], 2.0**126),
    ([2.0**-126, 2.0**-149], [2.0**-126, 0.0], 2.0**-23),
    ([2.0**-148], [2.0**-149], 2.0**-23),
])
def test_error_of_floats_is_relative_to_the_largest_or_smallest_normal_value(got: list, expected: list, error: float) -> None:
    assert output_error(np.float32(got), np.float32(expected)) == pytest.approx(error)


@pytest.mark.parametrize("dtype", [np.int32, np.uint64, ml_dtypes.int2, ml_dtypes.int4, ml_dtypes.uint4])
def test_error_of_integers_is_the_share_that_differs(dtype: type) -> None:
    assert output_error(np.array([1, 0, 1, 0], dtype), np.array([1, 0, 1, 1], dtype)) == 0.25


def test_other_shapes_never_agree() -> None:
    assert output_error(np.zeros(2), np.zeros((2, 1))) == INF


def test_tolerances_follow_dtype_casts_sums_and_chains() -> None:
    assert tolerance(F32) == 1600 * 2.0**-24 < tolerance(F32, cast=0.03) == 0.03
    assert tolerance(BF16) == 5 * 2.0**-8
    assert tolerance(BF16, depth=100) == pytest.approx(10 * 3**0.5 * 2.0**-8)
    assert tolerance(F32, length=4096) == 2 * tolerance(F32)
    assert tolerance(S32) == 0.0 < tolerance(S32, cast=0.03)
    assert not compare([np.float32([1])], [np.float32([1.1])], [F32])[0].passed
    assert compare([np.float32([1])], [np.float32([1.1])], [F32], limit=0.2)[0].passed


def test_casts_cost_by_the_longest_chain() -> None:
    chain = module_of("x = f32[4,4] parameter(0)\n a = f32[4,4] dot(x, x), lhs_contracting_dims={1}, rhs_contracting_dims={0}\n"
                      "b = f32[4,4] dot(a, x), lhs_contracting_dims={1}, rhs_contracting_dims={0}\n t = f32[4,4] tanh(x)\n"
                      "ROOT r = f32[4,4] add(b, t)")
    depths = depths_of(chain)
    assert (depths.products, depths.operations) == (2, 3)
    assert depths.cast("none", "bf16") == 0.0
    assert depths.cast("matmult", "bf16") == pytest.approx(3**0.5 * 2.0**-8 * 2)
    assert depths.cast("matmult", "bf16") < depths.cast("all", "bf16")
    assert depths.cast("matmult", "fp16") == depths.cast("matmult", "bf16") / 8


def test_narrow_types_inside_a_module_turn_with_the_last_place_of_what_they_round() -> None:
    """A value halfway between two bf16 goes one way or the other; an f32 output of it is no more exact, integers are."""
    module = module_of("x = f32[4] parameter(0)\n t = f32[4] tanh(x)\n b = bf16[4] convert(t)\n c = f32[4] convert(b)\n"
                       "n = s32[4] convert(x)\n ROOT r = (f32[4], s32[4]) tuple(c, n)")
    assert depths_of(module).roundings == {2.0**-8: 1}
    floats, integers = compare([np.float32([1]), np.int32([1])], [np.float32([1 + 2.0**-8]), np.int32([2])], [F32, S32],
                               module=module)
    assert floats.passed and not integers.passed
    assert not compare([np.float32([1])], [np.float32([1.02])], [F32], module=module)[0].passed


def test_computations_that_many_others_call_are_measured_once() -> None:
    levels = "".join(f"c{n} {{\n  x = f32[] parameter(0)\n  a = f32[] call(x), to_apply=c{n - 1}\n"
                     f"  ROOT b = f32[] call(a), to_apply=c{n - 1}\n}}\n" for n in range(1, 60))
    first = "c0 {\n  x = f32[] parameter(0)\n  ROOT s = f32[] sine(x)\n}\n"
    entry = "  x = f32[] parameter(0)\n  ROOT r = f32[] call(x), to_apply=c59"
    assert depths_of(module_of(entry, first + levels)).operations == 2**59
