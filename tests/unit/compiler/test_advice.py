"""Advice: candidates are compiled and timed, and only what gains is said."""

from pathlib import Path

import pytest

from nxcc.compiler.driver import Request, compile_file
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.reports.advice import advise, other_order
from nxcc.compiler.reports.estimate import estimate, estimate_file, estimate_lines
from nxcc.neff.reader import open_neff

DENSE = """HloModule m
ENTRY main {
  x = f32[128,1024] parameter(0)
  w = f32[1024,2048] parameter(1)
  y = f32[128,2048] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  t = f32[128,2048] tanh(y)
  v = f32[2048,1024] parameter(2)
  ROOT z = f32[128,1024] dot(t, v), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""


def compiled(folder: Path, text: str, **options: str) -> str:
    (folder / "m.hlo").write_text(text)
    path = str(folder / f"m{len(list(folder.glob('*.neff')))}.neff")
    compile_file(Request(str(folder / "m.hlo"), CompileOptions(output=path, **options)))
    return path


def call_us(path: str) -> float:
    found = estimate(open_neff(path), ranges=False)
    return found.device_us + found.host.us


def by_kind(path: str) -> dict[str, dict]:
    return {row["kind"]: row for row in estimate_file(path, ranges=False, advice=True)["advice"]}


def test_gain_is_what_compiling_so_gains(tmp_path):
    path = compiled(tmp_path, DENSE, weight_params="1-2")
    cast = by_kind(path)["cast"]
    assert cast["gain_us"] == pytest.approx(cast["before_us"] - cast["after_us"])
    words = cast["flags"].split()
    options = {words[i].removeprefix("--").replace("-", "_"): words[i + 1] for i in range(0, len(words), 2)}
    followed = call_us(compiled(tmp_path, DENSE, weight_params="1-2", **options))
    assert cast["before_us"] == pytest.approx(call_us(path), rel=0.02)
    assert cast["after_us"] == pytest.approx(followed, rel=0.05)


def test_undeclared_weights_are_noticed(tmp_path):
    advice = by_kind(compiled(tmp_path, DENSE))
    assert advice["weights"]["flags"] == "--weight-params 1,2"
    copied = 4 * (1024 * 2048 + 2048 * 1024) / 6e9 * 1e6
    assert advice["weights"]["gain_us"] >= 0.9 * copied


def test_nothing_is_said_that_gains_nothing(tmp_path):
    text = "HloModule m\nENTRY main {\n x = f32[4] parameter(0)\n ROOT y = f32[4] negate(x)\n}\n"
    path = compiled(tmp_path, text)
    neff = open_neff(path)
    assert all(row.kind == "batch" and row.gain_us > 0 for row in advise(neff, estimate(neff, ranges=False)))


def test_batch_is_counted_by_the_sample(tmp_path):
    path = compiled(tmp_path, DENSE.replace("[128,", "[1,"), weight_params="1-2")
    batch = by_kind(path)["batch"]
    larger = call_us(compiled(tmp_path, DENSE.replace("[128,", "[4,"), weight_params="1-2"))
    assert batch["after_us"] == pytest.approx(larger / 4, rel=0.05)
    assert "batch 4 instead of 1" in batch["change"] and not batch["flags"]


PAIR = """HloModule m
ENTRY main {
  x = f32[1,256] parameter(0)
  q = f32[256,256] parameter(1)
  k = f32[256,256] parameter(2)
  a = f32[1,256] dot(x, q), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  b = f32[1,256] dot(x, k), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ta = f32[1,256] tanh(a)
  tb = f32[1,256] tanh(b)
  ROOT t = (f32[1,256], f32[1,256]) tuple(ta, tb)
}
"""


def test_batch_is_tried_where_a_region_has_several_results(tmp_path):
    path = compiled(tmp_path, PAIR, weight_params="1-2")
    assert by_kind(path)["batch"]["change"] == "batch 4 instead of 1, time for 1 sample"


@pytest.mark.parametrize(("dims", "order"), [
    ((1, 224, 224, 3), (0, 3, 1, 2)), ((1, 3, 224, 224), (0, 2, 3, 1)), ((8, 64, 512), (0, 2, 1)), ((64, 512), (1, 0))])
def test_an_image_is_tried_in_the_other_convention(dims, order):
    assert other_order(dims) == order


def test_parts_on_the_host_are_named(tmp_path):
    path = compiled(tmp_path, DENSE, weight_params="1-2", keep_on_host="^t$")
    found = estimate(open_neff(path), ranges=False)
    host = by_kind(path)["host"]
    assert host["gain_us"] == pytest.approx(found.host.regions_us + 53 + 12)


def test_advice_is_at_most_three_lines_largest_first(tmp_path):
    body = estimate_file(compiled(tmp_path, DENSE, optlevel="0"), ranges=False, advice=True)
    gains = [row["gain_us"] for row in body["advice"]]
    assert 1 <= len(gains) <= 3 and gains == sorted(gains, reverse=True) and min(gains) > 0
    assert [line for line in estimate_lines(body) if line.startswith("advice: ")] == \
        [f"advice: {row['text']}" for row in body["advice"]]


def test_equal_files_get_equal_advice(tmp_path):
    path = compiled(tmp_path, DENSE)
    assert by_kind(path) == by_kind(path)
