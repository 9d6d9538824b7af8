"""f64 that a module only converts: the loader does it, and all of the rest runs on the device."""

from pathlib import Path

import numpy as np
import pytest

from nxcc.compiler import api

from harness.whole import check_whole

SCALED = """HloModule m
ENTRY e {
  p = f64[] parameter(0)
  x = f32[4] parameter(1)
  s = TYPE[] convert(p)
  f = f32[] convert(s)
  b = f32[4] broadcast(f), dimensions={}
  y = f32[4] multiply(b, x)
  w = f64[4] convert(y)
  ROOT t = (f32[4], f64[4], TYPE[]) tuple(y, w, s)
}
"""


@pytest.mark.parametrize("target", ["v2", "v1"])
@pytest.mark.parametrize("name", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("value", [0.1, -0.0, 1e300, 1e-310, 1.00000005960464477539, float("nan")])
def test_numbers_are_rounded_as_a_conversion_does(value: float, name: str, target: str) -> None:
    check_whole(SCALED.replace("TYPE", name), [np.array(value), np.array([1, -2, 0.5, 3], np.float32)], ("0", "2"),
                target=target)


def test_numbers_leave_nothing_on_the_host(tmp_path: Path) -> None:
    (tmp_path / "m.hlo").write_text(SCALED.replace("TYPE", "f32"))
    compiled = api.compile(tmp_path / "m.hlo", tmp_path / "m.neff", host_fallback="forbid")
    assert compiled.load().inputs[0] == "input0: f64[]"
    assert [output.split(": ")[1] for output in compiled.load().outputs] == ["f32[4]", "f64[4]", "f32[]"]
