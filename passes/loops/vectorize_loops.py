"""Counted loops whose turns need each other only by linear recurrences become work on all turns at once.

Before (a loop of T turns; x_t, a_t are rows that turn t reads, y_t the row that it writes):
  h' = f32[4] add(multiply(a_t, h), x_t)        y_t = f32[4] tanh(h')
After:
  s = (f32[4,T], f32[4]) scan(A, X, h0), dimensions={1}, num_carries=1, to_apply=add(multiply(a, h), x)
  Y = f32[4,T] tanh(get-tuple-element(s), index=0)

Selective state spaces, exponential averages and maps over rows are such loops. A turn reads rows at places that advance by the
same step, writes each of its rows once, and carries values that are h' = a h + b with a and b from anywhere but h (see
`nxcc.ir.hlo.recurrences`); a carried value may enter what comes later in the same turn. Any other loop stays, and so does one
whose values in all turns would take more than BYTES_MAX.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxcc.ir.dtypes import F32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.recurrences import recurrence_body
from nxcc.passes.dead_code import remove_uncalled
from nxcc.passes.effects import has_side_effect
from nxcc.passes.loops.counted_loops import Count, counted
from nxcc.passes.loops.turns import Turned, in_all_turns, spread
from nxcc.passes.notes import Note, Report, unheard
from nxcc.passes.rewriting import remove_unread, settle

BYTES_MAX = 2**35
"""Bytes that the values of all turns may take together; they lie in HBM beside the module's own."""

TURNS_MAX = 2**18
"""Turns of a loop that is looked at: the numbers of all of them are worked out here."""

Numbers = NDArray[Any]


class _Stays(Exception):
    """The loop cannot be turned into work on arrays; the text says why."""


@dataclass(frozen=True)
class VectorizeLoops:
    report: Report = unheard
    name: str = "vectorize-loops"

    def run(self, module: Module) -> bool:
        changed, names = False, Names(module)
        for computation in module.reachable():
            for loop in [i for i in computation.instructions if i.opcode == "while"]:
                changed |= self._vectorize(loop, Builder(computation, loop.location, names), module)
        if changed:
            remove_uncalled(module)
        return changed

    def _vectorize(self, loop: Instruction, builder: Builder, module: Module) -> bool:
        computation = builder.computation
        count = counted(loop)
        if count is None or not 2 <= len(count.values) <= TURNS_MAX:
            return False
        _dissolve_tuples(loop.called[0])
        before, computations = set(computation.instructions), list(module.computations)
        turns = _Turns(loop, count, builder)
        try:
            final = turns.final()
        except _Stays as reason:
            self.report(Note(self.name, f"{loop.name} stays a loop: {reason}"))
            remove_unread(computation, [i for i in reversed(list(computation.instructions)) if i not in before])
            module.computations[:] = computations
            return False
        self.report(Note(self.name, f"{loop.name}: {len(count.values)} turns at once"))
        _replace(loop, final, builder)
        return True


def _copied(value: Instruction) -> Instruction:
    while value.opcode == "copy":
        value = value.operands[0]
    return value


def _dissolve_tuples(body: Computation) -> None:
    """Elements of tuples made in the body, as calls leave them, are read without them."""
    for element in body.post_order():
        if element.opcode == "get-tuple-element" and element.operands[0].opcode == "tuple" and element is not body.root:
            whole = element.operands[0]
            body.replace(element, whole.operands[element.attribute("index")])
            remove_unread(body, [element])


def _replace(loop: Instruction, elements: Sequence[Instruction], builder: Builder) -> None:
    """Readers of the loop's state read the elements."""
    computation = builder.computation
    for user in list(loop.users):
        if user.opcode == "get-tuple-element" and user is not computation.root:
            computation.replace(user, elements[user.attribute("index")])
            computation.remove(user)
    if loop.users or loop is computation.root:
        computation.replace(loop, builder.tuple(*elements))
    remove_unread(computation, [loop])
    settle(computation)


