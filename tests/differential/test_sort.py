"""Sort and top-k on the device against the oracle: comparators, ties, NaN, awkward lengths."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.ir.dtypes import dtype as named

from harness.device import check_text

DTYPES = ("f32", "bf16", "f16", "s8", "u8", "s16", "u16", "s32", "u32", "pred")
LENGTHS = (1, 2, 3, 5, 8, 37, 128)

TWO_KEYS = """c {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  i = s32[] parameter(2)
  j = s32[] parameter(3)
  p = pred[] parameter(4)
  q = pred[] parameter(5)
  above = pred[] compare(a, b), direction=GT, type=TOTALORDER
  tie = pred[] compare(a, b), direction=EQ, type=TOTALORDER
  below = pred[] compare(p, q), direction=LT
  second = pred[] and(tie, below)
  ROOT r = pred[] or(above, second)
}"""


def numbers(dtype: str, *dims: int, most: int = 20) -> np.ndarray:
    random = np.random.default_rng(0)
    low = 0 if dtype in ("u8", "u16", "u32", "pred") else -most
    return random.integers(low, 2 if dtype == "pred" else most, dims).astype(named(dtype).numpy)


@pytest.mark.parametrize("direction", ("LT", "GT"))
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_operand(dtype: str, direction: str) -> None:
    for n in LENGTHS:
        check_text(f"""HloModule test
c {{ a = {dtype}[] parameter(0) b = {dtype}[] parameter(1) ROOT r = pred[] compare(a, b), direction={direction} }}
ENTRY main {{
  x = {dtype}[3,{n},2] parameter(0)
  ROOT s = {dtype}[3,{n},2] sort(x), dimensions={{1}}, to_apply=c
}}""", [numbers(dtype, 3, n, 2)])


@pytest.mark.parametrize("optlevel", (0, 1))
@pytest.mark.parametrize(("rows", "n"), ((4, 100), (1, 2100), (130, 70)))
def test_two_keys_and_a_payload(rows: int, n: int, optlevel: int) -> None:
    keys = numbers("f32", rows, n, most=3)
    keys[0, :3] = np.nan, -0.0, np.inf
    shape = f"[{rows},{n}]"
    check_text(f"""HloModule test
{TWO_KEYS}
ENTRY main {{
  x = f32{shape} parameter(0)
  y = s32{shape} iota(), iota_dimension=1
  z = pred{shape} parameter(1)
  ROOT s = (f32{shape}, s32{shape}, pred{shape}) sort(x, y, z), dimensions={{1}}, is_stable=true, to_apply=c
}}""", [keys, numbers("pred", rows, n)], optlevel=optlevel)


@pytest.mark.parametrize("largest", ("true", "false"))
@pytest.mark.parametrize("dtype", DTYPES[:-1])
def test_first_elements(dtype: str, largest: str) -> None:
    floats = named(dtype).is_float
    for dims, k in (((7,), 3), ((3, 40), 40), ((2, 2, 300), 5), ((9001,), 20), ((130, 300), 9)):
        data = numbers(dtype, *dims)
        if floats:
            data.reshape(-1)[2:5] = np.nan, -np.inf, -0.0
            data.reshape(-1)[-2:] = -np.nan, np.inf
        given, found = ",".join(map(str, dims)), ",".join(map(str, (*dims[:-1], k)))
        check_text(f"""HloModule test
ENTRY main {{
  x = {dtype}[{given}] parameter(0)
  ROOT s = ({dtype}[{found}], s32[{found}]) topk(x), k={k}, largest={largest}
}}""", [data])


def test_a_vocabulary() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 50257)).astype(np.float32)
    check_text("""HloModule test
ENTRY main {
  x = f32[2,50257] parameter(0)
  ROOT s = (f32[2,50], s32[2,50]) topk(x), k=50, largest=true
}""", [logits], optlevel=1)
