"""Values between regions and weights of regions to come on chip: the same results, less traffic, no race."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nxcc.backends.berths import EPOCH, Work
from nxcc.backends.codegen.arena import Lifetime
from nxcc.backends.codegen.code import Binding, DeviceCode
from nxcc.backends.isa.instructions import control, dma
from nxcc.backends.isa.program import (
    DMA_PARTITION_STRIDE,
    Affine,
    DmaPattern,
    Engine,
    Function,
    Instruction,
    Memory,
    Program,
    Signal,
    Wait,
)
from nxcc.backends.isa.verifier import verify_program
from nxcc.backends.onchip.keeping import Layout, Use, keep
from nxcc.backends.onchip.placing import Places, Timeline
from nxcc.backends.onchip.prefetching import prefetch
from nxcc.backends.simulator.functional import Machine
from nxcc.backends.simulator.strict.machine import StrictMachine
from nxcc.backends.simulator.timing import Clock
from nxcc.backends.target import Target, load_target
from nxcc.compiler.driver import compile_module, lowering_of
from nxcc.compiler.options import options_from
from nxcc.ir.dtypes import BF16
from nxcc.ir.hlo.text.reader import read_text

V1 = load_target("v1")
LAYERS = 3
ROWS = 384
"""Whole tiles, which all regions cut alike: a value that its reader cuts otherwise than its maker stays in memory."""

TEXT = f"HloModule m\nENTRY e {{\n  in0 = bf16[{ROWS},192] parameter(0)\n" + "".join(f"""
  up{i} = bf16[192,640] parameter({2 * i + 1})
  down{i} = bf16[640,192] parameter({2 * i + 2})
  d{i} = f32[{ROWS},640] dot(in{i}, up{i}), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  t{i} = f32[{ROWS},640] tanh(d{i})
  c{i} = bf16[{ROWS},640] convert(t{i})
  p{i} = f32[{ROWS},192] dot(c{i}, down{i}), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  in{i + 1} = bf16[{ROWS},192] convert(p{i})""" for i in range(LAYERS)) + f"""
  ROOT r = f32[{ROWS},192] convert(in{LAYERS})
}}"""


def code_of(work_bytes: int = 0) -> DeviceCode:
    """The layers after all passes, as code generation leaves them."""
    build = compile_module(read_text(TEXT), options_from(target="v1", stop_after="partition"))
    assert build.plan is not None
    return lowering_of(build).code(build.plan, 0, work_bytes=work_bytes)


def places_of(code: DeviceCode, target: Target = V1) -> Places:
    return Places(Timeline.of(code.work, target.sbuf.align_bytes), target)


def weights_of(code: DeviceCode) -> list[tuple[int, int]]:
    """Of what the entry's parameters bring, all but the first."""
    return [(b.address, b.size) for b in inputs_of(code)[1:]]


def inputs_of(code: DeviceCode) -> list[Binding]:
    return sorted((b for name, b in code.bindings.items() if name != "output0"), key=lambda b: b.dims != (ROWS, 192))


def run(code: DeviceCode, program: Program, seed: int | None = None) -> np.ndarray[Any, Any]:
    sizes = {"sbuf_bytes_per_partition": V1.sbuf.partition_bytes, "psum_bytes_per_partition": V1.psum.partition_bytes}
    machine = Machine(program, program.hbm_bytes, **sizes) if seed is None else \
        StrictMachine(program, program.hbm_bytes, seed=seed, dma_engines=V1.dma.engines, **sizes)
    random = np.random.default_rng(0)
    for binding in inputs_of(code):
        scale = 1.0 if binding.dims == (ROWS, 192) else 0.1
        machine.write(binding.address, (scale * random.normal(size=binding.dims)).astype(binding.dtype.numpy))
    machine.prepare()
    machine.run(0)
    out = code.bindings["output0"]
    return machine.read(out.address, out.dtype, out.dims)


