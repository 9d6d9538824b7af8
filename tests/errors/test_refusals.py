"""What ends in one message and leaves nothing behind: full disks, closed streams, inputs that change, sizes without bound."""

from __future__ import annotations

import gzip
import os
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nxcc.cli import main
from nxcc.compiler import driver
from nxcc.compiler.debugging.failures import MAX_LINE
from nxcc.compiler.files import inputs
from nxcc.ir import files, streams
from nxcc.passes import inline_calls

GOOD = "HloModule m\nENTRY main {\n  x = f32[2] parameter(0)\n  w = f32[2] parameter(1)\n  ROOT r = f32[2] add(x, w)\n}\n"
NXCC = [sys.executable, "-m", "nxcc.cli"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.hlo").write_text(GOOD)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], code: str, *words: str, says: str = "", status: int = 1) -> None:
    """The command ends in this code with one line, and leaves no more files than there were."""
    before = sorted(os.listdir())
    assert main(list(words)) == status
    error = capsys.readouterr().err
    assert error.startswith(f"nxcc: error: {code}: ") and says in error and error.count("\n") == 1, error
    assert sorted(os.listdir()) == before


def shell(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", text.replace("nxcc", shlex.join(NXCC))], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("words", ["list-operators", "list-operators --json", "opt good.hlo --emit binary"])
def test_a_full_disk_behind_stdout_is_one_line(words: str) -> None:
    found = shell(f"nxcc {words} > /dev/full")
    assert found.returncode == 1
    assert found.stderr.startswith("nxcc: error: NXC0003: ") and found.stderr.count("\n") == 1


def test_closed_streams_do_no_harm() -> None:
    assert shell("nxcc compile good.hlo >&-").returncode == 0
    found = shell("nxcc compile - -o x.neff <&-")
    assert (found.returncode, found.stderr.split(": ")[2]) == (1, "NXC0002") and not Path("x.neff").exists()


def test_a_log_on_a_full_disk_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "NXC0003", "compile", "good.hlo", "--logfile", "/dev/full", says="cannot write the log /dev/full: No space")


@pytest.mark.parametrize("words", ["compile good.hlo -o x.neff", "info good.neff --extract out", "profile good.neff -o p.html",
                                   "run good.neff --outputs x.npz", "opt good.hlo -o x.hlo"])
def test_a_file_that_outgrows_its_disk_leaves_nothing(words: str) -> None:
    assert main(["compile", "good.hlo", "-q"]) == 0
    before = sorted(os.listdir())
    found = subprocess.run([*NXCC, *words.split()], capture_output=True, text=True, timeout=120,
                           preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)))
    assert found.returncode == 1
    assert found.stderr.startswith("nxcc: error: NXC0003: ") and found.stderr.count("\n") == 1
    assert sorted(os.listdir()) == before


def test_an_output_is_no_input_and_every_output_is_tried_first(capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "NXC0001", "compile", "good.hlo", "-o", "./good.hlo", says="is an input and an output", status=2)
    refused(capsys, "NXC0003", "compile", "good.hlo", "--depfile", "none/good.d", says="none")
    assert Path("good.hlo").read_text() == GOOD


@pytest.mark.parametrize("words", [
    "run good.neff --inputs in.npz --outputs in.npz", "run good.neff --outputs ./good.neff", "profile good.neff -o good.neff",
    "profile good.neff --trace good.neff", "profile good.neff good.neff -o good.neff", "reduce good.hlo -o good.hlo",
    "reduce good.hlo -o in.hlo --inputs in.npz"])
def test_no_command_writes_over_what_it_reads(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "good.hlo", "-q"]) == 0
    np.savez("in.npz", input0=np.zeros(2, np.float32), input1=np.zeros(2, np.float32))
    files = {path: path.read_bytes() for path in Path(".").iterdir()}
    refused(capsys, "NXC0001", *words.split(), says="is an input and an output", status=2)
    assert {path: path.read_bytes() for path in Path(".").iterdir()} == files


@pytest.mark.parametrize("cache", [[], ["--cache-dir", "kept"]], ids=["compiled", "cached"])
def test_the_depfile_comes_with_the_neff_or_neither(cache: list[str], capsys: pytest.CaptureFixture[str],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["compile", "good.hlo", "-q", "-o", "first.neff", *cache]) == 0
    whole = files.whole_file

    def full(path: str, **options: bool) -> object:
        return whole("/dev/full" if path.endswith(".d") else path, **options)

    monkeypatch.setattr(files, "whole_file", full)
    refused(capsys, "NXC0003", "compile", "good.hlo", "-o", "x.neff", "--depfile", "x.d", *cache, says="No space left")


