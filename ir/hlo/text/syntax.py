"""The syntax tree of HLO text: what the grammar in hlo.lark makes of the tokens, before any name means anything."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from nxcc.ir.hlo.text.cursor import TextError
from nxcc.ir.hlo.text.lexer import Token, cut

if TYPE_CHECKING:
    from lark import Lark


class RawInstruction:
    """One instruction as parsed: tokens and raw parts only."""

    __slots__ = ("is_root", "name", "shape", "opcode", "operands", "attributes")

    def __init__(self, is_root: bool, name: Token | None, shape: Token | None, opcode: Token, operands: list[RawOperand],
                 attributes: list[RawAttribute]) -> None:
        self.is_root = is_root
        self.name = name
        self.shape = shape
        self.opcode = opcode
        self.operands = operands
        self.attributes = attributes


class RawComputation:
    """One computation as parsed; signature: the token of its result shape."""

    __slots__ = ("entry", "name", "signature", "body", "attributes")

    def __init__(self, entry: Token | None, name: Token, signature: Token | None, body: list[RawInstruction],
                 attributes: list[Token]) -> None:
        self.entry = entry
        self.name = name
        self.signature = signature
        self.body = body
        self.attributes = attributes


RawOperand = tuple[Token | None, Token | RawInstruction | None, tuple[Token, ...]]
"""Shape token, name or nested instruction or value token, and the `#index` tokens."""
RawAttribute = tuple[Token, list[Token | list[RawInstruction]] | None]
"""Attribute token, and its computations (a name or an inline body each) if it has any."""


class _Tree:
    """What each grammar rule makes of its parts; called by the parser as it reduces."""

    def module(self, parts: list[Any]) -> Any:
        return parts

    def bare(self, parts: list[Any]) -> Any:
        return parts[0]

    def header(self, parts: list[Any]) -> Any:
        return parts

    def computation(self, parts: list[Any]) -> RawComputation:
        entry, name, signature, body, *attributes = parts
        return RawComputation(entry, name, signature, body, attributes)

    def signature(self, parts: list[Any]) -> Any:
        return parts[-1]

    def param(self, parts: list[Any]) -> Any:
        return parts

    def body(self, parts: list[Any]) -> Any:
        return parts

    def instruction(self, parts: list[Any]) -> RawInstruction:
        root, name, shape, opcode, operands, *attributes = parts
        return RawInstruction(root is not None, name, shape, opcode, operands, attributes)

    def unnamed(self, parts: list[Any]) -> RawInstruction:
        shape, opcode, operands, *attributes = parts
        return RawInstruction(False, None, shape, opcode, operands, attributes)

    def operands(self, parts: list[Any]) -> list[Any]:
        return [] if parts == [None] else parts

    def named(self, parts: list[Any]) -> RawOperand:
        shape, name, *indices = parts
        return shape, name, tuple(indices)

    def nested(self, parts: list[Any]) -> RawOperand:
        shape, opcode, operands = parts
        return None, RawInstruction(False, None, shape, opcode, operands, []), ()

    def nameless(self, parts: list[Any]) -> RawOperand:
        return parts[0], None, ()

    def value(self, parts: list[Any]) -> RawOperand:
        return None, parts[0], ()

    def index(self, parts: list[Any]) -> Any:
        return parts[0]

    def plain(self, parts: list[Any]) -> RawAttribute:
        return parts[0], None

    def calls(self, parts: list[Any]) -> RawAttribute:
        return parts[0], [p for p in parts[1:] if p is not None]

    def callee(self, parts: list[Any]) -> Any:
        return parts[0]


@cache
def _parser() -> Lark:
    from lark import Lark
    from lark.lexer import Lexer

    class CoarseLexer(Lexer):
        """Our lexer in the form that lark takes."""

        def __init__(self, lexer_conf: object) -> None:
            del lexer_conf

        def lex(self, lexer_state: Any, parser_state: Any) -> Iterator[Any]:
            return cut(str(lexer_state.text.text))

        __future_interface__ = 2

    grammar = files("nxcc.ir.hlo.text").joinpath("hlo.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer=CoarseLexer, transformer=_Tree())

def parse(source: str) -> Any:
    """A RawInstruction for a bare one, else the parts of a module: header or None, table tokens, RawComputations."""
    from lark.exceptions import UnexpectedToken
    try:
        return _parser().parse(source)
    except UnexpectedToken as unexpected:
        raise _syntax(unexpected, source) from None


_TOKEN_WORDS = {
    "SHAPE": "a shape", "NAME": "a name", "OPCODE": "an operator with its operands", "DEF": "'name ='", "ROOT": "ROOT",
    "ATTR": "', attribute='", "CALLS": "', attribute='", "INT": "an integer", "PARAM": "'name:'", "LITERAL": "a literal",
    "ENTRY": "ENTRY",
    "TABLE": "a stack frame table", "$END": "the end of the text", "_LPAR": "'('", "_RPAR": "')'", "_LBRACE": "'{'",
    "_RBRACE": "'}'", "_COMMA": "','", "_ARROW": "'->'", "_HASH": "'#'", "_HLOMODULE": "HloModule"}


def _syntax(unexpected: Any, source: str) -> TextError:
    token = unexpected.token
    wanted = sorted({_TOKEN_WORDS[kind] for kind in unexpected.expected if kind in _TOKEN_WORDS} | (
        {_TOKEN_WORDS["$END"]} if "$END" in unexpected.expected else set()))
    expected = "expected " + " or ".join(wanted)
    if not isinstance(token, Token):
        return TextError(len(source), f"the text ends early: {expected}")
    found = source[token.start:token.end].split("\n")[0]
    return TextError(token.start, f"{expected}, found {found[:40]!r}")
