"""Custom calls that stand for routines of LAPACK, held against what the factors must give again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nxcc.ir.diagnostics import CompileError

from harness.hlo_text import value_of

A = np.random.default_rng(1).normal(size=(2, 4, 4))
SYMMETRIC = A @ A.swapaxes(-1, -2) + np.eye(4)
NAMES = {np.dtype(np.float32): ("f32", "s"), np.dtype(np.float64): ("f64", "d"), np.dtype(np.complex64): ("c64", "c")}


def called(routine: str, result: str, config: str, *values: np.ndarray[Any, Any]) -> Any:
    """The routine of the first value's type; T and R in the result are its type and the real one."""
    word, letter = NAMES[values[0].dtype]
    text = [f"p{n} = {word}[{','.join(map(str, v.shape))}] parameter({n})" for n, v in enumerate(values)]
    shape = result.replace("T", word).replace("R", "f32" if word == "c64" else word)
    names = ", ".join(f"p{n}" for n in range(len(values)))
    text.append(f'ROOT r = {shape} custom-call({names}), custom_call_target="lapack_{letter}{routine}_ffi", '
                f"backend_config={{{config}}}, api_version=API_VERSION_TYPED_FFI")
    return value_of(" ".join(text), *values)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize("uplo", "LU")
def test_cholesky_leaves_the_other_triangle_alone(uplo: str, dtype: Any) -> None:
    x = SYMMETRIC.astype(dtype)
    factor, info = called("potrf", "(T[2,4,4], s32[2])", f"uplo = {ord(uplo)} : ui8", x)
    keep, other = (np.tril, np.triu) if uplo == "L" else (np.triu, np.tril)
    half = keep(factor)
    again = half @ half.swapaxes(-1, -2) if uplo == "L" else half.swapaxes(-1, -2) @ half
    np.testing.assert_allclose(again, SYMMETRIC, rtol=1e-4, atol=1e-4)
    strict = 1 if uplo == "L" else -1
    np.testing.assert_array_equal(other(factor, strict), other(x, strict))
    assert info.tolist() == [0, 0]


def test_cholesky_says_which_matrix_has_none() -> None:
    x = np.stack([np.eye(4), -np.eye(4)]).astype(np.float32)
    assert called("potrf", "(T[2,4,4], s32[2])", "uplo = 76 : ui8", x)[1].tolist() == [0, 1]


def test_lu_counts_rows_from_one() -> None:
    x = A[0].astype(np.float32)
    packed, rows, info = called("getrf", "(T[4,4], s32[4], s32[])", "", x)
    again = (np.tril(packed, -1) + np.eye(4)) @ np.triu(packed)
    for i in reversed(range(4)):
        again[[i, rows[i] - 1]] = again[[rows[i] - 1, i]]
    np.testing.assert_allclose(again, x, atol=1e-5)
    assert info == 0 and rows.min() >= 1


@pytest.mark.parametrize("side", "LR")
@pytest.mark.parametrize("transposed", "NT")
def test_triangular_solve(side: str, transposed: str) -> None:
    a, b = np.tril(A + 3 * np.eye(4)).astype(np.float32), A[:, :, :4].astype(np.float32)
    config = f"diag = {ord('N')} : ui8, side = {ord(side)} : ui8, trans_x = {ord(transposed)} : ui8, uplo = {ord('L')} : ui8"
    x = called("trsm", "T[2,4,4]", config, a, b)
    used = a if transposed == "N" else a.swapaxes(-1, -2)
    np.testing.assert_allclose(used @ x if side == "L" else x @ used, b, atol=1e-4)


def test_tridiagonal_solve_reads_inside_the_matrix_only() -> None:
    below, diagonal, above = (np.array(v, np.float32) for v in ([99, 1, 2], [5, 6, 7], [1, 2, 99]))
    b = A[0, :3, :2].astype(np.float32)
    x = called("gtsv", "(T[3], T[3], T[3], T[3,2], s32[])", "", below, diagonal, above, b)[3]
    whole = np.diag(diagonal) + np.diag(below[1:], -1) + np.diag(above[:-1], 1)
    np.testing.assert_allclose(whole @ x, b, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.complex64])
def test_qr_and_the_product_of_its_reflectors(dtype: Any) -> None:
    x = (A[0] + (1j * A[1] if dtype is np.complex64 else 0)).astype(dtype)
    packed, factors = called("geqrf", "(T[4,4], T[4])", "", x)
    q = called("ungqr" if dtype is np.complex64 else "orgqr", "T[4,4]", "", packed, factors)
    np.testing.assert_allclose(q @ np.triu(packed), x, atol=1e-5)
    np.testing.assert_allclose(q.conj().T @ q, np.eye(4), atol=1e-5)


@pytest.mark.parametrize(("routine", "dtype"), [("syevd", np.float32), ("heevd", np.complex64)])
def test_eigenvectors_of_symmetric_matrices(routine: str, dtype: Any) -> None:
    config = f"mode = {ord('V')} : ui8, uplo = {ord('L')} : ui8"
    vectors, values, info = called(routine, "(T[2,4,4], R[2,4], s32[2])", config, SYMMETRIC.astype(dtype))
    np.testing.assert_allclose(SYMMETRIC @ vectors, vectors * values[:, None], atol=1e-4)
    assert info.tolist() == [0, 0]


@pytest.mark.parametrize(("mode", "width"), [("S", 3), ("A", 4)])
def test_singular_values(mode: str, width: int) -> None:
    x = A[0, :, :3].astype(np.float32)
    _, values, u, v, info = called("gesdd", f"(T[4,3], T[3], T[4,{width}], T[3,3], s32[])", f"mode = {ord(mode)} : ui8", x)
    np.testing.assert_allclose(u[:, :3] * values @ v, x, atol=1e-5)
    assert info == 0


def test_options_that_are_missing_are_asked_for() -> None:
    with pytest.raises(CompileError, match="must give uplo"):
        called("potrf", "(T[2,4,4], s32[2])", "", SYMMETRIC.astype(np.float32))
