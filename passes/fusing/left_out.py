"""Equal layers of which passes see a few: the others are left out right after reading, and come back when layers are folded.

Before (24 layers that are equal but for their weights):
  a = tanh(dot(x, w0))   b = tanh(dot(a, w1))   ..   y = tanh(dot(.., w22))   z = tanh(dot(y, w23))
After (what passes rewrite):
  a = tanh(dot(x, w0))   b = tanh(dot(a, w1))   y = tanh(dot(b, w22))   z = tanh(dot(y, w23))

What passes make of one layer between two others they make of each, so that what they left of a kept layer is, with other
parameters, what they would have left of the others. `stretch` says so: the run of layers that it is given is found again in
what the passes made, and it becomes as long as it was. Where anything does not fit it says None, and the passes run on the
whole module. The two are different modules, so that nothing is lost.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import field, replace

from nxcc.ir.dtypes import BF16, F16, F32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, clone_computation, clone_instruction
from nxcc.ir.hlo.module import Computation, Instruction, Module, callees_first
from nxcc.ir.location import Location
from nxcc.ir.shapes import Shape, shape_text
from nxcc.passes.common_subexpressions import literal_key
from nxcc.passes.dtypes.legalize_dtypes import update_entry_layout
from nxcc.passes.effects import has_side_effect
from nxcc.passes.fusing.repeats import Layer, Repeats, find_repeats

BEFORE_GAP, BEHIND_GAP = 2, 2
"""Layers that stay at both ends of the run. As many again as folding needs to find a run, with those that it leaves out."""

WORTH = 2
"""Fewer layers than this are not left out."""

WHOLE = frozenset(("convolution", "reduce-window", "select-and-scatter", "while", "conditional", "rng", "rng-bit-generator"))
"""What passes treat by what the whole module holds, or by its name."""

CARRIED = frozenset((F32, BF16, F16))
"""Types that passes leave alone where values enter and leave layers."""

Label = tuple[str, Location]


@dataclass(slots=True)
class LeftOut:
    """A module without some of its equal layers, and what those were.

    count: layers that are missing, behind the first BEFORE_GAP of the run. parameters: of each that differs from layer
    to layer, its number in each layer of the whole run. results: the same for operands of the module's root.
    labels: name and location of each instruction of each layer.
    """

    module: Module
    count: int
    parameters: list[tuple[int, ...]] = field(default_factory=list)
    results: list[tuple[int, ...]] = field(default_factory=list)
    labels: list[list[Label]] = field(default_factory=list)

    def kept(self, layer: int) -> int | None:
        """Where a layer of the whole run is among those that stayed."""
        if layer < BEFORE_GAP:
            return layer
        return layer - self.count if layer >= BEFORE_GAP + self.count else None


def leave_out(module: Module, weights: frozenset[int]) -> LeftOut | None:
    """A copy of a module without most of its equal layers; None if it has none that can be missing.

    weights: numbers of the entry parameters that are declared weights.
    """
    run = find_repeats(module.entry)
    if run is None:
        return None
    count = len(run.layers) - BEFORE_GAP - BEHIND_GAP
    if count < WORTH or any(i.opcode in WHOLE or has_side_effect(i) for i in run.layers[0]):
        return None
    found = _Found(module, run, weights)
    if not found.arguments_fit() or not found.results_fit():
        return None
    labels = [[(i.name, i.location) for i in layer] for layer in run.layers]
    return LeftOut(found.copy(count), count, found.parameters, found.results, labels)


class _Found:
    """What a run of layers reads and what is read of it, and whether layers of it can be missing."""

    def __init__(self, module: Module, run: Repeats, weights: frozenset[int]) -> None:
        self.module, self.entry, self.run, self.weights = module, module.entry, run, weights
        self.inside = [frozenset(layer) for layer in run.layers]
        self.parameters: list[tuple[int, ...]] = []
        self.results: list[tuple[int, ...]] = []

    def arguments_fit(self) -> bool:
        return all(self._is_shared(values) or self._is_handed_on(values) or self._is_own(values)
                   for values in self.run.arguments)

    def _is_shared(self, values: Sequence[Instruction]) -> bool:
        """The same value in each layer."""
        first = values[0]
        return all(value is first for value in values) or _are_equal(values)

    def _is_handed_on(self, values: Sequence[Instruction]) -> bool:
        """What the layer before made, always in the same place."""
        layers = self.run.layers
        place = next((n for n, value in enumerate(layers[0]) if value is values[1]), None)
        return place is not None and all(layer[place] is value for layer, value in zip(layers, values[1:], strict=False))

    def _is_own(self, values: Sequence[Instruction]) -> bool:
        """A parameter that this layer alone reads."""
        if any(value.opcode != "parameter" or value.shape.dtype not in CARRIED for value in values):
            return False
        if not all(value.users.keys() <= own for value, own in zip(values, self.inside, strict=True)):
            return False
        self.parameters.append(tuple(_number(value) for value in values))
        return True

    def results_fit(self) -> bool:
        """Whether only the next layer and the module's root read results, and parameters are of one kind in all layers."""
        root = self.entry.root
        numbers: dict[Instruction, list[int]] = {}
        for number, value in enumerate(root.operands if root.opcode == "tuple" else ()):
            numbers.setdefault(value, []).append(number)
        for place in self.run.results:
            values = [layer[place] for layer in self.run.layers]
            columns = [numbers.get(value, []) for value in values]
            if (values[0].shape.dtype not in CARRIED or len({len(column) for column in columns[:-1]}) > 1
                    or not all(map(self._is_read_plainly, values, self.inside, self.inside[1:]))):
                return False
            self.results += [tuple(column[n] for column in columns if n < len(column)) for n in range(len(columns[0]))]
        kinds = _kinds(self.module, self.weights, {number: n for n, column in enumerate(self.results) for number in column})
        return all(len({kinds[number] for number in column}) == 1 for column in self.parameters)

    def _is_read_plainly(self, value: Instruction, own: frozenset[Instruction], following: frozenset[Instruction]) -> bool:
        root = self.entry.root
        return value is not root and all(user in own or user in following or user is root for user in value.users)

    def copy(self, count: int) -> Module:
        """The module without so many layers behind the first."""
        gap = range(BEFORE_GAP, BEFORE_GAP + count)
        missing = {instruction for layer in gap for instruction in self.inside[layer]}
        last, kept = self.run.layers[gap[0] - 1], self.run.layers[gap[-1]]
        stand_in = dict(zip(kept, last, strict=True))
        module = replace(self.module, computations=[], frontend_attributes=dict(self.module.frontend_attributes),
                         header=dict(self.module.header), layers={})
        entry = Computation(self.entry.name)
        copies: dict[Instruction, Instruction] = {}
        bodies = self._bodies(module, missing)
        module.add(entry, entry=True)
        entry.execution_thread = self.entry.execution_thread
        root = self.entry.root
        for old in self.entry.post_order():
            if old in missing:
                continue
            operands = [copies[stand_in.get(o, o)] for o in old.operands] if old is not root else [
                copies[o] if o not in missing else _empty(entry, o.shape) for o in old.operands]
            copies[old] = entry.add(clone_instruction(old, operands, [bodies[c] for c in old.called]))
        entry.root = copies[root]
        return module

    def _bodies(self, module: Module, missing: set[Instruction]) -> dict[Computation, Computation]:
        """Copies of all that what stays calls."""
        called = callees_first(dict.fromkeys(c for i in self.entry.instructions if i not in missing for c in i.called))
        bodies: dict[Computation, Computation] = {}
        for old in called:
            bodies[old] = module.add(clone_computation(old, old.name, bodies))
        return bodies


