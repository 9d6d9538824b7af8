"""Device and host nodes, their order, and that a plan computes what its module does."""


import numpy as np
import pytest

from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.literals import Array
from nxcc.passes.partitioning.partition import partition

from harness.plans import run_plan

CHAIN = """
ENTRY main {
  x = f32[4] parameter(0)
  a = f32[4] negate(x)
  h1 = f32[4] sine(a)
  b = f32[4] abs(x)
  h2 = f32[4] sine(b)
  c = f32[4] add(h1, h2)
  ROOT d = f32[4] add(c, a)
}
"""

TUPLES = """
sum { m = f32[] parameter(0)
  n = f32[] parameter(1)
  ROOT k = f32[] add(m, n) }
body { p = (f32[2], f32[2]) parameter(0)
  u = f32[2] get-tuple-element(p), index=0
  v = f32[2] get-tuple-element(p), index=1
  w = f32[2] sine(u)
  two = f32[2] constant({2, 2})
  less = f32[2] subtract(w, two)
  ROOT r = (f32[2], f32[2]) tuple(v, less) }
cond { p = (f32[2], f32[2]) parameter(0)
  u = f32[2] get-tuple-element(p), index=0
  z = f32[] constant(0)
  s = f32[] reduce(u, z), dimensions={0}, to_apply=sum
  ROOT q = pred[] compare(s, z), direction=GT }
ENTRY main {
  x = (f32[2], f32[2]) parameter(0)
  one = f32[2] constant({1, 1})
  e = f32[2] get-tuple-element(x), index=1
  g = f32[2] add(e, one)
  t = (f32[2], f32[2]) tuple(g, e)
  l = (f32[2], f32[2]) while(t), condition=cond, body=body
  f = f32[2] get-tuple-element(l), index=0
  n = f32[2] negate(f)
  t2 = (f32[2], f32[2], f32[2]) tuple(n, f, e)
  ROOT out = (f32[2], (f32[2], f32[2], f32[2]), f32[2]) tuple(n, t2, one)
}
"""


def no_sine(instruction: Instruction) -> str | None:
    return "sine is slow" if instruction.opcode == "sine" else None


def as_value(module: Module, values: list[Array]) -> list:
    shape = module.entry.parameters[0].shape
    return [tuple(values)] if shape.is_tuple else values


@pytest.mark.parametrize(("text", "inputs"), [(CHAIN, 1), (TUPLES, 2)], ids=["chain", "tuples"])
@pytest.mark.parametrize("predicate", [no_sine, lambda i: None, lambda i: "all"], ids=["split", "device", "host"])
def test_a_plan_computes_what_the_module_does(text: str, inputs: int, predicate) -> None:
    module = read_text("HloModule m\n" + text)
    size = 4 if inputs == 1 else 2
    values = [np.linspace(-0.5, 0.5, size, dtype=np.float32) + k for k in range(inputs)]
    expected = flatten(evaluate(module, as_value(module, values)))
    plan = partition(module, predicate)
    np.testing.assert_array_equal(run_plan(plan, values), expected)


def test_sides_change_as_seldom_as_possible() -> None:
    plan = partition(read_text("HloModule m\n" + CHAIN), no_sine)
    assert [node.on_device for node in plan.nodes] == [True, False, True]
    assert len(plan.nodes[1].module.entry.instructions) == 5


def test_host_reasons_name_instruction_and_what_is_inside() -> None:
    plan = partition(read_text("HloModule m\n" + TUPLES), no_sine)
    assert [(row.instruction, row.opcode, row.reason, row.culprit) for row in plan.host] == [
        ("l", "while", "sine is slow", "w")]


def test_kept_instructions_go_to_the_host() -> None:
    plan = partition(read_text("HloModule m\n" + CHAIN), lambda i: None, "^c$")
    assert [node.on_device for node in plan.nodes] == [True, False, True]
    assert plan.host[0].reason == "kept on the host by --keep-on-host"


def test_results_that_are_parameters_or_constants_are_found() -> None:
    text = """HloModule m
ENTRY main {
  x = f32[2] parameter(0)
  c = f32[2] constant({3, 4})
  ROOT r = (f32[2], f32[2], f32[2]) tuple(x, c, c)
}"""
    plan = partition(read_text(text), lambda i: None)
    assert plan.results == ("input0", "output1", "output2")
    x = np.float32([1, 2])
    np.testing.assert_array_equal(run_plan(plan, [x]), [x, [3, 4], [3, 4]])


STATE = """HloModule m, input_output_alias={{ {{0}}: (0, {{}}, may-alias) }}
ENTRY main {{
  s = f32[2] parameter(0)
  x = f32[2] parameter(1)
  new = f32[2] add(s, x)
  w = f32[2] {middle}(new)
  y = f32[2] add(w, {last})
  ROOT r = (f32[2], f32[2]) tuple(new, y)
}}"""


@pytest.mark.parametrize(("middle", "last", "expected"), [
    ("negate", "s", {"output0": "input0"}), ("sine", "s", {}), ("sine", "x", {"output0": "input0"})])
def test_an_alias_is_kept_only_where_nobody_reads_the_input_later(middle: str, last: str, expected: dict[str, str]) -> None:
    plan = partition(read_text(STATE.format(middle=middle, last=last)), no_sine)
    assert plan.aliases == expected


def test_dead_instructions_are_left_out() -> None:
    text = "HloModule m\nENTRY main {\n x = f32[2] parameter(0)\n dead = f32[2] sine(x)\n ROOT r = f32[2] negate(x)\n}"
    plan = partition(read_text(text), no_sine)
    assert not plan.host and len(plan.nodes) == 1
