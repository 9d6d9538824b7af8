"""The machine verifier: one breach a case, and programs it must let pass."""

import pytest

from nxcc.backends.isa.program import Engine, Function
from nxcc.backends.isa.verifier import verify_program
from nxcc.backends.target import load_target
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.dtypes import BF16, S64

from harness.machine import PARTITION, hbm, linear, op, program, psum, reg, sbuf

V2 = load_target("v2")
HBM = 1 << 20
LOAD = op("dma_copy", source=hbm(0, 256, 4), destination=linear(0, PARTITION, 4), sizes=(128, 64), signal=[(0, 16)])


def problems(p):
    try:
        verify_program(p, V2, hbm_bytes=HBM)
    except CompileError as error:
        assert error.code.name == "NXC0403"
        return "\n".join(error.details)
    return ""


def fill(free=64, offset=0):
    return op("memset", out=sbuf(free, offset))


def test_load_compute_store_passes():
    compute = op("activation", data=sbuf(64), out=sbuf(64, 256), function="exp", wait=[(0, 16)], signal=[(1, 1)])
    store = op("dma_copy", source=linear(256, PARTITION, 4), destination=hbm(65536, 256, 4), sizes=(128, 64), wait=[(1, 1)])
    assert problems(program(sync=[LOAD, store], scalar=[compute])) == ""


VECTOR_CASES = {
    "engine": (op("iota", out=sbuf(8), base=0, steps=(1,)), "DVE does not run it"),
    "start partition": (op("memset", out=sbuf(8, partition=16, partitions=32)), "32 partitions may not start at 16"),
    "too many partitions": (op("memset", out=sbuf(8, partition=64, partitions=128)), "128 partitions may not start at 64"),
    "dtype": (op("memset", out=sbuf(8, dtype=S64)), "dtype s64 is not legal"),
    "reserved bytes": (op("memset", out=sbuf(64, 180224 - 252)), "bytes 179972..180227 of a partition of sbuf"),
    "negative walk": (op("memset", out=sbuf(64, stride=-1)), "bytes -252..3"),
    "stride": (op("memset", out=sbuf(2, stride=40000)), "strides do not fit"),
    "empty": (op("memset", out=sbuf(0)), "sizes (0,) are not within"),
    "shape": (op("tensor_copy", data=psum(64), out=sbuf(32)), "operands differ in shape"),
    "scalar shape": (op("tensor_scalar", data=sbuf(4), out=sbuf(4), op0="add", scalar0=sbuf(2)), "[128, 2] instead of"),
    "two in psum": (op("tensor_tensor", a=psum(4), b=psum(4), out=sbuf(4), op="add"), "a and b are both in psum"),
    "power": (op("tensor_tensor", a=sbuf(4), b=sbuf(4), out=sbuf(4), op="power"), "power runs on GpSimd only"),
    "bits of floats": (op("tensor_tensor", a=sbuf(4), b=sbuf(4), out=sbuf(4), op="bitwise_and"), "bitwise_and needs integers"),
    "reduce axes": (op("tensor_reduce", data=sbuf(4), out=sbuf(1), op="add", axes=2), "axes 2 of 1"),
    "missing operand": (op("tensor_copy", data=sbuf(4)), "out is missing"),
    "missing field": (op("tensor_tensor", a=sbuf(4), b=sbuf(4), out=sbuf(4)), "op is missing"),
    "semaphore": (op("nop", signal=[(256, 1)]), "semaphores 256..256 of 256"),
    "undefined register": (op("memset", out=sbuf(4, reg(5))), "r5 is read before anything sets it"),
    "uninitialised": (op("tensor_copy", data=sbuf(4, 512), out=sbuf(4)), "reads sbuf before it is written, at offset 512"),
    "queue": (op("dma_copy", source=hbm(0, 4), destination=hbm(64, 4), sizes=(4,), queue=16), "queue 16 of 16"),
    "hbm end": (op("dma_copy", source=hbm(HBM - 12, 4), destination=hbm(64, 4), sizes=(4,)), "of hbm, of which"),
    "dma dims": (op("dma_copy", source=hbm(0, *[4] * 6), destination=hbm(64, *[4] * 6), sizes=(1,) * 6), "one to 4"),
    "dma partition": (op("dma_copy", source=hbm(0, 4), destination=linear(128 * PARTITION, 4), sizes=(4,)),
                      "partitions 128..128 of sbuf"),
    "dma end of partition": (op("dma_copy", source=hbm(0, 4), destination=linear(180220, 4), sizes=(4,)),
                             "bytes of a partition 180220..180235"),
    "function": (op("call", function=3), "function 3 has no stream"),
    "end": (op("end"), "end without a block"),
    "else": (op("else"), "else without if"),
    "open": (op("loop", register=1, count=2), "this block has no end"),
    "break": (op("break_unless", register=1), "break_unless outside a while"),
}


