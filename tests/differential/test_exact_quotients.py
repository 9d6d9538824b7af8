"""Quotients that are rounded to whole numbers: never one off. The same of those that are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nxcc.compiler.driver import Request, compile_file
from nxcc.compiler.options import options_from
from nxcc.compiler.runtime.loaded import load

X, Y = (side.astype(np.float32).ravel() for side in np.meshgrid(np.arange(0, 260), np.arange(1, 260)))


def run(body: str, tmp_path: Path, level: str, *inputs: np.ndarray) -> np.ndarray:
    (tmp_path / "m.hlo").write_text(f"HloModule m\nENTRY e {{\n{body}\n}}\n")
    compile_file(Request(str(tmp_path / "m.hlo"), options_from(output=str(tmp_path / "m.neff"), optlevel=level)))
    return load(str(tmp_path / "m.neff")).run(list(inputs))[0]


@pytest.mark.parametrize("level", ["0", "2"])
@pytest.mark.parametrize("opcode", ["floor", "ceil", "round-nearest-even", "convert"])
def test_whole_quotients(opcode: str, level: str, tmp_path: Path) -> None:
    n = X.size
    result = "s32" if opcode == "convert" else "f32"
    body = (f"x = f32[{n}] parameter(0)\ny = f32[{n}] parameter(1)\nq = f32[{n}] divide(x, y)\n"
            f"ROOT r = {result}[{n}] {opcode}(q)")
    function = {"floor": np.floor, "ceil": np.ceil, "round-nearest-even": np.rint, "convert": np.trunc}[opcode]
    np.testing.assert_array_equal(run(body, tmp_path, level, X, Y), function(X / Y))


@pytest.mark.parametrize("level", ["0", "2"])
@pytest.mark.parametrize("direction", ["EQ", "GE"])
def test_compared_quotients(direction: str, level: str, tmp_path: Path) -> None:
    n = X.size
    sides = "m, b" if direction == "EQ" else "b, m"
    body = (f"x = f32[{n}] parameter(0)\ny = f32[{n}] parameter(1)\nq = f32[{n}] divide(x, y)\nm = f32[{n}] negate(q)\n"
            f"one = f32[] constant(-1)\nb = f32[{n}] broadcast(one), dimensions={{}}\n"
            f"c = pred[{n}] compare({sides}), direction={direction}\nROOT r = s32[{n}] convert(c)")
    wanted = X / Y == 1 if direction == "EQ" else X / Y >= 1
    np.testing.assert_array_equal(run(body, tmp_path, level, X, Y), wanted)


@pytest.mark.parametrize("level", ["0", "2"])
def test_a_quotient_that_is_rounded_is_the_nearest(level: str, tmp_path: Path) -> None:
    """All exponents but the outermost, and what has no finite quotient; the result itself is looked at."""
    random = np.random.default_rng(0)
    x, y = ((random.normal(size=20000) * 2.0 ** random.integers(-40, 40, size=20000)).astype(np.float32) for _ in range(2))
    special = np.float32([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -3.0])
    x = np.concatenate([x, np.repeat(special, special.size)])
    y = np.concatenate([y, np.tile(special, special.size)])
    n = x.size
    body = (f"x = f32[{n}] parameter(0)\ny = f32[{n}] parameter(1)\nq = f32[{n}] divide(x, y)\nf = f32[{n}] floor(q)\n"
            f"ROOT r = (f32[{n}], f32[{n}]) tuple(q, f)")
    with np.errstate(all="ignore"):
        wanted = x / y
    found = run(body, tmp_path, level, x, y)
    np.testing.assert_array_equal(found, wanted)
    zeros = wanted == 0
    np.testing.assert_array_equal(np.signbit(found[zeros]), np.signbit(wanted[zeros]))


def test_quantization_rounds_as_it_does_elsewhere(tmp_path: Path) -> None:
    """round(x / s) + zero point, clamped: ties come out even, since the quotient is exact there."""
    scale = np.float32(0.0235294122248888)
    x = (scale * (np.arange(-140, 140) + 0.5)).astype(np.float32)
    n = x.size
    body = (f"x = f32[{n}] parameter(0)\ns = f32[] constant({scale:.10g})\nb = f32[{n}] broadcast(s), dimensions={{}}\n"
            f"q = f32[{n}] divide(x, b)\nz = f32[] constant(3)\nc = f32[{n}] broadcast(z), dimensions={{}}\n"
            f"a = f32[{n}] add(q, c)\nr = f32[{n}] round-nearest-even(a)\nl = f32[] constant(-128)\nh = f32[] constant(127)\n"
            f"k = f32[{n}] clamp(l, r, h)\nROOT i = s8[{n}] convert(k)")
    wanted = np.clip(np.rint(x / scale + np.float32(3)), -128, 127).astype(np.int8)
    np.testing.assert_array_equal(run(body, tmp_path, "2", x), wanted)
