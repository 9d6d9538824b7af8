"""Cuts HLO text into coarse tokens for the LALR grammar in hlo.lark.

Shapes with their layouts, literals, `name =` and attributes with their values are one token each. What a token starts is
decided by the token before it, as `(` opens a tuple shape after `=` but operands after an operator's name. Attribute values
stay raw here; their codecs read them later by position.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
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
    position, depth, before = 0, 0, ""
    while True:
        found = _TOKEN.match(text, position)
        if found is None:
            raise _unreadable(text, position)
        kind = found.lastgroup
        if kind == "END":
            return
        token = _MAKERS[kind](text, found, before)  # type: ignore[index]
        if kind == "MARK":
            depth += _step(token.type, depth, token.start)
        yield token
        before, position = token.type, token.end
        if before == "OPCODE" and token.value == "constant":
            for token in _literal(text, position):
                yield token
            before, position = token.type, token.end


def _mark(text: str, found: re.Match[str], before: str) -> Token:
    start, end = found.span("MARK")
    if text[start] == "(" and before in _BEFORE_TUPLE_SHAPE:
        return Token("SHAPE", start, closing_parenthesis(text, start))
    return Token(_MARKS[text[start]], start, end)


def _attribute(text: str, found: re.Match[str], before: str) -> Token:
    key = found["key"]
    if key in call_keys():
        return Token("CALLS", found.start("ATTR"), found.end("ATTR"), key)
    start, end = _value(text, found.end("ATTR"), key)
    return Token("ATTR", start, end, key)


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


def _definition(text: str, found: re.Match[str], before: str) -> Token:
    start, end = found.span("DEF")
    name = found["name"] or found["plain"]
    if name in PRIMITIVES:
        raise TextError(start, f"{name} is an element type and cannot name an instruction")
    return Token("DEF", start, end, name)


def _word(text: str, found: re.Match[str], before: str) -> Token:
    """A name, keyword, operator or buffer shape."""
    start, end = found.span("NAME")
    word = text[start:end]
    if word in _KEYWORDS:
        return Token(_KEYWORDS[word], start, end)
    if word in _TABLES:
        return _table(word, text, start, end)
    if word == "b" and (before in _BEFORE_TUPLE_SHAPE or before == "SHAPE") and _CALL.match(text, end):
        return Token("SHAPE", start, closing_parenthesis(text, end))
    if before in _BEFORE_OPCODE and _CALL.match(text, end):
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


def _stray_key(text: str, found: re.Match[str], before: str) -> Token:
    word = found["KEY"]
    raise TextError(found.start("KEY"), f"{word!r} reads as the name of an attribute here",
                    remedy=f"write '{word[:-1]} =' or '%{word}'")


def _parameter(text: str, found: re.Match[str], before: str) -> Token:
    return Token("PARAM", found.start("PARAM"), found.end("PARAM"), found["PARAM"][:-1])


def _plain(group: str, kind: str) -> Callable[[str, re.Match[str], str], Token]:
    return lambda text, found, before: Token(kind, found.start(group), found.end(group))


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


_MAKERS: dict[str, Callable[[str, re.Match[str], str], Token]] = {
    "MARK": _mark, "ATTR": _attribute, "SHAPE": _plain("SHAPE", "SHAPE"), "DEF": _definition, "PARAM": _parameter,
    "KEY": _stray_key, "NAME": _word, "INT": _plain("INT", "INT"), "ARROW": _plain("ARROW", "_ARROW")}
"""What makes the token for each group of the pattern, from the text, the match and the type of the token before."""
