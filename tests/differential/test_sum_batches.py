"""Sums of the batches of a product: gradients for each example, added up."""

from __future__ import annotations

import pytest

from harness.clocked import microseconds
from harness.whole import check_whole


def summed(left: str, right: str, dot: str, made: str, views: str, reduce: str) -> str:
    return f"""HloModule m

add {{
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT s = f32[] add(a, b)
}}

ENTRY main {{
  g = {left} parameter(0)
  x = {right} parameter(1)
  zero = f32[] constant(0)
  d = {made} dot(g, x), {dot}
  {views}
  ROOT s = {reduce}, to_apply=add
}}
"""


OUTER = "lhs_batch_dims={0}, rhs_batch_dims={0}"


@pytest.mark.parametrize("text", [
    summed("f32[40,33]", "f32[40,70]", OUTER, "f32[40,33,70]", "t = f32[40,70,33] transpose(d), dimensions={0,2,1}",
           "f32[70,33] reduce(t, zero), dimensions={0}"),
    summed("bf16[3,8,5,6]", "bf16[3,8,5,4]", "lhs_batch_dims={0,1}, rhs_batch_dims={0,1}, lhs_contracting_dims={2}, "
           "rhs_contracting_dims={2}", "bf16[3,8,6,4]",
           "c = f32[3,8,6,4] convert(d)\n r = f32[3,2,4,6,2,2] reshape(c)\n"
           "t = f32[6,2,2,4,3,2] transpose(r), dimensions={3,5,1,2,0,4}", "f32[2,2] reduce(t, zero), dimensions={0,2,3,4}"),
    summed("f32[12,7,9]", "f32[12,7,5]", "lhs_batch_dims={1,0}, rhs_batch_dims={1,0}", "f32[7,12,9,5]",
           "t = f32[84,9,5] reshape(d)", "f32[9,5] reduce(t, zero), dimensions={0}"),
    summed("f32[12,7,9]", "f32[12,7,5]", "lhs_batch_dims={1,0}, rhs_batch_dims={1,0}", "f32[7,12,9,5]",
           "t = f32[7,12,45] reshape(d)", "f32[7,45] reduce(t, zero), dimensions={1}"),
], ids=["outer products", "views", "all batches", "some batches"])
def test_sum_of_batches(text: str) -> None:
    check_whole(text, strict=True)


def test_time_of_gradients_for_each_example() -> None:
    """128 products of 256 x 784 are 103 MB, their sum is a product that takes some microseconds."""
    text = summed("f32[128,256]", "f32[128,784]", OUTER, "f32[128,256,784]",
                  "t = f32[128,784,256] transpose(d), dimensions={0,2,1}", "f32[784,256] reduce(t, zero), dimensions={0}")
    assert microseconds(text) < 60
