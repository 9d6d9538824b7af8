"""Straight streams run what the looped ones run."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.backends.codegen import unroll
from nxcc.backends.codegen.unroll import unrolled
from nxcc.backends.isa.program import Affine, Engine, Function, Instruction, Program
from nxcc.backends.simulator.functional import Machine
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.dtypes import S32

from harness.one_core import HALT, HBM_BYTES, hbm, make, register, sbuf


def nested() -> list[Instruction]:
    """Copies 3 rows of 2 elements each, element by element; register 2 is the source's base in units of 64 bytes."""
    source = Affine(0, ((2, 64), (3, 8), (4, 4)))
    return [
        make("loop", register=3, count=3),
        make("loop", register=4, count=2),
        make("dma_copy", sizes=(1,), source=hbm(S32, source, 4), destination=hbm(S32, Affine(1024, ((3, 8), (4, 4))), 4),
             waits=((0, Affine(0, ((1, 1), (3, 32), (4, 16)))),), signals=((0, 16),)),
        make("end"), make("end"),
        make("register_set", register=1, value=register(1, 1, 96)),
    ]


def program(calls: int) -> Program:
    main = [make("register_set", register=1, value=0)]
    for call in range(calls):
        main += [make("register_set", register=2, value=call), make("call", function=0)]
    streams = {Engine.SYNC: [*main, HALT], Engine.VECTOR: [HALT]}
    return Program([Function("copy", {Engine.SYNC: nested()})], [Function("main", streams)], hbm_bytes=HBM_BYTES, semaphores=1)


def result(code: Program) -> np.ndarray:
    machine = Machine(code, HBM_BYTES)
    machine.write(0, np.arange(100, dtype=np.int32))
    machine.run(0)
    return machine.read(1024, S32, (6,))


@pytest.mark.parametrize("calls", [1, 3])
def test_loops_and_calls_are_written_out(calls: int) -> None:
    looped = program(calls)
    straight = unrolled(looped)
    names = [one.spec.name for one in straight.entries[0].streams[Engine.SYNC]]
    assert names == ["dma_copy"] * 6 * calls + ["halt"] and not straight.functions
    np.testing.assert_array_equal(result(straight), result(looped))
    waits = [one.waits[0].value for one in straight.entries[0].streams[Engine.SYNC][:-1]]
    assert waits == [Affine(16 * turn) for turn in range(6 * calls)]


def test_what_no_register_touches_is_shared() -> None:
    body = [make("loop", register=3, count=5), make("dma_copy", sizes=(1,), source=hbm(S32, 0, 4), destination=sbuf(S32, 0, 4)),
            make("end"), HALT]
    stream = unrolled(Program([], [Function("main", {Engine.SYNC: body})])).entries[0].streams[Engine.SYNC]
    assert len(stream) == 6 and len({id(one) for one in stream[:5]}) == 1


def test_empty_loops_vanish() -> None:
    body = [make("loop", register=3, count=0), make("nop"), make("end"), HALT]
    assert unrolled(Program([], [Function("main", {Engine.PE: body})])).entries[0].streams[Engine.PE] == [HALT]


def test_a_loop_may_run_as_often_as_a_register_says() -> None:
    body = [make("loop", register=3, count=3), make("loop", register=4, count=register(3)),
            make("nop", waits=((0, register(3, 10)),)), make("end"), make("end"), HALT]
    stream = unrolled(Program([], [Function("main", {Engine.PE: body})])).entries[0].streams[Engine.PE]
    assert [one.waits[0].value for one in stream[:-1]] == [Affine(10), Affine(20), Affine(20)]


def test_too_many_instructions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unroll, "INSTRUCTIONS_MAX", 10)
    with pytest.raises(CompileError, match="more than 10 instructions"):
        unrolled(program(2))


def test_code_belongs_to_the_instruction_of_its_call() -> None:
    code = program(0)
    body = code.functions[0].streams[Engine.SYNC]
    body[2].debug = 5
    main = [make("register_set", register=1, value=0), make("register_set", register=2, value=0),
            make("loop", register=6, count=2), make("call", function=0, debug_step=3), make("end"),
            make("call", function=0), make("call", function=0), HALT]
    main[3].debug, main[5].debug = 10, 20
    code.entries[0].streams[Engine.SYNC] = main
    copies = [one.debug for one in unrolled(code).entries[0].streams[Engine.SYNC] if one.spec.name == "dma_copy"]
    assert copies == [10] * 6 + [13] * 6 + [20] * 6 + [5] * 6
