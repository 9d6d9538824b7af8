"""Opens a model file of any format that nxcc reads; the content decides which it is, never the name.

Read: HLO text; HloModuleProto, HloProto and HloSnapshot, binary or in protobuf's text form; TensorFlow's GraphDef, binary or
text, and SavedModel folders; each file also inside gzip.
Everything else is an error that says what the file looks like and how to get from there to HLO.
"""

from __future__ import annotations

import os
import re
import sys
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

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
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.proto.reader import map_file, read_module, read_stream
from nxcc.ir.hlo.proto.schema import message_type
from nxcc.ir.hlo.proto.wire import BYTES, VARINT, WireError, is_message, records

if TYPE_CHECKING:
    from nxcc.ir.graphdef.io_config import IoConfig

STDIN = "-"
MAX_INFLATED_BYTES = 256 << 20
"""Of a gzip file: what is larger should be given as it is, so that it can be mapped."""
MAX_TEXT_NESTING = 100
MAX_IO_CONFIG_BYTES = 64 << 20
_HEAD_BYTES = 4096
_GZIP = b"\x1f\x8b"
_TO_HLO = "export the model as HLO, for example with jax.jit(f).lower(x).compiler_ir('hlo').as_serialized_hlo_module_proto()"
TENSORFLOW = "TENSORFLOW"


