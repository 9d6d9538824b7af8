"""Shapes in HLO text: read by hand from one token, and remembered, as a module says the same few shapes thousands of times."""

from __future__ import annotations

import re

from nxcc.ir.diagnostics import LIMIT_EXCEEDED
from nxcc.ir.dtypes import BUFFER, BY_NAME
from nxcc.ir.hlo.text.cursor import MAX_NESTING, SKIP, Cursor, TextError
from nxcc.ir.shapes import UNBOUNDED, Layout, Shape, row_major, tuple_of

_NAME = re.compile(r"[a-z][a-z0-9]*")
_COMMENT = re.compile(r"//[^\n\r]*+|/\*(?s:.*?)\*/|\s++")
_SIMPLE = re.compile(r"([a-z][a-z0-9]*)\[([0-9,]*)\](?:\{([0-9,]*)\})?")
MAX_RANK = 64
"""What numpy can hold; XLA's own modules stay far below."""
_LARGEST = 2**63 - 1
_DIM = re.compile(rf"(<=)?{SKIP}([0-9]+)|\?")
_EXTENSION = re.compile(
    r"(?:D\([^()]*\))?(?P<kept>(?:T(?:\((?:[0-9]+|\*)?(?:,(?:[0-9]+|\*))*\))+)?(?:L\([0-9]+\))?(?:#\([a-z0-9]+\))?(?:\*\([a-z0-9]+\))?"
    r"(?:E\([0-9]+\))?(?:S\([0-9]+\))?(?:SC(?:\([0-9]+:[0-9]+(?:,[0-9]+)*\))+)?(?:P\([^{}]*(?:\{[^{}]*\})?\))?(?:M\([0-9]+\))?)")


def parse_shape(cursor: Cursor, depth: int = 0) -> Shape:
    """One shape; an array without a layout gets the row-major one."""
    if depth > MAX_NESTING:
        raise TextError(cursor.position, f"tuple shapes nest more than {MAX_NESTING} deep", LIMIT_EXCEEDED)
    if cursor.take("("):
        elements: list[Shape] = []
        while not cursor.take(")"):
            if elements:
                cursor.expect(",")
            elements.append(parse_shape(cursor, depth + 1))
        return tuple_of(*elements)
    start = cursor.position
    name = cursor.match(_NAME, "a shape")
    if name == "b" and cursor.take("("):
        inner = parse_shape(cursor, depth + 1)
        cursor.expect(")")
        return Shape(BUFFER, elements=(inner,))
    dtype = BY_NAME.get(name)
    if dtype is None:
        raise TextError(start, f"no element type is named {name}")
    dims, dynamic = _dims(cursor)
    if not dtype.is_array:
        if dims:
            raise TextError(start, f"{name} has no dimensions")
        return Shape(dtype)
    return Shape(dtype, dims, (), dynamic, _layout(cursor, len(dims)) or row_major(len(dims)))


def _dims(cursor: Cursor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    cursor.expect("[")
    dims: list[int] = []
    dynamic: list[int] = []
    while not cursor.take("]"):
        if dims:
            cursor.expect(",")
        size = cursor.match(_DIM, "a dimension: a size, <= and a bound, or ?")
        if not size.isdecimal():
            dynamic.append(len(dims))
        bound = UNBOUNDED if size == "?" else int(re.sub(rf"<={SKIP}", "", size)[:20])
        if bound > _LARGEST:
            raise TextError(cursor.position, "dimension is out of range", LIMIT_EXCEEDED)
        dims.append(bound)
        if len(dims) > MAX_RANK:
            raise TextError(cursor.position, f"shapes have at most {MAX_RANK} dimensions", LIMIT_EXCEEDED)
    return tuple(dims), tuple(dynamic)


def _layout(cursor: Cursor, rank: int) -> Layout | None:
    """`{1,0:T(8,128)S(1)}`, or None where no layout follows."""
    if not cursor.at("{"):
        return None
    start = cursor.position
    cursor.take("{")
    order: list[int] = []
    while not cursor.at("}") and not cursor.at(":"):
        if order:
            cursor.expect(",")
        order.append(cursor.integer())
    extension = ""
    if cursor.take(":"):
        end = cursor.text.index("}", cursor.position)
        if "P(" in cursor.text[cursor.position:end] and cursor.text.find("{", cursor.position, end) >= 0:
            end = cursor.text.index("}", end + 1)
        extension = _extension(cursor, end)
        cursor.position = end
    cursor.expect("}")
    if len(order) != rank:
        raise TextError(start, f"layout has {len(order)} dimensions, the shape has {rank}")
    if any(not 0 <= d < rank for d in order):
        raise TextError(start, f"layout names a dimension outside 0 to {rank - 1}")
    return Layout(tuple(order), extension)


def _extension(cursor: Cursor, end: int) -> str:
    """What follows the colon, without blanks; old per-dimension levels `D(..)` are dropped as XLA drops them."""
    written = _COMMENT.sub("", cursor.text[cursor.position:end])
    found = _EXTENSION.fullmatch(written)
    if found is None:
        raise cursor.fail(f"layout part {written!r} is not in the order T L # * E S SC P M or not well formed")
    return _DEFAULTS.sub("", found["kept"])


_DEFAULTS = re.compile(r"(?<![A-Z])(?:L\(1\)|E\(0\)|S\(0\)|M\(0\))")
"""Parts that say what their absence means: XLA does not keep them."""


class ShapeReader:
    """Reads shape tokens; remembers the text of each shape seen."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, Shape] = {}

    def read(self, text: str, start: int, end: int) -> Shape:
        """The shape that text[start:end] holds, nothing more."""
        written = text[start:end]
        shape = self._known.get(written)
        if shape is None:
            shape = _simple(written)
            if shape is None:
                cursor = Cursor(text, start, end)
                shape = parse_shape(cursor)
                cursor.finish()
            self._known[written] = shape
        return shape


def _simple(written: str) -> Shape | None:
    """An array shape in the plain form that printers write; None for all others, right or wrong."""
    found = _SIMPLE.fullmatch(written)
    if found is None:
        return None
    dtype = BY_NAME.get(found[1])
    if dtype is None or not dtype.is_array or len(written) > 80:
        return None
    dims = found[2].split(",") if found[2] else []
    layout = found[3].split(",") if found[3] else []
    if not all(dims) or not all(layout) or max(map(len, dims), default=0) > 18:
        return None
    if layout and sorted(map(int, layout)) != list(range(len(dims))) or found[3] == "":
        return None
    if len(dims) > MAX_RANK:
        return None
    return Shape(dtype, tuple(map(int, dims)), layout=Layout(tuple(map(int, layout))) if layout else row_major(len(dims)))
