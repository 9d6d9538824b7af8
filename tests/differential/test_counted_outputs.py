"""Graphs whose outputs have sizes that depend on values: `run` gives as many places as TensorFlow does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nxcc.cli import main
from nxcc.compiler.interface.counted_outputs import KEY, open_counted
from nxcc.compiler.runtime.loaded import load
from nxcc.ir.diagnostics import CompileError

TARGETS = ("v1", "v2")


def _attr(key: str, value: str) -> str:
    return f'attr {{ key: "{key}" value {{ {value} }} }}'


def _fed(name: str, kind: str) -> str:
    return f'node {{ name: "{name}" op: "Placeholder" {_attr("dtype", f"type: {kind}")} }}\n'


def _const(name: str, kind: str, value: str) -> str:
    tensor = f"tensor {{ dtype: {kind} tensor_shape {{ }} {value} }}"
    return f'node {{ name: "{name}" op: "Const" {_attr("dtype", f"type: {kind}")} {_attr("value", tensor)} }}\n'


def _compiled(tmp_path: Path, target: str, graph: str, inputs: dict[str, Any], outputs: list[str]) -> str:
    source, neff = tmp_path / "graph.pbtxt", tmp_path / "graph.neff"
    source.write_text(graph)
    config = json.dumps({"inputs": inputs, "outputs": outputs})
    assert main(["compile", str(source), "--io-config", config, "--target", target, "-o", str(neff), "--quiet",
                 "--auto-cast", "none"]) == 0
    return str(neff)


@pytest.mark.parametrize("target", TARGETS)
def test_where_gives_the_places_that_there_are(tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    graph = _fed("x", "DT_BOOL") + f'node {{ name: "op" op: "Where" input: "x" {_attr("T", "type: DT_BOOL")} }}\n'
    neff = _compiled(tmp_path, target, graph, {"x:0": [[3, 4], "bool"]}, ["op:0"])
    for share in (0.0, 0.4, 1.0):
        x = np.random.default_rng(3).random((3, 4)) < share
        found, = load(neff).run([x])
        np.testing.assert_array_equal(found, np.argwhere(x))
        np.savez(tmp_path / "in.npz", input0=x)
        assert main(["run", neff, "--inputs", str(tmp_path / "in.npz")]) == 0
        assert f"s64[{x.sum()},2]" in capsys.readouterr().out
        np.savez(tmp_path / "given.npz", output0=np.argwhere(x))
        given = ["verify", neff, "--inputs", str(tmp_path / "in.npz"), "--expected", str(tmp_path / "given.npz")]
        assert main(given) == 0
        np.savez(tmp_path / "given.npz", output0=np.argwhere(np.ones_like(x))[:x.sum() + 1])
        assert main(given) == (1 if share < 1 else 0)
    assert main(["verify", neff]) == 0


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_in_one_vector_but_not_in_the_other(tmp_path: Path, target: str) -> None:
    graph = _fed("x", "DT_INT32") + _fed("y", "DT_INT32") + (
        f'node {{ name: "op" op: "ListDiff" input: "x" input: "y" {_attr("T", "type: DT_INT32")} }}\n')
    neff = _compiled(tmp_path, target, graph, {"x:0": [[5], "int32"], "y:0": [[2], "int32"]}, ["op:0", "op:1"])
    values, places = load(neff).run([np.int32([7, 3, 7, 9, 4]), np.int32([9, 3])])
    np.testing.assert_array_equal(values, [7, 7, 4])
    np.testing.assert_array_equal(places, [0, 2, 4])


@pytest.mark.parametrize("target", TARGETS)
def test_soft_suppression_lowers_scores_and_drops_none_by_overlap(tmp_path: Path, target: str) -> None:
    """The boxes of TensorFlow's own test of the operator, with its results."""
    graph = (_fed("b", "DT_FLOAT") + _fed("s", "DT_FLOAT") + _const("n", "DT_INT32", "int_val: 6")
             + _const("iou", "DT_FLOAT", "float_val: 0.5") + _const("low", "DT_FLOAT", "float_val: 0.0")
             + _const("sigma", "DT_FLOAT", "float_val: 0.5")
             + 'node { name: "op" op: "NonMaxSuppressionV5" input: "b" input: "s" input: "n" input: "iou" input: "low" '
             + f'input: "sigma" {_attr("T", "type: DT_FLOAT")} }}\n')
    neff = _compiled(tmp_path, target, graph, {"b:0": [[6, 4], "float32"], "s:0": [[6], "float32"]}, ["op:0", "op:1", "op:2"])
    boxes = np.float32([[0, y, 1, y + 1] for y in (0, 0.1, -0.1, 10, 10.1, 100)])
    places, scores, count = load(neff).run([boxes, np.float32([0.9, 0.75, 0.6, 0.95, 0.5, 0.3])])
    np.testing.assert_array_equal(places, [3, 0, 1, 5, 4, 2])
    np.testing.assert_allclose(scores, [0.95, 0.9, 0.384, 0.3, 0.256, 0.197], atol=1e-3)
    assert count == 6


def test_counts_that_do_not_fit_the_outputs_are_refused(tmp_path: Path) -> None:
    graph = _fed("x", "DT_BOOL") + f'node {{ name: "op" op: "Where" input: "x" {_attr("T", "type: DT_BOOL")} }}\n'
    loaded = load(_compiled(tmp_path, "v2", graph, {"x:0": [[3], "bool"]}, ["op:0"]))
    extra = loaded.graph.nxcc.extra
    for wrong in ([], {"output0": 1}, {"output0": [0]}, {"output0": [2, "output1"]}, {"output0": [0, "output0"]},
                  {"output7": [0, "output1"]}, {"output0": [0, "output7"]}, {"output0": [-1, "output1"]}):
        extra[KEY] = wrong
        with pytest.raises(CompileError, match="does not fit the outputs"):
            open_counted(loaded.graph, "x.neff")
