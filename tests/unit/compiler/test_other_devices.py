"""Collectives whose groups have devices that one core is without: told once, by the name of the first."""

from __future__ import annotations

import pytest

from nxcc.compiler.interface.other_devices import absent_devices
from nxcc.ir.hlo.text.reader import read_text

from harness.combiners import combiner


@pytest.mark.parametrize(("operator", "is_told"), [
    ("all-reduce(x), replica_groups={}, to_apply=add", False),
    ("all-reduce(x), replica_groups={{0}}, to_apply=add", False),
    ("all-reduce(x), replica_groups={{1},{0}}, to_apply=add", False),
    ("all-reduce(x), replica_groups={{2,0},{1,3}}, to_apply=add", True),
    ("all-reduce(x), replica_groups=[1,1]<=[1], to_apply=add", False),
    ("all-reduce(x), channel_id=1, replica_groups=[2,2]<=[2,2]T(1,0), use_global_device_ids=true, to_apply=add", True),
    ("collective-permute(x), source_target_pairs={{0,0}}", False),
    ("collective-permute(x), source_target_pairs={{0,1}}", False),
    ("collective-permute(x), source_target_pairs={{0,1},{1,0}}", True),
    ("negate(x)", False),
])
def test_groups_with_others(operator: str, is_told: bool) -> None:
    text = f"HloModule m\n{combiner('add', 'add')}ENTRY e {{ x = f32[4] parameter(0)\n ROOT y = f32[4] {operator} }}"
    words = absent_devices(read_text(text))
    assert words.startswith(operator.split("(")[0] + " y: a group has other devices") if is_told else not words


def test_several_are_one_line() -> None:
    lines = "".join(f" y{n} = f32[4] collective-permute(x), source_target_pairs={{{{1,0}}}}\n" for n in range(3))
    text = f"HloModule m\nENTRY e {{ x = f32[4] parameter(0)\n{lines} ROOT r = f32[4] add(y0, y2) }}"
    assert absent_devices(read_text(text)).startswith("collective-permute y0 and 2 more:")
