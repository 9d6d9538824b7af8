"""GpSimd: patterns, masks, gathers, reductions over partitions."""

import numpy as np
import pytest

from nxcc.ir.diagnostics import CompileError
from nxcc.ir.dtypes import BF16, F32, S32, U8

from harness.one_core import Bench, array_of, make, pattern, register


def test_iota():
    bench = Bench()
    out = bench.room(S32, 2, 2, 3)
    instruction = make("iota", out=out, base=5, channel_multiplier=100, steps=(10, -1))
    assert bench.result("gpsimd", instruction, out).tolist() == [[[5, 4, 3], [15, 14, 13]], [[105, 104, 103], [115, 114, 113]]]


def test_iota_casts_and_wraps():
    bench = Bench()
    small, wide = bench.room(U8, 1, 3), bench.room(S32, 1, 2)
    core = bench.run("gpsimd", make("iota", out=small, base=254, steps=(1,)), make("iota", out=wide, base=2 ** 31 - 1,
        steps=(1,)))
    assert array_of(core, small).tolist() == [[254, 255, 255]]
    assert array_of(core, wide).tolist() == [[2 ** 31 - 1, -2 ** 31]]


def test_iota_with_a_register():
    bench = Bench()
    out = bench.room(F32, 1, 2)
    core = bench.run("gpsimd", make("register_set", register=3, value=7), make("iota", out=out, base=register(3, 2),
        steps=(1,)))
    assert array_of(core, out).tolist() == [[14, 15]]


def test_causal_mask():
    bench = Bench()
    data, out = bench.put(np.ones((3, 3), np.float32)), bench.room(F32, 3, 3)
    fields = dict(base=0, channel_multiplier=1, steps=(-1,), compare="greater_equal", fill=-9.0)
    assert bench.result("gpsimd", make("affine_select", data=data, out=out, **fields), out).tolist() == [
        [1, -9, -9], [1, 1, -9], [1, 1, 1]]
    narrow = bench.room(BF16, 3, 3)
    assert bench.result("gpsimd", make("affine_select", data=data, out=narrow, **fields), narrow).astype(int).tolist() == [
        [1, -9, -9], [1, 1, -9], [1, 1, 1]]


def test_gather_free():
    bench = Bench()
    data = bench.put(np.array([[10, 11, 12], [20, 21, 22]], np.float32))
    indices, out = bench.put(np.array([[2, 0], [1, 1]], np.uint32)), bench.room(F32, 2, 2)
    instruction = make("gather_free", data=data, indices=indices, out=out)
    assert bench.result("gpsimd", instruction, out).tolist() == [[12, 10], [21, 21]]


def test_gather_free_checks_its_indices():
    bench = Bench()
    data, indices = bench.put(np.zeros((1, 3), np.float32)), bench.put(np.array([[3]], np.uint32))
    with pytest.raises(CompileError, match="0..2"):
        bench.run("gpsimd", make("gather_free", data=data, indices=indices, out=bench.room(F32, 1, 1)))


def test_partition_reduce():
    bench = Bench()
    data = bench.put(np.array([[1, 2], [3, -4], [5, 6]], np.float32))
    whole = bench.put(np.array([[2 ** 31 - 1], [2]], np.int32))
    out, native = bench.room(F32, 1, 2), bench.room(S32, 1, 1)
    core = bench.run("gpsimd", make("partition_reduce", data=data, out=out, op="add"),
                     make("partition_reduce", data=whole, out=native, op="add"))
    assert array_of(core, out).tolist() == [[9, 4]]
    assert array_of(core, native).tolist() == [[-2 ** 31 + 1]]


def test_wrong_engine_is_refused():
    bench = Bench()
    with pytest.raises(CompileError, match="does not run on PE"):
        bench.run("pe", make("iota", out=pattern(S32, 1, 1), base=0, steps=(1,)))
