"""Requests that stream through stages."""

import pytest

from nxcc.backends.simulator.pipeline import Stage, stream


def test_one_stage_is_busy_all_the_time() -> None:
    flow = stream([Stage(10, 0)])
    assert (flow.latency, flow.interval, flow.occupancy, flow.binding) == (10, 10, (1.0,), 0)


def test_the_longest_stage_sets_the_interval() -> None:
    flow = stream([Stage(10, 0), Stage(30, 2), Stage(5, 3)])
    assert flow.latency == 10 + 2 + 30 + 3 + 5
    assert flow.interval == 30 and flow.binding == 1
    assert flow.occupancy == pytest.approx((10 / 30, 1.0, 5 / 30))


def test_values_are_taken_over_while_stages_work() -> None:
    flow = stream([Stage(10, 0), Stage(10, 5)])
    assert flow.interval == 10
    assert flow.loaded_latency >= flow.latency == 25


def test_what_comes_shares_the_dma_engines_with_what_a_stage_moves() -> None:
    flow = stream([Stage(10, 0), Stage(10, 5, moving=8)])
    assert flow.interval == 13 and flow.binding == 1 and flow.latency == 25


def test_taking_over_may_bind() -> None:
    flow = stream([Stage(10, 0), Stage(10, 25), Stage(10, 1)])
    assert flow.interval == 25 and flow.binding == 1
