"""Reads and writes at known and at chosen places: the same results, bit by bit, and none of the old instructions left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.verifier import verify
from nxcc.passes.chosen_places import MAX_ELEMENTS, ChosenPlaces
from nxcc.passes.known_gathers import KnownGathers

Array = np.ndarray[Any, Any]
ROWS = "offset_dims={1}, collapsed_slice_dims={0}, start_index_map={0}, index_vector_dim=1, slice_sizes={1,5}"


def rewritten(text: str, name: str) -> Module:
    module = read_text(text)
    assert (KnownGathers(True) if name == "known" else ChosenPlaces(True)).run(module)
    verify(module)
    return module


def check(text: str, inputs: Sequence[Array], name: str = "chosen") -> Module:
    """The same bits before and after."""
    module = rewritten(text, name)
    for got, want in zip(flatten(evaluate(module, inputs)), flatten(evaluate(read_text(text), inputs)), strict=True):
        assert got.dtype == want.dtype and got.tobytes() == want.tobytes()
    return module


def left(module: Module, *opcodes: str) -> list[str]:
    return [i.opcode for i in module.entry.instructions if i.opcode in opcodes]


def special(*dims: int) -> Array:
    values = np.random.default_rng(0).normal(size=dims).astype(np.float32)
    values.reshape(-1)[:4] = -0.0, np.nan, np.inf, -np.inf
    return values


@pytest.mark.parametrize("places", [
    [0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 0, 1, 1, 2, 2, 3, 3, 3], [2, 2, 2, 2], [3],
    [0, 3, 6], [0, 4, 1, 5, 2, 6], [5, 0, 6, 2, 1], [-3, 0, 100, 6], [0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6]])
def test_known_rows(places: list[int]) -> None:
    text = f"""HloModule m
ENTRY main {{
  x = f32[7,5] parameter(0)
  i = s32[{len(places)}] constant({{{', '.join(map(str, places))}}})
  ROOT g = f32[{len(places)},5] gather(x, i), {ROWS}
}}"""
    assert not left(check(text, [special(7, 5)], "known"), "gather")


def test_known_grid_of_two_dimensions_and_a_diagonal() -> None:
    grid = """HloModule m
ENTRY main {
  x = f32[2,4,6,3] parameter(0)
  r = s32[8] constant({0, 0, 1, 1, 2, 2, 3, 3})
  c = s32[12] constant({0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5})
  rr = s32[8,12,1] broadcast(r), dimensions={0}
  cc = s32[8,12,1] broadcast(c), dimensions={1}
  i = s32[8,12,2] concatenate(rr, cc), dimensions={2}
  ROOT g = f32[2,8,12,3] gather(x, i), offset_dims={0,3}, collapsed_slice_dims={1,2},
    start_index_map={1,2}, index_vector_dim=2, slice_sizes={2,1,1,3}
}"""
    module = check(grid, [special(2, 4, 6, 3)], "known")
    assert not left(module, "gather") and len(left(module, "slice")) <= 4
    diagonal = """HloModule m
ENTRY main {
  x = f32[5,5] parameter(0)
  i = s32[5,2] constant({{0,0},{1,1},{2,2},{3,3},{4,4}})
  ROOT g = f32[5] gather(x, i), offset_dims={}, collapsed_slice_dims={0,1},
    start_index_map={0,1}, index_vector_dim=1, slice_sizes={1,1}
}"""
    assert len(left(check(diagonal, [special(5, 5)], "known"), "slice")) == 1


def test_scattered_places_stay_a_gather() -> None:
    places = np.random.default_rng(1).integers(0, 5000, 2000)
    text = f"""HloModule m
ENTRY main {{
  x = f32[5000,2] parameter(0)
  i = s32[2000] constant({{{', '.join(map(str, places))}}})
  ROOT g = f32[2000,2] gather(x, i), offset_dims={{1}}, collapsed_slice_dims={{0}},
    start_index_map={{0}}, index_vector_dim=1, slice_sizes={{1,2}}
}}"""
    assert not KnownGathers(True).run(read_text(text))


@pytest.mark.parametrize("start", [-5, 0, 2, 3, 9])
@pytest.mark.parametrize("dtype", ["f32", "s32", "pred", "bf16", "u8"])
def test_chosen_slice_and_update(start: int, dtype: str) -> None:
    text = f"""HloModule m
