import numpy as np
import pytest

from nxcc.compiler.verify import compare, output_error, tolerance
from nxcc.ir.dtypes import BF16, F32, S32

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(("got", "expected", "error"), [
    ([1.0, 2.0], [1.0, 2.5], 0.2),
    ([NAN, 1.0], [NAN, 1.0], 0.0),
    ([NAN, 1.0], [0.0, 1.0], INF),
    ([INF, 1.0], [INF, 2.0], 0.5),
    ([INF, 1.0], [-INF, 1.0], INF),
    ([0.0], [0.0], 0.0),
    ([1.0], [0.0], INF),
])
def test_error_of_floats_is_relative_to_the_largest_value(got: list, expected: list, error: float) -> None:
    assert output_error(np.float32(got), np.float32(expected)) == pytest.approx(error)


def test_error_of_integers_is_the_share_that_differs() -> None:
    assert output_error(np.int32([1, 2, 3, 4]), np.int32([1, 2, 3, 5])) == 0.25


def test_other_shapes_never_agree() -> None:
    assert output_error(np.zeros(2), np.zeros((2, 1))) == INF


def test_tolerances_follow_dtype_and_autocast() -> None:
    assert tolerance(F32) == 1e-4 < tolerance(F32, 0.03) == 0.03
    assert tolerance(BF16) == tolerance(BF16, 0.03) == 0.05
    assert tolerance(S32) == 0.0 < tolerance(S32, 0.03)
    assert not compare([np.float32([1])], [np.float32([1.1])], [F32])[0].passed
    assert compare([np.float32([1])], [np.float32([1.1])], [F32], limit=0.2)[0].passed
