"""Cut a module into device and host nodes, in an order that changes sides as seldom as possible.

Before: one entry computation. After: a plan, an ordered list of nodes; each is a module of its own whose parameters and
results are named values. Constants, tuples and parameters belong to no node: whoever reads a constant gets a copy of the
instruction (the literal is shared), tuples dissolve into their array leaves. Placement is by support alone here: an
instruction goes to the host if the device cannot run it or if the user keeps it there; a loop, a conditional, a call or
a fusion that holds such an instruction goes as a whole, with the inner reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, clone_computation, clone_instruction
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.shapes import Shape
from nxcc.passes.cost import Unsupported

CONTROL_FLOW = frozenset(("while", "conditional", "call", "fusion", "async-start"))
"""Instructions that the device runs by running what they call, so that its reasons are theirs."""

FREE = frozenset(("parameter", "constant", "tuple", "get-tuple-element", "after-all"))
"""Instructions that belong to no node."""

Path = tuple[int, ...]


@dataclass(frozen=True)
class HostReason:
    """Why an instruction is on the host. culprit: the instruction inside it that the reason is about."""

    instruction: str
    opcode: str
    reason: str
    source: str
    culprit: str = ""


@dataclass(frozen=True)
class Node:
    """A step: a module whose entry parameters are `inputs` and whose flattened result leaves are `outputs`, by name."""

    name: str
    on_device: bool
    module: Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """The nodes in the order in which they run.

    values: shape of every named value: module inputs `input<n>`, results `output<k>`, values between nodes `value<n>`.
    parameters: value name of each leaf of the entry parameters, in order. results: value name of each result leaf, in
    tuple order; a leaf that is a parameter has that parameter's name. aliases: result -> input name whose memory it
    may take without harm. host: every instruction on the host, with its reason.
    """

    nodes: tuple[Node, ...]
    values: dict[str, Shape]
    parameters: tuple[str, ...]
    results: tuple[str, ...]
    aliases: dict[str, str]
    host: tuple[HostReason, ...]


def partition(module: Module, unsupported: Unsupported, keep_on_host: str = "", names: Sequence[str] | None = None) -> Plan:
    """Cut the module; it is not changed.

    keep_on_host: a regular expression; instructions whose HLO or framework name it finds stay on the host.
    names: value names of the parameter leaves; `input<n>` if absent.
    """
    return _Partition(module, unsupported, keep_on_host, names).plan()


def is_kept(pattern: re.Pattern[str], instruction: Instruction) -> bool:
    """Whether the expression finds the instruction's HLO or framework name."""
    return any(pattern.search(text) for text in (instruction.name, instruction.location.op_name) if text)


@dataclass(frozen=True, slots=True)
class _Leaf:
    """An array leaf of what an instruction yields."""

    source: Instruction
    path: Path = ()


@dataclass()
class _Group:
    """Instructions that run together, in order."""

    on_device: bool
    members: list[Instruction] = field(default_factory=list)


