"""Dense linear algebra: Fourier transforms, Cholesky factors and triangular solves, which compute in f64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nxcc.ir import dtypes
from nxcc.ir.hlo.attributes import (
    CHOLESKY_LOWER,
    FFT_LENGTH,
    FFT_TYPE,
    TRIANGULAR_SOLVE,
)
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.operator import ShapeError, operator
from nxcc.ir.hlo.ops.checks import agreeing_dtype
from nxcc.ir.shapes import Shape

Array = np.ndarray[Any, Any]
Dims = tuple[int, ...]


# fft

_COMPLEX_OF = {dtypes.F32: dtypes.C64, dtypes.F64: dtypes.C128, dtypes.C64: dtypes.C64, dtypes.C128: dtypes.C128}
_REAL_OF = {dtypes.C64: dtypes.F32, dtypes.C128: dtypes.F64}


def _fft_shape(x: Shape, fft_type: str, fft_length: Dims) -> Shape:
    if fft_type not in _TRANSFORMS:
        raise ShapeError(f"fft has no type {fft_type}")
    if not 1 <= len(fft_length) <= x.rank:
        raise ShapeError(f"fft over {len(fft_length)} dimensions needs as many in {x}")
    takes_complex = fft_type != "RFFT"
    if x.dtype.is_complex != takes_complex or x.dtype not in _COMPLEX_OF:
        raise ShapeError(f"fft of type {fft_type} takes {'complex' if takes_complex else 'f32 or f64'} elements, not {x.dtype}")
    lengths = tuple(fft_length)
    half = (*lengths[:-1], lengths[-1] // 2 + 1)
    expected = half if fft_type == "IRFFT" else lengths
    if x.dims[-len(lengths):] != expected:
        raise ShapeError(f"fft of type {fft_type} and length {list(lengths)} takes last dimensions {list(expected)}, not {x}")
    last = half if fft_type == "RFFT" else lengths
    return Shape(_REAL_OF[x.dtype] if fft_type == "IRFFT" else _COMPLEX_OF[x.dtype], x.dims[:-len(lengths)] + last)


_TRANSFORMS: dict[str, Callable[..., Array]] = {
    "FFT": np.fft.fftn, "IFFT": np.fft.ifftn, "RFFT": np.fft.rfftn, "IRFFT": np.fft.irfftn}


def _fft(instruction: Instruction, x: Array) -> Array:
    lengths = instruction.attribute("fft_length")
    wide = np.complex128 if x.dtype.kind == "c" else np.float64
    if 0 in instruction.shape.dims:
        return np.zeros(instruction.shape.dims, instruction.shape.dtype.numpy)
    transform = _TRANSFORMS[instruction.attribute("fft_type")]
    result = transform(x.astype(wide), s=lengths, axes=range(x.ndim - len(lengths), x.ndim))
    return result.astype(instruction.shape.dtype.numpy)


operator("fft", 1, attributes=(FFT_TYPE, FFT_LENGTH), shape=_fft_shape, evaluate=_fft)


# cholesky and triangular-solve

def _check_square(name: str, x: Shape) -> None:
    if x.rank < 2 or x.dims[-1] != x.dims[-2]:
        raise ShapeError(f"{name} takes matrices that are square in the last two dimensions, not {x}")
    if not (x.dtype.is_float or x.dtype.is_complex):
        raise ShapeError(f"{name} takes float or complex elements, not {x.dtype}")


def _cholesky_shape(x: Shape, lower: bool) -> Shape:
    _check_square("cholesky", x)
    return x


def _factor(matrix: Array, lower: bool) -> Array:
    """The Cholesky factor; NaN throughout where the matrix is not positive definite. The other triangle is never read."""
    try:
        return np.linalg.cholesky(matrix, upper=not lower)
    except np.linalg.LinAlgError:
        return np.full_like(matrix, np.nan)


def _cholesky(instruction: Instruction, x: Array) -> Array:
    wide = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    result = np.empty_like(wide)
    for index in np.ndindex(x.shape[:-2]):
        result[index] = _factor(wide[index], instruction.attribute("lower"))
    return result.astype(instruction.shape.dtype.numpy)


operator("cholesky", 1, attributes=(CHOLESKY_LOWER,), shape=_cholesky_shape, evaluate=_cholesky)


def _triangular_solve_shape(a: Shape, b: Shape, *, left_side: bool, **_: Any) -> Shape:
    _check_square("triangular-solve", a)
    agreeing_dtype("triangular-solve", (a, b))
    if b.rank != a.rank or b.dims[:-2] != a.dims[:-2]:
        raise ShapeError(f"triangular-solve takes operands of equal batch dimensions, not {a} and {b}")
    if b.dims[-2 if left_side else -1] != a.dims[-1]:
        raise ShapeError(f"triangular-solve with a on the {'left' if left_side else 'right'}: {a} does not fit {b}")
    return b


_TRANSPOSES = {"NO_TRANSPOSE": lambda a: a, "TRANSPOSE": lambda a: a.swapaxes(-1, -2),
               "ADJOINT": lambda a: np.conj(a).swapaxes(-1, -2), "TRANSPOSE_INVALID": lambda a: a}


def _solve_lower(a: Array, b: Array, unit_diagonal: bool) -> Array:
    """Forward substitution over the rows, for all batches and right-hand sides at once; never reads above the diagonal."""
    x = np.empty_like(b)
    for row in range(a.shape[-1]):
        known = np.matmul(a[..., row:row + 1, :row], x[..., :row, :])[..., 0, :]
        rest = b[..., row, :] - known
        x[..., row, :] = rest if unit_diagonal else rest / a[..., row, row, None]
    return x


def _triangular_solve(instruction: Instruction, a: Array, b: Array) -> Array:
    """op(a) x = b or x op(a) = b, brought to a lower triangle on the left by transposing and reversing."""
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    transpose, lower = instruction.attribute("transpose_a"), instruction.attribute("lower")
    matrix, known = _TRANSPOSES[transpose](a.astype(wide)), b.astype(wide)
    is_lower = lower == (transpose in ("NO_TRANSPOSE", "TRANSPOSE_INVALID"))
    left_side = instruction.attribute("left_side")
    if not left_side:
        matrix, known, is_lower = matrix.swapaxes(-1, -2), known.swapaxes(-1, -2), not is_lower
    if not is_lower:
        matrix, known = matrix[..., ::-1, ::-1], known[..., ::-1, :]
    solved = _solve_lower(matrix, known, instruction.attribute("unit_diagonal"))
    solved = solved if is_lower else solved[..., ::-1, :]
    return (solved if left_side else solved.swapaxes(-1, -2)).astype(instruction.shape.dtype.numpy)


operator("triangular-solve", 2, attributes=TRIANGULAR_SOLVE, shape=_triangular_solve_shape, evaluate=_triangular_solve)
