"""Casts at the border of a compiled module: between the dtypes that users see and those that the program computes in."""

from __future__ import annotations

import numpy as np

from nxcc.ir.diagnostics import INPUT_MISMATCH, CompileError
from nxcc.ir.dtypes import BF16, DType
from nxcc.ir.literals import Array


def cast(array: Array, wanted: DType, what: str) -> Array:
    """The values in another dtype.

    Integers must fit: CompileError(INPUT_MISMATCH) names the first that does not. Floats round to nearest even; a finite
    f32 or f64 too large for bf16 becomes its largest finite value, since masks hold the lowest float; for the other
    types it becomes an infinity.
    """
    if array.dtype == wanted.numpy:
        return array
    if wanted.is_integer and array.dtype.kind in "iu":
        return _cast_integer(array, wanted, what)
    with np.errstate(over="ignore", invalid="ignore"):
        found = array.astype(wanted.numpy)
    if wanted is BF16 and array.dtype.kind == "f":
        overflowed = np.isinf(found) & np.isfinite(array)
        if overflowed.any():
            largest = np.array(0x7F7F, np.uint16).view(wanted.numpy)
            found = np.where(overflowed, np.copysign(largest, found).astype(wanted.numpy), found)
    return np.asarray(found)


def _cast_integer(array: Array, wanted: DType, what: str) -> Array:
    found = array.astype(wanted.numpy)
    wrong = found.astype(array.dtype) != array
    if wanted.is_unsigned != (array.dtype.kind == "u"):
        wrong |= (found < 0) != (array < 0)
    if wrong.any():
        index = tuple(int(n) for n in np.argwhere(wrong)[0])
        raise CompileError(INPUT_MISMATCH, f"{what} holds {array[index]} at {list(index)}, which does not fit {wanted}",
                           why=f"the program computes in {wanted} there")
    return found
