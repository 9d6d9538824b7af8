"""A declared weight that the module reads transposed is turned by the loader, wherever its reader runs."""

from pathlib import Path

import numpy as np
import pytest

from nxcc.cli import main

TEXT = """HloModule dense
ENTRY main {
  x = f32[4,8] parameter(0)
  w = f32[16,8] parameter(1)
  t = f32[8,16] transpose(w), dimensions={1,0}
  ROOT y = f32[4,16] dot(x, t), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""


@pytest.mark.parametrize("words", [[], ["--auto-cast", "matmult"], ["--keep-on-host=."], ["-O0"]],
                         ids=["f32", "bf16", "host", "O0"])
def test_weight_is_given_as_the_module_declares_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dense.hlo").write_text(TEXT)
    generator = np.random.default_rng(0)
    x, w = (generator.standard_normal(dims).astype(np.float32) for dims in ((4, 8), (16, 8)))
    np.savez("w.npz", **{"1": w})
    np.savez("in.npz", input0=x)
    assert main(["compile", "dense.hlo", "-q", "--weight-params", "1", *words]) == 0
    assert main(["run", "dense.neff", "--inputs", "in.npz", "--outputs", "out.npz", "--weights", "w.npz"]) == 0
    np.testing.assert_allclose(np.load("out.npz")["output0"], x @ w.T, rtol=0, atol=0.05)
    assert main(["verify", "dense.neff", "--inputs", "in.npz", "--weights", "w.npz"]) == 0
