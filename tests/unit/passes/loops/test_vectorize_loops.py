"""Loops over rows, with and without linear recurrences, become work on all rows; other loops stay."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.verifier import verify
from nxcc.passes.dead_code import DeadCode
from nxcc.passes.loops import vectorize_loops
from nxcc.passes.loops.vectorize_loops import VectorizeLoops

TURNS, WIDTH = 5, 4

STATE = "(s32[], f32[4], f32[5,4], f32[5,4], f32[4,4])"

LOOP = """HloModule m
sum {{ p = f32[] parameter(0)
 q = f32[] parameter(1)
 ROOT s = f32[] add(p, q) }}
order {{ a = f32[] parameter(0)
 b = f32[] parameter(1)
 c = f32[] parameter(2)
 d = f32[] parameter(3)
 ROOT l = pred[] compare(a, b), direction=LT }}
body {{ s = {state} parameter(0)
 i = s32[] get-tuple-element(s), index=0
 h = f32[4] get-tuple-element(s), index=1
 xs = f32[5,4] get-tuple-element(s), index=2
 ys = f32[5,4] get-tuple-element(s), index=3
 w = f32[4,4] get-tuple-element(s), index=4
 zero = s32[] constant(0)
 nought = f32[] constant(0)
 one = s32[] constant(1)
 last = s32[] constant(4)
 back = s32[] subtract(last, i)
 j = s32[] add(i, one)
 r = f32[1,4] dynamic-slice(xs, {read}, zero), dynamic_slice_sizes={{1,4}}
 x = f32[4] reshape(r)
 {work}
 u = f32[1,4] reshape(y)
 d = f32[5,4] dynamic-update-slice(ys, u, {write}, zero)
 ROOT o = {state} tuple(j, n, xs, d, w) }}
cond {{ s = {state} parameter(0)
 i = s32[] get-tuple-element(s), index=0
 b = s32[] constant({bound})
 ROOT p = pred[] compare(i, b), direction=LT }}
