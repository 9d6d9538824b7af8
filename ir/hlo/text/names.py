"""Unique names the way XLA makes them: `a`, `a.1`, `a.2`, a numeric suffix of the asked name counting as taken."""

from __future__ import annotations

import re

_SUFFIX = re.compile(r"(.+)\.([0-9]{1,18})", re.DOTALL)


class Names:
    """Names given out so far, as used suffixes by stem."""

    __slots__ = ("_used", "_next")

    def __init__(self) -> None:
        self._used: dict[str, set[int]] = {}
        self._next: dict[str, int] = {}

    def unique(self, wanted: str) -> str:
        """`wanted` if it is free, else its stem with the lowest free suffix."""
        found = _SUFFIX.fullmatch(wanted)
        stem, number = (found[1], int(found[2])) if found else (wanted, 0)
        used = self._used.setdefault(stem, set())
        if number in used:
            number = self._next.get(stem, 0)
            while number in used:
                number += 1
            self._next[stem] = number + 1
        used.add(number)
        return f"{stem}.{number}" if number or found else stem
