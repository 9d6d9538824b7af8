"""A widened parameter that is returned narrow inside keeps both dtypes outside."""

from nxcc.ir.hlo.text.reader import read_text
from nxcc.passes.separate_results import SeparateResults


def test_result_that_is_a_narrowed_parameter_gets_a_value_of_its_own() -> None:
    module = read_text("HloModule m\nENTRY e {\n p = s32[] parameter(0)\n q = f32[] parameter(1)\n"
                       " ROOT t = (s32[], f32[]) tuple(p, q)\n}")
    assert not SeparateResults().run(module)
    module.frontend_attributes["nxcc.output.0"] = "s64"
    assert SeparateResults().run(module)
    assert [o.opcode for o in module.entry.root.operands] == ["copy", "parameter"]


def test_result_that_is_a_parameter_given_in_another_dtype_gets_a_value_of_its_own() -> None:
    module = read_text("HloModule m\nENTRY e {\n p = f32[] parameter(0), frontend_attributes={nxcc.interface=\"f64\"}\n"
                       " ROOT t = (f32[]) tuple(p)\n}")
    assert SeparateResults().run(module)
    assert [o.opcode for o in module.entry.root.operands] == ["copy"]