ENTRY e {{
  i = s32[] constant(0)
  h = f32[4] parameter(0)
  xs = f32[5,4] parameter(1)
  ys = f32[5,4] parameter(2)
  w = f32[4,4] parameter(3)
  s = {state} tuple(i, h, xs, ys, w)
  ROOT l = {state} while(s), condition=cond, body=body
}}"""

AVERAGE = """a = f32[4] tanh(x)
 m = f32[4] multiply(a, h)
 n = f32[4] add(m, x)
 y = f32[4] exponential(n)"""

LINEAR = {
    "average": AVERAGE,
    "swapped": "m = f32[4] multiply(h, x)\n n = f32[4] add(x, m)\n y = f32[4] negate(h)",
    "sum": "n = f32[4] add(h, x)\n y = f32[4] add(n, h)",
    "difference": "n = f32[4] subtract(h, x)\n y = f32[4] copy(n)",
    "alternating": "m = f32[4] multiply(x, h)\n n = f32[4] subtract(x, m)\n y = f32[4] copy(n)",
    "less": "m = f32[4] multiply(x, h)\n n = f32[4] subtract(m, x)\n y = f32[4] copy(n)",
    "product": "n = f32[4] multiply(x, h)\n y = f32[4] copy(h)",
    "unchanged": "n = f32[4] copy(h)\n y = f32[4] add(x, n)",
    "replaced": "n = f32[4] tanh(x)\n y = f32[4] abs(n)",
    "counter": """f = f32[] convert(i)
 g = f32[4] broadcast(f), dimensions={}
 n = f32[4] add(h, g)
 even = s32[] and(i, one)
 odd = pred[] compare(even, one), direction=EQ
 y = f32[4] select(odd, n, x)""",
    "products": """n = f32[4] add(h, x)
 a = f32[4] dot(n, w), lhs_contracting_dims={0}, rhs_contracting_dims={0}
 b = f32[4] dot(w, x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
 c = f32[] dot(n, x), lhs_contracting_dims={0}, rhs_contracting_dims={0}
 e = f32[4] broadcast(c), dimensions={}
 t = f32[4] add(a, b)
 y = f32[4] add(t, e)""",
    "shapes": """n = f32[4] add(h, x)
 square = f32[2,2] reshape(n)
 turned = f32[2,2] transpose(square), dimensions={1,0}
 part = f32[1,2] slice(turned), slice={[1:2],[0:2]}
 backwards = f32[1,2] reverse(part), dimensions={1}
 padded = f32[2,2] pad(backwards, nought), padding=0_1x0_0
 corner = f32[2,2] slice(w), slice={[0:2],[0:2]}
 joined = f32[2,4] concatenate(padded, corner), dimensions={1}
 y = f32[4] reduce(joined, nought), dimensions={0}, to_apply=sum""",
    "fixed row": """first = f32[1,4] dynamic-slice(w, one, zero), dynamic_slice_sizes={1,4}
 q = f32[4] reshape(first)
 n = f32[4] add(h, q)
 y = f32[4] add(n, x)""",
}

STAYING = {
    "element of a result": """q = (f32[4], f32[4]) sort(x, h), dimensions={0}, to_apply=order
 n = f32[4] get-tuple-element(q), index=1
 y = f32[4] copy(n)""",
    "activation": "m = f32[4] add(h, x)\n n = f32[4] tanh(m)\n y = f32[4] copy(n)",
    "mixing": "n = f32[4] dot(h, w), lhs_contracting_dims={0}, rhs_contracting_dims={0}\n y = f32[4] add(n, x)",
    "square": "n = f32[4] multiply(h, h)\n y = f32[4] add(n, x)",
    "own factor": "a = f32[4] tanh(h)\n m = f32[4] multiply(a, h)\n n = f32[4] add(m, x)\n y = f32[4] copy(n)",
    "reads what it writes": """c = f32[1,4] dynamic-slice(ys, zero, zero), dynamic_slice_sizes={1,4}
 n = f32[4] reshape(c)
 y = f32[4] add(n, x)""",
}


def module_of(work: str, read: str = "i", write: str = "i", bound: int = TURNS) -> Module:
    return read_text(LOOP.format(state=STATE, work=work, read=read, write=write, bound=bound))


def inputs() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=size).astype(np.float32) for size in ((4,), (5, 4), (5, 4), (4, 4))]


def opcodes(module: Module) -> set[str]:
    return {i.opcode for i in module.entry.instructions}


def check(module: Module) -> Module:
    wanted = flatten(evaluate(module, inputs()))
    assert VectorizeLoops().run(module)
    DeadCode().run(module)
    verify(module)
    assert "while" not in opcodes(module)
    for got, want in zip(flatten(evaluate(module, inputs())), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)
    return module


@pytest.mark.parametrize("name", LINEAR)
def test_all_turns_at_once(name: str) -> None:
    check(module_of(LINEAR[name]))


@pytest.mark.parametrize(("read", "write", "bound"), [("back", "i", 5), ("i", "back", 5), ("i", "i", 3), ("j", "back", 4)])
def test_rows_in_any_order_and_in_part(read: str, write: str, bound: int) -> None:
    check(module_of(AVERAGE, read, write, bound))


def test_a_recurrence_becomes_one_scan() -> None:
    module = check(module_of(AVERAGE))
    assert [i.opcode for i in module.entry.instructions].count("scan") == 1


def test_turns_that_need_no_other_need_no_scan() -> None:
    assert "scan" not in opcodes(check(module_of(LINEAR["replaced"])))


@pytest.mark.parametrize("name", STAYING)
def test_other_loops_stay_as_they_are(name: str) -> None:
    module = module_of(STAYING[name])
    before = len(module.entry.instructions)
    assert not VectorizeLoops().run(module)
    assert len(module.entry.instructions) == before
    verify(module)


def test_places_out_of_range_stay() -> None:
    assert not VectorizeLoops().run(module_of(AVERAGE, read="j"))


def test_too_much_memory_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectorize_loops, "BYTES_MAX", 100)
    heard = []
    assert not VectorizeLoops(heard.append).run(module_of(AVERAGE))
    assert "100 bytes" in heard[0].text
