"""Placement by cost: where the border lies, which regions join the host, and that nothing changes where nothing is split."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text
from nxcc.passes.partitioning.partition import COST, SUPPORT, Plan, partition
from nxcc.passes.partitioning.placement import Placement

from harness.plans import run_plan


@dataclass(frozen=True)
class Costs:
    """A byte takes a nanosecond, an instruction on the host as long as it says here, the device none."""

    launch: int = 100
    times: dict[str, int] = field(default_factory=dict)

    def host(self, instruction: Instruction) -> int:
        return self.times.get(instruction.name, 1)

    def device(self, instruction: Instruction) -> int:
        return 0

    def transfer(self, size: int) -> int:
        return size


def no_sine(instruction: Instruction) -> str | None:
    return "sine is slow" if instruction.opcode == "sine" else None


def plan_of(text: str, **how) -> Plan:
    return partition(read_text(text), no_sine, placement=Placement(**how))


def on_host(plan: Plan, kind: str = COST) -> list[str]:
    return sorted(row.instruction for row in plan.host if row.kind == kind)


BORDER = """HloModule m
ENTRY main {
  x = f32[8] parameter(0)
  big = f32[1024] parameter(1)
  less = f32[8] slice(big), slice={[0:8]}
  s = f32[8] sine(less)
  a = f32[8] add(s, x)
  ROOT b = f32[8] multiply(a, a)
}
"""

REGIONS = """HloModule m
ENTRY main {
  x = f32[64,64] parameter(0)
  d = f32[64,64] dot(x, x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  s = f32[64,64] sine(d)
  small = f32[64,64] dot(s, s), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  t = f32[64,64] sine(small)
  ROOT e = f32[64,64] dot(t, x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""


def test_what_makes_a_value_small_joins_the_host_that_needs_it() -> None:
    plan = plan_of(BORDER, costs=Costs(times={"a": 10**6, "b": 10**6}))
    assert on_host(plan) == ["less"] and on_host(plan, SUPPORT) == ["s"]
    assert [node.on_device for node in plan.nodes] == [False, True]


def test_it_stays_on_the_device_if_the_host_takes_longer_than_the_transfer() -> None:
    plan = plan_of(BORDER, costs=Costs(times={"less": 10**6, "a": 10**6, "b": 10**6}))
    assert on_host(plan) == []


def test_a_weight_lies_on_both_sides() -> None:
    module = read_text(BORDER)
    weights = frozenset(module.entry.parameters[1:])
    costs = Costs(0, {"less": 33, "a": 10**6, "b": 10**6})
    assert on_host(partition(module, no_sine, placement=Placement(costs, weights))) == []
    assert on_host(plan_of(BORDER, costs=costs)) == ["less"]


def test_a_region_that_does_not_pay_for_its_call_joins_the_host() -> None:
    plan = plan_of(REGIONS, costs=Costs(10**5, {"d": 10**6, "e": 10**6, "small": 1000}))
    assert on_host(plan) == ["small"]
    assert [node.on_device for node in plan.nodes] == [True, False, True]
    (row,) = (row for row in plan.host if row.kind == COST)
    assert row.reason == "its device region of 1 operations takes 133 us with its call and 32768 bytes to move, the host 1 us"


def test_products_do_not_leave_the_device_for_a_border_and_the_largest_region_stays() -> None:
    plan = plan_of(REGIONS, costs=Costs(10**9, {"d": 5, "e": 6, "small": 4}))
    assert on_host(plan) == ["d", "small"]


def test_a_module_that_runs_whole_on_the_device_is_left_alone() -> None:
    text = BORDER.replace("sine", "negate")
    assert not plan_of(text, costs=Costs(10**9, {})).host


@pytest.mark.parametrize("text", [BORDER, REGIONS])
@pytest.mark.parametrize("how", [{"costs": Costs(10**9)}, {"costs": Costs(0)}, {"min_region": 2}, {"min_region": 100}])
def test_the_plan_computes_what_the_module_does(text: str, how) -> None:
    module = read_text(text)
    shapes = [parameter.shape for parameter in module.entry.parameters]
    values = [np.linspace(-1, 1, shape.element_count, dtype=np.float32).reshape(shape.dims) for shape in shapes]
    plan = partition(module, no_sine, placement=Placement(**how))
    for got, want in zip(run_plan(plan, values), flatten(evaluate(module, values)), strict=True):
        np.testing.assert_array_equal(got, want)


def test_small_regions_join_the_host_where_the_user_says_so() -> None:
    plan = plan_of(REGIONS, min_region=2)
    assert on_host(plan) == ["d", "e", "small"]
    assert {row.reason for row in plan.host if row.kind == COST} == {
        "its device region has 1 operations, --min-region asks for 2"}
    assert not plan_of(REGIONS, min_region=1).host[1:2] or on_host(plan_of(REGIONS, min_region=1)) == []
