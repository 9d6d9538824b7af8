"""Gated layers whose matrices are too large to stay on the chip: each is read once, in runs that transfers move well."""

import pytest

from harness.clocked import microseconds
from harness.whole import check_whole

BANDWIDTH = 272e3
"""Bytes a microsecond."""

PEAK = 91.75e6
"""Operations a microsecond of the tensor engine in bf16."""


def gated(rows: int, depth: int, columns: int) -> str:
    """(x a) * sigmoid(x a) * (x b)."""
    shape = f"bf16[{rows},{columns}]"
    dots = "lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    return f"""HloModule gated
ENTRY main {{
  x = bf16[{rows},{depth}] parameter(0)
  a = bf16[{depth},{columns}] parameter(1)
  b = bf16[{depth},{columns}] parameter(2)
  up = {shape} dot(x, a), {dots}
  open = {shape} logistic(up)
  gate = {shape} multiply(up, open)
  other = {shape} dot(x, b), {dots}
  ROOT out = {shape} multiply(gate, other)
}}"""


@pytest.mark.parametrize("rows", [1, 64, 128, 256, 512])
def test_matrices_are_read_once_in_long_runs(rows):
    depth, columns = 4096, 2752
    moved = 2 * (2 * depth * columns + rows * (depth + columns))
    least = max(moved / BANDWIDTH, 2 * 2 * rows * depth * columns / PEAK)
    assert microseconds(gated(rows, depth, columns)) < 1.6 * least + 30


@pytest.mark.parametrize(("rows", "columns"), [(3, 1376), (130, 704), (257, 320)])
def test_results(rows, columns):
    check_whole(gated(rows, 2048, columns))
