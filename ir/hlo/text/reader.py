"""Reads HLO text into a Module.

In two steps: a LALR parser over coarse tokens (hlo.lark, lexer.py, syntax.py) yields raw instructions; then names are resolved,
attributes typed by the operator's declaration, shapes inferred where they were left out, and names made unique as XLA makes
them (resolve.py). Faults end in CompileError with line, column and the source line.
Source of the grammar: HLO format reference, part 5.
"""

from __future__ import annotations

import re

from nxcc.ir.diagnostics import EMPTY_INPUT, CompileError
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.text.cursor import TextError
from nxcc.ir.hlo.text.resolve import ModuleReader
from nxcc.ir.hlo.text.syntax import RawInstruction, parse

_LOG_PREFIX = re.compile(r"^[IWEF][0-9]{4} [0-9:.]+ +[0-9]+ [^\s:\]]+:[0-9]+\] ", re.MULTILINE)


def read_text(text: str | bytes, *, name: str = "<text>") -> Module:
    """The module that HLO text describes.

    name: what errors call the source. A text may be a module, computations without a header, or one instruction alone.
    Raises CompileError: TEXT_SYNTAX, UNKNOWN_OPERATOR, INVALID_MODULE, ELIDED_CONSTANT, LIMIT_EXCEEDED or EMPTY_INPUT, with
    `where` = name:line:column and the source line with a caret in `details`.
    """
    source = text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text
    source = _LOG_PREFIX.sub(lambda prefix: " " * len(prefix.group()), source)
    try:
        return _read(source)
    except TextError as fault:
        raise _explain(fault, source, name) from None


def _read(source: str) -> Module:
    if source.startswith("\ufeff"):
        raise TextError(0, "the text starts with a byte order mark", remedy="save it as UTF-8 without one")
    if not source.strip():
        raise TextError(0, "the text is empty", EMPTY_INPUT)
    tree = parse(source)
    reader = ModuleReader(source)
    return reader.bare(tree) if isinstance(tree, RawInstruction) else reader.module(tree)


def _explain(fault: TextError, source: str, name: str) -> CompileError:
    """The error with line, column and the source line; long lines are cut around the column."""
    offset = min(fault.offset, len(source))
    line = source.count("\n", 0, offset) + 1
    start = source.rfind("\n", 0, offset) + 1
    end = source.find("\n", offset)
    column = offset - start
    left = max(0, column - 60)
    excerpt = source[start + left:end if end >= 0 else len(source)][:120].rstrip("\r").replace("\t", " ")
    printable = "".join(c if c.isprintable() else "?" for c in excerpt)
    details = (printable, " " * (column - left) + "^")
    return CompileError(fault.code, fault.what, where=f"{name}:{line}:{column + 1}", why=fault.why, remedy=fault.remedy,
                        details=details)
