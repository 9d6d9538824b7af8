"""Where instructions run that the device could take, in a module that has to be split anyway.

Two questions, in this order. The border: an instruction joins the host if that saves more of what crosses, in time, than the
host takes for it; a minimum cut finds the best of all borders. Products stay where they are. The regions: each that is left on
the device has a call of its own; one that the host does in less than its call, transfers and work joins the host, the worst
first. The region with most work stays: whoever compiles wants the device, and `check` shows what it gains. A module without
host parts is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field

import numpy as np

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction
from nxcc.passes.cost import PlacementCosts
from nxcc.passes.partitioning.nodes import FREE, Group, Leaf, leaf_bytes, operand_leaves

Reason = tuple[str, str]
"""Why an instruction is on the host, and the name of the instruction that the reason is about."""

Reasons = dict[Instruction, Reason | None]
"""In order; None for the device."""

Grouping = Callable[[Reasons], list[Group]]

BORDER = "on the host it saves transfers (--placement support leaves it on the device)"

TOTAL_MAX = 1 << 30
"""Of all capacities, so that a flow fits 32 bits."""


@dataclass(frozen=True)
class Placement:
    """How to place. costs: of the target; None places by support alone. weights: parameters that lie on both sides before a
    request starts. min_region: operations that a device region must have."""

    costs: PlacementCosts | None = None
    weights: Collection[Instruction] = field(default_factory=frozenset)
    min_region: int = 1


BY_SUPPORT = Placement()


def placed(reasons: Reasons, results: Sequence[Leaf], group: Grouping, how: Placement) -> tuple[Reasons, list[Group]]:
    """The reasons with those that are a choice added, and the groups that follow."""
    if how.costs is not None and any(reasons.values()) and not all(reasons.values()):
        reasons = _at_best_border(reasons, results, group, how.costs, how.weights)
        reasons = _without_poor_regions(reasons, results, group, how.costs, how.weights)
    return _without_small_regions(reasons, group, how.min_region)


def _without_small_regions(reasons: Reasons, group: Grouping, least: int) -> tuple[Reasons, list[Group]]:
    while True:
        groups = group(reasons)
        small = next((g for g in groups if g.on_device and operations(g.members) < least), None)
        if small is None:
            return reasons, groups
        words = f"its device region has {operations(small.members)} operations, --min-region asks for {least}"
        reasons = reasons | {member: (words, member.name) for member in small.members}


def operations(members: Sequence[Instruction]) -> int:
    """Operations, a fusion or call counting as what it holds."""
    count, left = 0, list(members)
    while left:
        instruction = left.pop()
        if instruction.opcode in ("fusion", "call"):
            left += instruction.called[0].instructions
        else:
            count += instruction.opcode not in FREE
    return count


# Regions


def _without_poor_regions(reasons: Reasons, results: Sequence[Leaf], group: Grouping, costs: PlacementCosts,
                          weights: Collection[Instruction]) -> Reasons:
    """Let regions join the host that do not pay for their calls and transfers, but for the one with most work."""
    while True:
        regions = [g.members for g in group(reasons) if g.on_device]
        work = [sum(costs.host(member) for member in members) for members in regions]
        if len(regions) < 2:
            return reasons
        largest = work.index(max(work))
        rows = []
        for number, members in enumerate(regions):
            moved = crossing(members, results, weights)
            device = costs.launch + costs.transfer(moved) + sum(costs.device(member) for member in members)
            rows.append((device - work[number], number, device, moved))
        gain, number, device, moved = max(row for row in rows if row[1] != largest)
        if gain <= 0:
            return reasons
        words = (f"its device region of {operations(regions[number])} operations takes {device / 1e3:.0f} us with its call and "
                 f"{moved} bytes to move, the host {work[number] / 1e3:.0f} us")
        reasons = reasons | {member: (words, member.name) for member in regions[number]}


def crossing(members: Sequence[Instruction], results: Sequence[Leaf], weights: Collection[Instruction]) -> int:
    """Bytes that a group reads from outside and that others read of it; constants and weights are where they are needed."""
    inside = set(members)
    read = {leaf for member in members for leaf in operand_leaves(member) if leaf.source not in inside}
    made = {leaf for leaf in results if leaf.source in inside}
    for member in members:
        for user in _readers(member):
            if user not in inside:
                made |= {leaf for leaf in operand_leaves(user) if leaf.source is member}
    return sum(leaf_bytes(leaf) for leaf in {*read, *made}
               if leaf.source.opcode != "constant" and leaf.source not in weights)


def _readers(instruction: Instruction) -> list[Instruction]:
    """Users behind tuples and their elements."""
    found, left = [], list(instruction.users)
    while left:
        user = left.pop()
        if user.opcode in ("tuple", "get-tuple-element"):
            left += user.users
        else:
            found.append(user)
    return found


# The border


def _at_best_border(reasons: Reasons, results: Sequence[Leaf], group: Grouping, costs: PlacementCosts,
                    weights: Collection[Instruction]) -> Reasons:
    """The reasons after the cut; if that left nothing on the device, the region with most work stays."""
    found = _Border(reasons, results, costs, weights).reasons()
    if all(found.values()):
        regions = [g.members for g in group(reasons) if g.on_device]
        largest = max(regions, key=lambda members: sum(costs.host(member) for member in members))
        found |= dict.fromkeys(largest)
    return found


def _holds_product(instruction: Instruction) -> bool:
    inside = instruction.called[0].instructions if instruction.opcode in ("fusion", "call") else (instruction,)
    return any(i.opcode in ("dot", "convolution") for i in inside)


class _Border:
    """A minimum cut: source side is the device, sink side the host."""

    def __init__(self, reasons: Reasons, results: Sequence[Leaf], costs: PlacementCosts,
                 weights: Collection[Instruction]) -> None:
        self.given = reasons
        self.number = {instruction: index + 2 for index, instruction in enumerate(reasons)}
        self.nodes = len(self.number) + 2
        self.edges: dict[tuple[int, int], int] = {}
        self.never: list[tuple[int, int]] = []
        for instruction, index in self.number.items():
            if reasons[instruction] is not None:
                self.never.append((index, _HOST))
            elif _holds_product(instruction):
                self.never.append((_DEVICE, index))
            else:
                self._edge(_DEVICE, index, costs.host(instruction))
        for leaf, readers in self._values(weights).items():
            self._value(leaf, readers, costs.transfer(leaf_bytes(leaf)), leaf in set(results))

    def _edge(self, start: int, end: int, ticks: int) -> None:
        self.edges[start, end] = self.edges.get((start, end), 0) + ticks

    def _values(self, weights: Collection[Instruction]) -> Mapping[Leaf, list[int]]:
        """Values that could cross, with who reads them."""
        found: dict[Leaf, list[int]] = {}
        for instruction, index in self.number.items():
            for leaf in dict.fromkeys(operand_leaves(instruction)):
                if leaf.source.opcode != "constant" and leaf.source not in weights:
                    found.setdefault(leaf, []).append(index)
        return found

    def _value(self, leaf: Leaf, readers: list[int], ticks: int, is_result: bool) -> None:
        """A value crosses once in each direction, however many read it there."""
        maker = self.number.get(leaf.source, _HOST)
        to_host, to_device = self.nodes, self.nodes + 1
        self.nodes += 2
        if maker != _HOST:
            self._edge(maker, to_host, ticks)
            self.never += [(to_host, reader) for reader in (*readers, *([_HOST] if is_result else []))]
        self._edge(to_device, maker, ticks)
        self.never += [(reader, to_device) for reader in readers]

    def reasons(self) -> Reasons:
        from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
        from scipy.sparse.csgraph import breadth_first_order, maximum_flow  # type: ignore[import-untyped]
        total = sum(self.edges.values()) + 1
        unit = -(-total // TOTAL_MAX)
        rows = {pair: -(-ticks // unit) for pair, ticks in self.edges.items() if ticks}
        rows |= dict.fromkeys(self.never, TOTAL_MAX)
        keys = np.array(list(rows), np.int64).reshape(len(rows), 2)
        capacity = csr_matrix((np.array(list(rows.values()), np.int32), (keys[:, 0], keys[:, 1])), shape=(self.nodes,) * 2)
        found = maximum_flow(capacity, _DEVICE, _HOST)
        rest = (capacity - found.flow).tocsr()
        rest.data[rest.data < 0] = 0
        rest.eliminate_zeros()
        # On the host is what can still send something there: at equal cost an instruction stays on the device.
        on_host = set(breadth_first_order(rest.T.tocsr(), _HOST, return_predecessors=False).tolist())
        return {instruction: self.given[instruction] or ((BORDER, instruction.name) if index in on_host else None)
                for instruction, index in self.number.items()}


_DEVICE, _HOST = 0, 1
