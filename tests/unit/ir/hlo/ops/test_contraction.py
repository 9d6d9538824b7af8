"""Dots, convolutions, transforms and factorisations against definitions written out, and XLA's measured special cases."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from nxcc.ir import dtypes
from nxcc.ir.hlo.attributes import ConvolutionDimensions, Window, WindowDimension
from nxcc.ir.hlo.operator import ShapeError
from nxcc.ir.hlo.ops import contraction
from nxcc.ir.hlo.ops.contraction import product
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


INTEGERS = [(np.int8, dtypes.S8), (np.int8, dtypes.S32), (np.int32, dtypes.S32), (np.int64, dtypes.S64),
            (np.uint64, dtypes.U64)]


@pytest.mark.parametrize(("source", "row"), INTEGERS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_integer_products_are_exact_and_wrap(source: Any, row: dtypes.DType) -> None:
    info, generator = np.iinfo(source), np.random.default_rng(3)
    x = generator.integers(info.min, info.max, (3, 40), dtype=source, endpoint=True)
    y = generator.integers(info.min, info.max, (40, 2), dtype=source, endpoint=True)
    exact = [[sum(int(a) * int(b) for a, b in zip(line, column, strict=True)) % 2**row.bits for column in y.T] for line in x]
    assert (product(x, y, row).astype(object) % 2**row.bits).tolist() == exact


def test_pred_dot_is_or_of_ands() -> None:
    x, y = np.array([[True, True], [False, True]]), np.array([[True], [False]])
    assert result_of("dot", x, y, **MATMUL).tolist() == [[True], [False]]


def test_big_narrow_operand_is_widened_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = random(20, 20), random(20, 31, seed=1).astype(ml_dtypes.bfloat16)
    whole = product(x, y, dtypes.F32)
    monkeypatch.setattr(contraction, "_PIECE_ELEMENTS", 64)
    np.testing.assert_allclose(product(x, y, dtypes.F32), whole, rtol=1e-4, atol=1e-5)


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


def one_dimensional(**window: Any) -> dict[str, Any]:
    return {"window": Window((WindowDimension(**window),)),
            "dim_labels": ConvolutionDimensions(0, 1, (2,), 1, 0, (2,), 0, 1, (2,))}


def line(*values: float) -> Array:
    return np.array(values, np.float32).reshape(1, 1, -1)


CONVOLUTIONS = [
    ("correlation", {"size": 2}, (21, 32, 43)),
    ("reversal", {"size": 2, "reversal": True}, (12, 23, 34)),
    ("stride", {"size": 2, "stride": 2}, (21, 43)),
    ("padding", {"size": 2, "padding_low": 1, "padding_high": 1}, (10, 21, 32, 43, 4)),
    ("crop", {"size": 2, "padding_low": -1}, (32, 43)),
    ("base-dilation", {"size": 2, "base_dilation": 2}, (1, 20, 2, 30, 3, 40)),
    ("window-dilation", {"size": 2, "window_dilation": 2}, (31, 42)),
    ("crop-of-dilated", {"size": 2, "base_dilation": 2, "padding_low": -1, "padding_high": 1}, (20, 2, 30, 3, 40, 4)),
    ("no-place", {"size": 2, "padding_low": -2, "padding_high": -2}, ()),
]


@pytest.mark.parametrize(("window", "expected"), [row[1:] for row in CONVOLUTIONS], ids=[row[0] for row in CONVOLUTIONS])
def test_convolution_windows(window: dict[str, Any], expected: tuple[float, ...]) -> None:
    result = result_of("convolution", line(1, 2, 3, 4), line(1, 10), **one_dimensional(**window))
    assert result.ravel().tolist() == list(expected)


def defined_convolution(x: Array, kernel: Array, stride: int, groups: int, batch_groups: int) -> Array:
    """NCHW and OIHW by the definition: output block k reads feature block k, or batch block k."""
    outputs, channels, height, width = kernel.shape
    batch = x.shape[0] // batch_groups
    rows, columns = (x.shape[2] - height) // stride + 1, (x.shape[3] - width) // stride + 1
    result = np.zeros((batch, outputs, rows, columns))
    for n, o, i, j in itertools.product(range(batch), range(outputs), range(rows), range(columns)):
        group, batch_group = o // (outputs // groups), o // (outputs // batch_groups)
        patch = x[batch_group * batch + n, group * channels:(group + 1) * channels, i * stride:i * stride + height,
                  j * stride:j * stride + width]
        result[n, o, i, j] = (patch * kernel[o]).sum()
    return result


@pytest.mark.parametrize(("groups", "batch_groups", "channels"), [(1, 1, 3), (2, 1, 3), (3, 1, 1), (1, 2, 3)])
def test_convolution_groups(groups: int, batch_groups: int, channels: int) -> None:
    x, kernel = random(4, channels * groups, 6, 7), random(6, channels, 3, 2, seed=1)
    window = Window((WindowDimension(3, stride=2), WindowDimension(2, stride=2)))
    labels = ConvolutionDimensions(0, 1, (2, 3), 1, 0, (2, 3), 0, 1, (2, 3))
    result = result_of("convolution", x, kernel, window=window, dim_labels=labels, feature_group_count=groups,
                       batch_group_count=batch_groups)
    np.testing.assert_allclose(result, defined_convolution(x, kernel, 2, groups, batch_groups), rtol=1e-4, atol=1e-5)


def test_convolution_places_dimensions_as_labelled() -> None:
    x, kernel = random(2, 3, 5, 6), random(4, 3, 2, 2, seed=1)
    window = Window((WindowDimension(2), WindowDimension(2)))
    plain = defined_convolution(x, kernel, 1, 1, 1)
    labels = ConvolutionDimensions(3, 0, (1, 2), 2, 3, (0, 1), 1, 3, (2, 0))
    result = result_of("convolution", x.transpose(1, 2, 3, 0), kernel.transpose(2, 3, 1, 0), window=window, dim_labels=labels)
    np.testing.assert_allclose(result, plain.transpose(3, 0, 2, 1), rtol=1e-4, atol=1e-5)


def test_convolution_without_spatial_dimensions_is_a_matrix_product() -> None:
    x, kernel = random(3, 4), random(4, 5, seed=1)
    labels = ConvolutionDimensions(0, 1, (), 0, 1, (), 0, 1, ())
    np.testing.assert_allclose(result_of("convolution", x, kernel, dim_labels=labels), x @ kernel, rtol=1e-5)


def test_convolution_gathers_windows_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x, kernel = random(3, 2, 6, 7), random(4, 2, 3, 2, seed=1)
    window = Window((WindowDimension(3), WindowDimension(2)))
    labels = ConvolutionDimensions(0, 1, (2, 3), 1, 0, (2, 3), 0, 1, (2, 3))
    monkeypatch.setattr(contraction, "_PIECE_ELEMENTS", 30)
    result = result_of("convolution", x, kernel, window=window, dim_labels=labels)
    np.testing.assert_allclose(result, defined_convolution(x, kernel, 1, 1, 1), rtol=1e-4, atol=1e-5)


def test_integer_convolution_wraps() -> None:
    x, kernel = np.full((1, 1, 3), 100, np.int8), np.full((1, 1, 2), 2, np.int8)
    assert result_of("convolution", x, kernel, **one_dimensional(size=2)).ravel().tolist() == [-112, -112]


def test_fft_types_agree_with_the_definition() -> None:
    x = random(2, 4, 6)
    half = result_of("fft", x, fft_type="RFFT", fft_length=(4, 6))
    np.testing.assert_allclose(half, np.fft.fft2(x)[..., :4], atol=1e-5)
    np.testing.assert_allclose(result_of("fft", half, fft_type="IRFFT", fft_length=(4, 6)), x, atol=1e-6)
    whole = result_of("fft", x.astype(np.complex64), fft_type="FFT", fft_length=(6,))
    np.testing.assert_allclose(result_of("fft", whole, fft_type="IFFT", fft_length=(6,)), x, atol=1e-6)


@pytest.mark.parametrize("lower", [True, False])
def test_cholesky_reads_and_writes_one_triangle(lower: bool) -> None:
    root = np.tril(random(3, 3)) + 3 * np.eye(3, dtype=np.float32)
    matrix = root @ root.T
    triangle = np.tril(matrix) if lower else np.triu(matrix)
    factor = result_of("cholesky", triangle, lower=lower)
    np.testing.assert_allclose(factor, root if lower else root.T, rtol=1e-4, atol=1e-6)


def test_cholesky_of_indefinite_matrix_is_nan() -> None:
    assert np.isnan(result_of("cholesky", -np.eye(2, dtype=np.float32), lower=True)).all()


TRIANGULAR = list(itertools.product((True, False), (True, False), (True, False), ("NO_TRANSPOSE", "TRANSPOSE", "ADJOINT")))


@pytest.mark.parametrize(("left", "lower", "unit", "transpose"), TRIANGULAR)
def test_triangular_solve_solves(left: bool, lower: bool, unit: bool, transpose: str) -> None:
    a = random(2, 3, 3) + 1j * random(2, 3, 3, seed=1) + 4 * np.eye(3)
    b = (random(2, 3, 2, seed=2) if left else random(2, 2, 3, seed=2)).astype(np.complex128)
    x = result_of("triangular-solve", a, b, left_side=left, lower=lower, unit_diagonal=unit, transpose_a=transpose)
    triangle = np.tril(a) if lower else np.triu(a)
    if unit:
        triangle[..., range(3), range(3)] = 1
    turned = triangle.swapaxes(1, 2)
    full = {"NO_TRANSPOSE": triangle, "TRANSPOSE": turned, "ADJOINT": turned.conj()}[transpose]
    np.testing.assert_allclose(full @ x if left else x @ full, b, atol=1e-12)


LABELS = ConvolutionDimensions(0, 1, (2,), 1, 0, (2,), 0, 1, (2,))
REFUSED = [
    ("dot", (array(dtypes.F32, 2, 3), array(dtypes.F32, 4, 2)), MATMUL, "differ in size"),
    ("dot", (array(dtypes.F32, 2, 3), array(dtypes.F32, 3, 2)), MATMUL | {"lhs_contracting_dims": (2,)}, "distinct dimensions"),
    ("dot", (array(dtypes.F32, 2, 3), array(dtypes.F32, 3, 2)), {"lhs_contracting_dims": (1,)}, "as many contracting"),
    ("convolution", (array(dtypes.F32, 1, 2, 4), array(dtypes.F32, 1, 3, 2)),
     {"window": Window((WindowDimension(2),)), "dim_labels": LABELS}, "the input has 2"),
    ("convolution", (array(dtypes.F32, 1, 2, 4), array(dtypes.F32, 1, 2, 2)),
     {"window": Window((WindowDimension(3),)), "dim_labels": LABELS}, "window size 3"),
    ("fft", (array(dtypes.F32, 4),), {"fft_type": "FFT", "fft_length": (4,)}, "complex"),
    ("cholesky", (array(dtypes.F32, 2, 3),), {}, "square"),
]


@pytest.mark.parametrize(("opcode", "shapes", "attributes", "reason"), REFUSED, ids=[f"{r[0]}-{r[3]}" for r in REFUSED])
def test_wrong_operands_are_refused(opcode: str, shapes: tuple[Shape, ...], attributes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ShapeError, match=reason):
        instruction_on(opcode, *shapes, **attributes)
