"""Reductions, windows, sorts: measured results of XLA CPU (HLO semantics notes, 4 to 7) and small cases by hand."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest

from nxcc.ir.diagnostics import CompileError
from nxcc.ir.hlo.oracle import evaluate
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.verifier import verify

from harness.hlo_text import module_of, value_of

F32 = np.float32
NAN = float("nan")

ARGMAX = """
argmax {
  av = f32[] parameter(0) ai = s32[] parameter(1) bv = f32[] parameter(2) bi = s32[] parameter(3)
  wins = pred[] compare(av, bv), direction=GE
  v = f32[] select(wins, av, bv)
  i = s32[] select(wins, ai, bi)
  ROOT r = (f32[], s32[]) tuple(v, i)
}"""


def f32(*values: float) -> np.ndarray:
    return np.array(values, F32)


def test_bf16_sum_is_rounded_once() -> None:
    ones = np.ones(1000, ml_dtypes.bfloat16)
    result = value_of("p = bf16[1000] parameter(0) z = bf16[] constant(0) ROOT r = bf16[] reduce(p, z), "
                      "dimensions={0}, to_apply=s",
                      ones, computations="s { a = bf16[] parameter(0) b = bf16[] parameter(1) ROOT r = bf16[] add(a, b) }")
    assert result == 1000


def test_initial_value_takes_part_once_and_stands_for_empty() -> None:
    entry = "p = f32[{0}] parameter(0) i = f32[] parameter(1) ROOT r = f32[] reduce(p, i), dimensions={{0}}, to_apply=add_f32"
    assert value_of(entry.format(3), f32(1, 2, 3), np.array(10, F32)) == 16
    assert value_of(entry.format(0), f32(), np.array(10, F32)) == 10


def test_maximum_propagates_nan() -> None:
    result = value_of("p = f32[2,3] parameter(0) i = f32[] constant(-inf) ROOT r = f32[2] reduce(p, i), dimensions={1}, "
                      "to_apply=max_f32", np.array([[1, NAN, 5], [1, 2, 3]], F32))
    np.testing.assert_array_equal(result, f32(NAN, 3))


def test_s8_sum_wraps() -> None:
    result = value_of("p = s8[3] parameter(0) z = s8[] constant(0) ROOT r = s8[] reduce(p, z), dimensions={0}, to_apply=s",
                      np.array([100, 100, 1], np.int8),
                      computations="s { a = s8[] parameter(0) b = s8[] parameter(1) ROOT r = s8[] add(a, b) }")
    assert result == -55 and result.dtype == np.int8


@pytest.mark.parametrize("length", [5, 700])
def test_variadic_reduce_keeps_the_first_of_equals(length: int) -> None:
    values = np.zeros((2, length), F32)
    values[0, 2:5] = 7
    values[1, 4] = 7
    entry = f"""
  p = f32[2,{length}] parameter(0)
  i = s32[2,{length}] iota(), iota_dimension=1
  v0 = f32[] constant(-inf)
  i0 = s32[] constant(0)
  ROOT r = (f32[2], s32[2]) reduce(p, i, v0, i0), dimensions={{1}}, to_apply=argmax"""
    best, where = value_of(entry, values, computations=ARGMAX)
    np.testing.assert_array_equal(best, f32(7, 7))
    np.testing.assert_array_equal(where, [2, 4])


def test_combiner_that_is_not_elementwise_is_evaluated_one_by_one() -> None:
    loop = """
    below { s = (f32[], f32[], s32[]) parameter(0) n = s32[] get-tuple-element(s), index=2 k = s32[] constant(2)
            ROOT r = pred[] compare(n, k), direction=LT }
    step { s = (f32[], f32[], s32[]) parameter(0)
           a = f32[] get-tuple-element(s), index=0 b = f32[] get-tuple-element(s), index=1
           n = s32[] get-tuple-element(s), index=2 c = f32[] add(a, b) k = s32[] constant(1) m = s32[] add(n, k)
           ROOT r = (f32[], f32[], s32[]) tuple(c, b, m) }
    twice { a = f32[] parameter(0) b = f32[] parameter(1) z = s32[] constant(0) t = (f32[], f32[], s32[]) tuple(a, b, z)
            w = (f32[], f32[], s32[]) while(t), condition=below, body=step ROOT r = f32[] get-tuple-element(w), index=0 }"""
    result = value_of("p = f32[3] parameter(0) z = f32[] constant(0) ROOT r = f32[] reduce(p, z), "
                      "dimensions={0}, to_apply=twice",
                      f32(1, 2, 3), computations=loop)
    assert result == 12


WINDOWS = [
    ("add_f32", 100, "size=2 pad=1_1", f32(0, 1, 2, 3), f32(100, 101, 103, 105, 103)),
    ("add_f32", 0, "size=2 lhs_dilate=2", f32(0, 1, 2, 3, 4, 5), f32(0, 1, 1, 2, 2, 3, 3, 4, 4, 5)),
    ("add_f32", 0, "size=2 rhs_dilate=2", f32(1, 2, 3, 4), f32(4, 6)),
    ("add_f32", 0, "size=2 pad=-1_-1", f32(1, 2, 3, 4), f32(5)),
    ("max_f32", -9, "size=3 stride=2 pad=1_1", f32(1, 5, 2, -7), f32(5, 5)),
    ("last_f32", 8, "size=2 pad=1_1", f32(1, 2, 3), f32(1, 2, 3, 3)),
    ("add_f32", 0, "size=5 pad=4_0", f32(1, 1, 1, 1, 1), f32(1, 2, 3, 4, 5)),
]


@pytest.mark.parametrize("combiner,init,window,data,expected", WINDOWS, ids=lambda v: v if isinstance(v, str) else "")
def test_reduce_window(combiner: str, init: float, window: str, data: np.ndarray, expected: np.ndarray) -> None:
    entry = (f"p = f32[{len(data)}] parameter(0) i = f32[] constant({init}) "
             f"ROOT r = f32[{len(expected)}] reduce-window(p, i), window={{{window}}}, to_apply={combiner}")
    np.testing.assert_array_equal(value_of(entry, data), expected)


@pytest.mark.parametrize("dtype", ["f8e5m2fnuz", "f8e4m3fn", "f4e2m1fn"])
def test_padding_of_a_minimum_takes_no_part_in_types_without_infinity(dtype: str) -> None:
    module = read_text(f"""HloModule m
