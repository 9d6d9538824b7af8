"""Which uncertain facts of the target move an estimate, and how far: the estimate is made again with each one's ends.

A fact is tried if what it decides takes part in the critical path. The ends say what the sources leave open; the range of
the whole estimate adds the single effects as independent errors (root of the sum of squares, each way).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nxcc.backends.isa.program import Engine
from nxcc.backends.simulator.timing import Cause
from nxcc.backends.target import Target

Values = Mapping[str, float]
MOST_FACTS = 5
LEAST_SHARE = 0.01
"""Of the critical path, for a fact to be tried."""


@dataclass(frozen=True)
class Uncertain:
    """A fact, or several that are one question, with values for a faster and a slower machine, and what it decides."""

    name: str
    fast: Values
    slow: Values
    causes: tuple[Cause, ...]
    why: str


UNCERTAIN = (
    Uncertain("cost of a PE pass", {"tensor.pass_factor": 1.0}, {"tensor.pass_factor": 1.0, "tensor.pass_overhead_cycles": 84},
              (Cause.PE,), "documented N; throttled to 8 / 7 N under load, seen at N = 512, where N + 84 fits as well"),
    Uncertain("dma.bytes_per_second_per_engine", {"dma.bytes_per_second_per_engine": 18_400_000_000},
              {"dma.bytes_per_second_per_engine": 10_900_000_000}, (Cause.DMA_DATA,),
              "chips showed 175 to 294 GB/s for a core"),
    Uncertain("dma.descriptor_bytes_min", {"dma.descriptor_bytes_min": 128}, {"dma.descriptor_bytes_min": 1024},
              (Cause.DMA_DATA,), "below 512 contiguous bytes bandwidth is wasted; how much is not published"),
    Uncertain("dma.issue_interval_ns", {"dma.issue_interval_ns": 600.0}, {"dma.issue_interval_ns": 1400.0},
              (Cause.DMA_ISSUE,), "read off a figure without numbers"),
    Uncertain("independence of queues", {}, {"dma.queues": 1}, (Cause.DMA_ISSUE, Cause.DMA_DATA),
              "assumed; matrix products of the vendor's tutorial look like one queue an engine"),
    Uncertain("dma.start_ns", {"dma.start_ns": 1000.0}, {"dma.start_ns": 1900.0}, (Cause.DMA_LATENCY,),
              "measured on the next generation"),
    Uncertain("sequencer.semaphore_hop_ns", {"sequencer.semaphore_hop_ns": 20.0}, {"sequencer.semaphore_hop_ns": 150.0},
              (Cause.SEMAPHORE,), "no source"),
    Uncertain("dependent instructions", {f"engines.{e}.static_overhead_cycles": 0 for e in ("vector", "scalar")},
              {f"engines.{e}.static_overhead_cycles": 200 for e in ("vector", "scalar")}, (Cause.LATENCY,),
              "documented as about 100 cycles"),
    Uncertain("sequencer.branch_taken_cycles", {"sequencer.branch_taken_cycles": 15, "sequencer.register_cycles": 5},
              {"sequencer.branch_taken_cycles": 120, "sequencer.register_cycles": 40}, (Cause.SEQUENCER,), "no source"),
    Uncertain("instruction_costs.table_load_cycles", {"instruction_costs.table_load_cycles": 0},
              {"instruction_costs.table_load_cycles": 300}, (Cause.SCALAR,), "at most about 145 in one kernel"),
    Uncertain("instruction_costs.gpsimd_descriptor_cycles", {"instruction_costs.gpsimd_descriptor_cycles": 4},
              {"instruction_costs.gpsimd_descriptor_cycles": 64}, (Cause.GPSIMD,), "no source"),
)


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


def with_facts(target: Target, values: Values) -> Target:
    """The target with other values at dotted paths, as in the target file."""
    for path, value in values.items():
        target = _replaced(target, path.split("."), value)
    return target


def _replaced(node: Any, path: list[str], value: float) -> Any:
    if not path:
        return type(node)(value)
    if isinstance(node, Mapping):
        key = Engine[path[0].upper()]
        return {**node, key: _replaced(node[key], path[1:], value)}
    return dataclasses.replace(node, **{path[0]: _replaced(getattr(node, path[0]), path[1:], value)})


def effects(target: Target, device_us: Callable[[Target], float], shares: Mapping[Cause, float],
            most: int = MOST_FACTS) -> list[Effect]:
    """What the facts that matter for this critical path change, the largest effect first.

    device_us: the estimate on a target. shares: of the critical path, by cause.
    """
    weights = [(sum(shares.get(cause, 0.0) for cause in row.causes), row) for row in UNCERTAIN]
    chosen = sorted((pair for pair in weights if pair[0] >= LEAST_SHARE), key=lambda pair: -pair[0])[:most]
    found = [Effect(row.name, device_us(with_facts(target, row.fast)), device_us(with_facts(target, row.slow)), row.why)
             for _, row in chosen]
    return sorted(found, key=lambda effect: -effect.spread_us)


def span(device_us: float, found: list[Effect]) -> tuple[float, float]:
    """Lowest and highest device time, microseconds."""
    down = math.sqrt(sum(max(0.0, device_us - min(e.fast_us, e.slow_us)) ** 2 for e in found))
    up = math.sqrt(sum(max(0.0, max(e.fast_us, e.slow_us) - device_us) ** 2 for e in found))
    return max(0.0, device_us - down), device_us + up
