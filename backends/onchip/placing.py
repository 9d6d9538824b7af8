"""What lies where in SBUF and when, for straight streams: regions at work, values and weights that stay between them.

Two regions run at a time (see nxcc.backends.berths), and a region is done before the one after its successor begins: whatever
shares bytes is at least as far apart as two regions of one berth. Regions whose berth began at the bottom still do, those of
the other end where the two largest that run together end, which leaves the rest of SBUF in one piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

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


Rows = NDArray[np.int64]
"""[spans, 6]: bytes LOW..HIGH-1 of the partitions FIRST..LAST-1, in the steps BEGIN..END-1."""

LOW, HIGH, FIRST, LAST, BEGIN, END = range(6)

Taken = tuple[Rows, int]
"""All spans, and the end of all."""


class Places:
    """What is taken, and in which steps. top: the end of all that was put."""

    def __init__(self, timeline: Timeline, target: Target, limit: int | None = None) -> None:
        """limit: bytes of a partition; by default all that programs may use."""
        self.timeline = timeline
        self.limit = target.sbuf.usable_bytes if limit is None else limit
        self.align = target.sbuf.align_bytes
        self.partitions = target.partitions
        self.top = timeline.end
        work = [(base, base + timeline.size[region], 0, self.partitions, *self._steps(region, region))
                for region, base in timeline.base.items() if timeline.size[region]]
        self._count = len(work)
        self._spans: Rows = np.array([*work, (0,) * 6], np.int64)

    def put(self, size: int, partitions: tuple[int, int], first: int, last: int, late: bool = False) -> int | None:
        """The first of so many bytes that lie in these partitions from one region to another: the lowest that are free all that
        time; None if there are none. late: they are not used before the regions before the first one are done."""
        begin, end = self._steps(first, last, late)
        spans = self._spans[:self._count]
        spans = spans[(spans[:, BEGIN] < end) & (spans[:, END] > begin) & (spans[:, FIRST] < partitions[1])
                      & (spans[:, LAST] > partitions[0])]
        spans = spans[np.argsort(spans[:, LOW], kind="stable")]
        free = np.maximum.accumulate(np.append(0, -(-spans[:, HIGH] // self.align) * self.align))
        fits = np.append(free[:-1] + size <= spans[:, LOW], True)
        low = int(free[int(fits.argmax())])
        if low + size > self.limit:
            return None
        self.top = max(self.top, low + size)
        self._add((low, low + size, *partitions, begin, end))
        return low

    def vacate(self, region: int, low: int, high: int) -> None:
        """A region no longer works in these of its bytes."""
        begin, end = self._steps(region, region)
        spans = self._spans[:self._count]
        around = ((spans[:, BEGIN] < end) & (spans[:, END] > begin) & (spans[:, LOW] <= low) & (spans[:, HIGH] >= high)
                  & (spans[:, LAST] - spans[:, FIRST] == self.partitions))
        for number in np.flatnonzero(around).tolist():
            whole = tuple(self._spans[number].tolist())
            self._spans[number, END] = 0  # No time at all.
            for row in ((whole[LOW], low, begin, end), (high, whole[HIGH], begin, end),
                        (whole[LOW], whole[HIGH], whole[BEGIN], begin), (whole[LOW], whole[HIGH], end, whole[END])):
                since, until = max(row[2], whole[BEGIN]), min(row[3], whole[END])
                if row[0] < row[1] and since < until:
                    self._add((*row[:2], 0, self.partitions, since, until))

    def taken(self) -> Taken:
        """What is taken, for `restore`."""
        return self._spans[:self._count].copy(), self.top

    def restore(self, taken: Taken) -> None:
        """Be as when `taken` was asked."""
        self._spans, self.top = taken
        self._count = len(self._spans)

    def _add(self, span: tuple[int, ...]) -> None:
        if self._count == len(self._spans):
            self._spans = np.concatenate([self._spans, np.zeros_like(self._spans), np.zeros((1, 6), np.int64)])
        self._spans[self._count] = span
        self._count += 1

    def _steps(self, first: int, last: int, late: bool = False) -> tuple[int, int]:
        """The first step of a time, and the one behind its last."""
        begin = self.timeline.begin[first]
        return begin + (late and not begin % 2), self.timeline.finish[last] + 1