@dataclass
class _Turns:
    """The values of a loop's body in all turns, made where the loop is.

    numbers: scalars that depend on the counter alone, a number a turn. finals: elements of the state that have been solved.
    """

    loop: Instruction
    count: Count
    builder: Builder
    values: dict[Instruction, Turned] = field(default_factory=dict)
    numbers: dict[Instruction, Numbers] = field(default_factory=dict)
    finals: dict[int, Instruction] = field(default_factory=dict)
    bytes: int = 0

    @property
    def body(self) -> Computation:
        return self.loop.called[0]

    @property
    def turns(self) -> int:
        return len(self.count.values)

    def final(self) -> list[Instruction]:
        """The state's elements after the last turn."""
        (state,) = self.body.parameters
        starts = self.loop.operands[0].operands
        for instruction in self.body.instructions:
            self._check(instruction, state)
        for user in state.users:
            index = int(user.attribute("index"))
            if index == self.count.index:
                self.numbers[user] = np.array(self.count.values, self.count.dtype.numpy)
            elif _copied(self.body.root.operands[index]) is user:
                self._invariant(user, starts[index])
        order = [i for i in self.body.post_order() if i.opcode not in ("parameter", "tuple")]
        while True:
            self._spread_known(order)
            if not self._solve(starts):
                break
        return [self._final(index, start) for index, start in enumerate(starts)]

    def _check(self, instruction: Instruction, state: Instruction) -> None:
        if has_side_effect(instruction) or instruction.opcode.startswith("rng") or instruction.control_predecessors:
            raise _Stays(f"{instruction.name} does more than compute")
        if instruction.shape.is_array and instruction.shape.dynamic or state in instruction.operands and \
                instruction.opcode != "get-tuple-element":
            raise _Stays(f"{instruction.name} is not understood")

    def _invariant(self, element: Instruction, start: Instruction) -> None:
        self.values[element] = Turned(start, False)
        if start.opcode == "constant" and start.shape.is_array and start.shape.rank == 0:
            self.numbers[element] = np.full(self.turns, start.attributes["literal"].array)

    # ---- forward ------------------------------------------------------------------------------------------------

    def _spread_known(self, order: Sequence[Instruction]) -> None:
        """Values of all instructions whose operands have theirs."""
        for instruction in order:
            if instruction not in self.values and instruction.opcode != "get-tuple-element" and self._is_read(instruction):
                self._value(instruction)

    def _is_read(self, instruction: Instruction) -> bool:
        """Rows that are written are taken from the update, not from the whole."""
        return not (instruction.opcode == "dynamic-update-slice" and list(instruction.users) == [self.body.root])

    def _value(self, instruction: Instruction) -> None:
        numbers = self._numbers(instruction)
        if numbers is not None:
            self.numbers[instruction] = numbers
        if instruction.opcode == "dynamic-slice":
            found = self._row(instruction)
        elif all(o in self.values or o in self.numbers for o in instruction.operands):
            found = in_all_turns(instruction, [self._of(o) for o in instruction.operands], self.turns, self.builder)
            if found is None:
                raise _Stays(f"{instruction.opcode} {instruction.name} is not understood in many turns")
        else:
            return
        if found is None:
            return
        self.values[instruction] = found
        self.bytes += found.value.shape.byte_size if found.last and found.value.shape.is_array else 0
        if self.bytes > BYTES_MAX:
            raise _Stays(f"its values in {self.turns} turns take more than {BYTES_MAX} bytes")

    def _of(self, operand: Instruction) -> Turned:
        found = self.values.get(operand)
        if found is None:
            found = self.values[operand] = Turned(self.builder.constant(self.numbers[operand]), True)
        return found

    def _numbers(self, instruction: Instruction) -> Numbers | None:
        """What a scalar is in each turn, if only the counter and constants decide it."""
        shape = instruction.shape
        if not shape.is_array or shape.rank or shape.dtype.is_float:
            return None
        if instruction.opcode == "constant":
            return np.full(self.turns, instruction.attributes["literal"].array)
        operator = instruction.operator
        if not operator.elementwise or operator.evaluate is None or any(o not in self.numbers for o in instruction.operands):
            return None
        with np.errstate(all="ignore"):
            return np.asarray(operator.evaluate(instruction, *(self.numbers[o] for o in instruction.operands)))

    def _row(self, instruction: Instruction) -> Turned | None:
        """The slice that each turn reads from a value that is the same in all of them."""
        source, *starts = instruction.operands
        if source not in self.values or any(s not in self.numbers for s in starts):
            return None
        found = self.values[source]
        if not found.last and all((self.numbers[s] == self.numbers[s][0]).all() for s in starts):
            places = [self.builder.constant(self.numbers[s][0]) for s in starts]
            return Turned(self.builder.make("dynamic-slice", found.value, *places, dynamic_slice_sizes=instruction.attribute(
                "dynamic_slice_sizes")), False)
        place = self._place(starts, instruction.attribute("dynamic_slice_sizes"), source.shape.dims)
        if found.last or place is None:
            raise _Stays(f"{instruction.name} reads no row of its own in each turn")
        return Turned(self._rows(found.value, *place), True)

    def _place(self, starts: Sequence[Instruction], sizes: Sequence[int], dims: Sequence[int]) -> tuple[int, int, int] | None:
        """(dimension, first place, step) of rows of size 1 that advance along one dimension, all others being whole."""
        moving = [d for d, (size, total) in enumerate(zip(sizes, dims, strict=True)) if size != total]
        if len(moving) != 1 or sizes[moving[0]] != 1:
            return None
        places = self.numbers[starts[moving[0]]].astype(np.int64)
        step = int(places[1] - places[0])
        if step == 0 or (np.diff(places) != step).any() or places.min() < 0 or places.max() >= dims[moving[0]]:
            return None
        return moving[0], int(places[0]), step

    def _rows(self, source: Instruction, dimension: int, first: int, step: int) -> Instruction:
        """[.., 1, .., turns]: the rows in the order of the turns."""
        dims = source.shape.dims
        last = first + step * (self.turns - 1)
        low, high = min(first, last), max(first, last)
        starts = [low if d == dimension else 0 for d in range(len(dims))]
        limits = [high + 1 if d == dimension else size for d, size in enumerate(dims)]
        steps = [abs(step) if d == dimension else 1 for d in range(len(dims))]
        rows = self.builder.slice(source, starts, limits, steps)
        if step < 0:
            rows = self.builder.make("reverse", rows, dimensions=(dimension,))
        rows = self.builder.transpose(rows, (*(d for d in range(len(dims)) if d != dimension), dimension))
        return self.builder.reshape(rows, (*dims[:dimension], 1, *dims[dimension + 1:], self.turns))

    # ---- carried values -----------------------------------------------------------------------------------------

    def _solve(self, starts: Sequence[Instruction]) -> bool:
        """Solve recurrences whose coefficients are known; whether there was one."""
        solved = False
        (state,) = self.body.parameters
        for user in list(state.users):
            index = int(user.attribute("index"))
            if user in self.values or user in self.numbers or index in self.finals:
                continue
            form = self._linear(self.body.root.operands[index], user)
            if form is not None:
                self._scan(user, index, starts[index], *form)
                solved = True
        return solved

    def _linear(self, after: Instruction, before: Instruction) -> tuple[Instruction, Instruction] | None:
        """(a, b), both with the turns last, of after = a * before + b, in just these two roundings."""
        shape = before.shape
        if not shape.is_array or shape.dtype is not F32 or after is before:
            return None
        whole = (*shape.dims, self.turns)
        one = self.builder.splat(F32, whole, 1.0)
        if after.opcode == "multiply":
            factor = self._factor(after, before)
            # adding a negative zero changes nothing, not even a zero's sign
            return None if factor is None else (factor, self.builder.splat(F32, whole, -0.0))
        if after.opcode not in ("add", "subtract"):
            return None
        left, right = after.operands
        for product, other in ((left, right), (right, left)):
            factor = one if product is before else self._factor(product, before)
            if factor is None or other not in self.values:
                continue
            term = spread(self.values[other], shape.dims, self.turns, self.builder)
            if after.opcode == "subtract" and product is left:
                term = self.builder.make("negate", term)
            elif after.opcode == "subtract":
                factor = self.builder.make("negate", factor)
            return factor, term
        return None

    def _factor(self, product: Instruction, before: Instruction) -> Instruction | None:
        """a of a * before."""
        if product.opcode != "multiply":
            return None
        for factor, other in (product.operands, product.operands[::-1]):
            if other is before and factor in self.values:
                return spread(self.values[factor], before.shape.dims, self.turns, self.builder)
        return None

    def _scan(self, before: Instruction, index: int, start: Instruction, a: Instruction, b: Instruction) -> None:
        """All values of a recurrence, those that the turns begin with, and the last one."""
        builder, shape = self.builder, before.shape
        module = builder.computation.parent
        assert module is not None
        body = recurrence_body(module, shape, self.builder.names)
        made = builder.make("scan", a, b, start, called=(body,), dimensions=(shape.rank,), num_carries=1)
        after = builder.get_tuple_element(made, 0)
        self.finals[index] = builder.get_tuple_element(made, 1)
        self.values[self.body.root.operands[index]] = Turned(after, True)
        first = builder.reshape(start, (*shape.dims, 1))
        limits = (*shape.dims, self.turns - 1)
        kept = builder.slice(after, (0,) * len(limits), limits)
        self.values[before] = Turned(builder.make("concatenate", first, kept, dimensions=(shape.rank,)), True)

    # ---- after the last turn ------------------------------------------------------------------------------------

    def _final(self, index: int, start: Instruction) -> Instruction:
        after = self.body.root.operands[index]
        if index in self.finals:
            return self.finals[index]
        if index == self.count.index:
            return self.builder.constant(np.asarray(self.count.last, self.count.dtype.numpy))
        if any(user is _copied(after) and user.attribute("index") == index for user in self.body.parameters[0].users):
            return start
        if after.opcode == "dynamic-update-slice" and after not in self.values:
            return self._written(after, index, start)
        found = self.values.get(after)
        if found is None and after in self.numbers:
            return self.builder.constant(self.numbers[after][-1])
        if found is None:
            raise _Stays(f"element {index} of its state depends on the turn before in a way that is no linear recurrence")
        return self._last(found) if found.last else found.value

    def _last(self, value: Turned) -> Instruction:
        dims = value.value.shape.dims
        starts = (*(0 for _ in dims[1:]), self.turns - 1)
        return self.builder.reshape(self.builder.slice(value.value, starts, dims), dims[:-1])

    def _written(self, update: Instruction, index: int, start: Instruction) -> Instruction:
        """The rows that the turns wrote, in an array of all of them."""
        array, row, *starts = update.operands
        (state,) = self.body.parameters
        is_own = array.opcode == "get-tuple-element" and array.operands[0] is state and array.attribute("index") == index
        if not is_own or list(array.users) != [update] or row not in self.values or any(s not in self.numbers for s in starts):
            raise _Stays(f"{update.name} writes what the turns before have written")
        dims = array.shape.dims
        place = self._place(starts, row.shape.dims, dims)
        if place is None or abs(place[2]) != 1:
            raise _Stays(f"{update.name} writes no row of its own in each turn")
        dimension, first, step = place
        rows = spread(self.values[row], row.shape.dims, self.turns, self.builder)
        rows = self.builder.reshape(rows, (*dims[:dimension], *dims[dimension + 1:], self.turns))
        others = len(dims) - 1
        rows = self.builder.transpose(rows, (*range(dimension), others, *range(dimension, others)))
        if step < 0:
            rows = self.builder.make("reverse", rows, dimensions=(dimension,))
        if self.turns == dims[dimension]:
            return rows
        low = min(first, first + step * (self.turns - 1))
        places = [low if d == dimension else 0 for d in range(len(dims))]
        return self.builder.make("dynamic-update-slice", start, rows,
                                 *(self.builder.constant(np.asarray(p, np.int32)) for p in places))
