"""Transforms, factors and solves against their definitions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from nxcc.ir import dtypes
from nxcc.ir.hlo.operator import ShapeError
from nxcc.ir.shapes import Shape, array

from harness.one_instruction import instruction_on, result_of

Array = np.ndarray[Any, Any]


def random(*dims: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(dims).astype(np.float32)


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


REFUSED = [
    ("fft", (array(dtypes.F32, 4),), {"fft_type": "FFT", "fft_length": (4,)}, "complex"),
    ("cholesky", (array(dtypes.F32, 2, 3),), {}, "square"),
]


@pytest.mark.parametrize(("opcode", "shapes", "attributes", "reason"), REFUSED, ids=[f"{r[0]}-{r[3]}" for r in REFUSED])
def test_wrong_operands_are_refused(opcode: str, shapes: tuple[Shape, ...], attributes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ShapeError, match=reason):
        instruction_on(opcode, *shapes, **attributes)
