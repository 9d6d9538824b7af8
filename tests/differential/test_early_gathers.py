"""Gathers before elementwise work, scatters as choices, short windows of small tables."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from harness.clocked import microseconds
from harness.whole import check_whole

HEAD = """HloModule m
c { a = f32[] parameter(0) b = f32[] parameter(1) ROOT r = f32[] OPCODE(a, b) }
"""
NAMED = "offset_dims={}, collapsed_slice_dims={0,1}, start_index_map={0,1}, index_vector_dim=1, slice_sizes={1,1}"
SHARED = "offset_dims={}, collapsed_slice_dims={1}, start_index_map={1}, operand_batching_dims={0}, " \
         "start_indices_batching_dims={0}, index_vector_dim=2, slice_sizes={1,1}"
CHANGED = "update_window_dims={}, inserted_window_dims={1}, scatter_dims_to_operand_dims={1}, input_batching_dims={0}, " \
          "scatter_indices_batching_dims={0}, index_vector_dim=1"


def cross_entropy(rows: int, columns: int, gather: str, indices: str) -> str:
    """Minus the logarithm of the probability of each row's label. indices: of the labels y."""
    return HEAD.replace("OPCODE", "add") + f"""ENTRY main {{
  x = f32[{rows},{columns}] parameter(0)
  y = s32[{rows}] parameter(1)
  zero = f32[] constant(0)
  e = f32[{rows},{columns}] exponential(x)
  l = f32[{rows}] reduce(e, zero), dimensions={{1}}, to_apply=c
  m = f32[{rows}] log(l)
  b = f32[{rows},{columns}] broadcast(m), dimensions={{0}}
  w = f32[{rows},{columns}] subtract(x, b)
  {indices}
  g = f32[{rows},1] gather(w, n), {gather}
  ROOT r = f32[{rows},1] negate(g)
}}
"""


def labels(rows: int, columns: int, seed: int = 3) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(size=(rows, columns)).astype(np.float32),
            random.integers(-2, columns + 2, rows).astype(np.int32)]


def test_label_of_each_row() -> None:
    shared = cross_entropy(150, 40, SHARED, "n = s32[150,1,1] reshape(y)")
    check_whole(shared, labels(150, 40), strict=True)
    named = cross_entropy(150, 40, NAMED.replace("index_vector_dim=1", "index_vector_dim=2"),
                          "i = s32[150,1,1] iota(), iota_dimension=0\n k = s32[150,1,1] reshape(y)\n"
                          "n = s32[150,1,2] concatenate(i, k), dimensions={2}")
    check_whole(named, labels(150, 40))


@pytest.mark.parametrize("opcode", ("add", "maximum", "multiply"))
@pytest.mark.parametrize("zeros", (True, False))
def test_one_element_of_each_row(opcode: str, zeros: bool) -> None:
    operand = "z = f32[] constant(0)\n x = f32[70,9] broadcast(z), dimensions={}" if zeros else "x = f32[70,9] parameter(2)"
    text = HEAD.replace("OPCODE", opcode) + f"""ENTRY main {{
  u = f32[70] parameter(0)
  y = s32[70,1] parameter(1)
  {operand}
  ROOT s = f32[70,9] scatter(x, y, u), {CHANGED}, to_apply=c
}}
"""
    values, places = labels(70, 9)
    check_whole(text, [values[:, 0], places[:, None], values][:2 + (not zeros)], strict=True)


def test_short_windows() -> None:
    text = """HloModule m
ENTRY main {
  t = bf16[60,6] parameter(0)
  i = s16[40,33] parameter(1)
  g = bf16[40,33,6] gather(t, i), offset_dims={2}, collapsed_slice_dims={0}, start_index_map={0}, index_vector_dim=2,
    slice_sizes={1,6}
  ROOT r = bf16[6,40,33] transpose(g), dimensions={2,0,1}
}
"""
    random = np.random.default_rng(8)
    places = random.integers(-3, 70, (40, 33)).astype(np.int16)
    check_whole(text, [random.normal(size=(60, 6)).astype(ml_dtypes.bfloat16), places], strict=True)


def test_times() -> None:
    """Of 1024 labels among 32,000: 131 MB are read, and were written and read again."""
    assert microseconds(cross_entropy(1024, 32000, SHARED, "n = s32[1024,1,1] reshape(y)")) < 1500
