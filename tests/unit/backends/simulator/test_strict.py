"""Strict mode: each kind of fault is found, whatever the order; legal programs pass and compute the same."""

import numpy as np
import pytest

from nxcc.backends.isa.program import DMA_PARTITION_STRIDE as STRIDE
from nxcc.backends.isa.program import Memory
from nxcc.backends.simulator.functional import Machine
from nxcc.backends.simulator.strict.machine import StrictMachine
from nxcc.backends.simulator.strict.ordering import Clock, SignalHistory
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.dtypes import BF16, F32, S32, U8

from harness.one_core import HBM_BYTES, hbm, make, pattern, program, register, sbuf

SEEDS = range(6)
DATA = np.arange(32 * 64, dtype=np.float32).reshape(32, 64)


def strict(seed, **streams):
    core = StrictMachine(program(**streams), HBM_BYTES, seed=seed)
    core.write(0, DATA)
    core.run()
    return core


def fails(pattern_of_error, **streams):
    """The fault is found with every seed: detection does not depend on luck."""
    for seed in SEEDS:
        with pytest.raises(CompileError, match=pattern_of_error):
            strict(seed, **streams)


def load(at=0, signals=((0, 16),), waits=(), rows=32):
    return make("dma_copy", source=hbm(F32, 0, 256, 4), destination=sbuf(F32, at, STRIDE, 4), sizes=(rows, 64), signals=signals,
                waits=waits)


def store(at, signals=((1, 16),), waits=(), address=16384):
    return make("dma_copy", source=sbuf(F32, at, STRIDE, 4), destination=hbm(F32, address, 256, 4), sizes=(32, 64),
                signals=signals, waits=waits)


TILE = pattern(F32, 32, 64)
RESULT = pattern(F32, 32, 64, at=1024)


def double(waits=((0, 16),), signals=((2, 1),)):
    return make("tensor_scalar", data=TILE, out=RESULT, op0="multiply", immediate0=2.0, waits=waits, signals=signals)


DONE = make("nop", waits=((1, 16),))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_legal_program_computes_the_same(seed):
    core = strict(seed, sync=[load(), store(1024, waits=((2, 1),)), DONE], vector=[double()])
    assert (core.read(16384, F32, (32, 64)) == 2 * DATA).all()


def test_reading_what_nobody_wrote():
    fails("SBUF partition 0 byte 0 is read before .*main, DVE instruction 0 tensor_scalar", vector=[double(waits=())])
    fails("HBM byte 8192 is read before", sync=[make("register_load", source=hbm(S32, 8192), register=0)])


def test_using_a_transfer_that_may_be_under_way():
    fails("race|read before", sync=[load(), make("nop", waits=((0, 16),))], vector=[double(waits=((0, 8),))])
    fails("race|read before", sync=[load(), DONE], vector=[double(waits=())])


def test_overwriting_what_a_transfer_still_reads():
    fails("race", sync=[load(), store(0, waits=((0, 16),)), DONE],
          vector=[make("memset", out=TILE, waits=((0, 16),))])


def test_two_transfers_on_one_semaphore_prove_nothing():
    fails("race|read before", sync=[load(), load(at=1 << 14), make("nop", waits=((0, 32),))], vector=[double()])


@pytest.mark.parametrize("seed", SEEDS)
def test_one_semaphore_for_transfers_one_after_another(seed):
    strict(seed, sync=[load(), load(at=1 << 14, waits=((0, 16),)), make("nop", waits=((0, 32),))], vector=[double()])


def test_writes_of_two_engines_without_order():
    fails("race: it writes SBUF", vector=[make("memset", out=TILE)], gpsimd=[make("memset", out=pattern(F32, 1, 1, at=128))])


@pytest.mark.parametrize("seed", SEEDS)
def test_interleaved_patterns_do_not_overlap(seed):
    strict(seed, vector=[make("memset", out=pattern(F32, 4, 8, strides=(2,)))],
           gpsimd=[make("memset", out=pattern(F32, 4, 8, at=4, strides=(2,)))],
           scalar=[make("nop")])
    strict(seed, vector=[make("memset", out=pattern(BF16, 4, 8, strides=(2,)))],
           gpsimd=[make("memset", out=pattern(U8, 4, 8, at=2, strides=(4,)))])


