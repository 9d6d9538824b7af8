"""Ragged and scaled dots: on the device, and right, whatever the groups are of."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.compiler.driver import compile_module
from nxcc.compiler.options import options_from
from nxcc.ir.hlo.text.reader import read_text

from harness.device import random_inputs
from harness.whole import check_whole

CASES = {
    "rows": ("T[7,6] a", "T[3,6,4] b", "s32[3] s", "T[7,4]", "lhs_contracting_dims={1}, rhs_contracting_dims={1}, "
             "lhs_ragged_dims={0}, rhs_group_dims={0}", [2, 0, 4]),
    "rows-of-each-batch": ("T[2,7,6] a", "T[2,6,3,4] b", "s32[2,3] s", "T[2,7,4]", "lhs_batch_dims={0}, rhs_batch_dims={0}, "
                           "lhs_contracting_dims={2}, rhs_contracting_dims={1}, lhs_ragged_dims={1}, rhs_group_dims={2}",
                           [[2, 1, 4], [0, 3, 1]]),
    "rows-after-rows": ("T[2,5,6] a", "T[3,6,4] b", "s32[2,3] s", "T[2,5,4]", "lhs_contracting_dims={2}, "
                        "rhs_contracting_dims={1}, lhs_ragged_dims={1}, rhs_group_dims={0}", [[1, 1, 3], [5, 0, 0]]),
    "terms": ("T[7,6] a", "T[6,4] b", "s32[2] s", "T[2,7,4]", "lhs_contracting_dims={1}, rhs_contracting_dims={0}, "
              "lhs_ragged_dims={1}", [2, 3]),
    "terms-of-each-batch": ("T[3,7,6] a", "T[3,6,4] b", "s32[3,2] s", "T[2,3,7,4]", "lhs_batch_dims={0}, rhs_batch_dims={0}, "
                            "lhs_contracting_dims={2}, rhs_contracting_dims={1}, lhs_ragged_dims={2}",
                            [[2, 3], [6, 0], [1, 1]]),
    "batch": ("T[5,7,6] a", "T[5,6,4] b", "s32[2] s", "T[5,7,4]", "lhs_batch_dims={0}, rhs_batch_dims={0}, "
              "lhs_contracting_dims={2}, rhs_contracting_dims={1}, lhs_ragged_dims={0}", [1, 3]),
}


def _on_device(text: str) -> None:
    plan = compile_module(read_text(text), options_from(optlevel=1, placement="support")).plan
    assert plan is not None and not plan.host


@pytest.mark.parametrize("dtype", ["f32", "bf16", "s32"])
@pytest.mark.parametrize("case", sorted(CASES))
def test_ragged_dot(case: str, dtype: str) -> None:
    left, right, sizes, result, attributes, groups = CASES[case]
    parameters = "\n".join(f"{row.split()[1]} = {row.split()[0]} parameter({n})" for n, row in enumerate((left, right, sizes)))
    body = f"{parameters}\nROOT r = {result} ragged-dot(a, b, s), {attributes}".replace("T[", f"{dtype}[")
    text = f"HloModule m\nENTRY e {{\n{body}\n}}\n"
    inputs = [*random_inputs(read_text(text))[:2], np.array(groups, np.int32)]
    check_whole(text, inputs, levels=("0", "2"))
    _on_device(text)


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f8e5m2"])
def test_scaled_dot(dtype: str) -> None:
    text = """HloModule m
ENTRY e {
  a = T[6,8] parameter(0)
  b = T[8,4] parameter(1)
  s = T[2,4] parameter(2)
  t = f32[] parameter(3)
  ROOT r = f32[6,4] scaled-dot(a, b, s, t), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
""".replace("T[", f"{dtype}[")
    check_whole(text, levels=("0", "2"))
    _on_device(text)
