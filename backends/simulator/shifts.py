"""How far what counts on moves from one period of a run to the next, and for how many periods every decision stays as it is.

While a period is recorded, each register has a shift: how much more its value will be at the same step a period later. A
register that is set to an affine expression gets the expression's shift; what an ALU computes gets one where the operation's
rule knows it. Every decision on the way (a wait, a branch, the count of a loop, the place of an operand in SBUF) either
cannot change, or changes after so many periods, or nothing is known, and then the period is not steady. A semaphore's shift
is what the period adds to it. Decisions are linear in the number of periods, so what holds for the first and the last of
many turns of an inner loop holds for those between them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nxcc.backends.isa.program import REGISTERS
from nxcc.backends.simulator.engines.control import LARGEST, REGISTER_ALU
from nxcc.backends.simulator.outcome import ENGINES
from nxcc.backends.simulator.steady import EngineState, State
from nxcc.backends.simulator.timed import Terms

FOREVER = 1 << 62


def until_crossing(distance: int, change: int) -> int:
    """For how many periods a distance stays above 0, or at or below 0, if each changes it by so much."""
    if distance > 0:
        return FOREVER if change >= 0 else (distance - 1) // -change
    return FOREVER if change <= 0 else -distance // change


class Shifts:
    """A period under way. periods: for how many more after it every decision so far stays.

    length: ticks of the period before. frames: shifts of the turns of loops open at its beginning, by identity. loose: see
    steady.alike.
    """

    __slots__ = ("start", "registers", "semaphores", "frames", "periods", "lead", "until", "loose", "others", "length")

    def __init__(self, before: State, start: State, lead: int, until: int, loose: bool) -> None:
        """before, start: the states at the beginnings of the period before and of this one, which are alike. lead: identity
        of the loop that led here; until: its turn at which the period ends."""
        self.start, self.lead, self.until, self.loose = start, lead, until, loose
        self.length = start.now - before.now
        self.registers = [[0] * REGISTERS for _ in ENGINES]
        self.frames: dict[int, int] = {}
        for old, new in zip(before.engines, start.engines, strict=True):
            self.registers[ENGINES.index(new.engine)] = [b - a for a, b in zip(old.registers, new.registers, strict=True)]
            self.frames.update((id(frame), b - a) for frame, a, b in zip(new.frames, old.turns, new.turns, strict=True))
        self.semaphores = [b - a for a, b in zip(before.semaphores, start.semaphores, strict=True)]
        self.periods = FOREVER
        self.others: list[tuple[Shifts, list[list[int]]]] = []

    def bound(self, periods: int) -> None:
        if periods < self.periods:
            self.periods = periods

    def of(self, engine: int, terms: Terms) -> int:
        """The shift of an affine expression."""
        registers = self.registers[engine]
        return sum([registers[register] * factor for register, factor in terms])

    def fixed(self, engine: int, terms: Terms) -> None:
        """What must not move does not."""
        if terms and self.of(engine, terms):
            self.periods = 0

    # ---- decisions ----------------------------------------------------------------------------------------------

    def wait(self, engine: int, index: int, index_terms: Terms, value: int, value_terms: Terms, present: int) -> None:
        """A wait for a value of a semaphore that is at `present`."""
        self.fixed(engine, index_terms)
        change = self.semaphores[index] - self.of(engine, value_terms)
        if change and present < value:
            self.periods = 0
        elif change < 0:
            self.bound((present - value) // -change)

    def compute(self, engine: int, register: int, op: Callable[[int, int], int], a: tuple[int, Terms], b: tuple[int, Terms],
                values: tuple[int, int]) -> None:
        """A register gets what the ALU computes of two operands with these values."""
        moved = self.of(engine, a[1]), self.of(engine, b[1])
        rule = _RULES.get(op) if moved != (0, 0) else _still
        shift, periods = rule(values, moved) if rule is not None else (0, 0)
        self.bound(periods)
        if shift:
            self.bound((LARGEST - abs(op(*values))) // abs(shift))
        self.registers[engine][register] = shift

    def end(self, after: State) -> int:
        """For how many periods more all goes on as in this one, which ends like that; 0 if it is none."""
        start = self.start
        if not alike_shifts(start, after, self):
            return 0
        for old, new in zip(start.engines, after.engines, strict=True):
            self._bound_by_loops(old, new)
            self._bound_by_waiting(old, new, after)
        return self.periods

    def _bound_by_loops(self, old: EngineState, new: EngineState) -> None:
        for frame, before, turn in zip(new.frames, old.turns, new.turns, strict=True):
            if turn > before:
                self.bound((frame.limit - 1 - turn) // (turn - before))

    def _bound_by_waiting(self, old: EngineState, new: EngineState, after: State) -> None:
        """An engine that waited all the time must not be woken by semaphores that count on."""
        if new.waits is not None and old.runs == new.runs:
            index, value = new.waits
            change = self.semaphores[index]
            if change:
                self.bound((value - 1 - after.semaphores[index]) // change if change > 0 else 0)


def alike_shifts(start: State, after: State, shifts: Shifts) -> bool:
    """Whether the period moved everything as the one before did."""
    if [b - a for a, b in zip(start.semaphores, after.semaphores, strict=True)] != shifts.semaphores:
        return False
    return all(_engine_shifts(old, new, shifts) for old, new in zip(start.engines, after.engines, strict=True))


def _engine_shifts(old: EngineState, new: EngineState, shifts: Shifts) -> bool:
    moved = [b - a for a, b in zip(old.registers, new.registers, strict=True)]
    if moved != shifts.registers[ENGINES.index(new.engine)]:
        return False
    if len(old.frames) != len(new.frames):
        return False
    for frame, before, turn in zip(new.frames, old.turns, new.turns, strict=True):
        if turn - before != shifts.frames.get(id(frame), 0):
            return False
    if old.runs == new.runs or old.waits is None or new.waits is None:
        return True
    return new.waits[1] - old.waits[1] == shifts.semaphores[new.waits[0]]


Pair = tuple[int, int]
Rule = Callable[[Pair, Pair], Pair]
"""Values and shifts of both operands -> the result's shift, and for how many periods that holds."""


