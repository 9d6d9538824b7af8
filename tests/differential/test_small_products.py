"""Many small products: batches on the partitions, multiplied and added up by Vector."""

from __future__ import annotations

import pytest

from harness.clocked import microseconds
from harness.whole import check_whole


def product(dtype: str, batch: str, left: str, right: str, out: str, dims: str) -> str:
    return f"""HloModule m
ENTRY main {{
  a = {dtype}[{batch},{left}] parameter(0)
  b = {dtype}[{batch},{right}] parameter(1)
  ROOT r = {dtype}[{batch},{out}] dot(a, b), {dims}
}}
"""


BATCHED = "lhs_batch_dims={0}, rhs_batch_dims={0}, "


@pytest.mark.parametrize("text", [
    product("f32", "300", "4,5", "5,3", "4,3", BATCHED + "lhs_contracting_dims={2}, rhs_contracting_dims={1}"),
    product("f32", "1029", "5,4", "3,5", "4,3", BATCHED + "lhs_contracting_dims={1}, rhs_contracting_dims={2}"),
    product("bf16", "128", "9", "9", "9,9", BATCHED + "lhs_contracting_dims={}, rhs_contracting_dims={}"),
    product("f16", "700", "1,33", "33,1", "1,1", BATCHED + "lhs_contracting_dims={2}, rhs_contracting_dims={1}"),
    product("f32", "20,30", "6,6", "6", "6", "lhs_batch_dims={0,1}, rhs_batch_dims={0,1}, lhs_contracting_dims={3}, "
            "rhs_contracting_dims={2}"),
], ids=["matrices", "turned", "outer", "inner", "by vectors"])
def test_small_products(text: str) -> None:
    check_whole(text, strict=True)


def test_time() -> None:
    """65,536 rotations, each of which took a pass and its transfers."""
    dims = BATCHED + "lhs_contracting_dims={2}, rhs_contracting_dims={1}"
    assert microseconds(product("f32", "65536", "3,3", "3,3", "3,3", dims)) < 200