def _number(parameter: Instruction) -> int:
    return int(parameter.attributes["parameter_number"])


def _kinds(module: Module, weights: frozenset[int], results: dict[int, int]) -> list[Hashable]:
    """What a module says of each parameter, as far as it may differ among layers. results: which kind of result one is."""
    layout = module.entry_layout
    aliases: dict[int, list[Hashable]] = {}
    for alias in module.aliases:
        place = alias.output_index
        where = results.get(place[0], place) if len(place) == 1 else place
        aliases.setdefault(alias.parameter, []).append((alias.parameter_index, alias.kind, where))
    donors = {donor for donor, _ in module.buffer_donors}
    return [(shape_text(p.shape), repr(p.sharding), tuple(sorted(p.frontend_attributes.items())), n in weights, n in donors,
             shape_text(layout[0][n]) if layout else "", tuple(aliases.get(n, ())))
            for n, p in enumerate(module.entry.parameters)]


def _empty(entry: Computation, shape: Shape) -> Instruction:
    """What stands for a result that is missing."""
    builder = Builder(entry)
    return builder.broadcast(builder.splat(shape.dtype, (), 0), shape.dims, ())


def stretch(left_out: LeftOut, run: Repeats) -> tuple[Repeats, list[list[Label]]] | None:
    """The run of layers found in what passes made of a shortened module, as long as it would be in the whole one, and what
    its instructions are called; None if it cannot be told. Parameters and results of the module become the whole one's."""
    made = _Stretched(left_out, run)
    arguments = [made.values(values) for values in run.arguments]
    if any(values is None for values in arguments) or not made.parameters_fit() or not made.results_fit() \
            or not made.set_results():
        return None
    made.set_parameters()
    found = replace(run, layers=tuple(made.layers), arguments=tuple(values for values in arguments if values is not None))
    return found, made.labels()


