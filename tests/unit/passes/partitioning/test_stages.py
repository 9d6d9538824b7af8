"""Cuts into stages: exact against trying them all, and plans that compute what the module does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pytest

from nxcc.ir.diagnostics import PIPELINE, CompileError
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.text.writer import write_text
from nxcc.passes.partitioning.partition import partition
from nxcc.passes.partitioning.stages import Stages

from harness.plans import run_plan

CHAIN = """HloModule m
ENTRY main {
  x = f32[4] parameter(0)
  w = f32[4] parameter(1)
  a = f32[4] negate(x)
  b = f32[4] multiply(a, w)
  c = f32[4] abs(b)
  d = f32[4] add(c, a)
  ROOT e = f32[4] negate(d)
}
"""

VIEWS = """HloModule m
ENTRY main {
  x = f32[2,3] parameter(0)
  w = f32[3,2] parameter(1)
  wt = f32[2,3] transpose(w), dimensions={1,0}
  a = f32[2,3] add(x, wt)
  at = f32[3,2] transpose(a), dimensions={1,0}
  b = f32[3,2] negate(at)
  c = f32[3,2] abs(at)
  ROOT d = f32[3,2] add(b, c)
}
"""


@dataclass
class Costs:
    """By instruction; everything else costs nothing."""

    by_name: Mapping[str, int]
    needs: Mapping[str, int] = field(default_factory=dict)
    resident_bytes: int = 1 << 30
    per_byte: int = 0

    def ticks(self, node: str, instruction: str) -> int:
        return self.by_name.get(instruction, 0)

    def needed_bytes(self, node: str, instruction: str) -> int:
        return self.needs.get(instruction, 0)

    def stream_ticks(self, sizes: np.ndarray) -> np.ndarray:
        return np.asarray(sizes, np.int64)

    def handover_ticks(self, sizes: np.ndarray) -> np.ndarray:
        return np.asarray(sizes, np.int64) * self.per_byte

    def is_weight(self, value: str) -> bool:
        return value == "input1"


def on_device(instruction: Instruction) -> str | None:
    return None


def no_abs(instruction: Instruction) -> str | None:
    return "abs is slow" if instruction.opcode == "abs" else None


def test_a_stage_is_a_module_that_takes_what_the_one_before_hands_over() -> None:
    module = read_text(CHAIN)
    stages = Stages(partition(module, on_device), Costs({"a": 5, "b": 5, "c": 4, "d": 3, "e": 3}))
    plan = stages.plan(module, stages.cut(2))
    assert [(node.name, node.core, node.region, node.inputs, node.outputs) for node in plan.nodes] == [
        ("device0", 0, 0, ("input0", "input1"), ("value3", "value4")), ("device1", 1, 0, ("value3", "value4"), ("output0",))]
    lines = write_text(plan.nodes[1].module).splitlines()
    assert [line.strip() for line in lines[lines.index("") + 1:] if line.strip()] == [
        "ENTRY %main (b: f32[4], a: f32[4]) -> f32[4] {", "%b = f32[4] parameter(0)", "%c = f32[4]{0} abs(%b)",
        "%a = f32[4] parameter(1)", "%d = f32[4]{0} add(%c, %a)", "ROOT %e = f32[4]{0} negate(%d)", "}"]


@pytest.mark.parametrize("text", [CHAIN, VIEWS], ids=["chain", "views"])
@pytest.mark.parametrize("predicate", [on_device, no_abs], ids=["device", "split"])
@pytest.mark.parametrize("count", [2, 3])
def test_stages_compute_what_the_module_does(text: str, predicate, count: int) -> None:
    module = read_text(text)
    values = [np.linspace(-1, 1, 6 if text is VIEWS else 4, dtype=np.float32).reshape(p.shape.dims) + k
              for k, p in enumerate(module.entry.parameters)]
    expected = flatten(evaluate(module, values))
    stages = Stages(partition(module, predicate), Costs({}))
    plan = stages.plan(module, stages.cut(count))
    assert [node.core for node in plan.nodes if node.on_device] == list(range(count))
    for found, wanted in zip(run_plan(plan, values), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_longest_stage_is_as_short_as_any_cut_makes_it() -> None:
    random = np.random.default_rng(7)
    body = "\n".join(f"  r{k + 1} = f32[8] negate(r{k})" for k in range(9))
    text = f"HloModule m\nENTRY main {{\n  r0 = f32[8] parameter(0)\n{body}\n  ROOT o = f32[8] abs(r9)\n}}"
    module = read_text(text)
    for _ in range(10):
        costs = Costs({f"r{k}": int(random.integers(1, 50)) for k in range(1, 10)} | {"o": 5},
                      {f"r{k}": int(random.integers(0, 30)) for k in range(1, 10)}, resident_bytes=40)
        stages = Stages(partition(module, on_device), costs)
        for count in (2, 3, 4):
            ends = stages.cut(count)
            every = [stages.predicted((*middle, len(stages.atoms))) for middle in
                     combinations(range(1, len(stages.atoms)), count - 1)]
            assert max(stages.predicted(ends)) == min(max(row) for row in every)
            assert len(ends) == count


def test_among_equal_cuts_the_one_with_fewest_bytes_over_its_border() -> None:
    text = """HloModule m
ENTRY main {
  x = f32[8] parameter(0)
  a = f32[8] negate(x)
  s = f32[2] slice(a), slice={[0:2]}
  b = f32[2] negate(s)
  ROOT c = f32[2] abs(b)
}
"""
    module = read_text(text)
    stages = Stages(partition(module, on_device), Costs({"a": 10, "s": 0, "b": 10, "c": 1}))
    plan = stages.plan(module, stages.cut(2))
    assert [plan.values[name].dims for name in plan.nodes[0].outputs] == [(2,)]


def test_views_and_what_depends_on_weights_stay_with_their_readers() -> None:
    module = read_text(VIEWS)
    stages = Stages(partition(module, on_device), Costs({"a": 10, "b": 10, "c": 1, "d": 1}))
    assert [[member.opcode for member in atom.members] for atom in stages.atoms] == [
        ["transpose", "add"], ["transpose", "negate"], ["transpose", "abs"], ["add"]]


def test_what_was_measured_corrects_the_costs() -> None:
    module = read_text(CHAIN)
    stages = Stages(partition(module, on_device), Costs({"a": 10, "b": 10, "c": 10, "d": 10, "e": 10}))
    ends = stages.cut(2)
    stages.learn(ends, [100, 10])
    assert stages.work(ends) == [100, 10] or sum(stages.work(ends)) <= 110
    assert stages.cut(2)[0] < ends[0]


@pytest.mark.parametrize(("predicate", "count", "says"), [
    (on_device, 6, "6 stages of a device graph of 5"), (no_abs, 1, "1 stages for 2 device regions"),
    (lambda i: "all", 2, "nothing of the module runs on the device")])
def test_what_cannot_be_cut_is_an_error(predicate, count: int, says: str) -> None:
    stages = Stages(partition(read_text(CHAIN), predicate), Costs({}))
    with pytest.raises(CompileError, match=says) as caught:
        stages.cut(count)
    assert caught.value.code is PIPELINE
