"""Vector engine instructions on literal values."""

import ml_dtypes
import numpy as np
import pytest

from nxcc.backends.isa.program import Memory
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.dtypes import BF16, F8E4M3, F16, F32, PRED, S8, S32, U8, U16, U32

from harness.one_core import Bench, array_of, make, pattern

NAN, INF = np.float32("nan"), np.float32("inf")


def f32(*rows):
    return np.array(rows, np.float32)


def binary(op, a, b, out, engine="vector"):
    bench = Bench()
    operands = bench.put(a), bench.put(b), bench.room(out, *np.shape(a))
    return bench.result(engine, make("tensor_tensor", a=operands[0], b=operands[1], out=operands[2], op=op), operands[2])


@pytest.mark.parametrize("op, expected", [
    ("add", [3, -1]), ("subtract", [-1, -3]), ("multiply", [2, -2]), ("maximum", [2, 1]), ("minimum", [1, -2]),
    ("abs_max", [2, 2]), ("abs_min", [1, 1]), ("greater", [0, 0]), ("less", [1, 1]), ("bypass", [1, -2]),
    ("logical_and", [1, 1]), ("logical_xor", [0, 0]), ("not_equal", [1, 1]),
])
def test_tensor_tensor_f32(op, expected):
    assert binary(op, f32([1, -2]), f32([2, 1]), F32).tolist() == [expected]


def test_arithmetic_passes_through_f32():
    exact, lost = 2 ** 24, 2 ** 24 + 1
    assert binary("add", np.array([[exact, lost]], np.int32), np.array([[0, 0]], np.int32), S32).tolist() == [[exact, exact]]


def test_results_in_integers_round_to_even_and_saturate():
    a = f32([0.5, 1.5, -2.5, 300, -7, NAN])
    assert binary("add", a, np.zeros_like(a), U8).tolist() == [[0, 2, 0, 255, 0, 0]]
    assert binary("add", a, np.zeros_like(a), S8).tolist() == [[0, 2, -2, 127, -7, 0]]
    big = f32([3e9, -3e9, 2 ** 31, INF, NAN, -1])
    assert binary("add", big, np.zeros_like(big), S32).tolist() == [[2 ** 31 - 1, -2 ** 31, 2 ** 31 - 1, 2 ** 31 - 1, 0, -1]]
    assert binary("add", big, np.zeros_like(big), U32).tolist() == [[3_000_000_000, 0, 2 ** 31, 2 ** 32 - 1, 0, 0]]


def test_narrow_floats_overflow_to_infinity():
    a = f32([70000, -70000, 1e39])
    assert binary("add", a, np.zeros_like(a), F16).tolist() == [[INF, -INF, INF]]
    assert binary("add", f32([300.0, 240.0]), f32([0, 0]), F8E4M3).astype(np.float32).tolist() == [[INF, 240]]
    half_way = f32([1 + 2 ** -8, 1 + 3 * 2 ** -8])
    assert binary("add", half_way, np.zeros_like(half_way), BF16).astype(np.float32).tolist() == [[1, 1 + 2 ** -6]]


def test_narrow_inputs_are_exact():
    for numpy_type in (ml_dtypes.bfloat16, np.float16, ml_dtypes.float8_e4m3, ml_dtypes.float8_e5m2, ml_dtypes.float8_e3m4):
        a = np.array([[1.5, -0.25]], numpy_type)
        assert binary("subtract", a, a * 0, F32).tolist() == [[1.5, -0.25]]


def test_comparison_into_bytes_and_floats():
    a, b = f32([1, NAN, 3]), f32([1, NAN, 2])
    assert binary("equal", a, b, PRED).tolist() == [[True, False, False]]
    assert binary("greater_equal", a, b, U8).tolist() == [[1, 0, 1]]
    assert binary("not_equal", a, b, S32).tolist() == [[0, 1, 1]]
    assert binary("less_equal", a, b, BF16).astype(np.float32).tolist() == [[1, 0, 0]]


def test_maximum_propagates_nan():
    assert np.isnan(binary("maximum", f32([NAN, 1]), f32([1, NAN]), F32)).all()


@pytest.mark.parametrize("op, expected", [
    ("bitwise_and", 0x0F00_0000), ("bitwise_or", 0xFFFF_0010), ("bitwise_xor", 0xF0FF_0010), ("invert", 0xF000_FFFF),
])
def test_bits(op, expected):
    a, b = np.array([[0x0FFF_0000]], np.uint32), np.array([[0xFF00_0010]], np.uint32)
    assert binary(op, a, b, U32).tolist() == [[expected]]