@pytest.mark.parametrize("seed", SEEDS)
def test_order_through_a_third_engine(seed):
    strict(seed, vector=[make("memset", out=TILE, signals=((0, 1),))], scalar=[make("nop", waits=((0, 1),), signals=((1, 1),))],
           gpsimd=[make("memset", out=TILE, waits=((1, 1),))])


def test_a_wait_that_another_signal_can_meet():
    """Only an order in which both signals have come shows that one alone may meet the wait."""
    found = 0
    for seed in SEEDS:
        try:
            strict(seed, vector=[make("memset", out=TILE, signals=((0, 1),))], scalar=[make("nop", signals=((0, 1),))],
                   gpsimd=[make("memset", out=TILE, waits=((0, 1),))])
        except CompileError as error:
            found += "race" in str(error)
    assert found


@pytest.mark.parametrize("seed", SEEDS)
def test_rings_with_counters(seed):
    """Vector writes slots of a ring of two, Scalar reads them; counters both ways."""
    rounds, slot = 9, make("register_alu", register=1, op="modulo", a=register(0), b=2)
    tile = pattern(F32, 32, 4, at=register(1, 64))
    produce = [make("loop", register=0, count=rounds), slot,
               make("memset", out=tile, value=1.0, waits=((1, register(0, 1, -1)),), signals=((0, 1),)), make("end")]
    consume = [make("loop", register=0, count=rounds), slot,
               make("activation", data=tile, out=pattern(F32, 32, 4, at=4096), function="copy", waits=((0, register(0, 1, 1)),),
                    signals=((1, 1),)), make("end")]
    strict(seed, vector=produce, scalar=consume)


def test_a_ring_that_is_reused_too_early():
    slot = make("register_alu", register=1, op="modulo", a=register(0), b=2)
    tile = pattern(F32, 32, 4, at=register(1, 64))
    produce = [make("loop", register=0, count=9), slot,
               make("memset", out=tile, value=1.0, waits=((1, register(0, 1, -2)),), signals=((0, 1),)), make("end")]
    consume = [make("loop", register=0, count=9), slot,
               make("activation", data=tile, out=pattern(F32, 32, 4, at=4096), function="copy", waits=((0, register(0, 1, 1)),),
                    signals=((1, 1),)), make("end")]
    fails("race", vector=produce, scalar=consume)


def test_the_end_with_a_transfer_under_way():
    fails("ends while a transfer may be under way", sync=[load()])


def matmul(**fields):
    return make("matmul", stationary=pattern(F32, 32, 32), moving=TILE, out=pattern(F32, 32, 64, memory=Memory.PSUM), **fields)


@pytest.mark.parametrize("seed", SEEDS)
def test_accumulation_groups(seed):
    strict(seed, sync=[load()], pe=[matmul(waits=((0, 16),)), matmul(accumulate=True)])


def test_accumulation_without_a_group():
    fails("read before", sync=[load()], pe=[matmul(accumulate=True, waits=((0, 16),))])
    fails("a group starts with", sync=[load()], pe=[matmul(accumulate=True, waits=((0, 16), (3, 1)))],
          vector=[make("memset", out=pattern(F32, 32, 64, memory=Memory.PSUM), signals=((3, 1),))])


def test_a_matmul_across_banks():
    crossing = pattern(F32, 32, 64, at=2048 - 8, memory=Memory.PSUM)
    fails("crosses a PSUM bank", sync=[load()],
          pe=[make("matmul", stationary=pattern(F32, 32, 32), moving=TILE, out=crossing, waits=((0, 16),))])


def test_activation_ranges():
    fails("sin of .* documented range", vector=[make("memset", out=TILE, value=4.0, signals=((0, 1),))],
          scalar=[make("activation", data=TILE, out=RESULT, function="sin", waits=((0, 1),))])


def test_transfers_that_overlap_themselves():
    row = make("dma_copy", source=hbm(F32, 0, 4), destination=hbm(F32, 4, 4), sizes=(8,), signals=((0, 16),))
    fails("overlap", sync=[row, make("nop", waits=((0, 16),))])
    repeated = make("dma_copy", source=hbm(F32, 0, 4), destination=hbm(F32, 16384, 0), sizes=(8,), signals=((0, 16),))
    fails("more than once", sync=[repeated, make("nop", waits=((0, 16),))])


