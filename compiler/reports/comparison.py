"""Two profiles side by side: what got faster or slower, by layer, HLO instruction, engine and machine instruction.

Rows are paired by name, and by place between those that pair (see `_matched`); what only one file has is new or gone. Deltas
are after minus before, microseconds of the critical path, so that the deltas of layers, and of HLO instructions, add up to
the difference of the simulated times.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from nxcc.compiler.files.opening import open_compiled
from nxcc.compiler.files.outputs import check_outputs
from nxcc.compiler.reports.estimate import CAUSE_WORDS, estimate, us_text
from nxcc.compiler.reports.profile import profile_report
from nxcc.ir.diagnostics import USAGE, CompileError
from nxcc.ir.files import whole_file

MAX_ROWS = 20
WIDTH = 62
MOST_TOGETHER = 12
"""Rows of one file between two that both have, to be compared together."""
LEAST_US = 0.0005
"""A smaller difference is rounding."""
TOTALS = ("file", "device_us", "simulated_us", "host_us", "bound_by", "instructions", "transfers", "hbm_bytes", "pe_flops")
"""Of an estimate's report."""


def compare_files(before: str, after: str, page: str = "", trips: int = 1) -> dict[str, Any]:
    """The comparison as plain JSON; page: also write it there as HTML. CompileError(USAGE) for files for two targets."""
    check_outputs([page] if page else [], [before, after])
    founds = [estimate(open_compiled(path), trips=trips, spans=True, ranges=False) for path in (before, after)]
    bodies = [profile_report(found, path) for found, path in zip(founds, (before, after), strict=True)]
    targets = [body["estimate"]["target"] for body in bodies]
    if targets[0] != targets[1]:
        raise CompileError(USAGE, f"{before} is for {targets[0]} and {after} for {targets[1]}",
                           remedy="compare files for one target")
    body = comparison(*bodies)
    if page:
        from nxcc.compiler.page.build import write_comparison_page
        with whole_file(page) as file:
            write_comparison_page(body, file)
    return body | {"page": page}


