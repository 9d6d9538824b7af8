"""Two regions at a time: what a call waits for, and that too little waiting is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nxcc.backends.berths import Berth, Entrance, Footprint, Touched, beside, extent, room
from nxcc.backends.codegen import mainstream
from nxcc.backends.codegen.code import DeviceCode, DeviceNode
from nxcc.backends.codegen.generator import generate
from nxcc.backends.codegen.lapping import lapped, reaches_of
from nxcc.backends.isa.program import Memory
from nxcc.backends.simulator.strict.machine import StrictMachine
from nxcc.backends.target import Target, load_target
from nxcc.backends.tile.builder import Copies, Kernel
from nxcc.backends.tile.expressions import Expr
from nxcc.backends.tile.program import View, contiguous
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.dtypes import F32
from nxcc.ir.hlo.oracle import evaluate
from nxcc.ir.hlo.text.reader import read_text

from harness.device import differing

CHAIN = """HloModule chain

ENTRY %main (a: f32[40,64], w: f32[64,64], v: f32[64,64]) -> (f32[40,64], f32[40,64]) {
  %a = f32[40,64]{1,0} parameter(0)
  %w = f32[64,64]{1,0} parameter(1)
  %v = f32[64,64]{1,0} parameter(2)
  %x = f32[40,64]{1,0} dot(%a, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %y = f32[40,64]{1,0} dot(%x, %v), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %z = f32[40,64]{1,0} dot(%y, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %t = (f32[40,64]{1,0}, f32[40,64]{1,0}) tuple(%z, %y)
}
"""

APART = CHAIN.replace("dot(%x, %v)", "dot(%a, %v)").replace("dot(%y, %w)", "dot(%a, %w)")
"""Regions that need nothing of each other."""

V2 = load_target("v2")


def at(address: int, *sizes: int) -> View:
    return View(Memory.HBM, F32, Expr(address), contiguous(sizes, 4))


def compiled(target: Target = V2, text: str = CHAIN) -> tuple[DeviceCode, list[np.ndarray], list[np.ndarray]]:
    module = read_text(text)
    random = np.random.default_rng(3)
    inputs = [random.normal(size=p.shape.dims).astype(np.float32) for p in module.entry.parameters]
    names = ("in0", "in1", "in2"), ("out0", "out1")
    leaves = list(module.entry.root.shape.leaves())
    shapes = {name: p.shape for name, p in zip(names[0], module.entry.parameters, strict=True)}
    shapes |= dict(zip(names[1], leaves, strict=True))
    code = generate([DeviceNode("test", module, *names)], shapes, target, optlevel=1)
    return code, inputs, list(evaluate(module, inputs))


def run_strictly(code: DeviceCode, inputs: list[np.ndarray], seed: int) -> list[np.ndarray]:
    machine = StrictMachine(code.program, code.program.hbm_bytes, seed=seed)
    for number, value in enumerate(inputs):
        machine.write(code.bindings[f"in{number}"].address, value)
    machine.run(0)
    bindings = [code.bindings[name] for name in ("out0", "out1")]
    return [machine.read(binding.address, binding.dtype, binding.dims) for binding in bindings]


def test_the_halves_are_disjoint_and_within_the_machine() -> None:
    lower, upper, whole = (room(V2, berth) for berth in (Berth.LOWER, Berth.UPPER, Berth.WHOLE))
    assert lower.sbuf_start + lower.sbuf_bytes <= upper.sbuf_start
    assert upper.sbuf_start + upper.sbuf_bytes <= whole.sbuf_bytes
    assert lower.psum_banks * V2.psum.bank_bytes <= upper.psum_start
    assert lower.first_semaphore + lower.semaphores <= upper.first_semaphore
    assert upper.first_semaphore + upper.semaphores <= V2.sequencer.semaphores


def test_reads_wait_for_writes_and_writes_for_both() -> None:
    before = Touched((extent(at(0, 16)),), (extent(at(1024, 16)),))
    assert before.conflicts(at(1024 + 60, 4), written=False)
    assert before.conflicts(at(0, 4), written=True)
    assert not before.conflicts(at(0, 4), written=False)
    assert not before.conflicts(at(1024 + 64, 4), written=True)
    assert not before.conflicts(at(1024, 0), written=True)


def test_regions_alternate_and_wait_for_what_they_share() -> None:
    code, _, _ = compiled()
    entrances = [region.function.split(".")[2:] for region in code.regions[:3]]
    assert entrances[0][0] == "lower"
    assert [e[0] for e in entrances[1:]] == ["upper1", "lower1"]
    assert all(len(e) > 1 for e in entrances[1:]), "each product waits for the one before"


HALF = room(V2, Berth.LOWER)
WHOLE = room(V2, Berth.WHOLE)


def test_halves_stay_halves() -> None:
    small = Footprint(HALF.sbuf_bytes, HALF.psum_banks, 10)
    upper = beside(V2, Entrance(Berth.LOWER), small, small)
    assert (upper.berth, upper.lag, upper.sbuf_start, upper.shares_psum) == (Berth.UPPER, 1, HALF.sbuf_bytes, False)
    lower = beside(V2, upper, small, small)
    assert (lower.berth, lower.lag, lower.sbuf_start, lower.shares_psum) == (Berth.LOWER, 1, 0, False)


def test_a_large_region_runs_beside_a_small_one_and_waits_for_its_banks() -> None:
    small = Footprint(WHOLE.sbuf_bytes // 4, HALF.psum_banks, 10)
    large = Footprint(WHOLE.sbuf_bytes // 4 * 3, WHOLE.psum_banks - 1, 10)
    upper = beside(V2, Entrance(Berth.LOWER), small, large)
    assert upper.lag == 1 and upper.shares_psum
    assert small.sbuf_bytes <= upper.sbuf_start and upper.sbuf_start + large.sbuf_bytes <= WHOLE.sbuf_bytes
    lower = beside(V2, upper, large, small)
    assert lower == Entrance(Berth.LOWER, 1, frozenset(), 0, 0, True)


def test_a_region_that_does_not_fit_beside_the_one_before_waits_where_it_reaches_into_its_memory() -> None:
    large = Footprint(WHOLE.sbuf_bytes // 4 * 3, 4, 10)
    upper = beside(V2, Entrance(Berth.LOWER), large, large)
    assert upper.lag == 1 and upper.taken == (0, large.sbuf_bytes)
    assert upper.sbuf_start + large.sbuf_bytes == WHOLE.sbuf_bytes
    lower = beside(V2, upper, large, large)
    assert (lower.lag, lower.sbuf_start, lower.taken) == (1, 0, (upper.sbuf_start, WHOLE.sbuf_bytes))


SMALL = replace(V2, sbuf=replace(V2.sbuf, partition_bytes=V2.sbuf.reserved_bytes + 1536))
"""A chip on which the regions of CHAIN, of 960 bytes a partition, do not fit beside each other."""


@pytest.mark.parametrize("text", [CHAIN, APART], ids=["in a row", "apart"])
def test_regions_that_share_memory_give_the_oracles_result_in_any_order(text: str) -> None:
    code, inputs, wanted = compiled(SMALL, text)
    assert any(".taken" in function.name for function in code.program.functions)
    for seed in range(6):
        for got, want in zip(run_strictly(code, inputs, seed), wanted, strict=True):
            assert not differing(got, np.asarray(want), 1e-4).any()


def test_a_region_that_does_not_wait_for_shared_memory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    entrance = mainstream.MainStreams.entrance
    monkeypatch.setattr(mainstream.MainStreams, "entrance", lambda self, operands, results, need: replace(
        entrance(self, operands, results, need), taken=(0, 0)))
    code, inputs, _ = compiled(SMALL, APART)
    with pytest.raises(CompileError, match="NXC04"):
        for seed in range(6):
            run_strictly(code, inputs, seed)


@pytest.mark.parametrize(("berth", "front"), [(Berth.UPPER, 4096), (Berth.LOWER, 0)])
def test_what_is_loaded_first_lies_where_the_region_before_has_nothing(berth: Berth, front: int) -> None:
    kernel = Kernel("region", V2, Copies(2, 2), WHOLE, WHOLE)
    first, second = (kernel.sbuf((128, 1024), F32) for _ in range(2))
    kernel.sbuf((128, (WHOLE.sbuf_bytes - 16384) // 4), F32)
    for number, tile in enumerate((first, second)):
        kernel.dma(tile, at(number << 20, 128, 1024))
    size = kernel.program.sbuf_bytes
    taken = (0, WHOLE.sbuf_bytes - 4096) if berth is Berth.UPPER else (4096, WHOLE.sbuf_bytes)
    start = WHOLE.sbuf_bytes - size if berth is Berth.UPPER else 0
    found = lapped(kernel.program, reaches_of(kernel.program), 64,
                   Entrance(berth, 1, frozenset(), start, 0, False, taken, 0, size))
    assert found.front == front
    assert not taken[0] <= found.place(0) < taken[1]
    assert sorted(found.place(byte) for byte in range(0, size, 64)) == list(range(start, start + size, 64))


def test_any_order_of_the_engines_gives_the_oracles_result() -> None:
    code, inputs, wanted = compiled()
    for seed in range(6):
        for got, want in zip(run_strictly(code, inputs, seed), wanted, strict=True):
            assert not differing(got, np.asarray(want), 1e-4).any()


def test_a_call_that_does_not_wait_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    entrance = mainstream.MainStreams.entrance
    monkeypatch.setattr(mainstream.MainStreams, "entrance", lambda self, operands, results, need: replace(
        entrance(self, operands, results, need), after=frozenset()))
    code, inputs, _ = compiled()
    with pytest.raises(CompileError, match="NXC04"):
        for seed in range(6):
            run_strictly(code, inputs, seed)
