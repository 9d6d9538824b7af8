"""Which tensor of a file is whose value: by number, by HLO name, and by the framework's name in any notation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nxcc.cli import main
from nxcc.compiler.parameters import Signature
from nxcc.compiler.weights import declare_weights, match_weights
from nxcc.ir.hlo.text.reader import read_text

TEXT = """HloModule m
ENTRY main {
  w__params____dense____kernel__.1 = f32[2] parameter(0), metadata={op_name="w['params']['dense']['kernel']"}
  w__params____norm____scale__.1 = f32[2] parameter(1), metadata={op_name="w['params']['norm']['scale']"}
  w__stats____norm____scale__.1 = f32[2] parameter(2), metadata={op_name="w['stats']['norm']['scale']"}
  x = f32[2] parameter(3), metadata={op_name="x"}
  a = f32[2] multiply(w__params____dense____kernel__.1, x)
  b = f32[2] add(a, w__params____norm____scale__.1)
  ROOT r = f32[2] subtract(b, w__stats____norm____scale__.1)
}
"""
VALUES = {"params/dense/kernel": np.float32([1, 2]), "params/norm/scale": np.float32([3, 4]),
          "stats/norm/scale": np.float32([5, 6])}


def matched(name: str) -> tuple[dict[int, str], list[str]]:
    module = read_text(TEXT)
    tensors = {t.number: t for t in Signature([0, 1, 2, 3], frozenset()).tensors(module)}
    found, problems = match_weights({name: np.zeros(2, np.float32)}, tensors, "f")
    return found, [str(problem) for problem in problems]


@pytest.mark.parametrize(("name", "number"), [
    ("w['params']['dense']['kernel']", 0), ("params.dense.kernel", 0), ("params/dense/kernel", 0), ("dense/kernel", 0),
    ("kernel", 0), ("stats.norm.scale", 2), ("w__params____norm____scale__.1", 1), ("%x", 3), ("1", 1),
])
def test_a_name_in_any_notation_finds_its_parameter(name: str, number: int) -> None:
    assert matched(name) == ({number: name}, [])


@pytest.mark.parametrize(("name", "says"), [
    ("norm/scale", "may be one of 2 parameters"), ("params/dense/kernle", "did you mean w['params']['dense']['kernel']?"),
    ("7", "are 0 (w['params']['dense']['kernel']) to 3 (x)"), ("ernel", "no parameter takes"),
])
def test_a_name_that_is_not_clear_is_refused(name: str, says: str) -> None:
    found, (problem,) = matched(name)
    assert not found and says in problem


def test_weights_are_declared_by_the_name_itself() -> None:
    assert declare_weights(read_text(TEXT), "w['params']['dense']['kernel'],1") == {0, 1}


@pytest.mark.parametrize("when", ["compile", "load"])
def test_the_frameworks_names_bind_at_either_time(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.hlo").write_text(TEXT)
    np.savez("w.npz", **VALUES)  # type: ignore[arg-type]
    np.savez("in.npz", input0=np.float32([7, 8]))
    words = ["--weights", "w.npz"]
    at_compile, at_load = (words, []) if when == "compile" else (["--weight-params", "0-2"], words)
    assert main(["compile", "m.hlo", "-q", *at_compile]) == 0
    assert main(["run", "m.neff", "--inputs", "in.npz", "--outputs", "out.npz", *at_load]) == 0
    np.testing.assert_array_equal(np.load("out.npz")["output0"], np.float32([5, 14]))
    assert main(["verify", "m.neff", *at_load]) == 0
    assert main(["verify", "m.hlo", "--weight-params", "0-2", *words]) == 0


def test_a_file_without_tensors_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.hlo").write_text(TEXT)
    np.savez("w.npz")
    assert main(["compile", "m.hlo", "--weights", "w.npz"]) == 1
    assert "NXC0200: the weights file has no tensors [at w.npz]" in capsys.readouterr().err
