"""What the first bytes of a file look like: each format that nxcc reads, and those that it names in order to refuse them.

The content decides, never the name. Readers are in `inputs` and in `nxcc.neff`; nothing here reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.proto.framing import holds_module
from nxcc.ir.hlo.proto.wire import BYTES, VARINT, WireError, records

HEAD_BYTES = 4096
GZIP = b"\x1f\x8b"
TO_HLO = "export the model as HLO, for example with jax.jit(f).lower(x).compiler_ir('hlo').as_serialized_hlo_module_proto()"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A format that is recognised in order to be refused.

    name: what the file looks like. is_it: decides by the first bytes. remedy: what to do.
    """

    name: str
    is_it: Callable[[bytes], bool]
    remedy: str = TO_HLO


def _starts(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magics)


def _matches(pattern: str) -> Callable[[bytes], bool]:
    compiled = re.compile(pattern.encode())
    return lambda head: compiled.match(head) is not None


_IMAGE = "give a model file, not a picture"
NEFF = "a NEFF, which is compiled already"
MODELS = HLO, GRAPH = "an HLO module", "a TensorFlow GraphDef"
"""What `read_model` takes."""
FOREIGN: tuple[Foreign, ...] = (
    Foreign(NEFF, _starts(*(bytes((version, *bytes(8), 4, *bytes(6))) for version in (1, 2))),
            "`nxcc run`, `estimate` and `info` take it"),
    Foreign("an ELF program or library", _starts(b"\x7fELF"), "give the model, not a program"),
    Foreign("a PNG picture", _starts(b"\x89PNG"), _IMAGE),
    Foreign("a JPEG picture", _starts(b"\xff\xd8\xff"), _IMAGE),
    Foreign("a PDF document", _starts(b"%PDF"), _IMAGE),
    Foreign("a zip archive (an npz, a PyTorch checkpoint or a Keras model)", _starts(b"PK\x03\x04", b"PK\x05\x06"),
            "give weights with --weights; " + TO_HLO),
    Foreign("an HDF5 file", _starts(b"\x89HDF\r\n"), "give weights as npz or safetensors; " + TO_HLO),
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
    Foreign("one numpy array (npy)", _starts(b"\x93NUMPY"), "give weights as npz or safetensors; " + TO_HLO),
    Foreign("UTF-16 text", _starts(b"\xff\xfe", b"\xfe\xff"), "save it as UTF-8"),
    Foreign("a Git LFS pointer", _starts(b"version https://git-lfs"), "fetch the file itself: git lfs pull"),
)
_LOG_PREFIX = r"(?:[IWEF][0-9]{4} [^\]\n]*\] )?"
HLO_TEXT = re.compile(
    rf"(?:\s|//[^\n]*\n|/\*(?s:.*?)\*/|\xef\xbb\xbf)*+{_LOG_PREFIX}(?:(?:HloModule|ENTRY|ROOT)\b|%?[A-Za-z_][\w.\-]*\s*(?:\{{|\(|=))".encode())
PROTO_TEXT = re.compile(rb"(?:\s|#[^\n]*\n)*+(name\s*:\s*[\"']|hlo_module\s*:?\s*[{<]|hlo\s*:?\s*[{<])")
GRAPH_TEXT = re.compile(rb"(?:\s|#[^\n]*\n)*+(?:node|versions|library)\s*:?\s*[{<]")
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
_OPERATOR = re.compile(rb"[\w.>/-]+")
"""An operator of TensorFlow or a function of the graph's library, which may begin with an underscore (_SwitchN)."""


_ONNX, _SAVED_MODEL = "an ONNX model", "a TensorFlow SavedModel's own file"
FOREIGN_PROTOBUF = {_ONNX: TO_HLO, _SAVED_MODEL: "give the folder that it lies in"}


def protobuf_kind(data: memoryview) -> str:
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
        return GRAPH
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
    return len(operators) == 1 and bool(_OPERATOR.fullmatch(operators[0])) and not any(map(CONTROL.search, inputs))


def description(data: memoryview) -> str:
    """What the bytes of a file look like, for the message of a reader of something else; empty text if nothing is known."""
    head = bytes(data[:HEAD_BYTES])
    for foreign in FOREIGN:
        if foreign.is_it(head):
            return foreign.name
    if head.startswith(GZIP):
        return "a gzip file"
    return _text_kind(head) if not CONTROL.search(head) else protobuf_kind(data) or (HLO if holds_module(data) else "")


def _text_kind(head: bytes) -> str:
    if GRAPH_TEXT.match(head):
        return GRAPH
    return HLO if PROTO_TEXT.match(head) or HLO_TEXT.match(head) else "text"
