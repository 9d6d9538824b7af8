"""The commands end to end on a module small enough to read, mostly through `main` in this process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nxcc.cli import main
from nxcc.compiler.files.outputs import default_output, depfile_text
from nxcc.ir.diagnostics import CompileError
from nxcc.neff.reader import open_neff

TEXT = """HloModule small, input_output_alias={ {1}: (2, {}, may-alias) }
ENTRY main {
  x = f32[4,8] parameter(0), metadata={op_name="jit(f)/x"}
  w = f32[8,16] parameter(1)
  state = f32[4,16] parameter(2)
  y = f32[4,16] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/dense/dot"}
  new = f32[4,16] add(y, state)
  t = f32[4,16] tanh(new)
  ROOT r = (f32[4,16], f32[4,16]) tuple(t, new)
}
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.hlo"
    path.write_text(TEXT)
    generator = np.random.default_rng(0)
    values = {name: generator.standard_normal(dims).astype(np.float32)
              for name, dims in (("x", (4, 8)), ("w", (8, 16)), ("state", (4, 16)))}
    np.savez(tmp_path / "w.npz", **{"1": values["w"]})
    np.savez(tmp_path / "in.npz", input0=values["x"], input1=values["state"], labels=np.arange(3))
    new = values["x"] @ values["w"] + values["state"]
    np.savez(tmp_path / "expected.npz", output0=np.tanh(new), output1=new)
    return path


def lines_of(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    status = main(list(words))
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out.splitlines()


def json_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    return json.loads("\n".join(lines_of(capsys, *words, "--json")))


@pytest.mark.parametrize("bound", ["at compile time", "at load time"])
@pytest.mark.parametrize("placement", [[], ["--keep-on-host=^(new|x)$"], ["--keep-on-host=."]], ids=["device", "split", "host"])
def test_compile_run_and_compare(model: Path, capsys: pytest.CaptureFixture[str], bound: str, placement: list[str]) -> None:
    if bound == "at compile time":
        compile_words, run_words = ["--weights", "w.npz"], []
    else:
        compile_words, run_words = ["--weight-params", "w"], ["--weights", "w.npz"]
    assert main(["compile", "small.hlo", "-q", *compile_words, *placement]) == 0
    assert main(["run", "small.neff", "--inputs", "in.npz", "--outputs", "out.npz", *run_words]) == 0
    got, expected = np.load("out.npz"), np.load("expected.npz")
    for name in ("output0", "output1"):
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-4, atol=1e-5)
    words = ["verify", "small.neff", "--inputs", "in.npz", *run_words]
    assert main([*words, "--expected", "expected.npz"]) == 0
    assert main(words) == 0


def test_verify_fails_with_its_code_when_results_differ(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = dict(np.load("expected.npz"))
    wrong["output1"] = wrong["output1"] + 1
    np.savez("wrong.npz", **wrong)
    assert main(["compile", "small.hlo", "-q", "--weights", "w.npz"]) == 0
    assert main(["verify", "small.neff", "--inputs", "in.npz", "--expected", "wrong.npz"]) == 1
    out = capsys.readouterr().out
    assert "NXC0500" in out and out.count("DIFFERS") == 1


def test_verify_says_which_options_a_neff_no_longer_heeds(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "small.hlo", "-q"]) == 0
    assert main(["verify", "small.neff", "--auto-cast", "all"]) == 0
    assert "warning: --auto-cast has no effect: small.neff is compiled already" in capsys.readouterr().err
    assert main(["verify", "small.neff", "--target", "v1"]) == 1
    assert "compiled for v2, not for v1" in capsys.readouterr().err


@pytest.mark.parametrize("type", ["bf16", "tf32"])
def test_a_neff_with_casts_agrees_with_the_module_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type: str) -> None:
    """Which way a value between two bf16 goes is decided by the last place of an f32: the oracle's may go the other way."""
    monkeypatch.chdir(tmp_path)
    dot = "f32[256,256] dot(%s, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    Path("chain.hlo").write_text(
        "HloModule chain\nENTRY main {\n x = f32[256,256] parameter(0)\n w = f32[256,256] parameter(1)\n"
        f"a = {dot % 'x'}\n b = f32[256,256] tanh(a)\n c = {dot % 'b'}\n d = f32[256,256] tanh(c)\n ROOT e = {dot % 'd'}\n}}\n")
    assert main(["compile", "chain.hlo", "-q", "--auto-cast=matmult", f"--auto-cast-type={type}"]) == 0
    assert main(["verify", "chain.neff"]) == 0
    assert main(["verify", "chain.neff", "--tolerance=1e-5"]) == 1


