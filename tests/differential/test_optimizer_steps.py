"""Steps of optimizers: quotients by raised roots on the scalar engine, both halves of a tile in step."""

import numpy as np
import pytest

from harness.clocked import microseconds
from harness.whole import check_whole

LARGEST = float(np.finfo(np.float32).max)
SPECIAL = np.array([0.0, -0.0, 1e-45, 1e-38, 1e-31, 4e-20, 1.0, 3e38, LARGEST, np.inf, np.nan, -1e-30, -1.0, -np.inf],
                   np.float32)


def over_root(rows: int, columns: int, raise_: float) -> str:
    shape = f"f32[{rows},{columns}]"
    return f"""HloModule step
ENTRY main {{
  m = {shape} parameter(0)
  v = {shape} parameter(1)
  e = f32[] constant({raise_})
  es = {shape} broadcast(e), dimensions={{}}
  root = {shape} sqrt(v)
  raised = {shape} add(root, es)
  ROOT out = {shape} divide(m, raised)
}}"""


def adam(rows: int, columns: int) -> str:
    shape = f"f32[{rows},{columns}]"
    numbers = {"decay": 1e-5, "keep": 0.9, "new": 0.1, "keeps": 0.999, "news": 0.001, "rate": 0.01, "scale": 1000,
               "least": 1e-8}
    constants = "\n".join(f"  {n}0 = f32[] constant({x})\n  {n} = {shape} broadcast({n}0), dimensions={{}}"
                          for n, x in numbers.items())
    return f"""HloModule adam
ENTRY main {{
  p = {shape} parameter(0)
  g = {shape} parameter(1)
  m = {shape} parameter(2)
  v = {shape} parameter(3)
{constants}
  decayed = {shape} multiply(p, decay)
  left = {shape} subtract(p, decayed)
  m0 = {shape} multiply(m, keep)
  m1 = {shape} multiply(g, new)
  m2 = {shape} add(m0, m1)
  step = {shape} multiply(m2, rate)
  v0 = {shape} multiply(v, keeps)
  g2 = {shape} multiply(g, news)
  v1 = {shape} multiply(g2, g)
  v2 = {shape} add(v0, v1)
  vs = {shape} multiply(v2, scale)
  root = {shape} sqrt(vs)
  raised = {shape} add(root, least)
  quotient = {shape} divide(step, raised)
  ROOT out = {shape} subtract(left, quotient)
}}"""


@pytest.mark.parametrize("raise_", [1e-8, 1e-5, 1.0, 1e-12])
def test_quotients_by_raised_roots_hold_over_the_whole_range(raise_):
    m, v = np.meshgrid(np.array([0.0, 1e-20, -2.5, 1e30, np.inf], np.float32), SPECIAL)
    check_whole(over_root(*m.shape, raise_), [m, v], strict=True)


@pytest.mark.parametrize(("rows", "columns"), [(128, 1024), (3, 40), (200, 700), (130, 2048)])
def test_results(rows, columns):
    random = np.random.default_rng(7)
    p, g, m = (random.standard_normal((rows, columns)).astype(np.float32) for _ in range(3))
    v = random.uniform(0, 1e-4, (rows, columns)).astype(np.float32)
    check_whole(adam(rows, columns), [p, g, m, v])


def test_no_temporary_is_lost_between_the_halves():
    random = np.random.default_rng(8)
    p, g, m = (random.standard_normal((256, 1024)).astype(np.float32) for _ in range(3))
    v = random.uniform(-1e-4, 1e-4, (256, 1024)).astype(np.float32)
    check_whole(adam(256, 1024), [p, g, m, v], ("2",), strict=True)


def test_a_step_takes_no_longer_than_its_sums():
    """Of Vector: eleven passes over the elements, and what of the waiting is not hidden."""
    assert microseconds(adam(2048, 2048), "none") < 1.3 * 11 * 2048 * 2048 / 128 / 1120 + 30
