"""From groups of instructions to nodes: modules of their own that pass named values on.

Before: a computation and groups of its instructions, in the order in which they run. After: a node a group. Constants, tuples
and parameters belong to no group: whoever reads a constant gets a copy of the instruction (the literal is shared), tuples
dissolve into their array leaves. What one group makes and another reads, or the caller wants, gets a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, clone_computation, clone_instruction
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.shapes import Shape

FREE = frozenset(("parameter", "constant", "tuple", "get-tuple-element", "after-all"))
"""Instructions that belong to no node."""

Path = tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """A step: a module whose entry parameters are `inputs` and whose flattened result leaves are `outputs`, by name.

    region: number of the device region that it is (a part of), core: the core that runs it, both from 0; -1 on the host.
    """

    name: str
    on_device: bool
    module: Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    region: int = -1
    core: int = -1


@dataclass(frozen=True, slots=True)
class Leaf:
    """An array leaf of what an instruction yields."""

    source: Instruction
    path: Path = ()


@dataclass
class Group:
    """Instructions that run together, in order."""

    on_device: bool
    members: list[Instruction] = field(default_factory=list)
    region: int = -1
    core: int = -1


class Regions:
    """Nodes for the groups of a module's entry.

    parameters: value names of the leaves of the entry's parameters, in order. results: names for the leaves of its root;
    those that are parameters keep the parameter's name. values: shapes by name, added to; names between groups are new in it.
    able: whether the device can write a constant.
    """

    def __init__(self, module: Module, parameters: Sequence[str], results: Sequence[str], values: dict[str, Shape],
                 able: Callable[[Instruction], bool] = lambda constant: True) -> None:
        self.able = able
        self.module = module
        self.entry = module.entry
        self.values = values
        self.leaf_names: dict[Leaf, str] = {}
        sources = [Leaf(parameter, path) for parameter in self.entry.parameters for path in paths(parameter.shape)]
        for leaf, name in zip(sources, parameters, strict=True):
            self._name(leaf, name)
        self.wanted = list(leaves_of(self.entry.root))
        self.given = results

    def nodes(self, groups: list[Group], first: int = 0) -> tuple[list[Node], list[str]]:
        """The nodes in order, the first one with this number in its name; and the name of each leaf of the root."""
        groups = self._home_constants(groups)
        results = self._name_results()
        made_in = {member: index for index, group in enumerate(groups) for member in group.members}
        reads = [_external_leaves(group.members, made_in, index) for index, group in enumerate(groups)]
        crossing = dict.fromkeys(leaf for leaves in reads for leaf in leaves if leaf.source.opcode != "parameter")
        for leaf in crossing:
            self._name(leaf, f"value{len(self.values)}")
        nodes = []
        for index, group in enumerate(groups):
            inside = set(group.members)
            outputs = [(name, leaf) for leaf, name in self.leaf_names.items() if leaf.source in inside]
            outputs += [(name, leaf) for name, leaf in zip(results, self.wanted, strict=True)
                        if leaf.source in inside and self.leaf_names[leaf] != name]
            nodes.append(self._node(first + index, group, list(reads[index]), sorted(outputs, key=lambda row: row[0])))
        return nodes, results

    def _name(self, leaf: Leaf, name: str) -> str:
        """The value's name: the first one given stays."""
        if leaf not in self.leaf_names:
            self.leaf_names[leaf] = name
            self.values[name] = shape_at(leaf.source.shape, leaf.path).without_layout()
        return self.leaf_names[leaf]

    def _name_results(self) -> list[str]:
        """The given name for every leaf of the root that a node makes, even where two leaves are one value."""
        names = []
        for given, leaf in zip(self.given, self.wanted, strict=True):
            name = self._name(leaf, given)
            if leaf.source.opcode != "parameter" and name != given:
                name = given
                self.values[name] = shape_at(leaf.source.shape, leaf.path).without_layout()
            names.append(name)
        return names

    def _home_constants(self, groups: list[Group]) -> list[Group]:
        """Give constants that are results a node that writes them: the last one that can, or one of their own."""
        for constant in dict.fromkeys(leaf.source for leaf in self.wanted if leaf.source.opcode == "constant"):
            if not groups or groups[-1].on_device and not self.able(constant):
                groups = [*groups, Group(False)]
            if constant not in groups[-1].members:
                groups[-1].members.append(constant)
        return groups

    def _node(self, index: int, group: Group, reads: list[Leaf], outputs: list[tuple[str, Leaf]]) -> Node:
        name = f"{'device' if group.on_device else 'host'}{index}"
        module = _NodeBuilder(f"{self.module.name}.{name}").build(group.members, reads, [leaf for _, leaf in outputs])
        module.stack_frames = self.module.stack_frames
        inputs = tuple(self.leaf_names[leaf] for leaf in reads)
        return Node(name, group.on_device, module, inputs, tuple(value for value, _ in outputs), group.region, group.core)


# Leaves: what stands behind tuples and get-tuple-elements.


