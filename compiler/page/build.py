"""One HTML file from the parts in this folder: text is put into the template, data goes in as JSON and as packed columns.

Nothing is fetched when the page is opened; its content policy forbids it.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from nxcc.compiler.reports.estimate import Estimate
from nxcc.compiler.version import VERSION

TEMPLATE = "page.html"
STYLE = "page.css"
PROFILE_SCRIPTS = ("format.js", "data.js", "view.js", "tracks.js", "tables.js", "roofline.js", "details.js", "profile.js")
COMPARISON_SCRIPTS = ("format.js", "tables.js", "comparison.js")
Column = npt.NDArray[Any]


def write_profile_page(found: Estimate, body: dict[str, Any], file: BinaryIO) -> None:
    """The page of a profile; body is its report."""
    from nxcc.compiler.page.data import profile_columns, profile_facts
    columns, layout = profile_columns(found)
    facts = body | profile_facts(found, layout)
    file.write(page(f"{body['estimate']['file']}: profile", PROFILE_SCRIPTS, "profile.html", facts, columns))


def write_comparison_page(body: dict[str, Any], file: BinaryIO) -> None:
    """The page of a comparison; body is its report."""
    title = f"{body['before']['file']} and {body['after']['file']}: comparison"
    file.write(page(title, COMPARISON_SCRIPTS, "comparison.html", body, {}))


def page(title: str, scripts: Sequence[str], main: str, facts: dict[str, Any], columns: Mapping[str, Column]) -> bytes:
    """The whole file. main: the part with the page's own markup."""
    directory, packed = pack(columns)
    parts = {
        "title": html.escape(title), "style": _part(STYLE), "main": _part(main), "version": html.escape(VERSION),
        "script": "\n".join(_part(name) for name in scripts), "facts": _json(facts | {"columns": directory}),
        "packed": base64.b64encode(packed).decode(),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _part(TEMPLATE)).encode()


def _part(name: str) -> str:
    return resources.files("nxcc.compiler.page").joinpath(name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """JSON that may stand inside of a script element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def pack(columns: Mapping[str, Column]) -> tuple[list[list[Any]], bytes]:
    """The columns as one gzip stream, and what lies where: [name, type, first byte, elements]; starts are multiples of 8."""
    directory: list[list[Any]] = []
    pieces: list[bytes] = []
    at = 0
    for name, column in columns.items():
        data = np.ascontiguousarray(column, column.dtype.newbyteorder("<")).tobytes()
        directory.append([name, f"{column.dtype.kind}{column.dtype.itemsize}", at, len(column)])
        padded = data + bytes(-len(data) % 8)
        pieces.append(padded)
        at += len(padded)
    return directory, gzip.compress(b"".join(pieces), 6, mtime=0)
