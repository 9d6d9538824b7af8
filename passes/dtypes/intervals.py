"""Which integers a value can hold: an interval for every integer and pred value of a module, from constants upwards.

Sound for every input: what is not known is the whole range of the element type, and so is what may wrap. Loops are followed
to a fixed point, with the bound that a simple condition gives the counter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nxcc.ir.dtypes import PRED, DType
from nxcc.ir.hlo.combiners import plain_opcode, returned_parameter
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.shapes import Shape
from nxcc.passes.patterns import splat_value

Interval = tuple[int, int]
Value = Any
"""An Interval; None for floats and the like; a tuple of values for a tuple."""

SCANNED_BYTES = 1 << 20
"""Constants above this are not looked at."""

_ROUNDS = 3
"""Turns of a loop that are followed before a bound that still moves is given up."""


def full_range(dtype: DType) -> Interval | None:
    """All values of an integer type; None for other types."""
    if dtype is PRED:
        return 0, 1
    if not dtype.is_integer:
        return None
    return (-(1 << dtype.bits - 1), (1 << dtype.bits - 1) - 1) if dtype.is_signed else (0, (1 << dtype.bits) - 1)


def fits(interval: Interval | None, dtype: DType) -> bool:
    limits = full_range(dtype)
    return interval is not None and limits is not None and limits[0] <= interval[0] and interval[1] <= limits[1]


def unknown(shape: Shape) -> Value:
    if shape.is_tuple:
        return tuple(unknown(element) for element in shape.elements)
    return full_range(shape.dtype)


def join(a: Value, b: Value) -> Value:
    if isinstance(a, tuple) and isinstance(b, tuple) and not _is_interval(a):
        return tuple(join(x, y) for x, y in zip(a, b, strict=True))
    if a is None or b is None:
        return None
    return min(a[0], b[0]), max(a[1], b[1])


def _is_interval(value: Value) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(bound, int) for bound in value)


class Intervals:
    """The intervals of one module. parameters: what is known of entry parameters, by number."""

    def __init__(self, module: Module, parameters: Mapping[int, Interval]) -> None:
        self.found: dict[Instruction, Value] = {}
        self._recording = True
        given = [parameters.get(n, unknown(p.shape)) for n, p in enumerate(module.entry.parameters)]
        self._run(module.entry, given)

    def __getitem__(self, instruction: Instruction) -> Value:
        """The interval of an instruction; of one that was not met, all values of its type."""
        return self.found[instruction] if instruction in self.found else unknown(instruction.shape)

    def _run(self, computation: Computation, arguments: Sequence[Value]) -> Value:
        values: dict[Instruction, Value] = {}
        for instruction in computation.post_order():
            if instruction.opcode == "parameter":
                value = arguments[instruction.attribute("parameter_number")]
            else:
                value = self._value(instruction, values)
            values[instruction] = value
            if self._recording:
                known = self.found.get(instruction, value)
                self.found[instruction] = value if known is value else join(known, value)
        return values[computation.root]

    def _value(self, instruction: Instruction, values: dict[Instruction, Value]) -> Value:
        flow = _FLOW.get(instruction.opcode)
        operands = [values[o] for o in instruction.operands]
        if flow is not None:
            return flow(self, instruction, operands)
        if not instruction.shape.is_array:
            return unknown(instruction.shape)
        limits = full_range(instruction.shape.dtype)
        if limits is None:
            return None
        rule = _RULES.get(instruction.opcode)
        value = rule(instruction, operands, values) if rule and _known(rule, operands) else None
        return value if value is not None and limits[0] <= value[0] and value[1] <= limits[1] else limits

    # Control flow

    def _while(self, instruction: Instruction, operands: Sequence[Value]) -> Value:
        body, condition = instruction.called
        start = state = operands[0]
        recording, self._recording = self._recording, False
        for turn in range(_ROUNDS + 8):
            after = join(state, self._run(body, [_bounded(state, condition)]))
            if after == state:
                break
            state = after if turn < _ROUNDS else _widened(state, after, instruction.shape)
        else:
            state = unknown(instruction.shape)
        # what was widened too far comes back to what the condition allows
        narrow = join(start, self._run(body, [_bounded(state, condition)]))
        if join(narrow, self._run(body, [_bounded(narrow, condition)])) == narrow:
            state = narrow
        self._recording = recording
        self._run(body, [_bounded(state, condition)])
        self._run(condition, [state])
        return state

    def _conditional(self, instruction: Instruction, operands: Sequence[Value]) -> Value:
        results = [self._run(branch, [value]) for branch, value in zip(instruction.called, operands[1:], strict=True)]
        value = results[0]
        for other in results[1:]:
            value = join(value, other)
        return value

    def _call(self, instruction: Instruction, operands: Sequence[Value]) -> Value:
        return self._run(instruction.called[0], operands)

    def _sort(self, instruction: Instruction, operands: Sequence[Value]) -> Value:
        return operands[0] if instruction.shape.is_array else tuple(operands)

    def _reduce(self, instruction: Instruction, operands: Sequence[Value]) -> Value:
        """Several arrays at once: the state that the combiner does not leave."""
        count = len(operands) // 2
        if count == 1 and plain_opcode(instruction.called[0]) is not None:
            value = _plain_reduce(instruction, operands)
            return value if fits(value, instruction.shape.dtype) else full_range(instruction.shape.dtype)
        data, state = list(operands[:count]), list(operands[count:])
        recording, self._recording = self._recording, False
        after: list[Value] = state
        for _ in range(_ROUNDS):
            # partial results may be combined in any order
            arguments = [join(s, d) for s, d in zip(state, data, strict=True)]
            result = self._run(instruction.called[0], [*arguments, *arguments])
            after = [join(a, r) for a, r in zip(arguments, [result] if count == 1 else result, strict=True)]
            if after == state:
                break
            state = after
        else:
            after = [unknown(o.shape) for o in instruction.operands[count:]]
        self._recording = recording
        return after[0] if count == 1 else tuple(after)


def _known(rule: Callable[..., Any], operands: Sequence[Value]) -> bool:
    return rule in _NEEDS_NOTHING or all(_is_interval(o) for o in operands)


def _widened(before: Value, after: Value, shape: Shape) -> Value:
    """Bounds that moved become those of the type."""
    if shape.is_tuple:
        return tuple(_widened(b, a, s) for b, a, s in zip(before, after, shape.elements, strict=True))
    limits = full_range(shape.dtype)
    if limits is None or not _is_interval(before) or not _is_interval(after):
        return limits
    return (before[0] if after[0] == before[0] else limits[0]), (before[1] if after[1] == before[1] else limits[1])


def _bounded(state: Value, condition: Computation) -> Value:
    """The state with which the body runs: the counter is what the condition lets through."""
    root = condition.root
    if root.opcode != "compare" or root.operands[0].opcode != "get-tuple-element":
        return state
    limit, place = splat_value(root.operands[1]), root.operands[0].attribute("index")
    if limit is None or root.operands[0].operands[0].opcode != "parameter" or not _is_interval(state[place]):
        return state
    low, high = state[place]
    clip = _CLIPPED.get(root.attribute("direction"))
    clipped = (low, high) if clip is None else clip(low, high, int(limit))
    return (*state[:place], clipped, *state[place + 1:]) if clipped[0] <= clipped[1] else state


_CLIPPED: dict[str, Callable[[int, int, int], Interval]] = {
    "LT": lambda low, high, limit: (low, min(high, limit - 1)),
    "LE": lambda low, high, limit: (low, min(high, limit)),
    "GT": lambda low, high, limit: (max(low, limit + 1), high),
    "GE": lambda low, high, limit: (max(low, limit), high),
}


# Rules: (instruction, operand intervals, all values) -> interval or None

def _constant(instruction: Instruction, operands: Sequence[Value], values: Any) -> Interval | None:
    literal = instruction.attributes["literal"]
    if not literal.shape.element_count or literal.shape.byte_size > SCANNED_BYTES and not literal.is_splat:
        return None
    array = literal.array if not literal.is_splat else np.asarray(literal.splat_value)
    return int(array.min()), int(array.max())


def _iota(instruction: Instruction, operands: Sequence[Value], values: Any) -> Interval | None:
    return 0, max(instruction.shape.dims[instruction.attribute("iota_dimension")] - 1, 0)


def _convert(instruction: Instruction, operands: Sequence[Value], values: Any) -> Interval | None:
    if instruction.shape.dtype is PRED:
        return 0, 1
    return operands[0] if _is_interval(operands[0]) else None


def _corners(combine: Callable[[int, int], int]) -> Callable[..., Interval | None]:
    def rule(instruction: Instruction, operands: Sequence[Interval], values: Any) -> Interval | None:
        found = [combine(a, b) for a in operands[0] for b in operands[1]]
        return min(found), max(found)
    return rule


def _union(instruction: Instruction, operands: Sequence[Interval], values: Any) -> Interval | None:
    return min(o[0] for o in operands), max(o[1] for o in operands)


def _first(instruction: Instruction, operands: Sequence[Value], values: Any) -> Interval | None:
    return operands[0] if _is_interval(operands[0]) else None


def _data(count: int) -> Callable[..., Interval | None]:
    def rule(instruction: Instruction, operands: Sequence[Value], values: Any) -> Interval | None:
        if not all(_is_interval(o) for o in operands[:count]):
            return None
        return _union(instruction, operands[:count], values)
    return rule


def _truth(instruction: Instruction, operands: Sequence[Value], values: Any) -> Interval | None:
    return 0, 1


def _select(instruction: Instruction, operands: Sequence[Value], values: dict[Instruction, Value]) -> Interval | None:
    """A choice by comparing x with a number: each side is seen with the x that leads there."""
    predicate, on_true, on_false = instruction.operands
    sides = [values[on_true], values[on_false]]
    if not all(_is_interval(side) for side in sides):
        return None
    if predicate.opcode == "compare":
        x, limit = predicate.operands[0], splat_value(predicate.operands[1])
        direction = predicate.attribute("direction")
        if limit is not None and direction in _OPPOSITE and _is_interval(values.get(x)):
            low, high = values[x]
            for place, (side, word) in enumerate(((on_true, direction), (on_false, _OPPOSITE[direction]))):
                seen = _given(side, x, _CLIPPED[word](low, high, int(limit)))
                sides[place] = sides[place] if seen is None else seen
    # a side that is never chosen is empty
    sides = [side for side in sides if side[0] <= side[1]] or sides
    return min(side[0] for side in sides), max(side[1] for side in sides)


_OPPOSITE = {"LT": "GE", "GE": "LT", "GT": "LE", "LE": "GT"}


def _given(side: Instruction, x: Instruction, interval: Interval) -> Interval | None:
    """x, or x plus a number, when x is in an interval."""
    if side is x:
        return interval
    if side.opcode == "add" and side.operands[0] is x:
        number = splat_value(side.operands[1])
        limits = full_range(side.shape.dtype)
        if number is not None and limits is not None:
            moved = interval[0] + int(number), interval[1] + int(number)
            return moved if limits[0] <= moved[0] and moved[1] <= limits[1] else None
    return None


def _and(instruction: Instruction, operands: Sequence[Interval], values: Any) -> Interval | None:
    tops = [o[1] for o in operands if o[0] >= 0]
    return (0, min(tops)) if tops else None


def _or(instruction: Instruction, operands: Sequence[Interval], values: Any) -> Interval | None:
    if any(o[0] < 0 for o in operands):
        return None
    return 0, (1 << max(o[1] for o in operands).bit_length()) - 1


def _abs(instruction: Instruction, operands: Sequence[Interval], values: Any) -> Interval | None:
    low, high = operands[0]
    return (low, high) if low >= 0 else (0 if high >= 0 else -high, max(-low, high))


def _clamp(instruction: Instruction, operands: Sequence[Interval], values: Any) -> Interval | None:
    (a, b), (c, d), (e, f) = operands
    return min(max(a, c), e), min(max(b, d), f)


def _quotient(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _divide(instruction: Instruction, operands: Sequence[Interval], values: Any) -> Interval | None:
    if operands[1][0] <= 0:
        return None
    return _corners(_quotient)(instruction, operands, values)


def _remainder(instruction: Instruction, operands: Sequence[Interval], values: Any) -> Interval | None:
    (low, high), (first, last) = operands
    if first <= 0:
        return None
    most = last - 1
    return (max(-most, low) if low < 0 else 0), (min(most, high) if high > 0 else 0)


def _shift_right(instruction: Instruction, operands: Sequence[Interval], values: Any) -> Interval | None:
    (low, high), (first, last) = operands
    if first < 0 or last >= instruction.shape.dtype.bits or low < 0 and instruction.opcode == "shift-right-logical":
        return None
    return min(low >> first, low >> last), max(high >> first, high >> last)


def _shift_left(instruction: Instruction, operands: Sequence[Interval], values: Any) -> Interval | None:
    first, last = operands[1]
    if first < 0 or last >= instruction.shape.dtype.bits:
        return None
    return _corners(lambda a, b: a << b)(instruction, operands, values)


def _dot(instruction: Instruction, operands: Sequence[Interval], values: Any) -> Interval | None:
    sizes = instruction.operands[0].shape.dims
    depth = math.prod(sizes[d] for d in instruction.attribute("lhs_contracting_dims"))
    low, high = _corners(lambda a, b: a * b)(instruction, operands, values) or (0, 0)
    return min(depth * low, 0), max(depth * high, 0)


def _plain_reduce(instruction: Instruction, operands: Sequence[Value]) -> Interval | None:
    if not all(_is_interval(o) for o in operands):
        return None
    (low, high), init = operands
    opcode = plain_opcode(instruction.called[0])
    if opcode in ("maximum", "minimum") or instruction.shape.dtype is PRED:
        return min(low, init[0]), max(high, init[1])
    if opcode != "add":
        return None
    count = _elements_summed(instruction)
    return init[0] + min(count * low, low, 0), init[1] + max(count * high, high, 0)


def _scatter(instruction: Instruction, operands: Sequence[Value], values: Any) -> Interval | None:
    """Data with any of the updates in its place, or any number of them combined with it."""
    if len(operands) != 3 or not _is_interval(operands[0]) or not _is_interval(operands[2]):
        return None
    combiner = instruction.called[0]
    if returned_parameter(combiner) == 1:
        return _union(instruction, operands[::2], values)
    return _plain_reduce(instruction, [operands[2], operands[0]]) if plain_opcode(combiner) is not None else None


def _elements_summed(instruction: Instruction) -> int:
    if instruction.opcode == "reduce-window":
        return math.prod(d.size for d in instruction.attribute("window").dims)
    if instruction.opcode == "scatter":
        return instruction.operands[-1].shape.element_count
    return math.prod(instruction.operands[0].shape.dims[d] for d in instruction.attribute("dimensions"))


def _tuple(self: Intervals, instruction: Instruction, operands: Sequence[Value]) -> Value:
    return tuple(operands)


def _element(self: Intervals, instruction: Instruction, operands: Sequence[Value]) -> Value:
    return operands[0][instruction.attribute("index")]


_FLOW: dict[str, Callable[..., Value]] = {
    "tuple": _tuple, "get-tuple-element": _element, "while": Intervals._while, "conditional": Intervals._conditional,
    "call": Intervals._call, "fusion": Intervals._call, "reduce": Intervals._reduce,
    "sort": Intervals._sort,
}

_RULES: dict[str, Callable[..., Interval | None]] = {
    "constant": _constant, "iota": _iota, "convert": _convert, "select": _select, "clamp": _clamp, "abs": _abs,
    "add": _corners(lambda a, b: a + b), "multiply": _corners(lambda a, b: a * b),
    "subtract": lambda i, o, v: (o[0][0] - o[1][1], o[0][1] - o[1][0]), "negate": lambda i, o, v: (-o[0][1], -o[0][0]),
    "maximum": _corners(max), "minimum": _corners(min), "sign": lambda i, o, v: (-1, 1), "and": _and, "or": _or, "xor": _or,
    "divide": _divide, "remainder": _remainder, "shift-right-arithmetic": _shift_right,
    "shift-right-logical": _shift_right, "shift-left": _shift_left, "dot": _dot, "popcnt": lambda i, o, v: (0, 64),
    "compare": _truth, "is-finite": _truth, "concatenate": _union, "pad": _union, "dynamic-update-slice": _data(2),
    "reduce-window": lambda i, o, v: _plain_reduce(i, o) if len(o) == 2 else None, "scatter": _scatter,
    **dict.fromkeys(("reshape", "transpose", "broadcast", "slice", "reverse", "copy", "gather", "dynamic-slice"),
                    _first),
}
_NEEDS_NOTHING = frozenset((_constant, _iota, _convert, _select, _truth, _first, _scatter, _RULES["dynamic-update-slice"]))
