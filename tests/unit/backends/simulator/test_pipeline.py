"""Requests that stream through stages."""

import pytest

from nxcc.backends.simulator.pipeline import Stage, stream


def test_one_stage_is_busy_all_the_time() -> None:
    flow = stream([Stage(10, 0)])
    assert (flow.latency, flow.interval, flow.occupancy, flow.binding) == (10, 10, (1.0,), 0)


def test_the_longest_stage_sets_the_interval() -> None:
    flow = stream([Stage(10, 0), Stage(30, 2), Stage(5, 3)])
    assert flow.latency == 10 + 2 + 30 + 3 + 5
    assert flow.interval == 2 + 30 + 3 and flow.binding == 1
    assert flow.occupancy == pytest.approx((10 / 35, 32 / 35, 8 / 35))


def test_a_stage_waits_until_its_results_are_taken() -> None:
    flow = stream([Stage(10, 0), Stage(10, 5)])
    assert flow.interval == 15
    assert flow.loaded_latency >= flow.latency == 25
