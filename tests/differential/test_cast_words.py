"""What each word of neuron-cc's --fast-math and --fp32-cast does to numbers on v1 (reference: its command line pages)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nxcc.compiler.console.arguments import prepare
from nxcc.compiler.driver import compile_module
from nxcc.compiler.options import CompileOptions, options_from
from nxcc.compiler.runtime.loaded import load
from nxcc.ir.hlo.text.reader import read_text
from nxcc.neff.reader import open_neff
from nxcc.neff.writer import write_neff

SIZE = 192
"""Rows and columns, so many that transposes are products unless a word forbids it."""
MODULE = f"""HloModule m
ENTRY main {{
  x = f32[{SIZE},{SIZE}] parameter(0)
  w = f32[{SIZE},{SIZE}] parameter(1)
  s = f32[{SIZE},{SIZE}] parameter(2)
  e = f32[{SIZE},{SIZE}] add(x, s)
  d = f32[{SIZE},{SIZE}] dot(x, w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  ROOT o = (f32[{SIZE},{SIZE}], f32[{SIZE},{SIZE}]) tuple(d, e)
}}
"""
FINE, FINER = 2.0 ** -9, 2.0 ** -12
"""Beside 1: lost in bf16 but not in fp16, and lost in both but not in f32."""
LARGE = 1e5
"""Beyond fp16."""
WORDS = [
    ("", "bf16", "bf16", ""), ("--fast-math all", "bf16", "bf16", "fast"), ("--fast-math none", "bf16", "f32", "exact"),
    ("--fast-math fast-relayout", "bf16", "bf16", "fast"), ("--fast-math no-fast-relayout", "bf16", "bf16", "exact"),
    ("--fast-math fp32-cast-all", "bf16", "bf16", ""), ("--fast-math fp32-cast-all-fp16", "fp16", "fp16", ""),
    ("--fast-math fp32-cast-matmult", "bf16", "f32", ""), ("--fast-math fp32-cast-matmult-bf16", "bf16", "f32", ""),
    ("--fast-math fp32-cast-matmult-fp16", "fp16", "f32", ""),
    ("--fast-math fp32-cast-matmult no-fast-relayout", "bf16", "f32", "exact"), 
    ("--fast-math none fast-relayout", "bf16", "f32", "fast"),
    ("--fp32-cast all", "bf16", "bf16", ""), ("--fp32-cast all-fp16", "fp16", "fp16", ""),
    ("--fp32-cast matmult", "bf16", "f32", ""), ("--fp32-cast matmult-bf16", "bf16", "f32", ""),
    ("--fp32-cast matmult-fp16", "fp16", "f32", ""), ("--fast-math=none --fp32-cast=matmult-fp16", "fp16", "f32", "exact"),
    ("--fast-math fp32-cast-all no-fast-relayout --fp32-cast matmult", "bf16", "f32", "exact"),
]
"""Words, the type in which products are multiplied, that of elementwise work, how operands are
turned: with the tensor engine, which spreads a NaN, exactly, or, if nothing is said, again if one was spread."""


def options(line: str) -> CompileOptions:
    words = prepare(f"compile m {line}".split(), ("compile",)).words
    given = dict(word.removeprefix("--").split("=", 1) for word in words if "=" in word)
    return options_from(target="v1", optlevel="2", **{name.replace("-", "_"): value for name, value in given.items()})


@pytest.mark.parametrize(("line", "product", "elementwise", "relayout"), WORDS, ids=[row[0] or "default" for row in WORDS])
def test_a_word_means_what_is_documented(line: str, product: str, elementwise: str, relayout: str, tmp_path: Path) -> None:
    path = tmp_path / "m.neff"
    build = compile_module(read_text(MODULE), options(line))
    assert build.package is not None
    write_neff(str(path), build.package)
    x, w, s = np.ones((SIZE, SIZE), np.float32), np.eye(SIZE, dtype=np.float32), np.full((SIZE, SIZE), FINE, np.float32)
    x[1], s[3], w[:, 9] = 1 + FINE, FINER, 1
    x[2] = np.where(np.arange(SIZE) == 2, LARGE, 0)
    d, e = load(str(path)).run([x, w, s])
    assert d[1, 5] == {"bf16": 1, "fp16": 1 + FINE}[product]
    assert np.isinf(d[2, 2]) == (product == "fp16")
    assert d[0, 9] == SIZE, "sums are f32 whatever is cast"
    assert e[0, 5] == {"bf16": 1, "fp16": 1 + FINE, "f32": 1 + FINE}[elementwise]
    assert e[3, 5] == {"bf16": 1, "fp16": 1, "f32": 1 + FINER}[elementwise]
    assert d.dtype == e.dtype == np.float32
    x[6, 7], spoilt = np.nan, load(str(path))
    rows = np.isnan(spoilt.run([x, w, s])[0]).any(1)
    effects = {"fast": (True, False), "exact": (False, False), "": (False, True)}
    assert (bool(rows[7:].any()), spoilt.was_repeated) == effects[relayout]
    casts = open_neff(path).require_runnable().nxcc.options
    assert (casts["auto-cast"], casts["auto-cast-type"]) == ("all" if elementwise != "f32" else "matmult", product)
    assert casts.get("relayout", "") == relayout