def test_shifts():
    a, b = np.array([[0x8000_0001, 1, 5]], np.uint32), np.array([[1, 31, 32]], np.uint32)
    assert binary("shift_left", a, b, U32).tolist() == [[2, 0x8000_0000, 0]]
    assert binary("shift_right_logical", a.view(np.int32), b, S32).tolist() == [[0x4000_0000, 0, 0]]


def test_bit_operators_want_integers_of_one_width():
    with pytest.raises(CompileError, match="one width"):
        binary("bitwise_and", np.zeros((1, 2), np.uint8), np.zeros((1, 2), np.uint16), U16)


def test_gpsimd_is_native_in_32_bits_and_only_then():
    a, b = np.array([[2 ** 31 - 1, -5]], np.int32), np.array([[1, 3]], np.int32)
    assert binary("add", a, b, S32, "gpsimd").tolist() == [[-2 ** 31, -2]]
    assert binary("multiply", a, b, S32, "gpsimd").tolist() == [[2 ** 31 - 1, -15]]
    near = np.array([[2 ** 24]], np.int32)
    assert binary("less", near, near + 1, S32, "gpsimd").tolist() == [[1]]
    assert binary("less", near, near + 1, S32, "vector").tolist() == [[0]]
    assert binary("less", near, near + 1, U8, "gpsimd").tolist() == [[0]]
    unsigned = np.array([[2 ** 32 - 1]], np.uint32)
    assert binary("maximum", unsigned, unsigned * 0, U32, "gpsimd").tolist() == [[2 ** 32 - 1]]


def test_power_runs_on_gpsimd_only():
    assert binary("power", f32([2, 9]), f32([3, 0.5]), F32, "gpsimd").tolist() == [[8, 3]]
    with pytest.raises(CompileError, match="GpSimd"):
        binary("power", f32([2]), f32([3]), F32)


def test_the_inverse_root_is_gpsimds_and_keeps_the_sign_of_zero():
    x = f32([4, 0, -0.0, np.inf, -1, np.nan])
    inverse = f32([0.5, np.inf, -np.inf, 0, np.nan, np.nan])
    assert np.array_equal(scalar(x, engine="gpsimd", op0="rsqrt"), inverse, equal_nan=True)
    with pytest.raises(CompileError, match="GpSimd"):
        scalar(x, op0="rsqrt")


def scalar(data, out=F32, engine="vector", **fields):
    bench = Bench()
    operand = bench.put(data)
    for name in ("scalar0", "scalar1"):
        if name in fields:
            fields[name] = bench.put(fields[name])
    target = bench.room(out, *np.shape(data))
    return bench.result(engine, make("tensor_scalar", data=operand, out=target, **fields), target)


def test_tensor_scalar_two_operators():
    assert scalar(f32([1, 2]), op0="multiply", immediate0=3.0, op1="add", immediate1=0.5).tolist() == [[3.5, 6.5]]


def test_tensor_scalar_reverse():
    assert scalar(f32([1, 2]), op0="subtract", immediate0=3.0, reverse0=True).tolist() == [[2, 1]]
    assert scalar(f32([1, 2]), op0="add", op1="subtract", immediate1=3.0, reverse1=True).tolist() == [[2, 1]]


def test_tensor_scalar_per_partition():
    data = f32([1, 2], [3, 4])
    assert scalar(data, op0="multiply", scalar0=f32([10], [100]), op1="add", scalar1=f32([1], [2])).tolist() == [
        [11, 21], [302, 402]]


def test_tensor_scalar_integer_scalar_becomes_f32_on_vector():
    assert scalar(np.array([[3]], np.int32), S32, op0="multiply", scalar0=np.array([[4]], np.int32)).tolist() == [[12]]


def test_tensor_scalar_bits():
    data = np.array([[0b1100, 0b1010]], np.uint16)
    assert scalar(data, U16, op0="bitwise_and", immediate0=6.0, op1="shift_left", immediate1=4.0).tolist() == [[0x40, 0x20]]
    with pytest.raises(CompileError, match="do not mix"):
        scalar(data, U16, op0="bitwise_and", op1="add")


def test_tensor_scalar_native():
    data = np.array([[2 ** 31 - 1, 7]], np.int32)
    assert scalar(data, S32, "gpsimd", op0="add", immediate0=1.0).tolist() == [[-2 ** 31, 8]]
    assert scalar(data, S32, "gpsimd", op0="greater", immediate0=7.0, op1="multiply", immediate1=-3.0).tolist() == [[-3, 0]]
    assert scalar(data, S32, "gpsimd", op0="subtract", scalar0=np.array([[10]], np.int32), reverse0=True).tolist() == [
        [-2 ** 31 + 11, 3]]


