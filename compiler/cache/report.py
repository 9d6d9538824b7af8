"""What the commands of `nxcc cache` do and print."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Any

from nxcc.compiler.cache.folder import default_folder
from nxcc.compiler.cache.store import DEFAULT_LIMIT_BYTES, Cache, Entry, first_difference
from nxcc.compiler.reports.report_text import size_text
from nxcc.ir.diagnostics import USAGE, CompileError

SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
AGE_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def cache_report(command: str, folder: str | None, **values: str) -> dict[str, Any]:
    """Do what the command says; what was done or found as plain JSON."""
    cache = Cache(folder or default_folder())
    body = _COMMANDS[command](cache, **values)
    left = cache.entries()
    return body | {"folder": cache.folder, "entries_left": len(left), "bytes_left": sum(entry.size for entry in left)}


def _list(cache: Cache) -> dict[str, Any]:
    return {"entries": [_row(entry) for entry in cache.entries()]}


def _clear(cache: Cache) -> dict[str, Any]:
    return _removed(cache.clear())


def _prune(cache: Cache, max_size: str, older: str) -> dict[str, Any]:
    limit = amount("--max-size", max_size.upper().removesuffix("B"), SIZE_UNITS)
    age = amount("--older", older, AGE_UNITS)
    if limit is None and age is None:
        limit = DEFAULT_LIMIT_BYTES
    return _removed(cache.prune(None if limit is None else int(limit), age))


def _verify(cache: Cache) -> dict[str, Any]:
    return _removed(cache.damaged())


def _why(cache: Cache, a: str, b: str) -> dict[str, Any]:
    one, other = cache.find(a), cache.find(b)
    return {"difference": first_difference(one.rows(), other.rows())}


_COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "list": _list, "clear": _clear, "prune": _prune, "verify": _verify, "why": _why}


def amount(option: str, text: str, units: dict[str, int] | dict[str, float]) -> float | None:
    """A number with a unit; None for an empty text. Raises CompileError(USAGE)."""
    if not text:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]?)", text)
    if found is None or found[2] not in units:
        raise CompileError(USAGE, f"{option} cannot be {text!r}",
                           remedy=f"give a number and one of {', '.join(unit for unit in units if unit)}")
    return float(found[1]) * units[found[2]]


def _row(entry: Entry) -> dict[str, Any]:
    rows = entry.rows()
    options = rows.get("options", {})
    return {"key": entry.digest, "bytes": entry.size, "used": int(entry.used), "model": entry.model(),
            "nxcc": rows.get("nxcc", ""), "target": options.get("target", ""), "options": options}


def _removed(entries: list[Entry]) -> dict[str, Any]:
    return {"removed": [entry.digest for entry in entries], "bytes_removed": sum(entry.size for entry in entries)}


def _entries(count: int) -> str:
    return f"{count} {'entry' if count == 1 else 'entries'}"


def cache_lines(body: dict[str, Any]) -> list[str]:
    """The same for people."""
    lines = []
    if "difference" in body:
        return [body["difference"] or "the keys are equal"]
    for row in body.get("entries", ()):
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["used"]))
        lines.append(f"{row['key'][:12]}  {size_text(row['bytes']):>10}  {used}  {row['target']}  {row['model']}")
    if "removed" in body:
        lines.append(f"removed {_entries(len(body['removed']))}, {size_text(body['bytes_removed'])}")
    lines.append(f"{os.path.join(body['folder'], '')}: {_entries(body['entries_left'])}, {size_text(body['bytes_left'])} "
                 f"of {size_text(DEFAULT_LIMIT_BYTES)}")
    return lines
