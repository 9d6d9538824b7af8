"""rng on the device: the oracle's numbers, and a generator's spread."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.compiler.debugging.trial import AGREES, Trial
from nxcc.compiler.driver import Source, compile_module
from nxcc.compiler.options import CompileOptions
from nxcc.ir.hlo.oracle import evaluate
from nxcc.ir.hlo.text.reader import read_text


def text(shape: str, distribution: str, low: str, high: str) -> str:
    dtype = shape.partition("[")[0]
    return (f"HloModule m\nENTRY e {{\n  a = {dtype}[] constant({low})\n  b = {dtype}[] parameter(0)\n"
            f"  r = {shape} rng(a, b), distribution={distribution}\n  s = u64[2] rng-get-and-update-state(), delta=1\n"
            f"  ROOT t = ({shape}, u64[2]) tuple(r, s)\n}}\n")


CASES = [
    ("f32[7,33]", "rng_uniform", "-2", 3), ("bf16[130]", "rng_uniform", "0", 1), ("f16[]", "rng_uniform", "5", 9),
    ("f32[5,2,9]", "rng_normal", "1", 2), ("bf16[260]", "rng_normal", "0", 1),
    ("s32[41]", "rng_uniform", "-7", 5), ("s32[9]", "rng_uniform", "-2147483648", 2147483647),
    ("s4[31]", "rng_uniform", "-8", 7), ("f8e4m3[40]", "rng_uniform", "0", 2), ("f32[0,3]", "rng_normal", "0", 1),
    ("u32[300]", "rng_uniform", "3", 9),
    ("s8[3,50]", "rng_uniform", "-128", 127), ("u8[64]", "rng_uniform", "9", 4), ("s16[20]", "rng_uniform", "-5", 0),
    ("s64[12]", "rng_uniform", "-1000000000000", 2000000000000), ("u64[5]", "rng_uniform", "0", 7),
    ("pred[99]", "rng_uniform", "0", 1),
]


@pytest.mark.parametrize("level", ["0", "2"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[1]}")
def test_rng_is_drawn_on_the_device(case: tuple[str, str, str, int], level: str) -> None:
    shape, distribution, low, high = case
    module = read_text(text(shape, distribution, low, str(high)))
    options = CompileOptions(optlevel=level, placement="support")
    verdict = Trial(options).judge(module, [np.asarray(high).astype(module.entry.parameters[0].shape.dtype.numpy)])
    assert verdict.kind == AGREES, verdict.text
    assert all(node.on_device for node in compile_module(module, options, Source()).plan.nodes)


def test_numbers_fill_the_range() -> None:
    module = text("s32[4000]", "rng_uniform", "-2", "3").replace("parameter(0)", "constant(3)")
    numbers, _ = evaluate(read_text(module), [])
    counts = np.bincount(numbers + 2, minlength=5)
    assert counts.size == 5 and counts.min() > 700
    other, _ = evaluate(read_text(module.replace("r = ", "q = ").replace("tuple(r", "tuple(q")), [])
    assert (numbers != other).mean() > 0.5
