"""Custom calls of the vendor's frameworks on the device: what they mean, and that nothing of it is left to the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nxcc.compiler.driver import compile_module
from nxcc.compiler.options import options_from
from nxcc.ir.hlo.text.reader import read_text
from nxcc.passes.expansions.expand_custom_calls import EXPANDED_TARGETS

from harness.whole import check_whole

CASES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "AwsNeuronSoftmax": (("T[5,3,40]",), "T[5,3,40]", "2"),
    "AwsNeuronSoftmaxBackward": (("T[5,40]", "T[5,40]"), "T[5,40]", "-1"),
    "AwsNeuronRmsNorm": (("T[5,40]", "T[40]", "f32[]"), "T[5,40]", "1"),
    "AwsNeuronGeluBackward": (("T[5,40]", "T[5,40]"), "T[5,40]", ""),
    "AwsNeuronSiluBackward": (("T[5,40]", "T[5,40]"), "T[5,40]", ""),
    "AwsNeuronArgMax": (("T[5,40]",), "u32[5]", "1"),
    "AwsNeuronArgMin": (("T[5,40]",), "s32[40]", "0"),
    "AwsNeuronTopK": (("T[5,40]",), "(T[5,4], u32[5,4])", "4"),
    "TopK": (("T[5,40]",), "(T[5,4], s32[5,4])", ""),
    "ResizeNearest": (("T[2,3,4,5]",), "T[2,6,7,5]", "10"),
    "ResizeNearestGrad": (("T[2,6,7,5]",), "T[2,3,4,5]", "10"),
    "ResizeBilinear": (("T[2,3,4,5]",), "T[2,6,7,5]", "01"),
}


def module(target: str, dtype: str) -> str:
    operands, result, config = CASES[target]
    lines = [f"p{n} = {shape} parameter({n})" for n, shape in enumerate(operands)]
    names = ", ".join(f"p{n}" for n in range(len(operands)))
    lines.append(f'ROOT r = {result} custom-call({names}), custom_call_target="{target}", backend_config="{config}"')
    return ("HloModule m\nENTRY e {\n" + "\n".join(lines) + "\n}\n").replace("T[", f"{dtype}[")


def hosted(text: str) -> list[str]:
    plan = compile_module(read_text(text), options_from(optlevel=1, placement="support")).plan
    assert plan is not None
    return [row.opcode for row in plan.host]


@pytest.mark.parametrize("target", ["AwsNeuronGeluBackward", "AwsNeuronSiluBackward"])
def test_a_slope_without_its_gradient_runs_on_the_device(target: str) -> None:
    text = ("HloModule m\nENTRY e { p0 = f32[5,40] parameter(0) "
            f'ROOT r = f32[5,40] custom-call(p0), custom_call_target="{target}", api_version=API_VERSION_UNSPECIFIED }}')
    check_whole(text, inputs(text), levels=("0", "2"))
    assert not hosted(text)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("target", sorted(CASES))
def test_a_known_call_runs_on_the_device(target: str, dtype: str) -> None:
    text = module(target, dtype)
    check_whole(text, inputs(text), levels=("0", "2"))
    assert not hosted(text)


def inputs(text: str) -> list[Any]:
    """Positive scalars, which stand under a root; else numbers around zero, with equal ones among them."""
    random, values = np.random.default_rng(1), []
    for parameter in read_text(text).entry.parameters:
        made = np.round(random.normal(size=parameter.shape.dims), 1) if parameter.shape.rank else np.asarray(0.01)
        values.append(np.asarray(made).astype(parameter.shape.dtype.numpy))
    return values


def test_integers_are_multiplied() -> None:
    text = """HloModule m
ENTRY e {
  p = s8[5,40] parameter(0)
  q = s8[40,6] parameter(1)
  ROOT r = s32[5,6] custom-call(p, q), custom_call_target="AwsNeuronIntMatmult"
}
"""
    check_whole(text, levels=("0", "2"))
    assert not hosted(text)


def test_the_first_nan_and_the_first_of_equals_are_found() -> None:
    x = np.array([[1, 3, 3, 2], [1, np.nan, 5, np.nan], [-np.inf] * 4, [np.inf] * 4], np.float32)
    for target in ("AwsNeuronArgMax", "AwsNeuronArgMin"):
        text = ('HloModule m\nENTRY e { p = f32[4,4] parameter(0)\n ROOT r = u32[4] custom-call(p), '
                f'custom_call_target="{target}", backend_config="1" }}')
        check_whole(text, [x], levels=("0", "2"))


def test_every_expanded_target_is_here() -> None:
    assert set(CASES) | {"AwsNeuronIntMatmult"} == set(EXPANDED_TARGETS)