def test_an_expression_that_matches_nothing_is_said(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "small.hlo", "-q", "--keep-on-host", "dense"]) == 0
    assert json_of(capsys, "compile", "small.hlo", "--keep-on-host", "dens$")["notices"] == [
        "--keep-on-host dens$ has no effect: no instruction matches"]


@pytest.mark.parametrize(("line", "text"), [
    ("complie small.hlo", "no command is named 'complie'; did you mean compile?"),
    ("opt", "Missing argument 'MODEL'"),
    ("run small.neff --input x", "Did you mean"),
])
def test_wrong_words_name_the_nearest(model: Path, capsys: pytest.CaptureFixture[str], line: str, text: str) -> None:
    assert main(line.split()) == 2
    assert text in capsys.readouterr().err


def test_passes_are_listed_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert "fusion" in lines_of(capsys, "opt", "--list")


def test_a_compiled_file_is_no_model(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "small.hlo", "-q"]) == 0
    assert main(["compile", "small.neff"]) == 1
    assert "it looks like a NEFF, which is compiled already" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "says"), [
    ("--logfile small.hlo", "small.hlo is an input and an output"),
    ("--depfile small.hlo", "small.hlo is an input and an output"),
    ("-o x --logfile x", "x is the name of two outputs"), ("-o x --depfile ./x", "./x is the name of two outputs"),
    ("--weights w.npz --logfile w.npz", "w.npz is an input and an output"),
])
def test_no_file_is_written_that_is_read_or_written_twice(model: Path, capsys: pytest.CaptureFixture[str], words: str,
                                                          says: str) -> None:
    """Opening a log empties the file: the model must not be gone then."""
    before = {path.name: path.read_bytes() for path in model.parent.iterdir()}
    assert main(["compile", "small.hlo", *words.split()]) == 2
    assert says in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in model.parent.iterdir()} == before
    assert main(["compile", "small.hlo", "-q", "--logfile", "/dev/null", "--depfile", "/dev/null"]) == 0


def test_verify_of_a_model_compiles_it(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json_of(capsys, "verify", "small.hlo", "--weights", "w.npz")["passed"]
    assert [path.name for path in model.parent.glob("*.neff")] == []


def test_the_same_bytes_from_other_folders_seeds_and_runs(model: Path, tmp_path: Path) -> None:
    found = set()
    for number in range(3):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        environment = os.environ | {"PYTHONHASHSEED": str(number)}
        subprocess.run([sys.executable, "-m", "nxcc.cli", "compile", "../small.hlo", "-q", "--keep-on-host=new"], cwd=folder,
                       env=environment, check=True)
        found.add((folder / "small.neff").read_bytes())
    assert len(found) == 1


def test_check_says_what_falls_back_and_writes_nothing(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = json_of(capsys, "check", "small.hlo", "--keep-on-host", "dense", "--placement=support")
    assert [(row["instruction"], row["opcode"], row["source"]) for row in body["host"]] == [("y", "dot", "jit(f)/dense/dot")]
    assert body["total_count"] == 3 and body["device_count"] == 2 and body["supported_count"] == 3
    assert body["unsupported_operators"] == []
    assert body["device_share"]["operators"] == pytest.approx(2 / 3) and body["reasons"][0]["kind"] == "kept"
    assert body["analysis"]["support_percentage"] == "100.00%" and not body["analysis"]["unsupported_operators"]
    assert body["memory"]["hbm_bytes"] > 0
    assert not list(model.parent.glob("*.neff"))


@pytest.mark.parametrize("words", [["--auto-cast=all"], ["--target=v1"], []], ids=["cast", "v1", "plain"])
@pytest.mark.parametrize("name", ["^y$", "^t$"])
def test_what_is_kept_stays_kept_when_passes_replace_it(model: Path, capsys: pytest.CaptureFixture[str], name: str,
                                                        words: list[str]) -> None:
    body = json_of(capsys, "check", "small.hlo", f"--keep-on-host={name}", "--placement=support", *words)
    assert {"^y$": "dot", "^t$": "tanh"}[name] in {row["opcode"] for row in body["host"]}


def test_a_forbidden_fallback_names_the_instruction(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "small.hlo", "--host-fallback=forbid", "--keep-on-host=^t$"]) == 1
    error = capsys.readouterr().err
    assert "NXC0300" in error and "[at t]" in error


def test_info_and_disassembly_show_the_file(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "small.hlo", "-q", "--weight-params", "1", "-O0"]) == 0
    body = json_of(capsys, "info", "small.neff", "--memory", "--weights")
    assert [(row["name"], row["role"], row["param"]) for row in body["inputs"]] == [
        ("input0", "input", 0), ("weight1", "weight", 1), ("input1", "state", 2)]
    assert body["aliases"] == [{"output": [1], "param": 2, "kind": "may"}]
    assert lines_of(capsys, "info", "small.neff")[0].startswith("small.neff: written by nxcc ")
    text = "\n".join(lines_of(capsys, "disasm", "small.neff", "--hlo", "y"))
    assert "matmul" in text and "y (jit(f)/dense/dot)" in text


