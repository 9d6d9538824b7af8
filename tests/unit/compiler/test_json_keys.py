"""Every key that a command prints with --json is documented, and every documented key is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nxcc.cli import main
from nxcc.compiler.reports.json_keys import ERROR, EVERY, KEYS

TEXT = """HloModule m
ENTRY main {
  x = f32[4,8] parameter(0)
  w = f32[8,16] parameter(1)
  y = f32[4,16] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT t = f32[4,16] tanh(y)
}
"""
COMMANDS: dict[str, tuple[str, ...]] = {
    "compile": ("compile m.hlo -o a.neff --timing", "compile m.hlo -o a.neff --cache-dir kept",
                "compile m.hlo -o a.neff --cache-dir kept"),
    "check": ("check m.hlo --timing", "check m.hlo --target v1"),
    "run": ("run m.neff --timing --outputs out.npz",),
    "verify": ("verify m.hlo", "verify m.neff"),
    "estimate": ("estimate m.neff", "estimate cores.neff"),
    "profile": ("profile m.neff",),
    "profile of two files": ("profile m.neff m.neff",),
    "info": ("info m.neff --memory --weights --extract out",),
    "bisect": ("bisect m.hlo",),
    "reduce": ("reduce m.hlo -o small.hlo --test false --trials 5",),
    "cache": ("cache list --cache-dir kept", "cache show --cache-dir kept", "cache verify --cache-dir kept",
              "cache prune --cache-dir kept", "cache why {key} {key} --cache-dir kept", "cache clear --cache-dir kept"),
    "list-operators": ("list-operators",),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("m.hlo").write_text(TEXT)
    assert main(["compile", "m.hlo", "-q", "--cache-dir", "kept"]) == 0
    assert main(["compile", "m.hlo", "-q", "-o", "cores.neff", "--target=v1", "--neuroncore-pipeline-cores=2"]) == 0
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], line: str) -> dict[str, object]:
    capsys.readouterr()
    status = main([*line.split(), "--json"])
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    assert status in (0, 1)
    return found


@pytest.mark.parametrize("command", KEYS)
def test_documented_keys_are_those_printed(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found: set[str] = set()
    (entry,) = printed(capsys, "cache list --cache-dir kept")["entries"]  # type: ignore[misc]
    for line in COMMANDS[command]:
        found |= printed(capsys, line.format(key=entry["key"])).keys()  # type: ignore[index]
    assert found == KEYS[command].keys() | EVERY.keys()


def test_keys_of_an_error_are_documented(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "compile none.hlo")
    assert found.keys() == ERROR.keys()
    assert all(key in ERROR["error"] for key in found["error"])  # type: ignore[attr-defined]


def test_explain_lists_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "json", "estimate"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("nxcc estimate --json:\n") and "  device_us " in text and "nxcc run" not in text
    assert main(["explain", "json", "disasm"]) == 2
    assert "has no --json" in capsys.readouterr().err
