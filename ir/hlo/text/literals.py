"""Literals in HLO text: `{ { 1, 2 }, { 3, 4 } }`, whatever the layout in logical row-major order; `7` alone for an
array sets its first element, as in XLA.

Reading and writing work on the whole array at once; only special values (NaN payloads) are looked at one by one.
Nothing is allocated before the text has been seen to hold as many values as the shape declares.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numpy as np

from nxcc.ir.diagnostics import ELIDED_CONSTANT, LIMIT_EXCEEDED
from nxcc.ir.dtypes import C64, F8E8M0FNU, F32, F64, PRED, U64, DType
from nxcc.ir.hlo.text.cursor import MAX_NESTING, NUMBER, Cursor, TextError, closing_parenthesis
from nxcc.ir.hlo.text.shapes import parse_shape
from nxcc.ir.literals import Array, Literal, tuple_literal
from nxcc.ir.shapes import Shape, row_major, shape_text

ELISION_LIMIT = 10
"""XLA's printer writes `{...}` for arrays of more elements unless large constants are asked for."""

_E8M0_HALFWAY = 1.5 * 2.0**-127
"""Below this, f8e8m0fnu rounds to its least value; ml_dtypes rounds all such values up."""
Place = Callable[[int], int]
_WRITTEN = re.compile(r"[^\s{},]++")
_MOST_UNWRITTEN = 1 << 24
"""Elements of an array that may be filled in without being written."""
_COMMENT = re.compile(r"//[^\n\r]*+|/\*(?s:.*?)\*/")
_NUMBER = re.compile(NUMBER)
_NUMBERS = re.compile(r"(?:-?[0-9]++(?:\.[0-9]*+)?(?:[eE][+\-]?[0-9]++)?\n)*+")
_INTEGERS = re.compile(r"(?:-?[0-9]{1,20}\n)*+")
_COMPLEX = re.compile(rf"\(\s*+({NUMBER})\s*+,\s*+({NUMBER})\s*+\)")
_TO_BLANKS = str.maketrans("{},\n\t\r", "      ")
_PRED_VALUES = {"true": 1, "false": 0, "1": 1, "0": 0}


# Reading


def read_literal(cursor: Cursor, shape: Shape) -> Literal:
    """The literal of this shape that fills the cursor's span; TextError where values and shape disagree."""
    if cursor.at("{...}"):
        raise TextError(cursor.position, "the values of this constant were left out when the text was printed",
                        ELIDED_CONSTANT, remedy="print again with large constants (--xla_dump_large_constants)")
    if shape.is_tuple:
        literal = _read_tuple(cursor, shape)
    elif shape.is_array:
        literal = _read_array(cursor, shape)
    else:
        raise cursor.fail(f"a constant cannot be of type {shape}")
    cursor.finish()
    return literal


def _read_tuple(cursor: Cursor, shape: Shape) -> Literal:
    cursor.expect("(")
    elements = []
    for index, part in enumerate(shape.elements):
        if index:
            cursor.expect(",")
        cursor.skip()
        inner = Cursor(cursor.text, cursor.position, _element_end(cursor))
        elements.append(read_literal(inner, part))
        cursor.position = inner.end
    cursor.expect(")")
    return Literal(shape, elements=tuple(elements))


def read_typed_literal(cursor: Cursor) -> Literal:
    """A literal with its shape before it, as in attributes: `f32[2] {1, 2}`, or `( f32[2] {1, 2}, s32[] 3 )` for a tuple."""
    if cursor.at("(") and closing_parenthesis(cursor.text, cursor.position) == cursor.end:
        return _read_typed_tuple(cursor, 0)
    shape = parse_shape(cursor)
    cursor.skip()
    literal = read_literal(Cursor(cursor.text, cursor.position, cursor.end), shape)
    cursor.position = cursor.end
    return literal


