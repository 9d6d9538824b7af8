"""What a core finds of the memory that it shares with others at work."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nxcc.backends.simulator.outcome import Timing
from nxcc.backends.target import Target, load_target
from nxcc.compiler.reports.sharing import shared

V1 = load_target("v1")
MEGABYTE = 1 << 20


def cores(*work: tuple[float, int]) -> Callable[[Target], list[list[Timing]]]:
    """Cores that compute for so many seconds, and then wait for so many bytes."""
    def runs(target: Target) -> list[list[Timing]]:
        rate = target.hbm.share_bytes_per_second
        return [[Timing(ticks=int((seconds + size / rate) * target.ticks_per_second), hbm_bytes=size)]
                for seconds, size in work]
    return runs


def test_cores_that_only_move_data_have_equal_shares() -> None:
    found = shared(V1, 4, cores((0.0, MEGABYTE)))
    assert found.hbm.share_bytes_per_second == pytest.approx(V1.hbm.chip_bytes_per_second / 4, rel=0.01)


def test_a_core_that_moves_nothing_leaves_all_to_the_others() -> None:
    assert shared(V1, 4, cores((1.0, 0))).hbm.share_bytes_per_second == V1.hbm.chip_bytes_per_second


def test_rate_and_use_agree() -> None:
    runs = cores((0.010, 200 * MEGABYTE))
    found = shared(V1, 4, runs)
    (timing,), rate = runs(found)[0], found.hbm.share_bytes_per_second
    use = timing.hbm_bytes / rate / (timing.ticks / V1.ticks_per_second)
    assert 0.2 < use < 0.8
    assert rate == pytest.approx(V1.hbm.chip_bytes_per_second / (1 + 3 * use), rel=0.02)


def test_a_pipeline_takes_as_long_as_its_longest_stage() -> None:
    even, uneven = (shared(V1, 4, cores((0.010, 100 * MEGABYTE), (seconds, 100 * MEGABYTE))) for seconds in (0.010, 0.1))
    assert uneven.hbm.share_bytes_per_second > even.hbm.share_bytes_per_second


def test_a_core_alone_and_memory_that_is_fast_enough_for_all_need_no_search() -> None:
    def never(target: Target) -> list[list[Timing]]:
        raise AssertionError("timed")

    assert shared(V1, 1, never).hbm.share_bytes_per_second == V1.hbm.chip_bytes_per_second
    v2 = load_target("v2")
    assert shared(v2, v2.cores.per_chip, never) == v2.with_busy_cores(v2.cores.per_chip)
