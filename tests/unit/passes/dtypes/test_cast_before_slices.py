"""A value is cast whole where all of its parts are cast, and left alone else."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.verifier import verify
from nxcc.passes.dtypes.cast_before_slices import CastBeforeSlices


def parts(second: str, root: str) -> str:
    return f"""HloModule m
ENTRY e {{
 p = f32[4,6] parameter(0)
 x = f32[4,6] tanh(p)
 a = f32[4,3] slice(x), slice={{[0:4], [0:3]}}
 b = f32[4,{second}
 c = bf16[4,3] convert(a)
 {root}
}}"""


REST = "3] slice(x), slice={[0:4], [3:6]}"
WHOLE = parts(REST, "d = bf16[4,3] convert(b)\n ROOT r = (bf16[4,3], bf16[4,3]) tuple(c, d)")
OTHER_TYPE = parts(REST, "d = f16[4,3] convert(b)\n ROOT r = (bf16[4,3], f16[4,3]) tuple(c, d)")
IN_WIDE = parts(REST, "d = bf16[4,3] convert(b)\n ROOT r = (bf16[4,3], bf16[4,3], f32[4,3]) tuple(c, d, b)")
IN_PART = parts("1] slice(x), slice={[0:4], [3:4]}", "d = bf16[4,1] convert(b)\n ROOT r = (bf16[4,3], bf16[4,1]) tuple(c, d)")


@pytest.mark.parametrize(("text", "whole"), [(WHOLE, True), (OTHER_TYPE, False), (IN_WIDE, False), (IN_PART, False)],
                         ids=["all parts", "two types", "a part is read wide too", "not all is read"])
def test_cast_before_slices(text: str, whole: bool) -> None:
    module = read_text(text)
    given = [np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)]
    wanted = flatten(evaluate(module, given))
    assert CastBeforeSlices().run(module) is whole
    verify(module)
    casts = [i for i in module.entry.instructions if i.opcode == "convert"]
    assert [c.shape.dims for c in casts] == ([(4, 6)] if whole else [c.shape.dims for c in casts])
    assert whole == (len(casts) == 1)
    for got, want in zip(flatten(evaluate(module, given)), wanted, strict=True):
        np.testing.assert_array_equal(got, want)
