from nxcc.backends.codegen import structural_opcodes
from nxcc.backends.lowering.registry import rules
from nxcc.backends.lowering.views import view_opcodes
from nxcc.compiler.operators import BUILDER_NAMES, INTERNAL, ON_DEVICE, builder_names
from nxcc.ir.hlo.operator import operators


def test_the_light_table_says_what_the_lowering_rules_declare() -> None:
    assert set(ON_DEVICE["v2"]) == set(rules()) | set(view_opcodes()) | set(structural_opcodes())
    assert list(ON_DEVICE["v2"]) == sorted(ON_DEVICE["v2"])


def test_only_opcodes_have_spellings() -> None:
    assert BUILDER_NAMES.keys() | INTERNAL <= operators().keys()
    assert builder_names("dot") == ("Dot", "DotGeneral") and builder_names("dynamic-slice") == ("DynamicSlice",)
    names = [name for opcode in operators() for name in builder_names(opcode)]
    assert len(names) == len(set(names))
