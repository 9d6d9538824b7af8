"""What a compile says on the way: what counts by level, dots on a terminal, and a log of everything."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from nxcc.cli import main
from nxcc.compiler.console.progress import ERROR, INFO, WARNING, Journal

TEXT = """HloModule m
ENTRY main {
  x = f32[2] parameter(0)
  c = f32[2] constant({1, 2})
  n = f32[2] negate(c)
  ROOT r = (f32[2], f32[2]) tuple(x, n)
}
"""
WARNED = "output1 depends on no input: its value is fixed"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.hlo").write_text(TEXT)
    return "m.hlo"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(monkeypatch: pytest.MonkeyPatch, level: int, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    journal = Journal(level)
    for name in ("read", "verify", "lower"):
        with journal.stage(name):
            journal.note("a warning")
    journal.close()
    return stream.getvalue()


def test_frameworks_get_dots_on_a_terminal_and_silence_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, 35, Terminal()) == "...\n"
    assert said(monkeypatch, 35, io.StringIO()) == ""
    assert said(monkeypatch, ERROR, Terminal()) == ""


def test_the_stage_is_named_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = said(monkeypatch, WARNING, Terminal())
    assert "read" in shown and "lower" in shown
    assert "read …" not in said(monkeypatch, INFO, io.StringIO())


@pytest.mark.parametrize(("level", "out", "warned"), [
    ("info", "verify: ", True), ("warning", "m.neff: ", True), ("35", "", False), ("error", "", False), ("critical", "", False),
])
def test_the_level_decides_what_is_printed(model: str, capsys: pytest.CaptureFixture[str], level: str, out: str,
                                           warned: bool) -> None:
    assert main(["compile", model, "--verbose", level]) == 0
    printed = capsys.readouterr()
    assert out in printed.out and bool(printed.out) is bool(out)
    assert (WARNED in printed.err) is warned
    assert main(["compile", "none.hlo", "--verbose", level]) == 1
    assert capsys.readouterr().err.startswith("nxcc: error: NXC0002")


def test_the_log_has_everything_whatever_is_shown(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", model, "-q", "--logfile", "logs/new/l.txt"]) == 0
    lines = Path("logs/new/l.txt").read_text().splitlines()
    assert f"warning {WARNED}" in lines and "info    write begins" in lines and capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("root", "words", "warned"), [
    ("(f32[2], f32[2]) tuple(x, n)", [], ["output1"]), ("f32[2] add(x, n)", [], []), ("f32[2] negate(n)", [], ["output0"]),
    ("(f32[2], (f32[2], f32[2])) tuple(n, t)", [], ["output0", "output2"]), ("f32[2] negate(n)", ["--weight-params", "0"], []),
    ("f32[2] rng(a, b), distribution=rng_uniform", [], []),
], ids=["one-of-two", "none", "all", "nested", "no-inputs", "random"])
def test_an_output_that_no_input_reaches_is_said(root: str, words: list[str], warned: list[str], model: str,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    more = "  t = (f32[2], f32[2]) tuple(x, c)\n  a = f32[] constant(0)\n  b = f32[] constant(1)\n"
    Path(model).write_text(TEXT.replace("  ROOT r = (f32[2], f32[2]) tuple(x, n)", f"{more}  ROOT r = {root}"))
    assert main(["compile", model, *words]) == 0
    error = capsys.readouterr().err
    assert [line.split()[2] for line in error.splitlines() if "depends on no input" in line] == warned