@pytest.mark.parametrize(("instruction", "expected"), VECTOR_CASES.values(), ids=VECTOR_CASES.keys())
def test_breach_is_named(instruction, expected):
    assert expected in problems(program(vector=[fill(), instruction]))


MATMUL_CASES = {
    "fits": (sbuf(128, dtype=BF16), sbuf(512, dtype=BF16), psum(512), ""),
    "bank": (sbuf(128, dtype=BF16), sbuf(512, dtype=BF16), psum(512, 1024), "cross a bank"),
    "n": (sbuf(128, dtype=BF16), sbuf(600, dtype=BF16), psum(600), "n 600 exceed"),
    "m": (sbuf(64, dtype=BF16), sbuf(512, dtype=BF16), psum(512), "do not give"),
    "pairing": (sbuf(128, dtype=BF16), sbuf(128), psum(128), "bf16 and f32 do not pair"),
}


@pytest.mark.parametrize(("stationary", "moving", "out", "expected"), MATMUL_CASES.values(), ids=MATMUL_CASES.keys())
def test_matmul_limits(stationary, moving, out, expected):
    p = program(vector=[op("memset", out=sbuf(1024), signal=[(0, 1)])],
                pe=[op("matmul", stationary=stationary, moving=moving, out=out, wait=[(0, 1)])])
    assert expected in problems(p) if expected else problems(p) == ""


def test_accumulating_onto_nothing_is_uninitialised():
    p = program(vector=[op("memset", out=sbuf(512), signal=[(0, 1)])],
                pe=[op("matmul", stationary=sbuf(128), moving=sbuf(128), out=psum(128), accumulate=True, wait=[(0, 1)])])
    assert "reads psum before it is written" in problems(p)


@pytest.mark.parametrize(("count", "fits"), [(704, True), (705, False)])
def test_loop_reaches_last_address(count, fits):
    p = program(vector=[op("loop", register=1, count=count), op("memset", out=sbuf(64, reg(1, 256))), op("end")])
    assert ("of a partition of sbuf" in problems(p)) is not fits


@pytest.mark.parametrize(("count", "fits"), [(704, True), (705, False)])
def test_register_stepped_in_a_loop_is_followed(count, fits):
    p = program(vector=[op("register_set", register=2, value=0), op("loop", register=1, count=count),
                        op("memset", out=sbuf(64, reg(2))), op("register_set", register=2, value=reg(2, 1, 256)), op("end")])
    assert ("of a partition of sbuf" in problems(p)) is not fits


def loaded(*clamp):
    return program(sync=[op("register_load", register=3, source=hbm(0)), *clamp,
                         op("dma_copy", source=hbm(reg(3, 256), 4), destination=hbm(512, 4), sizes=(64,))])


def clamped(name, limit):
    return op("register_alu", register=3, op=name, a=reg(3), b=limit)


def test_loaded_register_needs_both_clamps():
    assert problems(loaded(clamped("maximum", 0), clamped("minimum", 4095))) == ""
    assert "of hbm" in problems(loaded(clamped("minimum", 4095)))
    assert "of hbm" in problems(loaded(clamped("maximum", 0)))
    assert "of hbm" in problems(loaded(clamped("maximum", 0), clamped("minimum", 4096)))


