"""`metadata={op_type="add" op_name="jit(f)/add" source_line=3}`: where an instruction came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields

from nxcc.ir.hlo.text.cursor import INTEGER, STRING, Cursor, escape, unescape
from nxcc.ir.location import Location

_ENTRY = re.compile(rf"\s*+,?\s*+([a-z_]+)=({STRING}|{INTEGER}|\{{[^{{}}]*\}})")
_ORDER = ("op_type", "op_name", "source_file", "source_line", "source_end_line", "source_column", "source_end_column",
          "deduplicated_name", "scheduling_name", "stack_frame_id")
"""The order in which XLA prints what is there."""
NOTHING: Mapping[str, str | int] = {}
_IS_TEXT = {f.name: isinstance(f.default, str) for f in fields(Location)}
_NOT_KEPT = frozenset(("profile_type", "metadata_payload"))
"""Marks of profilers, which say nothing about the source."""


def read_location(cursor: Cursor) -> Location:
    """The record in braces; entries are separated by blanks or commas."""
    cursor.expect("{")
    values: dict[str, str | int] = {}
    while not cursor.take("}"):
        found = _ENTRY.match(cursor.text, cursor.position, cursor.end)
        if found is None:
            if cursor.take(","):
                continue
            raise cursor.fail("expected key=\"text\" or key=number in metadata")
        key, value = found.groups()
        if key not in _IS_TEXT:
            if key not in _NOT_KEPT:
                raise cursor.fail(f"metadata has no entry {key!r}", remedy="entries are " + ", ".join(_ORDER))
        elif (value[0] in "\"'") != _IS_TEXT[key] or value[0] == "{" or len(value) > 20 and not _IS_TEXT[key]:
            raise cursor.fail(f"{key} takes {'text in quotes' if _IS_TEXT[key] else 'an integer'}")
        else:
            values[key] = unescape(value) if _IS_TEXT[key] else int(value)
        cursor.position = found.end()
    return Location(**values)  # type: ignore[arg-type]


def write_location(location: Location, other: Mapping[str, str | int] = NOTHING) -> str:
    """The entries as XLA prints them, without the braces; empty if there is nothing to say. other: what stands for some."""
    parts = []
    for key in _ORDER:
        value = other[key] if key in other else getattr(location, key)
        if value:
            parts.append(f'{key}="{escape(value)}"' if isinstance(value, str) else f"{key}={value}")
    return " ".join(parts)