def _read_typed_tuple(cursor: Cursor, depth: int) -> Literal:
    if depth > MAX_NESTING:
        raise cursor.fail("tuple literals nest too deep")
    cursor.expect("(")
    elements: list[Literal] = []
    while not cursor.take(")"):
        if elements:
            cursor.expect(",")
        if cursor.at("("):
            elements.append(_read_typed_tuple(cursor, depth + 1))
            continue
        shape = parse_shape(cursor)
        cursor.skip()
        inner = Cursor(cursor.text, cursor.position, _element_end(cursor))
        elements.append(read_literal(inner, shape))
        cursor.position = inner.end
    return tuple_literal(*elements)


_ELEMENT = re.compile(r"//[^\n\r]*+|/\*(?s:.*?)\*/|[(){},]")


def _element_end(cursor: Cursor) -> int:
    """Where this element of a tuple literal ends: before the comma or parenthesis at depth 0."""
    depth = 0
    for found in _ELEMENT.finditer(cursor.text, cursor.position, cursor.end):
        mark = found.group()
        if mark in "({":
            depth += 1
        elif depth == 0 and mark in ",)":
            return found.start()
        elif mark in ")}":
            depth -= 1
    raise cursor.fail("the tuple literal is not closed")


def _read_array(cursor: Cursor, shape: Shape) -> Literal:
    start = cursor.position
    body = cursor.text[start:cursor.end]
    cursor.position = cursor.end
    if "/" in body:
        body = _COMMENT.sub(lambda c: " " * len(c.group()), body)
    if shape.dtype.is_complex:
        parts = _COMPLEX.findall(body)
        plain = _COMPLEX.sub("0", body)
        if "(" in plain or ")" in plain or len(plain.translate(_TO_BLANKS).split()) != len(parts):
            raise TextError(start, f"values of {shape.dtype} are written as (real, imaginary)")
        _check_structure(plain, shape, start)
        return Literal(shape, _complex_array(parts, shape, start))
    values = body.translate(_TO_BLANKS).split()
    place = _places(body, start)
    if len(values) == 1 and shape.rank and "{" not in body:
        return Literal(shape, _first_only(_array(values, shape.dtype, place), shape, start))
    _check_structure(body, shape, start, values)
    return Literal(shape, _array(values, shape.dtype, place).reshape(shape.dims))


def _places(body: str, start: int) -> Place:
    """Where in the source the value of an index stands; looked for only when it is at fault."""
    def place(index: int) -> int:
        return start + next(itertools.islice(_WRITTEN.finditer(body), index, None)).start()
    return place


def _first_only(one: Array, shape: Shape, start: int) -> Array:
    """What XLA reads where a scalar stands for an array: the first element set, the others zero."""
    if not 0 < shape.element_count <= _MOST_UNWRITTEN:
        raise TextError(start, f"a scalar cannot stand for {shape}", LIMIT_EXCEEDED,
                        why=f"at most {_MOST_UNWRITTEN} elements are filled in")
    array = np.zeros(shape.element_count, shape.dtype.numpy)
    array[0] = one[0]
    return array.reshape(shape.dims)


def _complex_array(parts: list[tuple[str, str]], shape: Shape, start: int) -> Array:
    part = F32 if shape.dtype is C64 else F64
    out = np.empty(len(parts), shape.dtype.numpy)
    out.real = _array([p[0] for p in parts], part, lambda _: start)
    out.imag = _array([p[1] for p in parts], part, lambda _: start)
    return out.reshape(shape.dims)


def _check_structure(body: str, shape: Shape, start: int, values: list[str] | None = None) -> None:
    """The braces are those of the shape, and each innermost pair holds as many values as the last dimension."""
    written = values if values is not None else body.translate(_TO_BLANKS).split()
    if len(written) != shape.element_count:
        raise TextError(start, f"{shape} holds {shape.element_count} values, {len(written)} were written")
    skeleton = re.sub(r"[^{}]+", "", body)
    if not _matches(skeleton, shape.dims):
        raise TextError(start, f"the braces do not follow the dimensions of {shape}", why=f"rank {shape.rank} needs "
                        f"{shape.rank} levels of braces" if shape.rank else "a scalar has no braces")
    last = shape.dims[-1] if shape.rank > 1 else 0
    if last:
        for piece in body.split("}"):
            row = piece[piece.rfind("{") + 1:] if "{" in piece else piece
            count = len(row.replace(",", " ").split())
            if count not in (0, last):
                raise TextError(start, f"a row of {shape} holds {last} values, one with {count} was written")


