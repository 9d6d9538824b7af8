"""Attributes that every instruction may carry: metadata, sharding, frontend attributes, backend config and the like."""

from __future__ import annotations

import re
from collections.abc import Callable

from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.text.cursor import MAX_NESTING, Cursor, closing_brace, to_bytes, unescape
from nxcc.ir.hlo.text.header import read_frontend, read_origin_array
from nxcc.ir.hlo.text.metadata import read_location
from nxcc.ir.hlo.text.sharding import read_sharding


def _set_metadata(made: Instruction, cursor: Cursor) -> None:
    made.location = read_location(cursor)


def _set_sharding(made: Instruction, cursor: Cursor) -> None:
    made.sharding = read_sharding(cursor)


def _set_frontend(made: Instruction, cursor: Cursor) -> None:
    made.frontend_attributes = read_frontend(cursor)


def _set_backend_config(made: Instruction, cursor: Cursor) -> None:
    cursor.skip()
    start = cursor.position
    written = cursor.text[start:cursor.end]
    if written.startswith("{"):
        cursor.position = closing_brace(cursor.text, start)
        made.backend_config = to_bytes(written)
    elif written[:1] in ("\"", "'"):
        cursor.position = cursor.end
        made.backend_config = to_bytes(unescape(written))
    else:
        raise cursor.fail("backend_config is text in quotes or in braces")


def _set_replication(made: Instruction, cursor: Cursor) -> None:
    cursor.expect("{")
    flags: list[bool] = []
    while not cursor.take("}"):
        if flags:
            cursor.expect(",")
        flags.append(cursor.word("true or false") == "true")
    made.attributes["parameter_replication"] = tuple(flags)


_STATISTIC = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*=")


def _set_statistics(made: Instruction, cursor: Cursor) -> None:
    cursor.expect("{")
    parts: list[str] = []
    while not cursor.take("}"):
        if parts:
            cursor.expect(",")
        parts.append(cursor.match(_STATISTIC, "key=") + cursor.number())
    made.statistics = "{" + ",".join(parts) + "}"


def _set_origin(made: Instruction, cursor: Cursor) -> None:
    made.origin = _origin(cursor)


def _origin(cursor: Cursor) -> str:
    """An original value with canonical blanks; an empty index after a name is left out."""
    cursor.expect("{")
    if cursor.take("["):
        cursor.expect("synthetic_call")
        cursor.expect("]")
        cursor.expect("}")
        return "{[synthetic_call]}"
    if cursor.take("}"):
        return "{()}"
    text = "{" + _origin_tree(cursor, 0) + "}"
    cursor.expect("}")
    return text


def _origin_tree(cursor: Cursor, depth: int) -> str:
    if depth > MAX_NESTING:
        raise cursor.fail("original values nest too deep")
    if cursor.take("("):
        parts: list[str] = []
        while not cursor.take(")"):
            if parts:
                cursor.expect(",")
            parts.append(_origin_tree(cursor, depth + 1))
        return "(" + ", ".join(parts) + ")"
    return read_origin_array(cursor)


COMMON: dict[str, Callable[[Instruction, Cursor], None] | None] = {
    "metadata": _set_metadata, "sharding": _set_sharding, "frontend_attributes": _set_frontend,
    "backend_config": _set_backend_config, "control-predecessors": None, "parameter_replication": _set_replication,
    "statistics": _set_statistics, "origin": _set_origin}
"""Keys that every operator takes; control predecessors need the names in scope and are read by the reader itself."""
