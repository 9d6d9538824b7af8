"""Lookup tables of a graph: which constants fill which table.

A table is filled by a node of its own, in the graph or in a function that the graph calls to begin with (as SavedModels have
them); it counts if its keys and values are constants. Tables that are filled from files, or while the model runs, have no
contents here.
"""

from __future__ import annotations

from collections.abc import Mapping

from nxcc.ir.facts import dataclass
from nxcc.ir.graphdef.reader import Graph, Node
from nxcc.ir.graphdef.tensors import Strings
from nxcc.ir.literals import Literal

FILLERS = frozenset(("LookupTableImportV2", "InitializeTableV2"))
"""Operators that take a table, keys and values."""
TABLES = frozenset(("HashTableV2",))
MAX_DEPTH = 4
"""Of calls from the graph to what fills a table."""
_CALLS = frozenset(("PartitionedCall", "StatefulPartitionedCall"))


@dataclass(frozen=True, eq=False)
class Contents:
    """Keys and values, as many as each other."""

    keys: Literal | Strings
    values: Literal | Strings

    @property
    def size(self) -> int:
        return len(self.keys.values) if isinstance(self.keys, Strings) else self.keys.shape.element_count


def contents_of(graph: Graph) -> dict[str, Contents]:
    """The contents of tables by the name of their node."""
    found: dict[str, Contents] = {}
    _search(graph, graph.nodes, {}, found, 0)
    return found


def _search(graph: Graph, nodes: Mapping[str, Node], arguments: Mapping[str, Node], found: dict[str, Contents],
            depth: int) -> None:
    """Through the nodes of a body. arguments: nodes of the graph that stand for the arguments of a function."""
    for node in nodes.values():
        given = [_source(nodes, arguments, text) for text in node.inputs if not text.startswith("^")]
        if node.op in FILLERS and len(given) == 3:
            table, keys, values = given
            if table is not None and keys is not None and values is not None and table.op in TABLES:
                _note(table, keys, values, found)
        elif depth < MAX_DEPTH and node.op in _CALLS | graph.functions.keys():
            name = node.attributes["f"].func.name if node.op in _CALLS and "f" in node.attributes else node.op
            function = graph.functions.get(name)
            if function is not None:
                inner = {argument: source for (argument, _), source in zip(function.inputs, given, strict=False)
                         if source is not None}
                _search(graph, function.nodes, inner, found, depth + 1)


def _source(nodes: Mapping[str, Node], arguments: Mapping[str, Node], text: str) -> Node | None:
    """The node that an edge comes from, through operators that pass their input on."""
    for _ in range(len(nodes) + 1):
        name = text.partition(":")[0]
        node = arguments.get(name) or nodes.get(name)
        if node is None or node.op != "Identity" or not node.inputs:
            return node
        text = node.inputs[0]
    return None


def _note(table: Node, keys: Node, values: Node, found: dict[str, Contents]) -> None:
    if keys.op == values.op == "Const":
        row = keys.tensor("value"), values.tensor("value")
        if row[0] is not None and row[1] is not None:
            found[table.name] = Contents(row[0], row[1])
