"""Reads a serialized GraphDef into nodes and functions.

The wire format is walked down to the nodes. Small nodes are parsed by the protobuf library; of large ones the tensors are
cut out and stay where they are in the mapped file, so there is no limit of 2 GiB and no copy of any weight.
Source: GraphDef format reference, sections 2, 5, 6 and 7.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from typing import Any

from nxcc.ir.diagnostics import GRAPH_INVALID, CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.graphdef.datatypes import DataType, by_number
from nxcc.ir.graphdef.tensors import Strings, parse, read_tensor
from nxcc.ir.hlo.proto.wire import BYTES, VARINT, Buffer, Range, Record, WireError, corrupt, read_varint, records, split
from nxcc.ir.literals import Literal

CONSUMER_VERSION = 2474
"""The GraphDef version that nxcc reads: that of TensorFlow 2.21, whose operators the signatures are."""
SMALL_NODE_BYTES = 4096
MAX_DIGITS = 18
_NODES, _LIBRARY, _VERSION, _VERSIONS = 1, 2, 3, 4
_FUNCTIONS = 1
_NODE_NAME, _NODE_ATTR = 1, 5
_FUNCTION_NODES = 3
_KEY, _VALUE, _TENSOR = 1, 2, 8


class Node:
    """One node. inputs: edges as written. attributes: AttrValue messages by name, without large tensors.

    tensors: large tensors by attribute, read when they are asked for.
    """

    __slots__ = ("name", "op", "inputs", "attributes", "_data", "_tensors")

    def __init__(self, message: Any, data: Buffer, tensors: dict[str, Range]) -> None:
        self.name: str = message.name
        self.op: str = message.op
        self.inputs: tuple[str, ...] = tuple(message.input)
        self.attributes: Any = message.attr
        self._data = data
        self._tensors = tensors

    def tensor(self, attribute: str) -> Literal | Strings | None:
        """The value of a tensor attribute; None if the node has none."""
        place = self._tensors.get(attribute)
        if place is not None:
            return read_tensor(self._data, place, self.name)
        if attribute not in self.attributes or self.attributes[attribute].WhichOneof("value") != "tensor":
            return None
        content: bytes = self.attributes[attribute].tensor.SerializeToString()
        return read_tensor(content, (0, len(content)), self.name)

    def __repr__(self) -> str:
        return f"{self.name} = {self.op}({', '.join(self.inputs)})"


@dataclass
class Function:
    """A function of the library. inputs: argument names with types. results: by output name, the edge that gives it."""

    name: str
    inputs: tuple[tuple[str, DataType | None], ...]
    outputs: tuple[str, ...]
    nodes: dict[str, Node]
    results: dict[str, str]


@dataclass
class Graph:
    """A graph and its library. producer: GraphDef version of what wrote it."""

    name: str
    nodes: dict[str, Node] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    producer: int = 0


def whole_number(text: str) -> int | None:
    """What a port, a size or a start is written as; None if it is no number of up to 18 digits."""
    return int(text) if 0 < len(text) <= MAX_DIGITS and text.isdecimal() else None


def read_graph(data: Buffer, name: str, ranges: Iterable[Range] | None = None) -> Graph:
    """The graph in a buffer, or in some parts of it.

    Raises CompileError: PROTO_CORRUPT with the byte offset, GRAPH_INVALID naming the node.
    """
    places = [(0, len(data))] if ranges is None else list(ranges)
    try:
        return _Reader(data, name).read(places)
    except WireError as error:
        raise corrupt(error, name) from None


class _Reader:
    def __init__(self, data: Buffer, name: str) -> None:
        self.data = data
        self.graph = Graph(name)

    def read(self, places: list[Range]) -> Graph:
        for place in places:
            for record in records(self.data, *place):
                self._field(record)
        if not self.graph.nodes:
            raise CompileError(GRAPH_INVALID, "the graph has no nodes", self.graph.name)
        return self.graph

    def _field(self, record: Record) -> None:
        number, kind, start, end = record
        if number == _VERSION and kind == VARINT:
            self.graph.producer = self.graph.producer or read_varint(self.data, start, end)[0]
        elif kind == BYTES and number == _NODES:
            self._add(self.graph.nodes, self._node(start, end))
        elif kind == BYTES and number == _LIBRARY:
            for inner, inner_kind, at, stop in records(self.data, start, end):
                if (inner, inner_kind) == (_FUNCTIONS, BYTES):
                    self._function(at, stop)
        elif kind == BYTES and number == _VERSIONS:
            self._versions(parse("VersionDef", bytes(self.data[start:end]), self.graph.name))

    def _versions(self, message: Any) -> None:
        self.graph.producer = message.producer
        if message.min_consumer > CONSUMER_VERSION or CONSUMER_VERSION in message.bad_consumers:
            raise CompileError(GRAPH_INVALID, f"the graph needs GraphDef version {message.min_consumer} or forbids "
                               f"{CONSUMER_VERSION}", self.graph.name, why=f"nxcc reads versions up to {CONSUMER_VERSION}",
                               remedy="save it with an older TensorFlow")

    def _add(self, nodes: dict[str, Node], node: Node) -> None:
        if not node.name or not node.op:
            raise CompileError(GRAPH_INVALID, "a node has no name or no operator", node.name or self.graph.name)
        if node.name in nodes:
            raise CompileError(GRAPH_INVALID, f"two nodes are named {node.name!r}", node.name)
        nodes[node.name] = node

    def _node(self, start: int, end: int) -> Node:
        if end - start <= SMALL_NODE_BYTES:
            return Node(parse("NodeDef", bytes(self.data[start:end]), f"byte {start}"), self.data, {})
        rest, attributes = split(self.data, [(start, end)], frozenset((_NODE_ATTR,)))
        message = parse("NodeDef", rest, f"byte {start}")
        tensors: dict[str, Range] = {}
        for _, _, at, stop in attributes:
            self._attribute(message, tensors, at, stop)
        return Node(message, self.data, tensors)

    def _attribute(self, message: Any, tensors: dict[str, Range], start: int, end: int) -> None:
        """One entry of a large node's attributes; a large tensor is noted, not read."""
        key, value = "", (start, start)
        for number, kind, at, stop in records(self.data, start, end):
            if (number, kind) == (_KEY, BYTES):
                key = bytes(self.data[at:stop]).decode("utf-8", "replace")
            elif (number, kind) == (_VALUE, BYTES):
                value = (at, stop)
        inner = list(records(self.data, *value))
        found = [(at, stop) for number, kind, at, stop in inner if (number, kind) == (_TENSOR, BYTES)]
        if found and len(inner) == len(found):
            tensors[key] = found[-1]
        else:
            message.attr[key].CopyFrom(parse("AttrValue", bytes(self.data[slice(*value)]), message.name))

    def _function(self, start: int, end: int) -> None:
        rest, found = split(self.data, [(start, end)], frozenset((_FUNCTION_NODES,)))
        message = parse("FunctionDef", rest, f"byte {start}")
        name = message.signature.name
        nodes: dict[str, Node] = {}
        for _, _, at, stop in found:
            self._add(nodes, self._node(at, stop))
        inputs = tuple((a.name, by_number(a.type)) for a in message.signature.input_arg)
        outputs = tuple(a.name for a in message.signature.output_arg)
        self.graph.functions[name] = Function(name, inputs, outputs, nodes, dict(message.ret))
