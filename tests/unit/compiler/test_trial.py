"""What a trial holds against a module, and what it excuses."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.compiler.debugging.trial import difference
from nxcc.ir.hlo.text.reader import read_text


@pytest.mark.parametrize(("value", "is_excused"), [(np.nan, True), (0.0, False)])
def test_the_sign_of_a_nan_is_nobodys_promise(value: float, is_excused: bool) -> None:
    """The bits of a NaN that was computed may differ; those of a result that is no NaN may not."""
    module = read_text("HloModule m\nENTRY e { x = f16[3] parameter(0)\n"
                       "y = f16[3] negate(x)\n ROOT b = s16[3] bitcast-convert(y) }")
    inputs = [np.full(3, value, np.float16)]
    wanted, got = (-inputs[0]).view(np.int16), inputs[0].view(np.int16)
    assert bool(difference(module, inputs, [got], [wanted])) is not is_excused


@pytest.mark.parametrize(("value", "is_excused"), [(1e-42, True), (1e-30, False)])
def test_a_denormal_may_count_as_zero(value: float, is_excused: bool) -> None:
    module = read_text("HloModule m\nENTRY e { x = f32[8] parameter(0)\n ROOT y = f32[8] log(x) }")
    inputs = [np.full(8, value, np.float32)]
    assert bool(difference(module, inputs, [np.full(8, -np.inf, np.float32)], [np.log(inputs[0])])) is not is_excused


@pytest.mark.parametrize(("value", "is_excused"), [(-18.0, True), (2.0, False)])
def test_what_underflows_in_a_narrow_type_may_be_there_still(value: float, is_excused: bool) -> None:
    module = read_text("HloModule m\nENTRY e { x = f16[8] parameter(0)\n y = f16[8] logistic(x)\n z = f16[8] multiply(x, y)\n"
                       " ROOT l = f16[8] log(z) }")
    inputs = [np.full(8, value, np.float16)]
    wanted = np.full(8, -np.inf if is_excused else 0.5664, np.float16)
    assert bool(difference(module, inputs, [np.full(8, np.nan, np.float16)], [wanted])) is not is_excused
