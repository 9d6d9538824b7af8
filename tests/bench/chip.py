"""Estimated against published times: which rows are comparable, and the table."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CASTS = {"Matmult-BF16": "matmult", "None stated (compiler default auto-cast: matmult to bf16)": "matmult",
         "fp32 in/out, bf16 PE": "matmult"}
"""--auto-cast for a row's dtype_cast; all else computes in the dtypes of the module."""

HOST_CALL_MS = 0.15
"""A request's share of the host on v2, from published batch-1 encoders of 6 and 12 layers (hardware model 5.4)."""
ALONE = 1.3
"""Up to this many requests a core, the host call is inside the published time."""


PRIORITIES = ("core", "high", "medium", "low")

Line = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A published number. device_ms: without the host call where that is part of it. batch: of a whole model, 0 of a kernel."""

    row_id: str
    module: str
    family: str
    cast: str
    grade: str
    published_ms: float
    device_ms: float
    batch: int


def rows(folder: Path, target: str = "v2", priorities: tuple[str, ...] = ("core",)) -> list[Row]:
    """Comparable rows: of modules with these priorities, on this target, with a derived time of one call on one core."""
    return [row for _, row in fields_and_rows(folder, target, priorities, HOST_CALL_MS, ALONE)]


def fields_and_rows(folder: Path, target: str, priorities: tuple[str, ...], host_ms: float,
                    alone: float) -> list[tuple[dict[str, str], Row]]:
    """The same with all that the file says of a row. host_ms: to take off with up to `alone` requests a core."""
    with open(folder / "modules.csv", encoding="utf-8", newline="") as file:
        families = {row["module"]: row["family"] for row in csv.DictReader(file) if row["priority"] in priorities}
    with open(folder / "timing.csv", encoding="utf-8", newline="") as file:
        found = [row for row in csv.DictReader(file) if row["module"] in families and row["target"] == target
                 and row["per_core_ms"] and row["metric"] != "pe_utilization"]
    return [(row, _row(row, families[row["module"]], host_ms, alone)) for row in found]


def left_out(folder: Path, target: str, priorities: tuple[str, ...], has_graph: Callable[[str], bool]) -> dict[str, list[str]]:
    """Rows of timing.csv that get no line, by the reason; those of another target aside."""
    with open(folder / "modules.csv", encoding="utf-8", newline="") as file:
        listed = {row["module"]: row["priority"] for row in csv.DictReader(file)}
    found: dict[str, list[str]] = {}
    with open(folder / "timing.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            reason = _why_left_out(row, target, listed.get(row["module"]), priorities, has_graph)
            if reason:
                found.setdefault(reason, []).append(row["row_id"])
    return found


def _why_left_out(row: dict[str, str], target: str, priority: str | None, priorities: tuple[str, ...],
                  has_graph: Callable[[str], bool]) -> str:
    if row["target"] != target:
        return ""
    scope = f" ({row['timing_scope']})" if row.get("timing_scope") else ""
    reasons = (
        (priority is None, "modules.csv does not list the module"),
        (row["metric"] == "pe_utilization", "a share of the tensor engine, beside a row with the time"),
        (not has_graph(row["module"]), f"the corpus has no graph of it{scope}"),
        (not row["per_core_ms"], "no time of one call on one core follows from it (several requests wait for a core)"),
        (priority not in priorities, f"priority {priority}: see --priority"))
    return next((reason for holds, reason in reasons if holds), "")


def _row(row: dict[str, str], family: str, host_ms: float, alone: float) -> Row:
    published = float(row["per_core_ms"])
    batch = 0 if family == "kernel" else int(row["batch"] or 0)
    with_host = bool(row["requests_per_core"]) and float(row["requests_per_core"]) < alone
    return Row(row["row_id"], row["module"], family, CASTS.get(row["dtype_cast"], "none"), row["grade"], published,
               published - host_ms if with_host else published, batch)


KERNELS = (("matmul", "products"), ("swiglu", "products"), ("lora", "products"), ("softmax", "attention"), ("bmm", "products"),
           ("attn", "attention"), ("gqa", "attention"), ("mamba", "scans"), ("conv", "convolutions"), ("rmsnorm", "norms"))
"""Kinds of single kernels by what is in their names, in this order; all else works elementwise."""


def family_of(module: str, family: str) -> str:
    """What a module's ratio is counted with."""
    if family != "kernel":
        return family
    return "kernels: " + next((kind for part, kind in KERNELS if part in module), "elementwise")


def spread(values: Iterable[float]) -> float:
    """Geometric standard deviation: 1 if all are equal."""
    logs = [math.log(value) for value in values]
    middle = sum(logs) / len(logs)
    return math.exp(math.sqrt(sum((log - middle) ** 2 for log in logs) / len(logs)))


def mean(values: Iterable[float]) -> float:
    """Geometric mean."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def table(found: list[Row], estimates: dict[tuple[str, str], dict[str, Any]]) -> tuple[list[Line], list[Line]]:
    """One line for each module, cast and grade; and per family the geometric mean and the spread of A rows' ratios.

    estimates: by (module, cast): `device_us`, `roofline_us`, `bound_by`, `range_us`, or `failure`.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in found:
        groups.setdefault((row.module, row.cast, row.grade), []).append(row)
    lines = [_line(group, estimates[module, cast]) for (module, cast, _), group in groups.items()]
    families: dict[str, list[float]] = {}
    for line in lines:
        if line["grade"] == "A" and "ratio" in line:
            for family in (line["family"], *_by_batch(line)):
                families.setdefault(family, []).append(line["ratio"])
    means = [{"family": family, "modules": len(ratios), "mean": mean(ratios), "spread": spread(ratios), "least": min(ratios),
              "most": max(ratios)} for family, ratios in families.items()]
    return lines, means


def _by_batch(line: Line) -> tuple[str, ...]:
    """Whole models count with their batch too."""
    if line["batch"] == 1:
        return ("models of batch 1",)
    return ("models of batch 8 and more",) if line["batch"] >= 8 else ()


def _line(group: list[Row], estimate: dict[str, Any]) -> Line:
    first = group[0]
    line: Line = {
        "module": first.module, "family": family_of(first.module, first.family), "batch": first.batch,
        "row_ids": [row.row_id for row in group], "cast": first.cast, "grade": first.grade, "rows": len(group),
        "published_ms": mean(row.published_ms for row in group), "device_ms": mean(row.device_ms for row in group),
        "best_ms": min(row.device_ms for row in group)}
    if "failure" in estimate:
        return line | {"failure": estimate["failure"]}
    estimated, roofline = estimate["device_us"] / 1e3, estimate["roofline_us"] / 1e3
    return line | {"estimated_ms": estimated, "range_ms": [us / 1e3 for us in estimate["range_us"]], "roofline_ms": roofline,
                   "ratio": estimated / line["device_ms"], "of_roofline": estimated / roofline if roofline else math.inf,
                   "bound_by": estimate["bound_by"], "host_ms": estimate["host_us"] / 1e3,
                   "assumed_branches": estimate["assumed_branches"]}