class _Partition:
    def __init__(self, module: Module, unsupported: Unsupported, keep_on_host: str, names: Sequence[str] | None) -> None:
        self.module = module
        self.entry = module.entry
        self.needed = _needed(module.entry)
        self.placement = _Placement(module, unsupported, keep_on_host)
        self.leaf_names: dict[_Leaf, str] = {}
        self.values: dict[str, Shape] = {}
        self.parameters = self._name_parameters(names)

    def plan(self) -> Plan:
        reasons = {i: self.placement.reason(i) for i in self.needed if i.opcode not in FREE}
        groups = _order_groups(self.needed, reasons)
        result_leaves = list(_leaves(self.entry.root))
        groups = self._home_constants(groups, result_leaves)
        results = self._name_results(result_leaves)
        made_in = {member: index for index, group in enumerate(groups) for member in group.members}
        reads = [_external_leaves(group.members, made_in, index) for index, group in enumerate(groups)]
        crossing = dict.fromkeys(leaf for leaves in reads for leaf in leaves if leaf.source.opcode != "parameter")
        for leaf in crossing:
            self._name(leaf, f"value{len(self.values)}")
        nodes = []
        for index, group in enumerate(groups):
            inside = set(group.members)
            outputs = [(name, leaf) for leaf, name in self.leaf_names.items() if leaf.source in inside]
            outputs += [(name, leaf) for name, leaf in zip(results, result_leaves, strict=True)
                        if leaf.source in inside and self.leaf_names[leaf] != name]
            nodes.append(self._node(index, group, list(reads[index]), sorted(outputs, key=lambda row: row[0])))
        host = tuple(_host_reason(i, reason) for i, reason in reasons.items() if reason)
        return Plan(tuple(nodes), self.values, self.parameters, tuple(results), self._aliases(nodes, results), host)

    def _name_parameters(self, names: Sequence[str] | None) -> tuple[str, ...]:
        leaves = [_Leaf(parameter, path) for parameter in self.entry.parameters for path in _paths(parameter.shape)]
        given = tuple(names) if names is not None else tuple(f"input{n}" for n in range(len(leaves)))
        for leaf, name in zip(leaves, given, strict=True):
            self._name(leaf, name)
        return given

    def _name(self, leaf: _Leaf, name: str) -> str:
        """The value's name: the first one given stays."""
        if leaf not in self.leaf_names:
            self.leaf_names[leaf] = name
            self.values[name] = _at(leaf.source.shape, leaf.path).without_layout()
        return self.leaf_names[leaf]

    def _name_results(self, leaves: list[_Leaf]) -> list[str]:
        """`output<k>` for every result leaf that a node makes, even where two leaves are one value."""
        names = []
        for k, leaf in enumerate(leaves):
            name = self._name(leaf, f"output{k}")
            if leaf.source.opcode != "parameter" and name != f"output{k}":
                name = f"output{k}"
                self.values[name] = _at(leaf.source.shape, leaf.path).without_layout()
            names.append(name)
        return names

    def _home_constants(self, groups: list[_Group], leaves: list[_Leaf]) -> list[_Group]:
        """Give constants that are results a node that writes them: the last one that can, or one of their own."""
        for constant in dict.fromkeys(leaf.source for leaf in leaves if leaf.source.opcode == "constant"):
            able = self.placement.reason(constant) is None
            if not groups or groups[-1].on_device and not able:
                groups = [*groups, _Group(False)]
            groups[-1].members.append(constant)
        return groups

    def _node(self, index: int, group: _Group, reads: list[_Leaf], outputs: list[tuple[str, _Leaf]]) -> Node:
        kind = "device" if group.on_device else "host"
        name = f"{kind}{index}"
        module = _NodeBuilder(f"{self.module.name}.{name}").build(group.members, reads, [leaf for _, leaf in outputs])
        module.stack_frames = self.module.stack_frames
        inputs = tuple(self.leaf_names[leaf] for leaf in reads)
        return Node(name, group.on_device, module, inputs, tuple(value for value, _ in outputs))

    def _aliases(self, nodes: list[Node], results: list[str]) -> dict[str, str]:
        """Aliases that a device node can honour: nobody reads the input after the result is written."""
        paths = list(_paths(self.entry.root.shape))
        starts: dict[tuple[int, Path], str] = {}
        rest = iter(self.parameters)
        for number, parameter in enumerate(self.entry.parameters):
            starts |= {(number, path): next(rest) for path in _paths(parameter.shape)}
        found: dict[str, str] = {}
        for alias in self.module.aliases:
            source = starts.get((alias.parameter, alias.parameter_index))
            if source is None or alias.output_index not in paths:
                continue
            output = results[paths.index(alias.output_index)]
            if source not in found.values() and self._can_alias(nodes, output, source, results):
                found[output] = source
        return found

    def _can_alias(self, nodes: list[Node], output: str, source: str, results: list[str]) -> bool:
        makers = [index for index, node in enumerate(nodes) if output in node.outputs]
        if not makers or source in results or self.values[output] != self.values[source]:
            return False
        later = [node for node in nodes[makers[0] + 1:] if source in node.inputs]
        return nodes[makers[0]].on_device and not later


class _Placement:
    """Where an instruction must run, and why; reasons inside called computations are found once a computation."""

    def __init__(self, module: Module, unsupported: Unsupported, keep_on_host: str) -> None:
        self.unsupported = unsupported
        self.pattern = re.compile(keep_on_host) if keep_on_host else None
        self.inner: dict[Computation, tuple[str, str] | None] = {}
        for computation in module.reachable():
            if computation is not module.entry:
                self.inner[computation] = self._first(computation)

    def reason(self, instruction: Instruction) -> tuple[str, str] | None:
        """(reason, name of the instruction it is about), or None for the device."""
        if self.pattern is not None and is_kept(self.pattern, instruction):
            return "kept on the host by --keep-on-host", instruction.name
        if instruction.opcode in CONTROL_FLOW:
            for called in instruction.called:
                found = self.inner[called]
                if found is not None:
                    return found
        words = self.unsupported(instruction)
        return (words, instruction.name) if words is not None else None

    def _first(self, computation: Computation) -> tuple[str, str] | None:
        for instruction in computation.instructions:
            if instruction.opcode not in FREE:
                found = self.reason(instruction)
                if found is not None:
                    return found
        return None


def _host_reason(instruction: Instruction, reason: tuple[str, str]) -> HostReason:
    words, culprit = reason
    inner = culprit if culprit != instruction.name else ""
    return HostReason(instruction.name, instruction.opcode, words, str(instruction.location), inner)


