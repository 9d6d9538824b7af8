"""Walks the nodes that some outputs need, in order, and lowers each by its rule.

A scope is one body of nodes (the graph, or a function) emitted into one computation: calls open another scope on the same
computation, branches and loop bodies one on another. The walk keeps its own stack, so graphs may be deep; functions nest
at most MAX_FUNCTION_DEPTH.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from functools import cached_property
from typing import TYPE_CHECKING

from nxcc.ir.diagnostics import GRAPH_INVALID, GRAPH_OPERATOR, LIMIT_EXCEEDED, CompileError, near
from nxcc.ir.facts import dataclass
from nxcc.ir.graphdef.call import Attributes, Call
from nxcc.ir.graphdef.changes import Changes
from nxcc.ir.graphdef.constants import Constants
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.loose import Loose, Settled
from nxcc.ir.graphdef.reader import Function, Graph, Node, whole_number
from nxcc.ir.graphdef.recording import fit_into_lists, is_step, record
from nxcc.ir.graphdef.registry import find_partial_rule, find_rule
from nxcc.ir.graphdef.shape_functions.registry import find_loose
from nxcc.ir.graphdef.signatures import Signature, known_names, signature
from nxcc.ir.graphdef.tables import Contents, contents_of
from nxcc.ir.graphdef.values import Value, Variable
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.operator import ShapeError
from nxcc.ir.literals import Literal
from nxcc.ir.location import Location

if TYPE_CHECKING:
    from nxcc.ir.graphdef.frames import Frames

MAX_FUNCTION_DEPTH = 60
PASSING = frozenset(("PartitionedCall", "StatefulPartitionedCall", "IdentityN", "Assert", "Print", "PrintV2", "NoOp"))
"""Operators that hand inputs on or drop them, whatever these are."""

NEARLY = 0.8
"""How alike a name must be to be proposed for an unknown one."""

Edge = tuple[str, int]
"""A node's name and the number of one of its outputs."""


@dataclass
class World:
    """What all scopes of one lowering share. variables: values of a checkpoint by the name of their node; has_texts: whether
    strings are fed."""

    graph: Graph
    variables: dict[str, Literal] = field(default_factory=dict)
    constants: Constants = field(default_factory=Constants)
    frames: dict[int, Frames] = field(default_factory=dict)
    settled: Settled = field(default_factory=Settled)
    has_texts: bool = False

    @cached_property
    def tables(self) -> dict[str, Contents]:
        return contents_of(self.graph)

    @cached_property
    def changes(self) -> Changes:
        return Changes(self.graph)