def test_a_fused_instruction_leads_to_the_code_of_its_region(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "small.hlo", "-q"]) == 0
    lines = lines_of(capsys, "disasm", "small.neff", "--hlo", "y")
    region = lines[0].removeprefix("y is part of ")
    assert lines[0] != region and lines[1:] == lines_of(capsys, "disasm", "small.neff", "--hlo", region)
    assert main(["disasm", "small.neff", "--hlo", region + "d"]) == 2
    assert f"did you mean {region}?" in capsys.readouterr().err


def test_depfile_names_what_the_output_depends_on(model: Path) -> None:
    assert main(["compile", "small.hlo", "-q", "--weights", "w.npz", "-o", "a b.neff", "--depfile", "d"]) == 0
    assert Path("d").read_text() == "a\\ b.neff: small.hlo w.npz\n"


def test_depfile_of_a_folder_names_its_files(tmp_path: Path) -> None:
    for name in ("m/saved_model.pb", "m/variables/variables.index", "m/assets/words.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    folder = tmp_path / "m"
    assert depfile_text("m.neff", [str(folder)]) == \
        f"m.neff: {folder}/saved_model.pb {folder}/variables/variables.index\n"


def test_names_in_a_depfile_are_as_make_reads_them() -> None:
    assert depfile_text("o:1 %.neff", ["a:b%c#d$"]) == "o\\:1\\ \\%.neff: a\\:b%c\\#d$$\n"
    with pytest.raises(CompileError, match="make has no name"):
        depfile_text("m.neff", ["two\nlines"])


@pytest.mark.parametrize(("model", "output"), [
    ("m.hlo", "m.neff"), ("a/m.hlo.pb", "m.neff"), ("m.pb.gz", "m.neff"), ("m.bin", "m.neff"), ("m-.pb", "m-.neff"),
    ("-m.hlo", "./-m.neff"), ("jit_f.before_optimizations.txt", "jit_f.before_optimizations.neff"), ("-", "file.neff"),
    ("model", "model.neff"), (".hlo", "file.neff"), ("m.neff", "m.neff.neff")])
def test_the_default_output_is_the_stem(model: str, output: str) -> None:
    assert default_output(model) == output


GRAPH = """node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } } }
node { name: "y" op: "Neg" input: "x" attr { key: "T" value { type: DT_FLOAT } } }
"""


def test_the_same_bytes_wherever_the_io_config_lies(model: Path, tmp_path: Path) -> None:
    config = '{"inputs": {"x:0": [[2, 3], "float32"]},\n "outputs": ["y:0"]}'
    (tmp_path / "g.pbtxt").write_text(GRAPH)
    (tmp_path / "far").mkdir()
    for path in ("io.json", "far/other.json"):
        (tmp_path / path).write_text(config)
    found = []
    for given in ("io.json", str(tmp_path / "far/other.json"), config):
        assert main(["compile", "g.pbtxt", "-q", "--io-config", given]) == 0
        found.append((tmp_path / "g.neff").read_bytes())
    assert found[0] == found[1] == found[2]


def test_info_keeps_the_options_that_were_given(model: Path) -> None:
    assert main(["compile", "small.hlo", "-q", "--fp32-cast", "all", "--strip", "--output=x.neff", "--weight-params", "1"]) == 0
    info = open_neff("x.neff").info
    assert info is not None and info.flags == ("--auto-cast=all", "--auto-cast-type=bf16", "--weight-params=1", "--strip")


def test_stages_are_kept_in_the_work_folder(model: Path) -> None:
    assert main(["compile", "small.hlo", "-q", "--workdir", "work"]) == 0
    names = sorted(path.name for path in Path("work").iterdir())
    assert names[0] == "00-read.hlo" and any(name.endswith("-partition.txt") for name in names)
    assert main(["compile", "small.hlo", "-q", "--dump-after", "partition", "--stop-after", "partition", "-o", "x.neff"]) == 0
    assert list(Path(".").glob("*-partition.txt")) and not Path("x.neff").exists()
    assert main(["compile", "small.hlo", "--dump-after", "read", "--stop-after", "read", "--workdir", "early"]) == 0
    assert [path.name for path in Path("early").iterdir()] == ["00-read.hlo"]


def test_a_stage_without_text_is_said_to_have_none(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "small.hlo", "--dump-after", "package", "--dump-after", "bind"]) == 0
    assert "--dump-after package wrote nothing" in capsys.readouterr().err
    assert list(Path(".").glob("*-bind.hlo"))


