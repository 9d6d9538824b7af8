"""While loops and conditionals over the values of a graph, whatever form the graph wrote them in.

Values that a loop passes on unchanged and that are known at compile time are made again inside; the rest travels in the
loop's tuple. A tensor list that is empty before the loop gets its element shape from a trial lowering of the body. HLO loops
keep the shapes of their values: where a value grows with each turn, the turns stand one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nxcc.ir.diagnostics import GRAPH_DYNAMIC, GRAPH_INVALID, GRAPH_OPERATOR, CompileError
from nxcc.ir.dtypes import PRED, S32
from nxcc.ir.graphdef.distances import Number, number_at
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.loose import Loose, unknown_size
from nxcc.ir.graphdef.turns import Counter, count_turns
from nxcc.ir.graphdef.values import Stack, Value
from nxcc.ir.hlo.module import Instruction

if TYPE_CHECKING:
    from nxcc.ir.graphdef.constants import Constants
    from nxcc.ir.graphdef.scope import Scope

MAX_REMADE_ELEMENTS = 4096
"""A computed constant above this size is carried into a body, not made again in it."""

MAX_WRITTEN_TURNS = 256
"""Turns of a loop that is written out; each has instructions of its own."""

Body = Callable[[Emitter, list[Value]], list[Value]]
Test = Callable[[Emitter, list[Value]], Value]


def leaf(value: Value) -> Instruction | None:
    """The array that a value consists of; None if it has none. CompileError(GRAPH_DYNAMIC) if only a run knows its size."""
    if isinstance(value, Stack):
        return value.items
    if isinstance(value, Loose):
        raise unknown_size(value, value.step.function)
    return value if isinstance(value, Instruction) else None


def with_leaf(value: Value, array: Instruction) -> Value:
    return value.holding(array) if isinstance(value, Stack) else array


def _is_remade(constants: Constants, array: Instruction) -> bool:
    if array.opcode == "constant":
        return True
    return array.shape.element_count <= MAX_REMADE_ELEMENTS and constants.is_constant(array)


def _remake(constants: Constants, array: Instruction, emit: Emitter) -> Instruction:
    if array.opcode == "constant":
        return emit.builder.literal(array.attribute("literal"))
    found = constants.value(array)
    assert found is not None
    return emit.constant(found)


class _Split:
    """Which of some values travel into a body as arrays, and how they look inside."""

    def __init__(self, constants: Constants, values: Sequence[Value], fixed: Sequence[bool]) -> None:
        self.constants = constants
        self.values = list(values)
        arrays = [leaf(value) for value in values]
        self.remade = [k for k, array in enumerate(arrays)
                       if array is not None and fixed[k] and _is_remade(constants, array)]
        self.carried = [k for k, array in enumerate(arrays) if array is not None and k not in set(self.remade)]

    @property
    def arrays(self) -> list[Instruction]:
        return [self._array(k) for k in self.carried]

    def _array(self, k: int) -> Instruction:
        array = leaf(self.values[k])
        assert array is not None
        return array

    def inside(self, emit: Emitter, parts: Sequence[Instruction]) -> list[Value]:
        """The values as the body sees them."""
        found = list(self.values)
        for k in self.remade:
            found[k] = with_leaf(found[k], _remake(self.constants, self._array(k), emit))
        for k, part in zip(self.carried, parts, strict=True):
            found[k] = with_leaf(found[k], part)
        return found


def lower_while(scope: Scope, values: Sequence[Value], fixed: Sequence[bool], condition: Test, body: Body,
                name: str) -> list[Value]:
    """The values after a loop. fixed: which values the body passes on unchanged.

    A loop whose values change their shapes is written out, turn by turn, if it is known how often it runs.
    Raises CompileError: GRAPH_DYNAMIC if neither can be.
    """
    try:
        return _loop(scope, values, fixed, condition, body, name)
    except CompileError as error:
        found = _written_out(scope, list(values), condition, body, name) if error.code is GRAPH_DYNAMIC else None
        if found is None:
            raise
        return found


def _written_out(scope: Scope, values: list[Value], condition: Test, body: Body, name: str) -> list[Value] | None:
    """The values after all turns; None if it is not known of one whether it comes, or if there are too many."""
    for _ in range(MAX_WRITTEN_TURNS):
        goes_on = scope.constants.value(truth(scope.emit, condition(scope.emit, values), name))
        if goes_on is None:
            return None
        if not goes_on:
            return values
        values = body(scope.emit, values)
    return None


def _loop(scope: Scope, values: Sequence[Value], fixed: Sequence[bool], condition: Test, body: Body, name: str) -> list[Value]:
    """The same as a loop of HLO; GRAPH_DYNAMIC if a value changes its shape from one turn to the next."""
    emit = scope.emit
    settled = _settle(scope, list(values), fixed, condition, body, name)
    split = _Split(scope.constants, settled, fixed)

    def turn(inner: Emitter, parts: list[Instruction]) -> list[Instruction]:
        results = body(inner, split.inside(inner, parts))
        return [part if fixed[k] else _same_shape(settled[k], results[k], name, k)
                for k, part in zip(split.carried, parts, strict=True)]

    def test(inner: Emitter, parts: list[Instruction]) -> Instruction:
        return truth(inner, condition(inner, split.inside(inner, parts)), name)

    found = emit.loop(split.arrays, test, turn)
    after = list(settled)
    for k, part in zip(split.carried, found, strict=True):
        if not fixed[k]:
            value = settled[k]
            after[k] = with_leaf(replace(value, growing=False) if isinstance(value, Stack) else value, part)
    return after


def _settle(scope: Scope, values: list[Value], fixed: Sequence[bool], condition: Test, body: Body, name: str) -> list[Value]:
    """Give every list that the loop writes its array of zeros, in the shape that the body writes, and as long as it gets."""
    empty = {k: v for k, v in enumerate(values) if isinstance(v, Stack) and v.items is None and not fixed[k]}
    if not empty:
        return values
    trial = None
    if any(stack.dims is None or not stack.length for stack in empty.values()):
        trial = _Trial(scope, values, fixed, body)
    for k, stack in empty.items():
        written = trial.results[k] if trial is not None else stack
        dims = written.dims if isinstance(written, Stack) else stack.dims
        if isinstance(written, Stack) and written.end is not None:
            assert trial is not None
            stack = replace(stack, length=trial.length(written.end, condition, name), growing=True)
        if dims is not None:
            values[k] = stack.holding(scope.emit.full(stack.dtype, (stack.length, *dims), 0))
    return values


class _Trial:
    """One turn of a loop's body, lowered aside to see what it makes of its variables."""

    def __init__(self, scope: Scope, values: Sequence[Value], fixed: Sequence[bool], body: Body) -> None:
        self.constants = scope.constants
        self.emit = scope.emit.within(scope.emit.computation("trial"))
        arrays = [leaf(value) for value in values]
        split = _Split(scope.constants, values, fixed)
        self.parameters = {k: self.emit.builder.parameter(k, array.shape)
                           for k, array in enumerate(arrays) if array is not None}
        self.inside = split.inside(self.emit, [self.parameters[k] for k in split.carried])
        self.values = list(values)
        self.results = body(self.emit, self.inside)

    def length(self, end: Number, condition: Test, name: str) -> int:
        """How long a list gets whose last write of a turn is at this place."""
        counters = self._counters()
        counter = counters.get(end.base) if end.base is not None else None
        test = leaf(condition(self.emit, self.inside))
        turns = count_turns(self.constants, test, counters) if test is not None else None
        if turns is None or counter is None or counter.step != 1 or counter.start + end.offset:
            raise CompileError(GRAPH_DYNAMIC, "how long a list gets that the loop makes is not known", name,
                               why="the number of turns, or the places that are written, depend on values",
                               remedy="make the list with its size, and end the loop by its counter alone")
        return turns

    def _counters(self) -> dict[Instruction, Counter]:
        found = {}
        for k, parameter in self.parameters.items():
            start, after = leaf(self.values[k]), leaf(self.results[k])
            if start is None or after is None or not start.shape.dtype.is_integer or start.shape.element_count != 1:
                continue
            known = self.constants.value(start)
            step = number_at(self.constants, after, 0).distance_from(Number(0, parameter))
            if known is not None and step:
                found[parameter] = Counter(int(known.reshape(())), step)
        return found


