"""Loops, conditions, calls, registers, semaphores, deadlocks."""

import numpy as np
import pytest

from nxcc.backends.isa.program import Engine, Function, Program
from nxcc.backends.simulator.functional import Machine
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.dtypes import S32

from harness.one_core import hbm, machine, make, program, register

COUNTER = 10


def log(register_number):
    """Append a register to the list of integers at HBM 0; register COUNTER counts."""
    return [make("register_store", destination=hbm(S32, register(COUNTER, 4)), register=register_number),
            make("register_set", register=COUNTER, value=register(COUNTER, 1, 1))]


def logged(*instructions, functions=(), count=None):
    core = machine(functions, sync=[make("register_set", register=COUNTER, value=0), *instructions,
                                    make("register_store", destination=hbm(S32, 8000), register=COUNTER)])
    core.run()
    return core.read(0, S32, (core.read(8000, S32, ()).item(),)).tolist()


def alu(target, op, a, b):
    return make("register_alu", register=target, op=op, a=a, b=b)


def set_to(target, value):
    return make("register_set", register=target, value=value)


def test_loops_nest_and_may_be_empty():
    assert logged(make("loop", register=0, count=2), make("loop", register=1, count=register(0, 1, 1)), *log(1), make("end"),
                  *log(0), make("end"), make("loop", register=2, count=-1), *log(2), make("end")) == [0, 0, 0, 1, 1]


def test_while_and_break_unless():
    assert logged(set_to(0, 3), make("while"), make("break_unless", register=0), *log(0), set_to(0, register(0, 1, -1)),
                  make("end"), *log(0)) == [3, 2, 1, 0]


def test_break_out_of_an_if_and_a_loop_inside():
    assert logged(
        set_to(3, 0), make("while"), make("loop", register=0, count=5), alu(1, "not_equal", register(0), 2), *log(0),
        make("if", register=1), make("else"), make("break_unless", register=1), make("end"), make("end"), make("end"),
        *log(0)) == [0, 1, 2, 2]


@pytest.mark.parametrize("condition, expected", [(1, [1, 9]), (0, [2, 9]), (-1, [1, 9])])
def test_if_else(condition, expected):
    constants = [set_to(1, 1), set_to(2, 2), set_to(9, 9)]
    assert logged(*constants, set_to(0, condition), make("if", register=0), *log(1), make("else"), *log(2), make("end"),
                  *log(9)) == expected
    assert logged(*constants, set_to(0, condition), make("if", register=0), *log(1), make("end"), *log(9)) == (
        expected if condition else [9])


def test_calls_share_registers_and_may_stand_in_loops():
    double = Function("double", {Engine.SYNC: [alu(0, "multiply", register(0), 2)]})
    assert logged(set_to(0, 1), make("loop", register=1, count=3), make("call", function=0), *log(0), make("end"),
                  functions=(double,)) == [2, 4, 8]


def test_a_function_without_a_stream_for_the_engine_does_nothing():
    assert logged(set_to(0, 5), make("call", function=0), *log(0), functions=(Function("other"),)) == [5]


@pytest.mark.parametrize("op, a, b, expected", [
    ("add", 2 ** 31 - 1, 1, -2 ** 31), ("subtract", -2 ** 31, 1, 2 ** 31 - 1), ("multiply", 2 ** 16, 2 ** 16, 0),
    ("divide", -7, 2, -4), ("modulo", -7, 3, 2), ("minimum", -1, 3, -1), ("maximum", -1, 3, 3), ("and", 12, 10, 8),
    ("or", 12, 10, 14), ("xor", 12, 10, 6), ("shift_left", 3, 31, -2 ** 31), ("shift_left", 3, 32, 0), ("shift_right", -8, 1,
        -4),
    ("shift_right", -8, 40, -1), ("equal", 3, 3, 1), ("not_equal", 3, 3, 0), ("less", 2, 3, 1), ("less_equal", 4, 3, 0),
])
def test_register_alu(op, a, b, expected):
    assert logged(alu(0, op, a, b), *log(0)) == [expected]