def test_registers_start_with_rubbish():
    for seed in SEEDS:
        with pytest.raises(CompileError, match="outside HBM"):
            strict(seed, sync=[make("register_store", destination=hbm(S32, register(5, 4)), register=0)])


@pytest.mark.parametrize("seed", SEEDS)
def test_gather_and_scatter(seed):
    rows = np.array([3, 1, 7], np.int32)
    indices = pattern(S32, 3, at=8192)
    streams = dict(gpsimd=[
        make("dma_copy", source=hbm(S32, 32768, 4), destination=sbuf(S32, 8192, STRIDE), sizes=(3,), signals=((0, 16),)),
        make("dma_gather", source=hbm(F32, 0, 0, 4), indices=indices, destination=sbuf(F32, 0, STRIDE, 4), sizes=(3, 64),
             index_stride=256, limit=32, waits=((0, 16),), signals=((1, 16),)),
        make("dma_scatter", source=sbuf(F32, 0, STRIDE, 4), indices=indices, destination=hbm(F32, 40960, 0, 4), sizes=(3, 64),
             index_stride=256, limit=8, waits=((1, 16),), signals=((2, 16),)),
        make("nop", waits=((2, 16),))])
    core = StrictMachine(program(**streams), HBM_BYTES, seed=seed)
    core.write(0, DATA)
    core.write(32768, rows)
    core.run()
    for row in rows:
        assert (core.read(40960 + 256 * int(row), F32, (64,)) == DATA[row]).all()
    with pytest.raises(CompileError, match="not written"):
        core.read(40960, F32, (64,))


def test_entries_follow_each_other():
    prepared = program(sync=[load(), make("nop", waits=((0, 16),))])
    prepared.entries.append(program(sync=[store(0), DONE]).entries[0])
    core = StrictMachine(prepared, HBM_BYTES)
    core.write(0, DATA)
    core.run(0)
    with pytest.raises(CompileError, match="read before"):
        core.run(1)


def test_deadlock_is_found():
    fails("wait for each other", sync=[make("nop", waits=((0, 1),))])


def test_a_random_order_gives_the_fast_answer():
    streams = dict(sync=[load(), store(1024, waits=((2, 1),)), DONE], vector=[double()])
    fast = Machine(program(**streams), HBM_BYTES)
    fast.write(0, DATA)
    fast.run()
    assert (strict(3, **streams).read(16384, F32, (32, 64)) == fast.read(16384, F32, (32, 64))).all()


def test_what_a_wait_proves():
    a, b = Clock((1, 0, 0, 0, 0)), Clock((0, 1, 0, 0, 0))
    history = SignalHistory()
    history.announce("a", 1, a)
    assert history.proven(1).covers(a)
    history.announce("b", 1, b)
    assert not history.proven(1).covers(a) and not history.proven(1).covers(b)
    both = history.proven(2)
    assert both.covers(a) and both.covers(b)
    history.announce("a", 1, both)
    assert history.proven(2).covers(b) and history.proven(3).covers(both)
    ahead = SignalHistory()
    for time in (1, 2, 3):
        ahead.announce("a", 1, Clock((time, 0, 0, 0, 0)))
    ahead.announce("b", 1, Clock((2, 1, 0, 0, 0)))
    assert ahead.proven(2).times[0] == 2 and ahead.proven(1).times[0] == 1
    assert history.proven(0).times == (0, 0, 0, 0, 0)


def reused(waits):
    """A region that takes its semaphore back to 0, run twice by a loop; the second round must not see the first one's count."""
    return dict(
        sync=[make("loop", register=0, count=2), load(waits=((5, register(0)),)), make("nop", waits=waits, signals=((0, -16),)),
              make("nop", signals=((4, 1),)), make("end")],
        vector=[make("loop", register=0, count=2), make("nop", waits=((4, register(0, 1, 1)),)),
                double(waits=(), signals=((5, 1),)), make("end")])


@pytest.mark.parametrize("seed", SEEDS)
def test_semaphores_taken_back_to_zero(seed):
    strict(seed, **reused(((0, 16),)))


def test_semaphores_taken_back_too_early():
    fails("counted down before", **reused(((0, 0),)))
