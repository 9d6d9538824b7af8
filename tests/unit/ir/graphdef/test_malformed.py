"""Graphs that are wrong, or strange but legal: each ends in an error that names the node, or in TensorFlow's result."""

import io
import json
import zipfile

import numpy as np
import pytest

from nxcc.ir.diagnostics import CompileError
from nxcc.ir.graphdef.lowering import lower_graph
from nxcc.ir.graphdef.reader import read_graph
from nxcc.ir.hlo.module import Module

from harness.graphs import DATA, config_of, difference, lower, run

ARCHIVE = zipfile.ZipFile(DATA / "tensorflow_malformed.zip")
ROWS = {row["id"]: row for row in json.loads(ARCHIVE.read("index.json"))}
STRICTER = {"wrong_dtype"}
"""TensorFlow converts what is fed; an io-config that contradicts the graph is an error here."""
LOOSER = {"unknown_op_unreached"}
"""What no output needs is left out before it is looked at."""
RUNS = [name for name, row in ROWS.items() if (row["tensorflow_says"] == "runs") != (name in STRICTER | LOOSER)]
SAYS = {
    "dangling_input": "nosuch", "bad_port": "MatMul has 1 outputs", "unknown_op": "NotAnOp", "duplicate_name": "'out'",
    "cycle": "depends on itself", "short_content": "44 bytes", "const_dtype_mismatch": "[at w]", "shape_mismatch": "[at mm]",
    "type_mismatch": "Relu declares int32", "missing_type_attr": "'T'", "too_few_inputs": "takes 2 inputs, 1",
    "missing_output": "'nope'", "missing_input": "'x' is not fed", "wrong_shape": "[2, 3]", "wrong_dtype": "float32",
    "truncated": "byte", "text_file": "byte 0", "empty_file": "no nodes", "unfrozen_variable": "'v' has no value",
    "stale_output_shapes": "[99]", "placeholder_rank0_shape": "[]", "future_min_consumer": "9999",
}


def read(name: str) -> Module:
    return lower_graph(read_graph(memoryview(ARCHIVE.read(f"{name}.pb")), name), config_of(ROWS[name]["io_config"]))


@pytest.mark.parametrize("name", RUNS)
def test_strange_but_legal_graph_runs(name: str) -> None:
    module = read(name)
    outputs = run(module, [np.ones(p.shape.dims, p.shape.dtype.numpy) for p in module.entry.parameters])
    if f"{name}.npz" in ARCHIVE.namelist():
        with np.load(io.BytesIO(ARCHIVE.read(f"{name}.npz"))) as file:
            for got, key in zip(outputs, file.files, strict=True):
                assert difference(got, file[key], 1e-6, 0.0) == ""


@pytest.mark.parametrize("name", sorted(ROWS.keys() - set(RUNS)))
def test_broken_graph_is_named(name: str) -> None:
    with pytest.raises(CompileError) as caught:
        read(name)
    assert SAYS[name] in str(caught.value)


@pytest.mark.parametrize("edge", ["x:" + "9" * 5000, "call:y:" + "9" * 5000, "call:y:", "call:y:two"], ids=lambda e: e[:12])
def test_port_that_is_no_number_of_a_port_is_refused(edge: str) -> None:
    text = """node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } } }
      node { name: "out" op: "%s" input: "x" attr { key: "T" value { type: DT_FLOAT } } }
      library { function { signature { name: "f" input_arg { name: "x" type: DT_FLOAT }
                                       output_arg { name: "r" type: DT_FLOAT } }
        node_def { name: "call" op: "Relu" input: "x" attr { key: "T" value { type: DT_FLOAT } } }
        node_def { name: "z" op: "Relu" input: "EDGE" attr { key: "T" value { type: DT_FLOAT } } }
        ret { key: "r" value: "z:activations:0" } } }"""
    inner = edge.replace("call:y", "call:activations")
    with pytest.raises(CompileError):
        lower((text % "f").replace("EDGE", inner), {"x:0": [[2], "float32"]}, ["out:0"])
