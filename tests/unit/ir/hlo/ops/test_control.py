"""Control flow, tuples, asynchronous pairs."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.ir.diagnostics import CompileError
from nxcc.ir.hlo.verifier import verify

from harness.hlo_text import module_of, value_of

F32 = np.float32
X = np.array([1, 2], F32)

BRANCHES = """
plus { a = f32[] parameter(0) ROOT r = f32[] add(a, a) }
minus { a = f32[] parameter(0) ROOT r = f32[] negate(a) }
same { ROOT a = f32[] parameter(0) }
"""
LOOP = """
below { s = (s32[], f32[2]) parameter(0) n = s32[] get-tuple-element(s), index=0 k = s32[] constant(3)
        ROOT r = pred[] compare(n, k), direction=LT }
step { s = (s32[], f32[2]) parameter(0) n = s32[] get-tuple-element(s), index=0 x = f32[2] get-tuple-element(s), index=1
       k = s32[] constant(1) m = s32[] add(n, k) y = f32[2] add(x, x) ROOT r = (s32[], f32[2]) tuple(m, y) }
wrong { ROOT s = (s32[], f32[2]) parameter(0) }
"""
TWICE = "twice { p = f32[2] parameter(0) ROOT r = f32[2] add(p, p) }"


@pytest.mark.parametrize("index,expected", [(0, 6), (1, -3), (2, 3), (3, 3), (-1, 3)])
def test_index_out_of_range_runs_the_last_branch(index: int, expected: float) -> None:
    result = value_of("i = s32[] parameter(0) x = f32[] constant(3) ROOT r = f32[] conditional(i, x, x, x), "
                      "branch_computations={plus, minus, same}", np.array(index, np.int32), computations=BRANCHES)
    assert result == expected


@pytest.mark.parametrize("chosen,expected", [(True, 6), (False, -4)])
def test_pred_chooses_the_first_branch_and_its_operand(chosen: bool, expected: float) -> None:
    result = value_of("i = pred[] parameter(0) x = f32[] constant(3) y = f32[] constant(4) ROOT r = f32[] "
                      "conditional(i, x, y), "
                      "true_computation=plus, false_computation=minus", np.array(chosen), computations=BRANCHES)
    assert result == expected


def test_while_runs_until_its_condition_fails() -> None:
    count, value = value_of("x = f32[2] parameter(0) z = s32[] constant(0) t = (s32[], f32[2]) tuple(z, x) "
                            "ROOT r = (s32[], f32[2]) while(t), condition=below, body=step", X, computations=LOOP)
    assert count == 3
    np.testing.assert_array_equal(value, 8 * X)


def test_tokens_and_tuple_constants_pass_through() -> None:
    value, pair = value_of("p = f32[2] parameter(0) t = token[] after-all() d = f32[2] add-dependency(p, t) "
                           "c = (f32[], s32[2]) constant((1.5, {7, 8})) b = f32[2] opt-barrier(d) "
                           "ROOT r = (f32[2], (f32[], s32[2])) tuple(b, c)", X)
    np.testing.assert_array_equal(value, X)
    assert pair[0] == 1.5 and pair[1].tolist() == [7, 8]


def test_asynchronous_pairs_give_the_synchronous_result() -> None:
    result = value_of("""
  p = f32[2] parameter(0)
  s = ((f32[2]), f32[2], u32[]) async-start(p), calls=twice
  u = ((f32[2]), f32[2], u32[]) async-update(s)
  d = f32[2] async-done(u)
  c = (f32[2], f32[2], u32[]) copy-start(d)
  ROOT e = f32[2] copy-done(c)""", X, computations=TWICE)
    np.testing.assert_array_equal(result, 2 * X)


WRONG = [
    ("r = f32[2] call(p, p), to_apply=twice", "takes 1 parameters, 2 are given"),
    ("r = f32[2] call(s), to_apply=twice", r"parameter 0 of computation twice is f32\[2\], it is given s32\[\]"),
    ("r = f32[2] fusion(p), kind=kWarp, calls=twice", "kind=kWarp must be one of"),
    ("r = (s32[], f32[2]) while(t), condition=wrong, body=step", r"result of the condition wrong must be pred\[\]"),
    ("r = f32[] conditional(p, c, c), branch_computations={plus, minus}", r"must be pred\[\] or s32\[\]"),
    ("r = f32[2] get-tuple-element(t), index=2", "index=2 is outside the tuple of 2"),
    ("r = f32[2] get-tuple-element(p), index=0", "must be a tuple"),
    ("r = f32[2] copy-done(u)", "must come from copy-start"),
    ("r = (f32[2], f32[2], u32[]) async-start(p), calls=twice", r"result must be \(\(f32\[2\]\), f32\[2\], contexts"),
]


@pytest.mark.parametrize("line,reason", WRONG, ids=[reason for _, reason in WRONG])
def test_broken_rule_is_reported(line: str, reason: str) -> None:
    entry = ("p = f32[2] parameter(0) s = s32[] parameter(1) c = f32[] parameter(2) t = (s32[], f32[2]) tuple(s, p) "
             f"u = (f32[2], f32[2]) tuple(p, p) ROOT {line}")
    with pytest.raises(CompileError, match=reason):
        verify(module_of(entry, BRANCHES + LOOP + TWICE))