@pytest.mark.parametrize(("words", "says"), [
    ("run good.hlo", "good.hlo is no NEFF: it looks like an HLO module; `nxcc compile good.hlo` makes one"),
    ("estimate in.npz", "in.npz is no NEFF: it looks like a zip archive"),
    ("info good.pb", "good.pb is no NEFF: it looks like an HLO module"),
    ("profile good.hlo", "no NEFF"), ("disasm good.hlo", "no NEFF"),
])
def test_what_is_no_neff_is_called_what_it_is(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("in.npz", input0=np.zeros(2, np.float32))
    assert main(["opt", "good.hlo", "--emit", "binary", "-o", "good.pb"]) == 0
    refused(capsys, "NXC0400", *words.split(), says=says)


@pytest.mark.parametrize(("words", "says"), [
    ("compile god.hlo", "did you mean good.hlo?"), ("run good.nef", "did you mean good.neff?"),
    ("compile none/good.hlo", "there is no folder none"), ("run good.neff --inputs inn.npz", "did you mean in.npz?"),
])
def test_a_missing_file_names_its_neighbour(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.npz").touch()
    assert main(["compile", "good.hlo", "-q"]) == 0
    refused(capsys, "NXC0002", *words.split(), says=says)


def test_wrong_words_point_to_the_help_of_their_command(capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "NXC0001", "compile", says="see `nxcc compile --help`", status=2)
    refused(capsys, "NXC0001", "cache", "prune", "--nothing", says="see `nxcc cache prune --help`", status=2)


def test_two_compiles_of_one_name_leave_one_whole_file() -> None:
    Path("other.hlo").write_text(GOOD.replace("add", "multiply"))
    wanted = set()
    for name in ("good", "other"):
        assert main(["compile", f"{name}.hlo", "-q"]) == 0
        wanted.add(Path(f"{name}.neff").read_bytes())
    before = sorted(os.listdir())
    words = [[*NXCC, "compile", f"{name}.hlo", "-q", "-o", "x.neff", "--depfile", "x.d"] for name in ("good", "other") * 2]
    running = [subprocess.Popen(line, stderr=subprocess.PIPE) for line in words]
    assert [(process.communicate(timeout=120)[1], process.returncode) for process in running] == [(b"", 0)] * 4
    assert Path("x.neff").read_bytes() in wanted
    assert sorted(os.listdir()) == sorted([*before, "x.neff", "x.d"])


def test_a_device_is_written_to_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", lambda *names: pytest.fail(f"replaces {names}"))
    assert main(["opt", "good.hlo", "--emit", "binary", "-o", "/dev/null"]) == 0


@pytest.mark.parametrize("change", [lambda path: os.utime(path, ns=(1, 1)), os.unlink])
def test_an_input_that_changes_meanwhile_is_refused(change: Callable[[str], None], capsys: pytest.CaptureFixture[str],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = driver.compile_module

    def slow(*arguments: object, **options: object) -> object:
        change("w.npz")
        return compiled(*arguments, **options)  # type: ignore[arg-type]

    np.savez("w.npz", **{"1": np.zeros(2, np.float32)})
    monkeypatch.setattr(driver, "compile_module", slow)
    assert main(["compile", "good.hlo", "--weights", "w.npz", "-o", "x.neff"]) == 1
    assert "NXC0002: w.npz changed while it was compiled" in capsys.readouterr().err
    assert not Path("x.neff").exists()


def test_all_members_of_a_gzip_file_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    front, back = (gzip.compress(part.encode()) for part in (GOOD[:40], GOOD[40:]))
    Path("two.gz").write_bytes(front + back + bytes(512))
    assert main(["compile", "two.gz", "-q"]) == 0
    Path("more.gz").write_bytes(front + back + b"and more")
    refused(capsys, "NXC0102", "compile", "more.gz", says="8 bytes follow its end")


def test_what_does_not_end_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_INFLATED_BYTES", 1000)
    monkeypatch.setattr(streams, "MAX_DEVICE_BYTES", 1000)
    Path("bomb.gz").write_bytes(gzip.compress(GOOD.encode() + b" " * 1000))
    refused(capsys, "NXC0107", "compile", "bomb.gz", says="more than 1000 bytes")
    refused(capsys, "NXC0107", "compile", "/dev/zero", "-o", "x.neff", says="more than 1000 bytes")


def test_calls_that_double_at_every_level_are_refused(capsys: pytest.CaptureFixture[str],
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline_calls, "MAX_INSTRUCTIONS", 500)
    text = "HloModule m\ndouble0 {\n  p = f32[] parameter(0)\n  ROOT r = f32[] sine(p)\n}\n"
    for level in range(1, 60):
        text += (f"double{level} {{\n  p = f32[] parameter(0)\n  a = f32[] call(p), to_apply=double{level - 1}\n"
                 f"  ROOT r = f32[] call(a), to_apply=double{level - 1}\n}}\n")
    text += "ENTRY main {\n  p = f32[] parameter(0)\n  ROOT r = f32[] call(p), to_apply=double59\n}\n"
    Path("bomb.hlo").write_text(text)
    refused(capsys, "NXC0107", "compile", "bomb.hlo", says="500 instructions")


def test_a_message_has_bounded_length(capsys: pytest.CaptureFixture[str]) -> None:
    Path("long.hlo").write_text(GOOD.replace("add", "x" * 100_000))
    assert main(["compile", "long.hlo"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("nxcc: error: NXC0105: ") and len(error) < 3 * MAX_LINE
