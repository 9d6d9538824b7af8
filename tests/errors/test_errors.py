"""Every diagnostic is provoked by a tiny input: files of this folder, and a table for what no text file can hold.

A file's head says: `// nxcc:` the command and its options, `// code:` what it must end in, `// says:` text of the message.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nxcc.cli import main
from nxcc.ir.diagnostics import CODES

FILES = sorted(Path(__file__).parent.glob("*.hlo"))
GOOD = "HloModule m\nENTRY main {\n  x = f32[2] parameter(0)\n  w = f32[2] parameter(1)\n  ROOT r = f32[2] add(x, w)\n}\n"

ELSEWHERE = {"NXC0009": "test_cli: a fault of ours", "NXC0403": "the machine verifier's own tests",
             "NXC0404": "the clock's own tests"}
"""Codes that no small input of a user can provoke, and the test that does."""


def head_of(path: Path) -> dict[str, str]:
    rows = [line[3:].split(":", 1) for line in path.read_text().splitlines() if line.startswith("// ")]
    return {key: value.strip() for key, value in rows}


def neff(*words: str) -> None:
    assert main(["compile", "good.hlo", "-q", "-o", "good.neff", *words]) == 0


def damage(offset: int, value: bytes) -> None:
    data = bytearray(Path("good.neff").read_bytes())
    data[offset:offset + len(value)] = value
    Path("bad.neff").write_bytes(data)


def empty() -> list[str]:
    Path("empty.hlo").write_bytes(b"")
    return ["compile", "empty.hlo"]


def foreign() -> list[str]:
    Path("model.bin").write_bytes(bytes(range(256)))
    return ["compile", "model.bin"]


def truncated() -> list[str]:
    assert main(["opt", "good.hlo", "--emit", "binary", "-o", "good.pb"]) == 0
    Path("cut.pb").write_bytes(Path("good.pb").read_bytes()[:-5])
    return ["compile", "cut.pb"]


def weights(**arrays: np.ndarray) -> Callable[[], list[str]]:
    def prepare() -> list[str]:
        np.savez("w.npz", **arrays)
        return ["compile", "good.hlo", "--weights", "w.npz", "--weight-params", "1"]
    return prepare


def wrong_input() -> list[str]:
    neff()
    np.savez("in.npz", input0=np.zeros(3, np.float32))
    return ["run", "good.neff", "--inputs", "in.npz"]


def damaged_neff() -> list[str]:
    neff()
    damage(2000, b"\xff")
    return ["run", "bad.neff"]


def newer_neff() -> list[str]:
    neff()
    damage(24, b"\x09")
    return ["run", "bad.neff"]


def other_target() -> list[str]:
    neff()
    return ["run", "good.neff", "--target", "v1"]


def mismatch() -> list[str]:
    neff()
    np.savez("e.npz", output0=np.float32([1e9, 1e9]))
    return ["verify", "good.neff", "--expected", "e.npz"]


def graph(operator: str = "Relu", shape: str = "dim { size: 2 }", *words: str) -> Callable[[], list[str]]:
    def prepare() -> list[str]:
        kind = 'attr { key: "%s" value { type: DT_FLOAT } }'
        Path("graph.pbtxt").write_text(
            f'node {{ name: "x" op: "Placeholder" {kind % "dtype"} attr {{ key: "shape" value {{ shape {{ {shape} }} }} }} }}'
            f'node {{ name: "y" op: "{operator}" input: "x" {kind % "T"} }}')
        return ["compile", "graph.pbtxt", *words]
    return prepare


def checkpoint() -> list[str]:
    Path("model/variables").mkdir(parents=True)
    Path("model/saved_model.pbtxt").write_text(
        'meta_graphs { meta_info_def { tags: "serve" } graph_def { node { name: "v" op: "VarHandleOp" } } }')
    Path("model/variables/variables.index").write_bytes(bytes(60))
    return ["compile", "model"]


OK = np.zeros(2, np.float32)
CASES: dict[str, Callable[[], list[str]]] = {
    "NXC0001": lambda: ["compile"],
    "NXC0002": lambda: ["compile", "none.hlo"],
    "NXC0003": lambda: ["compile", "good.hlo", "-o", "none/x.neff"],
    "NXC0100": empty, "NXC0101": foreign, "NXC0102": truncated,
    "NXC0110": graph("MatMul"), "NXC0111": graph("Mystery"), "NXC0112": graph("Relu", "dim { size: -1 }"),
    "NXC0113": graph("Relu", "unknown_rank: true", "--io-config", "{}"), "NXC0114": checkpoint,
    "NXC0200": weights(), "NXC0201": weights(**{"1": OK, "5": OK}), "NXC0202": weights(**{"1": np.zeros(2, np.int32)}),
    "NXC0203": wrong_input, "NXC0204": lambda: ["run", "good.neff", "--inputs", "good.hlo"],
    "NXC0400": damaged_neff, "NXC0401": newer_neff, "NXC0402": other_target, "NXC0500": mismatch,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.hlo").write_text(GOOD)
    return tmp_path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_ends_in_its_code(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = head_of(path)
    command, *options = shlex.split(head["nxcc"])
    status = main(["compile", str(path), "-q", "-o", "out.neff", *options])
    if command == "run":
        assert status == 0
        status = main(["run", "out.neff"])
    error = capsys.readouterr().err
    assert status == CODES[head["code"]].exit_status, error
    assert error.startswith(f"nxcc: error: {head['code']}: ") and head.get("says", "") in error
    assert command == "run" or not Path("out.neff").exists()


@pytest.mark.parametrize("code", CASES)
def test_case_ends_in_its_code(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    if code == "NXC0204":
        neff()
    status = main(CASES[code]())
    captured = capsys.readouterr()
    assert status == CODES[code].exit_status, captured.err
    assert code in captured.err.splitlines()[0] if captured.err else code in captured.out


def test_every_code_is_provoked() -> None:
    provoked = {head_of(path)["code"] for path in FILES} | CASES.keys() | ELSEWHERE.keys()
    assert provoked == CODES.keys()
