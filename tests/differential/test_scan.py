"""Linear recurrences on the device: any dimension, either direction, more steps and rows than a tile has."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.ir.hlo.text.reader import read_text

from harness.device import check_text, random_inputs

SCAN = """HloModule m
r {{ a = f32[{element}] parameter(0)
 b = f32[{element}] parameter(1)
 h = f32[{element}] parameter(2)
 m = f32[{element}] multiply(h, a)
 n = f32[{element}] add(b, m)
 ROOT t = (f32[{element}], f32[{element}]) tuple(n, n) }}
ENTRY e {{
  a = f32[{whole}] parameter(0)
  b = f32[{whole}] parameter(1)
  h = f32[{element}] parameter(2)
  ROOT s = (f32[{whole}], f32[{element}]) scan(a, b, h), num_carries=1,
    dimensions={{{dimension}}}, is_reverse={reverse}, to_apply=r
}}"""


@pytest.mark.parametrize("optlevel", [0, 1])
@pytest.mark.parametrize("reverse", ["false", "true"])
@pytest.mark.parametrize(("dims", "dimension"), [
    ((7,), 0), ((5, 1), 1), ((130, 9), 1), ((9, 3), 0), ((2, 6, 3), 1), ((3, 2, 50), 2), ((2, 4500), 1)])
def test_linear_recurrences(dims: tuple[int, ...], dimension: int, reverse: str, optlevel: int) -> None:
    element = ",".join(str(size) for d, size in enumerate(dims) if d != dimension)
    text = SCAN.format(whole=",".join(map(str, dims)), element=element, dimension=dimension, reverse=reverse)
    inputs = random_inputs(read_text(text))
    inputs[0] = np.clip(inputs[0], -0.99, 0.99)
    check_text(text, inputs, tolerance=1e-5, optlevel=optlevel)


def test_a_factor_that_is_the_same_in_all_steps() -> None:
    text = SCAN.format(whole="6,40", element="6", dimension=1, reverse="false").replace(
        "a = f32[6,40] parameter(0)\n  b = f32[6,40] parameter(1)\n  h = f32[6] parameter(2)",
        "f = f32[6] parameter(0)\n  a = f32[6,40] broadcast(f), dimensions={0}\n  b = f32[6,40] parameter(1)\n"
        "  h = f32[6] parameter(2)")
    assert "broadcast" in text
    check_text(text, tolerance=1e-4, optlevel=1)
