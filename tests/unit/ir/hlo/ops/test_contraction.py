"""Dots, plain, scaled and ragged, against definitions written out, and XLA's measured special cases."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from nxcc.ir import dtypes
from nxcc.ir.hlo.operator import ShapeError
from nxcc.ir.shapes import Shape, array

from harness.one_instruction import instruction_on, result_of

Array = np.ndarray[Any, Any]
MATMUL = {"lhs_contracting_dims": (1,), "rhs_contracting_dims": (0,)}


def random(*dims: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(dims).astype(np.float32)


def test_dot_orders_batch_then_free_dimensions() -> None:
    x, y = random(5, 3, 2, 4), random(4, 6, 2, 7, seed=1)
    result = result_of("dot", x, y, lhs_batch_dims=(2,), rhs_batch_dims=(2,), lhs_contracting_dims=(3,),
                       rhs_contracting_dims=(0,))
    np.testing.assert_allclose(result, np.einsum("abnk,kcnd->nabcd", x, y), rtol=1e-4, atol=1e-5)


def test_narrow_floats_accumulate_in_f32_and_round_once() -> None:
    ones = np.ones((1, 1000), ml_dtypes.bfloat16)
    assert float(result_of("dot", ones, ones.T, **MATMUL)[0, 0]) == 1000


def test_products_of_narrow_floats_are_not_rounded_for_a_wide_result() -> None:
    x = np.array([[1.0078125]], ml_dtypes.bfloat16)
    result = result_of("dot", x, x, shape=array(dtypes.F32, 1, 1), **MATMUL)
    assert result[0, 0] == 1.0078125**2


def test_bf16_with_integer_result_rounds_before_truncating() -> None:
    x, y = np.array([[255.0, 2.0]], ml_dtypes.bfloat16), np.array([[1.0], [1.0]], ml_dtypes.bfloat16)
    assert result_of("dot", x, y, shape=array(dtypes.S32, 1, 1), **MATMUL)[0, 0] == 256


def test_pred_dot_is_or_of_ands() -> None:
    x, y = np.array([[True, True], [False, True]]), np.array([[True], [False]])
    assert result_of("dot", x, y, **MATMUL).tolist() == [[True], [False]]


def test_scaled_dot_repeats_scales_over_blocks() -> None:
    x, y = random(2, 4), random(4, 3, seed=1)
    x_scale, y_scale = np.array([[2, 4]], np.float32), np.array([[1], [8]], np.float32)
    result = result_of("scaled-dot", x, y, x_scale, y_scale, **MATMUL)
    np.testing.assert_allclose(result, (x * [2, 2, 4, 4]) @ (y * np.array([[1], [1], [8], [8]])), rtol=1e-5)


def test_ragged_dot_of_rows_uses_the_matrix_of_their_group() -> None:
    x, y, sizes = random(5, 3), random(2, 3, 4, seed=1), np.array([2, 1], np.int32)
    result = result_of("ragged-dot", x, y, sizes, lhs_contracting_dims=(1,), rhs_contracting_dims=(1,), lhs_ragged_dims=(0,),
                       rhs_group_dims=(0,))
    np.testing.assert_allclose(result, np.concatenate([x[:2] @ y[0], x[2:3] @ y[1], np.zeros((2, 4))]), rtol=1e-5)


def test_ragged_batches_are_multiplied_once() -> None:
    x, y, sizes = np.abs(random(3, 2, 4)), random(3, 4, 5, seed=1), np.array([1, 0, 1], np.int32)
    y[0, :, 2] = -np.inf
    result = result_of("ragged-dot", x, y, sizes, lhs_batch_dims=(0,), rhs_batch_dims=(0,), lhs_contracting_dims=(2,),
                       rhs_contracting_dims=(1,), lhs_ragged_dims=(0,))
    np.testing.assert_allclose(result[:2], (x @ y)[:2], rtol=1e-5)
    assert not result[2].any()


def test_ragged_dot_takes_group_sizes_for_each_leading_row() -> None:
    x, y, sizes = random(2, 3, 4), random(2, 4, 5, seed=1), np.array([[1, 2], [3, 0]])
    result = result_of("ragged-dot", x, y, sizes, lhs_contracting_dims=(2,), rhs_contracting_dims=(1,), lhs_ragged_dims=(1,),
                       rhs_group_dims=(0,))
    expected = np.stack([np.concatenate([x[0, :1] @ y[0], x[0, 1:] @ y[1]]), x[1] @ y[0]])
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_ragged_dot_of_terms_gives_a_result_for_each_group() -> None:
    x, y, sizes = random(3, 5), random(5, 4, seed=1), np.array([2, 3], np.int32)
    result = result_of("ragged-dot", x, y, sizes, lhs_contracting_dims=(1,), rhs_contracting_dims=(0,), lhs_ragged_dims=(1,))
    np.testing.assert_allclose(result, np.stack([x[:, :2] @ y[:2], x[:, 2:] @ y[2:]]), rtol=1e-5, atol=1e-6)


REFUSED = [
    ("dot", (array(dtypes.F32, 2, 3), array(dtypes.F32, 4, 2)), MATMUL, "differ in size"),
    ("dot", (array(dtypes.F32, 2, 3), array(dtypes.F32, 3, 2)), MATMUL | {"lhs_contracting_dims": (2,)}, "distinct dimensions"),
    ("dot", (array(dtypes.F32, 2, 3), array(dtypes.F32, 3, 2)), {"lhs_contracting_dims": (1,)}, "as many contracting"),
]


@pytest.mark.parametrize(("opcode", "shapes", "attributes", "reason"), REFUSED, ids=[f"{r[0]}-{r[3]}" for r in REFUSED])
def test_wrong_operands_are_refused(opcode: str, shapes: tuple[Shape, ...], attributes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ShapeError, match=reason):
        instruction_on(opcode, *shapes, **attributes)