def _same_shape(before: Value, after: Value, name: str, k: int) -> Instruction:
    old, new = leaf(before), leaf(after)
    if old is None or new is None:
        raise CompileError(GRAPH_OPERATOR, f"variable {k} of the loop is no array", name, why="HLO loops carry arrays")
    if old.shape != new.shape:
        raise CompileError(GRAPH_DYNAMIC, f"variable {k} of the loop changes from {old.shape} to {new.shape}", name,
                           why="HLO loops keep their shapes")
    return new


def truth(emit: Emitter, value: Value, name: str) -> Instruction:
    """A condition as a scalar pred: numbers are true unless zero."""
    array = leaf(value)
    if array is None or array.shape.element_count != 1:
        raise CompileError(GRAPH_INVALID, "a condition must be one number or boolean", name)
    scalar = emit.reshape(array, ())
    return scalar if scalar.shape.dtype is PRED else emit.compare(scalar, emit.like(scalar, 0), "NE")


def lower_branches(scope: Scope, selector: Instruction, values: Sequence[Value], branches: Sequence[Body],
                   name: str) -> list[Value]:
    """The results of the branch that a scalar selects: of two by a pred (the first if true), or by number.

    A selector that is known at compile time leaves only its branch.
    """
    known = scope.constants.value(selector)
    emit = scope.emit
    if known is not None:
        chosen = (0 if known else 1) if selector.shape.dtype is PRED else int(known)
        return branches[chosen if 0 <= chosen < len(branches) else -1](emit, list(values))
    split = _Split(scope.constants, values, [True] * len(values))
    operand = emit.builder.tuple(*split.arrays)
    made, outcomes = [], []
    for number, branch in enumerate(branches):
        inner = emit.within(emit.computation(f"branch_{number}"))
        inner.builder.location = emit.builder.location
        whole = inner.builder.parameter(0, operand.shape)
        parts = [inner.builder.get_tuple_element(whole, k) for k in range(len(split.carried))]
        results = branch(inner, split.inside(inner, parts))
        arrays = [array for array in map(leaf, results) if array is not None]
        inner.builder.computation.root = inner.builder.tuple(*arrays)
        made.append(inner.builder.computation)
        outcomes.append(results)
    _check_agreement(made[0].root, [c.root for c in made], name)
    result = emit.make("conditional", selector, *[operand] * len(branches), called=made)
    found: list[Value] = []
    place = 0
    for value in outcomes[0]:
        if leaf(value) is None:
            found.append(value)
            continue
        found.append(with_leaf(value, emit.builder.get_tuple_element(result, place)))
        place += 1
    return found


def _check_agreement(first: Instruction, roots: Sequence[Instruction], name: str) -> None:
    for root in roots:
        if root.shape != first.shape:
            raise CompileError(GRAPH_DYNAMIC, f"the branches give {first.shape} and {root.shape}", name,
                               why="both branches of an HLO conditional have one shape")


def branch_number(emit: Emitter, value: Value, name: str) -> Instruction:
    array = leaf(value)
    if array is None or array.shape.element_count != 1:
        raise CompileError(GRAPH_INVALID, "a branch index must be one number", name)
    return emit.convert(emit.reshape(array, ()), S32)
