"""Control flow as TF1 wrote it: loops from Enter, Merge, Switch, NextIteration and Exit, branches from Switch and Merge.

A loop is found by its frame's name and lowered whole when one of its Exits is reached. A branch is what lies between the
Switches on one predicate and the Merge that joins its two sides; which side a node belongs to follows from the Switches
above it, by data and by control edges. Source: GraphDef format reference, section 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING

import numpy as np

from nxcc.ir.diagnostics import GRAPH_INVALID, CompileError
from nxcc.ir.dtypes import PRED
from nxcc.ir.facts import dataclass
from nxcc.ir.graphdef.call import MAX_TENSORS
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.loops import Body, branch_number, lower_branches, lower_while, truth
from nxcc.ir.graphdef.reader import Node
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.module import Instruction

if TYPE_CHECKING:
    from nxcc.ir.graphdef.scope import Edge, Scope

SPECIAL = frozenset(("Switch", "_SwitchN", "Merge", "Enter", "Exit", "NextIteration", "RefSwitch", "RefMerge", "RefEnter",
                     "RefExit", "RefNextIteration"))
_SWITCHES = frozenset(("Switch", "RefSwitch", "_SwitchN"))
_INPUTS = {"Switch": 2, "_SwitchN": 2, "Enter": 1, "Exit": 1, "NextIteration": 1, "LoopCond": 1, "Identity": 1}
"""Operators that the analysis walks through, and how many data inputs they have."""
_FORWARDING = frozenset(("Identity", "LoopCond", "Enter", "RefEnter"))

Guard = tuple[str, int]
"""A predicate (the name of the node that computes it) and the side of a Switch on it."""


@dataclass
class Variable:
    """A variable of a loop, by the names of its nodes. exits: may be empty if nobody reads it afterwards."""

    enter: str
    merge: str
    next: str
    switches: list[str] = field(default_factory=list)
    exits: list[str] = field(default_factory=list)


@dataclass
class Loop:
    name: str
    condition: str = ""
    variables: list[Variable] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Branch:
    """One side of a Merge: the edge that gives its value, Switches that bring data in, other edges from outside."""

    result: Edge
    switches: tuple[str, ...]
    outside: tuple[Edge, ...]


def frames_of(scope: Scope) -> Frames:
    """The control flow of a scope's nodes, analysed once."""
    known = scope.world.frames
    found = known.get(id(scope.nodes))
    if found is None:
        found = known[id(scope.nodes)] = Frames(scope)
    return found


