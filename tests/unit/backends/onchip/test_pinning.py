"""Weights on chip: the same results, nothing read that nobody loaded, nothing overwritten that stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nxcc.backends.codegen.code import DeviceCode, DeviceNode
from nxcc.backends.codegen.generator import generate
from nxcc.backends.isa.decode import decode
from nxcc.backends.isa.encode import encode
from nxcc.backends.isa.instructions import vector
from nxcc.backends.isa.program import AccessPattern, Affine, Engine, Instruction, Memory, Program
from nxcc.backends.isa.verifier import verify_program
from nxcc.backends.onchip.pinning import BOUNDARY, LOAD_ENTRY, Pinned, pin
from nxcc.backends.onchip.squeezing import resident_at, squeezed
from nxcc.backends.simulator.functional import Machine
from nxcc.backends.simulator.strict.machine import StrictMachine
from nxcc.backends.simulator.timing import Clock
from nxcc.backends.target import load_target
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.dtypes import F32
from nxcc.ir.hlo.text.reader import read_text

V1 = load_target("v1")
TEXT = """HloModule m
ENTRY e {
  x = bf16[40,200] parameter(0)
  w = bf16[200,96] parameter(1)
  v = bf16[96,96] parameter(2)
  d = f32[40,96] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  c = bf16[40,96] convert(d)
  p = f32[40,96] dot(c, v), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  q = bf16[40,96] convert(p)
  ROOT r = f32[40,96] dot(q, v), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}"""
NAMES = ("x", "w", "v")


def code_of(optlevel: int) -> DeviceCode:
    module = read_text(TEXT)
    shapes = dict(zip(NAMES, (p.shape for p in module.entry.parameters), strict=True)) | {"out": module.entry.root.shape}
    return generate([DeviceNode("run", module, NAMES, ("out",))], shapes, V1, optlevel=optlevel)


def pinned(code: DeviceCode, room: int | None = None) -> Pinned:
    return pin(code.program, [(code.bindings[name].address, code.bindings[name].size) for name in NAMES[1:]], V1, room)


def arrays() -> list[np.ndarray[Any, Any]]:
    random = np.random.default_rng(0)
    dtype = read_text(TEXT).entry.parameters[0].shape.dtype.numpy
    return [random.normal(size=size).astype(np.float32).astype(dtype) for size in ((40, 200), (200, 96), (96, 96))]


def run(code: DeviceCode, program: Program, strict: bool = False) -> list[np.ndarray[Any, Any]]:
    """The output of two runs after one loading; inputs change in between."""
    sizes = {"sbuf_bytes_per_partition": V1.sbuf.partition_bytes, "psum_bytes_per_partition": V1.psum.partition_bytes}
    machine = StrictMachine(program, program.hbm_bytes, dma_engines=V1.dma.engines, **sizes) if strict else Machine(
        program, program.hbm_bytes, **sizes)
    values = arrays()
    for name, value in zip(NAMES, values, strict=True):
        machine.write(code.bindings[name].address, value)
    names = [entry.name for entry in program.entries]
    if program.resident is not None:
        machine.run(names.index(LOAD_ENTRY))
    found = []
    out = code.bindings["out"]
    for factor in (1, 2):
        machine.write(code.bindings["x"].address, values[0] * values[0].dtype.type(factor))
        machine.run(names.index("run"))
        found.append(machine.read(out.address, out.dtype, out.dims))
    return found


@pytest.mark.parametrize("optlevel", [0, 1, 2])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("room", [None, 400])
def test_pinned_weights_give_the_same_results(optlevel: int, strict: bool, room: int | None) -> None:
    code = code_of(optlevel)
    found = pinned(code, room)
    assert found.pinned_bytes > 0 and (found.streamed_bytes == 0) == (room is None)
    verify_program(found.program, V1, hbm_bytes=found.program.hbm_bytes)
    for got, want in zip(run(code, found.program, strict), run(code, code.program), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("optlevel", [1, 2])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("room", [None, 400])
def test_regions_come_together_where_tiles_of_weights_were(optlevel: int, strict: bool, room: int | None) -> None:
    code = code_of(optlevel)
    program, work = squeezed(pinned(code, room).program, code.work, V1.sbuf.align_bytes)
    assert sum(one.size for one in work) < sum(one.size for one in code.work)
    end = max(one.start + one.size for one in work)
    program = resident_at(program, -(-end // BOUNDARY) * BOUNDARY)
    verify_program(program, V1, hbm_bytes=program.hbm_bytes)
    for got, want in zip(run(code, program, strict), run(code, code.program), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_weight_that_is_read_twice_lies_on_chip_once() -> None:
    found = pinned(code_of(2))
    assert found.pinned_bytes == (200 * 96 + 96 * 96) * 2
    loads = [i for i in found.program.entries[-1].streams[Engine.SYNC] if i.spec.name == "dma_copy"]
    assert {i.fields["queue"] for i in loads} == {V1.dma.queues}


def test_loading_is_not_part_of_a_run() -> None:
    code = code_of(2)
    found = pinned(code)
    before, after = (Clock(program, V1).time(0) for program in (code.program, found.program))
    assert after.ticks < before.ticks and after.hbm_bytes == before.hbm_bytes - 2 * (200 * 96 + 2 * 96 * 96)
    assert Clock(found.program, V1).time(1).hbm_bytes == found.pinned_bytes


def test_what_stays_on_chip_survives_encoding() -> None:
    program = pinned(code_of(1)).program
    images, table = encode(program, V1.members)
    assert decode(images, table, V1.members).resident == program.resident
    table["resident"]["entry"] = "nothing"
    with pytest.raises(CompileError, match="no entry 'nothing'"):
        decode(images, table, V1.members)


def write_at(offset: int) -> Instruction:
    out = AccessPattern(Memory.SBUF, F32, 0, 1, Affine(offset), ((1, 1),))
    return Instruction(vector.MEMSET, {"out": out}, {"value": 0.0})


def test_only_loading_writes_what_stays() -> None:
    program = pinned(code_of(1)).program
    assert program.resident is not None
    entry = program.entries[0]
    spoiled = replace(program, entries=[replace(entry, streams={**entry.streams, Engine.VECTOR: [
        write_at(program.resident.offset), *entry.streams[Engine.VECTOR]]}), *program.entries[1:]])
    with pytest.raises(CompileError, match="which has"):
        verify_program(spoiled, V1, hbm_bytes=program.hbm_bytes)


def test_what_nobody_loads_is_not_there() -> None:
    program = pinned(code_of(1)).program
    load = program.entries[-1]
    spoiled = replace(program, entries=[*program.entries[:-1], replace(load, streams={
        engine: stream[-1:] for engine, stream in load.streams.items()})])
    with pytest.raises(CompileError, match="before it is written"):
        verify_program(spoiled, V1, hbm_bytes=program.hbm_bytes)


def test_pinned_queues_are_for_loading() -> None:
    program = replace(pinned(code_of(1)).program, resident=None)
    with pytest.raises(CompileError, match="pinned queues"):
        verify_program(program, V1, hbm_bytes=program.hbm_bytes)
