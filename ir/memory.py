"""How much memory this machine has left: what certainly takes more is refused, before the system ends the process for it."""

from __future__ import annotations

import re
from collections.abc import Iterator

_MEMINFO = "/proc/meminfo"
_LIMITS = (("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),)
"""Of a container: what it may have, and what it has."""


def available_bytes() -> int | None:
    """Bytes that may still be used; None where the system does not say."""
    return min(_found(), default=None)


def _found() -> Iterator[int]:
    match = re.search(r"^MemAvailable:\s*(\d+) kB", _text(_MEMINFO), re.MULTILINE)
    if match:
        yield int(match[1]) << 10
    for most, used in _LIMITS:
        if (limit := _text(most).strip()).isdigit() and (now := _text(used).strip()).isdigit():
            yield max(0, int(limit) - int(now))


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""
