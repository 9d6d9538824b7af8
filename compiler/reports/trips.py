"""How often the loops of a module run, where its text says so: a counter of the loop's state that starts at a constant,
moves by a constant and is compared with a constant. The code on the device follows the condition all the same; estimates
need the count, since they see no data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Computation, Instruction, Module, callees_first


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a scalar: an element of the loop's state (None: a constant) plus a number."""

    element: int | None
    number: int


_Value = _Known | tuple[object, ...] | None
"""A scalar, a tuple of values, or unknown."""

PASSED_ON = frozenset(("copy", "convert", "reshape", "bitcast"))


def loops(module: Module) -> Iterator[Instruction]:
    """The while instructions in the order in which code for them is written: outer ones first."""
    yield from _loops(module.entry)


def _loops(computation: Computation) -> Iterator[Instruction]:
    for instruction in computation.post_order():
        if instruction.opcode == "while":
            yield instruction
        if instruction.opcode in _ENTERED:
            for called in _ENTERED[instruction.opcode](instruction):
                yield from _loops(called)


_ENTERED: Mapping[str, Callable[[Instruction], Sequence[Computation]]] = {
    "while": lambda i: (i.called[1], i.called[0]), "call": lambda i: i.called, "fusion": lambda i: i.called,
    "conditional": lambda i: i.called,
}
"""What runs as part of an instruction, in order; a while's condition comes before its body."""


def trip_count(loop: Instruction) -> int | None:
    """How often the body runs; None if that depends on data or on what is not understood here."""
    body, condition = loop.called
    elements = len(loop.shape.elements) if loop.shape.is_tuple else 0
    state: _Value = tuple(_Known(index, 0) for index in range(elements)) if elements else _Known(0, 0)
    test = _comparison(condition.root, _Reading((state,)))
    after, before = _Reading((state,)).value(body.root), _Reading(()).value(loop.operands[0])
    if test is None:
        return None
    counter, limit, direction = test
    if counter.element is None:
        counter, limit, direction = limit, counter, _SWAPPED[direction]
    start, step = _element(before, counter.element), _element(after, counter.element)
    end = _fixed(limit, before, after)
    if counter.element is None or end is None or not isinstance(start, _Known) or start.element is not None:
        return None
    if not isinstance(step, _Known) or step.element != counter.element:
        return None
    return _count(start.number + counter.number, end, step.number, direction)


def _fixed(limit: _Known, before: _Value, after: _Value) -> int | None:
    """The value of what the counter is compared with: a constant, or a part of the state that stays what it was."""
    if limit.element is None:
        return limit.number
    kept, start = _element(after, limit.element), _element(before, limit.element)
    if kept == _Known(limit.element, 0) and isinstance(start, _Known) and start.element is None:
        return start.number + limit.number
    return None


def _element(state: _Value, index: int | None) -> object:
    if index is None or isinstance(state, _Known) or state is None:
        return state if index == 0 else None
    return state[index] if index < len(state) else None


_SWAPPED = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE", "NE": "NE", "EQ": "EQ"}


def _count(start: int, end: int, step: int, direction: str) -> int | None:
    distance = {"LT": end - start, "LE": end - start + 1, "GT": start - end, "GE": start - end + 1, "NE": end - start}
    if direction not in distance or step == 0:
        return None
    forward = step if direction in ("LT", "LE") else -step
    if direction == "NE":
        return (end - start) // step if (end - start) % step == 0 and (end - start) // step >= 0 else None
    if distance[direction] <= 0:
        return 0
    return -(-distance[direction] // forward) if forward > 0 else None


class _Reading:
    """What is known of the values of one computation, given its arguments; each is looked at once, operands first."""

    def __init__(self, arguments: Sequence[_Value]) -> None:
        self.arguments = arguments
        self.known: dict[Instruction, _Value] = {}

    def value(self, wanted: Instruction) -> _Value:
        work = [wanted] if wanted not in self.known else []
        while work:
            row = work[-1]
            rule = _RULES.get(row.opcode)
            missing = [operand for operand in row.operands if operand not in self.known] if rule is not None else []
            if missing:
                work += missing
                continue
            work.pop()
            self.known[row] = rule(row, self) if rule is not None else None
        return self.known[wanted]

    def operands(self, row: Instruction) -> list[_Value]:
        return [self.value(operand) for operand in row.operands]


def _comparison(root: Instruction, reading: _Reading) -> tuple[_Known, _Known, str] | None:
    """Both sides and the direction of the comparison that a condition yields."""
    if root.opcode in ("fusion", "call"):
        return _comparison(root.called[0].root, _Reading(reading.operands(root)))
    if root.opcode in PASSED_ON:
        return _comparison(root.operands[0], reading)
    if root.opcode != "compare":
        return None
    left, right = reading.operands(root)
    if not isinstance(left, _Known) or not isinstance(right, _Known):
        return None
    return left, right, str(getattr(root.attribute("direction"), "name", root.attribute("direction")))


def _parameter(value: Instruction, reading: _Reading) -> _Value:
    number = int(value.attribute("parameter_number"))
    return reading.arguments[number] if number < len(reading.arguments) else None


def _constant(value: Instruction, reading: _Reading) -> _Value:
    is_number = value.shape.is_array and value.shape.element_count == 1 and value.shape.dtype.is_integer
    return _Known(None, int(value.attributes["literal"].array.reshape(())[()])) if is_number else None


def _tuple(value: Instruction, reading: _Reading) -> _Value:
    return tuple(reading.operands(value))


def _projection(value: Instruction, reading: _Reading) -> _Value:
    whole = reading.value(value.operands[0])
    part = whole[value.attribute("index")] if isinstance(whole, tuple) else None
    return part if isinstance(part, _Known | tuple) else None


def _called(value: Instruction, reading: _Reading) -> _Value:
    return _Reading(reading.operands(value)).value(value.called[0].root)


def _passed_on(value: Instruction, reading: _Reading) -> _Value:
    return reading.value(value.operands[0])


def _sum(value: Instruction, reading: _Reading) -> _Value:
    left, right = reading.operands(value)
    if not isinstance(left, _Known) or not isinstance(right, _Known):
        return None
    if value.opcode == "subtract":
        return _Known(left.element, left.number - right.number) if right.element is None else None
    if left.element is not None and right.element is not None:
        return None
    return _Known(left.element if right.element is None else right.element, left.number + right.number)


_RULES: Mapping[str, Callable[[Instruction, _Reading], _Value]] = {
    "parameter": _parameter, "constant": _constant, "tuple": _tuple, "get-tuple-element": _projection, "fusion": _called,
    "call": _called, "add": _sum, "subtract": _sum, **dict.fromkeys(PASSED_ON, _passed_on),
}


def runs(instruction: Instruction, unknown: int = 1) -> int:
    """How often an instruction runs what it calls; `unknown` times where that is not known."""
    count = trip_count(instruction) if instruction.opcode == "while" else 1
    return unknown if count is None else count


def multiplicities(entry: Computation, times: int = 1, unknown: int = 1) -> dict[Computation, int]:
    """How often each computation runs if the first one does so many times; bodies whose count is not known run `unknown`
    times."""
    found: dict[Computation, int] = {entry: times}
    for computation in reversed(callees_first([entry])):
        for instruction in computation.instructions:
            factor = found[computation] * (runs(instruction, unknown) if instruction.called else 1)
            for called in instruction.called:
                found[called] = found.get(called, 0) + factor
    return found
