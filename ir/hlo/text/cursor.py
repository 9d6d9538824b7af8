"""Reading small pieces of HLO text by hand: a position in the source, the lexical atoms, and the error that names an offset."""

from __future__ import annotations

import re

from nxcc.ir.diagnostics import TEXT_SYNTAX, Code

MAX_NESTING = 64
"""Braces and parentheses deeper than this are refused; real modules nest fewer than ten."""

SKIP = r"(?:[ \t\r\n]++|//[^\n\r]*+|/\*(?s:.*?)\*/)*+"
"""White space and comments."""

IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_.\-]*+"
STRING = r"\"(?:[^\"\\]|\\(?s:.))*+\"|'(?:[^'\\]|\\(?s:.))*+'"
INTEGER = r"-?[0-9]++"
NUMBER = r"-?(?:[0-9]++(?:\.[0-9]*+)?(?:[eE][+\-]?[0-9]++)?|inf|nan(?:\(0x[0-9a-fA-F]++\))?)"

_SKIP = re.compile(SKIP)
_INTEGER = re.compile(INTEGER)
_NUMBER = re.compile(NUMBER)
_STRING = re.compile(STRING)
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*+")
_BRACE = re.compile(r"\"(?:[^\"\\]|\\(?s:.))*+\"|[{}]")
_PAREN = re.compile(r"//[^\n\r]*+|/\*(?s:.*?)\*/|[()]")
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(?s:(.)))")
_ESCAPED = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}
_PLAIN = re.compile(r"[ !#-&(-\[\]-~]*+")
_SPECIAL = {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x22: '\\"', 0x27: "\\'", 0x5C: "\\\\"}


class TextError(Exception):
    """A fault at an offset of the source; the reader turns it into a CompileError with line, column and excerpt."""

    def __init__(self, offset: int, what: str, code: Code = TEXT_SYNTAX, why: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.offset = offset
        self.what = what
        self.code = code
        self.why = why
        self.remedy = remedy


class Cursor:
    """A position between `position` and `end` of the source. White space and comments are skipped before every atom."""

    __slots__ = ("text", "position", "end")

    def __init__(self, text: str, position: int = 0, end: int | None = None) -> None:
        self.text = text
        self.position = position
        self.end = len(text) if end is None else end

    def skip(self) -> None:
        found = _SKIP.match(self.text, self.position, self.end)
        assert found is not None
        self.position = found.end()

    @property
    def at_end(self) -> bool:
        self.skip()
        return self.position >= self.end

    def fail(self, what: str, **more: str) -> TextError:
        return TextError(self.position, what, **more)  # type: ignore[arg-type]

    def at(self, literal: str) -> bool:
        self.skip()
        return self.text.startswith(literal, self.position, self.end)

    def take(self, literal: str) -> bool:
        """Step over the literal if it comes next."""
        if self.at(literal):
            self.position += len(literal)
            return True
        return False

    def expect(self, literal: str) -> None:
        if not self.take(literal):
            found = self.text[self.position:min(self.end, self.position + 12)].split("\n")[0]
            raise self.fail(f"expected {literal!r}, found {found!r}" if found else f"expected {literal!r} before the end")

    def match(self, pattern: re.Pattern[str], meant: str) -> str:
        """Step over what the pattern matches and return it; `meant` names it in the error."""
        self.skip()
        found = pattern.match(self.text, self.position, self.end)
        if found is None:
            raise self.fail(f"expected {meant}")
        self.position = found.end()
        return found.group()

    def integer(self) -> int:
        start = self.position
        digits = self.match(_INTEGER, "an integer")
        if len(digits) > 20:
            raise TextError(start, "integer is out of range")
        return int(digits)

    def number(self) -> str:
        return self.match(_NUMBER, "a number")

    def word(self, meant: str = "a name") -> str:
        return self.match(_WORD, meant)

    def string(self) -> str:
        """A quoted string, escapes resolved."""
        return unescape(self.match(_STRING, "a string in quotes"))

    def finish(self) -> None:
        if not self.at_end:
            raise self.fail("unexpected text after the value")

    def integers(self, opening: str = "{", closing: str = "}") -> tuple[int, ...]:
        """Integers separated by commas between brackets."""
        self.expect(opening)
        found: list[int] = []
        while not self.take(closing):
            if found:
                self.expect(",")
            found.append(self.integer())
        return tuple(found)


def closing_brace(text: str, position: int) -> int:
    """The offset after the brace that closes the one at `position`, braces in double-quoted strings left out."""
    return _closing(_BRACE, "{", "}", text, position)


def closing_parenthesis(text: str, position: int) -> int:
    """The offset after the parenthesis that closes the one at `position`, comments left out."""
    return _closing(_PAREN, "(", ")", text, position)


def _closing(pattern: re.Pattern[str], opening: str, closing: str, text: str, position: int) -> int:
    depth = 0
    for found in pattern.finditer(text, position):
        mark = found.group()
        if mark == opening:
            depth += 1
        elif mark == closing:
            depth -= 1
            if depth == 0:
                return found.end()
    raise TextError(position, f"no {closing!r} closes this {opening!r}")


def unescape(quoted: str) -> str:
    """The text of a string token: quotes removed, C escapes resolved; bytes that are not UTF-8 become surrogates."""
    inner = quoted[1:-1]
    if "\\" not in inner:
        return inner
    return to_text(_ESCAPE.sub(_resolve, to_bytes(inner)))


def _resolve(found: re.Match[bytes]) -> bytes:
    hexadecimal, octal, letter = found.groups()
    if hexadecimal:
        return bytes([int(hexadecimal, 16)])
    if octal:
        return bytes([int(octal, 8) & 0xFF])
    return _ESCAPED.get(letter, letter)


def escape(text: str) -> str:
    """The text as XLA writes it between double quotes: C escapes, everything outside printable ASCII in octal."""
    if _PLAIN.fullmatch(text):
        return text
    return escape_bytes(to_bytes(text))


def escape_bytes(data: bytes) -> str:
    return "".join(_SPECIAL.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03o}") for byte in data)


def to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def to_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def is_braced(text: str) -> bool:
    """True if the text lexes as one `{...}` value, so that it can be printed without quotes."""
    if not text.startswith("{"):
        return False
    try:
        return closing_brace(text, 0) == len(text)
    except TextError:
        return False
