"""Graphs with steps that only the host can do (strings, special functions, factorisations), compiled and run, and quantised
numbers, against what TensorFlow 2.21 computed from the same inputs."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nxcc.compiler.driver import Request, compile_file
from nxcc.compiler.options import options_from
from nxcc.compiler.runtime.loaded import load
from nxcc.ir.diagnostics import INPUT_MISMATCH, CompileError

from harness.graphs import DATA

ARCHIVE = zipfile.ZipFile(DATA / "tensorflow_host.zip")
NAMES = sorted({name.partition("/")[0] for name in ARCHIVE.namelist()})


def _compiled(name: str, folder: Path) -> str:
    graph, output = folder / "graph.pb", str(folder / "model.neff")
    graph.write_bytes(ARCHIVE.read(f"{name}/graph.pb"))
    config = ARCHIVE.read(f"{name}/io_config.json").decode()
    compile_file(Request(str(graph), options_from(output=output, target="v2", framework="TENSORFLOW", io_config=config)))
    return output


@pytest.mark.parametrize("name", NAMES)
def test_graph_gives_what_tensorflow_gives(name: str, tmp_path: Path) -> None:
    loaded = load(_compiled(name, tmp_path))
    with np.load(io.BytesIO(ARCHIVE.read(f"{name}/io.npz"))) as stored:
        got = loaded.run([stored[f"input{k}"] for k in range(len(loaded.inputs))])
        wanted = [stored[f"output{k}"] for k in range(len(got))]
    for number, (one, other) in enumerate(zip(got, wanted, strict=True)):
        if other.dtype.kind == "S":
            assert one.tolist() == other.tolist(), number
        else:
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_other_inputs_than_strings_are_refused(tmp_path: Path) -> None:
    loaded = load(_compiled("csv", tmp_path))
    for value in (np.zeros(3, np.uint32), np.array(["1", "2"]), np.zeros(3)):
        with pytest.raises(CompileError) as caught:
            loaded.run([value])
        assert caught.value.code is INPUT_MISMATCH
    with pytest.raises(CompileError) as caught:
        loaded.run([np.array(["1,2", 7, "3"], object)])
    assert "int is no string" in str(caught.value)


def test_what_cannot_be_computed_names_the_node(tmp_path: Path) -> None:
    loaded = load(_compiled("csv", tmp_path))
    with pytest.raises(CompileError) as caught:
        loaded.run([np.array(["1,2", "three", "3"])])
    assert "host program" in str(caught.value)
