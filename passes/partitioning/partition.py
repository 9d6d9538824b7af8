"""Cut a module into device and host nodes, in an order that changes sides as seldom as possible.

Before: one entry computation. After: a plan, an ordered list of nodes; each is a module of its own whose parameters and
results are named values (see `regions`). An instruction goes to the host if the device cannot run it or if the user keeps it
there; a loop, a conditional, a call or a fusion that holds such an instruction goes as a whole, with the inner reason. What
else goes there, in a module that is split anyway, is a matter of cost (see `placement`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.shapes import Shape
from nxcc.passes.cost import Unsupported
from nxcc.passes.partitioning.nodes import FREE, Group, Node, Path, Regions, leaves_of, operand_leaves, paths
from nxcc.passes.partitioning.placement import BY_SUPPORT, Placement, Reason, Reasons, placed

CONTROL_FLOW = frozenset(("while", "conditional", "call", "fusion", "async-start"))
"""Instructions that the device runs by running what they call, so that its reasons are theirs."""


SUPPORT, KEPT, COST = "support", "kept", "cost"
KEPT_REASON = "kept on the host by --keep-on-host"


@dataclass(frozen=True)
class HostReason:
    """Why an instruction is on the host. culprit: the instruction inside it that the reason is about. kind: SUPPORT if the
    device cannot run it, KEPT if the user wants it there, COST if it is placed there."""

    instruction: str
    opcode: str
    reason: str
    source: str
    culprit: str = ""
    kind: str = SUPPORT


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

    @property
    def cores(self) -> int:
        """Cores that the plan takes; one even if all of it runs on the host."""
        return max((node.core for node in self.nodes), default=0) + 1

    def passing(self, node: Node) -> tuple[str, ...]:
        """Values that nodes before made and nodes behind read, which pass this one; for a device node those that a core had
        last, since the host keeps what it has seen."""
        number = next(place for place, other in enumerate(self.nodes) if other is node)
        last = {name: place for place, other in enumerate(self.nodes) for name in other.inputs}
        found = []
        for place, maker in enumerate(self.nodes[:number]):
            seen = not maker.on_device or any(not other.on_device for other in self.nodes[place + 1:number])
            found += [name for name in maker.outputs if last.get(name, 0) > number and not (seen and node.on_device)
                      and name not in node.inputs]
        return tuple(found)

    def nodes_of(self, core: int) -> tuple[Node, ...]:
        """What runs on a core, in order."""
        return tuple(node for node in self.nodes if node.on_device and node.core == core)


def partition(module: Module, unsupported: Unsupported, keep_on_host: str = "", names: Sequence[str] | None = None,
              placement: Placement = BY_SUPPORT) -> Plan:
    """Cut the module for one core; it is not changed.

    keep_on_host: a regular expression; instructions whose HLO or framework name it finds stay on the host.
    names: value names of the parameter leaves; `input<n>` if absent. placement: what of the rest joins the host.
    """
    entry = module.entry
    needed = _needed(entry)
    support = _Support(module, unsupported, keep_on_host)
    reasons = {i: support.reason(i) for i in needed if i.opcode not in FREE}
    given = {i for i, reason in reasons.items() if reason}
    reasons, groups = placed(reasons, list(leaves_of(entry.root)), lambda rows: _order_groups(needed, rows), placement)
    count = sum(1 for parameter in entry.parameters for _ in paths(parameter.shape))
    parameters = tuple(names) if names is not None else tuple(f"input{n}" for n in range(count))
    values: dict[str, Shape] = {}
    wanted = [f"output{k}" for k, _ in enumerate(paths(entry.root.shape))]
    regions = Regions(module, parameters, wanted, values, lambda constant: support.reason(constant) is None)
    nodes, results = regions.nodes(number_regions(groups))
    host = tuple(_host_reason(i, reason, i in given) for i, reason in reasons.items() if reason)
    return Plan(tuple(nodes), values, parameters, tuple(results), aliases(module, nodes, values, parameters, results), host)


def number_regions(groups: list[Group]) -> list[Group]:
    """Number the device's groups; all of them run on the first core."""
    for number, group in enumerate(group for group in groups if group.on_device):
        group.region, group.core = number, 0
    return groups


def is_kept(pattern: re.Pattern[str], instruction: Instruction) -> bool:
    """Whether the expression finds the instruction's HLO or framework name, or the HLO name of what it was made of."""
    location = instruction.location
    return any(pattern.search(text) for text in (instruction.name, location.op_name, location.scheduling_name) if text)