def test_opt_converts_between_text_and_binary(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["opt", "small.hlo", "--emit", "binary", "-o", "small.pb"]) == 0
    assert lines_of(capsys, "opt", "small.pb") == lines_of(capsys, "opt", "small.hlo")


@pytest.mark.parametrize(("words", "code"), [
    (["compile", "none.hlo"], "NXC0002"),
    (["compile", "small.hlo", "-o", "no/such/folder/x.neff"], "NXC0003"),
    (["compile", "small.hlo", "-o", "/dev/full/x"], "NXC0003"),
    (["compile", "small.hlo", "--weights", "in.npz"], "NXC0201"),
    (["compile", "small.hlo", "--weights", "small.hlo"], "NXC0204"),
    (["compile", "small.hlo", "--weight-params", "7"], "NXC0001"),
    (["compile", "w.npz"], "NXC0101"),
    (["run", "small.hlo"], "NXC0400"),
    (["run", "none.neff"], "NXC0002"),
])
def test_wrong_input_is_one_clear_error(model: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: str) -> None:
    before = sorted(os.listdir("."))
    assert main(words) in (1, 2)
    assert capsys.readouterr().err.splitlines()[0].startswith(f"nxcc: error: {code}")
    assert sorted(os.listdir(".")) == before


@pytest.mark.parametrize(("arrays", "text"), [
    ({"input0": np.zeros((4, 8))}, "float64"),
    ({"input0": np.zeros((4, 9), np.float32)}, "[4, 9]"),
    ({"other": np.zeros(2)}, "input0 is missing"),
])
def test_inputs_that_do_not_fit_are_named(model: Path, capsys: pytest.CaptureFixture[str], arrays: dict, text: str) -> None:
    assert main(["compile", "small.hlo", "-q"]) == 0
    np.savez("bad.npz", **arrays)
    assert main(["run", "small.neff", "--inputs", "bad.npz"]) == 1
    error = capsys.readouterr().err
    assert "NXC0203" in error and text in error


def test_a_declared_weight_needs_a_value_and_others_are_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "small.hlo", "-q", "--weight-params", "1"]) == 0
    assert main(["run", "small.neff"]) == 1
    assert "NXC0200" in capsys.readouterr().err
    assert main(["run", "small.neff", "--weights", "in.npz"]) == 1
    assert "NXC0201" in capsys.readouterr().err


def test_a_neff_for_another_target_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "small.hlo", "-q"]) == 0
    assert main(["compile", "small.hlo", "-q", "--target", "v1", "-o", "v1.neff"]) == 0
    for words in ("run small.neff --target inf1", "run v1.neff --target v2", "verify small.neff --target v1",
                  "verify v1.neff --target trn1"):
        assert main(words.split()) == 1
        assert "NXC0402" in capsys.readouterr().err


