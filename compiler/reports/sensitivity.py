"""Which uncertain facts of the target move an estimate, and how far: the estimate is made again with each one's ends.

The target file lists them. A fact is tried if what it decides takes part in the critical path. The ends say what the sources
leave open; the range of the whole estimate adds the single effects as independent errors (root of the sum of squares, each
way).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from nxcc.backends.isa.program import Engine
from nxcc.backends.simulator.outcome import Cause
from nxcc.backends.target import Target, Uncertain
from nxcc.ir.facts import dataclass

Values = Mapping[str, float]
MOST_FACTS = 5
LEAST_SHARE = 0.01
"""Of the critical path, for a fact to be tried."""


@dataclass(frozen=True)
class Effect:
    """Device time, microseconds, with a fact at its fast and at its slow end."""

    fact: str
    fast_us: float
    slow_us: float
    why: str

    @property
    def spread_us(self) -> float:
        return abs(self.slow_us - self.fast_us)


def with_facts(target: Target, values: Values, scaled: bool = False) -> Target:
    """The target with other values at dotted paths, as in the target file; scaled: with multiples of its own."""
    for path, value in values.items():
        target = _replaced(target, path.split("."), value, scaled)
    return target


def _replaced(node: Any, path: list[str], value: float, scaled: bool) -> Any:
    if not path:
        return type(node)(node * value if scaled else value)
    if isinstance(node, Mapping):
        key = Engine[path[0].upper()]
        return {**node, key: _replaced(node[key], path[1:], value, scaled)}
    return dataclasses.replace(node, **{path[0]: _replaced(getattr(node, path[0]), path[1:], value, scaled)})


def effects(target: Target, device_us: Callable[[Target], float], shares: Mapping[Cause, float],
            most: int = MOST_FACTS) -> list[Effect]:
    """What the facts that matter for this critical path change, the largest effect first.

    device_us: the estimate on a target. shares: of the critical path, by cause.
    """
    weights = [(sum(shares.get(Cause[cause], 0.0) for cause in row.causes), row) for row in target.uncertain]
    chosen = sorted((pair for pair in weights if pair[0] >= LEAST_SHARE), key=lambda pair: -pair[0])[:most]
    def at(row: Uncertain, values: Values) -> float:
        return device_us(with_facts(target, values, row.scaled))

    found = [Effect(row.name, at(row, row.fast), at(row, row.slow), row.why) for _, row in chosen]
    return sorted(found, key=lambda effect: -effect.spread_us)


def span(device_us: float, found: list[Effect]) -> tuple[float, float]:
    """Lowest and highest device time, microseconds."""
    down = math.sqrt(sum(max(0.0, device_us - min(e.fast_us, e.slow_us)) ** 2 for e in found))
    up = math.sqrt(sum(max(0.0, max(e.fast_us, e.slow_us) - device_us) ** 2 for e in found))
    return max(0.0, device_us - down), device_us + up