@dataclass(frozen=True, slots=True)
class GraphRequest:
    """What a user says about a TensorFlow graph.

    framework: TENSORFLOW says that a file is a graph even where its content leaves it open. io_config: a file, or the JSON
    text itself. signature: of a SavedModel; the default one if empty.
    """

    framework: str = ""
    io_config: str = ""
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A format that is recognised in order to be refused.

    name: what the file looks like. is_it: decides by the first bytes. remedy: what to do.
    """

    name: str
    is_it: Callable[[bytes], bool]
    remedy: str = _TO_HLO


def _starts(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magics)


def _matches(pattern: str) -> Callable[[bytes], bool]:
    compiled = re.compile(pattern.encode())
    return lambda head: compiled.match(head) is not None


_IMAGE = "give a model file, not a picture"
FOREIGN: tuple[Foreign, ...] = (
    Foreign("a NEFF, which is compiled already", _starts(*(bytes((version, *bytes(8), 4, *bytes(6))) for version in (1, 2))),
            "`nxcc run`, `estimate` and `info` take it"),
    Foreign("an ELF program or library", _starts(b"\x7fELF"), "give the model, not a program"),
    Foreign("a PNG picture", _starts(b"\x89PNG"), _IMAGE),
    Foreign("a JPEG picture", _starts(b"\xff\xd8\xff"), _IMAGE),
    Foreign("a PDF document", _starts(b"%PDF"), _IMAGE),
    Foreign("a zip archive (an npz, a PyTorch checkpoint or a Keras model)", _starts(b"PK\x03\x04", b"PK\x05\x06"),
            "give weights with --weights; " + _TO_HLO),
    Foreign("an HDF5 file", _starts(b"\x89HDF\r\n"), "give weights as npz or safetensors; " + _TO_HLO),
    Foreign("MLIR bytecode (StableHLO)", _starts(b"ML\xefR")),
    Foreign("a Python pickle", _starts(b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")),
    Foreign("a TensorFlow Lite model", lambda head: head[4:8] == b"TFL3"),
    Foreign("a safetensors file", lambda head: len(head) > 9 and head[4:9] == b"\0\0\0\0{", "give weights with --weights"),
    Foreign("a tar archive", lambda head: head[257:262] == b"ustar", "unpack it first"),
    Foreign("compressed with zstd, bzip2 or xz", _starts(b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ"),
            "unpack it first, or use gzip"),
    Foreign("JSON", _matches(r'\s*(\{\s*("|\}\s*\Z)|\[)')),
    Foreign("HTML or XML", _matches(r"\s*<[!?a-zA-Z]"), "was a web page saved instead of the file?"),
    Foreign("MLIR text (StableHLO)",
            _matches(r"(\s|//[^\n]*\n|#loc[^\n]*\n)*+(module\b(?s:.)*func\.func|func\.func\b|#\w+ =)")),
    Foreign("UTF-16 text", _starts(b"\xff\xfe", b"\xfe\xff"), "save it as UTF-8"),
    Foreign("a Git LFS pointer", _starts(b"version https://git-lfs"), "fetch the file itself: git lfs pull"),
)
_LOG_PREFIX = r"(?:[IWEF][0-9]{4} [^\]\n]*\] )?"
_HLO_TEXT = re.compile(
    rf"(?:\s|//[^\n]*\n|/\*(?s:.*?)\*/|\xef\xbb\xbf)*+{_LOG_PREFIX}(?:(?:HloModule|ENTRY|ROOT)\b|%?[A-Za-z_][\w.\-]*\s*(?:\{{|\(|=))".encode())
_PROTO_TEXT = re.compile(rb"(?:\s|#[^\n]*\n)*+(name\s*:\s*[\"']|hlo_module\s*:?\s*[{<]|hlo\s*:?\s*[{<])")
_GRAPH_TEXT = re.compile(rb"(?:\s|#[^\n]*\n)*+(?:node|versions|library)\s*:?\s*[{<]")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")


def read_model(path: str, graph: GraphRequest | None = None) -> Module:
    """The module in a file or SavedModel folder; `-` is the standard input. graph: for TensorFlow graphs.

    Raises CompileError: FILE_UNREADABLE, EMPTY_INPUT, UNKNOWN_FORMAT, and whatever the reader of the format raises.
    """
    request = graph or GraphRequest()
    if os.path.isdir(path):
        return _read_folder(path, request)
    data = _standard_input() if path == STDIN else map_file(path)
    name = "<stdin>" if path == STDIN else path
    if data[:2] == _GZIP:
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
    model = read_saved_model(path)
    if request.io_config and request.signature:
        raise CompileError(USAGE, "--io-config and --signature exclude each other", why="both say what goes in and out")
    config = _io_config(request) if request.io_config else model.signature(request.signature)
    return lower_graph(model.graph, config, model.variables)


def _read_graph(data: memoryview, name: str, request: GraphRequest) -> Module:
    from nxcc.ir.graphdef.lowering import lower_graph
    from nxcc.ir.graphdef.naming import graph_name
    from nxcc.ir.graphdef.reader import read_graph
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


def _standard_input() -> memoryview:
    if sys.stdin is None:
        raise CompileError(FILE_UNREADABLE, "cannot read the standard input", why="it is closed")
    return read_stream(sys.stdin.buffer, "<stdin>")


def _inflate(data: memoryview, name: str) -> bytes:
    """The content of a gzip file: all its members, as gunzip gives them."""
    content = bytearray()
    while bytes(data[:2]) == _GZIP:
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
    head = bytes(data[:_HEAD_BYTES])
    is_text = not _CONTROL.search(head)
    if is_text and _GRAPH_TEXT.match(head):
        from nxcc.ir.graphdef.text import binary_of
        return _read_graph(memoryview(binary_of(bytes(data), "GraphDef", name)), name, request)
    if request.framework == TENSORFLOW and not is_text:
        return _read_graph(data, name, request)
    return _read_other(data, head, name, request)


def _read_other(data: memoryview, head: bytes, name: str, request: GraphRequest) -> Module:
    for foreign in FOREIGN:
        if foreign.is_it(head):
            raise _unknown(name, foreign.name, foreign.remedy)
    if not _CONTROL.search(head):
        if _PROTO_TEXT.match(head) or _HLO_TEXT.match(head):
            _refuse_graph_options(name, request)
        return _read_text(data, head, name)
    kind = _foreign_protobuf(data)
    if kind == _GRAPH:
        return _read_graph(data, name, request)
    if kind:
        raise _unknown(name, kind, _FOREIGN_PROTOBUF[kind])
    if head[0] != 0x0A and not is_message(data, 0, len(data)):
        raise _unknown(name, f"binary data that starts with {head[:8].hex(' ')}", _TO_HLO)
    _refuse_graph_options(name, request)
    return read_module(data, name=name)


def _refuse_graph_options(name: str, request: GraphRequest) -> None:
    """CompileError(USAGE) if what was said about a TensorFlow graph would be passed over."""
    given = {"--io-config": request.io_config, "--signature": request.signature,
             "--framework TENSORFLOW": request.framework == TENSORFLOW}
    said = [flag for flag, value in given.items() if value]
    if said:
        raise CompileError(USAGE, f"{name} is HLO, not a TensorFlow graph", why=f"{' and '.join(said)} would have no meaning",
                           remedy="leave it out, or give the graph")


def _read_text(data: memoryview, head: bytes, name: str) -> Module:
    if _PROTO_TEXT.match(head):
        return _read_proto_text(bytes(data), name)
    if not _HLO_TEXT.match(head) and head.strip():
        first = head.split(b"\n")[0][:40].decode("utf-8", "replace")
        raise _unknown(name, f"text that starts with {first!r}", "HLO text starts with HloModule, ENTRY or `name {`")
    from nxcc.ir.hlo.text.reader import read_text
    return read_text(bytes(data), name=name)


# Protobuf


_GRAPH, _ONNX, _SAVED_MODEL = "a TensorFlow GraphDef", "an ONNX model", "a TensorFlow SavedModel's own file"
_FOREIGN_PROTOBUF = {_ONNX: _TO_HLO, _SAVED_MODEL: "give the folder that it lies in"}


def _foreign_protobuf(data: memoryview) -> str:
    """What a protobuf that is no HLO looks like; empty text if it may be HLO."""
    try:
        tops = [(number, kind, start, end) for number, kind, start, end in records(data, 0, len(data))]
    except WireError:
        return ""
    numbers = {(number, kind) for number, kind, *_ in tops}
    if (1, VARINT) in numbers and (7, BYTES) in numbers:
        return _ONNX
    if (1, VARINT) in numbers and (2, BYTES) in numbers:
        return _SAVED_MODEL
    if (1, BYTES) in numbers and all(_is_node(data, start, end) for number, _, start, end in tops if number == 1):
        return _GRAPH
    return ""


def _is_node(data: memoryview, start: int, end: int) -> bool:
    """True if the bytes walk as a NodeDef: a name, an operator's name, inputs as text, attributes as map entries."""
    try:
        fields = list(records(data, start, end))
    except WireError:
        return False
    if any(number > 7 or kind != BYTES for number, kind, *_ in fields):
        return False
    operators = [bytes(data[at:stop]) for number, _, at, stop in fields if number == 2]
    inputs = [bytes(data[at:stop]) for number, _, at, stop in fields if number == 3]
    return len(operators) == 1 and operators[0].isalnum() and not any(_CONTROL.search(text) for text in inputs)


def _read_proto_text(content: bytes, name: str) -> Module:
    """A module in protobuf's text form, by way of its binary form."""
    from google.protobuf import text_format
    found = _PROTO_TEXT.match(content)
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