ENTRY main {{
  xf = f32[6,4,5] parameter(0)
  uf = f32[2,4,1] parameter(1)
  i = s32[] parameter(2)
  j = s8[] parameter(3)
  z = s32[] constant(0)
  zb = s8[] constant(0)
  x = {dtype}[6,4,5] convert(xf)
  u = {dtype}[2,4,1] convert(uf)
  jj = s32[] convert(j)
  s = {dtype}[3,4,1] dynamic-slice(x, i, z, jj), dynamic_slice_sizes={{3,4,1}}
  d = {dtype}[6,4,5] dynamic-update-slice(x, u, i, z, jj)
  ROOT t = ({dtype}[3,4,1], {dtype}[6,4,5]) tuple(s, d)
}}"""
    values = special(6, 4, 5) if dtype in ("f32", "bf16") else np.arange(120, dtype=np.float32).reshape(6, 4, 5)
    module = check(text, [np.nan_to_num(values) if dtype in ("s32", "u8") else values, np.full((2, 4, 1), 7, np.float32),
                          np.array(start, np.int32), np.array(start % 3, np.int8)])
    assert not left(module, "dynamic-slice", "dynamic-update-slice")


def test_chosen_rows_by_unsigned_indices_of_two_dimensions() -> None:
    text = """HloModule m
ENTRY main {
  x = f32[3,7,5] parameter(0)
  i = u32[2,4] parameter(1)
  ROOT g = f32[3,2,5,4] gather(x, i), offset_dims={0,2}, collapsed_slice_dims={1},
    start_index_map={1}, index_vector_dim=2, slice_sizes={3,1,5}
}"""
    places = np.array([[0, 6, 7, 2**31], [2**32 - 1, 3, 3, 1]], np.uint32)
    assert not left(check(text, [special(3, 7, 5), places]), "gather")


def test_large_tables_are_not_looked_through() -> None:
    rows = MAX_ELEMENTS // 5 + 1
    text = f"""HloModule m
ENTRY main {{
  x = f32[{rows},5] parameter(0)
  i = s32[1] parameter(1)
  ROOT g = f32[1,5] gather(x, i), {ROWS}
}}"""
    assert not ChosenPlaces(True).run(read_text(text))


@pytest.mark.parametrize("body", ["ROOT r = f32[] parameter(1)", "q = f32[] parameter(1) ROOT r = f32[] add(p, q)",
                                  "q = f32[] parameter(1) ROOT r = f32[] maximum(q, p)"])
def test_chosen_scatter_in_order_and_inside_only(body: str) -> None:
    text = f"""HloModule m
join {{ p = f32[] parameter(0) {body} }}
ENTRY main {{
  x = f32[6,5] parameter(0)
  i = s32[4] parameter(1)
  u = f32[4,5] parameter(2)
  ROOT s = f32[6,5] scatter(x, i, u), update_window_dims={{1}},
    inserted_window_dims={{0}}, scatter_dims_to_operand_dims={{0}}, index_vector_dim=1, to_apply=join
}}"""
    updates = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32)
    assert not left(check(text, [special(6, 5), np.array([2, -1, 2, 6], np.int32), updates]), "scatter")


def test_arms_that_are_short_are_all_computed() -> None:
    text = """HloModule m
a { p = (f32[4], s32[]) parameter(0) x = f32[4] get-tuple-element(p), index=0 n = s32[] get-tuple-element(p), index=1
  ROOT r = (f32[4], s32[]) tuple(x, n) }
b { p = (f32[4], s32[]) parameter(0) x = f32[4] get-tuple-element(p), index=0 n = s32[] get-tuple-element(p), index=1
  y = f32[4] add(x, x) ROOT r = (f32[4], s32[]) tuple(y, n) }
c { p = (f32[4], s32[]) parameter(0) x = f32[4] get-tuple-element(p), index=0 n = s32[] get-tuple-element(p), index=1
  y = f32[4] multiply(x, x) m = s32[] add(n, n) ROOT r = (f32[4], s32[]) tuple(y, m) }
ENTRY main {
  k = s32[] parameter(0)
  x = f32[4] parameter(1)
  n = s32[] parameter(2)
  t = (f32[4], s32[]) tuple(x, n)
  ROOT r = (f32[4], s32[]) conditional(k, t, t, t), branch_computations={a, b, c}
}"""
    for k in (-1, 0, 1, 2, 3):
        assert not left(check(text, [np.array(k, np.int32), special(4), np.array(5, np.int32)]), "conditional")