@pytest.fixture(scope="module")
def settled() -> tuple[DeviceCode, np.ndarray[Any, Any], Program, Program]:
    """The code, what it gives, the program with values on chip, and that with weights that come early."""
    code = code_of()
    want = run(code, code.program)
    places = places_of(code)
    kept = keep(code.program, code.scratch, places, V1).program
    return code, want, kept, prefetch(kept, weights_of(code), places, V1)


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("which", [2, 3])
def test_results_are_the_same_in_every_legal_order(settled: Any, which: int, seed: int | None) -> None:
    code, want, program = settled[0], settled[1], settled[which]
    verify_program(program, V1, hbm_bytes=program.hbm_bytes)
    np.testing.assert_array_equal(run(code, program, seed), want)


def test_values_between_regions_leave_device_memory(settled: Any) -> None:
    code, _, kept, early = settled
    outside = sum(b.size for b in code.bindings.values())
    assert Clock(code.program, V1).time(0).hbm_bytes > 1.5 * outside
    assert Clock(kept, V1).time(0).hbm_bytes == outside
    assert Clock(early, V1).time(0).ticks < Clock(code.program, V1).time(0).ticks


def test_weights_come_before_their_region(settled: Any) -> None:
    def early(program: Program) -> int:
        """Transfers from memory that are triggered before something of a region before theirs."""
        sync = [one for one in program.entries[0].streams[Engine.SYNC] if one.debug >= 0]
        return sum(1 for at, one in enumerate(sync) if one.spec is dma.DMA_COPY and one.operands["source"].memory is Memory.HBM
                   and any(later.debug < one.debug for later in sync[at:]))

    assert early(settled[2]) == 0 and early(settled[3]) > 0


def test_what_does_not_fit_stays_in_memory() -> None:
    code = code_of()
    small = replace(V1, sbuf=replace(V1.sbuf, reserved_bytes=V1.sbuf.partition_bytes - places_of(code).top - 640))
    places = Places(Timeline.of(code.work, small.sbuf.align_bytes), small)
    found = keep(code.program, code.scratch, places, small)
    assert found.bytes and found.left and found.program.sbuf_bytes <= small.sbuf.usable_bytes
    np.testing.assert_array_equal(run(code, found.program, 3), run(code, code.program))


def use(address: int, strides: tuple[int, ...], sizes: tuple[int, ...], tile: int, steps: tuple[int, ...]) -> Use:
    sides = {"source": DmaPattern(Memory.SBUF, BF16, Affine(tile), steps),
             "destination": DmaPattern(Memory.HBM, BF16, Affine(address), strides)}
    return Use(Engine.SYNC, 0, Instruction(dma.DMA_COPY, sides, {"sizes": sizes}), "destination")


ROW = DMA_PARTITION_STRIDE


def test_a_transfer_over_borders_of_a_layout_is_divided() -> None:
    layout = Layout.of(use(64, (400, 200, 2), (128, 2, 100), 0, (ROW, 200, 2)))
    assert layout is not None and (layout.size, layout.partitions) == (400, 128)
    whole = layout.path(use(64, (2,), (400,), 0, (2,)))
    assert whole is not None and [(s.size, s.partitions, s.bytes, s.other) for s in whole.steps] == [
        (2, 1, 0, 400), (2, 0, 200, 200), (100, 0, 2, 2)]
    part = layout.path(use(64 + 800 + 20, (400, 2), (3, 10), 0, (ROW, 2)))
    assert part is not None and (part.partition, part.offset) == (2, 20)


@pytest.mark.parametrize(("address", "strides", "sizes"), [
    (64 + 400 * 127, (400, 2), (2, 10)),  # past the last partition
    (64 + 20, (2,), (195,)),              # over a border, not from its start
    (64, (-400, 2), (2, 10)),             # backwards
    (65, (2,), (4,)),                     # between elements
    (0, (2,), (4,)),                      # before it
])
def test_a_transfer_that_is_no_walk_on_chip_keeps_its_piece_in_memory(address: int, strides: tuple[int, ...],
                                                                      sizes: tuple[int, ...]) -> None:
    layout = Layout.of(use(64, (400, 200, 2), (128, 2, 90), 0, (ROW, 180, 2)))
    assert layout is not None
    assert layout.path(use(address, strides, sizes, 0, (0,) * len(sizes))) is None