def _needed(computation: Computation) -> list[Instruction]:
    """What the root depends on and what has side effects, operands first, in definition order where it is free."""
    wanted = {computation.root, *(i for i in computation.instructions if i.operator.side_effect)}
    order = computation.post_order()
    for instruction in reversed(order):
        if instruction in wanted:
            wanted.update(instruction.operands)
    return [instruction for instruction in order if instruction in wanted]


def _order_groups(order: list[Instruction], reasons: dict[Instruction, tuple[str, str] | None]) -> list[_Group]:
    """Groups of one side each, every group as large as its inputs allow; the start that gives fewer groups wins."""
    producers = {i: [leaf.source for leaf in _operand_leaves(i) if leaf.source in reasons] for i in reasons}
    both = [_grow_groups(order, reasons, producers, start) for start in (True, False)]
    return _sink_moves(min(both, key=len))


def _sink_moves(groups: list[_Group]) -> list[_Group]:
    """Let what only rearranges one operand run in the group of its first reader: there it may cost nothing, across a border
    its whole result would have to be stored."""
    made_in = {member: index for index, group in enumerate(groups) for member in group.members}
    for member in reversed(list(made_in)):
        if not member.operator.moves_data or len(member.operands) != 1:
            continue
        readers = {made_in.get(user, -1) for user in member.users if user.opcode not in ("tuple", "get-tuple-element")}
        first = min(readers, default=-1)
        if first > made_in[member] and groups[first].on_device == groups[made_in[member]].on_device \
                and len(readers) == len(readers - {-1}) and not any(u.opcode == "tuple" for u in member.users):
            groups[made_in[member]].members.remove(member)
            groups[first].members.insert(0, member)
            made_in[member] = first
    return [group for group in groups if group.members]


def _grow_groups(order: list[Instruction], reasons: dict[Instruction, tuple[str, str] | None],
                 producers: dict[Instruction, list[Instruction]], on_device: bool) -> list[_Group]:
    left = [i for i in order if i in reasons]
    done: set[Instruction] = set()
    groups: list[_Group] = []
    while left:
        group, waiting = _Group(on_device), []
        for instruction in left:
            is_ready = (reasons[instruction] is None) == on_device and done.issuperset(producers[instruction])
            if is_ready:
                group.members.append(instruction)
                done.add(instruction)
            else:
                waiting.append(instruction)
        if group.members:
            groups.append(group)
        left, on_device = waiting, not on_device
    return groups


# Leaves: what stands behind tuples and get-tuple-elements.


def _paths(shape: Shape, prefix: Path = ()) -> Iterator[Path]:
    """Paths of the array leaves of a shape, depth first."""
    if shape.is_array:
        yield prefix
    for index, element in enumerate(shape.elements):
        yield from _paths(element, (*prefix, index))


def _at(shape: Shape, path: Path) -> Shape:
    for index in path:
        shape = shape.elements[index]
    return shape


def _resolve(instruction: Instruction, path: Path) -> _Leaf:
    """The leaf behind tuples and get-tuple-elements."""
    while True:
        if instruction.opcode == "get-tuple-element":
            path = (int(instruction.attributes["index"]), *path)
            instruction = instruction.operands[0]
        elif instruction.opcode == "tuple" and path:
            instruction, path = instruction.operands[path[0]], path[1:]
        else:
            return _Leaf(instruction, path)


def _leaves(instruction: Instruction) -> Iterator[_Leaf]:
    """The leaves that an instruction's value consists of."""
    for path in _paths(instruction.shape):
        yield _resolve(instruction, path)


def _operand_leaves(instruction: Instruction) -> Iterator[_Leaf]:
    for operand in instruction.operands:
        yield from _leaves(operand)


def _external_leaves(members: Iterable[Instruction], made_in: dict[Instruction, int], index: int) -> dict[_Leaf, None]:
    """Leaves that a group reads and does not make, in order of first use; constants are not among them."""
    found: dict[_Leaf, None] = {}
    for member in members:
        for leaf in _operand_leaves(member):
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
        self.leaves: dict[_Leaf, Instruction] = {}
        self.computations: dict[Computation, Computation] = {}

    def build(self, members: list[Instruction], reads: list[_Leaf], results: list[_Leaf]) -> Module:
        for number, leaf in enumerate(reads):
            shape = _at(leaf.source.shape, leaf.path)
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
            return self._leaf(_resolve(instruction, ()))
        if instruction.shape.is_token:
            return self.builder.make("after-all")
        return self._rebuild(instruction, instruction.shape, ())

    def _rebuild(self, instruction: Instruction, shape: Shape, path: Path) -> Instruction:
        source = _resolve(instruction, path)
        if source.source in self.made:
            return self._element(self.made[source.source], source.path)
        if shape.is_array:
            return self._leaf(source)
        if shape.is_token:
            return self.builder.make("after-all")
        return self.builder.tuple(*(self._rebuild(instruction, element, (*path, index))
                                    for index, element in enumerate(shape.elements)))

    def _leaf(self, leaf: _Leaf) -> Instruction:
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
