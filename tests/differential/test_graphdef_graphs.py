"""Whole graphs and SavedModels: control flow, functions, shape arithmetic and variables, against TensorFlow's results."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nxcc.compiler.files.inputs import GraphRequest, read_model

from harness.graphs import DATA, difference, run

ARCHIVE = zipfile.ZipFile(DATA / "tensorflow_graphs.zip")
CASES = sorted(name for name in ARCHIVE.namelist() if "/io_config" in name)


def check(source: Path, config: str, arrays: dict[str, np.ndarray]) -> None:
    module = read_model(str(source), GraphRequest("TENSORFLOW", config))
    outputs = run(module, [arrays[f"input{k}"] for k in range(len(module.entry.parameters))])
    assert len(outputs) == sum(name.startswith("output") for name in arrays)
    for k, got in enumerate(outputs):
        wanted = arrays[f"output{k}"]
        scale = float(np.abs(wanted.astype(np.float64)).max(initial=0)) if got.dtype.kind == "f" else 0.0
        assert difference(got, wanted, 0.0, 1e-5 * scale) == ""


@pytest.mark.parametrize("name", CASES, ids=lambda name: name.replace("/io_config", "").removesuffix(".json"))
def test_graph_gives_what_tensorflow_gave(name: str, tmp_path: Path) -> None:
    folder, _, tag = name.removesuffix(".json").partition("/io_config")
    for member in ARCHIVE.namelist():
        if member.startswith(f"{folder}/"):
            ARCHIVE.extract(member, tmp_path)
    model = tmp_path / folder / "saved_model"
    with np.load(io.BytesIO(ARCHIVE.read(f"{folder}/io{tag}.npz"))) as file:
        arrays = dict(file)
    check(model if model.is_dir() else tmp_path / folder / "graph.pb", ARCHIVE.read(name).decode(), arrays)
