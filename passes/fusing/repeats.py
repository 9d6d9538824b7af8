"""Finds layers that are equal but for what they read: stretches of a computation that repeat, each with its own operands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.passes.common_subexpressions import Key, instruction_key
from nxcc.passes.fusing.fusion import FREE

OUTSIDE = frozenset(("parameter", "constant"))
"""Instructions that belong to no layer: layers read them."""

TURNS_MIN = 4
"""Fewer equal layers than this are not worth the copies."""

PERIODS_TRIED = 4
"""Lengths of a layer that are looked at: the commonest distances between equal products."""

Layer = Sequence[Instruction]


@dataclass(frozen=True, slots=True)
class Repeats:
    """Equal layers, and what differs.

    before, behind: what else there is of the computation, without parameters and constants, in an order that works with the
    layers between. places: for each instruction of a layer, where its operands come from: the place in the same layer, or -1
    minus the number of an argument. arguments: each one's value in each layer. results: places that are read outside of
    their layer.
    """

    before: Layer
    layers: tuple[Layer, ...]
    behind: Layer
    places: tuple[tuple[int, ...], ...]
    arguments: tuple[tuple[Instruction, ...], ...]
    results: tuple[int, ...]


def find_repeats(computation: Computation) -> Repeats | None:
    """The longest run of equal layers; None if there is none that could be one computation.

    The last layer is left out: what reads its result differs from what reads the others'.
    """
    order = _order(computation)
    if len(order) < TURNS_MIN or any(i.control_predecessors for i in order):
        return None
    numbers: dict[Key, int] = {}
    # Cheap to tell; what is equal by this is compared in full later.
    rough = [numbers.setdefault((i.opcode, i.shape.dims, *[o.shape.dims for o in i.operands]), len(numbers)) for i in order]
    if not _periods(order, rough):
        return None
    return _found(computation, order, rough) or _found(computation, order, _exact(order))


def _exact(order: Layer) -> list[int]:
    numbers: dict[Key, int] = {}
    structures: dict[Computation, Key] = {}
    return [numbers.setdefault(instruction_key(i, (tuple([o.shape for o in i.operands]),), structures), len(numbers))
            for i in order]


def _found(computation: Computation, order: Layer, kinds: Sequence[int]) -> Repeats | None:
    """The longest run of what is of equal kinds."""
    best: tuple[int, int, int] | None = None
    for period in _periods(order, kinds):
        found = _run(kinds, period)
        if found is not None and (best is None or found[1] // period * period > best[1] // best[2] * best[2]):
            best = *found, period
    if best is None:
        return None
    start, length, period = best
    begin = _border(order, start, length, period)
    turns = (start + length - begin) // period - 1
    if turns < TURNS_MIN - 1:
        return None
    return _compared(computation, order, begin, period, turns)


def _order(computation: Computation) -> list[Instruction]:
    """What may belong to layers, operands first: what is free right before it is first read, conversions for products behind
    their value."""
    order: dict[Instruction, None] = {}

    def add(instruction: Instruction) -> None:
        stack = [instruction]
        while stack:
            top = stack[-1]
            missing = [] if top in order else [o for o in top.operands if o.opcode not in OUTSIDE and o not in order]
            if missing:
                stack += reversed(missing)
                continue
            stack.pop()
            order[top] = None
            stack += [user for user in top.users if _is_for_products(user) and user not in order]

    late = FREE | {"convert"}
    everything = [i for i in computation.post_order() if i.opcode not in OUTSIDE]
    for instruction in (*(i for i in everything if i.opcode not in late), *everything):
        if instruction not in order:
            add(instruction)
    return list(order)


def _is_for_products(instruction: Instruction) -> bool:
    """A conversion that no region of its readers makes: it belongs to what makes the value."""
    return instruction.opcode == "convert" and all(user.opcode == "dot" for user in instruction.users)


def _periods(order: Sequence[Instruction], kinds: Sequence[int]) -> list[int]:
    last: dict[int, int] = {}
    distances: Counter[int] = Counter()
    for index, (instruction, kind) in enumerate(zip(order, kinds, strict=True)):
        if instruction.opcode == "dot":
            if kind in last:
                distances[index - last[kind]] += 1
            last[kind] = index
    common = [distance for distance, times in distances.most_common(PERIODS_TRIED) if times >= TURNS_MIN - 1]
    return list(dict.fromkeys([*common, *(sum(common[:n]) for n in range(2, len(common) + 1))]))


def _run(kinds: Sequence[int], period: int) -> tuple[int, int] | None:
    """Start and length of the longest stretch in which each kind comes again a period later."""
    numbers = np.array(kinds)
    differ = np.flatnonzero(numbers[:-period] != numbers[period:])
    borders = np.concatenate(([-1], differ, [max(0, len(kinds) - period)]))
    lengths = np.diff(borders) - 1
    longest = int(lengths.argmax())
    if lengths[longest] < period * (TURNS_MIN - 1):
        return None
    return int(borders[longest]) + 1, int(lengths[longest]) + period


def _border(order: Sequence[Instruction], start: int, length: int, period: int) -> int:
    """Where layers begin: where the fewest values pass from one to the next, and these are read far behind it, so that no
    region would reach over the border. Conversions of a value that passes are made before it, with the value."""
    position = {instruction: index for index, instruction in enumerate(order)}
    first = start + period
    # For each place behind which the second layer could begin: values that pass it, and how far the farthest reader is.
    passing: list[list[int]] = [[] for _ in range(period)]
    for index in range(start, min(first + period, len(order))):
        value = order[index]
        readers = [position[user] for user in value.users if user in position]
        converted = [position[user] for user in value.users if user in position and _is_for_products(user)]
        reach = max(readers, default=-1)
        for border in range(max(first, index + 1), min(first + period, reach + 1)):
            if border - period > index:
                continue
            if not _is_for_products(value) or position.get(value.operands[0], -1) < start:
                passing[border - first].append(reach - border)
            # A conversion left behind the border would be a region of its own.
            passing[border - first] += [0] * sum(1 for at in converted if at >= border)
    most = length - (length - period) // period * period
    offsets = range(min(period, most + 1))
    return start + min(offsets, key=lambda offset: (len(passing[offset]), -max(passing[offset], default=0), offset))


def _compared(computation: Computation, order: Layer, begin: int, period: int, turns: int) -> Repeats | None:
    """What the layers read and what of them is read; None if they are not wired alike."""
    end = begin + turns * period
    layers = tuple(order[start:start + period] for start in range(begin, end, period))
    if not all(_are_alike(column) for column in zip(*layers, strict=True)):
        return None
    inside = [{instruction: place for place, instruction in enumerate(layer)} for layer in layers]
    arguments: dict[tuple[Instruction, ...], int] = {}
    places = []
    for column in zip(*layers, strict=True):
        row = []
        for operands in zip(*(instruction.operands for instruction in column), strict=True):
            own = {places_.get(operand, -1) for places_, operand in zip(inside, operands, strict=True)}
            if len(own) > 1:
                return None
            (place,) = own
            if place < 0 and operands not in arguments and not _are_of_one_shape(operands):
                return None
            row.append(place if place >= 0 else -1 - arguments.setdefault(operands, len(arguments)))
        places.append(tuple(row))
    results = sorted({place for layer, own in zip(layers, inside, strict=True) for place, value in enumerate(layer)
                      if not value.users.keys() <= own.keys() or value is computation.root})
    if not results or not all(layers[0][place].shape.is_array for place in results):
        return None
    return Repeats(order[:begin], layers, order[end:], tuple(places), tuple(arguments), tuple(results))


def _are_alike(column: Sequence[Instruction]) -> bool:
    """Whether instructions compute the same, were their operands of the same shapes."""
    first, *others = column
    for other in others:
        if other.shape is not first.shape and other.shape != first.shape or other.attributes != first.attributes:
            return False
        if other.called != first.called:
            return len(set(_exact(column))) == 1
        if other.frontend_attributes != first.frontend_attributes or other.backend_config != first.backend_config:
            return False
    return True


def _are_of_one_shape(values: Sequence[Instruction]) -> bool:
    shape = values[0].shape
    return all([value.shape is shape or value.shape == shape for value in values])


def holds(repeats: Repeats, opcodes: frozenset[str]) -> bool:
    """Whether a layer holds an instruction of these."""
    return any(instruction.opcode in opcodes for instruction in repeats.layers[0])


