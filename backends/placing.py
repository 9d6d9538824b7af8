"""What lies where in SBUF and when, for straight streams: regions at work, values and weights that stay between them.

Two regions run at a time (see nxcc.backends.berths), and a region is done before the one after its successor begins: whatever
shares bytes is at least as far apart as two regions of one berth. Regions whose berth began at the bottom still do, those of
the other end where the two largest that run together end, which leaves the rest of SBUF in one piece.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import field
from typing import NamedTuple

from nxcc.backends.berths import Work
from nxcc.backends.target import Target
from nxcc.ir.facts import dataclass


@dataclass
class Timeline:
    """When each region runs, and where on chip.

    begin, finish: in steps, such that what has a step in common may run at the same time. base: where a region's bytes of a
    partition begin, and shift: how much later than before. size: how many it has. lag: regions before it
    that may still run when it begins. end: of all regions' bytes.
    """

    begin: dict[int, int] = field(default_factory=dict)
    finish: dict[int, int] = field(default_factory=dict)
    base: dict[int, int] = field(default_factory=dict)
    shift: dict[int, int] = field(default_factory=dict)
    size: dict[int, int] = field(default_factory=dict)
    lag: dict[int, int] = field(default_factory=dict)
    end: int = 0

    @classmethod
    def of(cls, work: Sequence[Work], align: int) -> Timeline:
        found = cls()
        sizes = [-(-one.size // align) * align for one in work]
        found.end = max([*sizes, *[a + b for a, b, one in zip(sizes, sizes[1:], work[1:], strict=False) if one.lag]], default=0)
        for number, (one, size) in enumerate(zip(work, sizes, strict=True)):
            found.begin[one.region] = 2 * number + (0 if one.lag else 1)
            found.finish[one.region] = 2 * number + 2
            found.base[one.region] = found.end - size if one.start else 0
            found.shift[one.region] = found.base[one.region] - one.start
            found.size[one.region], found.lag[one.region] = size, one.lag
        return found


class Span(NamedTuple):
    """Bytes low..high-1 of the partitions first..last-1; a tuple, since sets of these are joined and sorted by the thousand."""

    low: int
    high: int
    first: int
    last: int


Taken = tuple[dict[int, set[Span]], int]
"""Spans of some steps, and the end of all."""


class Places:
    """What is taken in each step. top: the end of all that was put."""

    def __init__(self, timeline: Timeline, target: Target) -> None:
        self.timeline = timeline
        self.limit = target.sbuf.usable_bytes
        self.align = target.sbuf.align_bytes
        self.partitions = target.partitions
        self.top = timeline.end
        self._taken: dict[int, set[Span]] = defaultdict(set)
        for region, base in timeline.base.items():
            if timeline.size[region]:
                self._take(self._work(base, base + timeline.size[region]), region, region)

    def put(self, size: int, partitions: tuple[int, int], first: int, last: int, late: bool = False) -> int | None:
        """The first of so many bytes that lie in these partitions from one region to another: the lowest that are free all that
        time; None if there are none. late: they are not used before the regions before the first one are done."""
        steps = self._steps(first, last, late)
        low = 0
        for span in sorted(set().union(*[self._taken.get(step, ()) for step in steps])):
            if span.first >= partitions[1] or span.last <= partitions[0]:
                continue
            if low + size <= span.low:
                break
            low = max(low, -(-span.high // self.align) * self.align)
        if low + size > self.limit:
            return None
        self.top = max(self.top, low + size)
        for step in steps:
            self._taken[step].add(Span(low, low + size, *partitions))
        return low

    def vacate(self, region: int, low: int, high: int) -> None:
        """A region no longer works in these of its bytes."""
        for step in self._steps(region, region):
            for span in [span for span in self._taken[step] if span.low <= low and high <= span.high]:
                if span.last - span.first == self.partitions:
                    self._taken[step].remove(span)
                    self._taken[step] |= {self._work(a, b) for a, b in ((span.low, low), (high, span.high)) if a < b}
                    break

    def taken(self, first: int, last: int) -> Taken:
        """What is taken from one region to another, for `restore`."""
        return {step: set(self._taken[step]) for step in self._steps(first, last)}, self.top

    def restore(self, taken: Taken) -> None:
        """Be as when `taken` was asked."""
        spans, self.top = taken
        self._taken.update(spans)

    def _work(self, low: int, high: int) -> Span:
        return Span(low, high, 0, self.partitions)

    def _take(self, span: Span, first: int, last: int) -> None:
        for step in self._steps(first, last):
            self._taken[step].add(span)

    def _steps(self, first: int, last: int, late: bool = False) -> Iterable[int]:
        begin = self.timeline.begin[first]
        return range(begin + (late and not begin % 2), self.timeline.finish[last] + 1)
