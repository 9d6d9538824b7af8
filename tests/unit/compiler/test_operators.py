"""What list-operators says, against the declarations and the lowering rules."""

import pytest

from nxcc.backends.capability.support import unsupported
from nxcc.backends.codegen.control import STRUCTURAL
from nxcc.backends.lowering.registry import rules
from nxcc.backends.lowering.views import VIEW_OPCODES
from nxcc.backends.target import load_target
from nxcc.compiler.reports.operator_forms import EXPANDED
from nxcc.compiler.reports.operators import BUILDER_NAMES, INTERNAL, LACKING, ON_DEVICE, builder_names, operator_report
from nxcc.ir.hlo.operator import operators
from nxcc.ir.hlo.text.reader import read_text


def test_the_light_table_says_what_the_lowering_rules_declare() -> None:
    assert set(ON_DEVICE["v2"]) == set(rules()) | set(VIEW_OPCODES) | set(STRUCTURAL)
    assert list(ON_DEVICE["v2"]) == sorted(ON_DEVICE["v2"])


@pytest.mark.parametrize("text", [
    "x = f32[3,8] parameter(0)\n ROOT r = (f32[3,2], s32[3,2]) topk(x), k=2, largest=true",
    "x = u64[2] parameter(0)\n ROOT r = (u64[2], u32[8]) rng-bit-generator(x), algorithm=rng_three_fry",
    "x = f32[9,4] parameter(0)\n i = s32[5,1] parameter(1)\n ROOT r = f32[5,4] gather(x, i), offset_dims={1}, "
    "collapsed_slice_dims={0}, start_index_map={0}, index_vector_dim=1, slice_sizes={1,4}",
])
def test_what_v1_lacks_is_refused_there_and_runs_on_v2(text: str) -> None:
    root = read_text(f"HloModule m\nENTRY e {{\n {text}\n}}").entry.root
    assert root.opcode in LACKING["v1"] and root.opcode not in ON_DEVICE["v1"]
    assert unsupported(root, load_target("v1")) and unsupported(root, load_target("v2")) is None


@pytest.mark.parametrize("target", ["v1", "v2"])
def test_each_operator_says_where_it_runs_and_why_not_on_the_device(target: str) -> None:
    rows = {row["opcode"]: row for row in operator_report("HLO", target, in_detail=True)["operators"]}
    assert set(rows) == set(operators())
    assert {row["placement"] for row in rows.values()} <= {"device", "host", "no"}
    on_device = {opcode for opcode, row in rows.items() if row["placement"] == "device"}
    assert on_device <= set(ON_DEVICE[target]) | set(EXPANDED)
    assert set(ON_DEVICE["v2"]) <= on_device or target == "v1"
    assert all(row["constraint"] for row in rows.values() if row["placement"] != "device")
    assert "s64" in rows["add"]["dtypes"] and "do not multiply s64" in rows["convolution"]["constraint"]


def test_only_opcodes_have_spellings() -> None:
    assert BUILDER_NAMES.keys() | INTERNAL <= operators().keys()
    assert builder_names("dot") == ("Dot", "DotGeneral") and builder_names("dynamic-slice") == ("DynamicSlice",)
    names = [name for opcode in operators() for name in builder_names(opcode)]
    assert len(names) == len(set(names))


def test_a_collective_over_several_devices_is_told_from_one_without_lowering() -> None:
    module = read_text("HloModule m\nENTRY e { p = f32[4] parameter(0) "
                       "ROOT r = f32[8] all-gather(p), replica_groups={{0,1}}, dimensions={0} }")
    assert "several devices" in str(unsupported(module.entry.root, load_target("v2")))