def test_function_is_checked_with_the_arguments_of_all_calls():
    body = Function("body", {Engine.VECTOR: [op("memset", out=sbuf(64, reg(1)))]})
    calls = [op("register_set", register=1, value=180224 - 256), op("call", function=0),
             op("register_set", register=1, value=0), op("call", function=0)]
    assert problems(program([body], vector=calls)) == ""
    calls[2] = op("register_set", register=1, value=180224 - 252)
    assert "of a partition of sbuf" in problems(program([body], vector=calls))


def test_function_may_not_call_or_halt():
    body = Function("body", {Engine.VECTOR: [op("call", function=0), op("halt")]})
    text = problems(program([body], vector=[]))
    assert "a function calls" in text and "halt inside" in text


def test_entry_ends_in_halt():
    p = program(vector=[])
    p.entries[0].streams[Engine.VECTOR].clear()
    assert "does not end in halt" in problems(p)


def test_wait_beyond_all_signals_is_reported():
    p = program(sync=[LOAD], vector=[op("nop", wait=[(0, 17)])])
    assert "waits for semaphore 0 >= 17, but all signals add up to 16" in problems(p)


def test_signals_in_loops_count():
    loop = [op("loop", register=1, count=3), LOAD, op("end")]
    assert problems(program(sync=loop, vector=[op("nop", wait=[(0, 48)])])) == ""
    assert "add up to 48" in problems(program(sync=loop, vector=[op("nop", wait=[(0, 49)])]))


def test_deadlock_of_two_engines_is_reported():
    p = program(vector=[op("nop", wait=[(0, 1)], signal=[(1, 1)])], scalar=[op("nop", wait=[(1, 1)], signal=[(0, 1)])])
    text = problems(p)
    assert "main, DVE 0: waits for ever for semaphore 0 >= 1, which is 0" in text and "main, Activation 0" in text


def test_wait_on_the_iteration_is_followed():
    producer = [op("loop", register=1, count=4), op("nop", signal=[(0, 1)], wait=[(1, reg(1))]), op("end")]

    def consumer(first):
        return [op("loop", register=1, count=4), op("nop", wait=[(0, reg(1, 1, first))], signal=[(1, 1)]), op("end")]

    assert problems(program(vector=producer, scalar=consumer(1))) == ""
    assert "add up to 4" not in problems(program(vector=producer, scalar=consumer(2)))
    assert "waits for ever" in problems(program(vector=producer, scalar=consumer(2)))


def conditional(*, arm):
    return [op("register_load", register=1, source=hbm(0)), op("if", register=1), *arm, op("end")]


def test_only_one_arm_signals():
    p = program(vector=conditional(arm=[op("nop", signal=[(0, 1)])]),
                scalar=[*conditional(arm=[]), op("nop", wait=[(0, 1)])])
    assert "waits for ever" in problems(p)


def test_while_runs_on_all_engines_alike():
    loop = [op("while"), op("register_load", register=1, source=hbm(0)), op("break_unless", register=1), op("end")]
    assert problems(program(vector=loop, scalar=loop)) == ""
    assert "differ from those of DVE" in problems(program(vector=loop, scalar=conditional(arm=[])))


def test_write_of_one_engine_initialises_for_another_only_if_ordered():
    write = op("memset", out=sbuf(64), signal=[(0, 1)])
    read = op("activation", data=sbuf(64), out=psum(64), function="copy", wait=[(0, 1)])
    late = op("activation", data=sbuf(64), out=psum(64), function="copy")
    assert problems(program(scalar=[read], vector=[write])) == ""
    assert "reads sbuf before it is written" in problems(program(scalar=[late], vector=[write]))


def test_all_problems_are_listed():
    p = program(vector=[op("memset", out=sbuf(8, partition=16)), op("memset", out=sbuf(0))])
    assert len(problems(p).splitlines()) == 2


def test_semaphore_may_be_taken_back_but_not_below_zero():
    reset = op("nop", wait=[(0, 16)], signal=[(0, -16), (1, 1)])
    assert problems(program(sync=[LOAD, reset, LOAD, op("nop", wait=[(0, 16)])])) == ""
    assert "takes semaphore 0 below 0, to -1" in problems(program(sync=[LOAD, op("nop", signal=[(0, -17)])]))
    assert "waits for ever" in problems(program(sync=[LOAD, reset, op("nop", wait=[(0, 16)])]))