def mark_kept(module: Module, pattern: re.Pattern[str]) -> int:
    """Write the HLO name of what stays on the host into its metadata, which passes carry over to what they put in its place.

    Returns how many instructions these are.
    """
    found = [instruction for instruction in module.instructions() if is_kept(pattern, instruction)]
    for instruction in found:
        instruction.location = replace(instruction.location, scheduling_name=instruction.name)
    return len(found)


def aliases(module: Module, nodes: Sequence[Node], values: dict[str, Shape], parameters: Sequence[str],
            results: Sequence[str]) -> dict[str, str]:
    """Aliases of the module that a device node can honour: nobody reads the input after the result is written."""
    result_paths = list(paths(module.entry.root.shape))
    starts: dict[tuple[int, Path], str] = {}
    rest = iter(parameters)
    for number, parameter in enumerate(module.entry.parameters):
        starts |= {(number, path): next(rest) for path in paths(parameter.shape)}
    found: dict[str, str] = {}
    for alias in module.aliases:
        source = starts.get((alias.parameter, alias.parameter_index))
        if source is None or alias.output_index not in result_paths:
            continue
        output = results[result_paths.index(alias.output_index)]
        free = source not in results and source not in found.values() and values[output] == values[source]
        if free and _can_alias(nodes, output, source):
            found[output] = source
    return found


def _can_alias(nodes: Sequence[Node], output: str, source: str) -> bool:
    """Whether the node that makes the output is the input's last reader, and the only one of another core's or the host's."""
    makers = [index for index, node in enumerate(nodes) if output in node.outputs]
    if not makers or not nodes[makers[0]].on_device:
        return False
    return not any(source in node.inputs for node in nodes[makers[0] + 1:])


class _Support:
    """Which instructions must run on the host, and why; reasons inside called computations are found once a computation."""

    def __init__(self, module: Module, unsupported: Unsupported, keep_on_host: str) -> None:
        self.unsupported = unsupported
        self.pattern = re.compile(keep_on_host) if keep_on_host else None
        self.inner: dict[Computation, Reason | None] = {}
        self.fusions: dict[Computation, Reason | None] = {}
        for computation in module.reachable():
            if computation is not module.entry:
                self.inner[computation] = self._first(computation)

    def reason(self, instruction: Instruction) -> Reason | None:
        """(reason, name of the instruction it is about), or None for the device."""
        if self.pattern is not None and is_kept(self.pattern, instruction):
            return KEPT_REASON, instruction.name
        if instruction.opcode in CONTROL_FLOW:
            for called in instruction.called:
                found = self.inner[called]
                if found is not None:
                    return found
            if instruction.opcode == "fusion":
                return self._of_fusion(instruction)
        words = self.unsupported(instruction)
        return (words, instruction.name) if words is not None else None

    def _of_fusion(self, instruction: Instruction) -> Reason | None:
        """Fusions of equal layers share what they call, and the reason with it."""
        called = instruction.called[0]
        if called not in self.fusions:
            words = self.unsupported(instruction)
            self.fusions[called] = (words, instruction.name) if words is not None else None
        return self.fusions[called]

    def _first(self, computation: Computation) -> Reason | None:
        for instruction in computation.instructions:
            if instruction.opcode not in FREE:
                found = self.reason(instruction)
                if found is not None:
                    return found
        return None


def _host_reason(instruction: Instruction, reason: Reason, is_given: bool) -> HostReason:
    words, culprit = reason
    inner = culprit if culprit != instruction.name else ""
    kind = COST if not is_given else KEPT if words == KEPT_REASON else SUPPORT
    return HostReason(instruction.name, instruction.opcode, words, str(instruction.location), inner, kind)


def _needed(computation: Computation) -> list[Instruction]:
    """What the root depends on and what has side effects, operands first, in definition order where it is free."""
    wanted = {computation.root, *(i for i in computation.instructions if i.operator.side_effect)}
    order = computation.post_order()
    for instruction in reversed(order):
        if instruction in wanted:
            wanted.update(instruction.operands)
    return [instruction for instruction in order if instruction in wanted]


def _order_groups(order: list[Instruction], reasons: Reasons) -> list[Group]:
    """Groups of one side each, every group as large as its inputs allow; the start that gives fewer groups wins."""
    producers = {i: [leaf.source for leaf in operand_leaves(i) if leaf.source in reasons] for i in reasons}
    both = [_grow_groups(order, reasons, producers, start) for start in (True, False)]
    return _sink_moves(min(both, key=len))


def _sink_moves(groups: list[Group]) -> list[Group]:
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


def _grow_groups(order: list[Instruction], reasons: Reasons,
                 producers: dict[Instruction, list[Instruction]], on_device: bool) -> list[Group]:
    left = [i for i in order if i in reasons]
    done: set[Instruction] = set()
    groups: list[Group] = []
    while left:
        group, waiting = Group(on_device), []
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