def test_scalar_tensor_tensor_may_write_its_tensor():
    bench = Bench()
    data, b = bench.put(f32([1, 2])), bench.put(f32([10, 20]))
    instruction = make("scalar_tensor_tensor", data=data, b=b, out=b, op0="multiply", immediate0=3.0, op1="subtract",
        reverse1=True)
    assert bench.result("vector", instruction, b).tolist() == [[7, 14]]


def reduced(op, data, out_dtype=F32, axes=1, engine="vector", **fields):
    bench = Bench()
    operand = bench.put(data)
    out = bench.room(out_dtype, *np.shape(data)[:-axes])
    return bench.result(engine, make("tensor_reduce", data=operand, out=out, op=op, axes=axes, **fields), out)


def test_tensor_reduce():
    data = f32([[1, 2], [3, 4]], [[5, 6], [7, 8]])
    assert reduced("add", data).tolist() == [[3, 7], [11, 15]]
    assert reduced("multiply", data, axes=2).tolist() == [24, 1680]
    assert reduced("maximum", data, negate=True).tolist() == [[-2, -4], [-6, -8]]
    assert reduced("add", data.astype(ml_dtypes.bfloat16), BF16, axes=2).astype(np.float32).tolist() == [10, 26]
    assert reduced("logical_and", f32([1, 0], [2, 3])).tolist() == [0, 1]


def test_tensor_reduce_integers():
    data = np.array([[2 ** 31 - 1, 1, 4]], np.int32)
    assert reduced("add", data, S32, engine="gpsimd").tolist() == [-2 ** 31 + 4]
    assert reduced("add", data, S32).tolist() == [2 ** 31 - 1]
    assert reduced("bitwise_or", data.view(np.uint32), U32).tolist() == [2 ** 31 - 1]
    assert reduced("logical_or", data, S32, engine="gpsimd").tolist() == [1]


def test_tensor_reduce_strided_axis():
    bench = Bench()
    data = bench.put(f32([1, 2, 3, 4, 5, 6]))
    out = bench.room(F32, 1, 3)
    columns = pattern(F32, 1, 3, 2, at=data.offset, strides=(1, 3))
    assert bench.result("vector", make("tensor_reduce", data=columns, out=out, op="add"), out).tolist() == [[5, 7, 9]]


def test_scan():
    bench = Bench()
    a, b = bench.put(f32([2, 3, 4], [1, 1, 1])), bench.put(f32([1, 1, 1], [1, 2, 3]))
    initial, out = bench.put(f32([10], [0])), bench.room(F32, 2, 3)
    instruction = make("tensor_tensor_scan", a=a, b=b, out=out, initial=initial, op0="multiply", op1="add")
    assert bench.result("vector", instruction, out).tolist() == [[21, 64, 257], [1, 3, 6]]
    instruction = make("tensor_tensor_scan", a=a, b=b, out=out, initial_value=1.0, op0="subtract", op1="maximum")
    assert bench.result("vector", instruction, out).tolist() == [[1, 2, 2], [1, 2, 3]]


def copied(data, out_dtype, engine="vector"):
    bench = Bench()
    operand, out = bench.put(data), bench.room(out_dtype, *np.shape(data))
    return bench.result(engine, make("tensor_copy", data=operand, out=out), out)


def test_tensor_copy():
    odd = np.array([[0x7FA0_0001, 2 ** 31 - 1]], np.uint32)
    assert copied(odd.view(np.float32), F32).view(np.uint32).tolist() == odd.tolist()
    assert copied(odd.view(np.int32), S32).view(np.uint32).tolist() == odd.tolist()
    assert copied(f32([1.5, 2.5, -1]), U8).tolist() == [[2, 2, 0]]
    assert copied(np.array([[-3]], np.int8), F32).tolist() == [[-3]]


def test_copies_between_different_free_shapes():
    bench = Bench()
    data, out = bench.put(np.arange(12, dtype=np.float32).reshape(1, 12)), bench.room(F32, 1, 3, 4)
    turned = pattern(F32, 1, 4, 3, at=out.offset, strides=(1, 4))
    assert bench.result("vector", make("tensor_copy", data=data, out=turned), out).tolist() == [
        [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]]


def test_shapes_that_do_not_fit():
    bench = Bench()
    data, out = bench.put(np.zeros((1, 6), np.float32)), bench.room(F32, 1, 5)
    with pytest.raises(CompileError, match="fit together|number of elements"):
        bench.result("vector", make("tensor_copy", data=data, out=out), out)


def test_zero_and_negative_strides():
    bench = Bench()
    data, out = bench.put(f32([1, 2, 3])), bench.room(F32, 1, 3)
    backwards = pattern(F32, 1, 3, at=data.offset.constant + 8, strides=(-1,))
    repeated = pattern(F32, 1, 3, at=data.offset, strides=(0,))
    assert bench.result("vector", make("tensor_tensor", a=backwards, b=repeated, out=out, op="add"), out).tolist() == [[4, 3,
        2]]