class Frames:
    def __init__(self, scope: Scope) -> None:
        self.nodes = scope.nodes
        self.loops: dict[str, Loop] = {}
        self.loop_of_exit: dict[str, Loop] = {}
        self.loop_nodes: dict[str, Variable] = {}
        self._guards: dict[str, frozenset[Guard]] = {}
        self._merges: dict[str, tuple[str, list[Branch]]] = {}
        self._numbered: dict[str, int] = {}
        """Values that choose among sides by number, with how many there are."""
        self._find_loops(scope)
        for node in self.nodes.values():
            if node.op == "_SwitchN":
                self._numbered[self.predicate(scope, node.name)] = _sides(node, scope)

    # Loops

    def _find_loops(self, scope: Scope) -> None:
        readers: dict[str, list[Node]] = {}
        for node in self.nodes.values():
            count = _INPUTS.get(node.op.removeprefix("Ref"))
            given = len(scope.data_edges(node.name)) if count is not None else None
            if given != count:
                raise CompileError(GRAPH_INVALID, f"{node.op} takes {count} inputs, {given} are given",
                                   scope.full_name(node.name))
            if node.op.removeprefix("Ref") in ("Merge", "Switch", "Exit"):
                for source, _ in scope.data_edges(node.name):
                    readers.setdefault(source, []).append(node)
        for node in self.nodes.values():
            if node.op in ("Enter", "RefEnter"):
                self._enter(scope, node, readers)

    def _enter(self, scope: Scope, node: Node, readers: dict[str, list[Node]]) -> None:
        name = node.attributes["frame_name"].s.decode("utf-8", "replace")
        loop = self.loops.setdefault(name, Loop(name))
        merges = [m for m in readers.get(node.name, ()) if m.op in ("Merge", "RefMerge")]
        if not merges:
            loop.constants.append(node.name)
            return
        merge = merges[0]
        others = [source for source, _ in scope.data_edges(merge.name) if source != node.name]
        if len(others) != 1 or self.nodes[others[0]].op not in ("NextIteration", "RefNextIteration"):
            raise CompileError(GRAPH_INVALID, "a loop's Merge must join an Enter and a NextIteration", merge.name)
        variable = Variable(node.name, merge.name, others[0])
        for switch in readers.get(merge.name, ()):
            if switch.op in ("Switch", "RefSwitch"):
                variable.switches.append(switch.name)
                loop.condition = loop.condition or scope.data_edges(switch.name)[1][0]
                variable.exits += [e.name for e in readers.get(switch.name, ()) if e.op in ("Exit", "RefExit")]
        loop.variables.append(variable)
        self.loop_nodes |= dict.fromkeys((merge.name, *variable.switches), variable)
        self.loop_of_exit |= dict.fromkeys(variable.exits, loop)

    def _loop_inputs(self, scope: Scope, loop: Loop) -> list[Edge]:
        return [scope.data_edges(name)[0] for name in (*(v.enter for v in loop.variables), *loop.constants)]

    def _lower_loop(self, scope: Scope, loop: Loop) -> None:
        if not loop.condition:
            raise CompileError(GRAPH_INVALID, "the loop has no condition", loop.name)
        edges = self._loop_inputs(scope, loop)
        values = scope.arrays(edges)
        count = len(loop.variables)
        fixed = [self._unchanged(scope, v) for v in loop.variables] + [True] * len(loop.constants)

        def within(emit: Emitter, inside: list[Value]) -> Scope:
            inner = scope.inside(emit)
            for variable, value in zip(loop.variables, inside[:count], strict=True):
                inner.values[variable.merge] = (value, None)
                inner.values |= dict.fromkeys(variable.switches, (value, value))
            for name, value in zip(loop.constants, inside[count:], strict=True):
                inner.values[name] = (value,)
            return inner

        def body(emit: Emitter, inside: list[Value]) -> list[Value]:
            results = [scope.data_edges(v.next)[0] for v in loop.variables]
            return [*within(emit, inside).lower_arrays(results), *inside[count:]]

        def condition(emit: Emitter, inside: list[Value]) -> Value:
            return within(emit, inside).lower_arrays([(loop.condition, 0)])[0]

        after = lower_while(scope, values, fixed, condition, body, loop.name)
        for variable, value in zip(loop.variables, after[:count], strict=True):
            scope.values |= dict.fromkeys(variable.exits, (value,))

    def _unchanged(self, scope: Scope, variable: Variable) -> bool:
        """True if what goes round is what came in."""
        name = scope.data_edges(variable.next)[0][0]
        for _ in range(len(self.nodes)):
            if name in variable.switches:
                return True
            if self.nodes[name].op != "Identity":
                return False
            name = scope.data_edges(name)[0][0]
        return False

    # Which side of which branches a node belongs to

    def _reads(self, scope: Scope, name: str) -> list[Edge]:
        """What a node depends on in its own frame: an Exit on what enters its loop, a loop's Merge on its Enter."""
        if name in self.loop_of_exit:
            return self._loop_inputs(scope, self.loop_of_exit[name])
        if name in self.loop_nodes:
            return [scope.data_edges(self.loop_nodes[name].enter)[0]]
        return list(scope.data_edges(name))

    def predicate(self, scope: Scope, switch: str) -> str:
        name = scope.data_edges(switch)[1][0]
        while self.nodes[name].op in _FORWARDING and scope.data_edges(name)[0][0] in self.nodes:
            name = scope.data_edges(name)[0][0]
        return name

    def _is_branch_switch(self, name: str) -> bool:
        return self.nodes[name].op in _SWITCHES and name not in self.loop_nodes

    def _edge_guards(self, scope: Scope, edge: Edge) -> frozenset[Guard]:
        name, port = edge
        if name not in self.nodes:
            return frozenset()
        found = self._guards[name]
        return found | {(self.predicate(scope, name), port)} if self._is_branch_switch(name) else found

    def guards(self, scope: Scope, name: str) -> frozenset[Guard]:
        """The sides that must be taken for a node to have a value."""
        known = self._guards
        stack = [name]
        opened: set[str] = set()
        while stack:
            top = stack[-1]
            if top in known:
                stack.pop()
                continue
            edges = self._guard_edges(scope, top)
            missing = [source for source, _ in edges if source in self.nodes and source not in known]
            if missing and top not in opened:
                opened.add(top)
                stack.extend(missing)
                continue
            known[top] = self._combine(scope, top, [e for e in edges if e[0] not in self.nodes or e[0] in known])
            stack.pop()
        return known[name]

    def _guard_edges(self, scope: Scope, name: str) -> list[Edge]:
        controls = [(text[1:], 0) for text in self.nodes[name].inputs if text.startswith("^") and text[1:] in self.nodes]
        controls = [edge for edge in controls if not self._is_branch_switch(edge[0])]
        return [*self._reads(scope, name), *controls]

    def _combine(self, scope: Scope, name: str, edges: Sequence[Edge]) -> frozenset[Guard]:
        found = [self._edge_guards(scope, edge) for edge in edges]
        if self.nodes[name].op in ("Merge", "RefMerge") and name not in self.loop_nodes:
            return frozenset.intersection(*found) if found else frozenset()
        return frozenset().union(*found)

    # Branches

    def _merge(self, scope: Scope, name: str) -> tuple[str, list[Branch]]:
        """The predicate of a Merge, and its branches: the true one first, or by number."""
        found = self._merges.get(name)
        if found is None:
            found = self._merges[name] = self._find_branches(scope, name)
        return found

    def _find_branches(self, scope: Scope, name: str) -> tuple[str, list[Branch]]:
        edges = scope.data_edges(name)
        self.guards(scope, name)
        found = [self._edge_guards(scope, edge) for edge in edges]
        for predicate, _ in sorted(found[0]) if found else ():
            ports = [next((port for guard, port in guards if guard == predicate), -1) for guards in found]
            if sorted(ports) == list(range(self._numbered.get(predicate, 2))):
                # the side of a Switch for false has number 0
                pairs = sorted(zip(ports, edges, strict=True), reverse=predicate not in self._numbered)
                return predicate, [self._branch(scope, edge, (predicate, side)) for side, edge in pairs]
        raise CompileError(GRAPH_INVALID, "the Merge does not join the two sides of one Switch", scope.full_name(name))

    def _branch(self, scope: Scope, result: Edge, guard: Guard) -> Branch:
        """What lies on one side: walked from its result back to the Switches on the predicate."""
        switches: dict[str, None] = {}
        outside: dict[Edge, None] = {}
        seen = {result}
        stack = [result]
        while stack:
            edge = stack.pop()
            name = edge[0]
            if name in self.nodes and self._is_branch_switch(name) and self.predicate(scope, name) == guard[0]:
                switches[name] = None
            elif name not in self.nodes or guard not in self.guards(scope, name):
                outside[edge] = None
            else:
                fresh = [e for e in self._reads(scope, name) if e not in seen]
                seen.update(fresh)
                stack.extend(fresh)
        return Branch(result, tuple(sorted(switches)), tuple(sorted(outside)))

    def _lower_merge(self, scope: Scope, name: str) -> None:
        predicate, branches = self._merge(scope, name)
        numbered = predicate in self._numbered
        value = scope.arrays([(predicate, 0)])[0]
        selector = branch_number(scope.emit, value, name) if numbered else truth(scope.emit, value, name)
        edges = self._captured(scope, branches)
        values = scope.arrays(edges)
        results = lower_branches(scope, selector, values, [self._body(scope, b, edges) for b in branches], name)
        scope.values[name] = (results[0], self._value_index(scope, name, branches, selector))

    def _captured(self, scope: Scope, branches: Sequence[Branch]) -> list[Edge]:
        """Edges into either branch: data of its Switches, and what it reads from outside."""
        found: dict[Edge, None] = {}
        for branch in branches:
            found |= dict.fromkeys(scope.data_edges(name)[0] for name in branch.switches)
            found |= dict.fromkeys(branch.outside)
        return list(found)

    def _body(self, scope: Scope, branch: Branch, edges: Sequence[Edge]) -> Body:
        def lower(emit: Emitter, inside: list[Value]) -> list[Value]:
            inner = scope.inside(emit)
            values = dict(zip(edges, inside, strict=True))
            for name, port in branch.outside:
                row = [*inner.values.get(name, ()), *[None] * (port + 1)]
                row[port] = values[name, port]
                inner.values[name] = row
            for name in branch.switches:
                inner.values[name] = self._passed_on(scope, name, values[scope.data_edges(name)[0]])
            return inner.lower_arrays([branch.result])
        return lower

    def _value_index(self, scope: Scope, name: str, branches: Sequence[Branch], selector: Instruction) -> Instruction:
        """The port of the input that was taken: 0 for the first."""
        e, edges = scope.emit, scope.data_edges(name)
        places = [edges.index(branch.result) for branch in branches]
        if selector.shape.dtype is PRED:
            return e.select(selector, e.index(places[0]), e.index(places[1]))
        inside = e.clamp(selector, 0, len(places) - 1)
        out = e.compare(selector, inside, "NE")  # as a conditional does, what has no branch takes the last
        return e.take(e.constant(np.array(places, np.int32)), e.select(out, e.index(len(places) - 1), inside), 0)

    def _passed_on(self, scope: Scope, switch: str, value: Value) -> tuple[Value, ...]:
        """The results of a Switch, all of whose sides are looked at."""
        return (value,) * self._numbered.get(self.predicate(scope, switch), 2)

    # What the walk asks

    def dependencies(self, scope: Scope, name: str) -> list[str]:
        op = self.nodes[name].op.removeprefix("Ref")
        if op == "Merge" and name not in self.loop_nodes:
            predicate, branches = self._merge(scope, name)
            return [predicate, *(source for source, _ in self._captured(scope, branches))]
        if op == "Exit":
            return [source for source, _ in self._reads(scope, name)]
        return [source for source, _ in scope.data_edges(name)]

    def lower(self, scope: Scope, node: Node) -> None:
        op = node.op.removeprefix("Ref")
        if op == "Exit":
            loop = self.loop_of_exit.get(node.name)
            if loop is None:
                raise CompileError(GRAPH_INVALID, "the Exit belongs to no loop", scope.full_name(node.name))
            self._lower_loop(scope, loop)
        elif op == "Merge" and node.name not in self.loop_nodes:
            self._lower_merge(scope, node.name)
        elif op in _SWITCHES:
            scope.values[node.name] = self._passed_on(
                scope, node.name, scope.settled(scope.value(scope.data_edges(node.name)[0], node.name)))
        else:
            raise CompileError(GRAPH_INVALID, f"{node.op} stands outside the loop that it belongs to",
                               scope.full_name(node.name))


def _sides(node: Node, scope: Scope) -> int:
    """How many results a _SwitchN has."""
    count = node.attributes["num_outs"].i if "num_outs" in node.attributes else 0
    if not 0 < count <= MAX_TENSORS:
        raise CompileError(GRAPH_INVALID, f"the attribute 'num_outs' is {count}", scope.full_name(node.name))
    return count
