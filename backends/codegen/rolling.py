"""Repeated calls of a main stream as loops: what equal layers become.

A call is what it appends to each engine's stream: registers set to addresses, then the call. Where a sequence of calls comes
again and again, the same but for numbers that advance by the same step each time, one turn of it stays, in a loop whose
register times the step is added. The machine then does instruction by instruction what it did before, so nothing else needs
to know; only addresses must advance evenly, for which weights lie in order of use.

Before, on one engine:                      After:
  r2 = 100  call 7  r2 = 300  call 8          loop r56 < 12
  r2 = 140  call 7  r2 = 340  call 8            r2 = 100 + r56*40  call 7  r2 = 300 + r56*40  call 8
  ...                                         end
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Affine, Engine, Instruction, Stream
from nxcc.ir.facts import dataclass

MIN_TURNS = 3
"""Fewer turns than this stay written out: a loop costs two instructions an engine."""

PERIODS_TRIED = 8
"""Lengths of a turn that are looked at: the commonest distances between equal calls, and their doubles."""

Numbers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One call. parts: what it appends to each engine's stream. kind: equal for calls that differ in numbers only.

    numbers: what may advance from turn to turn: addresses, then the debug index.
    """

    parts: Mapping[Engine, Sequence[Instruction]]
    kind: object
    numbers: Numbers


@dataclass(frozen=True, slots=True)
class Roll:
    """Calls start .. start + period * turns - 1 as a loop of `turns` turns."""

    start: int
    period: int
    turns: int


def call_of(parts: Mapping[Engine, Sequence[Instruction]]) -> Call:
    """A call by what it appends."""
    kind: list[object] = []
    numbers: list[int] = []
    for engine, part in parts.items():
        for instruction in part:
            if instruction.spec is isa.control.CALL:
                kind.append((engine, instruction.fields["function"]))
                numbers.append(instruction.debug)
                continue
            value: Affine = instruction.fields["value"]
            is_address = not value.terms
            kind.append((engine, instruction.fields["register"], None if is_address else value))
            numbers += [value.constant] if is_address else []
    return Call(parts, tuple(kind), tuple(numbers))


def find_rolls(calls: Sequence[Call]) -> list[Roll]:
    """Loops to make of a run of calls, in order, none overlapping; those that leave the least come first when chosen."""
    numbers: dict[object, int] = {}
    kinds = [numbers.setdefault(call.kind, len(numbers)) for call in calls]
    found: list[Roll] = []
    open_ = [(0, len(calls))]
    while open_:
        start, end = open_.pop()
        best = _best(calls, kinds, start, end)
        if best is not None:
            found.append(best)
            open_ += [(start, best.start), (best.start + best.period * best.turns, end)]
    return sorted(found, key=lambda roll: roll.start)


def _best(calls: Sequence[Call], kinds: Sequence[int], start: int, end: int) -> Roll | None:
    rolls = [roll for period in _periods(kinds, start, end) for roll in _evenly(calls, kinds, start, end, period)]
    return max(rolls, key=lambda roll: ((roll.turns - 1) * roll.period, -roll.period, -roll.start), default=None)


def _periods(kinds: Sequence[int], start: int, end: int) -> list[int]:
    last: dict[int, int] = {}
    distances: Counter[int] = Counter()
    for index in range(start, end):
        before = last.get(kinds[index])
        if before is not None:
            distances[index - before] += 1
        last[kinds[index]] = index
    common = [period for period, _ in distances.most_common(PERIODS_TRIED)]
    return [period for period in dict.fromkeys([*common, *(2 * p for p in common)]) if MIN_TURNS * period <= end - start]


def _evenly(calls: Sequence[Call], kinds: Sequence[int], start: int, end: int, period: int) -> list[Roll]:
    """Stretches in which each call equals the one a period later and advances as that one does."""
    steps = [_step(calls[i], calls[i + period]) if kinds[i] == kinds[i + period] else None
             for i in range(start, end - period)]
    found = []
    length = 0
    for i in range(len(steps) - period + 1):
        if i < len(steps) - period and steps[i] is not None and steps[i] == steps[i + period]:
            length += 1
            continue
        turns = length // period + 2
        if length >= period and turns >= MIN_TURNS:
            found.append(Roll(start + i - length, period, turns))
        length = 0
    return found


def _step(one: Call, other: Call) -> Numbers:
    return tuple([b - a for a, b in zip(one.numbers, other.numbers, strict=True)])


def rolled(calls: Sequence[Call], roll: Roll, register: int) -> dict[Engine, Stream]:
    """The loop's stream on each engine that takes part; register: the loop's own, which no function touches."""
    streams: dict[Engine, Stream] = {}
    for position in range(roll.start, roll.start + roll.period):
        steps = iter(_step(calls[position], calls[position + roll.period]))
        for engine, part in calls[position].parts.items():
            if part and engine not in streams:
                streams[engine] = [Instruction(isa.control.LOOP, fields={"register": register, "count": Affine(roll.turns)})]
            for instruction in part:
                streams[engine].append(_stepped(instruction, steps, register))
    for stream in streams.values():
        stream.append(Instruction(isa.control.END))
    return streams


def _stepped(instruction: Instruction, steps: object, register: int) -> Instruction:
    """The instruction of the first turn, with what later turns add to its number."""
    if instruction.spec is isa.control.CALL:
        step = next(steps)  # type: ignore[call-overload]
        return Instruction(instruction.spec, fields={**instruction.fields, "debug_step": step}, debug=instruction.debug)
    value: Affine = instruction.fields["value"]
    if value.terms:
        return instruction
    step = next(steps)  # type: ignore[call-overload]
    if not step:
        return instruction
    return Instruction(instruction.spec, fields={**instruction.fields, "value": Affine(value.constant, ((register, step),))})