def test_copy_predicated():
    bench = Bench()
    data, predicate, out = bench.put(f32([1, 2, 3])), bench.put(np.array([[0, 1, 7]], np.uint8)), bench.put(f32([9, 9, 9]))
    assert bench.result("vector", make("copy_predicated", data=data, predicate=predicate, out=out), out).tolist() == [[9, 2, 3]]


@pytest.mark.parametrize("dtype, value, expected", [
    (F32, 1.5, 1.5), (BF16, -2.0, -2), (S32, 2.0 ** 30 + 1, 2 ** 30 + 1), (U8, 300.0, 255), (S32, 2.5, 2), (U32,
        4294967295.0, 2 ** 32 - 1),
    (F16, 1e6, INF),
])
def test_memset(dtype, value, expected):
    bench = Bench()
    out = bench.room(dtype, 2, 3)
    assert (bench.result("vector", make("memset", out=out, value=value), out).astype(np.float64) == expected).all()


def test_reciprocal():
    bench = Bench()
    data, out = bench.put(f32([4, 0, -0.5])), bench.room(F32, 1, 3)
    assert bench.result("vector", make("reciprocal", data=data, out=out), out).tolist() == [[0.25, INF, -2]]


def test_select():
    bench = Bench()
    predicate = bench.put(np.array([[1, 0, 2]], np.uint8))
    a, b, out = bench.put(f32([1, 2, 3])), bench.put(f32([7, 8, 9])), bench.room(F32, 1, 3)
    small = bench.room(S8, 1, 3)
    core = bench.run("vector", make("select", predicate=predicate, a=a, b=b, out=out),
                     make("select", predicate=predicate, a=a, out=small, immediate=-4.0))
    assert array_of(core, out).tolist() == [[1, 8, 3]]
    assert array_of(core, small).tolist() == [[1, -4, 3]]


def test_bn_stats_and_aggregate():
    bench = Bench()
    data = bench.put(f32([1, 2, 3, 6, 8]))
    stats, out = bench.room(F32, 1, 6), bench.room(F32, 1, 2)
    core = bench.run("vector", make("bn_stats", data=data, out=stats), make("bn_aggr", data=stats, out=out))
    assert array_of(core, stats).tolist() == [[3, 4, 26, 2, 4, 8]]
    assert array_of(core, out)[0] == pytest.approx([4, 6.8])


def test_transposes_of_32_by_32_blocks():
    bench = Bench()
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    data, out = bench.put(values), bench.room(U16, 64, 64)
    result = bench.result("vector", make("vector_transpose", data=data, out=out), out)
    assert result[3, 5] == values[5, 3] and result[40, 2] == values[34, 8] and result[2, 40] == values[8, 34]
    bench = Bench()
    data, out = bench.put(np.array([[1, 2, 3], [4, 5, 6]], np.int32)), bench.room(S32, 3, 2)
    assert bench.result("vector", make("vector_transpose", data=data, out=out), out).tolist() == [[1, 4], [2, 5], [3, 6]]


def test_max8_find_index8_match_replace8():
    bench = Bench()
    data = bench.put(f32([3, 9, 1, 9, 4, 7, 5, 2, 8, 0]))
    largest, at, replaced = bench.room(F32, 1, 8), bench.room(U32, 1, 8), bench.room(F32, 1, 10)
    core = bench.run("vector", make("max8", data=data, out=largest), make("find_index8", data=data, values=largest, out=at),
                     make("match_replace8", data=data, values=largest, out=replaced, value=-1.0))
    assert array_of(core, largest).tolist() == [[9, 9, 8, 7, 5, 4, 3, 2]]
    assert array_of(core, at).tolist() == [[1, 3, 8, 5, 6, 4, 0, 7]]
    assert array_of(core, replaced).tolist() == [[-1, -1, 1, -1, -1, -1, -1, -1, -1, 0]]


def test_values_that_are_not_found():
    bench = Bench()
    data, values = bench.put(f32([1, 2])), bench.put(f32([2, 2, 5, 1, 1, 5, 5, 5]))
    out = bench.room(U16, 1, 8)
    none = 65535
    assert bench.result("vector", make("find_index8", data=data, values=values, out=out), out).tolist() == [
        [1, none, none, 0, none, none, none, none]]


def test_psum_operands():
    bench = Bench()
    data = bench.put(f32([1, 2]), memory=Memory.PSUM)
    out = bench.room(F32, 1, 2)
    assert bench.result("vector", make("tensor_scalar", data=data, out=out, op0="add", immediate0=1.0), out).tolist() == [[2,
        3]]