def comparison(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Both profiles' tables as one; rows with the largest change first."""
    first, second = before["estimate"], after["estimate"]
    body: dict[str, Any] = {
        "target": first["target"],
        **{side: {key: one[key] for key in TOTALS} for side, one in (("before", first), ("after", second))},
        "delta_us": second["device_us"] - first["device_us"],
        "ratio": second["device_us"] / first["device_us"] if first["device_us"] else None,
    }
    for table in ("layers", "hlo"):
        body[table] = _paired(_times(before[table]), _times(after[table]))
    body["critical_path"] = _paired(_causes(first), _causes(second))
    body["engines"] = _paired(_busy(first), _busy(second))
    body["machine"] = _paired(_machine(before), _machine(after), counts=(_counts(before), _counts(after)))
    return body


def _times(rows: list[dict[str, Any]]) -> dict[str, float]:
    """In the order in which they run."""
    return {row["name"]: row["us"] for row in sorted(rows, key=lambda row: row["start_us"])}


def _causes(one: dict[str, Any]) -> dict[str, float]:
    return {CAUSE_WORDS[name]: share * one["simulated_us"] for name, share in one["critical_path"].items()}


def _busy(one: dict[str, Any]) -> dict[str, float]:
    return {name: share * one["simulated_us"] for name, share in one["engines"].items()}


def _machine(body: dict[str, Any]) -> dict[str, float]:
    return {f"{row['engine']} {row['instruction']}": row["busy_us"] for row in body["machine"]}


def _counts(body: dict[str, Any]) -> dict[str, int]:
    return {f"{row['engine']} {row['instruction']}": row["count"] for row in body["machine"]}


def _paired(before: dict[str, float], after: dict[str, float],
            counts: tuple[dict[str, int], dict[str, int]] | None = None) -> list[dict[str, Any]]:
    """A row for each name or group of names, the largest change first; before_us, after_us: None where a file has none."""
    rows = []
    for olds, news in _matched(list(before), list(after)):
        left = sum(before[name] for name in olds) if olds else None
        right = sum(after[name] for name in news) if news else None
        row: dict[str, Any] = {"name": _name(olds, news), "before_us": left, "after_us": right,
                               "delta_us": (right or 0) - (left or 0)}
        if counts is not None:
            row |= {"before_count": sum(counts[0][name] for name in olds),
                    "after_count": sum(counts[1][name] for name in news)}
        rows.append(row)
    return sorted(rows, key=lambda row: (-abs(row["delta_us"]), row["name"]))


def _matched(left: list[str], right: list[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Names of either file that are the same work; one side is empty where there is nothing to compare with.

    A cast or another fusion renames what is the same work. Between names that both files have, in the order in which they run,
    as many names on either side are taken for the same ones; of few but not as many, all are taken together.
    """
    common = set(left) & set(right)
    yield from (([name], [name]) for name in left if name in common)
    for _, a, b, c, d in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        olds = [name for name in left[a:b] if name not in common]
        news = [name for name in right[c:d] if name not in common]
        if len(olds) == len(news):
            yield from (([old], [new]) for old, new in zip(olds, news, strict=True))
        elif olds and news and max(len(olds), len(news)) <= MOST_TOGETHER:
            yield olds, news
        else:
            yield from (([old], []) for old in olds)
            yield from (([], [new]) for new in news)


def _name(olds: list[str], news: list[str]) -> str:
    if olds == news:
        return olds[0]
    sides = [names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]} ({len(names)})" for names in (olds, news) if names]
    return " -> ".join(sides)


# Reports

TABLES = (("layers", "layer"), ("hlo", "HLO instruction"), ("critical_path", "on the critical path"),
          ("engines", "engine busy"), ("machine", "machine instruction busy"))


def comparison_lines(body: dict[str, Any]) -> list[str]:
    """The same for people."""
    before, after = body["before"], body["after"]
    lines = [f"before: {before['file']}: {us_text(before['device_us'])} on the device, bound by {before['bound_by']}",
             f"after:  {after['file']}: {us_text(after['device_us'])} on the device, bound by {after['bound_by']}",
             f"{_verdict(body)}; host {signed(after['host_us'] - before['host_us'])}, "
             f"{after['instructions'] - before['instructions']:+} instructions, "
             f"{(after['hbm_bytes'] - before['hbm_bytes']) / 1e6:+.3f} MB of HBM"]
    for key, title in TABLES:
        changed = [row for row in body[key] if abs(row["delta_us"]) >= LEAST_US]
        equal = len(body[key]) - len(changed)
        lines += ["", f"{title:{WIDTH}} {'before':>10} {'after':>10} {'change':>11}"]
        lines += [_line(row) for row in changed[:MAX_ROWS]]
        if len(changed) > MAX_ROWS:
            rest = sum(row["delta_us"] for row in changed[MAX_ROWS:])
            lines.append(f"{f'{len(changed) - MAX_ROWS} more':{WIDTH}} {'':>10} {'':>10} {signed(rest):>11}")
        if equal:
            lines.append(f"{equal} without a change")
    return lines + ([f"page: {body['page']}"] if body.get("page") else [])


def _verdict(body: dict[str, Any]) -> str:
    delta = body["delta_us"]
    if abs(delta) < LEAST_US:
        return "no difference"
    ratio = f", {body['ratio']:.3f} times" if body["ratio"] is not None else ""
    return f"{us_text(abs(delta))} {'slower' if delta > 0 else 'faster'}{ratio}"


def signed(us: float) -> str:
    """A difference of times with its sign."""
    return f"{'-' if us < 0 else '+'}{us_text(abs(us))}"


def _line(row: dict[str, Any]) -> str:
    name = row["name"] if len(row["name"]) <= WIDTH else "..." + row["name"][3 - WIDTH:]
    sides = [us_text(us) if us is not None else "-" for us in (row["before_us"], row["after_us"])]
    word = "  new" if row["before_us"] is None else "  gone" if row["after_us"] is None else ""
    return f"{name:{WIDTH}} {sides[0]:>10} {sides[1]:>10} {signed(row['delta_us']):>11}{word}"