def test_regions_beside_each_other_share_no_bytes() -> None:
    work = [Work(0, 0, 1000, 0), Work(1, 65536, 3000, 1), Work(2, 0, 5000, 1), Work(3, 0, 100, 0)]
    line = Timeline.of(work, 64)
    assert line.end == 3008 + 5056 and line.base[1] == 5056 and line.shift[1] == 5056 - 65536
    places = Places(line, V1)
    low = places.put(2048, (0, 128), 1, 2)
    assert low == line.end
    assert places.put(2048, (0, 128), 3, 3) == 128
    assert places.put(1 << 20, (0, 128), 3, 3) is None


def test_columns_of_a_row_lie_together_whoever_brings_them() -> None:
    """No transfer reaches all columns: stores have a third of them each, loads a half."""
    def transfer(column: int, columns: int, name: str, region: int) -> Instruction:
        memory = DmaPattern(Memory.HBM, BF16, Affine(1024 + 2 * column), (400, 2))
        other = "destination" if name == "source" else "source"
        sides = {name: memory, other: DmaPattern(Memory.SBUF, BF16, Affine(2 * column), (ROW, 2))}
        return Instruction(dma.DMA_COPY, sides, {"sizes": (128, columns)}, debug=region)

    stores = [transfer(column, columns, "destination", 0) for column, columns in ((0, 60), (60, 60), (120, 80))]
    loads = [transfer(column, 100, "source", 1) for column in (0, 100)]
    program = Program([], [Function("e", {Engine.SYNC: stores + loads})], 512, 1024 + 400 * 128)
    places = Places(Timeline.of([Work(0, 0, 512, 0), Work(1, 0, 512, 0)], 64), V1)
    found = keep(program, [Lifetime(1024, 400 * 128, 0, 1)], places, V1)
    assert found.left == 0 and found.bytes == 2 * 400 * 128
    sides = [one.operands[name] for one in found.program.entries[0].streams[Engine.SYNC]
             for name in ("source", "destination")]
    assert all(side.memory is Memory.SBUF for side in sides)


def test_a_piece_of_one_element_is_as_wide_as_it_is() -> None:
    layout = Layout.of(use(64, (2,), (1,), 0, (2,)))
    assert layout is not None and layout.widened(64) == layout


def test_early_weights_do_not_come_all_at_once(settled: Any) -> None:
    """Where a region moves something of its own, it stands between the weights of later ones."""
    sync = [one for one in settled[3].entries[0].streams[Engine.SYNC] if one.debug >= 0]
    early = [any(later.debug < one.debug for later in sync[at:]) for at, one in enumerate(sync)]
    first, last = early.index(True), len(early) - early[::-1].index(True)
    assert not all(early[first:last])


def test_early_weights_await_the_regions_before_the_one_they_come_in() -> None:
    """It begins beside the one before; what it awaits besides, for memory that it shares with that one, is no beginning."""
    def awaits(regions: int) -> Instruction:
        return Instruction(control.NOP, waits=(Wait(Affine(EPOCH), Affine(regions)),))

    def load(address: int, region: int) -> Instruction:
        sides = {"source": DmaPattern(Memory.HBM, BF16, Affine(address), (2,)),
                 "destination": DmaPattern(Memory.SBUF, BF16, Affine(0), (2,))}
        return Instruction(dma.DMA_COPY, sides, {"sizes": (64,)}, signals=(Signal(Affine(9), 4),), debug=region)

    stream = [awaits(0), load(128, 0), awaits(0), awaits(1), load(256, 1), awaits(2), load(0, 2)]
    program = Program([], [Function("e", {Engine.SYNC: stream})], 128, 512, 10)
    work = [Work(0, 0, V1.sbuf.usable_bytes - 128, 0), Work(1, V1.sbuf.usable_bytes - 128, 128, 1), Work(2, 0, 128, 0)]
    places = Places(Timeline.of(work, 64), V1)
    sync = prefetch(program, [(0, 128)], places, V1).entries[0].streams[Engine.SYNC]
    at = next(index for index, one in enumerate(sync) if one.spec is dma.DMA_COPY and one.debug == 2)
    assert sync[at + 1].debug != 1 and sync[at - 2].debug == 1
    assert [wait.value.constant for wait in sync[at - 1].waits] == [1]


