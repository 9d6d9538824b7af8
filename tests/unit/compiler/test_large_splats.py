"""A constant of one repeated element takes no room in what a NEFF carries, whatever the level."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nxcc.compiler.driver import Source, compile_module
from nxcc.compiler.options import options_from
from nxcc.compiler.runtime.loaded import load
from nxcc.ir.hlo.text.reader import read_text
from nxcc.neff.writer import write_neff

TEXT = """HloModule m
ENTRY e {
  x = f32[2,3] parameter(0)
  y = f32[30000,40000] parameter(1)
  sent = f32[30000,40000] collective-permute(y), source_target_pairs={{0,1}}
  part = f32[2,3] slice(sent), slice={[0:2], [0:3]}
  ROOT r = f32[2,3] add(x, part)
}
"""


@pytest.mark.parametrize("level", ["0", "2"])
def test_zeros_that_nobody_sends_are_one_element(level: str, tmp_path: Path) -> None:
    build = compile_module(read_text(TEXT), options_from(optlevel=level), Source())
    assert build.package is not None
    path = str(tmp_path / "m.neff")
    write_neff(path, build.package)
    assert os.stat(path).st_size < 1 << 18


def test_a_repeated_element_on_the_host_is_what_it_was(tmp_path: Path) -> None:
    text = """HloModule m
f { a = c64[900] parameter(0)
  b = c64[900] constant({VALUES})
  ROOT r = c64[900] add(a, b) }
ENTRY e { x = c64[900] parameter(0)
  y = c64[900] call(x), to_apply=f
  z = c64[900] constant({VALUES})
  ROOT r = c64[900] multiply(y, z) }
""".replace("VALUES", ", ".join(["(2, 1)"] * 900))
    build = compile_module(read_text(text), options_from(optlevel="0"), Source())
    assert build.package is not None
    path = str(tmp_path / "m.neff")
    write_neff(path, build.package)
    x = np.arange(900).astype(np.complex64)
    (got,) = load(path).run([x])
    np.testing.assert_array_equal(got, ((x + np.complex64(2 + 1j)) * np.complex64(2 + 1j)).astype(np.complex64))
