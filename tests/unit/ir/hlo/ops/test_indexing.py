"""Gathers, scatters, dynamic slices and sizes: measured results of XLA CPU (HLO semantics notes, 5 and 11), cases by hand."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from nxcc.ir.diagnostics import CompileError
from nxcc.ir.hlo.verifier import verify

from harness.hlo_text import module_of, value_of

F32 = np.float32


def f32(*values: float) -> np.ndarray:
    return np.array(values, F32)


@pytest.mark.parametrize("dtype,start,first", [("s32", -3, 0), ("s32", 9, 3), ("u32", 4294967295, 3), ("u64", 2**63 + 1, 3)])
def test_dynamic_slice_clamps_its_start(dtype: str, start: int, first: int) -> None:
    index = np.array(start, {"s32": np.int32, "u32": np.uint32, "u64": np.uint64}[dtype])
    result = value_of(f"p = f32[5] parameter(0) i = {dtype}[] parameter(1) ROOT r = f32[2] dynamic-slice(p, i), "
                      f"dynamic_slice_sizes={{2}}",
                      np.arange(5, dtype=F32), index)
    np.testing.assert_array_equal(result, f32(first, first + 1))


def test_dynamic_update_slice_leaves_its_operand_alone() -> None:
    operand = np.zeros((2, 3), F32)
    result = value_of("p = f32[2,3] parameter(0) u = f32[1,2] parameter(1) i = s32[2] constant({5, 1}) "
                      "ROOT r = f32[2,3] dynamic-update-slice(p, u, i)", operand, np.array([[1, 2]], F32))
    np.testing.assert_array_equal(result, [[0, 0, 0], [0, 1, 2]])
    assert not operand.any()


def test_gather_clamps_rows_and_takes_scalar_indices() -> None:
    table = np.arange(10, dtype=F32).reshape(5, 2)
    result = value_of("p = f32[5,2] parameter(0) i = s32[4] parameter(1) ROOT r = f32[4,2] gather(p, i), offset_dims={1}, "
                      "collapsed_slice_dims={0}, start_index_map={0}, index_vector_dim=1, slice_sizes={1,2}",
                      table, np.array([-1, 0, 4, 99], np.int32))
    np.testing.assert_array_equal(result, table[[0, 0, 4, 4]])
    result = value_of("p = f32[5,2] parameter(0) i = s32[] parameter(1) ROOT r = f32[2] gather(p, i), offset_dims={0}, "
                      "collapsed_slice_dims={0}, start_index_map={0}, index_vector_dim=0, slice_sizes={1,2}",
                      table, np.array(3, np.int32))
    np.testing.assert_array_equal(result, table[3])


def test_gather_places_windows_and_batches() -> None:
    data = np.arange(2 * 4 * 5, dtype=F32).reshape(2, 4, 5)
    starts = np.array([[[0, 1], [2, 3], [9, 9]], [[1, 0], [0, 0], [2, 2]]], np.int32)
    result = value_of(
        "p = f32[2,4,5] parameter(0) i = s32[2,3,2] parameter(1) ROOT r = f32[2,2,3,3] gather(p, i), offset_dims={1,3}, "
        "collapsed_slice_dims={}, start_index_map={2,1}, operand_batching_dims={0}, start_indices_batching_dims={0}, "
        "index_vector_dim=2, slice_sizes={1,2,3}", data, starts)
    for b in range(2):
        for k in range(3):
            column, row = min(starts[b, k, 0], 2), min(starts[b, k, 1], 2)
            np.testing.assert_array_equal(result[b, :, k, :], data[b, row:row + 2, column:column + 3])


ADD_BF16 = "add_bf16 { a = bf16[] parameter(0) b = bf16[] parameter(1) ROOT r = bf16[] add(a, b) }"
SCATTER = ("update_window_dims={}, inserted_window_dims={0}, scatter_dims_to_operand_dims={0}, index_vector_dim=1")


@pytest.mark.parametrize("combiner,expected", [
    ("add_f32", (1, 16, 0, 11)), ("max_f32", (1, 9, 0, 10)), ("last_f32", (1, 5, 0, 10))])
def test_scatter_applies_duplicates_and_skips_what_is_outside(combiner: str, expected: tuple[float, ...]) -> None:
    result = value_of(f"p = f32[4] parameter(0) i = s32[5,1] parameter(1) u = f32[5] parameter(2) "
                      f"ROOT r = f32[4] scatter(p, i, u), {SCATTER}, to_apply={combiner}",
                      f32(1, 2, 0, 1), np.array([[1], [7], [3], [1], [-1]], np.int32), f32(9, 8, 10, 5, 7))
    np.testing.assert_array_equal(result, f32(*expected))


def test_scatter_window_partly_outside_is_skipped_whole() -> None:
    result = value_of("p = f32[5] parameter(0) i = s32[2,1] parameter(1) u = f32[2,3] parameter(2) ROOT r = "
                      "f32[5] scatter(p, i, u), "
                      "update_window_dims={1}, inserted_window_dims={}, scatter_dims_to_operand_dims={0}, index_vector_dim=1, "
                      "to_apply=last_f32",
                      np.zeros(5, F32), np.array([[3], [1]], np.int32), np.array([[1, 2, 3], [4, 5, 6]], F32))
    np.testing.assert_array_equal(result, f32(0, 4, 5, 6, 0))


def test_scatter_with_any_combiner_goes_in_index_order() -> None:
    combiner = """mix { a = f32[] parameter(0) b = f32[] parameter(1) k = f32[] constant(10)
                        c = f32[] multiply(a, k) ROOT r = f32[] add(c, b) }"""
    result = value_of(f"p = f32[2] parameter(0) i = s32[4,1] parameter(1) u = f32[4] parameter(2) "
                      f"ROOT r = f32[2] scatter(p, i, u), {SCATTER}, to_apply=mix",
                      f32(0, 0), np.array([[0], [1], [0], [0]], np.int32), f32(1, 2, 3, 4), computations=combiner)
    np.testing.assert_array_equal(result, f32(134, 2))


def test_scatter_of_several_operands_shares_indices() -> None:
    combiner = """both { a = f32[] parameter(0) c = f32[] parameter(1) b = f32[] parameter(2) d = f32[] parameter(3)
                         s = f32[] add(a, b) m = f32[] maximum(c, d) ROOT r = (f32[], f32[]) tuple(s, m) }"""
    sums, highest = value_of(f"p = f32[2] parameter(0) i = s32[3,1] parameter(1) u = f32[3] parameter(2) "
                             f"ROOT r = (f32[2], f32[2]) scatter(p, p, i, u, u), {SCATTER}, to_apply=both",
                             f32(0, 0), np.array([[1], [1], [0]], np.int32), f32(1, 2, 3), computations=combiner)
    np.testing.assert_array_equal(sums, f32(3, 3))
    np.testing.assert_array_equal(highest, f32(3, 2))


def test_bf16_scatter_add_is_rounded_once() -> None:
    count = 600
    result = value_of(f"p = bf16[1] parameter(0) i = s32[{count},1] parameter(1) u = bf16[{count}] parameter(2) "
                      f"ROOT r = bf16[1] scatter(p, i, u), {SCATTER}, to_apply=add_bf16",
                      np.zeros(1, ml_dtypes.bfloat16), np.zeros((count, 1), np.int32), np.ones(count, ml_dtypes.bfloat16),
                      computations=ADD_BF16)
    assert result[0] == 600


def test_dynamic_size_limits_what_later_operators_see() -> None:
    total, size = value_of("p = f32[5] parameter(0) n = s32[] parameter(1) d = f32[<=5] set-dimension-size(p, "
                           "n), dimensions={0} "
                           "z = f32[] constant(0) s = f32[] reduce(d, z), dimensions={0}, to_apply=add_f32 "
                           "k = s32[] get-dimension-size(d), dimensions={0} ROOT r = (f32[], s32[]) tuple(s, k)",
                           f32(1, 2, 3, 4, 5), np.array(3, np.int32))
    assert total == 6 and size == 3


WRONG = [
    ("r = f32[2] dynamic-slice(p, i, i), dynamic_slice_sizes={2}", "must have 2 sizes"),
    ("r = f32[9,1] dynamic-slice(p, i, i), dynamic_slice_sizes={9,1}", "must fit into"),
    ("r = f32[1,2] gather(p, v), offset_dims={1}, collapsed_slice_dims={0}, start_index_map={0,1}, index_vector_dim=1, "
     "slice_sizes={1,2}", "start_index_map names 2 dimensions"),
    ("r = f32[1,3] gather(p, v), offset_dims={1}, collapsed_slice_dims={0}, start_index_map={0}, index_vector_dim=1, "
     "slice_sizes={1,3}", "slice size 3 does not fit"),
    ("r = f32[5,2] set-dimension-size(p, v), dimensions={0}", r"size must be s32\[\]"),
]


@pytest.mark.parametrize("line,reason", WRONG, ids=[reason for _, reason in WRONG])
def test_broken_rule_is_reported(line: str, reason: str) -> None:
    with pytest.raises(CompileError, match=reason):
        verify(module_of(f"p = f32[5,2] parameter(0) i = s32[] parameter(1) v = s32[1,1] parameter(2) ROOT {line}"))
