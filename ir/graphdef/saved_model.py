"""Reads a SavedModel folder: the graph for serving, its signatures, and its variables from the checkpoint.

Source: GraphDef format reference, section 10.
"""

from __future__ import annotations

import os
from dataclasses import field
from typing import Any

from nxcc.ir.diagnostics import GRAPH_INVALID, IO_CONFIG, CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.files import map_file
from nxcc.ir.graphdef.datatypes import by_number
from nxcc.ir.graphdef.io_config import Input, IoConfig, tensor_name
from nxcc.ir.graphdef.naming import graph_name
from nxcc.ir.graphdef.reader import Graph, read_graph
from nxcc.ir.graphdef.signatures import Unranked, shape_value
from nxcc.ir.graphdef.tensors import parse
from nxcc.ir.graphdef.variables import read_variables
from nxcc.ir.hlo.proto.wire import BYTES, Buffer, Range, WireError, corrupt, records, split
from nxcc.ir.literals import Literal

SERVING = "serve"
DEFAULT_SIGNATURE = "serving_default"
_META_GRAPHS, _GRAPH = 2, 2
_INTERNAL = "__saved_model_"


@dataclass
class SavedModel:
    """A graph with its variables by node name and the signatures that it offers."""

    graph: Graph
    variables: dict[str, Literal] = field(default_factory=dict)
    signatures: dict[str, IoConfig] = field(default_factory=dict)

    def signature(self, name: str = "") -> IoConfig:
        """The signature of a name; without one, the default, or the only one. CompileError(IO_CONFIG) if there is none."""
        if not name:
            name = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in self.signatures else "".join(list(self.signatures)[:1])
            if len(self.signatures) > 1 and name != DEFAULT_SIGNATURE:
                name = ""
        found = self.signatures.get(name)
        if found is None:
            raise CompileError(IO_CONFIG, f"the SavedModel has no signature {name!r}" if name else "which signature is meant?",
                               self.graph.name, why=f"it has {', '.join(sorted(self.signatures)) or 'none'}",
                               remedy="give --signature, or --io-config")
        return found


def is_saved_model(path: str) -> bool:
    """True if a path is a folder that holds a SavedModel."""
    return any(os.path.isfile(os.path.join(path, name)) for name in ("saved_model.pb", "saved_model.pbtxt"))


def read_saved_model(folder: str) -> SavedModel:
    """The model in a folder.

    Raises CompileError: FILE_UNREADABLE, PROTO_CORRUPT, GRAPH_INVALID, CHECKPOINT.
    """
    path = os.path.join(folder, "saved_model.pb")
    data: Buffer
    if os.path.isfile(path):
        data = map_file(path)
    else:
        path += "txt"
        from nxcc.ir.graphdef.text import binary_of
        data = memoryview(binary_of(bytes(map_file(path)), "SavedModel", path))
    name = graph_name(folder)
    try:
        return _read(data, folder, name)
    except WireError as error:
        raise corrupt(error, path) from None


def _read(data: Buffer, folder: str, name: str) -> SavedModel:
    chosen = [_meta_graph(data, (start, end), name) for number, kind, start, end in records(data, 0, len(data))
              if (number, kind) == (_META_GRAPHS, BYTES)]
    serving = [row for row in chosen if SERVING in row[0].meta_info_def.tags] or (chosen if len(chosen) == 1 else [])
    if not serving:
        tags = ", ".join("+".join(m.meta_info_def.tags) for m, _ in chosen) or "none"
        raise CompileError(GRAPH_INVALID, f"the SavedModel has no graph tagged {SERVING!r}", name, why=f"its graphs: {tags}")
    meta, ranges = serving[0]
    graph = read_graph(data, name, ranges)
    signatures = {key: _signature(row) for key, row in sorted(meta.signature_def.items()) if not key.startswith(_INTERNAL)}
    return SavedModel(graph, read_variables(graph, meta, folder), signatures)


def _meta_graph(data: Buffer, place: Range, name: str) -> tuple[Any, list[Range]]:
    rest, found = split(data, [place], frozenset((_GRAPH,)))
    return parse("MetaGraphDef", rest, name), [(start, end) for _, _, start, end in found]


def _signature(message: Any) -> IoConfig:
    """Inputs and outputs in the order of their keys, since a protobuf map has none of its own."""
    inputs = []
    for _, info in sorted(message.inputs.items()):
        dims = shape_value(info.tensor_shape)
        inputs.append(Input(tensor_name(info.name, "signature"), None if dims is Unranked else dims, by_number(info.dtype)))
    outputs = [tensor_name(info.name, "signature") for _, info in sorted(message.outputs.items()) if info.dtype]
    return IoConfig(tuple(inputs), tuple(outputs))
