"""Equal layers are one computation while regions are formed, and are written out again behind it.

Before (fold-layers):
  a = f32[8,64] dot(x, w0), ..   b = f32[8,64] tanh(a)   c = f32[8,64] dot(b, w1), ..   d = f32[8,64] tanh(c)   ..
After:
  layer.0 (p0: f32[8,64], p1: f32[64,64]) { d = dot(p0, p1), ..  ROOT t = tanh(d) }
  b = f32[8,64] call(x, w0), to_apply=layer.0   d = f32[8,64] call(b, w1), to_apply=layer.0   ..
and unfold-layers: the instructions of layer.0 for each call; regions formed inside it are one computation that all share.

Of long runs passes have seen a few layers only (`left_out.py`); the others come back here, as further calls.

What fusion finds out about a layer is found out once, and what comes later knows equal regions by their body. A layer begins
where one value passes that is read by several regions, so that no region would have reached over the border.
"""

from __future__ import annotations

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, clone_instruction
from nxcc.ir.hlo.module import Computation, Instruction, LayerNames, Module
from nxcc.ir.hlo.operator import find
from nxcc.ir.location import Location
from nxcc.passes.fusing.fusion import FREE
from nxcc.passes.fusing.left_out import LeftOut, stretch
from nxcc.passes.fusing.repeats import OUTSIDE, Layer, Repeats, find_repeats, holds

IMAGES = frozenset(("convolution", "reduce-window", "select-and-scatter"))
"""Image programs reach over more than one value, so that a border could cut one."""


@dataclass(frozen=True)
class FoldLayers:
    """left_out: layers that are missing from the module; they come back as calls, or nothing changes."""

    left_out: LeftOut | None = None
    name: str = "fold-layers"

    def run(self, module: Module) -> bool:
        entry = module.entry
        found = find_repeats(entry)
        if found is None or holds(found, IMAGES):
            return False
        short, labels = found, [[(i.name, i.location) for i in layer] for layer in found.layers]
        if self.left_out is not None:
            stretched = stretch(self.left_out, found)
            if stretched is None:
                return False
            found, labels = stretched
        builder = Builder(entry)
        body = _Body(module, found, builder)
        names = module.layers[body.computation] = {}
        made: dict[Instruction, Instruction] = {}
        order = [i for i in entry.instructions if i.opcode in OUTSIDE] + list(found.before)
        for turn, layer in enumerate(found.layers):
            arguments = [made.get(values[turn], values[turn]) for values in body.arguments]
            call, *elements = _call(entry, builder, body.computation, arguments, layer, found.results, made)
            order += (call, *elements)
            call.location = labels[turn][found.results[-1]][1]
            names[call.name] = {one.name: label for one, label in zip(short.layers[0], labels[turn], strict=True)}
        for layer in short.layers:
            for instruction in reversed(layer):
                entry.remove(instruction)
        entry.arrange((*order, *found.behind))
        _remove_unread(entry, body.inside)
        return True


class _Body:
    """A layer as a computation. arguments: the values of its parameters in each layer. What is free and the same in all layers
    is inside, as fusion would copy it into each region; inside: that, as it was."""

    def __init__(self, module: Module, repeats: Repeats, builder: Builder) -> None:
        self.repeats = repeats
        self.computation = module.add(Computation(module.unique_name("layer", {c.name for c in module.computations})))
        self.builder = builder.within(self.computation)
        self.arguments: list[tuple[Instruction, ...]] = []
        self.inside: list[Instruction] = []
        self._parameters: dict[tuple[Instruction, ...], Instruction] = {}
        self._copies: dict[Instruction, Instruction] = {}
        made: list[Instruction] = []
        for instruction, places in zip(repeats.layers[0], repeats.places, strict=True):
            operands = [made[place] if place >= 0 else self._argument(repeats.arguments[-1 - place]) for place in places]
            made.append(self.computation.add(clone_instruction(instruction, operands)))
        results = [made[place] for place in repeats.results]
        self.computation.root = results[0] if len(results) == 1 else self.builder.tuple(*results)
        # callees come before callers in a module's list
        module.computations.remove(self.computation)
        module.computations.insert(module.computations.index(module.entry), self.computation)

    def _argument(self, values: tuple[Instruction, ...]) -> Instruction:
        value = values[0]
        if value.opcode in FREE and all(other is value for other in values):
            if value not in self._copies:
                operands = [self._argument((operand,) * len(values)) for operand in value.operands]
                copy = clone_instruction(value, operands, name=self.builder.unique_name(value.name))
                self._copies[value] = self.computation.add(copy)
                self.inside.append(value)
            return self._copies[value]
        if values not in self._parameters:
            self._parameters[values] = self.builder.parameter(len(self.arguments), value.shape.without_layout())
            self.arguments.append(values)
        return self._parameters[values]


