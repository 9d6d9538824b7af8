"""What a row program computes at once: its instructions joined into steps, before any tile is chosen.

A step is one value that gets a tile, with the elementwise work that only it reads computed on the way. Broadcasts, reshapes
and transposes are other names of values. A conversion that alone reads a value is the dtype in which that value is stored.
A product times a power of two is the product of a scaled left side, exactly: it is scaled when it is turned.
A sum that the scalar engine's accumulator takes on the way belongs to the step that computes its terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import field

from nxcc.backends.lowering.pointwise.formulas import has_formula
from nxcc.backends.lowering.reduction import combiner
from nxcc.ir.dtypes import F32, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.rowspace import COLUMN, FREE, RowMap

ACCUMULATING = frozenset(("exponential", "tanh", "logistic"))
"""Functions of the scalar engine whose results it can sum on the way."""

NAMES = FREE | {"get-tuple-element"}
"""Operators that give a value another name: the element of a scan is its states."""

MEMBERS_MAX = 16
"""Instructions of one step at most: beyond it temporaries take more room than values would."""


@dataclass
class Step:
    """value: what gets a tile. members: it and what is computed with it, operands first. reads: values that come from other
    steps. dtype: what it is stored in. total: a sum over its columns that is taken on the way. squares: only the total of its
    squares is wanted. spread: beside a sum, the sum of squared differences from the mean."""

    value: Instruction
    members: tuple[Instruction, ...]
    reads: tuple[Instruction, ...]
    dtype: DType
    total: Instruction | None = None
    squares: bool = False
    spread: Instruction | None = None


@dataclass
class Plan:
    """Steps in order; `shown` gives the value that an instruction is a name of, `last` the last step that reads a value,
    `scales` the powers of two that left sides of products are multiplied with."""

    steps: list[Step] = field(default_factory=list)
    shown: dict[Instruction, Instruction] = field(default_factory=dict)
    last: dict[Instruction, Step] = field(default_factory=dict)
    scales: dict[Instruction, float] = field(default_factory=dict)
    readers: dict[Instruction, list[Step]] = field(default_factory=dict)
    results: frozenset[Instruction] = frozenset()


def part_of(plan: Plan, steps: Sequence[Step], results: frozenset[Instruction]) -> Plan:
    """A plan of some of the steps. results: what is wanted of them."""
    found = Plan(list(steps), plan.shown, scales=plan.scales, results=results)
    for step in steps:
        for value in step.reads:
            found.last[value] = step
            found.readers.setdefault(value, []).append(step)
    return found


Space = Callable[[RowMap], Hashable]


def plan_rows(order: Sequence[Instruction], maps: Mapping[Instruction, RowMap], roots: Iterable[Instruction],
              space: Space = lambda marks: COLUMN in marks, sums: bool = True) -> Plan:
    """The steps of a row program. order: operands before users; maps: of all values that take part; space: values of one
    space may be computed in one step; sums: whether reductions are over columns, so that they may come with their terms."""
    return _Planner(order, maps, roots, space).plan(sums)


def has_columns(instruction: Instruction, maps: Mapping[Instruction, RowMap]) -> bool:
    return COLUMN in maps[instruction]


class _Planner:
    def __init__(self, order: Sequence[Instruction], maps: Mapping[Instruction, RowMap], roots: Iterable[Instruction],
                 space: Space) -> None:
        self.maps, self.space = maps, space
        self.shown: dict[Instruction, Instruction] = {}
        self.work: list[Instruction] = []
        for instruction in order:
            if instruction not in maps or instruction.opcode == "tuple":
                continue
            if instruction.opcode in NAMES and instruction.operands:
                self.shown[instruction] = self.shown.get(instruction.operands[0], instruction.operands[0])
            elif instruction.opcode not in ("parameter", "constant"):
                self.work.append(instruction)
        self.results = {self._show(root) for root in roots}
        self.dtypes: dict[Instruction, DType] = {}
        self.totals: dict[Instruction, Instruction] = {}
        self.squares: set[Instruction] = set()
        self.joined: dict[Instruction, Instruction] = {}
        self.scales: dict[Instruction, float] = {}
        self.spreads: dict[Instruction, Instruction] = {}

    def _show(self, value: Instruction) -> Instruction:
        return self.shown.get(value, value)

    def _operands(self, instruction: Instruction) -> list[Instruction]:
        """Values that an instruction reads tiles of."""
        count = 1 if instruction.opcode in ("dot", "reduce") else len(instruction.operands)
        return [self._show(o) for o in instruction.operands[:count] if o in self.maps or self._show(o) in self.maps]

    def _readers(self) -> dict[Instruction, list[Instruction]]:
        found: dict[Instruction, list[Instruction]] = {}
        for instruction in self.work:
            for operand in dict.fromkeys(self._operands(instruction)):
                found.setdefault(operand, []).append(instruction)
        return found

    def plan(self, sums: bool) -> Plan:
        self._take_scales()
        if sums:
            self._take_spreads()
            self._take_totals()
        self._narrow()
        self._join()
        plan = Plan(shown=self.shown, results=frozenset(self.results), scales=self.scales)
        members: dict[Instruction, list[Instruction]] = {}
        for instruction in self.work:
            owner = instruction
            while owner in self.joined:
                owner = self.joined[owner]
            members.setdefault(owner, []).append(instruction)
        for instruction in self.work:
            if instruction not in self.joined:
                plan.steps.append(self._step(instruction, members[instruction]))
        for step in plan.steps:
            for value in step.reads:
                plan.last[value] = step
                plan.readers.setdefault(value, []).append(step)
        return plan

    def _step(self, value: Instruction, members: list[Instruction]) -> Step:
        inside = set(members)
        reads = dict.fromkeys(o for m in members for o in self._operands(m) if o not in inside and o.opcode != "constant")
        return Step(value, tuple(members), tuple(reads), self.dtypes.get(value, value.shape.dtype), self.totals.get(value),
                    value in self.squares, self.spreads.get(value))

    def _take_scales(self) -> None:
        """Products with a matrix for each of many that are only read times a power of two."""
        readers = self._readers()
        for dot in [i for i in self.work if i.opcode == "dot" and i.attribute("lhs_batch_dims")]:
            users = readers.get(dot, [])
            scale = _power_of_two(users[0], self._show) if len(users) == 1 and dot not in self.results else None
            if scale is not None and users[0].shape.dtype is dot.shape.dtype is F32:
                self.scales[dot] = scale
                self._rename(users[0], dot)

    def _rename(self, old: Instruction, value: Instruction) -> None:
        """An instruction becomes another name of a value."""
        self.work.remove(old)
        self.results = {value if r is old else r for r in self.results}
        self.shown[old] = value
        for name, shown in self.shown.items():
            if shown is old:
                self.shown[name] = value

    def _take_spreads(self) -> None:
        """Sums of squared differences from the mean come with the sum that the mean is computed from."""
        readers = self._readers()
        for reduce in [i for i in self.work if self._sums_once(i)]:
            squares = self._show(reduce.operands[0])
            if not _is_square(squares) or readers.get(squares) != [reduce] or squares in self.results:
                continue
            total = self._summed(self._show(squares.operands[0]))
            if total is not None and total not in self.spreads:
                self.spreads[total] = reduce
                self.work.remove(reduce)
                self.work.remove(squares)

    def _summed(self, centred: Instruction) -> Instruction | None:
        """The sum whose mean is subtracted from what it sums."""
        if centred.opcode != "subtract":
            return None
        data, mean = map(self._show, centred.operands)
        if mean.opcode not in ("divide", "multiply") or data.shape.dtype is not F32 or data.opcode == "constant":
            return None
        total, number = map(self._show, mean.operands)
        if total.opcode == "constant" and mean.opcode == "multiply":
            total, number = number, total
        if number.opcode != "constant" or not self._sums_once(total) or total not in self.work:
            return None
        count = data.shape.element_count / max(1, total.shape.element_count)
        wanted = count if mean.opcode == "divide" else 1 / count
        same = self._show(total.operands[0]) is data and has_columns(data, self.maps)
        return total if same and math.isclose(float(number.attributes["literal"].splat_value), wanted, rel_tol=1e-6) else None

    def _sums_once(self, reduce: Instruction) -> bool:
        """Whether this is a plain sum that takes in each element of a value once: along columns it may repeat."""
        if reduce.opcode != "reduce" or not _is_plain_sum(reduce):
            return False
        operand = reduce.operands[0]
        return bool(self._show(operand).shape.element_count == operand.shape.element_count)

    def _take_totals(self) -> None:
        """Sums that come with their terms."""
        readers = self._readers()
        for reduce in [i for i in self.work if self._sums_once(i)]:
            value = self._show(reduce.operands[0])
            if value in self.totals or value not in readers or value.shape.dtype is not F32:
                continue
            square = _is_square(value) and readers[value] == [reduce] and value not in self.results
            if reduce not in self.spreads and (value.opcode in ACCUMULATING or square):
                self.totals[value] = reduce
                self.work.remove(reduce)
                if square:
                    self.squares.add(value)

    def _narrow(self) -> None:
        """Conversions that alone read what was computed."""
        readers = self._readers()
        for convert in [i for i in self.work if i.opcode == "convert"]:
            value = self._show(convert.operands[0])
            source, target = value.shape.dtype, convert.shape.dtype
            if value not in self.work or value in self.results or readers[value] != [convert] or not has_formula(value):
                continue
            if source is F32 and target.is_float and target.bits < 32 and value not in self.squares:
                self.dtypes[value] = target
                self._rename(convert, value)

    def _join(self) -> None:
        """Elementwise work whose value one other elementwise instruction reads."""
        readers = self._readers()
        sizes: dict[Instruction, int] = {}
        for value in self.work:
            users = readers.get(value, [])
            if len(users) != 1 or value in self.results or value in self.totals or value in self.dtypes:
                continue
            user = users[0]
            if value.shape.dtype is not F32 or not has_formula(value) or not has_formula(user) or user in self.squares:
                continue
            size = sizes.get(value, 1) + sizes.get(user, 1)
            if self.space(self.maps[value]) == self.space(self.maps[user]) and size <= MEMBERS_MAX:
                self.joined[value] = user
                sizes[user] = size


def _is_square(value: Instruction) -> bool:
    return value.opcode == "multiply" and value.operands[0] is value.operands[1]


def _power_of_two(scaling: Instruction, show: Callable[[Instruction], Instruction]) -> float | None:
    """The number, a power of two, that an instruction multiplies its first or second operand with."""
    if scaling.opcode not in ("multiply", "divide"):
        return None
    numbers = [show(o) for o in (scaling.operands[1:] if scaling.opcode == "divide" else scaling.operands)]
    found = next((n for n in numbers if n.opcode == "constant"), None)
    if found is None:
        return None
    value = float(found.attributes["literal"].splat_value)
    if math.frexp(abs(value))[0] != 0.5 or not 2.0**-32 <= abs(value) <= 2.0**32:
        return None
    return 1 / value if scaling.opcode == "divide" else value


def _is_plain_sum(reduce: Instruction) -> bool:
    initial = reduce.operands[1]
    if initial.opcode != "constant" or combiner(reduce.called[0]) != "add" or reduce.shape.dtype is not F32:
        return False
    return bool(initial.attributes["literal"].splat_value == 0)
