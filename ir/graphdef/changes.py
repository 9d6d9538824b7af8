"""Which uses of a variable come after a change of it in the same run: a compiled graph holds no state, so they are refused.

What only changes a variable for the next run, as a training step or a counter does, is no part of the result and is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from nxcc.ir.graphdef.reader import Function, Graph, Node

_CHANGES = re.compile(r"Assign\w*VariableOp|Resource(Sparse)?Apply|ResourceScatter|ResourceStridedSliceAssign")


class Changes:
    """Answers for one graph, and remembers what it found in it and in each function of its library."""

    def __init__(self, graph: Graph) -> None:
        self.functions = graph.functions
        self._functions: dict[str, bool] = {}
        self._in: dict[int, frozenset[str]] = {}

    def before(self, nodes: Mapping[str, Node], reader: str, variable: str) -> Node | None:
        """A node that certainly runs before `reader`, by data or control edges, and changes what `variable` is the name of."""
        changing = self._changing(nodes)
        if not changing:
            return None
        stack, seen = [reader], {reader}
        while stack:
            fresh = [name for edge in nodes[stack.pop()].inputs
                     if (name := _plain(edge)) in nodes and name not in seen]
            for name in fresh:
                if name in changing and variable in map(_plain, nodes[name].inputs):
                    return nodes[name]
            seen.update(fresh)
            stack.extend(fresh)
        return None

    def _changing(self, nodes: Mapping[str, Node]) -> frozenset[str]:
        found = self._in.get(id(nodes))
        if found is None:
            found = self._in[id(nodes)] = frozenset(node.name for node in nodes.values() if self._is_change(node))
        return found

    def _is_change(self, node: Node) -> bool:
        return bool(_CHANGES.match(node.op)) or any(self._changes_within(name) for name in _called(node))

    def _changes_within(self, name: str) -> bool:
        """Whether a function, or one that it calls, changes a variable."""
        known = self._functions
        if name not in known:
            known[name] = False  # a function that calls itself does not change more than its other nodes do
            function = self.functions.get(name)
            known[name] = function is not None and self._any_change(function)
        return known[name]

    def _any_change(self, function: Function) -> bool:
        return any(self._is_change(node) for node in function.nodes.values())


def _plain(edge: str) -> str:
    return edge.removeprefix("^").partition(":")[0]


def _called(node: Node) -> Iterator[str]:
    for value in node.attributes.values():
        kind = value.WhichOneof("value")
        if kind == "func":
            yield value.func.name
        elif kind == "list":
            yield from (function.name for function in value.list.func)