def _matches(skeleton: str, dims: tuple[int, ...]) -> bool:
    """Whether the braces are exactly those of these dimensions; nothing larger than the text is built."""
    if not dims:
        return not skeleton
    expected = "{}"
    written = dims[:dims.index(0) + 1] if 0 in dims else dims  # an empty dimension shows nothing of those inside it
    for size in reversed(written[:-1]):
        if len(expected) * size + 2 > len(skeleton):
            return False
        expected = "{" + expected * size + "}"
    return expected == skeleton


def _array(values: list[str], dtype: DType, place: Place) -> Array:
    if dtype is PRED:
        return _preds(values, place)
    if dtype.is_integer:
        return _integers(values, dtype, place)
    return _floats(values, dtype, place)


def _preds(values: list[str], place: Place) -> Array:
    """true, false, or an integer, of which 0 is false."""
    for index, value in enumerate(values):
        if value not in _PRED_VALUES and not _INTEGERS.fullmatch(value + "\n"):
            raise TextError(place(index), f"{value[:40]!r} is no value of pred: true, false, or an integer was expected")
    return np.fromiter((_PRED_VALUES[v] if v in _PRED_VALUES else int(v) != 0 for v in values), np.bool_, len(values))


def integer_range(dtype: DType) -> tuple[int, int]:
    """Least and greatest value of an integer type."""
    return (-(1 << dtype.bits - 1), (1 << dtype.bits - 1) - 1) if dtype.is_signed else (0, (1 << dtype.bits) - 1)


def _integers(values: list[str], dtype: DType, place: Place) -> Array:
    """Integers in the range of the type; negative ones wrap for u64, and for no other type, as in XLA."""
    joined = "\n".join(values) + "\n" if values else ""
    if not _INTEGERS.fullmatch(joined):
        index = next(i for i, v in enumerate(values) if not _INTEGERS.fullmatch(v + "\n"))
        raise TextError(place(index), f"{values[index][:40]!r} is no value of {dtype}: an integer was expected")
    numbers = list(map(int, values))
    low, high = integer_range(dtype)
    if dtype is U64:
        low = -(1 << 63)
    if numbers and (min(numbers) < low or max(numbers) > high):
        index = next(i for i, n in enumerate(numbers) if not low <= n <= high)
        raise TextError(place(index), f"{numbers[index]} is out of range for {dtype}", why=f"its values are {low} to {high}")
    if dtype is U64:
        numbers = [n & high for n in numbers]
    wide = np.array(numbers, np.uint64 if dtype.is_unsigned else np.int64)
    return wide if wide.dtype == dtype.numpy else wide.astype(dtype.numpy)


