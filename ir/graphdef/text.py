"""GraphDef and SavedModel in protobuf's text form, turned into the binary form that the readers take."""

from __future__ import annotations

import re

from nxcc.ir.diagnostics import LIMIT_EXCEEDED, TEXT_SYNTAX, CompileError
from nxcc.ir.graphdef.schema import message_type

MAX_NESTING = 100
_TOKEN = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|#[^\n]*|[{}<>]")
_STEPS = {"{": 1, "<": 1, "}": -1, ">": -1}


def binary_of(content: bytes, message: str, name: str) -> bytes:
    """The serialized message that a text stands for; CompileError(TEXT_SYNTAX) with line and column."""
    from google.protobuf import text_format
    text = content.decode("utf-8", "replace")
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += _STEPS.get(token.group(), 0)
        if depth > MAX_NESTING:
            raise CompileError(LIMIT_EXCEEDED, f"messages nest more than {MAX_NESTING} deep", name)
    parsed = message_type(message)()
    try:
        text_format.Parse(text, parsed, allow_unknown_field=True)
    except text_format.ParseError as error:
        where = f"{name}:{error.GetLine()}:{error.GetColumn()}" if error.GetLine() else name
        raise CompileError(TEXT_SYNTAX, "the protobuf text does not parse", where, why=str(error)) from None
    serialized: bytes = parsed.SerializeToString()
    return serialized
