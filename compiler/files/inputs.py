"""Opens a model file of any format that nxcc reads; the content decides which it is, never the name.

Read: HLO text; HloModuleProto, HloProto, HloSnapshot and HloUnoptimizedSnapshot, of which only the module counts, binary or in
protobuf's text form; TensorFlow's GraphDef, binary or text, and SavedModel folders; each file also inside gzip.
Everything else is an error that says what the file looks like and how to get from there to HLO.
"""

from __future__ import annotations

import os
import re
import zlib
from typing import TYPE_CHECKING

from nxcc.compiler.files.recognition import (
    CONTROL,
    FOREIGN,
    FOREIGN_PROTOBUF,
    GRAPH,
    GRAPH_TEXT,
    GZIP,
    HEAD_BYTES,
    HLO_TEXT,
    PROTO_TEXT,
    TO_HLO,
    protobuf_kind,
)
from nxcc.ir.diagnostics import (
    EMPTY_INPUT,
    FILE_UNREADABLE,
    LIMIT_EXCEEDED,
    PROTO_CORRUPT,
    TEXT_SYNTAX,
    UNKNOWN_FORMAT,
    USAGE,
    CompileError,
)
from nxcc.ir.facts import dataclass
from nxcc.ir.files import map_file
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.proto.framing import holds_module
from nxcc.ir.hlo.proto.reader import read_module
from nxcc.ir.hlo.proto.schema import message_type
from nxcc.ir.hlo.proto.wire import is_message
from nxcc.ir.streams import shown

if TYPE_CHECKING:
    from nxcc.ir.graphdef.io_config import IoConfig

MAX_INFLATED_BYTES = 256 << 20
"""Of a gzip file: what is larger should be given as it is, so that it can be mapped."""
MAX_TEXT_NESTING = 100
MAX_IO_CONFIG_BYTES = 64 << 20
XLA, TENSORFLOW = "XLA", "TENSORFLOW"


@dataclass(frozen=True, slots=True)
class GraphRequest:
    """What a user says about a TensorFlow graph.

    framework: TENSORFLOW says that a file is a graph even where its content leaves it open, XLA that it is none.
    io_config: a file, or the JSON text itself. signature: of a SavedModel; the default one if empty.
    """

    framework: str = ""
    io_config: str = ""
    signature: str = ""


def read_model(path: str, graph: GraphRequest | None = None) -> Module:
    """The module in a file or SavedModel folder; `-` is the standard input. graph: for TensorFlow graphs.

    Raises CompileError: FILE_UNREADABLE, EMPTY_INPUT, UNKNOWN_FORMAT, and whatever the reader of the format raises.
    """
    request = graph or GraphRequest()
    if os.path.isdir(path):
        return _read_folder(path, request)
    data, name = map_file(path), shown(path)
    if data[:2] == GZIP:
        data = memoryview(_inflate(data, name))
    if not len(data):
        raise CompileError(EMPTY_INPUT, f"{name} holds no bytes", remedy="give HLO text or a serialized HLO module")
    return _read(data, name, request)


def _read_folder(path: str, request: GraphRequest) -> Module:
    from nxcc.ir.graphdef.lowering import lower_graph
    from nxcc.ir.graphdef.saved_model import is_saved_model, read_saved_model
    if not is_saved_model(path):
        raise CompileError(FILE_UNREADABLE, f"cannot read {path}", why="it is a folder without a saved_model.pb",
                           remedy="give a model file, or the folder of a SavedModel")
    _refuse_graph(path, request)
    model = read_saved_model(path)
    if request.io_config and request.signature:
        raise CompileError(USAGE, "--io-config and --signature exclude each other", why="both say what goes in and out")
    config = _io_config(request) if request.io_config else model.signature(request.signature)
    return lower_graph(model.graph, config, model.variables)


def _read_graph(data: memoryview, name: str, request: GraphRequest) -> Module:
    from nxcc.ir.graphdef.lowering import lower_graph
    from nxcc.ir.graphdef.naming import graph_name
    from nxcc.ir.graphdef.reader import read_graph
    _refuse_graph(name, request)
    if request.signature:
        raise CompileError(USAGE, f"{name} has no signatures", why="only SavedModel folders have", remedy="give --io-config")
    return lower_graph(read_graph(data, graph_name(name)), _io_config(request))


def _io_config(request: GraphRequest) -> IoConfig | None:
    """The io-config as given: JSON if it starts like an object, else a file; None if there is none."""
    from nxcc.ir.graphdef.io_config import parse_io_config
    if not request.io_config:
        return None
    return parse_io_config(*_io_config_text(request.io_config))


def _io_config_text(given: str) -> tuple[str, str]:
    """The JSON of an --io-config, and where it stands."""
    if given.lstrip().startswith("{"):
        return given, "--io-config"
    return bytes(map_file(given)[:MAX_IO_CONFIG_BYTES]).decode("utf-8", "replace"), given


def recorded_io_config(given: str) -> str:
    """What an --io-config says, in one form and without its path: equal ones give equal NEFFs, wherever they lie."""
    import json
    return json.dumps(json.loads(_io_config_text(given)[0]), separators=(",", ":"), ensure_ascii=False) if given else ""


def _unknown(name: str, looks_like: str, remedy: str) -> CompileError:
    return CompileError(UNKNOWN_FORMAT, f"{name} is neither HLO nor a TensorFlow graph", why=f"it looks like {looks_like}",
                        remedy=remedy)


