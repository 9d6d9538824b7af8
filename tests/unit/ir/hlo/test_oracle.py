"""The oracle's own work: binding parameters, order, freeing, calls, hooks, errors."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

from nxcc.ir import dtypes
from nxcc.ir.diagnostics import INPUT_MISMATCH, LIMIT_EXCEEDED, CompileError
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.oracle import CALL_DEPTH_LIMIT, evaluate, evaluate_computation, flatten
from nxcc.ir.shapes import Shape, array, tuple_of

F2 = array(dtypes.F32, 2)


def computation(name: str = "main") -> Builder:
    return Builder(Computation(name))


def finish(builder: Builder, root: Instruction) -> Computation:
    builder.computation.root = root
    return builder.computation


def module(*computations: Computation) -> Module:
    """A module whose entry is the last computation."""
    made = Module("test")
    for body in computations:
        made.add(body, entry=body is computations[-1])
    return made


def pair(*values: float) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


def test_parameters_are_bound_by_number() -> None:
    b = computation()
    second, first = b.parameter(1, F2), b.parameter(0, F2)
    made = module(finish(b, b.make("subtract", first, second)))
    assert evaluate(made, [pair(5, 5), pair(1, 2)]).tolist() == [4, 3]


def test_parameters_and_constants_are_not_copied() -> None:
    b, held = computation(), pair(1, 2)
    made = module(finish(b, b.tuple(b.parameter(0, F2), b.constant(held))))
    given = pair(3, 4)
    first, second = evaluate(made, [given])
    assert first is given and second is held


def test_straight_code_needs_no_recursion() -> None:
    b = computation()
    x = b.parameter(0, array(dtypes.F32))
    for _ in range(5000):
        x = b.make("add", x, x)
        x = b.make("negate", x)
    assert evaluate(module(finish(b, x)), [np.zeros((), np.float32)]) == 0


def test_values_are_freed_after_their_last_use() -> None:
    b = computation()
    x = b.make("negate", b.parameter(0, F2), name="early")
    for _ in range(3):
        x = b.make("add", x, x)
    alive: list[weakref.ref[Any]] = []
    seen: dict[str, bool] = {}

    def watch(instruction: Instruction, value: Any) -> None:
        if instruction.name == "early":
            alive.append(weakref.ref(value))
        seen[instruction.name] = bool(alive) and alive[0]() is not None

    evaluate(module(finish(b, x)), [pair(1, 2)], watch)
    assert seen == {"p0": False, "early": True, "add": True, "add.1": False, "add.2": False}


def test_what_the_root_does_not_need_is_not_computed() -> None:
    b = computation()
    x = b.parameter(0, F2)
    b.make("custom-call", x, shape=F2, custom_call_target="nobody knows")
    assert evaluate(module(finish(b, b.make("negate", x))), [pair(1, 2)]).tolist() == [-1, -2]


def doubled() -> Computation:
    b = computation("doubled")
    x = b.parameter(0, F2)
    return finish(b, b.make("add", x, x))


def test_hook_sees_called_computations_in_order() -> None:
    body, b = doubled(), computation()
    made = module(body, finish(b, b.make("call", b.parameter(0, F2), called=[body])))
    names: list[str] = []
    evaluate(made, [pair(1, 2)], lambda instruction, value: names.append(f"{instruction.parent.name}.{instruction.opcode}"))
    assert names == ["main.parameter", "doubled.parameter", "doubled.add", "main.call"]


def test_loop_runs_until_its_condition_fails() -> None:
    state = tuple_of(array(dtypes.S32), F2)
    body = computation("body")
    p = body.parameter(0, state)
    count, x = body.get_tuple_element(p, 0), body.get_tuple_element(p, 1)
    step = body.tuple(body.make("add", count, body.constant(np.int32(1))), body.make("add", x, x))
    condition = computation("condition")
    counted = condition.get_tuple_element(condition.parameter(0, state), 0)
    limit = condition.compare(counted, condition.constant(np.int32(3)), "LT")
    bodies = finish(body, step), finish(condition, limit)
    b = computation()
    loop = b.make("while", b.parameter(0, state), called=bodies)
    count_value, x_value = evaluate(module(*bodies, finish(b, loop)), [(np.array(0, np.int32), pair(1, 2))])
    assert count_value == 3 and x_value.tolist() == [8, 16]


def test_deep_calls_end_in_a_limit_not_a_crash() -> None:
    bodies = [doubled()]
    for number in range(CALL_DEPTH_LIMIT + 10):
        b = computation(f"level{number}")
        bodies.append(finish(b, b.make("call", b.parameter(0, F2), called=[bodies[-1]])))
    with pytest.raises(CompileError) as caught:
        evaluate(module(*bodies), [pair(1, 2)])
    assert caught.value.code is LIMIT_EXCEEDED
    assert evaluate(module(*bodies[:CALL_DEPTH_LIMIT - 1]), [pair(1, 2)]).tolist() == [2, 4]


WRONG_INPUTS = {"none": [], "dims": [np.zeros(3, np.float32)], "dtype": [np.zeros(2)], "tuple": [(pair(1, 2),)]}


@pytest.mark.parametrize("inputs", WRONG_INPUTS.values(), ids=WRONG_INPUTS)
def test_wrong_inputs_are_reported(inputs: list[Any]) -> None:
    b = computation()
    made = module(finish(b, b.make("negate", b.parameter(0, F2))))
    with pytest.raises(CompileError) as caught:
        evaluate(made, inputs)
    assert caught.value.code is INPUT_MISMATCH


def test_bounded_result_is_filled_up_to_its_bound() -> None:
    b = computation()
    bounded = Shape(dtypes.F32, (4,), dynamic=(0,))
    sized = b.make("set-dimension-size", b.parameter(0, array(dtypes.F32, 4)), b.constant(np.int32(2)), shape=bounded,
                   dimensions=(0,))
    made = module(finish(b, b.make("add", sized, b.constant(pair(10, 20, 30, 40)), shape=bounded)))
    assert evaluate(made, [pair(1, 2, 3, 4)]).tolist() == [11, 22, 0, 0]


def test_computation_takes_values_directly() -> None:
    assert evaluate_computation(doubled(), [pair(1, 2)]).tolist() == [2, 4]


def test_flatten_goes_depth_first_and_drops_tokens() -> None:
    a, b, c = pair(1), pair(2), pair(3)
    leaves = flatten(((a, None), (), (b, (c,)), None))
    assert [leaf is wanted for leaf, wanted in zip(leaves, (a, b, c), strict=True)] == [True] * 3
