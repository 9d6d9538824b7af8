"""Counted loops written out say what the loops said; others stay."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.ir.dtypes import BF16, F16
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.verifier import verify
from nxcc.passes.dtypes.cast_products import CastProducts
from nxcc.passes.fold_constants import FoldConstants
from nxcc.passes.loops import unroll_loops
from nxcc.passes.loops.unroll_loops import KnownPlaces, UnrollLoops

LOOP = """HloModule m
body {{ s = (s32[], f32[4], f32[5,4]) parameter(0)
 i = s32[] get-tuple-element(s), index=0
 x = f32[4] get-tuple-element(s), index=1
 t = f32[5,4] get-tuple-element(s), index=2
 z = s32[] constant(0)
 r = f32[1,4] dynamic-slice(t, i, z), dynamic_slice_sizes={{1,4}}
 v = f32[4] reshape(r)
 y = f32[4] add(x, v)
 u = f32[1,4] reshape(y)
 d = f32[5,4] dynamic-update-slice(t, u, i, z)
 step = s32[] constant({step})
 j = s32[] add(i, step)
 ROOT o = (s32[], f32[4], f32[5,4]) tuple(j, y, d) }}
cond {{ s = (s32[], f32[4], f32[5,4]) parameter(0)
 i = s32[] get-tuple-element(s), index=0
 n = s32[] constant({bound})
 ROOT p = pred[] compare(i, n), direction={direction} }}
ENTRY e {{
  i = s32[] {start}
  x = f32[4] parameter(0)
  t = f32[5,4] parameter(1)
  s = (s32[], f32[4], f32[5,4]) tuple(i, x, t)
  ROOT w = (s32[], f32[4], f32[5,4]) while(s), condition=cond, body=body
}}"""


def loop(start: int = 0, step: int = 1, bound: int = 5, direction: str = "LT") -> str:
    return LOOP.format(start=f"constant({start})", step=step, bound=bound, direction=direction)


def opcodes(module: Module) -> set[str]:
    return {i.opcode for i in module.entry.instructions}


def inputs() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=4).astype(np.float32), random.normal(size=(5, 4)).astype(np.float32)]


@pytest.mark.parametrize("form", [
    {}, {"start": 1, "step": 2}, {"start": 4, "step": -1, "bound": 0, "direction": "GE"}, {"bound": 4, "direction": "LE"},
    {"bound": 3, "direction": "NE"}, {"bound": 0}, {"start": 3, "bound": 0, "step": -1, "direction": "GT"}])
def test_counted_loops(form: dict) -> None:
    module = read_text(loop(**form))
    wanted = flatten(evaluate(read_text(loop(**form)), inputs()))
    assert UnrollLoops(True).run(module)
    FoldConstants().run(module)
    KnownPlaces(True).run(module)
    verify(module)
    assert not opcodes(module) & {"while", "dynamic-slice", "dynamic-update-slice"}
    for got, want in zip(flatten(evaluate(module, inputs())), wanted, strict=True):
        np.testing.assert_array_equal(got, want)


def test_only_where_the_target_needs_it() -> None:
    module = read_text(loop())
    assert not UnrollLoops(False).run(module) and not KnownPlaces(False).run(module)


def test_endless_and_large_loops_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not UnrollLoops(True).run(read_text(loop(step=0)))
    monkeypatch.setattr(unroll_loops, "INSTRUCTIONS_MAX", 40)
    heard: list[str] = []
    assert not UnrollLoops(True, lambda note: heard.append(str(note))).run(read_text(loop()))
    assert "more than 40" in heard[0]


def test_products_of_two_types_are_cast() -> None:
    text = """HloModule m
ENTRY e {
  x = f32[8,20] parameter(0)
  w = bf16[20,6] parameter(1)
  ROOT d = f32[8,6] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}"""
    module = read_text(text)
    assert CastProducts(frozenset((BF16, F16)), "bf16").run(module)
    verify(module)
    assert {o.shape.dtype for o in module.entry.root.operands} == {BF16}
    assert not CastProducts(frozenset((BF16, F16)), "bf16").run(module)
    assert not CastProducts(frozenset(), "bf16").run(read_text(text))