def _inflate(data: memoryview, name: str) -> bytes:
    """The content of a gzip file: all its members, as gunzip gives them."""
    content = bytearray()
    while bytes(data[:2]) == GZIP:
        inflater = zlib.decompressobj(wbits=31)
        try:
            content += inflater.decompress(data, MAX_INFLATED_BYTES + 1 - len(content))
        except zlib.error as error:
            raise CompileError(PROTO_CORRUPT, f"the gzip file {name} is damaged", why=str(error)) from None
        if len(content) > MAX_INFLATED_BYTES:
            raise CompileError(LIMIT_EXCEEDED, f"{name} inflates to more than {MAX_INFLATED_BYTES} bytes",
                               remedy="unpack it first")
        if not inflater.eof:
            raise CompileError(PROTO_CORRUPT, f"the gzip file {name} is truncated", f"{name}: byte {len(data)}")
        data = memoryview(inflater.unused_data)
    if bytes(data).strip(b"\0"):
        raise CompileError(PROTO_CORRUPT, f"the gzip file {name} is damaged", why=f"{len(data)} bytes follow its end")
    return bytes(content)


def _read(data: memoryview, name: str, request: GraphRequest) -> Module:
    head = bytes(data[:HEAD_BYTES])
    is_text = not CONTROL.search(head)
    if is_text and GRAPH_TEXT.match(head):
        from nxcc.ir.graphdef.text import binary_of
        return _read_graph(memoryview(binary_of(bytes(data), "GraphDef", name)), name, request)
    if request.framework == TENSORFLOW and not is_text and (protobuf_kind(data) == GRAPH or not holds_module(data)):
        return _read_graph(data, name, request)
    return _read_other(data, head, name, request)


def _read_other(data: memoryview, head: bytes, name: str, request: GraphRequest) -> Module:
    for foreign in FOREIGN:
        if foreign.is_it(head):
            raise _unknown(name, foreign.name, foreign.remedy)
    if not CONTROL.search(head):
        if PROTO_TEXT.match(head) or HLO_TEXT.match(head):
            _refuse_graph_options(name, request)
        return _read_text(data, head, name)
    kind = protobuf_kind(data)
    if kind == GRAPH:
        return _read_graph(data, name, request)
    if kind:
        raise _unknown(name, kind, FOREIGN_PROTOBUF[kind])
    if head[0] != 0x0A and not is_message(data, 0, len(data)) and not holds_module(data):
        raise _unknown(name, f"binary data that starts with {head[:8].hex(' ')}", TO_HLO)
    _refuse_graph_options(name, request)
    return read_module(data, name=name)


def _refuse_graph(name: str, request: GraphRequest) -> None:
    """CompileError(USAGE) for a graph that is said to be HLO."""
    if request.framework == XLA:
        raise CompileError(USAGE, f"{name} is a TensorFlow graph, not HLO", why="--framework XLA was given",
                           remedy="give --framework TENSORFLOW, or leave it out")


def _refuse_graph_options(name: str, request: GraphRequest) -> None:
    """CompileError(USAGE) if what was said about a TensorFlow graph would be passed over."""
    given = {"--io-config": request.io_config, "--signature": request.signature,
             "--framework TENSORFLOW": request.framework == TENSORFLOW}
    said = [flag for flag, value in given.items() if value]
    if said:
        raise CompileError(USAGE, f"{name} is HLO, not a TensorFlow graph", why=f"{' and '.join(said)} would have no meaning",
                           remedy="leave it out, or give the graph")


def _read_text(data: memoryview, head: bytes, name: str) -> Module:
    if PROTO_TEXT.match(head):
        return _read_proto_text(bytes(data), name)
    if not HLO_TEXT.match(head) and head.strip():
        first = head.split(b"\n")[0][:40].decode("utf-8", "replace")
        raise _unknown(name, f"text that starts with {first!r}", "HLO text starts with HloModule, ENTRY or `name {`")
    from nxcc.ir.hlo.text.reader import read_text
    return read_text(bytes(data), name=name)


# Text form of protobuf


def _read_proto_text(content: bytes, name: str) -> Module:
    """A module in protobuf's text form, by way of its binary form."""
    from google.protobuf import text_format
    found = PROTO_TEXT.match(content)
    assert found is not None
    kinds = {b"name": "HloModuleProto", b"hlo_": "HloProto"}
    message = message_type(kinds.get(found[1][:4], "HloSnapshot"))()
    text = content.decode("utf-8", "replace")
    _check_nesting(text, name)
    try:
        text_format.Parse(text, message, allow_unknown_field=True)
    except text_format.ParseError as error:
        where = f"{name}:{error.GetLine()}:{error.GetColumn()}" if error.GetLine() else name
        raise CompileError(TEXT_SYNTAX, "the protobuf text does not parse", where, why=str(error)) from None
    return read_module(message.SerializeToString(), name=name)


_TEXT_TOKEN = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|#[^\n]*|[{}<>]")


def _check_nesting(text: str, name: str) -> None:
    depth = 0
    for token in _TEXT_TOKEN.finditer(text):
        depth += {"{": 1, "<": 1, "}": -1, ">": -1}.get(token.group(), 0)
        if depth > MAX_TEXT_NESTING:
            raise CompileError(LIMIT_EXCEEDED, f"messages nest more than {MAX_TEXT_NESTING} deep", name)
