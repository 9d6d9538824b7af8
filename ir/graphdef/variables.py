"""The variables of a SavedModel, read from its checkpoint.

Which checkpoint key holds which variable is told in two places. The restore part of the graph has a RestoreV2 that names the
keys, and assignments of its results to variables. Where a signature captures variables that this part does not restore, the
object graphs of model and checkpoint tell: a function's captures are objects, and an object has the same path from the root
in both. Source: GraphDef format reference, section 10.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from nxcc.ir.diagnostics import FILE_UNREADABLE, CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.graphdef.checkpoint import Bundle, Region, damaged
from nxcc.ir.graphdef.reader import Graph, Node, whole_number
from nxcc.ir.graphdef.tensors import Strings, parse
from nxcc.ir.literals import Literal

_VARIABLES = ("VarHandleOp", "VariableV2", "Variable")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a value is: a checkpoint key, and which part of a partitioned variable; None for the whole."""

    key: str
    region: Region | None = None


def read_variables(graph: Graph, meta: Any, folder: str) -> dict[str, Literal]:
    """Values by the name of the variable's node, read from the checkpoint where there is one.

    meta: a MetaGraphDef. Raises CompileError: FILE_UNREADABLE, CHECKPOINT.
    """
    prefix = os.path.join(folder, "variables", "variables")
    nodes = [node.name for node in graph.nodes.values() if node.op in _VARIABLES]
    if not nodes:
        return {}
    if not os.path.isfile(f"{prefix}.index"):
        raise CompileError(FILE_UNREADABLE, f"cannot read {prefix}.index", why="the graph has variables, but no checkpoint",
                           remedy="give the whole SavedModel folder")
    bundle = Bundle(prefix)
    places = _restored(graph, meta)
    if any(name not in places and name not in bundle.entries for name in nodes):
        places = _captured(graph, meta.object_graph_def, bundle) | places
    found = {}
    for name in nodes:
        place = places.get(name, Stored(name))
        if place.key in bundle.entries:
            found[name] = bundle.value(place.key, place.region)
        elif name in places:
            raise damaged(bundle.path, f"it has no value for {place.key!r}")
    return found


def _plain(edge: str) -> str:
    return edge.removeprefix("^").partition(":")[0]


# The restore part of the graph


def _restored(graph: Graph, meta: Any) -> dict[str, Stored]:
    places = dict(_assignments(graph.nodes, {}))
    restore = graph.nodes.get(meta.saver_def.restore_op_name.partition(":")[0])
    if restore is not None and "f" in restore.attributes:
        function = graph.functions.get(restore.attributes["f"].func.name)
        if function is not None:
            arguments = {name: _plain(edge) for (name, _), edge in zip(function.inputs, restore.inputs, strict=False)}
            places |= dict(_assignments(function.nodes, arguments))
    return places


def _assignments(nodes: Mapping[str, Node], arguments: Mapping[str, str]) -> Iterator[tuple[str, Stored]]:
    """Variable nodes with their places, from what assigns a result of a RestoreV2."""
    for node in nodes.values():
        if node.op in ("Assign", "AssignVariableOp") and len(node.inputs) >= 2:
            place = _restored_from(nodes, node.inputs[1])
            if place is not None:
                target = _plain(node.inputs[0])
                yield arguments.get(target, target), place


def _restored_from(nodes: Mapping[str, Node], edge: str) -> Stored | None:
    """The place of a value, following Identity up to a RestoreV2; None if it comes from elsewhere."""
    for _ in range(len(nodes) + 1):
        node = nodes.get(_plain(edge))
        if node is None:
            return None
        if node.op == "RestoreV2":
            return _result_of_restore(nodes, node, edge.rpartition(":")[2])
        if node.op != "Identity" or not node.inputs:
            return None
        edge = node.inputs[0]
    return None


def _result_of_restore(nodes: Mapping[str, Node], restore: Node, port: str) -> Stored | None:
    number = whole_number(port) or 0
    key, part = _text(nodes, restore, 1, number), _text(nodes, restore, 2, number)
    return Stored(key, _region(part)) if key else None


def _text(nodes: Mapping[str, Node], node: Node, argument: int, number: int) -> str:
    """One of the strings that an argument consists of; empty if it is no constant or has not so many."""
    source = nodes.get(_plain(node.inputs[argument])) if len(node.inputs) > argument else None
    value = source.tensor("value") if source is not None else None
    if not isinstance(value, Strings) or number >= len(value.values):
        return ""
    return value.values[number].decode("utf-8", "replace")


def _region(text: str) -> Region | None:
    """The part that shape_and_slices names: `6 3 0,3:-` is rows 0 to 2 of a tensor of 6 x 3."""
    *dims, parts = text.split(" ")
    rows = parts.split(":")
    if not dims or len(rows) != len(dims):
        return None
    found = []
    for size, row in zip(dims, rows, strict=True):
        start, _, length = row.partition(",")
        first, count = map(whole_number, ("0", size) if row == "-" else (start, length))
        if first is None or count is None:
            return None
        found.append((first, count))
    return tuple(found)


# The object graphs


def _captured(graph: Graph, saved: Any, bundle: Bundle) -> dict[str, Stored]:
    """Variable nodes that calls in the graph pass to functions as captures, the last arguments, with their places."""
    if _OBJECT_GRAPH not in bundle.entries:
        return {}
    stored = parse("TrackableObjectGraph", bundle.text(_OBJECT_GRAPH), bundle.path)
    keys = _keys_of_objects(saved, stored)
    found = {}
    for node in graph.nodes.values():
        if node.op in _CALLS and "f" in node.attributes:
            captures = saved.concrete_functions[node.attributes["f"].func.name].bound_inputs
            data = [edge for edge in node.inputs if not edge.startswith("^")]
            for edge, number in zip(data[len(data) - len(captures):], captures, strict=False):
                if number in keys:
                    found[_plain(edge)] = Stored(keys[number])
    return found


def _keys_of_objects(saved: Any, stored: Any) -> dict[int, str]:
    """Checkpoint keys of the model's objects, by their number: both graphs are walked along the same names."""
    keys: dict[int, str] = {}
    todo = deque([(0, 0)] if saved.nodes and stored.nodes else [])
    seen = set(todo)
    while todo:
        own, other = todo.popleft()
        for attribute in stored.nodes[other].attributes:
            if attribute.name == _VALUE:
                keys.setdefault(own, attribute.checkpoint_key)
        names = {child.local_name: child.node_id for child in stored.nodes[other].children}
        for child in saved.nodes[own].children:
            pair = (child.node_id, names.get(child.local_name, -1))
            if pair not in seen and 0 <= pair[0] < len(saved.nodes) and 0 <= pair[1] < len(stored.nodes):
                seen.add(pair)
                todo.append(pair)
    return keys