c {{ a = {dtype}[] parameter(0)
  b = {dtype}[] parameter(1)
  ROOT r = {dtype}[] minimum(a, b) }}
ENTRY e {{ x = {dtype}[4] parameter(0)
  z = {dtype}[] constant(6)
  ROOT r = {dtype}[4] reduce-window(x, z), window={{size=3 pad=1_1}}, to_apply=c }}
""")
    x = np.array([3, 1, 2, 4]).astype(module.entry.parameters[0].shape.dtype.numpy)
    assert np.asarray(evaluate(module, [x])).astype(F32).tolist() == [1, 1, 1, 2]


def test_wide_windows_agree_with_narrow_ones_put_together() -> None:
    data = np.arange(100, dtype=F32)
    result = value_of("p = f32[100] parameter(0) i = f32[] constant(0) ROOT r = f32[100] reduce-window(p, i), "
                      "window={size=100 pad=99_0}, to_apply=add_f32", data)
    np.testing.assert_array_equal(result, np.cumsum(data))


@pytest.mark.parametrize("direction,expected", [("GE", (1, 0, 6, 0, 24, 0)), ("GT", (0, 1, 6, 0, 8, 16))])
def test_select_and_scatter_picks_and_adds(direction: str, expected: tuple[float, ...]) -> None:
    select = f"sel {{ a = f32[] parameter(0) b = f32[] parameter(1) ROOT r = pred[] compare(a, b), direction={direction} }}"
    entry = """
  p = f32[6] parameter(0)
  s = f32[5] parameter(1)
  z = f32[] constant(0)
  ROOT r = f32[6] select-and-scatter(p, s, z), window={size=2}, select=sel, scatter=add_f32"""
    result = value_of(entry, f32(1, 1, 3, 2, 5, 5), f32(1, 2, 4, 8, 16), computations=select)
    np.testing.assert_array_equal(result, f32(*expected))


@pytest.mark.parametrize("reverse,stacked,carry", [
    ("false", (10000, 9801, 10201, 9604), 102), ("true", (9409, 9801, 9216, 10000), 98)])
def test_scan_stacks_outputs_and_passes_carries(reverse: str, stacked: tuple[float, ...], carry: float) -> None:
    body = """
    step { x = f32[] parameter(0) c = f32[] parameter(1) y = f32[] multiply(c, c) n = f32[] subtract(x, c)
           ROOT r = (f32[], f32[]) tuple(y, n) }"""
    entry = (f"p = f32[4] parameter(0) c = f32[] constant(100) ROOT r = (f32[4], f32[]) scan(p, c), "
             f"dimensions={{0}}, num_carries=1, "
             f"is_reverse={reverse}, to_apply=step")
    result = value_of(entry, f32(1, 2, 3, 4), computations=body)
    np.testing.assert_array_equal(result[0], f32(*stacked))
    assert result[1] == carry


UNSORTED = f32(2, NAN, -0.0, 0.0, -1, 2, -NAN)


@pytest.mark.parametrize("comparison,expected", [
    ("direction=LT", "-1 -0 0 2 2 nan nan"), ("direction=GT", "2 2 -0 0 -1 nan nan"),
    ("direction=LT, type=TOTALORDER", "nan -1 -0 0 2 2 nan"), ("direction=GT, type=TOTALORDER", "nan 2 2 0 -0 -1 nan")])
def test_sort_by_one_comparison(comparison: str, expected: str) -> None:
    comparator = f"less {{ a = f32[] parameter(0) b = f32[] parameter(1) ROOT r = pred[] compare(a, b), {comparison} }}"
    result = value_of("p = f32[7] parameter(0) ROOT r = f32[7] sort(p), dimensions={0}, is_stable=true, "
                      "to_apply=less", UNSORTED,
                      computations=comparator)
    assert re.sub(r"\.0*", "", " ".join(map(str, result.tolist()))) == expected


def test_sort_with_any_comparator_is_stable_and_carries_other_operands() -> None:
    comparator = """
    less { a = s32[] parameter(0) b = s32[] parameter(1) ai = s32[] parameter(2) bi = s32[] parameter(3)
           k = s32[] constant(3) ar = s32[] remainder(a, k) br = s32[] remainder(b, k) ROOT r = pred[] compare(ar,
                  br), direction=LT }"""
    keys = np.random.default_rng(0).integers(0, 50, (37, 2)).astype(np.int32)
    entry = """
  p = s32[37,2] parameter(0)
  i = s32[37,2] iota(), iota_dimension=0
  ROOT r = (s32[37,2], s32[37,2]) sort(p, i), dimensions={0}, is_stable=true, to_apply=less"""
    values, order = value_of(entry, keys, computations=comparator)
    expected = np.argsort(keys % 3, axis=0, kind="stable")
    np.testing.assert_array_equal(order, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(keys, expected, 0))


def test_topk_ranks_nan_first_and_ties_by_lower_index() -> None:
    values, places = value_of("p = f32[5] parameter(0) ROOT r = (f32[3], s32[3]) topk(p), k=3, "
                              "largest=true", f32(1, 5, 5, NAN, 2))
    np.testing.assert_array_equal(values, f32(NAN, 5, 5))
    np.testing.assert_array_equal(places, [3, 1, 2])


def test_batch_norm_training_returns_biased_variance_and_grad_sums() -> None:
    x = np.arange(8, dtype=F32).reshape(4, 2)
    ones = f32(1, 1)
    y, mean, variance = value_of("p = f32[4,2] parameter(0) s = f32[2] parameter(1) ROOT r = (f32[4,2], f32[2], f32[2]) "
                                 "batch-norm-training(p, s, s), epsilon=0, feature_index=1", x, ones)
    np.testing.assert_array_equal(mean, f32(3, 4))
    np.testing.assert_array_equal(variance, f32(5, 5))
    np.testing.assert_allclose(y[:, 0], (x[:, 0] - 3) / np.sqrt(5) + 1, rtol=1e-6)
    dx, dscale, doffset = value_of(
        "p = f32[4,2] parameter(0) s = f32[2] parameter(1) m = f32[2] parameter(2) v = f32[2] parameter(3) g = "
        "f32[4,2] parameter(4) "
        "ROOT r = (f32[4,2], f32[2], f32[2]) batch-norm-grad(p, s, m, v, g), epsilon=0, feature_index=1",
        x, ones, mean, variance, x)
    np.testing.assert_allclose(dx, np.zeros((4, 2)), atol=1e-6)
    np.testing.assert_allclose(dscale, f32(20, 20) / np.sqrt(5), rtol=1e-6)
    np.testing.assert_array_equal(doffset, f32(12, 16))


def test_variance_is_infinite_where_the_sum_of_squares_is() -> None:
    x = f32(1e19, -1e19, 1e19, -1e19)[:, None]
    y, _, variance = value_of("p = f32[4,1] parameter(0) s = f32[1] parameter(1) ROOT r = (f32[4,1], f32[1], f32[1]) "
                              "batch-norm-training(p, s, s), epsilon=0, feature_index=1", x, f32(2))
    assert variance == np.inf
    np.testing.assert_array_equal(y, np.full((4, 1), 2, F32))


@pytest.mark.filterwarnings("error")
def test_batch_norm_of_no_samples_has_no_mean() -> None:
    _, mean, variance = value_of("p = f32[0,2] parameter(0) s = f32[2] parameter(1) ROOT r = (f32[0,2], f32[2], f32[2]) "
                                 "batch-norm-training(p, s, s), epsilon=0, feature_index=1", np.zeros((0, 2), F32), f32(1, 1))
    np.testing.assert_array_equal([mean, variance], np.full((2, 2), NAN))


WRONG = [
    ("r = f32[2] reduce(p, z), dimensions={2}, to_apply=add_f32", r"dimensions=\{2\} must lie in \[0, 2\)"),
    ("r = f32[2] reduce(p, z), dimensions={1}, to_apply=add_s32", "must combine scalars of f32"),
    ("r = f32[3] reduce(p, z), dimensions={1}, to_apply=add_f32", r"declared as f32\[3\], it is f32\[2\]"),
    ("r = f32[2] reduce-window(p, z), window={size=2}, to_apply=add_f32", "window has 1 dimensions"),
    ("r = f32[2,3] sort(p), dimensions={1}, to_apply=add_f32", "must be pred"),
    ("r = (f32[2,4], s32[2,4]) topk(p), k=4", "must not exceed the 3 elements"),
]


@pytest.mark.parametrize("line,reason", WRONG, ids=[reason for _, reason in WRONG])
def test_broken_rule_is_reported(line: str, reason: str) -> None:
    with pytest.raises(CompileError, match=reason):
        verify(module_of(f"p = f32[2,3] parameter(0) z = f32[] constant(0) ROOT {line}"))
