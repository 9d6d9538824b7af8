"""Requests that stream through stages: when each stage works on which request, in ticks.

A stage has one place for what the stage before hands over (the program has one for each value): it takes the next request's
values when it is done with the request before, and the stage before goes on when they are taken.
"""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.ir.facts import dataclass


@dataclass(frozen=True)
class Stage:
    """Ticks of a stage's work on a request, and of taking over what it needs from stages before."""

    work: int
    takeover: int


@dataclass(frozen=True)
class Flow:
    """latency: ticks of a request that finds the pipeline empty. interval: between results once it is full.

    occupancy: of each stage, the share of the interval in which it works or takes over. binding: the stage that sets the
    interval; loaded_latency: of a request in a full pipeline.
    """

    latency: int
    interval: int
    occupancy: tuple[float, ...]
    binding: int
    loaded_latency: int


def stream(stages: Sequence[Stage]) -> Flow:
    """What happens when requests wait in front of the pipeline all the time; it is run until it repeats itself."""
    count = len(stages)
    requests = 3 * count + 3
    taken = [0] * count
    done = [0] * count
    entered: list[int] = []
    left: list[int] = []
    for _ in range(requests):
        arrived = 0
        for number, stage in enumerate(stages):
            begin = max(arrived, done[number])
            taken[number] = begin + stage.takeover
            if number:
                # The stage before may not write its results again until they are taken.
                done[number - 1] = max(done[number - 1], taken[number])
            else:
                entered.append(begin)
            done[number] = arrived = taken[number] + stage.work
        left.append(arrived)
    interval = left[-1] - left[-2]
    occupancy = tuple((stage.work + stage.takeover) / interval if interval else 0.0 for stage in stages)
    binding = max(range(count), key=lambda number: (_share(stages, number), -number))
    return Flow(left[0], interval, occupancy, binding, left[-1] - entered[-1])


def _share(stages: Sequence[Stage], number: int) -> int:
    """Ticks that a stage is not free for another request: it takes over, works, and waits until its results are taken."""
    after = stages[number + 1].takeover if number + 1 < len(stages) else 0
    return stages[number].takeover + stages[number].work + after
