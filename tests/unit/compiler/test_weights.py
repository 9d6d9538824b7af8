"""Which tensor of a file is whose value: by number, by HLO name, and by the framework's name in any notation."""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nxcc.cli import main
from nxcc.compiler.interface.parameters import Signature
from nxcc.compiler.interface.weights import declare_weights, match_weights
from nxcc.ir.diagnostics import CompileError
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


@pytest.mark.parametrize(("name", "numbers"), [
    ("params.dense.kernel", {0}), ("dense/kernel", {0}), ("stats.norm.scale,dense/kernel", {0, 2}), ("%x", {3}),
    ("norm..*", {1, 2}),
])
def test_weights_are_declared_in_any_notation(name: str, numbers: set[int]) -> None:
    assert declare_weights(read_text(TEXT), name) == numbers


def test_a_name_that_may_be_several_declares_none() -> None:
    with pytest.raises(CompileError, match="names no parameter"):
        declare_weights(read_text(TEXT), "norm/scale")


def test_a_name_of_a_million_words_takes_no_memory() -> None:
    long = "a/" * 20_000
    module = read_text(TEXT.replace('op_name="x"', f'op_name="{long}x"'))
    assert declare_weights(module, f"{long}x") == declare_weights(module, "a.a.x") == {3}


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


def test_weights_beyond_two_gibibytes_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file, 3 GiB of zeros as a hole, by a process that may have 1 GiB of memory of its own."""
    rows, columns = 3 << 18, 1024
    monkeypatch.chdir(tmp_path)
    Path("m.hlo").write_text(f"""HloModule m
ENTRY main {{
  i = s32[4,1] parameter(0)
  w = f32[{rows},{columns}] parameter(1)
  ROOT g = f32[4,{columns}] gather(w, i), offset_dims={{1}}, collapsed_slice_dims={{0}}, start_index_map={{0}},
    index_vector_dim=1, slice_sizes={{1,{columns}}}
}}
""")
    count = 4 * rows * columns
    header = json.dumps({"w": {"dtype": "F32", "shape": [rows, columns], "data_offsets": [0, count]}}).encode()
    with open("w.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(file.tell() + count)
    words = "compile m.hlo -q --weights w.safetensors --stop-after package".split()
    found = subprocess.run([sys.executable, "-m", "nxcc.cli", *words],
                           preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30)))
    assert found.returncode == 0


NAMED = """HloModule m
ENTRY main {{
  a = f32[2] parameter(0), metadata={{op_name="{}"}}
  b = f32[2] parameter(1), metadata={{op_name="{}"}}
  x = f32[2] parameter(2), metadata={{op_name="{}"}}
  s = f32[2] add(a, b)
  ROOT r = f32[2] multiply(s, x)
}}
"""


@pytest.mark.parametrize(("names", "given", "left"), [
    (("p['dense']['kernel']", "p['dense']['bias']", "x"), "0", "1"),
    (("p['one']['kernel']", "p['two']['kernel']", "x"), "0", "1"),
    (("w[0]", "w[1]", "x[0]"), "0", "1"),
    (("args[0]['one']['w']", "args[0]['two']['w']", "args[1]"), "0", "1"),
    (("args[0]['one']['w']", "args[0]['two']['w']", "args[1]['x']"), "01", ""),
    (("p['w']", "p['b']", "x"), "01", ""),
    (("p['w']", "state['w']", "x"), "0", ""),
    (("w", "b", "x"), "0", ""),
    (("", "", ""), "0", ""),
])
def test_a_weight_that_the_file_lacks_is_an_input_and_told_of(names: tuple[str, ...], given: str, left: str, tmp_path: Path,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.hlo").write_text(NAMED.format(*names))
    np.savez(tmp_path / "w.npz", **dict.fromkeys(given, np.ones(2, np.float32)))
    words = ["compile", str(tmp_path / "m.hlo"), "--weights", str(tmp_path / "w.npz"), "-o", str(tmp_path / "m.neff")]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert f"weights: {len(given)} parameters bound; inputs: input0: parameter {len(given)} (" in captured.out
    assert (f"no value for parameter {left} (" if left else "") in captured.err and bool(left) == bool(captured.err)
