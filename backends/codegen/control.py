"""Instructions that are no regions: tuples and calls dissolve, while and conditional become loops and branches of the main
streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nxcc.backends.codegen.values import Value, leaves, release_one
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.shapes import Shape

if TYPE_CHECKING:
    from nxcc.backends.codegen.generator import Generator

Rule = Callable[["Generator", Instruction, list[Value]], Value]
"""The value of an instruction from those of its operands."""


def _while(generator: Generator, instruction: Instruction, operands: list[Value]) -> Value:
    body, condition = instruction.called
    state = _state(generator, instruction.shape, operands[0])
    generator.keep(state)
    generator.main.begin_while()
    test = generator.computation(condition, [state])
    generator.main.break_unless(test.view)
    generator.drop(test)
    _lend(state, 1)
    after = generator.computation(body, [state])
    _lend(state, -1)
    generator.assign(leaves(state), leaves(after))
    generator.drop(after)
    generator.main.end()
    return release_one(state)


def _lend(value: Value, count: int) -> None:
    """Let the body overwrite carried values in place once it no longer reads the old ones."""
    for leaf in leaves(value):
        leaf.buffer.loans += count


def _state(generator: Generator, shape: Shape, initial: Value) -> Value:
    """Fresh buffers that hold the loop's carried values, filled with the initial ones."""
    state = generator.result(shape)
    generator.keep(state)
    for target, source in zip(leaves(state), leaves(initial), strict=True):
        generator.copy(target, source)
    return release_one(state)


def _conditional(generator: Generator, instruction: Instruction, operands: list[Value]) -> Value:
    selector = operands[0]
    result = generator.keep(generator.result(instruction.shape))
    branches = list(zip(instruction.called, operands[1:], strict=True))
    generator.main.load_selector(selector.view)
    tests = [1] if instruction.operands[0].shape.dtype.name == "pred" else list(range(len(branches) - 1))
    for test, (computation, argument) in zip(tests, branches, strict=False):
        generator.main.begin_if(test)
        _branch(generator, computation, argument, result)
        generator.main.otherwise()
    _branch(generator, *branches[-1], result)
    for _ in tests:
        generator.main.end()
    generator.main.release_selector()
    return release_one(result)


def _branch(generator: Generator, computation: Computation, argument: Value, result: Value) -> None:
    value = generator.computation(computation, [argument])
    generator.assign(leaves(result), leaves(value))
    generator.drop(value)


def _call(generator: Generator, instruction: Instruction, operands: list[Value]) -> Value:
    return generator.call(instruction, operands)


def _first(generator: Generator, instruction: Instruction, operands: list[Value]) -> Value:
    return operands[0]


RULES: dict[str, Rule] = {
    "constant": lambda generator, instruction, operands: generator.literal(instruction.attributes["literal"]),
    "tuple": lambda generator, instruction, operands: tuple(operands),
    "get-tuple-element": lambda generator, instruction, operands: operands[0][instruction.attributes["index"]],
    "call": _call,
    "fusion": _call,
    "while": _while,
    "conditional": _conditional,
    "after-all": lambda generator, instruction, operands: None,
    "add-dependency": _first,
    "opt-barrier": _first,
    "domain": _first,
}

STRUCTURAL = frozenset(RULES) | {"parameter"}
"""Opcodes that cost nothing or become control flow."""