class Scope:
    """values: results of the nodes lowered so far, by name. arguments: of the function, by name."""

    def __init__(self, world: World, emit: Emitter, function: Function | None = None, prefix: str = "",
                 depth: int = 0) -> None:
        self.world = world
        self.emit = emit
        self.function = function
        self.nodes = world.graph.nodes if function is None else function.nodes
        self.prefix = prefix
        self.depth = depth
        self.values: dict[str, Sequence[Value | None]] = {}
        self.arguments: dict[str, Value] = {}
        self._edges: dict[str, tuple[Edge, ...]] = {}
        if depth > MAX_FUNCTION_DEPTH:
            raise CompileError(LIMIT_EXCEEDED, f"functions call each other more than {MAX_FUNCTION_DEPTH} deep", prefix)

    @property
    def constants(self) -> Constants:
        return self.world.constants

    def inside(self, emit: Emitter) -> Scope:
        """A scope over the same nodes in another computation, with nothing lowered yet."""
        return Scope(self.world, emit, self.function, self.prefix, self.depth + 1)

    def full_name(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    # Edges

    def parse_edge(self, text: str, reader: str) -> Edge:
        """The node and port that an edge names; an argument of the function is a node of its own."""
        name, _, rest = text.partition(":")
        if name not in self.nodes and name not in self.arguments:
            raise CompileError(GRAPH_INVALID, f"{reader} reads {name!r}, which is no node of the graph", self.full_name(reader))
        if self.function is not None and ":" in rest:
            output, _, index = rest.partition(":")
            return name, self._port(name, output, index)
        port = whole_number(rest or "0")
        if port is None:
            raise CompileError(GRAPH_INVALID, f"{reader} reads {text[:60]!r}, which names no output", self.full_name(reader))
        return name, port

    def _port(self, name: str, output: str, index: str) -> int:
        """The number of `output:index` among all outputs of a node in a function."""
        node = self.nodes[name]
        row = signature(node.op)
        before = 0
        if row is None:
            called = self.world.graph.functions.get(node.op)
            if called is not None and output in called.outputs:
                return called.outputs.index(output)
        else:
            attributes = Attributes(node, row)
            for argument in row.outputs:
                if argument.name == output and (number := whole_number(index)) is not None:
                    return before + number
                before += len(attributes.types(argument))
        raise CompileError(GRAPH_INVALID, f"{node.op} has no output {f'{output}:{index}'[:60]!r}", self.full_name(name))

    def data_edges(self, name: str) -> tuple[Edge, ...]:
        """The data inputs of a node; control edges only order and are dropped."""
        found = self._edges.get(name)
        if found is None:
            node = self.nodes[name]
            found = tuple(self.parse_edge(text, name) for text in node.inputs if not text.startswith("^"))
            self._edges[name] = found
        return found

    # The walk

    def lower(self, edges: Sequence[Edge], reader: str = "") -> list[Value]:
        """The values of some outputs, lowering whatever they need."""
        self._walk([name for name, _ in edges])
        return [self.value(edge, reader) for edge in edges]

    def value(self, edge: Edge, reader: str = "") -> Value:
        """The value of an output that has been lowered."""
        name, port = edge
        if name in self.arguments:
            return self.arguments[name]
        results = self.values[name]
        if port >= len(results):
            raise CompileError(GRAPH_INVALID, f"output {port} of {name!r} does not exist", self.full_name(reader or name),
                               why=f"{self.nodes[name].op} has {len(results)} outputs")
        value = results[port]
        if value is None:
            raise CompileError(GRAPH_INVALID, f"output {port} of {name!r} has no value here", self.full_name(reader or name),
                               why="it belongs to a branch or loop that is not taken")
        return value

    def _walk(self, names: Sequence[str]) -> None:
        stack = list(reversed(names))
        opened: set[str] = set()
        while stack:
            name = stack[-1]
            if name in self.values or name in self.arguments:
                stack.pop()
                continue
            missing = [d for d in self._dependencies(name) if d not in self.values and d not in self.arguments]
            if not missing:
                self._lower_node(self.nodes[name])
                stack.pop()
            elif name in opened:
                raise CompileError(GRAPH_INVALID, f"{name!r} depends on itself", self.full_name(name),
                                   why="only a NextIteration may close a cycle")
            else:
                opened.add(name)
                stack.extend(reversed(missing))

    def _dependencies(self, name: str) -> list[str]:
        from nxcc.ir.graphdef.frames import SPECIAL, frames_of
        if self.nodes[name].op in SPECIAL:
            return frames_of(self).dependencies(self, name)
        return [source for source, _ in self.data_edges(name)]

    def _lower_node(self, node: Node) -> None:
        from nxcc.ir.graphdef.frames import SPECIAL, frames_of
        self.emit.builder.location = Location(op_type=node.op, op_name=self.full_name(node.name))
        try:
            if node.op in SPECIAL:
                frames_of(self).lower(self, node)
            else:
                self.values[node.name] = self._results(node)
        except ShapeError as error:
            raise CompileError(GRAPH_INVALID, f"the inputs of {node.op} do not fit together", self.full_name(node.name),
                               why=str(error)) from None

    def _results(self, node: Node) -> Sequence[Value | None]:
        inputs = [self.value(edge, node.name) for edge in self.data_edges(node.name)]
        self._check_variables(node, inputs)
        if node.op in self.world.graph.functions:
            return self.call_function(node.op, inputs, node.name)
        found = find_rule(node.op)
        row = signature(node.op)
        if row is None or (found is None and find_loose(node.op) is None):
            raise self._no_rule(node, row)
        call = Call(node, row, self, inputs)
        call.check()
        call.refuse_strings()
        loose = find_loose(node.op)
        if loose is not None and (found is None or is_step(call, loose)):
            return record(call, loose)
        assert found is not None
        if node.op not in PASSING:
            fit_into_lists(call)
            call.settle()
        if self.constants.counts and (partial := find_partial_rule(node.op)) is not None and call.is_partial():
            found = partial
        result = found(call)
        return result if isinstance(result, Sequence) else (result,)

    def _check_variables(self, node: Node, inputs: Sequence[Value]) -> None:
        for (name, _), value in zip(self.data_edges(node.name), inputs, strict=True):
            changed = self.world.changes.before(self.nodes, node.name, name) if isinstance(value, Variable) else None
            if changed is not None:
                raise CompileError(GRAPH_OPERATOR, f"{name!r} is used after {changed.op} changed it", self.full_name(node.name),
                                   why=f"{changed.name!r} runs before; a compiled graph holds no state from run to run",
                                   remedy="export the model for inference, without the change")

    def _no_rule(self, node: Node, row: Signature | None) -> CompileError:
        from nxcc.ir.graphdef.unsupported import reason
        where = self.full_name(node.name)
        why = reason(node.op)
        if why or row is not None:
            return CompileError(GRAPH_OPERATOR, f"{node.op} cannot be compiled", where,
                                why=why or "there is no lowering for it",
                                remedy="end the graph before it, or begin after it, with --io-config")
        return CompileError(GRAPH_OPERATOR, f"{node.op} cannot be compiled", where,
                            why="there is no lowering for it, and the library has no function of that name",
                            remedy=near(node.op, known_names(), NEARLY) or "end the graph before it with --io-config")

    # Functions

    def call_function(self, name: str, inputs: Sequence[Value], caller: str, emit: Emitter | None = None) -> list[Value]:
        """Inline a function of the library: its results for these arguments, in order."""
        function = self.world.graph.functions.get(name)
        if function is None:
            raise CompileError(GRAPH_INVALID, f"the graph's library has no function {name!r}", self.full_name(caller))
        if len(function.inputs) != len(inputs):
            raise CompileError(GRAPH_INVALID, f"{name} takes {len(function.inputs)} arguments, {len(inputs)} are given",
                               self.full_name(caller))
        inner = Scope(self.world, emit or self.emit, function, self.full_name(caller), self.depth + 1)
        inner.arguments = {argument: value for (argument, _), value in zip(function.inputs, inputs, strict=True)}
        location = inner.emit.builder.location
        edges = [inner.result_edge(output) for output in function.outputs]
        values = [inner.settled(value) for value in inner.lower(edges)]
        inner.emit.builder.location = location
        return values

    def arrays(self, edges: Sequence[Edge]) -> list[Value]:
        """The values of outputs that have been lowered, as they may leave the computation."""
        return [self.settled(self.value(edge)) for edge in edges]

    def lower_arrays(self, edges: Sequence[Edge]) -> list[Value]:
        """The values of some outputs, lowering whatever they need, as they may leave the computation."""
        self.lower(edges)
        return self.arrays(edges)

    def settled(self, value: Value) -> Value:
        """A value whose size is known as an array, so that it may leave the computation."""
        if isinstance(value, Loose) and value.is_fixed:
            return self.world.settled.array(self.emit, value, self.prefix)
        return value

    def result_edge(self, output: str) -> Edge:
        assert self.function is not None
        text = self.function.results.get(output)
        if text is None:
            raise CompileError(GRAPH_INVALID, f"{self.function.name} gives no value to its output {output!r}", self.prefix)
        return self.parse_edge(text, output)

    # For messages

    def source_of(self, instruction: Instruction) -> str:
        """The names of the inputs that a value depends on."""
        names: dict[str, None] = {}
        seen = {instruction}
        stack = [instruction]
        while stack:
            top = stack.pop()
            if top.opcode in ("parameter", "rng", "rng-bit-generator"):
                names[top.location.op_name or top.name] = None
            fresh = [o for o in top.operands if o not in seen]
            seen.update(fresh)
            stack.extend(fresh)
        return ", ".join(sorted(names)) or "the graph"