def _floats(values: list[str], dtype: DType, place: Place) -> Array:
    joined = "\n".join(values) + "\n" if values else ""
    special = [] if _NUMBERS.fullmatch(joined) else [i for i, v in enumerate(values) if not _NUMBERS.fullmatch(v + "\n")]
    plain = [*values] if special else values
    nans = []
    for index in special:
        value = values[index]
        if not _NUMBER.fullmatch(value):
            raise TextError(place(index), f"{value[:40]!r} is no value of {dtype}: a decimal number, inf or nan was expected")
        if "nan" in value:
            plain[index] = "1"
            nans.append(index)
    wide = np.array(list(map(float, plain)), np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        out: Array = wide.astype(dtype.numpy)
        if dtype is F8E8M0FNU:
            out.view(np.uint8)[wide < _E8M0_HALFWAY] = 0
        back = widened(out, dtype)
    _check_range(plain, wide, back, dtype, place)
    bits = out.view(f"u{out.itemsize}")
    for index in nans:
        bits[index] = nan_bits(values[index], dtype)
    return out


def _check_range(written: list[str], wide: Array, back: Array, dtype: DType, place: Place) -> None:
    """TextError if a number became infinite or NaN in the type, or its sign was lost; inf is what the type makes of it."""
    lost = np.isfinite(wide) & ~np.isfinite(back)
    if not has_sign(dtype):
        lost |= wide <= 0
    for index in np.flatnonzero(np.isinf(wide)).tolist():
        lost[index] |= "inf" not in written[index]
    if lost.any():
        index = int(np.flatnonzero(lost)[0])
        raise TextError(place(index), f"{written[index][:40]} is out of range for {dtype}")


def has_sign(dtype: DType) -> bool:
    return dtype.name != "f8e8m0fnu"


def widened(values: Array, dtype: DType) -> Array:
    """The values as f64; powers of two by their exponent, as ml_dtypes takes the least f8e8m0fnu for zero."""
    if dtype is F8E8M0FNU:
        exponents = values.view(np.uint8).astype(np.int32)
        return np.where(exponents == 255, np.nan, np.ldexp(1.0, exponents - 127))
    with np.errstate(invalid="ignore"):
        return values.astype(np.float64)


def mantissa_bits(dtype: DType) -> int:
    return int(ml_dtypes.finfo(dtype.numpy).nmant)  # type: ignore[no-untyped-call]


def _has_payload(dtype: DType) -> bool:
    """IEEE-like types with infinities keep a payload in their NaNs; the others have one NaN, or one of each sign."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isinf(np.array(np.inf).astype(dtype.numpy).astype(np.float64))) and dtype.name != "f8e8m0fnu"


def _own_nan(dtype: DType) -> int:
    """The bit pattern of the positive NaN of a type without payloads."""
    bits = int(np.array(np.nan).astype(dtype.numpy).view(np.uint8))
    return bits if "nuz" in dtype.name or not has_sign(dtype) else bits & 0x7F


def nan_bits(written: str, dtype: DType) -> int:
    """The bit pattern of `nan`, `-nan` or `nan(0x1)`."""
    negative = written.startswith("-")
    if not _has_payload(dtype):
        return _own_nan(dtype) | (0x80 if negative and has_sign(dtype) else 0)
    mantissa = mantissa_bits(dtype)
    payload = int(written[written.index("(") + 1:-1], 16) if "(" in written else 1 << mantissa - 1
    payload &= (1 << mantissa) - 1
    exponent = ((1 << dtype.bits - 1 - mantissa) - 1) << mantissa
    return exponent | (payload or 1 << mantissa - 1) | (negative << dtype.bits - 1)


# Writing


def write_literal(literal: Literal, large_constants: bool = True) -> str:
    """The literal as XLA prints it on one line; `{...}` for large ones and tuples if they are not wanted."""
    if literal.shape.is_tuple and not large_constants:
        return "{...}"
    if literal.shape.is_tuple:
        return "( " + ", ".join(write_literal(e, large_constants) for e in literal.elements) + " )"
    shape = literal.shape
    if not large_constants and shape.element_count > ELISION_LIMIT:
        return "{...}"
    if shape.element_count == 0:
        return _nest([], shape.dims)
    if literal.is_splat:
        texts = element_texts(np.asarray(literal.splat_value).reshape(1), shape.dtype, shape.rank) * shape.element_count
    else:
        texts = element_texts(np.ascontiguousarray(literal.array).reshape(-1), shape.dtype, shape.rank)
    return texts[0] if shape.rank == 0 else _nest(texts, shape.dims)


def write_typed_literal(literal: Literal) -> str:
    """The literal with its shape before it, as attributes have it; with a layout, as its braces would be taken for one."""
    if literal.shape.is_tuple:
        return "( " + ", ".join(map(write_typed_literal, literal.elements)) + " )"
    shape = literal.shape
    if shape.layout is None:
        shape = Shape(shape.dtype, shape.dims, layout=row_major(shape.rank))
    return f"{shape_text(shape)} {write_literal(literal)}"


def _nest(texts: list[str], dims: tuple[int, ...]) -> str:
    """Braces around the element texts; from rank 4 on, comments number the slices, as XLA writes them."""
    rank = len(dims)
    if rank == 1:
        return "{" + ", ".join(texts) + "}"
    width = dims[-1]
    opening, closing = ("{ ", " }") if width > 1 else ("{", "}")
    count = 1
    for size in dims[:-1]:
        count *= size
    rows = [opening + ", ".join(texts[i * width:(i + 1) * width]) + closing for i in range(count)]
    for level in range(rank - 2, -1, -1):
        size = dims[level]
        count = count // size if size else _product(dims[:level])
        joined = (", ".join(rows[i * size:(i + 1) * size]) for i in range(count))
        if rank > 3 and level:
            rows = [f"{{ /*i{level - 1}={i % dims[level - 1]}*/ {row + ' ' if row else ''}}}" for i, row in enumerate(joined)]
        else:
            rows = [f"{{ {row} }}" for row in joined]
    return rows[0]


def _product(sizes: Iterable[int]) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count


def element_texts(values: Array, dtype: DType, rank: int) -> list[str]:
    """The elements of a flat array as text. A negative zero prints as `-0.0`, as readers take `-0` for the integer 0."""
    if dtype is PRED:
        names = ("0", "1") if rank else ("false", "true")
        return [names[v] for v in values.tolist()]
    if dtype.is_integer:
        return list(map(str, values.astype(np.int64 if dtype.is_signed else np.uint64).tolist()))
    if dtype.is_complex:
        part = F32 if dtype is C64 else F64
        real, imaginary = float_texts(values.real, part), float_texts(values.imag, part)
        return [f"({r}, {i})" for r, i in zip(real, imaginary, strict=True)]
    return float_texts(values, dtype)


def float_texts(values: Array, dtype: DType) -> list[str]:
    """Floats with the digits that XLA prints.

    f32 and f64 take the digits that any decimal survives (6, 15) if they come back exactly, else those that any value survives
    (9, 17); smaller types always take the latter.
    """
    wide = widened(values, dtype)
    if dtype in (F32, F64):
        short, full = ("%.6g", "%.9g") if dtype is F32 else ("%.15g", "%.17g")
        texts = [short % v for v in wide.tolist()]
        again = np.array(list(map(float, texts))).astype(values.dtype)
        for index in np.flatnonzero(again != values).tolist():
            texts[index] = full % wide[index]
    else:
        digits = int(np.ceil(1 + (mantissa_bits(dtype) + 1) * np.log10(2)))
        form = f"%.{digits}g"
        texts = [form % v for v in wide.tolist()]
    for index in np.flatnonzero(np.isnan(wide)).tolist():
        texts[index] = _nan_text(values[index], dtype)
    for index in np.flatnonzero((wide == 0) & np.signbit(wide)).tolist():
        texts[index] = "-0.0"
    return texts


def _nan_text(value: Any, dtype: DType) -> str:
    bits = int(np.asarray(value).view(f"u{dtype.byte_size}"))
    if not _has_payload(dtype):
        return "-nan" if has_sign(dtype) and bits != _own_nan(dtype) else "nan"
    mantissa = mantissa_bits(dtype)
    payload = bits & (1 << mantissa) - 1
    sign = "-" if bits >> dtype.bits - 1 else ""
    return f"{sign}nan" if payload == 1 << mantissa - 1 else f"{sign}nan({payload:#x})"


def float_text(value: float, dtype: DType = F64) -> str:
    """One float of an attribute, with the digits that XLA prints."""
    return float_texts(np.array([value]).astype(dtype.numpy), dtype)[0]

