"""Tensor engine: products, accumulation, tf32, transposes."""

import ml_dtypes
import numpy as np
import pytest

from nxcc.backends.isa.program import Memory
from nxcc.backends.simulator.engines.pe import round_to_tf32
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.dtypes import BF16, F32

from harness.one_core import Bench, array_of, make, pattern

A = [[1, 2, 3], [4, 5, 6]]
B = [[1, 0, 2, 1], [0, 1, 1, 3]]
PRODUCT = (np.array(A).T @ np.array(B)).tolist()


def out(rows, columns, at=0):
    return pattern(F32, rows, columns, at=at, memory=Memory.PSUM)


@pytest.mark.parametrize("types", [
    (np.float32, np.float32), (ml_dtypes.bfloat16, ml_dtypes.bfloat16), (np.float16, ml_dtypes.bfloat16),
    (ml_dtypes.float8_e4m3, ml_dtypes.float8_e5m2), (ml_dtypes.float8_e3m4, ml_dtypes.float8_e3m4),
])
def test_product(types):
    bench = Bench()
    stationary, moving = bench.put(np.array(A, types[0])), bench.put(np.array(B, types[1]))
    assert bench.result("pe", make("matmul", stationary=stationary, moving=moving, out=out(3, 4)), out(3,
        4)).tolist() == PRODUCT


def test_accumulation_and_overwriting():
    bench = Bench()
    stationary, moving = bench.put(np.array(A, np.float32)), bench.put(np.array(B, np.float32))
    first = make("matmul", stationary=stationary, moving=moving, out=out(3, 4))
    more = make("matmul", stationary=stationary, moving=moving, out=out(3, 4), accumulate=True)
    assert (array_of(bench.run("pe", first, more, more), out(3, 4)) == 3 * np.array(PRODUCT)).all()
    assert (array_of(bench.run("pe", first, more, first), out(3, 4)) == np.array(PRODUCT)).all()


def test_shifted_windows_of_an_image():
    bench = Bench()
    image = np.arange(2 * 16, dtype=np.float32).reshape(2, 4, 4)
    data, weights = bench.put(image), bench.put(np.array([[1, 0], [0, 2]], np.float32))
    window = pattern(F32, 2, 3, 2, at=data.offset.constant + 4, strides=(4, 2))
    result = pattern(F32, 2, 3, 2, memory=Memory.PSUM)
    expected = image[:, :3, 1::2] * np.array([1, 2]).reshape(2, 1, 1)
    for accumulate in (False, True):
        instruction = make("matmul", stationary=weights, moving=window, out=result, accumulate=accumulate)
        assert (bench.result("pe", instruction, result) == expected).all()


def test_output_that_is_not_side_by_side():
    bench = Bench()
    stationary, moving = bench.put(np.array(A, np.float32)), bench.put(np.array(B, np.float32))
    every_second = pattern(F32, 3, 4, strides=(2,), memory=Memory.PSUM)
    assert bench.result("pe", make("matmul", stationary=stationary, moving=moving, out=every_second),
        every_second).tolist() == PRODUCT


def test_tf32_rounds_to_ten_bits():
    values = np.array([1 + 2 ** -11, 1 + 3 * 2 ** -11, 1 + 2 ** -10, np.inf, -np.inf, np.nan, 3.4e38], np.float32)
    result = np.empty_like(values)
    round_to_tf32(values, result)
    assert result[:5].tolist() == [1, 1 + 2 ** -9, 1 + 2 ** -10, np.inf, -np.inf]
    assert np.isnan(result[5]) and np.isfinite(result[6])
    bench = Bench()
    one, moving = bench.put(np.array([[1.0]], np.float32)), bench.put(values[None, :2])
    instruction = make("matmul", stationary=one, moving=moving, out=out(1, 2), tf32=True)
    assert bench.result("pe", instruction, out(1, 2)).tolist() == [[1, 1 + 2 ** -9]]


def test_f32_pairs_only_with_f32():
    bench = Bench()
    stationary, moving = bench.put(np.array(A, np.float32)), bench.put(np.array(B, ml_dtypes.bfloat16))
    with pytest.raises(CompileError, match="f32 pairs"):
        bench.run("pe", make("matmul", stationary=stationary, moving=moving, out=out(3, 4)))


def test_limits_and_shapes():
    bench = Bench()
    wide, stationary = bench.put(np.zeros((2, 513), np.float32)), bench.put(np.array(A, np.float32))
    with pytest.raises(CompileError, match="at most 128"):
        bench.run("pe", make("matmul", stationary=stationary, moving=wide, out=out(3, 513)))
    with pytest.raises(CompileError, match="do not fit"):
        bench.run("pe", make("matmul", stationary=stationary, moving=wide, out=out(4, 513)))


def test_transpose():
    bench = Bench()
    data = bench.put(np.array(A, ml_dtypes.bfloat16))
    target = pattern(BF16, 3, 2, memory=Memory.PSUM)
    assert bench.result("pe", make("pe_transpose", data=data, out=target),
        target).astype(int).tolist() == np.array(A).T.tolist()


def test_transpose_spreads_nan():
    bench = Bench()
    data = bench.put(np.array([[1, np.inf, 3], [4, 5, np.nan], [7, 8, np.inf]], np.float32))
    target = pattern(F32, 3, 3, memory=Memory.PSUM)
    result = bench.result("pe", make("pe_transpose", data=data, out=target), target)
    assert result[0].tolist() == [1, 4, 7]
    assert result[1, 0] == np.inf and np.isnan(result[1, 1:]).all()
    assert np.isnan(result[2]).all()
