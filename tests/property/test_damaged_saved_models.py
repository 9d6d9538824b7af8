"""SavedModels, checkpoints and graphs as text, cut or changed at any place: an error of the user's kind, or a right module."""

import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nxcc.compiler.files.inputs import GraphRequest, read_model
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.graphdef import checkpoint
from nxcc.ir.graphdef.schema import message_type
from nxcc.ir.hlo.verifier import verify

from harness.damage import damaged
from harness.graphs import DATA

ARCHIVE = zipfile.ZipFile(DATA / "tensorflow_graphs.zip")
MODELS = ("savedmodel_tf1_vars", "savedmodel_tf2")
ROUNDS = 20


def read(path: Path, config: str = "") -> None:
    """Read and look at every constant; CompileError is an answer."""
    try:
        module = read_model(str(path), GraphRequest("TENSORFLOW", config))
        verify(module)
        for instruction in module.instructions():
            if instruction.opcode == "constant":
                assert np.asarray(instruction.attribute("literal").array).shape == instruction.shape.dims
    except CompileError:
        pass


def members(name: str) -> Iterator[tuple[str, bytes]]:
    prefix = f"{name}/saved_model/"
    for member in ARCHIVE.namelist():
        if member.startswith(prefix) and not member.endswith("/"):
            yield member.removeprefix(prefix), ARCHIVE.read(member)


@pytest.mark.parametrize("trusting", [False, True], ids=["checksums", "no-checksums"])
@pytest.mark.parametrize("name", MODELS)
def test_damaged_saved_model(name: str, trusting: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without checksums the table behind them must stand on its own."""
    if trusting:
        monkeypatch.setattr(checkpoint, "_is_intact", lambda content, stored: True)
    numbers = random.Random(f"{name}{trusting}")
    files = dict(members(name))
    for member, content in files.items():
        path = tmp_path / "model" / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for member, content in files.items():
        for _ in range(ROUNDS):
            (tmp_path / "model" / member).write_bytes(damaged(content, numbers))
            read(tmp_path / "model")
        (tmp_path / "model" / member).write_bytes(content)


@pytest.mark.parametrize("name", ["while_tf1_dyncount", "cond_tf1_switch"])
def test_damaged_text(name: str, tmp_path: Path) -> None:
    from google.protobuf import text_format
    graph = message_type("GraphDef")()
    graph.ParseFromString(ARCHIVE.read(f"{name}/graph.pb"))
    content = text_format.MessageToString(graph).encode()
    config = ARCHIVE.read(f"{name}/io_config.json").decode()
    numbers = random.Random(name)
    for _ in range(ROUNDS):
        (tmp_path / "graph.pbtxt").write_bytes(damaged(content, numbers))
        read(tmp_path / "graph.pbtxt", config)