def test_ring_registers():
    assert logged(make("loop", register=0, count=7), alu(1, "modulo", register(0), 3), *log(1), make("end")) == [0, 1, 2, 0,
        1, 2, 0]


def test_division_by_zero_names_the_instruction():
    with pytest.raises(CompileError, match="instruction 1 register_alu"):
        logged(alu(0, "divide", 1, 0))


def test_registers_wrap():
    assert logged(set_to(0, 2 ** 31), *log(0), set_to(0, register(0, 3)), *log(0)) == [-2 ** 31, -2 ** 31]


def ping_pong(rounds):
    """Vector and Scalar append in turn to the list at HBM 0: 2 i, then 2 i + 1."""
    def body(first, store):
        waits = ((1, register(0)),) if first else ((0, register(0, 1, 1)),)
        return [make("loop", register=0, count=rounds), set_to(1, register(0, 2, 0 if first else 1)),
                make("register_store", destination=hbm(S32, register(1, 4)), register=1, waits=waits,
                     signals=((0 if first else 1, 1),)), make("end")]
    return machine(vector=body(True, 0), scalar=body(False, 1))


def test_two_engines_take_turns():
    core = ping_pong(50)
    core.run()
    assert core.read(0, S32, (100,)).tolist() == list(range(100))
    core.write(0, np.zeros(100, np.int32))
    core.run()
    assert core.read(0, S32, (100,)).tolist() == list(range(100))


def test_semaphores_chosen_by_registers():
    core = machine(vector=[set_to(0, 7), make("nop", signals=((register(0), 2),))],
                   scalar=[set_to(1, 5), make("nop", waits=((register(1, 1, 2), 2),)), set_to(2, 1),
                           make("register_store", destination=hbm(S32, 0), register=2)])
    core.run()
    assert core.read(0, S32, (1,)).tolist() == [1]


def test_deadlock_names_engine_instruction_and_semaphore():
    core = machine(vector=[make("nop"), make("nop", waits=((3, 1),), signals=((4, 1),))],
                   scalar=[make("nop", waits=((4, 2),), signals=((3, 1),))])
    with pytest.raises(CompileError) as error:
        core.run()
    assert "DVE instruction 1 nop waits for semaphore 3 >= 1, which is 0" in str(error.value)
    assert "Activation instruction 0 nop waits for semaphore 4 >= 2, which is 0" in str(error.value)


@pytest.mark.parametrize("stream", [
    [make("loop", register=0, count=1)], [make("end")], [make("else")], [make("break_unless", register=0)],
    [make("call", function=0)], [make("register_set", register=64, value=0)], [make("nop", waits=((256, 1),))],
    [make("register_set", register=0, value=register(64))], [make("while"), make("else"), make("end")],
    [make("if", register=0), make("else"), make("else"), make("end")],
])
def test_broken_structure_is_refused(stream):
    with pytest.raises(CompileError, match="main, SP instruction"):
        machine(sync=stream).run()


def test_code_after_halt_does_not_run():
    from nxcc.backends.isa.instructions.control import HALT
    from nxcc.backends.isa.program import Instruction

    core = machine(sync=[set_to(0, 3), Instruction(HALT), make("register_store", destination=hbm(S32, 0), register=0)])
    core.run()
    assert core.read(0, S32, (1,)).tolist() == [0]


def test_entries_run_separately_and_hbm_stays():
    first, second = (program(sync=body).entries[0] for body in (
        [set_to(0, 4), make("register_store", destination=hbm(S32, 0), register=0)],
        [make("register_load", source=hbm(S32, 0), register=0), make("register_store", destination=hbm(S32, 4), register=0)]))
    core = Machine(Program([], [first, second]), 64)
    core.run(0)
    core.run(1)
    assert core.read(0, S32, (2,)).tolist() == [4, 4]
