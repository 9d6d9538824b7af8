"""Where the time of a NEFF goes: tables by layer, by HLO instruction, by lowered function, by engine; page and trace files.

A region's time is its part of the critical path, so the rows of a table add up to the simulated time; busy times are beside
it (see `regions`).
"""

from __future__ import annotations

from typing import Any

from nxcc.compiler.files.opening import open_compiled
from nxcc.compiler.files.outputs import check_outputs
from nxcc.compiler.reports.activity import activity, activity_lines
from nxcc.compiler.reports.estimate import Estimate, estimate, estimate_lines, estimate_report, us_text
from nxcc.compiler.reports.regions import (
    grouped,
    layer_name,
    left_out_rows,
    machine_rows,
    queue_rows,
    regions_of,
    row,
    source_of,
)
from nxcc.ir.facts import dataclass
from nxcc.ir.files import whole_file

MAX_ROWS = 30
MAX_STRETCHES = 10


@dataclass(frozen=True)
class ProfileRequest:
    """A profile as a user asks for it. trace, page: files to write, if any."""

    path: str
    trace: str = ""
    page: str = ""
    trips: int = 1


def profile_file(request: ProfileRequest) -> dict[str, Any]:
    """The profile of a file as plain JSON; also writes the files that are asked for."""
    check_outputs([path for path in (request.trace, request.page) if path], [request.path])
    found = estimate(open_compiled(request.path), trips=request.trips, spans=True, ranges=False)
    body = profile_report(found, request.path)
    if request.trace:
        from nxcc.compiler.reports.trace import write_trace
        with whole_file(request.trace) as file:
            write_trace(found, file)
    if request.page:
        from nxcc.compiler.page.build import write_profile_page
        with whole_file(request.page) as file:
            write_profile_page(found, body, file)
    return body | {"trace": request.trace, "page": request.page}


def profile_report(found: Estimate, path: str) -> dict[str, Any]:
    """Tables as plain JSON, longest first; times in microseconds."""
    regions = regions_of(found)
    by_name = {
        "hlo": grouped(regions, lambda number, region: (source_of(found, number).name,)),
        "layers": grouped(regions, lambda number, region: (layer_name(source_of(found, number)),)),
        "functions": grouped(regions, lambda number, region: region.functions),
    }
    tables: dict[str, Any] = {table: [row(found.target, name, region) | {"regions": sorted(region.numbers)}
                                      for name, region in groups.items()] for table, groups in by_name.items()}
    return {"estimate": estimate_report(found, path), **tables, "activity": activity(found), "machine": machine_rows(found),
            "queues": queue_rows(found), "left_out": left_out_rows(found)}


def profile_lines(body: dict[str, Any]) -> list[str]:
    """The same for people."""
    lines = estimate_lines(body["estimate"])
    lines += activity_lines(body["activity"], us_text(body["estimate"]["simulated_us"]))
    lines += [f"from {us_text(row['start_us'])} on for {us_text(row['us'])}: x {row['turns']:,} turns like those before, "
              f"{us_text(row['turn_us'])} each" for row in body["left_out"][:MAX_STRETCHES]]
    total = body["estimate"]["simulated_us"] or 1.0
    for title, rows in (("layer", body["layers"]), ("HLO instruction", body["hlo"]), ("lowered code", body["functions"])):
        lines += ["", f"{title:48} {'time':>10} {'share':>6} {'op/B':>7} {'Gop/s':>8}  mostly; busy"]
        lines += [_table_line(row, total, title) for row in rows[:MAX_ROWS]]
        if len(rows) > MAX_ROWS:
            rest = sum(row["us"] for row in rows[MAX_ROWS:])
            lines.append(f"{f'{len(rows) - MAX_ROWS} more':48} {us_text(rest):>10} {rest / total:6.1%}")
    lines += ["", f"{'machine instruction':34} {'count':>9} {'busy':>10} {'idle before':>12}"]
    lines += [f"{row['engine'] + ' ' + row['instruction']:34} {row['count']:9} {us_text(row['busy_us']):>10} "
              f"{us_text(row['idle_before_us']):>12}" for row in body["machine"]]
    lines += ["", f"{'DMA queue':34} {'transfers':>9} {'under way':>10} {'bytes':>14}"]
    lines += [f"{row['queue']:34} {row['transfers']:9} {us_text(row['under_way_us']):>10} {row['bytes']:14}"
              for row in body["queues"]]
    return lines + [f"{kind}: {body[kind]}" for kind in ("trace", "page") if body[kind]]


def _table_line(row: dict[str, Any], total: float, title: str) -> str:
    busy = ", ".join(f"{name} {us_text(value)}" for name, value in row["busy_us"].items())
    regions = len(row["regions"])
    name = f"{row['name']} ({regions} regions)" if title == "lowered code" and regions > 1 else row["name"]
    name = name if len(name) <= 48 else "..." + name[-45:]
    work = row["operations"]
    intensity = f"{work / row['hbm_bytes']:7.4g}" if work and row["hbm_bytes"] else f"{'-':>7}"
    rate = f"{work / row['us'] / 1e3:8.4g}" if work and row["us"] else f"{'-':>8}"
    return (f"{name:48} {us_text(row['us']):>10} {row['us'] / total:6.1%} {intensity} {rate}  "
            f"{row['mostly'].replace('_', ' ')}; {busy}")
