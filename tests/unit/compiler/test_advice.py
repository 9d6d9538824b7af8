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


def test_fewer_changes_than_three_are_said_to_be_all(tmp_path):
    text = "HloModule m\nENTRY main {\n x = s32[] parameter(0)\n ROOT y = s32[] negate(x)\n}\n"
    body = estimate_file(compiled(tmp_path, text), ranges=False, advice=True)
    assert body["advice"] == [] and estimate_lines(body)[-1] == "advice: nothing that was tried gains 2% of a call"
    body = estimate_file(compiled(tmp_path, DENSE, weight_params="1-2"), ranges=False, advice=True)
    assert len(body["advice"]) < 3 and body["without_gain"]
    assert estimate_lines(body)[-1].startswith("advice: nothing else that was tried gains 2% of a call (")


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


def attention(batch: int = 2, length: int = 192, turned: bool = False) -> str:
    """One head over `length` places. turned: the input has its last two dimensions the other way round."""
    rows = f"{batch},{length}"
    given = f"  x = f32[{rows},256] parameter(0)" if not turned else \
        f"  y = f32[{batch},256,{length}] parameter(0)\n  x = f32[{rows},256] transpose(y), dimensions={{0,2,1}}"
    return f"""HloModule m
add {{ a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT r = f32[] add(a, b) }}
ENTRY main {{
{given}
  wq = f32[256,256] parameter(1)
  wk = f32[256,256] parameter(2)
  q = f32[{rows},256] dot(x, wq), lhs_contracting_dims={{2}}, rhs_contracting_dims={{0}}
  k = f32[{rows},256] dot(x, wk), lhs_contracting_dims={{2}}, rhs_contracting_dims={{0}}
  s = f32[{rows},{length}] dot(q, k), lhs_batch_dims={{0}}, rhs_batch_dims={{0}}, lhs_contracting_dims={{2}},
    rhs_contracting_dims={{2}}
  e = f32[{rows},{length}] exponential(s)
  zero = f32[] constant(0)
  n = f32[{rows}] reduce(e, zero), dimensions={{2}}, to_apply=add
  m = f32[{rows},{length}] broadcast(n), dimensions={{0,1}}
  p = f32[{rows},{length}] divide(e, m)
  o = f32[{rows},256] dot(p, x), lhs_batch_dims={{0}}, rhs_batch_dims={{0}}, lhs_contracting_dims={{2}},
    rhs_contracting_dims={{1}}
  ROOT r = f32[{rows},256] reverse(o), dimensions={{1}}
}}
"""


CHANGED = {"batch": (attention(batch=8), 4), "sequence": (attention(length=96), 1), "layout": (attention(turned=True), 1)}
"""The module with each change that is no flag, and how many samples' worth of the first one a call of it does."""


def test_every_gain_is_what_making_the_change_gains(tmp_path, monkeypatch):
    monkeypatch.setattr("nxcc.compiler.reports.advice.LEAST_GAIN", float("-inf"))
    monkeypatch.setattr("nxcc.compiler.reports.advice.MOST", 9)
    rows = by_kind(compiled(tmp_path, attention(), weight_params="1-2"))
    assert {"cast", "batch", "sequence", "layout"} <= rows.keys()
    for kind, row in rows.items():
        words = row["flags"].split()
        options = {words[i].removeprefix("--").replace("-", "_"): words[i + 1] for i in range(0, len(words), 2)}
        text, samples = CHANGED.get(kind, (attention(), 1))
        after = call_us(compiled(tmp_path, text, **({"weight_params": "1-2"} | options))) / samples
        assert row["before_us"] - after == pytest.approx(row["gain_us"], rel=0.1, abs=0.01 * row["before_us"]), kind


def test_what_the_host_would_do_sooner_is_so(tmp_path):
    text = """HloModule m
ENTRY main {
  x = f32[512,1000] parameter(0)
  i = s32[16384,2] parameter(1)
  ROOT g = f32[16384] gather(x, i), offset_dims={}, collapsed_slice_dims={0,1}, start_index_map={0,1}, index_vector_dim=1,
    slice_sizes={1,1}
}
"""
    row = by_kind(compiled(tmp_path, text))["host"]
    _, pattern = row["flags"].split()
    after = call_us(compiled(tmp_path, text, keep_on_host=pattern))
    assert row["after_us"] == pytest.approx(after, rel=0.05) and after < row["before_us"]


def test_inputs_of_different_sizes_grow_apart(tmp_path, monkeypatch):
    """Images beside a table of words: the batch that is meant is named."""
    monkeypatch.setattr("nxcc.compiler.reports.advice.MOST", 9)
    text = """HloModule m
ENTRY main {
  image = f32[1,512] parameter(0)
  words = f32[100,64] parameter(1)
  w = f32[512,64] parameter(2)
  y = f32[1,64] dot(image, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT z = f32[1,100] dot(y, words), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}
"""
    path = compiled(tmp_path, text, weight_params="2")
    batch = by_kind(path)["batch"]
    assert "of image" in batch["change"] or "of words" in batch["change"]
    sizes = (("[1,", "[4,"),) if "of image" in batch["change"] else (("[100,", "[400,"), ("1,100", "1,400"))
    larger = text
    for old, new in sizes:
        larger = larger.replace(old, new)
    after = call_us(compiled(tmp_path, larger, weight_params="2")) / 4
    assert batch["after_us"] == pytest.approx(after, rel=0.05)
