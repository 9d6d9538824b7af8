"""A NaN or an infinity stays in its row: --relayout exact, which is the default of small modules, and runs made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nxcc.compiler.driver import Request, compile_file
from nxcc.compiler.options import options_from
from nxcc.compiler.runtime.loaded import load
from nxcc.compiler.verify import oracle_inside
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text

PRODUCT = """HloModule m
ENTRY main {
  x = T[96,160] parameter(0)
  w = T[200,160] parameter(1)
  t = T[96,160] add(x, x)
  ROOT d = T[96,200] dot(t, w), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}
"""
ROWS = """HloModule m
big { a = T[] parameter(0)
  b = T[] parameter(1)
  ROOT m = T[] maximum(a, b) }
add { a = T[] parameter(0)
  b = T[] parameter(1)
  ROOT m = T[] add(a, b) }
ENTRY main {
  x = T[96,160] parameter(0)
  w = T[160,64] parameter(1)
  low = T[] constant(-inf)
  m = T[96] reduce(x, low), dimensions={1}, to_apply=big
  c = T[96,160] broadcast(m), dimensions={0}
  s = T[96,160] subtract(x, c)
  e = T[96,160] exponential(s)
  zero = T[] constant(0)
  t = T[96] reduce(e, zero), dimensions={1}, to_apply=add
  d = T[96,160] broadcast(t), dimensions={0}
  p = T[96,160] divide(e, d)
  ROOT o = T[96,64] dot(p, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""
IMAGE = """HloModule m
ENTRY main {
  x = T[2,6,6,40] parameter(0)
  w = T[3,3,40,32] parameter(1)
  ROOT y = T[2,4,4,32] convolution(x, w), window={size=3x3}, dim_labels=b01f_01io->b01f
}
"""


@pytest.mark.parametrize(("level", "relayout"), [("1", "exact"), ("2", "exact"), ("2", "")])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("text", [PRODUCT, ROWS, IMAGE], ids=["product", "rows", "image"])
def test_what_is_not_finite_stays_where_it_is(text: str, dtype: str, level: str, relayout: str, tmp_path: Path) -> None:
    text = text.replace("T[", f"{dtype}[")
    module = read_text(text)
    random = np.random.default_rng(0)
    x, w = (np.asarray(random.normal(size=p.shape.dims)).astype(p.shape.dtype.numpy) for p in module.entry.parameters)
    x.reshape(-1)[7] = np.nan
    x.reshape(-1)[x.size // 2] = np.inf
    w = np.abs(w) if text.startswith(IMAGE.replace("T[", f"{dtype}[")) else w
    (want,) = (np.asarray(v, np.float32) for v in flatten(evaluate(module, [x, w])))
    (tmp_path / "m.hlo").write_text(text)
    options = options_from(output=str(tmp_path / "m.neff"), optlevel=level, relayout=relayout)
    compile_file(Request(str(tmp_path / "m.hlo"), options))
    (got,) = (np.asarray(v, np.float32) for v in load(str(tmp_path / "m.neff"), strict=True).run([x, w]))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[np.isinf(want)], want[np.isinf(want)])
    assert 0 < finite.sum() < want.size
    limit = 2.0**-6 if dtype == "bf16" else 2.0**-16
    assert np.abs(got[finite] - want[finite]).max() <= limit * np.abs(want[finite]).max()


@pytest.mark.parametrize("groups", [1, 16])
@pytest.mark.parametrize("target", ["v2", "v1"])
def test_padding_makes_nan_of_an_infinite_weight(target: str, groups: int, tmp_path: Path) -> None:
    """As XLA's CPU backend does, which multiplies the padding's zeros."""
    text = f"""HloModule m
ENTRY main {{
  x = f32[2,6,6,16] parameter(0)
  w = f32[3,3,{16 // groups},16] parameter(1)
  ROOT y = f32[2,6,6,16] convolution(x, w), window={{size=3x3 pad=1_1x1_1}}, dim_labels=b01f_01io->b01f,
    feature_group_count={groups}
}}
"""
    module = read_text(text)
    random = np.random.default_rng(0)
    x, w = (np.asarray(random.normal(size=p.shape.dims), np.float32) for p in module.entry.parameters)
    w[0, 1, 0, 3], w[2, 2, 0, 5] = -np.inf, np.nan
    (want,) = flatten(evaluate(module, [x, w]))
    (tmp_path / "m.hlo").write_text(text)
    compile_file(Request(str(tmp_path / "m.hlo"), options_from(output=str(tmp_path / "m.neff"), target=target)))
    (got,) = load(str(tmp_path / "m.neff")).run([x, w])
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(want))


def large(text: str, dtype: str) -> str:
    """Products that read more than 65,536 elements, so that operands are turned by products."""
    return text.replace("T[", f"{dtype}[").replace("96", "512").replace("160", "640")


@pytest.mark.parametrize("weights", ["", "1"])
@pytest.mark.parametrize(("text", "dtype", "target"), [(PRODUCT, "f32", "v2"), (PRODUCT, "bf16", "v2"), (ROWS, "bf16", "v2"),
                                                       (PRODUCT, "bf16", "v1")])
def test_a_run_in_which_a_nan_spreads_is_made_again(text: str, dtype: str, target: str, weights: str, tmp_path: Path) -> None:
    text = large(text, dtype)
    module = read_text(text)
    random = np.random.default_rng(0)
    x, w = (np.asarray(random.normal(size=p.shape.dims)).astype(p.shape.dtype.numpy) for p in module.entry.parameters)
    bad = x.copy()
    bad.reshape(-1)[7] = np.nan
    bad.reshape(-1)[x.size // 2] = np.inf
    (tmp_path / "m.hlo").write_text(text)
    compile_file(Request(str(tmp_path / "m.hlo"), options_from(output=str(tmp_path / "m.neff"), target=target,
                                                               weight_params=weights)))
    loaded = load(str(tmp_path / "m.neff"), {"1": w} if weights else None)
    for given, repeated in ((x, False), (bad, True), (bad, True), (x, False)):
        (want,) = (np.asarray(v, np.float32) for v in flatten(evaluate(module, [given, w])))
        (got,) = (np.asarray(v, np.float32) for v in loaded.run([given] if weights else [given, w]))
        assert loaded.was_repeated == repeated
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        np.testing.assert_array_equal(got[np.isinf(want)], want[np.isinf(want)])
        good = np.isfinite(want)
        assert np.abs(got[good] - want[good]).max() <= 2.0**-6 * np.abs(want[good]).max()


ZEROS = {
    "groups": ("2,16,16,128", "3,3,4,128", "2,16,16,128", "size=3x3 pad=1_1x1_1", "b01f_01io->b01f, feature_group_count=32"),
    "few groups": ("2,16,16,256", "3,3,32,256", "2,8,8,256", "size=3x3 stride=2x2 pad=1_1x1_1",
                   "b01f_01io->b01f, feature_group_count=8"),
    "channels": ("2,24,24,64", "3,3,1,64", "2,24,24,64", "size=3x3 pad=1_1x1_1", "b01f_01io->b01f, feature_group_count=64"),
    "padding": ("2,24,24,64", "3,3,64,32", "2,24,24,32", "size=3x3 pad=1_1x1_1", "b01f_01io->b01f"),
    "gradient of images": ("4,14,14,64", "3,3,64,32", "4,28,28,32", "size=3x3 pad=1_2x1_2 lhs_dilate=2x2 rhs_reversal=1x1",
                           "b01f_01io->b01f"),
    "gradient": ("4,16,16,64", "4,16,16,64", "3,3,64,64", "size=16x16 pad=1_1x1_1", "f01b_i01o->01bf"),
    "gradient of a stride": ("4,16,16,64", "4,8,8,64", "3,3,64,64", "size=8x8 pad=1_0x1_0 rhs_dilate=2x2", "f01b_i01o->01bf"),
    "gradient of channels": ("4,16,16,64", "4,16,16,64", "3,3,1,64", "size=16x16 pad=1_1x1_1",
                             "f01b_i01o->01bf, batch_group_count=64"),
}
"""Convolutions that become products with zeros that they do not have, or without zeros that they have."""


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("what", ZEROS)
def test_zeros_that_passes_put_into_products_spread_nothing(what: str, value: float, tmp_path: Path) -> None:
    dims = ZEROS[what]
    kinds = [f"f32[{row}]" for row in dims[:3]]
    text = f"""HloModule m
ENTRY main {{
  x = {kinds[0]} parameter(0)
  w = {kinds[1]} parameter(1)
  ROOT y = {kinds[2]} convolution(x, w), window={{{dims[3]}}}, dim_labels={dims[4]}
}}
"""
    module = read_text(text)
    random = np.random.default_rng(0)
    x, w = (np.asarray(random.normal(size=p.shape.dims), np.float32) for p in module.entry.parameters)
    (tmp_path / "m.hlo").write_text(text)
    compile_file(Request(str(tmp_path / "m.hlo"), options_from(output=str(tmp_path / "m.neff"))))
    loaded = load(str(tmp_path / "m.neff"))
    loaded.run([x, w])
    assert not loaded.was_repeated
    x[1, 3, -1, 5], w[0, -1, 0, 7] = value, -value
    (want,) = flatten(evaluate(module, [x, w]))
    (got,) = loaded.run([x, w])
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(got[np.isinf(want)], want[np.isinf(want)])
    (inside,) = oracle_inside(loaded, None, [x, w])
    np.testing.assert_array_equal(np.isnan(inside), np.isnan(want))


def test_asked_for_fast_code_no_run_is_made_again(tmp_path: Path) -> None:
    text = large(PRODUCT, "bf16")
    module = read_text(text)
    x, w = (np.ones(p.shape.dims, p.shape.dtype.numpy) for p in module.entry.parameters)
    x[3, 5] = np.nan
    (tmp_path / "m.hlo").write_text(text)
    compile_file(Request(str(tmp_path / "m.hlo"), options_from(output=str(tmp_path / "m.neff"), relayout="fast")))
    loaded = load(str(tmp_path / "m.neff"))
    (got,) = loaded.run([x, w])
    assert not loaded.was_repeated
    assert np.isnan(got.astype(np.float32)).any(1).sum() > 1
