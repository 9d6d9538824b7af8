"""Products of stacks of matrices: exact and wrapping integers, and pieces of wide operands."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from nxcc.ir import dtypes
from nxcc.ir.hlo.ops import matrix_products
from nxcc.ir.hlo.ops.matrix_products import product

Array = np.ndarray[Any, Any]


def random(*dims: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(dims).astype(np.float32)


INTEGERS = [(np.int8, dtypes.S8), (np.int8, dtypes.S32), (np.int32, dtypes.S32), (np.int64, dtypes.S64),
            (np.uint64, dtypes.U64)]


@pytest.mark.parametrize(("source", "row"), INTEGERS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_integer_products_are_exact_and_wrap(source: Any, row: dtypes.DType) -> None:
    info, generator = np.iinfo(source), np.random.default_rng(3)
    x = generator.integers(info.min, info.max, (3, 40), dtype=source, endpoint=True)
    y = generator.integers(info.min, info.max, (40, 2), dtype=source, endpoint=True)
    exact = [[sum(int(a) * int(b) for a, b in zip(line, column, strict=True)) % 2**row.bits for column in y.T] for line in x]
    assert (product(x, y, row).astype(object) % 2**row.bits).tolist() == exact


def test_big_narrow_operand_is_widened_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = random(20, 20), random(20, 31, seed=1).astype(ml_dtypes.bfloat16)
    whole = product(x, y, dtypes.F32)
    monkeypatch.setattr(matrix_products, "PIECE_ELEMENTS", 64)
    np.testing.assert_allclose(product(x, y, dtypes.F32), whole, rtol=1e-4, atol=1e-5)
