"""Which values registers can take: intervals, followed once through each stream.

A loop's register runs from 0 to count - 1; a register that a loop steps by a constant is followed exactly, any other that a
loop changes is unknown at its start. Unknown is the whole range of 32 bits, so an address needs a clamp first. None: undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nxcc.backends.isa.program import REGISTERS, Affine, Instruction
from nxcc.backends.isa.structure import Block, Node

Interval = tuple[int, int]
State = list[Interval | None]
LEAST, MOST = -(1 << 31), (1 << 31) - 1
ANY: Interval = (LEAST, MOST)


class Undefined(Exception):
    """A register is read that nothing has set; the argument is its number."""


def fresh() -> State:
    """Registers as an entry finds them: undefined."""
    return [None] * REGISTERS


def evaluate(value: Affine, state: State) -> Interval:
    """The interval of an affine value, not wrapped; Undefined if it reads an undefined register."""
    low = high = value.constant
    for register, coefficient in value.terms:
        interval = state[register]
        if interval is None:
            raise Undefined(register)
        a, b = interval[0] * coefficient, interval[1] * coefficient
        low += min(a, b)
        high += max(a, b)
    return low, high


def wrapped(interval: Interval) -> Interval:
    """The interval of a 32-bit register that takes these values."""
    return interval if LEAST <= interval[0] and interval[1] <= MOST else ANY


def join(a: State, b: State) -> State:
    """Registers after either of two ways; undefined if they are on one of them."""
    return [None if x is None or y is None else (min(x[0], y[0]), max(x[1], y[1])) for x, y in zip(a, b, strict=True)]


def _corners(a: Interval, b: Interval, op: Callable[[int, int], int]) -> Interval:
    values = [op(x, y) for x in a for y in b]
    return min(values), max(values)


def _divide(a: Interval, b: Interval) -> Interval:
    return _corners(a, b, lambda x, y: x // y) if b[0] > 0 else ANY


def _modulo(a: Interval, b: Interval) -> Interval:
    if b[0] <= 0:
        return ANY
    if b[0] == b[1] and a[0] // b[0] == a[1] // b[0]:
        return a[0] % b[0], a[1] % b[0]
    return 0, b[1] - 1


def _bits(a: Interval, b: Interval) -> Interval:
    if a[0] < 0 or b[0] < 0:
        return ANY
    return 0, (1 << max(a[1].bit_length(), b[1].bit_length())) - 1


def _and(a: Interval, b: Interval) -> Interval:
    tops = [high for low, high in (a, b) if low >= 0]
    return (0, min(tops)) if tops else ANY


def _shift_left(a: Interval, b: Interval) -> Interval:
    return _corners(a, b, lambda x, y: x << y) if 0 <= b[0] and b[1] < 32 else ANY


def _shift_right(a: Interval, b: Interval) -> Interval:
    return _corners(a, b, lambda x, y: x >> y) if 0 <= b[0] and b[1] < 32 else ANY


def _truth(a: Interval, b: Interval) -> Interval:
    return 0, 1


ALU: dict[str, Callable[[Interval, Interval], Interval]] = {
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "subtract": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "multiply": lambda a, b: _corners(a, b, lambda x, y: x * y),
    "minimum": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "maximum": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "divide": _divide, "modulo": _modulo, "and": _and, "or": _bits, "xor": _bits, "shift_left": _shift_left,
    "shift_right": _shift_right, "equal": _truth, "not_equal": _truth, "less": _truth, "less_equal": _truth,
}

Effects = dict[int, int | None]
"""What code does to registers: number -> the constant it adds, or None for anything else."""


def effects(nodes: Iterable[Node], of_call: Callable[[Instruction], Effects]) -> Effects:
    """Registers that a block writes; a constant step only if it is certain, once or several times in a row."""
    found: Effects = {}
    for node in nodes:
        if isinstance(node, Block):
            assert node.opener is not None
            for register in effects([*node.body, *node.orelse], of_call):
                found[register] = None
            if node.opener.spec.name == "loop":
                found[node.opener.fields["register"]] = None
        elif node.instruction.spec.name == "call":
            for register, step in of_call(node.instruction).items():
                _compose(found, register, step)
        else:
            register_written = node.instruction.fields.get("register")
            if register_written is not None and node.instruction.spec.name.startswith("register_") \
                    and node.instruction.spec.name != "register_store":
                _compose(found, register_written, _step(node.instruction, register_written))
    return found


def _step(instruction: Instruction, register: int) -> int | None:
    if instruction.spec.name != "register_set":
        return None
    value: Affine = instruction.fields["value"]
    return value.constant if value.terms == ((register, 1),) else None


def _compose(found: Effects, register: int, step: int | None) -> None:
    before = found.get(register, 0)
    found[register] = None if before is None or step is None else before + step


def advance(state: State, changed: Effects, times: Interval) -> State:
    """Registers after running code with these effects a number of times within the interval."""
    after = list(state)
    for register, step in changed.items():
        before = after[register]
        if before is None:
            continue
        if step is None:
            after[register] = ANY
        else:
            a, b = step * times[0], step * times[1]
            after[register] = wrapped((before[0] + min(a, b), before[1] + max(a, b)))
    return after