def test_weights_may_come_early_to_their_own_place() -> None:
    """The region has all of the chip, so nothing else is free in its time."""
    places = Places(Timeline.of([Work(0, 0, 128, 0), Work(1, 0, V1.sbuf.usable_bytes, 0)], 64), V1)
    assert places.put(256, (0, 128), 0, 1) is None
    before = places.taken()
    places.vacate(1, 4096, 4096 + 256)
    assert places.put(256, (0, 128), 0, 1) == 4096
    places.restore(before)
    places.vacate(1, 0, 64)
    assert places.put(64, (0, 128), 0, 1) is None


def test_regions_that_need_more_than_they_should_get_it() -> None:
    code, tight = code_of(), code_of(work_bytes=4096)
    assert max(one.size for one in tight.work) > 4096
    np.testing.assert_array_equal(run(tight, tight.program), run(code, code.program))


def test_blocks_that_others_reach_stay_where_they_are() -> None:
    """A transfer from the arena that lies in a block only in part: neither moves."""
    store = use(0, (2,), (64,), 0, (2,)).instruction
    sides = {"source": DmaPattern(Memory.HBM, BF16, Affine(64), (2,)),
             "destination": DmaPattern(Memory.SBUF, BF16, Affine(0), (2,))}
    load = Instruction(dma.DMA_COPY, sides, {"sizes": (64,)}, debug=1)
    store = Instruction(store.spec, store.operands, store.fields, debug=0)
    program = Program([], [Function("e", {Engine.SYNC: [store, load]})], 128, 256)
    work = [Work(0, 0, 128, 0), Work(1, 0, 128, 0)]
    places = Places(Timeline.of(work, 64), V1)
    assert keep(program, [Lifetime(0, 128, 0, 1)], places, V1).program.entries[0].streams == program.entries[0].streams


def test_places_are_the_lowest_that_are_free_all_the_time() -> None:
    """Against a table of every step and unit of bytes."""
    random = np.random.default_rng(3)
    line = Timeline.of([Work(number, 0, int(size), number % 2) for number, size in enumerate(random.integers(1, 2000, 40))], 64)
    places = Places(line, V1)
    taken = np.zeros((82, V1.sbuf.usable_bytes // 64), bool)
    for region in range(40):
        taken[line.begin[region]:line.finish[region] + 1,
              line.base[region] // 64:-(-(line.base[region] + line.size[region]) // 64)] = True
    for _ in range(200):
        first, last = sorted(random.integers(0, 40, 2).tolist())
        size = int(random.integers(1, 9000))
        low = places.put(size, (0, 128), first, last)
        units = -(-size // 64)
        busy = taken[line.begin[first]:line.finish[last] + 1].any(axis=0)
        free = [at for at in range(len(busy) - units + 1) if not busy[at:at + units].any()]
        assert (None if low is None else low // 64) == (free[0] if free else None)
        if low is not None:
            taken[line.begin[first]:line.finish[last] + 1, low // 64:low // 64 + units] = True


def test_time_to_find_places_is_far_below_cubic() -> None:
    line = Timeline.of([Work(number, 0, 64, 0) for number in range(2000)], 64)
    places = Places(line, V1)
    start = time.process_time()
    for number in range(1000):
        places.put(64, (0, 128), number, 1999 - number)
    assert time.process_time() - start < 2.0
