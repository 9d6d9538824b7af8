"""Parameters, constants, tuples, calls and control flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nxcc.ir.dtypes import PRED, S32, U32
from nxcc.ir.hlo.attributes import (
    ASYNC_THREAD,
    DOMAIN,
    FUSION_KIND,
    INDEX,
    IS_COMPOSITE,
    LITERAL,
    OUTPUT_ALIASING,
    PARAMETER_NUMBER,
    PREFETCH_INDEX,
)
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.hlo.operator import ShapeError, operator
from nxcc.ir.hlo.ops.checks import (
    compatible,
    need,
    need_array,
    need_called,
    need_compatible,
    need_parameters,
    need_producer,
    need_scalar,
    need_word,
)
from nxcc.ir.literals import Literal
from nxcc.ir.shapes import TOKEN_SHAPE, Shape, array, tuple_of

Run = Callable[..., Any]
"""run(computation, *values) -> value"""

FUSION_KINDS = ("kLoop", "kInput", "kOutput", "kCustom")
CONTEXT = array(U32)
"""What an asynchronous start returns beside its result; it holds nothing that a program may read."""


def zeros(shape: Shape) -> Any:
    """A value of this shape that holds zeros; None for tokens."""
    if shape.is_tuple:
        return tuple(zeros(element) for element in shape.elements)
    return np.zeros(shape.dims, shape.dtype.numpy) if shape.is_array else None


# parameter, constant


def _check_parameter(instruction: Instruction) -> None:
    need(instruction.attribute("parameter_number") >= 0, "parameter number must not be negative")


def literal_value(literal: Literal) -> Any:
    """The value of a literal: its array, not copied, or a tuple of values."""
    if literal.shape.is_tuple:
        return tuple(literal_value(element) for element in literal.elements)
    return literal.array if literal.shape.is_array else None


operator("parameter", 0, attributes=(PARAMETER_NUMBER,), check=_check_parameter)
operator("constant", 0, attributes=(LITERAL,), shape=lambda *, literal: literal.shape,
         evaluate=lambda i: literal_value(i.attribute("literal")))


# tuples


def _element_shape(x: Shape, *, index: int) -> Shape:
    if not x.is_tuple:  # the text of a wide tuple is long, and every element of it is taken
        raise ShapeError(f"operand must be a tuple, it is {x}")
    need(0 <= index < len(x.elements), f"index={index} is outside the tuple of {len(x.elements)} elements")
    return x.elements[index]


operator("tuple", (0, None), shape=lambda *shapes: tuple_of(*shapes), evaluate=lambda i, *values: values)
operator("get-tuple-element", 1, attributes=(INDEX,), shape=_element_shape,
         evaluate=lambda i, x: x[i.attribute("index")])


# calls


def _call_shape(*shapes: Shape, called: Sequence[Computation], **_: Any) -> Shape:
    need_called(called, 1)
    need_parameters(called[0], shapes)
    return called[0].root.shape


def _fusion_shape(*shapes: Shape, kind: str, called: Sequence[Computation], **_: Any) -> Shape:
    need_word(kind, FUSION_KINDS, "kind")
    return _call_shape(*shapes, called=called)


def _call(instruction: Instruction, *values: Any, run: Run) -> Any:
    return run(instruction.called[0], *values)


operator("call", (0, None), attributes=(IS_COMPOSITE, OUTPUT_ALIASING), called=("to_apply",), calls_back=True,
         shape=_call_shape, evaluate=_call)
operator("fusion", (0, None), attributes=(FUSION_KIND, OUTPUT_ALIASING), called=("calls",), calls_back=True,
         shape=_fusion_shape, evaluate=_call)


# while, conditional


def _while_shape(state: Shape, *, called: Sequence[Computation]) -> Shape:
    need_called(called, 2)
    body, condition = called
    need_parameters(body, (state,))
    need_parameters(condition, (state,))
    need_compatible(body.root.shape, state, f"result of the body {body.name}")
    need_scalar(condition.root.shape, PRED, f"result of the condition {condition.name}")
    return state


def _while(instruction: Instruction, state: Any, *, run: Run) -> Any:
    body, condition = instruction.called
    while run(condition, state):
        state = run(body, state)
    return state


def _conditional_shape(selector: Shape, *shapes: Shape, called: Sequence[Computation]) -> Shape:
    need_array(selector, "operand 0")
    need(not selector.dims and selector.dtype in (PRED, S32), f"operand 0 must be pred[] or s32[], it is {selector}")
    need(len(called) > 0, "at least one branch must be called")
    need(selector.dtype is S32 or len(called) == 2, f"a choice by pred has two branches, not {len(called)}")
    need(len(shapes) == len(called), f"{len(called)} branches need as many operands, {len(shapes)} are given")
    result = called[0].root.shape
    for branch, shape in zip(called, shapes, strict=True):
        need_parameters(branch, (shape,))
        need_compatible(branch.root.shape, result, f"result of the branch {branch.name}")
    return result


def chosen_branch(selector: Any, count: int) -> int:
    """Which branch runs: pred true is the first of two; an index outside the range means the last one."""
    if np.asarray(selector).dtype == np.bool_:
        return 0 if selector else 1
    return int(selector) if 0 <= selector < count else count - 1


def _conditional(instruction: Instruction, selector: Any, *values: Any, run: Run) -> Any:
    branch = chosen_branch(selector, len(instruction.called))
    return run(instruction.called[branch], values[branch])


operator("while", 1, called=("body", "condition"), calls_back=True, shape=_while_shape, evaluate=_while)
operator("conditional", (1, None), called=("branch_computations*",), calls_back=True, shape=_conditional_shape,
         evaluate=_conditional)


# order without data


def _add_dependency_shape(x: Shape, token: Shape) -> Shape:
    need(token.is_token, f"operand 1 must be a token, it is {token}")
    return x


operator("after-all", (0, None), shape=lambda *_: TOKEN_SHAPE, evaluate=lambda i, *values: None)
operator("add-dependency", 2, identity=True, shape=_add_dependency_shape, evaluate=lambda i, x, token: x)
operator("opt-barrier", 1, identity=True, shape=lambda x: x, evaluate=lambda i, x: x)
operator("domain", 1, attributes=(DOMAIN,), identity=True, shape=lambda x, **_: x, evaluate=lambda i, x: x)


# asynchronous pairs: the start computes, the rest takes its result apart


def _part(x: Shape, index: int) -> Shape:
    need(x.is_tuple and len(x.elements) > index, f"operand must be the tuple of a start, it is {x}")
    return x.elements[index]


def check_start(instruction: Instruction, operands: Shape, result: Shape) -> None:
    """The declared shape of a start is (operands, result, contexts...)."""
    declared = instruction.shape
    fits = (declared.is_tuple and len(declared.elements) >= 2 and compatible(declared.elements[0], operands)
            and compatible(declared.elements[1], result))
    if not fits:
        raise ShapeError(f"result must be ({operands}, {result}, contexts...), it is {declared}")


def started(instruction: Instruction, operands: Any, result: Any) -> tuple[Any, ...]:
    """The value of a start: (operands, result, contexts...), as many contexts as are declared."""
    return (operands, result, *(zeros(shape) for shape in instruction.shape.elements[2:]))


def _check_async_start(instruction: Instruction) -> None:
    need_called(instruction.called, 1)
    shapes = [o.shape for o in instruction.operands]
    need_parameters(instruction.called[0], shapes)
    check_start(instruction, tuple_of(*shapes), instruction.called[0].root.shape)
    ends = [user.name for user in instruction.users if user.opcode in ("async-update", "async-done")]
    need(len(ends) == 1, f"one async-update or async-done must follow, {len(ends)} do")


def _async_start(instruction: Instruction, *values: Any, run: Run) -> Any:
    return started(instruction, values, run(instruction.called[0], *values))


operator("copy-start", 1, attributes=(PREFETCH_INDEX,), shape=lambda x, **_: tuple_of(x, x, CONTEXT),
         evaluate=lambda i, x: (x, x, zeros(CONTEXT)))
operator("copy-done", 1, shape=lambda x: _part(x, 0), check=need_producer("copy-start"), evaluate=lambda i, x: x[0])
operator("async-start", (0, None), attributes=(ASYNC_THREAD, OUTPUT_ALIASING), called=("calls",), calls_back=True,
         check=_check_async_start, evaluate=_async_start)
operator("async-update", (1, None), shape=lambda x, *_: x, check=need_producer("async-start", "async-update"),
         evaluate=lambda i, x, *_: x)
operator("async-done", 1, shape=lambda x: _part(x, 1), check=need_producer("async-start", "async-update"),
         evaluate=lambda i, x: x[1])
