"""Convolutions of several groups, which the tensor engine takes together."""

import pytest

from nxcc.backends.target import load_target
from nxcc.compiler.driver import pass_settings
from nxcc.compiler.options import options_from
from nxcc.ir.hlo.text.reader import read_text
from nxcc.passes.pipeline import run_pipeline

from harness.clocked import microseconds
from harness.whole import check_whole


def grouped(images: int, groups: int, inputs: int, outputs: int, side: int, *, dtype: str = "f32", last: bool = False,
            window: str = "size=3x3 pad=1_1x1_1", kernel: str = "3,3", out: int | None = None) -> str:
    """inputs, outputs: channels of a group. last: channels lie last."""
    channels, made, across = groups * inputs, groups * outputs, out or side
    if last:
        data, weights = f"{images},{side},{side},{channels}", f"{kernel},{inputs},{made}"
        result, labels = f"{images},{across},{across},{made}", "b01f_01io->b01f"
    else:
        data, weights = f"{images},{channels},{side},{side}", f"{made},{inputs},{kernel}"
        result, labels = f"{images},{made},{across},{across}", "bf01_oi01->bf01"
    return f"""HloModule grouped
ENTRY main {{
  x = {dtype}[{data}] parameter(0)
  w = {dtype}[{weights}] parameter(1)
  c = {dtype}[{result}] convolution(x, w), window={{{window}}}, dim_labels={labels}, feature_group_count={groups}
  zero = {dtype}[] constant(0)
  zeros = {dtype}[{result}] broadcast(zero), dimensions={{}}
  ROOT out = {dtype}[{result}] maximum(c, zeros)
}}"""


@pytest.mark.parametrize("text", [
    grouped(1, 8, 4, 4, 50), grouped(2, 6, 3, 5, 44, last=True), grouped(1, 5, 40, 20, 20), grouped(2, 4, 80, 80, 11),
    grouped(1, 3, 64, 32, 20, dtype="bf16"), grouped(3, 16, 2, 1, 32, window="size=1x1", kernel="1,1", last=True),
    grouped(1, 9, 24, 24, 20, window="size=3x3 stride=2x2 pad=1_1x1_1", out=10),
    grouped(1, 4, 2, 6, 100, window="size=3x3 pad=2_2x2_2 rhs_dilate=2x2"),
], ids=range(8))
def test_results(text):
    check_whole(text, levels=("0", "2"))


def groups_left(text: str, **options: str) -> int:
    module = read_text(text)
    run_pipeline(module, pass_settings(options_from(optlevel=2, **options), load_target("v2")))
    found = [i for c in module.computations for i in c.instructions if i.opcode == "convolution"]
    assert len(found) == 1
    return int(found[0].attribute("feature_group_count"))


def test_groups_become_one_where_they_are_narrow():
    assert groups_left(grouped(1, 32, 4, 4, 56)) == 1
    assert groups_left(grouped(1, 32, 32, 32, 14)) == 8
    assert groups_left(grouped(1, 2, 128, 128, 14)) == 1
    assert groups_left(grouped(1, 4, 128, 128, 14)) == 4


def test_groups_stay_apart_where_products_are_exact_or_small():
    assert groups_left(grouped(1, 32, 4, 4, 56), relayout="exact") == 32
    assert groups_left(grouped(1, 4, 4, 4, 12)) == 4


def test_a_layer_of_narrow_groups_takes_little_more_than_its_bytes():
    moved = 2 * 4 * 8 * 128 * 56 * 56
    assert microseconds(grouped(8, 32, 4, 4, 56)) < 3 * moved / 272e3 + 60