def _still(values: Pair, moved: Pair) -> Pair:
    return 0, FOREVER


def _comparison(above: int) -> Rule:
    """a < b, as b - a > 0; a <= b, as b - a + 1 > 0."""
    def rule(values: Pair, moved: Pair) -> Pair:
        return 0, until_crossing(values[1] - values[0] + above, moved[1] - moved[0])
    return rule


def _equality(values: Pair, moved: Pair) -> Pair:
    distance, change = values[1] - values[0], moved[1] - moved[0]
    if distance == 0:
        return 0, 0 if change else FOREVER
    return 0, until_crossing(distance, change) if distance > 0 else until_crossing(-distance, -change)


def _extreme(sign: int) -> Rule:
    def rule(values: Pair, moved: Pair) -> Pair:
        distance, change = (values[1] - values[0]) * sign, (moved[1] - moved[0]) * sign
        chosen = moved[0] if distance > 0 else moved[1]
        return chosen, until_crossing(distance, change)
    return rule


def _product(values: Pair, moved: Pair) -> Pair:
    if moved[0] and moved[1]:
        return 0, 0
    return moved[0] * values[1] + moved[1] * values[0], FOREVER


def _remainder(values: Pair, moved: Pair) -> Pair:
    return 0, FOREVER if moved[1] == 0 and values[1] and moved[0] % values[1] == 0 else 0


def _quotient(values: Pair, moved: Pair) -> Pair:
    whole = moved[1] == 0 and values[1] and moved[0] % values[1] == 0
    return (moved[0] // values[1], FOREVER) if whole else (0, 0)


def _low_bits(values: Pair, moved: Pair) -> Pair:
    mask = values[1]
    return 0, FOREVER if moved[1] == 0 and mask >= 0 and mask & (mask + 1) == 0 and moved[0] % (mask + 1) == 0 else 0


_RULES: Mapping[Callable[[int, int], int], Rule] = {REGISTER_ALU[name]: rule for name, rule in {
    "add": lambda values, moved: (moved[0] + moved[1], FOREVER),
    "subtract": lambda values, moved: (moved[0] - moved[1], FOREVER),
    "multiply": _product, "divide": _quotient, "modulo": _remainder, "and": _low_bits, "less": _comparison(0),
    "less_equal": _comparison(1), "equal": _equality, "not_equal": _equality, "minimum": _extreme(1), "maximum": _extreme(-1),
}.items()}