def test_an_unwritable_folder_keeps_nothing(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("/proc/self")  # where root may not write either
    if os.geteuid() != 0:
        folder = model.parent / "locked"
        folder.mkdir(mode=0o500)
    before = sorted(path.name for path in folder.iterdir())
    assert main(["compile", "small.hlo", "-o", str(folder / "x.neff")]) == 1
    assert "NXC0003" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == before


def heeds_interrupts() -> None:
    """A shell starts what runs in the background with the signal ignored, which its children inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_ends_with_130_and_leaves_nothing(tmp_path: Path) -> None:
    output, log = tmp_path / "x.neff", tmp_path / "log"
    words = ["compile", "-", "-o", str(output), "--logfile", str(log)]
    script = f"import sys; from nxcc.cli import main; sys.exit(main({words!r}))"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stderr=subprocess.PIPE,
                          preexec_fn=heeds_interrupts) as process:
        assert process.stderr is not None
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (log.exists() and "read begins" in log.read_text()):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        error = process.stderr.read().decode()
        process.wait(30)
    assert process.returncode == 130, error
    assert "interrupted" in error and not output.exists()


def test_an_interrupt_while_modules_load_ends_with_130() -> None:
    script = ("import os, signal, sys\nclass Finder:\n  def find_spec(self, name, path, target=None):\n"
              "    if name == 'nxcc.compiler.console.arguments': os.kill(os.getpid(), signal.SIGINT)\n"
              "sys.meta_path.insert(0, Finder())\nfrom nxcc.__main__ import entry\nentry()")
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60,
                           preexec_fn=heeds_interrupts)
    assert (found.returncode, found.stderr.count("\n")) == (130, 1) and "interrupted" in found.stderr


def test_an_interrupt_while_a_command_loads_modules_ends_with_130() -> None:
    """An extension module makes another error, and lines of its own, of an exception in what it imports."""
    script = ("import os, signal, sys\nclass Finder:\n  def find_spec(self, name, path, target=None):\n"
              "    if name == 'numpy.exceptions': os.kill(os.getpid(), signal.SIGINT)\n"
              "sys.meta_path.insert(0, Finder())\nfrom nxcc.__main__ import entry\n"
              "sys.argv[1:] = ['explain', 'cost', 'matmul']\nimport nxcc.cli\n"
              "nxcc.cli.nxcc.commands['explain'].callback = lambda **given: (\n"
              "  __import__('numpy'), __import__('time').sleep(9))\nentry()")
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60,
                           preexec_fn=heeds_interrupts)
    assert (found.returncode, found.stderr.count("\n")) == (130, 2), found.stderr  # click ends the line of ^C first


@pytest.mark.parametrize("words", (["list-operators"], ["explain"], ["--help"]), ids=lambda words: words[0])
def test_a_pipe_that_nobody_reads_is_no_fault(words: list[str]) -> None:
    command = [sys.executable, "-m", "nxcc.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, 1)


def test_a_model_that_may_not_be_read_is_unreadable_input(model: Path, capsys: pytest.CaptureFixture[str],
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr("builtins.open", refuse)
    assert main(["check", "small.hlo"]) == 1
    assert "NXC0002" in capsys.readouterr().err


def test_a_fault_of_ours_keeps_a_reproducer(model: Path, capsys: pytest.CaptureFixture[str],
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    from nxcc.compiler import driver

    def fails(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("seven")

    monkeypatch.setattr(driver, "partition", fails)
    assert main(["compile", "small.hlo", "--workdir", "work"]) == 70
    error = capsys.readouterr().err
    assert "NXC0009" in error and "ZeroDivisionError: seven" in error and error.count("\n") == 1
    kept = next(Path("work").glob("nxcc-error-*"))
    assert (kept / "small.hlo").read_text() == TEXT
    assert "nxcc compile small.hlo --workdir work" in (kept / "error.txt").read_text()


def test_the_python_api_has_the_same_verbs(model: Path) -> None:
    import nxcc
    compiled = nxcc.compile("small.hlo", "api.neff", weights="w.npz")
    assert compiled.path == "api.neff" and compiled.report["target"] == "v2"
    given, expected = np.load("in.npz"), np.load("expected.npz")
    got = nxcc.load("api.neff").run([given["input0"], given["input1"]])
    np.testing.assert_allclose(got[0], expected["output0"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("words", ["run x.neff --seed -1", "verify x.neff --tolerance -1", "estimate x.neff --trips 0",
                                   "bisect x.hlo --trials 0"])
def test_numbers_out_of_range_are_wrong_usage(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    assert "NXC0001" in capsys.readouterr().err


def test_inputs_may_come_through_a_pipe(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines_of(capsys, "compile", "small.hlo", "-o", "s.neff", "--weights", "w.npz", "-q")
    os.mkfifo("pipe")
    reader, writer = "pipe", subprocess.Popen(["cp", "in.npz", "pipe"])
    assert json_of(capsys, "run", "s.neff", "--inputs", reader)["inputs"] == "given"
    assert writer.wait() == 0


@pytest.mark.parametrize("line", [
    "compile small.hlo -o", "compile small.hlo --weights", "compile small.hlo --depfile", "compile",
    "check small.hlo --workdir", "run s.neff --inputs", "run s.neff --outputs", "run s.neff --weights",
    "verify s.neff --expected", "profile s.neff --trace", "profile", "info s.neff --extract", "opt small.hlo --passes",
    "reduce small.hlo -o", "cache list --cache-dir"])
def test_an_empty_value_is_wrong_usage(model: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    before = sorted(os.listdir("."))
    assert main([*line.split(), ""]) == 2
    assert "is empty; give a value" in capsys.readouterr().err
    assert sorted(os.listdir(".")) == before


@pytest.mark.parametrize("line", [
    "compile - --weights -", "run - --inputs -", "compile small.hlo -o - --json", "compile small.hlo -o - --depfile -",
    "compile small.hlo --workdir -", "compile small.hlo --logfile -", "reduce small.hlo -o -", "info s.neff --extract -"])
def test_a_standard_stream_is_one_file(model: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    before = sorted(os.listdir("."))
    assert main(line.split()) == 2
    assert "NXC0001" in capsys.readouterr().err
    assert sorted(os.listdir(".")) == before


def shell(script: str) -> subprocess.CompletedProcess[bytes]:
    """Run by bash, with `nxcc` on its own lines."""
    return subprocess.run(["bash", "-c", f'set -o pipefail; nxcc() {{ "{sys.executable}" -m nxcc "$@"; }}; {script}'],
                          capture_output=True)


def test_commands_are_filters(model: Path) -> None:
    ran = shell("nxcc compile - -o - --weights w.npz < small.hlo | nxcc run - --inputs in.npz --outputs - | cat > out.npz")
    assert ran.returncode == 0 and not ran.stdout, ran.stderr
    assert b"-: " in ran.stderr and b"output0" in ran.stderr
    given, got = (np.load(name) for name in ("in.npz", "out.npz"))
    assert got["output0"].shape == (4, 16) and given["input0"].shape == (4, 8)


def test_where_a_file_comes_from_changes_no_byte(model: Path) -> None:
    ran = shell("nxcc compile small.hlo -q; cat small.hlo | nxcc compile - -q;"
                "nxcc compile <(cat small.hlo) -o >(cat > b.neff);"
                "nxcc compile small.hlo -o /dev/stdout | cat > c.neff; sleep 0.1")
    assert ran.returncode == 0, ran.stderr
    first = Path("small.neff").read_bytes()
    assert all(Path(name).read_bytes() == first for name in ("file.neff", "b.neff", "c.neff"))


def test_a_model_in_a_pipe_can_be_verified(model: Path) -> None:
    assert b"all outputs agree" in shell("cat small.hlo | nxcc verify -").stdout


@pytest.mark.parametrize("word", ["nan", "inf", "-1", "x"])
def test_tolerance_is_a_number_to_compare_with(model: Path, capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert main(["verify", "small.hlo", f"--tolerance={word}"]) == 2
    assert "--tolerance" in capsys.readouterr().err


ENDLESS = """HloModule m
body { x = f32[2] parameter(0) ROOT y = f32[2] negate(x) }
always { x = f32[2] parameter(0) ROOT p = pred[] constant(true) }
ENTRY main { x = f32[2] parameter(0) ROOT w = f32[2] while(x), condition=always, body=body }
"""


def test_loop_without_end_meets_the_time_limit(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("endless.hlo").write_text(ENDLESS)
    lines_of(capsys, "compile", "endless.hlo", "-o", "e.neff", "-q")
    for words in (["run", "e.neff"], ["verify", "endless.hlo"]):
        assert main([*words, "--time-limit", "0.3"]) == 1
        assert "NXC0107: the simulation did not end within 0.3 seconds" in capsys.readouterr().err


def test_a_name_that_the_terminal_cannot_show_is_no_failure(tmp_path) -> None:
    (tmp_path / "mödel.hlo").write_text("HloModule m\nENTRY e {\n  p = f32[4] parameter(0)\n  ROOT r = f32[4] negate(p)\n}\n")
    words = [sys.executable, "-m", "nxcc", "compile", "mödel.hlo"]
    ran = subprocess.run(words, cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert ran.returncode == 0 and (tmp_path / "mödel.neff").exists()
    assert b"code:" in ran.stdout
