"""What the command line promises before it does any work: a quick start, exit statuses, names of unknown things."""

import json
import subprocess
import sys

import pytest

from nxcc.cli import main

HEAVY = ("numpy", "google.protobuf", "rich", "lark", "ml_dtypes", "scipy")


@pytest.mark.parametrize("words", [["--help"], ["compile", "--help"], ["list-operators"], ["explain"], ["explain", "NXC0300"]])
def test_light_commands_import_nothing_heavy(words: list[str]) -> None:
    script = (f"import sys; from nxcc.cli import main; status = main({words!r});"
              f"sys.exit(status or any(name in sys.modules for name in {HEAVY!r}))")
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(("words", "text"), [
    (["compile"], "Missing argument"),
    (["compile", "m", "--optlvel", "2"], "did you mean --optlevel?"),
    (["compile", "m", "--auto-cast=sometimes"], "one of none, matmult, all"),
    (["compile", "m", "--stop-after=nowhere"], "NXC0002"),
    (["run", "f", "--strikt"], "No such option"),
    (["nonsense"], "no command is named"),
    (["verify", "m", "--target", "trn2"], "nxcc compiles for v1"),
    (["list-operators", "--target", "trn9"], "no operators are known"),
    (["explain", "NXC9999"], "nothing is known"),
])
def test_wrong_usage_is_one_line(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(words)
    error = capsys.readouterr().err
    assert status == (1 if text == "NXC0002" else 2)
    assert text in error and error.count("\n") == 1


def test_errors_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "/nowhere/m.hlo", "--json"]) == 1
    body = json.loads(capsys.readouterr().out)
    assert body["schema"] == 1 and body["error"]["code"] == "NXC0002"


def test_operators_are_one_name_a_line_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list-operators"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert names == sorted(names) and {"Add", "DotGeneral", "BroadcastInDim"} <= set(names)


def test_codes_of_the_vendor_lead_to_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "[NCC_EUOC002]"]) == 0
    assert "NXC0300" in capsys.readouterr().out
