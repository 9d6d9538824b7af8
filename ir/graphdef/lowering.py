"""GraphDef to HLO: a graph, its inputs and outputs become an ordinary Module.

Parameters stand in the order of the inputs, the result is the output, or a tuple of them; behind them stand counts of those
whose size depends on values (`nxcc.ir.hlo.counted`). Weights become constants over the mapped file. Every instruction carries
the operator and name of the node that it came from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nxcc.ir.diagnostics import GRAPH_INVALID, GRAPH_OPERATOR, CompileError
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.io_config import IoConfig, complete, is_text
from nxcc.ir.graphdef.loose import Loose, unknown_size
from nxcc.ir.graphdef.naming import module_name
from nxcc.ir.graphdef.reader import Graph, Node
from nxcc.ir.graphdef.scope import Scope, World
from nxcc.ir.graphdef.signatures import Unranked, shape_value
from nxcc.ir.graphdef.values import Partial, Value
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.counted import Counted, declare_counted
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.texts import declare_texts
from nxcc.ir.literals import Literal
from nxcc.ir.location import Location

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.\-]")


def lower_graph(graph: Graph, config: IoConfig | None = None, variables: dict[str, Literal] | None = None) -> Module:
    """The module that computes the outputs of a graph.

    config: inputs and outputs; None where the graph says it all. variables: values of a checkpoint by node name.
    Raises CompileError naming the node: GRAPH_INVALID, GRAPH_OPERATOR, GRAPH_DYNAMIC, IO_CONFIG, LIMIT_EXCEEDED.
    """
    inputs, outputs = complete(graph, config)
    texts = [number for number, (tensor, _) in enumerate(inputs) if is_text(graph, tensor)]
    module = Module(module_name(graph.name))
    entry = module.add(Computation("main"), entry=True)
    builder = Builder(entry)
    scope = Scope(World(graph, variables or {}, has_texts=bool(texts)), Emitter(builder, {}))
    for number, ((name, port), shape) in enumerate(inputs):
        builder.location = Location(op_type=graph.nodes[name].op, op_name=name)
        made = builder.parameter(number, shape, hlo_name(name, port))
        fed = dict(enumerate(scope.values.get(name, ()))) | {port: made}
        scope.values[name] = [fed.get(k) for k in range(max(fed) + 1)]
    values = [scope.settled(value) for value in scope.lower(outputs, "io-config")]
    _check_output_shapes(graph, scope)
    results = _results(module, [name for name, _ in outputs], values)
    declare_texts(module, texts, [number for number, tensor in enumerate(outputs) if is_text(graph, tensor)])
    entry.root = results[0] if len(results) == 1 else builder.tuple(*results)
    for computation in module.reachable():
        remove_unused(computation)
    module.computations = module.reachable()
    return module


def hlo_name(name: str, port: int = 0) -> str:
    """A node's name as HLO names may be."""
    plain = _NOT_IN_NAMES.sub("_", name)
    if not plain or not (plain[0].isalpha() or plain[0] == "_"):
        plain = f"_{plain}"
    return f"{plain}_{port}" if port else plain


def _results(module: Module, names: Sequence[str], values: Sequence[Value]) -> list[Instruction]:
    """What the module gives: the outputs, and behind them the counts of those whose size depends on values."""
    results = [_result(name, value) for name, value in zip(names, values, strict=True)]
    counts: dict[Instruction, int] = {}
    rows = []
    for number, value in enumerate(values):
        if isinstance(value, Partial):
            rows.append(Counted(number, value.axis, counts.setdefault(value.count, len(results) + len(counts))))
    declare_counted(module, rows)
    return [*results, *counts]


def _result(name: str, value: Value) -> Instruction:
    if isinstance(value, Partial):
        return value.items
    if isinstance(value, Loose):
        raise unknown_size(value, name)
    if not isinstance(value, Instruction):
        raise CompileError(GRAPH_OPERATOR, f"output {name!r} is no array", name, why="HLO has no form for its values",
                           remedy="name another tensor as output")
    return value


def remove_unused(computation: Computation) -> None:
    """Drop what the root does not need; parameters stay."""
    needed = {computation.root}
    stack = [computation.root]
    while stack:
        fresh = [o for o in stack.pop().operands if o not in needed]
        needed.update(fresh)
        stack.extend(fresh)
    for instruction in reversed(list(computation.instructions)):
        if instruction not in needed and instruction.opcode != "parameter":
            computation.remove(instruction)


def _check_output_shapes(graph: Graph, scope: Scope) -> None:
    """TensorFlow refuses a node whose `_output_shapes` contradict what its inputs give; so do we."""
    for name, results in scope.values.items():
        node = graph.nodes[name]
        if "_output_shapes" in node.attributes:
            for message, value in zip(node.attributes["_output_shapes"].list.shape, results, strict=False):
                if isinstance(value, Instruction):
                    _check_output_shape(node, shape_value(message), value)


def _check_output_shape(node: Node, declared: object, value: Instruction) -> None:
    if declared is Unranked or not isinstance(declared, tuple):
        return
    dims = value.shape.dims
    if len(declared) != len(dims) or any(a not in (-1, b) for a, b in zip(declared, dims, strict=True)):
        raise CompileError(GRAPH_INVALID, f"_output_shapes of {node.op} says {list(declared)}", node.name,
                           why=f"its inputs give {list(dims)}", remedy="remove the attribute, or freeze the graph again")
