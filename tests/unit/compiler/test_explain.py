"""`nxcc explain`: which words lead where."""

import pytest

from nxcc.backends.cost import RULES
from nxcc.backends.isa.program import INSTRUCTIONS
from nxcc.compiler.reports.explain import explain_lines
from nxcc.ir.diagnostics import CompileError


def test_cost_of_an_instruction_has_formula_constants_and_sources():
    lines = explain_lines(("cost", "matmul"))
    assert lines[0] == "on v2:" and any("cost in cycles: passes *" in line for line in lines)
    assert any("tensor.pass_factor = " in line and "[measured]" in line for line in lines)


def test_every_machine_instruction_has_a_cost():
    assert set(RULES) == set(INSTRUCTIONS)


@pytest.mark.parametrize("target", ["v1", "v2"])
def test_every_formula_can_be_explained_on_every_target(target):
    for name in RULES:
        assert len(explain_lines(("cost", name), target)) > 2


def test_cost_of_the_host_is_a_model_of_its_own():
    text = "\n".join(explain_lines(("cost", "host"), "v1"))
    assert "host.submit_ns = 500000.0 [assumed]" in text and "crossing bytes" in text


def test_cost_alone_lists_all_formulas():
    assert {line.split()[0] for line in explain_lines(("cost",))} == {*RULES, "host"}


@pytest.mark.parametrize(("words", "message"), [
    (("cost", "matmull"), "did you mean matmul"), (("add", "dot"), "2 names"), (("nonsense_",), "nothing is known"),
    (("cost", "dot"), "no machine instruction")])
def test_unknown_words_are_wrong_usage(words, message):
    with pytest.raises(CompileError, match=message):
        explain_lines(words)
