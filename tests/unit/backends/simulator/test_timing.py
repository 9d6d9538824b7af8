"""The clock on programs of a few instructions, to the tick: 5.6 a nanosecond; PE 2, Scalar 4, Vector 5, GpSimd 4 a cycle."""

import itertools

import pytest

from nxcc.backends.isa.program import Engine, Function, Program
from nxcc.backends.simulator.outcome import Cause
from nxcc.backends.simulator.timing import Clock
from nxcc.backends.target import load_target
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.dtypes import BF16, F32, S32

from harness.machine import PARTITION, hbm, linear, op, psum, reg, sbuf

V2 = load_target("v2")
HOP = 258
"""46 ns."""
ACCESS = {Engine.PE: 120, Engine.SCALAR: 240, Engine.VECTOR: 300, Engine.GPSIMD: 240, Engine.SYNC: 240}
"""60 cycles."""
TRIGGER = 124
"""22 ns, rounded up to a cycle of 4 ticks."""
START, DONE, INTERVAL, GAP = 7280, 560, 6552, 0
"""1300, 100, 1170 and 60 ns."""


def clock(functions=(), **streams):
    engines = {Engine[name.upper()]: [*stream, op("halt")] for name, stream in streams.items()}
    return Clock(Program(list(functions), [Function("main", engines)]), V2)


def ticks(**streams):
    return clock(**streams).time().ticks


def exp(free=512, at=0, **more):
    return op("activation", data=sbuf(free, 20480), out=sbuf(free, at), function="exp", scale=1.0, **more)


def matmul(free=512, **more):
    return op("matmul", stationary=sbuf(128, 0, dtype=BF16), moving=sbuf(free, 1024, dtype=BF16), out=psum(free),
              accumulate=False, tf32=False, **more)


def load(byte_count=2048, *, queue=0, **more):
    """byte_count to each of 128 partitions."""
    n = byte_count // 4
    return op("dma_copy", source=hbm(0, byte_count, 4), destination=linear(0, PARTITION, 4), sizes=(128, n), accumulate="none",
              queue=queue, **more)


