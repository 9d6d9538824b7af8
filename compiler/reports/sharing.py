"""How fast a core finds the memory of its chip while other cores are at work.

Cores share the memory's bandwidth as they ask for it: while one only computes, the others have its part. The cores at work are
taken to do the same, each at moments of its own. A core that moves data then finds each other core moving data as often as
it does so itself, so it gets chip / (1 + (cores - 1) * use), where use is the part of its time that its data takes at that
rate. Both are found by turns, from equal shares on. Assumed: fair shares, moments that do not depend on each other.
"""

from __future__ import annotations

from collections.abc import Callable

from nxcc.backends.simulator.outcome import Timing
from nxcc.backends.target import Target

ROUNDS = 5
"""Times that a run is timed at most; use and rate settle in two or three."""

SETTLED = 0.01
"""A change of the rate, as a part of it, that ends the search."""


def shared(target: Target, cores: int, runs: Callable[[Target], list[list[Timing]]]) -> Target:
    """The target as one of so many cores at work finds it.

    runs: the timings of each core's nodes on a target. Cores of a pipeline take as long as the longest.
    """
    found = target.with_busy_cores(cores)
    carried = found.dma.engines * found.dma.bytes_per_second_per_engine
    for _ in range(ROUNDS if cores > 1 and found.hbm.share_bytes_per_second < carried else 0):
        use = _use(found, runs(found))
        share = int(target.hbm.chip_bytes_per_second / (1 + (cores - 1) * use))
        change = abs(share - found.hbm.share_bytes_per_second)
        found = target.with_memory_share(share)
        if change < SETTLED * share:
            break
    return found


def _use(target: Target, cores: list[list[Timing]]) -> float:
    """The part of the time in which a core's data flows."""
    longest = max((sum(timing.ticks for timing in timings) for timings in cores), default=0)
    moved = sum(timing.hbm_bytes for timings in cores for timing in timings)
    ticks = moved / target.hbm.share_bytes_per_second * target.ticks_per_second
    return min(1.0, ticks / (longest * len(cores))) if longest else 0.0