def _call(entry: Computation, builder: Builder, body: Computation, arguments: list[Instruction], layer: Layer,
          results: tuple[int, ...], made: dict[Instruction, Instruction]) -> list[Instruction]:
    """Call the body for a layer, and let all that reads the layer's results read the call's: the call and its elements.

    made: added to, what the results are.
    """
    call = Instruction(builder.unique_name(body.name), find("call"), body.root.shape, arguments, {}, (body,))
    found = [entry.add(call)]
    for number, place in enumerate(results):
        new = call if len(results) == 1 else builder.get_tuple_element(call, number)
        made[layer[place]] = new
        entry.replace(layer[place], new)
        found += [new] * (new is not call)
    return found


def _remove_unread(entry: Computation, candidates: list[Instruction]) -> None:
    for instruction in reversed(candidates):
        if not instruction.users and instruction is not entry.root and instruction.parent is entry:
            entry.remove(instruction)


@dataclass(frozen=True)
class UnfoldLayers:
    name: str = "unfold-layers"

    def run(self, module: Module) -> bool:
        if not module.layers:
            return False
        entry = module.entry
        bodies = {body: body.post_order() for body in module.layers}
        # Their names are free again.
        module.computations = [computation for computation in module.computations if computation not in bodies]
        builder = Builder(entry)
        order: list[Instruction] = []
        constants: dict[Instruction, Instruction] = {}
        for instruction in list(entry.instructions):
            if instruction.opcode == "call" and instruction.called[0] in bodies:
                body = instruction.called[0]
                names = module.layers[body][instruction.name]
                order += _unfold(entry, builder, instruction, bodies[body], names, constants)
            else:
                order.append(instruction)
        entry.arrange(i for i in order if i.parent is entry)
        module.layers.clear()
        return True


def _unfold(entry: Computation, builder: Builder, call: Instruction, order: list[Instruction],
            names: LayerNames, constants: dict[Instruction, Instruction]) -> list[Instruction]:
    """Write a body out; what it calls is shared, and so are its constants, which are added to. Returned: copies, in order."""
    root = call.called[0].root
    copies = dict(constants)
    found = []
    for instruction in order:
        if instruction.opcode == "parameter":
            copies[instruction] = call.operands[int(instruction.attributes["parameter_number"])]
            continue
        if instruction in copies or instruction is root and root.opcode == "tuple":
            continue
        name, location = _like(instruction, names)
        copy = clone_instruction(instruction, [copies[o] for o in instruction.operands], name=builder.unique_name(name))
        copy.location = location
        copies[instruction] = entry.add(copy)
        found.append(copy)
        if instruction.opcode == "constant":
            constants[instruction] = copy
    if root.opcode != "tuple":
        entry.replace(call, copies[root])
    else:
        for element in list(call.users):
            entry.replace(element, copies[root.operands[int(element.attributes["index"])]])
            entry.remove(element)
    entry.remove(call)
    return found


def _like(instruction: Instruction, names: LayerNames) -> tuple[str, Location]:
    """What an instruction is called in a layer: as its like was, or as what passes made of that there."""
    known, suffix = instruction.name, ""
    while known not in names and "." in known:
        known, _, last = known.rpartition(".")
        suffix = f".{last}{suffix}"
    if known not in names:
        return instruction.name, instruction.location
    name, location = names[known]
    return name + suffix, location
