"""Cuts HLO text into coarse tokens for the LALR grammar in hlo.lark.

Shapes with their layouts, literals, `name =` and attributes with their values are one token each. What a token starts is decided
by the token before it, as `(` opens a tuple shape after `=` but operands after an operator's name. Attribute values stay
raw here; their codecs read them later by position.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from nxcc.ir.diagnostics import LIMIT_EXCEEDED
from nxcc.ir.dtypes import BUFFER, DTYPES, TUPLE
from nxcc.ir.hlo.operator import operators
from nxcc.ir.hlo.text.cursor import (
    IDENTIFIER,
    INTEGER,
    MAX_NESTING,
    SKIP,
    STRING,
    TextError,
    closing_brace,
    closing_parenthesis,
)

PRIMITIVES = frozenset(d.name for d in DTYPES if d not in (TUPLE, BUFFER))
_PRIMITIVE = "|".join(sorted(PRIMITIVES, key=len, reverse=True))
_LAYOUT = SKIP + r"\{\s*+(?=[\-0-9:])(?:[^{}]|\{[^{}]*\})*+\}"
SHAPE = rf"(?:{_PRIMITIVE})\s*+\[[^\[\]]*+\](?:{_LAYOUT})?"
_TOKEN = re.compile(
    SKIP + rf"""(?:
    (?P<ATTR>,{SKIP}(?P<key>{IDENTIFIER})=)
  | (?P<SHAPE>{SHAPE})
  | (?P<DEF>(?:%(?P<name>{IDENTIFIER})|(?P<plain>{IDENTIFIER})(?=[\s/])){SKIP}=)
  | (?P<PARAM>{IDENTIFIER}:)
  | (?P<KEY>{IDENTIFIER}=)
  | (?P<NAME>%?{IDENTIFIER})
  | (?P<INT>{INTEGER})
  | (?P<ARROW>->)
  | (?P<MARK>[(){{}},#])
  | (?P<END>\Z)
    )""", re.VERBOSE | re.ASCII)
_SKIP = re.compile(SKIP)
_SHAPE = re.compile(SHAPE)
_STRING = re.compile(STRING)
_CALL = re.compile(SKIP + r"\(")
_ROW = re.compile(SKIP + rf"([0-9]++){SKIP}({STRING}|\{{[^{{}}]*+\}})")
_IOTA_GROUPS = re.compile(r"\[[0-9,\s]*+\]\s*+<=\s*+\[[0-9,\s]*+\](?:\s*+T\s*+\([0-9,\s]*+\))?")
_MESH_GROUPS = re.compile(r"mesh\s*+\[[^\[\]]*+\](?:\s*+,\s*+device_ids=\([^()]*+\))?\s*+\{[^{}]*+\}")
_WORD = re.compile(r"[^\s,{}()\[\]\"']++")
_MARKS = {"(": "_LPAR", ")": "_RPAR", "{": "_LBRACE", "}": "_RBRACE", ",": "_COMMA", "#": "_HASH"}
_KEYWORDS = {"HloModule": "_HLOMODULE", "ENTRY": "ENTRY", "ROOT": "ROOT"}
_TABLES = frozenset(("FileNames", "FunctionNames", "FileLocations", "StackFrames"))
_BEFORE_TUPLE_SHAPE = frozenset(("DEF", "_ARROW", "_COMMA", "_LPAR", "PARAM"))
_BEFORE_OPCODE = frozenset(("DEF", "SHAPE", "_COMMA", "_LPAR"))


class Token:
    """A piece of the source: text[start:end]. value: the key of an attribute, the name in `name =`, rows of a table."""

    __slots__ = ("type", "start", "end", "value")
    line = column = end_line = end_column = start_pos = end_pos = 0
    """What lark copies into its own end token; nothing reads them."""

    def __init__(self, type: str, start: int, end: int, value: Any = None) -> None:
        self.type = type
        self.start = start
        self.end = end
        self.value = value


@cache
def call_keys() -> frozenset[str]:
    """Attribute keys whose value is one or more computations."""
    declared = {key.rstrip("*") for operator in operators().values() for key in operator.called}
    return frozenset(declared | {"true_computation", "false_computation"})


def cut(text: str) -> Iterator[Token]:
    """The tokens of a text; TextError where nothing can be read."""
    calls = call_keys()
    position, depth, before = 0, 0, ""
    while True:
        found = _TOKEN.match(text, position)
        if found is None:
            raise _unreadable(text, position)
        kind = found.lastgroup
        start, position = found.span(kind)  # type: ignore[arg-type]
        if kind == "MARK":
            mark = text[start]
            kind = _MARKS[mark]
            if mark == "(" and before in _BEFORE_TUPLE_SHAPE:
                kind, position = "SHAPE", closing_parenthesis(text, start)
            depth += _step(kind, depth, start)
            token = Token(kind, start, position)
        elif kind == "SHAPE":
            token = Token("SHAPE", start, position)
        elif kind == "NAME":
            token = _word(text, start, position, before)
            position = token.end
        elif kind == "ATTR":
            key = found["key"]
            if key in calls:
                token = Token("CALLS", start, position, key)
            else:
                begin, position = _value(text, position, key)
                token = Token("ATTR", begin, position, key)
        elif kind == "DEF":
            token = _definition(found, start, position)
        elif kind == "END":
            return
        else:
            token = _other(kind or "", text, start, position)
        yield token
        before = token.type
        if before == "OPCODE" and token.value == "constant":
            before = "LITERAL"
            for token in _literal(text, position):
                yield token
                position = token.end


def _step(kind: str, depth: int, start: int) -> int:
    """How a token changes the nesting."""
    if kind in ("_LPAR", "_LBRACE"):
        if depth >= MAX_NESTING:
            raise TextError(start, f"braces and parentheses nest more than {MAX_NESTING} deep", LIMIT_EXCEEDED)
        return 1
    return -1 if kind in ("_RPAR", "_RBRACE") else 0


def _unreadable(text: str, position: int) -> TextError:
    skipped = _SKIP.match(text, position)
    position = skipped.end() if skipped else position
    return TextError(position, f"character {text[position]!r} cannot start anything in HLO text")


def _definition(found: re.Match[str], start: int, end: int) -> Token:
    name = found["name"] or found["plain"]
    if name in PRIMITIVES:
        raise TextError(start, f"{name} is an element type and cannot name an instruction")
    return Token("DEF", start, end, name)


def _word(text: str, start: int, end: int, before: str) -> Token:
    """A name, keyword, operator or buffer shape."""
    word = text[start:end]
    if word in _KEYWORDS:
        return Token(_KEYWORDS[word], start, end)
    if word in _TABLES:
        return _table(word, text, start, end)
    if before in _BEFORE_OPCODE and _CALL.match(text, end):
        if word == "b":
            return Token("SHAPE", start, closing_parenthesis(text, end))
        return Token("OPCODE", start, end, word.removeprefix("%"))
    if word in PRIMITIVES:
        raise TextError(start, f"{word} is an element type: a shape such as {word}[] was expected, or another name",
                        why="names of element types cannot name instructions")
    return Token("NAME", start, end, word.removeprefix("%"))


def _table(name: str, text: str, start: int, end: int) -> Token:
    """A table of stack frames: its name and all rows, which must be numbered from 1."""
    rows: list[str] = []
    while found := _ROW.match(text, end):
        if int(found[1][:12]) != len(rows) + 1:
            raise TextError(found.start(1), f"row {len(rows) + 1} of {name} was expected")
        rows.append(found[2])
        end = found.end()
    return Token("TABLE", start, end, (name, tuple(rows)))


def _other(kind: str, text: str, start: int, end: int) -> Token:
    if kind == "KEY":
        word = text[start:end - 1]
        raise TextError(start, f"{text[start:end]!r} reads as the name of an attribute here",
                        remedy=f"write '{word} =' or '%{word}='")
    if kind == "PARAM":
        return Token("PARAM", start, end, text[start:end - 1])
    return Token("_ARROW" if kind == "ARROW" else kind, start, end)


def _literal(text: str, position: int) -> Iterator[Token]:
    """The three tokens of `(LITERAL)` after `constant`."""
    found = _CALL.match(text, position)
    assert found is not None
    end = closing_parenthesis(text, found.end() - 1)
    yield Token("_LPAR", found.end() - 1, found.end())
    yield Token("LITERAL", found.end(), end - 1)
    yield Token("_RPAR", end - 1, end)


def _value(text: str, position: int, key: str) -> tuple[int, int]:
    """Where the raw value of an attribute starts and ends."""
    found = _SKIP.match(text, position)
    assert found is not None
    start = found.end()
    end = _value_end(text, start, key)
    if key == "literal":
        found = _SKIP.match(text, end)
        assert found is not None
        if text[start] != "(" or text[found.end():found.end() + 1] == "(":
            end = _value_end(text, found.end(), "")
    return start, end


def _value_end(text: str, start: int, key: str) -> int:
    first = text[start:start + 1]
    if first == "{":
        return closing_brace(text, start)
    if first == "(":
        return closing_parenthesis(text, start)
    for pattern in (_STRING,) if first in "\"'" else (_SHAPE, _IOTA_GROUPS, _MESH_GROUPS, _WORD):
        found = pattern.match(text, start)
        if found:
            return found.end()
    raise TextError(start, f"the value of {key} is missing" if key else "a value was expected")
