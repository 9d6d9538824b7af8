"""Custom calls that stand for routines of LAPACK: what jax emits when it lowers for CPU, and XLA's own two for QR.

Results are those of the routine of that name, places that it leaves alone included, in the order of jax's FFI: what is
overwritten first, `info` (0, or the routine's complaint, one a matrix) last. Options are characters in backend_config, as
`{uplo = 76 : ui8}`. Leading dimensions are batches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.ops.checks import need
from nxcc.ir.hlo.ops.custom_call import CustomCall, Dims, config_text, wrong_use

Array = np.ndarray[Any, Any]
_OPTION = re.compile(r"(\w+) *= *(\d+) *: *ui8")


def _options(instruction: Instruction, **known: str) -> dict[str, str]:
    """The letter of each option; known: the letters that it may have."""
    found = {key: chr(int(value)) for key, value in _OPTION.findall(config_text(instruction))}
    for key, letters in known.items():
        if found.get(key, " ") not in letters:
            raise wrong_use(instruction, f"its backend_config must give {key} as the number of one of {', '.join(letters)}")
    return found


def _routine(name: str, *operands: Array) -> Any:
    from scipy.linalg import blas, lapack  # type: ignore[import-untyped]
    if name == "trsm":
        return blas.get_blas_funcs(name, operands)
    return lapack.get_lapack_funcs(name, operands)


def _batched(instruction: Instruction, ranks: Sequence[int], values: Sequence[Array], one: Callable[..., Sequence[Any]]) -> Any:
    """`one` of each batch, put into arrays of the declared shapes. ranks: of the operands of one."""
    shapes = instruction.shape.elements if instruction.shape.is_tuple else (instruction.shape,)
    results = [np.zeros(shape.dims, shape.dtype.numpy) for shape in shapes]
    for place in np.ndindex(values[0].shape[:values[0].ndim - ranks[0]]):
        for result, part in zip(results, one(*(value[place] for value in values)), strict=True):
            result[place] = part
    return tuple(results) if instruction.shape.is_tuple else results[0]


def _cholesky(instruction: Instruction, x: Array) -> Any:
    lower = _options(instruction, uplo="LU")["uplo"] == "L"
    routine = _routine("potrf", x)
    return _batched(instruction, (2,), (x,), lambda one: routine(one, lower=lower, clean=False))


def _lu(instruction: Instruction, x: Array) -> Any:
    """Factors, the rows that were exchanged, counted from 1, and info."""
    routine = _routine("getrf", x)

    def factors(one: Array) -> tuple[Array, Array, int]:
        packed, rows, info = routine(one)
        return packed, rows + 1, info

    return _batched(instruction, (2,), (x,), factors)


def _triangular_solve(instruction: Instruction, a: Array, b: Array) -> Any:
    options = _options(instruction, side="LR", uplo="LU", trans_x="NTC", diag="NU")
    routine = _routine("trsm", a, b)

    def solved(a: Array, b: Array) -> tuple[Array]:
        return (routine(1.0, a, b, side=options["side"] == "R", lower=options["uplo"] == "L",
                        trans_a="NTC".index(options["trans_x"]), diag=options["diag"] == "U"),)

    return _batched(instruction, (2, 2), (a, b), solved)


def _tridiagonal_solve(instruction: Instruction, below: Array, diagonal: Array, above: Array, b: Array) -> Any:
    """The first element of the diagonal below and the last of the one above have no place in the matrix."""
    routine = _routine("gtsv", diagonal, b)

    def solved(below: Array, diagonal: Array, above: Array, b: Array) -> tuple[Any, ...]:
        *_, x, info = routine(below[1:], diagonal, above[:-1], b)
        return below, diagonal, above, x, info

    return _batched(instruction, (1, 1, 1, 2), (below, diagonal, above, b), solved)


def _symmetric_eigen(instruction: Instruction, x: Array) -> Any:
    """Eigenvectors in columns, eigenvalues in rising order, info."""
    options = _options(instruction, mode="VN", uplo="LU")
    routine = _routine("heevd" if x.dtype.kind == "c" else "syevd", x)

    def eigen(one: Array) -> tuple[Array, Array, int]:
        values, vectors, info = routine(one, compute_v=options["mode"] == "V", lower=options["uplo"] == "L")
        return vectors, values, info

    return _batched(instruction, (2,), (x,), eigen)


def _singular(instruction: Instruction, x: Array) -> Any:
    """What is left of the operand, which nobody reads, singular values, both sets of vectors, info."""
    mode = _options(instruction, mode="SAN")["mode"]
    routine = _routine("gesdd", x)

    def parts(one: Array) -> tuple[Any, ...]:
        u, values, v, info = routine(one, compute_uv=mode != "N", full_matrices=mode == "A")
        return one, values, *((u, v) if mode != "N" else (0, 0)), info

    return _batched(instruction, (2,), (x,), parts)


def _qr(instruction: Instruction, x: Array) -> Any:
    """R on and above the diagonal, reflectors below, and their factors."""
    packed, factors = np.linalg.qr(x.astype(np.result_type(x, np.float64)), mode="raw")
    parts = (packed.swapaxes(-1, -2), factors)
    return tuple(part.astype(shape.dtype.numpy) for part, shape in zip(parts, instruction.shape.elements, strict=True))


def _householder_product(instruction: Instruction, packed: Array, factors: Array) -> Array:
    """Q = H0 H1 ..., with Hi = I - factor_i v v^H, v = 1 at i and the packed column below; the first columns of it."""
    wide = np.result_type(packed, np.float64)
    rows, columns = packed.shape[-2:]
    result = np.broadcast_to(np.eye(rows, columns, dtype=wide), packed.shape).copy()
    for i in reversed(range(factors.shape[-1])):
        vector = np.where(np.arange(rows) > i, packed[..., :, i].astype(wide), np.arange(rows) == i)
        along = np.matmul(vector.conj()[..., None, :], result)
        result -= factors[..., i, None, None].astype(wide) * vector[..., :, None] * along
    return result.astype(instruction.shape.dtype.numpy)


def _qr_results(instruction: Instruction) -> list[Dims]:
    x = instruction.operands[0].shape
    need(x.is_array and x.rank > 1, f"a matrix is wanted, not {x}")
    return [x.dims, (*x.dims[:-2], min(x.dims[-2:]))]


def _product_results(instruction: Instruction) -> list[Dims]:
    packed, factors = (operand.shape for operand in instruction.operands)
    need(packed.rank > 1 and factors.dims[:-1] == packed.dims[:-2] and factors.rank == packed.rank - 1
         and factors.dims[-1] <= packed.dims[-1], f"reflectors {packed} and factors {factors} do not fit together")
    return [packed.dims]


_LAPACK: dict[str, tuple[int, Callable[..., Any]]] = {
    "potrf": (1, _cholesky), "getrf": (1, _lu), "trsm": (2, _triangular_solve), "gtsv": (4, _tridiagonal_solve),
    "geqrf": (1, _qr), "orgqr": (2, _householder_product), "ungqr": (2, _householder_product),
    "syevd": (1, _symmetric_eigen), "heevd": (1, _symmetric_eigen), "gesdd": (1, _singular)}
ROUTINES = (
    CustomCall("Qr", 1, _qr, results=_qr_results),
    CustomCall("ProductOfElementaryHouseholderReflectors", 2, _householder_product, results=_product_results),
    *(CustomCall(f"lapack_{kind}{name}_ffi", operands, evaluate)
      for kind in "sdcz" for name, (operands, evaluate) in _LAPACK.items()))
