"""The runner of whole graphs: finds the cases of a folder, judges them twice, and says so when there is none."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance import models
from conformance.graphs import GRAPH, ODD, OPERATOR, open_graphs
from conformance.models import GraphRunner, main
from conformance.walk import PASSED, REJECTED, WRONG

from nxcc.ir.graphdef.text import binary_of

CONFIG = {"inputs": {"x:0": [[2, 3], "float32"]}, "outputs": ["y:0"]}
V1 = GraphRunner("v1", "1", "", strict=False)


def _graph(operator: str = "Relu") -> bytes:
    return binary_of(f"""
        node {{ name: "x" op: "Placeholder" attr {{ key: "dtype" value {{ type: DT_FLOAT }} }} }}
        node {{ name: "y" op: "{operator}" input: "x" attr {{ key: "T" value {{ type: DT_FLOAT }} }} }}""".encode(),
                     "GraphDef", "test")


def _corpus(root: Path, stored: Any, odd_operator: str = "NoSuch") -> str:
    values = np.arange(-3, 3, dtype=np.float32).reshape(2, 3)
    folder = root / "relu"
    folder.mkdir()
    (folder / "graph.pb").write_bytes(_graph())
    (folder / "meta.json").write_text(json.dumps({"ops": {"Relu": 1}}))
    (folder / "io_config.json").write_text(json.dumps(CONFIG))
    np.savez(folder / "io.npz", input0=values, output0=stored(values))
    (root / "ops").mkdir()
    with zipfile.ZipFile(root / "ops" / "tensorflow_ops.zip", "w") as opened:
        row = {"id": "Relu_00", "op": "Relu", **CONFIG, "compare": "exact", "rtol": 0, "atol": 0}
        opened.writestr("index.json", json.dumps([row]))
        opened.writestr("Relu_00/graph.pb", _graph())
        opened.writestr("Relu_00/io.npz", (folder / "io.npz").read_bytes())
    with zipfile.ZipFile(root / "ops" / "tensorflow_malformed.zip", "w") as opened:
        row = {"id": "odd", "io_config": CONFIG, "tensorflow_says": "NotFoundError: not registered"}
        opened.writestr("index.json", json.dumps([row]))
        opened.writestr("odd.pb", _graph(odd_operator))
    return str(root)


def test_every_kind_of_case_is_found_and_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = _corpus(tmp_path, lambda x: np.maximum(x, 0))
    outcomes = {case.family: V1(case) for case in open_graphs([corpus])}
    assert {family: o.kind for family, o in outcomes.items()} == {GRAPH: PASSED, OPERATOR: PASSED, ODD: REJECTED}
    assert outcomes[GRAPH].steps["stored"] and outcomes[GRAPH].steps["oracle"]
    target = tmp_path / "out.json"
    assert main([corpus, "--target", "v1", "--json", str(target)]) == 0
    assert "rejected, as by TensorFlow" in capsys.readouterr().out
    assert [row["class"] for row in json.loads(target.read_text())["cases"]].count(PASSED) == 2


def test_a_wrong_stored_result_is_found(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path, lambda x: np.maximum(x, 0) + 1)
    outcomes = {case.family: V1(case) for case in open_graphs([corpus])}
    assert outcomes[GRAPH].kind == outcomes[OPERATOR].kind == WRONG
    assert outcomes[GRAPH].steps["oracle"] and not outcomes[GRAPH].steps["stored"]
    assert main([corpus, "--only", "^graph$"]) == 1


def test_what_tensorflow_rejects_and_we_take_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = _corpus(tmp_path, lambda x: np.maximum(x, 0), odd_operator="Relu")
    assert main([corpus, "--only", "odd"]) == 0
    assert "accepted, though TensorFlow rejects it: odd" in capsys.readouterr().out


def test_no_corpus_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2 and "no folder is named" in capsys.readouterr().err
    assert main(["no/such"]) == 2 and "there is no folder no/such" in capsys.readouterr().err


def _chosen(root: Path) -> str:
    """A corpus of one graph: the host chooses the three largest of values that the device computes in narrow floats."""
    folder = root / "chosen"
    folder.mkdir()
    (folder / "graph.pb").write_bytes(binary_of(b"""
        node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_HALF } } }
        node { name: "t" op: "Tanh" input: "x" attr { key: "T" value { type: DT_HALF } } }
        node { name: "k" op: "Const" attr { key: "dtype" value { type: DT_INT32 } } attr { key: "value" value { tensor {
          dtype: DT_INT32 tensor_shape { } int_val: 3 } } } }
        node { name: "y" op: "TopKV2" input: "t" input: "k" attr { key: "T" value { type: DT_HALF } } }""",
        "GraphDef", "test"))
    (folder / "meta.json").write_text(json.dumps({"ops": {"TopKV2": 1}}))
    (folder / "io_config.json").write_text(json.dumps({"inputs": {"x:0": [[40], "float16"]}, "outputs": ["y:0", "y:1"]}))
    values = np.linspace(0, 1, 40, dtype=np.float16)
    np.savez(folder / "io.npz", input0=values, output0=np.tanh(values[:-4:-1]), output1=np.arange(39, 36, -1, dtype=np.int32))
    return str(root)


def _elsewhere(judged: Callable[..., Any]) -> Callable[..., Any]:
    """The judge with each result at other places, as after another choice."""
    return lambda *arguments: [value + 1 for value in judged(*arguments)]


def test_what_follows_a_choice_on_the_host_is_judged_node_by_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, = open_graphs([_chosen(tmp_path)])
    assert V1(case).kind == PASSED
    monkeypatch.setattr(models, "oracle_inside", _elsewhere(models.oracle_inside))
    outcome = V1(case)
    assert outcome.kind == PASSED and "topk" in outcome.on_host
    assert outcome.errors["oracle"] < models.NARROW_TOLERANCE, "the nodes' own errors stand for the whole"
    monkeypatch.setattr(models, "flatten", _elsewhere(models.flatten))
    assert V1(case).kind == WRONG
