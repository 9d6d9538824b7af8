"""Requests that stream through stages: when each stage works on which request, in ticks.

What a stage hands over lies in one of two places, in turns, and so does what it has taken over: while it works on a request,
the next one's values come, and the stage behind takes the one before's. The transfers run on the DMA engines of the stage that
takes over, beside its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.ir.facts import dataclass

PLACES = 2
"""Requests whose values a stage has room for on either side."""


@dataclass(frozen=True)
class Stage:
    """Ticks of a stage's work on a request, of taking over what it needs from stages before, and of the work those in which
    its own data keeps the DMA engines busy."""

    work: int
    takeover: int
    moving: int = 0

    @property
    def full(self) -> int:
        """Ticks of work while the next request's values come: the DMA engines carry both."""
        return max(self.work, self.moving + self.takeover)


@dataclass(frozen=True)
class Flow:
    """latency: ticks of a request that finds the pipeline empty. interval: between results once it is full.

    occupancy: of each stage, the share of the interval in which it works. binding: the stage that sets the interval;
    loaded_latency: of a request in a full pipeline.
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
    taken = [[0] * (requests + PLACES) for _ in range(count + 1)]
    done = [[0] * (requests + PLACES) for _ in range(count)]
    entered: list[int] = []
    left: list[int] = []
    for request in range(PLACES, requests + PLACES):
        arrived = 0
        for number, stage in enumerate(stages):
            # a place is free once the request that had it is done with, and what it handed over is taken; one transfer comes
            # after the other
            free = max(done[number][request - PLACES], taken[number + 1][request - PLACES])
            begin = max(arrived, free, taken[number][request - 1])
            taken[number][request] = begin + stage.takeover
            start = max(taken[number][request], done[number][request - 1])
            done[number][request] = arrived = start + stage.full
            if not number:
                entered.append(begin)
        taken[count][request] = arrived
        left.append(arrived)
    interval = left[-1] - left[-2]
    occupancy = tuple(stage.work / interval if interval else 0.0 for stage in stages)
    binding = max(range(count), key=lambda number: (max(stages[number].full, stages[number].takeover), -number))
    return Flow(sum(stage.takeover + stage.work for stage in stages), interval, occupancy, binding, left[-1] - entered[-1])