class _Stretched:
    """layers: those of the run, and between them others that are in no computation, which only stand for their results."""

    def __init__(self, left_out: LeftOut, run: Repeats) -> None:
        self.left_out, self.run = left_out, run
        self.module, self.entry = left_out.module, left_out.module.entry
        self.turns = len(run.layers) + left_out.count
        self.parameters = self.entry.parameters
        self.columns = {number: (n, layer) for n, column in enumerate(left_out.parameters)
                        for layer, number in enumerate(column)}
        self.split = len(run.layers) // 2
        absent = [[Instruction(i.name, i.operator, i.shape) for i in run.layers[0]] for _ in range(left_out.count)]
        self.layers: list[Layer] = [*run.layers[:self.split], *absent, *run.layers[self.split:]]
        self.place = {instruction: (turn, place) for turn, layer in enumerate(run.layers)
                      for place, instruction in enumerate(layer)}

    def values(self, values: tuple[Instruction, ...]) -> tuple[Instruction, ...] | None:
        """An argument in each turn."""
        if all(value is values[0] for value in values):
            return (values[0],) * self.turns
        if values[0].opcode == "constant" and _are_equal(values):
            return (values[0],) * self.turns
        places = {(self.place[value][0] - turn, self.place[value][1]) if value in self.place else None
                  for turn, value in enumerate(values) if turn}
        if len(places) == 1 and None not in places:
            ((distance, place),) = filter(None, places)
            return (values[0], *(layer[place] for layer in self.layers[:-1])) if distance == -1 else None
        return self._own(values)

    def _own(self, values: tuple[Instruction, ...]) -> tuple[Instruction, ...] | None:
        """A parameter of each layer."""
        if any(value.opcode != "parameter" for value in values):
            return None
        found = [self.columns.get(_number(value)) for value in values]
        kept = [(row[0], self._first(row[1], turn)) for turn, row in enumerate(found) if row is not None]
        if len(set(kept)) != 1 or kept[0][1] is None:
            return None
        (column, first), *_ = kept
        numbers = self.left_out.parameters[column]
        assert first is not None
        return tuple(self.parameters[numbers[first + turn]] if 0 <= first + turn < len(numbers)
                     else values[self._actual(turn)] for turn in range(self.turns))

    def _first(self, layer: int, turn: int) -> int | None:
        """Which layer the first turn is; None if turns before and behind the gap do not belong together."""
        kept = self.left_out.kept(layer)
        if kept is None:
            return None
        first = kept - turn
        return first if first <= BEFORE_GAP <= first + len(self.run.layers) else None

    def _actual(self, turn: int) -> int:
        """The turn of the short run that a turn is which belongs to no layer of the whole run."""
        return turn if turn < self.split else max(turn - self.left_out.count, 0)

    def parameters_fit(self) -> bool:
        """Whether passes did the same to a parameter of each layer that stayed."""
        return all(len({(shape_text(p.shape), tuple(p.frontend_attributes.items())) for p in self._kept(column)}) == 1
                   for column in self.left_out.parameters)

    def _kept(self, column: Sequence[int]) -> list[Instruction]:
        return [self.parameters[number] for layer, number in enumerate(column) if self.left_out.kept(layer) is not None]

    def set_parameters(self) -> None:
        for column in self.left_out.parameters:
            like = self._kept(column)[0]
            for layer, number in enumerate(column):
                if self.left_out.kept(layer) is None:
                    self.parameters[number].shape = like.shape
                    self.parameters[number].frontend_attributes = dict(like.frontend_attributes)
        update_entry_layout(self.module)

    def results_fit(self) -> bool:
        """Whether what a layer makes, but for the last one, is read by the next layer and as results of the module alone."""
        return all(user is self.entry.root or user in self.place and self.place[user][0] - turn in (0, 1)
                   for turn, layer in enumerate(self.run.layers[:-1]) for place in self.run.results
                   for user in layer[place].users)

    def set_results(self) -> bool:
        """Let the module's root read the results of all layers; False if it cannot be told which they are."""
        operands = list(self.entry.root.operands)
        for column in self.left_out.results:
            found = set()
            for layer, number in enumerate(column):
                kept = self.left_out.kept(layer)
                if kept is not None and operands[number] in self.place:
                    turn, place = self.place[operands[number]]
                    found.add((self._first(layer, turn), place))
            if len(found) != 1:
                return False
            ((first, place),) = found
            if first is None:
                return False
            for layer, number in enumerate(column):
                if 0 <= layer - first < self.turns:
                    operands[number] = self.layers[layer - first][place]
        if self.left_out.results:
            self.entry.set_operands(self.entry.root, operands)
        return True

    def labels(self) -> list[list[Label]]:
        """Name and location of each instruction in each turn."""
        names: dict[str, tuple[int, int]] = {}
        locations: dict[Location, tuple[int, int]] = {}
        for layer, row in enumerate(self.left_out.labels):
            if self.left_out.kept(layer) is not None:
                for place, (name, location) in enumerate(row):
                    names[name] = layer, place
                    locations.setdefault(location, (layer, place))
        columns = [self._labels_at(place, names, locations) for place in range(len(self.run.layers[0]))]
        return [list(row) for row in zip(*columns, strict=True)]

    def _labels_at(self, place: int, names: dict[str, tuple[int, int]],
                   locations: dict[Location, tuple[int, int]]) -> list[Label]:
        """What an instruction is called that has the name, or at least the location, of one that was read."""
        actual = [layer[place] for layer in self.run.layers]
        labels = [self._label(actual, turn) for turn in range(self.turns)]
        bases = [_base(i.name, names) for i in actual]
        found: list[tuple[int, int, int, str | None]]
        found = [(turn, *names[base], suffix) for turn, (base, suffix) in enumerate(bases) if base]
        found += [(turn, *locations[i.location], None) for turn, i in enumerate(actual) if i.location in locations]
        for turn, layer, own, suffix in found:
            first = self._first(layer, turn)
            if first is None:
                continue
            for t in range(max(0, -first), min(self.turns, len(self.left_out.labels) - first)):
                name, location = self.left_out.labels[first + t][own]
                labels[t] = (labels[t][0] if suffix is None else name + suffix), location
            break
        return labels

    def _label(self, actual: Sequence[Instruction], turn: int) -> Label:
        like = actual[min(self._actual(turn), len(actual) - 1)]
        return like.name, like.location


def _base(name: str, known: dict[str, tuple[int, int]]) -> tuple[str, str]:
    """The name of what passes made an instruction of, and what they added to it."""
    base, suffix = name, ""
    while base not in known and "." in base:
        base, _, last = base.rpartition(".")
        suffix = f".{last}{suffix}"
    return (base, suffix) if base in known else ("", "")


def _are_equal(values: Sequence[Instruction]) -> bool:
    return (all(value.opcode == "constant" for value in values)
            and len({literal_key(value.attributes["literal"]) for value in values}) == 1)
