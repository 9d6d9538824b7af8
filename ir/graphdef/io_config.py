"""Inputs and outputs of a graph: the documented io-config, or what the graph itself says.

Form: {"inputs": {"name:0": [[1, 224, 224, 3], "float32"]}, "outputs": ["name:0"]}; the order of both is kept.
Source: CLI and NEFF reference, section 3.2.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from nxcc.ir.diagnostics import GRAPH_DYNAMIC, GRAPH_INVALID, IO_CONFIG, CompileError, near
from nxcc.ir.facts import dataclass
from nxcc.ir.graphdef.call import Attributes
from nxcc.ir.graphdef.datatypes import STRING, DataType, by_name, by_number
from nxcc.ir.graphdef.reader import Graph, Node, whole_number
from nxcc.ir.graphdef.signatures import Unranked, shape_value, signature
from nxcc.ir.shapes import Shape

OLD_SCALAR_PRODUCER = 21
"""Up to this GraphDef version a Placeholder whose shape has no dimensions says nothing about its shape."""
MAX_RANK = 32
MAX_SIZE = 2**40
PLACEHOLDERS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")
_NO_RESULT = frozenset(("Const", "Placeholder", "VarHandleOp", "VariableV2", "NextIteration"))

Tensor = tuple[str, int]
"""Node and port."""


@dataclass(frozen=True)
class Input:
    """A tensor that is fed. dims: None if only the graph knows them; -1 where unknown (from signatures of a SavedModel)."""

    tensor: Tensor
    dims: tuple[int, ...] | None = None
    kind: DataType | None = None


@dataclass(frozen=True)
class IoConfig:
    inputs: tuple[Input, ...]
    outputs: tuple[Tensor, ...]


def parse_io_config(text: str, source: str = "--io-config") -> IoConfig:
    """The io-config in a JSON text; CompileError(IO_CONFIG) if it departs from the documented form."""
    try:
        body = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise _wrong("it is not JSON", str(error), source) from None
    if not isinstance(body, dict) or set(body) != {"inputs", "outputs"}:
        raise _wrong("it must be an object with `inputs` and `outputs`", "", source)
    inputs, outputs = body["inputs"], body["outputs"]
    if not isinstance(inputs, dict):
        raise _wrong("`inputs` must map tensor names to [shape, dtype]", "", source)
    if not isinstance(outputs, list) or not outputs or not all(isinstance(name, str) for name in outputs):
        raise _wrong("`outputs` must be a list of at least one tensor name", "", source)
    return IoConfig(tuple(_input(name, row, source) for name, row in inputs.items()),
                    tuple(tensor_name(name, source) for name in outputs))


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _wrong(what: str, why: str, source: str) -> CompileError:
    return CompileError(IO_CONFIG, what, source, why=why,
                        remedy='as in {"inputs": {"x:0": [[1, 3], "float32"]}, "outputs": ["y:0"]}')


def _input(name: str, row: Any, source: str) -> Input:
    if not isinstance(row, list) or len(row) != 2 or not isinstance(row[0], list) or not isinstance(row[1], str):
        raise _wrong(f"input {name!r} must be [shape, dtype]", f"it is {json.dumps(row)[:60]}", source)
    dims, kind = row[0], by_name(row[1])
    if len(dims) > MAX_RANK or not all(type(size) is int and 0 <= size <= MAX_SIZE for size in dims):
        raise _wrong(f"input {name!r} has the shape {str(dims)[:60]}", "sizes must be whole numbers, not negative", source)
    if kind is None:
        raise _wrong(f"input {name!r} has the dtype {row[1]!r}, which TensorFlow does not have", "", source)
    return Input(tensor_name(name, source), tuple(dims), kind)


def tensor_name(name: str, source: str = "--io-config") -> Tensor:
    """`node:port`, or `node` for port 0."""
    node, colon, port = name.rpartition(":")
    if not colon:
        return name, 0
    number = whole_number(port)
    if number is None or not node:
        raise _wrong(f"{name!r} is no tensor name", "a tensor name is node:port", source)
    return node, number


# Against the graph


def complete(graph: Graph, config: IoConfig | None) -> tuple[list[tuple[Tensor, Shape]], list[Tensor]]:
    """Inputs with their shapes and outputs, checked against the graph, or taken from it if there is no config.

    Raises CompileError: IO_CONFIG for names, ranks, sizes and dtypes that are not the graph's, GRAPH_DYNAMIC for a
    dimension that neither knows.
    """
    if config is None:
        config = _of_graph(graph)
    for name, _ in (*(i.tensor for i in config.inputs), *config.outputs):
        if name not in graph.nodes:
            raise CompileError(IO_CONFIG, f"the graph has no node {name!r}", name, remedy=near(name, graph.nodes))
    return [(i.tensor, _shape(graph, i)) for i in config.inputs], list(config.outputs)


def _of_graph(graph: Graph) -> IoConfig:
    """Placeholders in the order of the graph, and what no other node reads."""
    read = {text.removeprefix("^").partition(":")[0] for node in graph.nodes.values() for text in node.inputs}
    outputs = [(node.name, port) for node in graph.nodes.values() if node.name not in read and node.op not in _NO_RESULT
               for port in range(_outputs(graph, node))]
    if not outputs:
        raise CompileError(IO_CONFIG, "the graph does not say what its outputs are", graph.name, remedy="give --io-config")
    needed = _needed(graph, [name for name, _ in outputs])
    inputs = tuple(Input((name, 0)) for name, node in graph.nodes.items() if node.op in PLACEHOLDERS and name in needed)
    return IoConfig(inputs, tuple(outputs))


def is_text(graph: Graph, tensor: Tensor) -> bool:
    """Whether a tensor of the graph holds strings."""
    node = graph.nodes[tensor[0]]
    row = signature(node.op)
    if row is None:
        return False
    kinds = Attributes(node, row).all_types(row.outputs)
    return tensor[1] < len(kinds) and kinds[tensor[1]].number == STRING


def _outputs(graph: Graph, node: Node) -> int:
    """How many outputs a node has that HLO can hold; one of an unknown operator, so that it is named when it is lowered."""
    row = signature(node.op)
    if row is None:
        return len(graph.functions[node.op].outputs) if node.op in graph.functions else 1
    kinds = Attributes(node, row).all_types(row.outputs)
    return len(kinds) if all(kind.dtype is not None for kind in kinds) else 0


def _needed(graph: Graph, names: Iterable[str]) -> set[str]:
    stack = list(names)
    seen = set(stack)
    while stack:
        node = graph.nodes.get(stack.pop())
        for text in node.inputs if node is not None else ():
            source = text.removeprefix("^").partition(":")[0]
            if source not in seen:
                seen.add(source)
                stack.append(source)
    return seen


def _shape(graph: Graph, given: Input) -> Shape:
    """The shape of an input: what is given, else what its placeholder declares."""
    name = given.tensor[0]
    node = graph.nodes[name]
    declared, kind = declaration(graph, node)
    if given.kind is not None and kind is not None and given.kind is not kind:
        raise CompileError(IO_CONFIG, f"the graph declares {name} as {kind}", name, why=f"io-config says {given.kind}")
    found = given.kind or kind
    if found is None or found.dtype is None:
        raise CompileError(IO_CONFIG, f"{name} cannot be an input", name,
                           why=f"its values are of type {found}" if found else "its type is not known without io-config")
    return Shape(found.dtype, _merge(name, given.dims, declared))


def _merge(name: str, given: tuple[int, ...] | None, declared: tuple[int, ...] | None) -> tuple[int, ...]:
    known = given if given is not None else declared
    if known is None:
        raise CompileError(GRAPH_DYNAMIC, f"the shape of input {name} is not known", name, remedy="give it in --io-config")
    if given is not None and declared is not None:
        if len(given) != len(declared) or any(-1 not in (a, b) and a != b for a, b in zip(given, declared, strict=True)):
            raise CompileError(IO_CONFIG, f"the graph declares {name} with the shape {list(declared)}", name,
                               why=f"io-config says {list(given)}")
        known = tuple(b if a < 0 else a for a, b in zip(given, declared, strict=True))
    if any(size < 0 for size in known):
        missing = ", ".join(str(d) for d, size in enumerate(known) if size < 0)
        what = f"dimensions {missing} of input {name} are" if "," in missing else f"dimension {missing} of input {name} is"
        raise CompileError(GRAPH_DYNAMIC, f"{what} not known", name,
                           why=f"its shape is {list(known)}", remedy="give the shape in --io-config")
    return known


def declaration(graph: Graph, node: Node) -> tuple[tuple[int, ...] | None, DataType | None]:
    """The shape and type that a placeholder declares; None for what it does not say."""
    if node.op not in PLACEHOLDERS:
        return None, None
    kind = by_number(node.attributes["dtype"].type) if "dtype" in node.attributes else None
    if "shape" not in node.attributes:
        return None, kind
    dims = shape_value(node.attributes["shape"].shape)
    if dims is Unranked or (dims == () and graph.producer <= OLD_SCALAR_PRODUCER):
        return None, kind
    if any(size < -1 for size in dims):
        raise CompileError(GRAPH_INVALID, f"the placeholder has the shape {list(dims)}", node.name)
    return dims, kind