def data_ticks(byte_count):
    """Of a `load` on each of the 16 DMA engines, which serve 8 partitions at 17 GB/s."""
    return -(-8 * byte_count * 56 // 170)


def test_work_takes_its_cost():
    # The first function loads its table: 150 cycles.
    assert ticks(scalar=[exp()]) == (150 + 512) * 4
    assert ticks(pe=[matmul()]) == 586 * 2


def test_dependent_small_work_starts_every_264_cycles():
    tiny = [op("activation", data=sbuf(1, 0), out=sbuf(1, 0), function="copy", scale=1.0) for _ in range(3)]
    assert ticks(scalar=tiny) == (264 + 264 + 64) * 4


def test_independent_small_work_starts_every_interval():
    tiny = [op("activation", data=sbuf(1, 512), out=sbuf(1, 4 * i), function="copy", scale=1.0) for i in range(3)]
    assert ticks(scalar=tiny) == 3 * 64 * 4


def test_long_work_follows_long_work_on_the_same_elements_without_a_gap():
    chain = [op("tensor_copy", data=sbuf(512, 0), out=sbuf(512, 0)) for _ in range(3)]
    assert ticks(vector=chain) == 3 * 512 * 5


def test_a_sum_arrives_when_all_of_it_is_summed():
    total = op("tensor_reduce", data=sbuf(512, 4096), out=sbuf(1, 0), op="add", axes=1, negate=False)
    use = op("tensor_copy", data=sbuf(1, 0), out=sbuf(1, 64))
    assert ticks(vector=[total, use]) == (512 + 200 + 64) * 5


def test_short_work_waits_for_the_end_of_long_work():
    slow = op("tensor_tensor", a=sbuf(128, 4096), b=sbuf(128, 8192), out=sbuf(128, 0), op="add")
    fast = op("tensor_copy", data=sbuf(128, 0), out=sbuf(128, 16384))
    # The last element is read 264 cycles after the cycle in which it was computed.
    assert ticks(vector=[slow, fast]) == (256 + 264) * 5


def test_dependence_follows_registers():
    def stream(offset):
        return [op("register_set", register=5, value=offset),
                op("tensor_copy", data=sbuf(64, 4096), out=sbuf(64, reg(5))),
                op("tensor_copy", data=sbuf(64, 0), out=sbuf(64, 8192))]
    assert ticks(vector=stream(0)) - ticks(vector=stream(2048)) == 200 * 5


def test_registers_are_worked_out_while_the_datapath_is_busy():
    settings = [op("register_set", register=3, value=i) for i in range(4)]
    assert ticks(scalar=[exp(), *settings, exp()]) == (150 + 1024) * 4
    # 64 cycles of work hide 3 of the 4 registers.
    assert ticks(scalar=[exp(1), *settings, exp(1, at=8)]) == (150 + 64 + 64) * 4
    tail = [op("register_set", register=3, value=i) for i in range(20)]
    assert ticks(scalar=[exp(1), *tail, exp(1, at=8)]) == max(150 + 64, 20 * 20) * 4 + 64 * 4


def test_signal_takes_a_hop_and_the_consumer_its_access():
    copy = op("tensor_copy", data=sbuf(512), out=sbuf(512, 8192), wait=[(3, 1)])
    assert ticks(pe=[matmul(signal=[(3, 1)])], vector=[copy]) == 586 * 2 + HOP + ACCESS[Engine.VECTOR] + 512 * 5


def test_wait_that_is_met_costs_nothing():
    late = [exp(2048), exp(wait=[(3, 1)])]
    assert ticks(pe=[matmul(signal=[(3, 1)])], scalar=late) == (150 + 2048 + 512) * 4


def test_lone_transfer():
    end = TRIGGER + START + data_ticks(2048) + DONE + HOP
    assert ticks(sync=[load(signal=[(3, 16)])]) == end
    assert ticks(sync=[load(signal=[(3, 16)])], scalar=[exp(wait=[(3, 16)])]) == end + ACCESS[Engine.SCALAR] + (150 + 512) * 4


def test_small_transfers_of_one_queue_are_an_interval_apart():
    four = [load(512) for _ in range(4)]
    assert ticks(sync=four) == TRIGGER + 3 * INTERVAL + START + data_ticks(512) + DONE + HOP


def test_queues_overlap_and_share_the_engines():
    four = [load(512, queue=queue) for queue in range(4)]
    expected = TRIGGER + START + 4 * data_ticks(512) + 3 * GAP + DONE + HOP
    assert ticks(sync=four) == expected


def test_transfers_of_different_partitions_do_not_share_engines():
    def quarter(first, queue):
        return op("dma_copy", source=hbm(0, 8192, 4), destination=linear(first * PARTITION, PARTITION, 4), sizes=(32, 2048),
                  accumulate="none", queue=queue)
    alone = ticks(sync=[quarter(0, 0)])
    assert ticks(sync=[quarter(0, 0), quarter(32, 1)]) == alone + TRIGGER
    assert ticks(sync=[quarter(0, 0), quarter(0, 1)]) == alone + data_ticks(8192) + GAP


def test_traffic_within_hbm_is_bound_by_its_share():
    size = 1 << 22
    row = op("dma_copy", source=hbm(0, 4), destination=hbm(size, 4), sizes=(size // 4,), accumulate="none", queue=0)
    timing = clock(sync=[row]).time()
    assert timing.hbm_bytes == 2 * size
    assert timing.ticks == pytest.approx(2 * size / 410e9 * 5.6e9 + TRIGGER + START + DONE + HOP, abs=2)


def test_vector_and_gpsimd_take_turns_at_sbuf():
    copy = op("tensor_copy", data=sbuf(512), out=sbuf(512, 8192))
    alone = ticks(gpsimd=[copy])
    assert ticks(vector=[copy], gpsimd=[copy]) == 512 * 5 + alone


def test_vector_in_psum_leaves_sbuf_to_gpsimd():
    copy = op("tensor_copy", data=sbuf(512), out=sbuf(512, 8192))
    inside = op("tensor_copy", data=psum(512), out=psum(512, 2048))
    assert ticks(vector=[inside], gpsimd=[copy]) == max(ticks(gpsimd=[copy]), 512 * 5)
    evict = op("activation", data=psum(512), out=sbuf(512), function="copy", scale=1.0)
    assert ticks(vector=[inside], scalar=[evict]) == 512 * 5 + 512 * 4


def test_changing_functions_loads_tables_but_copies_do_not():
    def act(function):
        return op("activation", data=sbuf(512, 4096), out=sbuf(512), function=function, scale=1.0)
    assert clock(scalar=[act("exp"), act("copy"), act("exp"), act("tanh")]).time().table_loads == 2 * 150 * 4


def test_loop_of_long_work_runs_without_gaps():
    timing = clock(pe=[op("loop", register=2, count=10), matmul(), op("end")]).time()
    assert timing.busy[Engine.PE] == 10 * 586 * 2
    # The loop is entered once; its branches hide behind the work but for the last, which nothing follows.
    assert timing.ticks == 20 * 2 + 10 * 586 * 2
    assert timing.pe_flops == 10 * 2 * 128 * 128 * 512


def test_calls_and_empty_loops():
    function = Function("f", {Engine.PE: [op("loop", register=2, count=reg(4)), matmul(), op("end")]})
    def run(count):
        return clock([function], pe=[op("register_set", register=4, value=count), op("call", function=0)]).time()
    assert run(3).instructions == 3
    assert run(0).instructions == 0


def test_data_dependent_loops_use_the_record_or_the_assumption():
    register_load = op("register_load", source=hbm(0, dtype=S32), register=6)
    stream = [op("while"), register_load, op("break_unless", register=6), exp(), op("end")]
    timed = clock(scalar=stream)
    known = timed.time(loads={Engine.SCALAR: [1, 1, 1, 0]})
    assert (known.executed[1], known.assumed) == (3, 0)
    guessed = timed.time(trips=2)
    assert (guessed.executed[1], guessed.assumed) == (2, 3)
    told = timed.time(counts=[5])
    assert (told.executed[1], told.assumed, timed.whiles()) == (5, 0, 1)


def test_path_adds_up_and_names_regions():
    function = Function("f", {Engine.PE: [matmul(signal=[(1, 1)])], Engine.VECTOR: [
        op("tensor_copy", data=psum(512), out=sbuf(512), wait=[(1, 1)])]})
    for stream in function.streams.values():
        stream[0].debug = 7
    timing = clock([function], pe=[op("call", function=0)], vector=[op("call", function=0)]).time()
    assert sum(timing.path.values()) == timing.ticks
    assert timing.causes()[Cause.PE] == 586 * 2
    assert timing.causes()[Cause.VECTOR] == 512 * 5
    assert timing.path[7, Cause.SEMAPHORE] == HOP + ACCESS[Engine.VECTOR]


def test_engines_that_wait_for_each_other_are_named():
    with pytest.raises(CompileError, match="DVE waits for semaphore 3 >= 1, which is 0"):
        ticks(vector=[op("tensor_copy", data=sbuf(8), out=sbuf(8, 64), wait=[(3, 1)])])


def shown(timing):
    """The timeline's spans as (row, instruction, after)."""
    line = timing.timeline
    return [(line.rows[row], line.slots[slot].name, after) for row, slot, _, _, _, after in line.columns.tolist()]


def test_timeline_shows_work_transfers_and_what_they_waited_for():
    timing = clock(sync=[load(signal=[(3, 16)])], scalar=[exp(wait=[(3, 16)])]).time(spans=True)
    assert shown(timing) == [("SP", "dma_copy", -1), ("qSP0", "dma_copy", 0), ("Activation", "activation", 1)]
    columns = timing.timeline.columns
    assert (columns[:, 3] < columns[:, 4]).all() and columns[:, 4].max() == timing.ticks


def test_work_that_need_not_wait_has_no_cause_to_show():
    timing = clock(vector=[op("tensor_copy", data=sbuf(64, 0), out=sbuf(64, 4096), signal=[(3, 1)])],
                   scalar=[exp(free=4096), exp(wait=[(3, 1)])]).time(spans=True)
    assert ("Activation", "activation", -1) in shown(timing)[1:]


def test_path_of_the_timeline_covers_the_run():
    timing = clock(sync=[load(signal=[(3, 16)])], scalar=[exp(wait=[(3, 16)])]).time(spans=True)
    path = timing.timeline.path
    assert path[0].start == 0 and path[-1].end == timing.ticks
    assert all(a.end == b.start for a, b in itertools.pairwise(path))
    assert sum(piece.end - piece.start for piece in path) == sum(timing.path.values())


def test_a_timeline_changes_no_time():
    streams = {"sync": [load(signal=[(3, 16)])], "scalar": [exp(wait=[(3, 16)])]}
    with_line, without = clock(**streams).time(spans=True), clock(**streams).time()
    assert (with_line.ticks, with_line.path, with_line.busy) == (without.ticks, without.path, without.busy)
    assert without.timeline is None


def test_occupancy_lasts_from_the_first_write_to_the_last_read():
    # 2048 bytes a partition are loaded, read by Scalar, whose result (2048 bytes) nobody reads.
    timing = clock(sync=[load(signal=[(3, 16)])],
                   scalar=[op("activation", data=sbuf(512, 0), out=sbuf(512, 4096), function="exp", scale=1.0,
                              wait=[(3, 16)])]).time(spans=True)
    transfer, work = timing.timeline.columns[1:].tolist()
    at, filled = (column.tolist() for column in timing.timeline.sbuf.curve())
    assert at == [transfer[3], work[3], work[4]]
    assert filled == [2048, 4096, 0]


def test_sums_in_psum_are_kept_until_they_are_read():
    products = [op("matmul", stationary=sbuf(128, 0, dtype=BF16), moving=sbuf(512, 1024, dtype=BF16), out=psum(512),
                   accumulate=more, tf32=False, signal=[(3, 1)]) for more in (False, True)]
    timing = clock(pe=products, scalar=[op("activation", data=psum(512), out=sbuf(512, 8192), function="copy", scale=1.0,
                                           wait=[(3, 2)])]).time(spans=True)
    first, _, reader = timing.timeline.columns.tolist()
    at, filled = (column.tolist() for column in timing.timeline.psum.curve())
    assert (at, filled) == ([first[3], reader[4]], [2048, 0])


def test_code_of_an_entry_belongs_to_the_instruction_that_it_is_from():
    body = [op("loop", register=1, count=2), exp(at=4096), exp(at=8192), op("end")]
    body[1].debug, body[2].debug = 3, 4
    timing = clock(scalar=body).time()
    busy = {region: ticks[Cause.SCALAR] for region, ticks in timing.regions.items() if any(ticks)}
    assert busy == {3: (150 + 2 * 512) * 4, 4: 2 * 512 * 4}
    assert set(timing.region_ticks()) <= {-1, 3, 4} and timing.region_ticks()[4] >= 2 * 512 * 4


def test_dtype_of_products_decides_passes():
    slow = op("matmul", stationary=sbuf(128, 0), moving=sbuf(512, 1024), out=psum(512), accumulate=False, tf32=False)
    assert ticks(pe=[slow]) == 2341 * 2
    assert slow.operands["moving"].dtype is F32
