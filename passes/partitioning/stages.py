"""Cut the device regions of a plan into the stages of a pipeline, one a core.

Before: a plan for one core. After: the same work in the same order, each device region a chain of nodes on cores of its own:

  device0 (input0) -> output0            device0 on core 0 (input0) -> value1
                                         device1 on core 1 (value1) -> output0

The cut is exact over the order of the nodes: the longest stage is as short as any cut of that order makes it; among those the
one over whose borders the fewest bytes pass. A stage's time is that of its instructions with their weights on chip and of
streaming the weights that do not fit there; what crosses its borders is passed on meanwhile, and may take no longer. What
depends on weights alone, and what only rearranges a value, stays with its reader. A region is never joined with another: the
host runs between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nxcc.ir.diagnostics import PIPELINE, CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, clone_instruction
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.passes.cost import StageCosts
from nxcc.passes.partitioning.nodes import FREE, Group, Leaf, Node, Regions, leaf_bytes, leaves_of, operand_leaves
from nxcc.passes.partitioning.partition import Plan, aliases

ATOMS_MAX = 1024
"""Pieces between which a cut may fall: neighbours of longer graphs are joined first. Time and memory grow with the square."""

NEVER = np.int64(1) << 60
"""Ticks of what must not be."""

Numbers = NDArray[np.int64]


@dataclass
class Atom:
    """Instructions of a region that no cut separates; ticks with weights on chip, and bytes that these take there."""

    region: int
    members: list[Instruction]
    ticks: int
    resident: int


class Stages:
    """The ways to cut a plan.

    Asks the target's costs once; `learn` corrects them by what a cut turned out to take.
    """

    def __init__(self, plan: Plan, costs: StageCosts) -> None:
        self.whole = plan
        self.costs = costs
        self.resident_bytes = costs.resident_bytes
        self.atoms: list[Atom] = []
        for node in plan.nodes:
            if node.on_device:
                self.atoms += self._atoms(node)
        self._join_neighbours()
        self.crossing = self._crossing_bytes()

    @property
    def regions(self) -> int:
        """Device regions: the fewest stages there can be."""
        return len({atom.region for atom in self.atoms})

    def cut(self, count: int) -> tuple[int, ...]:
        """The number of atoms up to the end of each stage; CompileError(PIPELINE) if there are no such stages."""
        self._check(count)
        times = self._times()
        best = _least_maximum(times, count)
        return _least_crossing(times, count, best, self.crossing)

    def intervals(self, most: int) -> dict[int, int]:
        """Ticks of the longest stage of the best cut, by number of stages, as far as there are such cuts."""
        times = self._times()
        reach, found = times[0].copy(), {}
        for count in range(1, min(most, len(self.atoms)) + 1):
            if reach[-1] < NEVER:
                found[count] = int(reach[-1])
            reach = np.maximum(reach[:, None], times).min(axis=0)
        return found

    def divided(self, piece_bytes: int, resident_bytes: int) -> Stages:
        """The ways to cut if weights were in pieces no larger and a core had so much room for them, for times alone.

        piece_bytes: 0 for any.
        """
        found = copy(self)
        found.resident_bytes, found.atoms = resident_bytes, []
        crossing = [int(self.crossing[0])]
        for number, atom in enumerate(self.atoms):
            parts = max(1, -(-atom.resident // piece_bytes)) if piece_bytes else 1
            found.atoms += [Atom(atom.region, atom.members, atom.ticks // parts, atom.resident // parts)] * parts
            crossing += [max(crossing[-1], int(self.crossing[number + 1]))] * (parts - 1) + [int(self.crossing[number + 1])]
        found.crossing = np.array(crossing, np.int64)
        return found

    def predicted(self, ends: Sequence[int]) -> list[int]:
        """Ticks that each stage needs for a request of a stream."""
        return _picked(self._times(), ends)

    def work(self, ends: Sequence[int]) -> list[int]:
        """Ticks of each stage's own work."""
        return _picked(self._work(), ends)

    def learn(self, ends: Sequence[int], measured: Sequence[int]) -> None:
        """Scale the atoms of each stage so that its work takes what was measured."""
        rows = zip((0, *ends), ends, measured, self.work(ends), strict=False)
        for start, end, found, expected in rows:
            for atom in self.atoms[start:end]:
                atom.ticks = max(1, atom.ticks * found // max(expected, 1))

    def plan(self, module: Module, ends: Sequence[int]) -> Plan:
        """The plan of this cut. module: what the whole plan was made from."""
        values = dict(self.whole.values)
        nodes: list[Node] = []
        core = first = 0
        for node in self.whole.nodes:
            if not node.on_device:
                nodes.append(replace(node, name=f"host{len(nodes)}"))
                continue
            atoms = [atom for atom in self.atoms if atom.region == node.region]
            borders = [end - first for end in ends if first < end <= first + len(atoms)]
            groups = []
            for start, end in zip((0, *borders), borders, strict=False):
                members = [member for atom in atoms[start:end] for member in atom.members]
                groups.append(Group(True, members, node.region, core))
                core += 1
            nodes += Regions(node.module, node.inputs, node.outputs, values).nodes(groups, len(nodes))[0]
            first += len(atoms)
        plan = replace(self.whole, nodes=tuple(nodes), values=values)
        return replace(plan, aliases=aliases(module, nodes, values, plan.parameters, plan.results))

    def _check(self, count: int) -> None:
        if not self.atoms:
            raise CompileError(PIPELINE, "nothing of the module runs on the device", remedy="`nxcc check` lists the reasons")
        if count > len(self.atoms):
            raise CompileError(PIPELINE, f"{count} stages of a device graph of {len(self.atoms)} instructions",
                               remedy=f"--neuroncore-pipeline-cores {len(self.atoms)} at most")
        if count < self.regions:
            raise CompileError(PIPELINE, f"{count} stages for {self.regions} device regions",
                               why="each region between host parts needs a core of its own; `nxcc check` lists the host parts",
                               remedy=f"--neuroncore-pipeline-cores {self.regions} or more")

    # ---- atoms --------------------------------------------------------------------------------------------------

    def _atoms(self, node: Node) -> list[Atom]:
        """The atoms of a node in order; views and instructions on weights alone join the one that reads them first."""
        self._separate_views(node)
        weights = _Weights(node, self.costs)
        found: list[Atom] = []
        held: dict[Instruction, list[Instruction]] = {}
        for instruction in node.module.entry.post_order():
            if instruction.opcode in FREE:
                continue
            brought = [held.pop(leaf.source) for leaf in operand_leaves(instruction) if leaf.source in held]
            members = [*(member for row in brought for member in row), instruction]
            if weights.only(instruction) or (_is_view(instruction) and _readers(instruction)):
                held[instruction] = members
            else:
                found.append(self._atom(node, members))
        rest = [member for row in held.values() for member in row]
        if rest:
            found.append(self._atom(node, rest))
        return found

    def _separate_views(self, node: Node) -> None:
        """Give every reader of a view that costs nothing a view of its own: a border may then fall before it, and what passes
        is the value as it lies in memory."""
        entry = node.module.entry
        builder = Builder(entry)
        for view in reversed(entry.post_order()):
            if not _is_view(view) or self.costs.ticks(node.name, view.name):
                continue
            readers = _readers(view)
            for reader in readers if len(readers) < len(view.users) else readers[1:]:
                copy = entry.add(clone_instruction(view, view.operands, name=builder.unique_name(view.name)))
                entry.set_operands(reader, (copy if operand is view else operand for operand in reader.operands))

    def _atom(self, node: Node, members: list[Instruction]) -> Atom:
        names = [member.name for member in members]
        return Atom(node.region, members, sum(self.costs.ticks(node.name, name) for name in names),
                    sum(self.costs.needed_bytes(node.name, name) for name in names))

    def _join_neighbours(self) -> None:
        """Join pairs of neighbours, the cheapest first, until there are few enough."""
        while len(self.atoms) > ATOMS_MAX:
            pairs = [(one.ticks + other.ticks, index) for index, (one, other)
                     in enumerate(zip(self.atoms, self.atoms[1:], strict=False)) if one.region == other.region]
            if not pairs:
                return
            taken: set[int] = set()
            for _, index in sorted(pairs)[:len(self.atoms) - ATOMS_MAX]:
                if not taken & {index, index + 1}:
                    taken |= {index, index + 1}
                    one, other = self.atoms[index], self.atoms[index + 1]
                    self.atoms[index] = Atom(one.region, one.members + other.members, one.ticks + other.ticks,
                                             one.resident + other.resident)
                    other.members = []
            self.atoms = [atom for atom in self.atoms if atom.members]

    def _crossing_bytes(self) -> Numbers:
        """For each border between atoms the bytes made before it and read after it in the same region."""
        made: dict[Instruction, int] = {i: number for number, atom in enumerate(self.atoms) for i in atom.members}
        last: dict[Leaf, int] = {}
        for number, atom in enumerate(self.atoms):
            for member in atom.members:
                for leaf in operand_leaves(member):
                    if leaf.source in made:
                        last[leaf] = number
        for node in self.whole.nodes:
            for leaf in leaves_of(node.module.entry.root) if node.on_device else ():
                last.setdefault(leaf, made.get(leaf.source, -1))
        changes = np.zeros(len(self.atoms) + 2, np.int64)
        for leaf, number in last.items():
            start = made.get(leaf.source, -1)
            if 0 <= start < number:
                size = leaf_bytes(leaf)
                changes[start + 1] += size
                changes[number + 1] -= size
        return np.cumsum(changes)[:len(self.atoms) + 1]

    # ---- times --------------------------------------------------------------------------------------------------

    def _times(self) -> Numbers:
        """times[i, j]: ticks that a stage of the atoms i..j-1 needs for a request; NEVER where there is no such stage."""
        border = self.costs.handover_ticks(self.crossing)
        times: Numbers = np.maximum(self._work(), border[:, None])
        return times

    def _work(self) -> Numbers:
        """work[i, j]: ticks of the work of a stage of the atoms i..j-1; NEVER for an empty one and across regions."""
        count = len(self.atoms)
        ticks = np.concatenate(([0], np.cumsum([max(atom.ticks, 1) for atom in self.atoms], dtype=np.int64)))
        times = np.full((count + 1, count + 1), NEVER, np.int64)
        regions = np.array([atom.region for atom in self.atoms])
        needed = np.concatenate(([0], np.cumsum([atom.resident for atom in self.atoms], dtype=np.int64)))
        for start in range(count):
            end = start + int(np.searchsorted(regions[start:], regions[start], side="right"))
            streamed = np.maximum(needed[start + 1:end + 1] - needed[start] - self.resident_bytes, 0)
            times[start, start + 1:end + 1] = ticks[start + 1:end + 1] - ticks[start] + self.costs.stream_ticks(streamed)
        return times


class _Weights:
    """Which instructions of a node depend on weights alone: constants, and inputs that are declared weights."""

    def __init__(self, node: Node, costs: StageCosts) -> None:
        names = dict(zip(node.module.entry.parameters, node.inputs, strict=True))
        self.declared = {parameter: name for parameter, name in names.items() if costs.is_weight(name)}
        self._only: dict[Instruction, bool] = {}

    def only(self, instruction: Instruction) -> bool:
        """Whether the instruction's value depends on weights alone."""
        known = self._only.get(instruction)
        if known is None:
            sources = [leaf.source for leaf in operand_leaves(instruction)]
            known = self._only[instruction] = bool(sources) and all(
                source.opcode == "constant" or source in self.declared or self._only.get(source, False) for source in sources)
        return known


def _is_view(instruction: Instruction) -> bool:
    """Whether it only rearranges or repeats one operand, so that passing on its result is no cheaper."""
    operands = instruction.operands
    return instruction.operator.moves_data and len(operands) == 1 and instruction.shape.is_array \
        and instruction.shape.byte_size >= operands[0].shape.byte_size


def _readers(instruction: Instruction) -> list[Instruction]:
    return [user for user in instruction.users if user.opcode not in FREE]


def _picked(times: Numbers, ends: Sequence[int]) -> list[int]:
    return [int(times[start, end]) for start, end in zip((0, *ends), ends, strict=False)]


def _least_maximum(times: Numbers, count: int) -> int:
    """The shortest possible longest stage."""
    reach = times[0].copy()
    for _ in range(count - 1):
        reach = np.maximum(reach[:, None], times).min(axis=0)
    assert reach[-1] < NEVER, "the stages were counted before"
    return int(reach[-1])


def _least_crossing(times: Numbers, count: int, limit: int, crossing: Numbers) -> tuple[int, ...]:
    """Ends of stages none of which takes longer than the limit, with the fewest bytes over their borders."""
    cost = np.where(times <= limit, np.int64(0), NEVER)
    reach = cost[0].copy()
    came: list[Numbers] = []
    for _ in range(count - 1):
        total = np.minimum((reach + crossing)[:, None] + cost, NEVER)
        came.append(total.argmin(axis=0))
        reach = total.min(axis=0)
    ends = [len(times) - 1]
    for before in reversed(came):
        ends.append(int(before[ends[-1]]))
    return tuple(reversed(ends))
