"""The table, the failures grouped by cause, and the JSON of a run."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from conformance.steps import READ_STEPS, Outcome, device_steps
from conformance.walk import CLASSES, PASSED, WalkOutcome

SCHEMA = 2
O = TypeVar("O", bound=WalkOutcome)  # noqa: E741
SHOWN_NAMES = 4
MIN_FAMILY = 8
"""Families with fewer modules are one row together."""


def as_json(outcomes: Sequence[Outcome], seconds: float, settings: Any) -> dict[str, Any]:
    """Everything, as plain JSON."""
    return {
        "schema": SCHEMA, "seconds": round(seconds, 1), "settings": dataclasses.asdict(settings),
        "counts": [{"step": name, "passed": good, "of": total} for name, good, total in step_counts(outcomes)],
        "classes": dict(Counter(o.kind for o in judged(outcomes))),
        "groups": [{"class": kind, "cause": cause, "modules": names} for kind, cause, names in groups(outcomes)],
        "modules": [dataclasses.asdict(o) | {"class": o.kind} for o in sorted(outcomes, key=lambda o: (o.source, o.name))],
    }


def judged(outcomes: Iterable[O]) -> list[O]:
    """All but the modules that XLA's verifier rejects, or that never end in XLA, and that end in the same way here."""
    return [o for o in outcomes if o.kind == PASSED or o.kind != o.expected]


def variants_of(outcomes: Iterable[Outcome]) -> list[str]:
    """What modules were compiled for, in the order in which each was."""
    return list(dict.fromkeys(step.split()[1] for o in outcomes for step in o.steps if " " in step))


def step_counts(outcomes: Sequence[Outcome]) -> list[tuple[str, int, int]]:
    """(step, passed, of how many): reading steps of all modules, results of those that are fit to score.

    A module that ends as it must, rejected or without an end, is in no count.
    """
    rows = judged(outcomes)
    scored = [o for o in rows if o.scored]
    counts = [_count(step, step, scored if step == "oracle" else rows) for step in READ_STEPS]
    for variant in variants_of(rows):
        compiling, checking, running = device_steps(variant)
        counts += [_count(f"{variant} compiled", compiling, rows), _count(f"{variant} machine verifier", checking, rows),
                   _count(f"{variant} device right", running, scored)]
        right = [o for o in scored if o.steps.get(running)]
        counts += [(f"{variant}   of these without host regions", sum(not o.host.get(variant) for o in right), len(scored)),
                   (f"{variant}   or with excused ones only", sum(variant not in o.needs_host for o in right), len(scored))]
    return counts


def _count(label: str, step: str, rows: Sequence[Outcome]) -> tuple[str, int, int]:
    """A step that did not run because an earlier one failed counts as failed; one that no module has, as not there."""
    if step in ("text", "same") and not any(step in o.steps for o in rows):
        return label, 0, 0
    return label, sum(o.steps.get(step, False) for o in rows), len(rows)


def groups(outcomes: Iterable[WalkOutcome]) -> list[tuple[str, str, list[str]]]:
    """(class, cause, modules): each module under the failure that decides its class; worst class and largest group first."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for outcome in judged(outcomes):
        decisive = next((f for f in outcome.failures if f.kind == outcome.kind), None)
        if decisive is not None:
            found[outcome.kind, decisive.cause].append(outcome.name)
    rows = sorted(found.items(), key=lambda row: (-CLASSES.index(row[0][0]), -len(row[1]), row[0][1]))
    return [(kind, cause, sorted(names)) for (kind, cause), names in rows]


def table_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """The counts for people: steps down, corpora across."""
    sources = sorted({o.source for o in outcomes})
    columns = [[o for o in outcomes if o.source == source] for source in sources]
    heads = [source.rstrip("/").split("/")[-1].removesuffix(".zip") for source in sources]
    if len(sources) > 1:
        columns, heads = [*columns, list(outcomes)], [*heads, "all"]
    counts = [step_counts(column) for column in columns]
    lines = [f"{'step':46}" + "".join(f"{head:>26}" for head in heads)]
    labels = [label for label, *_ in max(counts, key=len)]
    for label in labels:
        cells = [next((_cell(good, total) for name, good, total in column if name == label), "") for column in counts]
        lines.append(f"{label:46}" + "".join(f"{cell:>26}" for cell in cells))
    for kind in CLASSES:
        cells = [str(sum(o.kind == kind for o in judged(column))) for column in columns]
        lines.append(f"class: {kind:39}" + "".join(f"{cell:>26}" for cell in cells))
    cells = [str(len(column) - len(judged(column))) for column in columns]
    lines.append(f"{'end as in XLA: rejected or never (not counted)':46}" + "".join(f"{cell:>26}" for cell in cells))
    return lines


def _cell(good: int, total: int) -> str:
    return f"{good} of {total} ({100 * good / total:.1f} %)" if total else "-"


def family_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Per family: modules, fit to score, oracle right, device right for each variant, a host that none excuses."""
    rows = judged(outcomes)
    variants = variants_of(rows)
    families: dict[str, list[Outcome]] = defaultdict(list)
    sizes = Counter(o.family for o in rows)
    for outcome in rows:
        families[outcome.family if sizes[outcome.family] >= MIN_FAMILY else "(small families)"].append(outcome)
    lines = [f"{'family':36}{'modules':>9}{'scored':>8}{'oracle':>8}"
             + "".join(f"{variant:>8}{'host':>6}" for variant in variants) + "  not passed"]
    for family, members in sorted(families.items(), key=lambda row: (-len(row[1]), row[0])):
        scored = [o for o in members if o.scored]
        kinds = Counter(o.kind for o in members if o.kind != PASSED)
        lines.append(f"{family[:35]:36}{len(members):>9}{len(scored):>8}{sum(o.steps.get('oracle', False) for o in scored):>8}"
                     + "".join(f"{sum(o.steps.get(device_steps(variant)[2], False) for o in scored):>8}"
                               f"{sum(variant in o.needs_host for o in members):>6}" for variant in variants)
                     + "  " + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))
    return lines


def host_lines(outcomes: Iterable[Outcome]) -> list[str]:
    """Which opcodes ran on the host, in how many modules, for each variant."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        for variant, opcodes in outcome.host.items():
            found[variant].update(dict.fromkeys(opcodes, 1))
    return [f"{variant} host regions: {', '.join(f'{opcode} {count}' for opcode, count in counts.most_common())}"
            for variant, counts in found.items() if counts]


def group_lines(outcomes: Sequence[WalkOutcome], most: int) -> list[str]:
    """Failures by cause."""
    lines = []
    for kind, cause, names in groups(outcomes)[:most]:
        shown = ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
        lines.append(f"{len(names):5}  {kind}: {cause}  ({shown})")
    left = len(groups(outcomes)) - most
    return lines + ([f"       {left} more causes; --json has all"] if left > 0 else [])