def paths(shape: Shape, prefix: Path = ()) -> Iterator[Path]:
    """Paths of the array leaves of a shape, depth first."""
    if shape.is_array:
        yield prefix
    for index, element in enumerate(shape.elements):
        yield from paths(element, (*prefix, index))


def shape_at(shape: Shape, path: Path) -> Shape:
    for index in path:
        shape = shape.elements[index]
    return shape


def resolve(instruction: Instruction, path: Path) -> Leaf:
    """The leaf behind tuples and get-tuple-elements."""
    while True:
        if instruction.opcode == "get-tuple-element":
            path = (int(instruction.attributes["index"]), *path)
            instruction = instruction.operands[0]
        elif instruction.opcode == "tuple" and path:
            instruction, path = instruction.operands[path[0]], path[1:]
        else:
            return Leaf(instruction, path)


def leaves_of(instruction: Instruction) -> Iterator[Leaf]:
    """The leaves that an instruction's value consists of."""
    for path in paths(instruction.shape):
        yield resolve(instruction, path)


def operand_leaves(instruction: Instruction) -> Iterator[Leaf]:
    for operand in instruction.operands:
        yield from leaves_of(operand)


def leaf_bytes(leaf: Leaf) -> int:
    return shape_at(leaf.source.shape, leaf.path).byte_size


def _external_leaves(members: Iterable[Instruction], made_in: dict[Instruction, int], index: int) -> dict[Leaf, None]:
    """Leaves that a group reads and does not make, in order of first use; constants are not among them."""
    found: dict[Leaf, None] = {}
    for member in members:
        for leaf in operand_leaves(member):
            if leaf.source.opcode != "constant" and made_in.get(leaf.source) != index:
                found[leaf] = None
    return found


class _NodeBuilder:
    """Builds the module of one node from copies of its instructions."""

    def __init__(self, name: str) -> None:
        self.module = Module(name)
        self.entry = self.module.add(Computation("main"), entry=True)
        self.builder = Builder(self.entry)
        self.made: dict[Instruction, Instruction] = {}
        self.leaves: dict[Leaf, Instruction] = {}
        self.computations: dict[Computation, Computation] = {}

    def build(self, members: list[Instruction], reads: list[Leaf], results: list[Leaf]) -> Module:
        for number, leaf in enumerate(reads):
            shape = shape_at(leaf.source.shape, leaf.path)
            name = leaf.source.name + "".join(f".{index}" for index in leaf.path)
            self.builder.location = leaf.source.location
            self.leaves[leaf] = self.builder.parameter(number, shape.without_layout(), name)
        for member in members:
            self._copy(member)
        outputs = [self._leaf(leaf) for leaf in results]
        self.entry.root = outputs[0] if len(outputs) == 1 else self.builder.tuple(*outputs)
        # callees come before callers in a module's list
        self.module.computations = [*self.computations.values(), self.entry]
        return self.module

    def _copy(self, member: Instruction) -> Instruction:
        operands = [self._operand(operand) for operand in member.operands]
        called = [self._computation(computation) for computation in member.called]
        copy = clone_instruction(member, operands, called, self.builder.unique_name(member.name))
        self.made[member] = self.entry.add(copy)
        return copy

    def _operand(self, instruction: Instruction) -> Instruction:
        """The copy of an operand in this node, tuples rebuilt from their leaves."""
        if instruction in self.made:
            return self.made[instruction]
        if instruction.shape.is_array:
            return self._leaf(resolve(instruction, ()))
        if instruction.shape.is_token:
            return self.builder.make("after-all")
        return self._rebuild(instruction, instruction.shape, ())

    def _rebuild(self, instruction: Instruction, shape: Shape, path: Path) -> Instruction:
        source = resolve(instruction, path)
        if source.source in self.made:
            return self._element(self.made[source.source], source.path)
        if shape.is_array:
            return self._leaf(source)
        if shape.is_token:
            return self.builder.make("after-all")
        return self.builder.tuple(*(self._rebuild(instruction, element, (*path, index))
                                    for index, element in enumerate(shape.elements)))

    def _leaf(self, leaf: Leaf) -> Instruction:
        if leaf not in self.leaves:
            made = self.made.get(leaf.source)
            self.leaves[leaf] = self._element(made if made is not None else self._copy(leaf.source), leaf.path)
        return self.leaves[leaf]

    def _element(self, instruction: Instruction, path: Path) -> Instruction:
        for index in path:
            instruction = self.builder.get_tuple_element(instruction, index)
        return instruction

    def _computation(self, computation: Computation) -> Computation:
        """A copy of a called computation and of all it calls, callees first."""
        stack = [computation]
        while stack:
            top = stack[-1]
            waiting = [c for i in top.instructions for c in i.called if c not in self.computations]
            if waiting and top not in self.computations:
                stack += waiting
                continue
            stack.pop()
            if top not in self.computations:
                copy = clone_computation(top, top.name, self.computations)
                copy.parent = self.module
                self.computations[top] = copy
        return self.computations[computation]
