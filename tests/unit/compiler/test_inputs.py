"""The content of a file decides how it is read; what is no HLO is named."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nxcc.compiler.files.inputs import GraphRequest, read_model
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
from nxcc.ir.graphdef.text import binary_of
from nxcc.ir.hlo.proto.schema import message_type
from nxcc.ir.hlo.proto.writer import module_bytes
from nxcc.ir.hlo.text.reader import read_text

TEXT = "HloModule net\nENTRY main { p = f32[2] parameter(0) ROOT n = f32[2] negate(p) }\n"
BINARY = module_bytes(read_text(TEXT))
MESSAGE = message_type("HloModuleProto").FromString(BINARY)
PROTO = message_type("HloProto")(hlo_module=MESSAGE)
# HloUnoptimizedSnapshot: the module, then partitions (field 2), each with descriptors of its arguments (field 2).
UNOPTIMIZED = PROTO.SerializeToString() + b"\x12\x04\x12\x02\x08\x08"
DUMPED = bytes((len(UNOPTIMIZED) & 0x7F | 0x80, len(UNOPTIMIZED) >> 7)) + UNOPTIMIZED + b"\x40\0\0\0\0\0\0\0\0"
"""As XLA dumps it: its length, the message, and the arguments as they are."""


def read(tmp_path: Path, content: bytes) -> object:
    path = tmp_path / "model"
    path.write_bytes(content)
    return read_model(str(path))


@pytest.mark.parametrize("content", [
    TEXT.encode(), b"// note\n" + TEXT.encode(), TEXT.split("\n", 1)[1].encode(),
    b"I0521 12:04:45.883483 1509 service.cc:186] " + TEXT.encode(), b"main { ROOT p = f32[2] parameter(0) }",
    b"main { p = f32[2] parameter(0) ROOT module = f32[2] negate(p) }",
    BINARY, PROTO.SerializeToString(), message_type("HloSnapshot")(hlo=PROTO).SerializeToString(), UNOPTIMIZED, DUMPED,
    str(MESSAGE).encode(), str(PROTO).encode(), str(PROTO).encode() + b"partitions { arguments_descriptors { } }\n",
    gzip.compress(TEXT.encode()), gzip.compress(BINARY),
], ids=["text", "comment", "no-header", "log", "one-computation", "module-as-name", "module", "proto", "snapshot",
        "unoptimized-snapshot", "dumped-snapshot", "module-text", "proto-text", "snapshot-text", "gzip-text", "gzip-module"])
def test_each_format_is_recognised(content: bytes, tmp_path: Path) -> None:
    module = read(tmp_path, content)
    assert module.entry.name == "main"  # type: ignore[attr-defined]


def npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, a=np.zeros(3))
    return out.getvalue()


def delimited(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2, len(content))) + content


NODE = delimited(1, b"x") + delimited(2, b"Placeholder") + delimited(5, delimited(1, b"dtype") + delimited(2, b"0\x01"))


@pytest.mark.parametrize(("content", "looks_like"), [
    (b"\x7fELF\x02\x01\x01" + bytes(60), "an ELF program"),
    (b"\x89PNG\r\n\x1a\n" + bytes(20), "a PNG picture"),
    (npz(), "a zip archive"),
    (json.dumps({"a": 1}).encode(), "JSON"),
    (b"<!doctype html><html>", "HTML"),
    (b"ML\xefR\x01StableHLO", "MLIR bytecode"),
    (b"module @jit_f attributes {a = 1} {\n  func.func public @main() {\n", "MLIR text"),
    (b"module {\n  func.func @main() {\n", "MLIR text"),
    (b"\x08\x01" + delimited(2, delimited(2, delimited(1, NODE))), "a TensorFlow SavedModel"),
    (b"\x08\x08" + delimited(2, b"pytorch") + delimited(7, b""), "an ONNX model"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    (b"hello world, this is no module\n", "text that starts with 'hello world"),
    (b"\x00\x01\x02\x03 noise", "binary data that starts with 00 01 02 03"),
])
def test_what_is_no_hlo_is_named(content: bytes, looks_like: str, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=f"looks like {looks_like}") as caught:
        read(tmp_path, content)
    assert caught.value.code is UNKNOWN_FORMAT
    assert caught.value.remedy


@pytest.mark.parametrize(("content", "code"), [
    (b"", EMPTY_INPUT), (gzip.compress(b""), EMPTY_INPUT), (b" \n", EMPTY_INPUT), (BINARY[:-5], PROTO_CORRUPT),
    (gzip.compress(BINARY)[:-12], PROTO_CORRUPT), (gzip.compress(BINARY)[:20] + b"\xff" * 20, PROTO_CORRUPT),
    (TEXT.encode()[:-8], TEXT_SYNTAX), (b'name: "m"\ncomputations { name 3 }', TEXT_SYNTAX),
    (b'name: "m"\n' + b"a {" * 5000, LIMIT_EXCEEDED),
], ids=["empty", "empty-gzip", "blank", "cut", "cut-gzip", "damaged-gzip", "cut-text", "message-text", "deep-text"])
def test_damaged_file_has_its_code(content: bytes, code: object, tmp_path: Path) -> None:
    with pytest.raises(CompileError) as caught:
        read(tmp_path, content)
    assert caught.value.code is code


def test_gzip_bomb_is_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nxcc.compiler.files.inputs.MAX_INFLATED_BYTES", 1000)
    with pytest.raises(CompileError) as caught:
        read(tmp_path, gzip.compress(bytes(2000)))
    assert caught.value.code is LIMIT_EXCEEDED


def test_folder_and_missing_file_are_unreadable(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CompileError) as caught:
            read_model(str(path))
        assert caught.value.code is FILE_UNREADABLE


GRAPH_TEXT = """node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } } }
node { name: "y" op: "Relu" input: "x" attr { key: "T" value { type: DT_FLOAT } } }
"""
CONFIG = '{"inputs": {"x:0": [[2], "float32"]}, "outputs": ["y:0"]}'


@pytest.mark.parametrize("content", [
    binary_of(GRAPH_TEXT.encode(), "GraphDef", "test"), GRAPH_TEXT.encode(), b"# note\n" + GRAPH_TEXT.encode(),
    gzip.compress(GRAPH_TEXT.encode()),
], ids=["binary", "text", "comment", "gzip"])
def test_graph_is_recognised_by_content(content: bytes, tmp_path: Path) -> None:
    path, config = tmp_path / "model", tmp_path / "io.json"
    path.write_bytes(content)
    config.write_text(CONFIG)
    for given in (CONFIG, str(config)):
        module = read_model(str(path), GraphRequest(io_config=given))
        assert module.entry.root.opcode == "maximum"


@pytest.mark.parametrize("content", [binary_of(GRAPH_TEXT.encode(), "GraphDef", "test"), GRAPH_TEXT.encode()])
def test_a_graph_that_is_said_to_be_hlo_is_wrong_usage(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(CompileError, match="is a TensorFlow graph, not HLO") as caught:
        read_model(str(tmp_path / "model"), GraphRequest("XLA", io_config=CONFIG))
    assert caught.value.code is USAGE


def test_an_operator_may_begin_with_an_underscore(tmp_path: Path) -> None:
    """As the branches of a `switch_case` that were lowered to a merge: such a graph was taken for HLO."""
    (tmp_path / "model").write_bytes(binary_of(b'node { name: "s" op: "_SwitchN" input: "x" }', "GraphDef", "g"))
    with pytest.raises(CompileError) as error:
        read_model(str(tmp_path / "model"), GraphRequest("XLA"))
    assert "is a TensorFlow graph" in str(error.value)


def test_saved_model_folder_is_read(tmp_path: Path) -> None:
    text = ('saved_model_schema_version: 1 meta_graphs { meta_info_def { tags: "serve" } graph_def { ' + GRAPH_TEXT
            + '} signature_def { key: "half" value { inputs { key: "a" value { name: "x:0" dtype: DT_FLOAT tensor_shape { dim '
            '{ size: 3 } } } } outputs { key: "b" value { name: "y:0" dtype: DT_FLOAT } } } } }')
    (tmp_path / "saved_model.pbtxt").write_text(text)
    for request in (GraphRequest(), GraphRequest(signature="half"), GraphRequest(io_config=CONFIG)):
        size = 2 if request.io_config else 3
        assert read_model(str(tmp_path), request).entry.root.shape.dims == (size,)
    with pytest.raises(CompileError, match="it has half"):
        read_model(str(tmp_path), GraphRequest(signature="other"))
    with pytest.raises(CompileError, match="is a TensorFlow graph, not HLO"):
        read_model(str(tmp_path), GraphRequest("XLA"))


@pytest.mark.parametrize("request_", [GraphRequest(io_config=CONFIG), GraphRequest(signature="a"), GraphRequest("TENSORFLOW")],
                         ids=["config", "signature", "framework"])
@pytest.mark.parametrize("content", [TEXT.encode(), BINARY], ids=["text", "binary"])
def test_graph_options_with_hlo_are_wrong_usage(content: bytes, request_: GraphRequest, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(CompileError, match="is HLO, not a TensorFlow graph"):
        read_model(str(tmp_path / "model"), request_)


def test_saved_models_own_file_asks_for_its_folder(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="give the folder") as caught:
        read(tmp_path, b"\x08\x01" + delimited(2, delimited(2, delimited(1, NODE))))
    assert caught.value.code is UNKNOWN_FORMAT


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(BINARY)))
    assert read_model("-").name == "net"


def test_zip_is_told_from_its_end_too(tmp_path: Path) -> None:
    out = io.BytesIO()
    zipfile.ZipFile(out, "w").close()
    with pytest.raises(CompileError, match="zip archive"):
        read(tmp_path, out.getvalue())
