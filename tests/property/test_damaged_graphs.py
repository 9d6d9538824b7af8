"""Graphs cut or changed at any place end in an error of the user's kind, or in a module that the verifier accepts."""

import random
import zipfile
from pathlib import Path

import pytest

from nxcc.compiler.files.inputs import GraphRequest, read_model
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.hlo.verifier import verify

from harness.damage import damaged
from harness.graphs import DATA

ARCHIVE = zipfile.ZipFile(DATA / "tensorflow_graphs.zip")
GRAPHS = ("while_tf1_dyncount", "lstm_keras_while", "shape_arith_attention", "legacy_ops_producer21")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", GRAPHS)
def test_damage_is_reported_or_harmless(name: str, seed: int, tmp_path: Path) -> None:
    random_numbers = random.Random(f"{name}{seed}")
    content, config = ARCHIVE.read(f"{name}/graph.pb"), ARCHIVE.read(f"{name}/io_config.json")
    for _ in range(25):
        path = tmp_path / "graph.pb"
        in_config = random_numbers.random() < 0.2
        path.write_bytes(content if in_config else damaged(content, random_numbers))
        given = (damaged(config, random_numbers) if in_config else config).decode("utf-8", "replace")
        (tmp_path / "io.json").write_text(given)
        try:
            module = read_model(str(path), GraphRequest("TENSORFLOW", str(tmp_path / "io.json")))
            verify(module)
            for instruction in module.instructions():
                if instruction.opcode == "constant":
                    assert instruction.attribute("literal").array.shape == instruction.shape.dims
        except CompileError:
            pass
