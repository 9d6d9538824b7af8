"""Estimated v1 times beside published ones of Inf1, and which number that the sources leave open moves them most."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import chip

CASTS = {"fp16 graph": ("all", "fp16")}
"""--auto-cast and its type by a row's dtype_cast; all else is neuron-cc's default, which casts everything to bf16."""
GRADES = ("A", "B")
CHIP_CORES = 4
PIPELINE_CORES = (1, 2, 4, 8, 12, 16)
"""Numbers of cores that pipelines are estimated with, beside the published one."""
HOST_CALL_MS = 0.5
"""A request's share of the host where one request is under way: the start value of hardware model 5.4."""


@dataclass(frozen=True)
class Setting:
    """What one estimate is of: module, casts, and how many cores share the memory."""

    module: str
    cast: str
    cast_type: str
    busy_cores: int


def settings(folder: Path) -> dict[Setting, list[chip.Row]]:
    """Published rows with a time of one call on one core, by what has to be estimated for them."""
    found: dict[Setting, list[chip.Row]] = defaultdict(list)
    for fields, row in chip.fields_and_rows(folder, "v1", chip.PRIORITIES, HOST_CALL_MS, chip.ALONE):
        if row.grade not in GRADES:
            continue
        cast, cast_type = CASTS.get(fields["dtype_cast"], ("all", "bf16"))
        found[Setting(row.module, cast, cast_type, min(CHIP_CORES, int(fields["cores_used"])))].append(row)
    return dict(found)


def table(found: dict[Setting, list[chip.Row]], estimates: dict[Setting, chip.Line]) -> list[chip.Line]:
    """One line for each estimate and grade: published time (geometric mean), estimate, ratio, and what moves it most."""
    lines = []
    for setting, rows in found.items():
        for grade in sorted({row.grade for row in rows}):
            group = [row for row in rows if row.grade == grade]
            line: chip.Line = {"module": setting.module, "cast_type": setting.cast_type, "busy_cores": setting.busy_cores,
                               "grade": grade, "rows": len(group), "published_ms": chip.mean(row.device_ms for row in group)}
            lines.append(line | _estimated(estimates[setting], line["published_ms"]))
    return lines


def _estimated(estimate: chip.Line, published_ms: float) -> chip.Line:
    if "failure" in estimate:
        return {"failure": estimate["failure"]}
    ms = estimate["device_us"] / 1e3
    most = estimate["uncertain"][0] if estimate["uncertain"] else None
    return {"estimated_ms": ms, "ratio": ms / published_ms, "bound_by": estimate["bound_by"],
            "range_ms": [us / 1e3 for us in estimate["range_us"]], "moved_most_by": most and most["fact"],
            "moved_ms": most and [most["fast_us"] / 1e3, most["slow_us"] / 1e3]}


@dataclass(frozen=True)
class PublishedPipeline:
    """A module pipelined over several cores: time of a request, and requests in a second."""

    module: str
    cores: int
    latency_ms: float
    per_second: float


def pipelines(folder: Path) -> list[PublishedPipeline]:
    """Published figures of NeuronCore Pipeline; both numbers of a module stand in rows of their own."""
    values: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    with open(folder / "timing.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if "Pipeline" in row["model"] and row["target"] == "v1":
                values[row["module"], int(row["cores_used"])][row["metric"]] = float(row["value"])
    return [PublishedPipeline(module, cores, found["latency_p50_ms"], found["throughput_per_s"])
            for (module, cores), found in values.items()]


def pipeline_row(published: PublishedPipeline, cores: int, found: chip.Line) -> chip.Line:
    """An estimate on so many cores beside the published figures, which are of one number of cores."""
    row: chip.Line = {"module": published.module, "cores": cores}
    if "failure" in found:
        return row | {"failure": found["failure"]}
    flow = found.get("pipeline") or {"interval_us": found["device_us"], "latency_us": found["device_us"], "stages": [],
                                     "bound_by": found["bound_by"]}
    row |= {"interval_us": flow["interval_us"], "per_second": 1e6 / flow["interval_us"], "latency_ms": flow["latency_us"] / 1e3,
            "pinned_bytes": sum(stage["pinned_bytes"] for stage in flow["stages"]),
            "streamed_bytes": sum(stage["streamed_bytes"] for stage in flow["stages"]), "bound_by": flow["bound_by"],
            "least_occupancy": min((stage["occupancy"] for stage in flow["stages"]), default=1.0)}
    if cores == published.cores:
        row |= {"published_latency_ms": published.latency_ms, "published_per_second": published.per_second}
    return row


def pipeline_line(row: chip.Line) -> str:
    """A row for people."""
    head = f"{row['module']:20} {row['cores']:5}"
    if "failure" in row:
        return f"{head} {row['failure']}"
    throughput, latency = row.get("published_per_second", "-"), row.get("published_latency_ms", "-")
    return (f"{head} {row['interval_us']:8.0f} {row['per_second']:8.0f} {throughput:>7} {row['latency_ms']:10.2f} {latency:>5} "
            f"{row['pinned_bytes'] / 1e6:10.0f} {row['streamed_bytes'] / 1e6:8.0f} {row['least_occupancy']:6.2f} "
            f"{row['bound_by']}")


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Spearman's, ties by their mean rank; 1 for fewer than two pairs."""
    if len(pairs) < 2:
        return 1.0
    ranks = [_ranks([pair[side] for pair in pairs]) for side in (0, 1)]
    middle = (len(pairs) + 1) / 2
    deviations = [[rank - middle for rank in side] for side in ranks]
    products = sum(a * b for a, b in zip(*deviations, strict=True))
    squares = [sum(d * d for d in side) for side in deviations]
    return products / (squares[0] * squares[1]) ** 0.5 if all(squares) else 1.0


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]


def summary(lines: Sequence[chip.Line], estimates: Sequence[chip.Line]) -> chip.Line:
    """Over the lines of grade A: ratios and rank correlation; and the uncertain fact with the largest effects over all."""
    graded = [line for line in lines if line["grade"] == "A" and "ratio" in line]
    moved: dict[str, float] = defaultdict(float)
    for estimate in estimates:
        for row in estimate.get("uncertain", ()):
            moved[row["fact"]] += abs(row["slow_us"] - row["fast_us"]) / estimate["device_us"]
    return {"lines": len(graded), "missing": sum(line["grade"] == "A" and "ratio" not in line for line in lines),
            "least": min((line["ratio"] for line in graded), default=None),
            "most": max((line["ratio"] for line in graded), default=None),
            "mean": chip.mean(line["ratio"] for line in graded) if graded else None,
            "rank_correlation": rank_correlation([(line["estimated_ms"], line["published_ms"]) for line in graded]),
            "moved_most_by": max(moved, key=lambda fact: moved[fact]) if moved else None}
