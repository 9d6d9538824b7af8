"""Comparing two profiles: pairing of rows, deltas that add up, and the report."""

from pathlib import Path

import pytest

from nxcc.cli import main
from nxcc.compiler.driver import Request, compile_file
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.reports.comparison import _matched as matched
from nxcc.compiler.reports.comparison import compare_files, comparison_lines
from nxcc.ir.diagnostics import CompileError

TEXT = """HloModule m
ENTRY main {
  x = f32[128,512] parameter(0)
  w = f32[512,512] parameter(1)
  y = f32[128,512] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/net/dense/dot"}
  t = f32[128,512] tanh(y), metadata={op_name="jit(f)/net/act/tanh"}
  ROOT r = f32[128,512] dot(t, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/net/out/dot"}
}
"""


@pytest.fixture(scope="module")
def neffs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder: Path = tmp_path_factory.mktemp("comparison")
    (folder / "m.hlo").write_text(TEXT)
    found = {}
    for name, options in {"plain": {}, "cast": {"auto_cast": "matmult"}, "v1": {"target": "v1"}}.items():
        found[name] = str(folder / f"{name}.neff")
        compile_file(Request(str(folder / "m.hlo"), CompileOptions(output=found[name], weight_params="1", **options)))
    return found


@pytest.mark.parametrize("table", ["layers", "hlo", "critical_path"])
def test_deltas_add_up_to_the_difference(neffs, table):
    body = compare_files(neffs["plain"], neffs["cast"])
    difference = body["after"]["simulated_us"] - body["before"]["simulated_us"]
    assert difference != 0
    assert sum(row["delta_us"] for row in body[table]) == pytest.approx(difference)


def test_layers_are_paired_by_name_whatever_their_instructions_are_called(neffs):
    body = compare_files(neffs["plain"], neffs["cast"])
    layers = {row["name"]: row for row in body["layers"]}
    assert "net/out" in layers and all(row["before_us"] is not None for name, row in layers.items() if name.startswith("net/"))


def test_a_file_is_like_itself(neffs):
    body = compare_files(neffs["plain"], neffs["plain"])
    assert body["delta_us"] == 0 and not any(row["delta_us"] for row in body["hlo"] + body["machine"])
    lines = comparison_lines(body)
    assert lines[2].startswith("no difference")


def test_counts_of_machine_instructions_are_compared(neffs):
    rows = compare_files(neffs["plain"], neffs["cast"])["machine"]
    (products,) = [row for row in rows if row["name"] == "PE matmul"]
    assert products["before_count"] > 0 and products["before_us"] > products["after_us"]


def test_targets_must_be_equal(neffs):
    with pytest.raises(CompileError, match="for v2 and .* for v1"):
        compare_files(neffs["plain"], neffs["v1"])


def pairs(left: str, right: str) -> set[tuple[str, str]]:
    return {("".join(olds), "".join(news)) for olds, news in matched(list(left), list(right))}


@pytest.mark.parametrize(("left", "right", "expected"), [
    ("abc", "abc", {("a", "a"), ("b", "b"), ("c", "c")}),
    ("axc", "ayc", {("a", "a"), ("x", "y"), ("c", "c")}),
    ("axwc", "ayc", {("a", "a"), ("xw", "y"), ("c", "c")}),
    ("ac", "ayc", {("a", "a"), ("", "y"), ("c", "c")}),
    ("axc", "ac", {("a", "a"), ("x", ""), ("c", "c")}),
    ("ab", "ba", {("a", "a"), ("b", "b")}),
])
def test_rows_pair_by_name_then_by_place(left, right, expected):
    assert pairs(left, right) == expected


def test_files_without_a_common_name_are_not_thrown_together():
    left, right = [f"a{k}" for k in range(30)], [f"b{k}" for k in range(20)]
    assert all(not olds or not news for olds, news in matched(left, right))


def test_command_compares_and_refuses_what_makes_no_sense(neffs, tmp_path, capsys):
    page = tmp_path / "c.html"
    assert main(["profile", neffs["plain"], neffs["cast"], "-o", str(page)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("before: ") and "faster" in out and f"page: {page}" in out
    assert "net/out" in page.read_text()
    assert main(["profile", neffs["plain"], neffs["cast"], "--trace", str(tmp_path / "t.json")]) == 2
    assert main(["profile", neffs["plain"], neffs["cast"], neffs["cast"]]) == 2
