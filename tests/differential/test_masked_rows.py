"""Attention with -inf for what is masked: rows of which everything is masked are NaN, and no others are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nxcc.compiler.driver import Request, compile_file
from nxcc.compiler.options import options_from
from nxcc.compiler.runtime.loaded import load
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text

ATTENTION = """HloModule m
big { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT m = f32[] maximum(a, b) }
add { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT m = f32[] add(a, b) }
ENTRY main {
  q = f32[HEADS,ROWS,32] parameter(0)
  k = f32[HEADS,KEYS,32] parameter(1)
  v = f32[HEADS,KEYS,32] parameter(2)
  mask = MASK[ROWS,KEYS] parameter(3)
  each = MASK[HEADS,ROWS,KEYS] broadcast(mask), dimensions={1,2}
  f = f32[HEADS,ROWS,KEYS] dot(q, k), lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2},
      rhs_contracting_dims={2}
  low = f32[] constant(-inf)
  nothing = f32[HEADS,ROWS,KEYS] broadcast(low), dimensions={}
  s = f32[HEADS,ROWS,KEYS] APPLIED
  m = f32[HEADS,ROWS] reduce(s, low), dimensions={2}, to_apply=big
  c = f32[HEADS,ROWS,KEYS] broadcast(m), dimensions={0,1}
  x = f32[HEADS,ROWS,KEYS] subtract(s, c)
  e = f32[HEADS,ROWS,KEYS] exponential(x)
  zero = f32[] constant(0)
  t = f32[HEADS,ROWS] reduce(e, zero), dimensions={2}, to_apply=add
  u = f32[HEADS,ROWS,KEYS] broadcast(t), dimensions={0,1}
  p = f32[HEADS,ROWS,KEYS] divide(e, u)
  ROOT o = f32[HEADS,ROWS,32] dot(p, v), lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2},
      rhs_contracting_dims={1}
}
"""


@pytest.mark.parametrize(("heads", "rows", "keys"), [(2, 96, 200), (1, 128, 1024)])
@pytest.mark.parametrize("form", ["chosen", "added"])
def test_a_row_without_keys_is_nan_alone(form: str, heads: int, rows: int, keys: int, tmp_path: Path) -> None:
    text = ATTENTION.replace("APPLIED", "select(each, f, nothing)" if form == "chosen" else "add(f, each)")
    for word, value in (("MASK", "pred" if form == "chosen" else "f32"), ("HEADS", heads), ("ROWS", rows), ("KEYS", keys)):
        text = text.replace(word, str(value))
    random = np.random.default_rng(0)
    inputs = [random.normal(size=(heads, size, 32)).astype(np.float32) for size in (rows, keys, keys)]
    keep = np.ones((rows, keys), bool)
    keep[::2, : keys * 3 // 4] = False
    keep[1] = False
    inputs.append(keep if form == "chosen" else np.where(keep, 0, -np.inf).astype(np.float32))
    (want,) = flatten(evaluate(read_text(text), inputs))
    (tmp_path / "m.hlo").write_text(text)
    compile_file(Request(str(tmp_path / "m.hlo"), options_from(output=str(tmp_path / "m.neff"), optlevel="2")))
    (got,) = load(str(tmp_path / "m.neff")).run(inputs)
    assert np.isnan(want[:, 1]).all() and np.isnan(want).sum() == want[:, 1].size
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    assert np.nanmax(np.abs(got - want)) <= 1e-5 * np.nanmax(np.abs(want))
