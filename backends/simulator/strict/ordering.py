"""Happens-before over semaphores, for the race detector of the strict mode.

Semaphores count, and a wait says only "at least v". What a wait proves is computed from who may have signalled: a signal must
have happened if the others together could not have reached v. So two transfers outstanding on one semaphore prove nothing when
16 increments are waited for, whatever order this run happens to take.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable

from nxcc.backends.isa.program import Engine
from nxcc.backends.simulator.memory import invalid

ENGINE_NUMBERS = {engine: number for number, engine in enumerate(Engine)}


class Clock:
    """What is known to have happened: operations of each engine by count, and pieces of transfers by ticket (a bit each)."""

    __slots__ = ("times", "tickets")

    def __init__(self, times: tuple[int, ...] = (0,) * len(ENGINE_NUMBERS), tickets: int = 0) -> None:
        self.times, self.tickets = times, tickets

    def joined(self, other: Clock) -> Clock:
        if self is other or self.covers(other):
            return self
        return Clock(tuple(map(max, self.times, other.times)), self.tickets | other.tickets)

    def covers(self, other: Clock) -> bool:
        """Whether all that other knows is known here."""
        return not other.tickets & ~self.tickets and all(a >= b for a, b in zip(self.times, other.times, strict=True))

    def ticked(self, engine: int) -> Clock:
        times = list(self.times)
        times[engine] += 1
        return Clock(tuple(times), self.tickets)

    def with_ticket(self, ticket: int) -> Clock:
        return Clock(self.times, self.tickets | 1 << ticket)


class _Chain:
    """Signals of one source, which come in order: totals so far, and the clock of each."""

    __slots__ = ("totals", "clocks")

    def __init__(self) -> None:
        self.totals: list[int] = []
        self.clocks: list[Clock] = []


class _Epoch:
    """Signals that may come in any order, all of them after those of earlier epochs.

    base: what all earlier signals knew; joined: that and what these know.
    """

    __slots__ = ("base", "joined", "total", "chains")

    def __init__(self, base: Clock) -> None:
        self.base = self.joined = base
        self.total = 0
        self.chains: dict[Hashable, _Chain] = {}

    def add(self, source: Hashable, amount: int, clock: Clock) -> None:
        chain = self.chains.setdefault(source, _Chain())
        chain.totals.append((chain.totals[-1] if chain.totals else 0) + amount)
        chain.clocks.append(clock)
        self.total += amount
        self.joined = self.joined.joined(clock)

    def proven(self, value: int) -> Clock:
        """What has happened for certain when these signals have added at least `value`.

        A signal has come if all that do not follow it add up to less.
        """
        if value >= self.total:
            return self.joined
        clock = self.base
        for chain in self.chains.values():
            # Of a chain's signals the first ones are proven; look for the last of them.
            count = bisect_left(chain.clocks, True, key=lambda signal: self._without(signal) >= value)
            if count:
                clock = clock.joined(chain.clocks[count - 1])
        return clock

    def _without(self, signal: Clock) -> int:
        """What the signals that do not follow this one add up to."""
        total = 0
        for chain in self.chains.values():
            count = bisect_left(chain.clocks, True, key=lambda clock: clock.covers(signal))
            total += chain.totals[count - 1] if count else 0
        return total


class SignalHistory:
    """All signals of one semaphore since the entry started, delivered or under way."""

    __slots__ = ("starts", "epochs")

    def __init__(self) -> None:
        self.starts = [0]
        self.epochs = [_Epoch(Clock())]

    def announce(self, source: Hashable, amount: int, clock: Clock) -> None:
        """A signal that will come or has come; source: whose signals come in order."""
        epoch = self.epochs[-1]
        if amount < 0:
            self._take_back(epoch, amount, clock)
            return
        alone = len(epoch.chains) == 1 and source in epoch.chains
        if epoch.total and not alone and clock.covers(epoch.joined):
            self.starts.append(self.starts[-1] + epoch.total)
            epoch = _Epoch(epoch.joined)
            self.epochs.append(epoch)
        epoch.add(source, amount, clock)

    def _take_back(self, epoch: _Epoch, amount: int, clock: Clock) -> None:
        """A decrement starts the count anew; it must come after all signals, else waits could see either count."""
        left = self.starts[-1] + epoch.total + amount
        if left < 0 or not clock.covers(epoch.joined):
            raise invalid("a semaphore is counted down before all its signals have come")
        self.starts, self.epochs = [left], [_Epoch(epoch.joined.joined(clock))]

    def proven(self, value: int) -> Clock:
        """What has happened for certain when the semaphore is seen to be at least `value`."""
        number = bisect_left(self.starts, value) - 1
        return self.epochs[number].proven(value - self.starts[number]) if number >= 0 else Clock()
