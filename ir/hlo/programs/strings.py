"""Functions on strings, as TensorFlow computes them.

Source: TensorFlow's operator documentation; what it leaves open (pieces at the ends of a split, n-grams of short rows, numbers
as text) was measured on 2.21.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from nxcc.ir.hlo.programs.fingerprint import fingerprint64
from nxcc.ir.hlo.programs.registry import Attributes, function
from nxcc.ir.hlo.texts import current
from nxcc.ir.literals import Array

_SPACE = b" \t\n\v\f\r"


def _texts(numbers: Array) -> list[bytes]:
    return current().texts(numbers)


def _numbers(texts: Iterable[bytes], dims: Sequence[int]) -> Array:
    return current().numbers(texts, dims)


def _each(numbers: Array, change: Callable[[bytes], bytes]) -> Array:
    """Every string changed, each distinct one once."""
    known = cache(change)
    return _numbers((known(text) for text in _texts(numbers)), numbers.shape)


def _text(numbers: Array) -> bytes:
    """The one string that an input must be."""
    if numbers.size != 1:
        raise ValueError(f"one string is needed, not {numbers.size}")
    return _texts(numbers)[0]


# Splitting


def _sparse_rows(rows: Sequence[Sequence[bytes]]) -> list[Array]:
    """Places, strings and shape of rows of different lengths."""
    places = [(r, k) for r, row in enumerate(rows) for k in range(len(row))]
    texts = [text for row in rows for text in row]
    shape = np.array([len(rows), max(map(len, rows), default=0)], np.int64)
    return [np.array(places, np.int64).reshape(-1, 2), _numbers(texts, (len(texts),)), shape]


@function("StringSplit", reads_texts=True)
def string_split(attributes: Attributes, x: Array, delimiter: Array) -> Sequence[Array]:
    """Every character of the delimiter splits; an empty one splits into bytes."""
    marks, skips = _text(delimiter), attributes["skip_empty"]
    breaks = re.compile(b"[" + re.escape(marks) + b"]") if marks else None

    def pieces(text: bytes) -> list[bytes]:
        if breaks is None:
            return [text[k:k + 1] for k in range(len(text))]
        found = breaks.split(text) if text else []
        return [piece for piece in found if piece] if skips else found

    return _sparse_rows([pieces(text) for text in _texts(x)])


@function("StringSplitV2", reads_texts=True)
def string_split_v2(attributes: Attributes, x: Array, delimiter: Array) -> Sequence[Array]:
    """As Python's split: without a delimiter, runs of white space part the words."""
    mark, most = _text(delimiter), attributes["maxsplit"]
    return _sparse_rows([text.split(mark or None, most) if text else [] for text in _texts(x)])


@function("StringNGrams", reads_texts=True)
def string_n_grams(attributes: Attributes, x: Array, splits: Array) -> Sequence[Array]:
    """The runs of so many strings of each row, joined, width by width."""
    texts, bounds = _texts(x), [int(v) for v in splits.reshape(-1)]
    _check_bounds(bounds, len(texts))
    found: list[bytes] = []
    ends = [0]
    for start, end in pairwise(bounds):
        found += _row_n_grams(attributes, texts[start:end])
        ends.append(len(found))
    return [_numbers(found, (len(found),)), np.array(ends, splits.dtype)]


def _check_bounds(bounds: Sequence[int], count: int) -> None:
    if bounds and (bounds[0] or bounds[-1] != count or any(b < a for a, b in pairwise(bounds))):
        raise ValueError(f"splits {bounds[:8]} do not divide {count} strings")


def _row_n_grams(attributes: Attributes, row: list[bytes]) -> list[bytes]:
    left, right, mark = (attributes[key].encode("latin-1") for key in ("left_pad", "right_pad", "separator"))
    found = []
    for width in attributes["ngram_widths"]:
        pad = width - 1 if attributes["pad_width"] < 0 else min(attributes["pad_width"], width - 1)
        padded = [left] * pad + row + [right] * pad
        found += [mark.join(padded[k:k + width]) for k in range(len(padded) - width + 1)]
    if not found and row and attributes["preserve_short_sequences"]:
        pad = max(attributes["pad_width"], 0)
        found.append(mark.join([left] * pad + row + [right] * pad))
    return found


# Numbers from strings


@function("StringToHashBucketFast", reads_texts=True)
def string_to_hash_bucket(attributes: Attributes, x: Array) -> Array:
    buckets = attributes["num_buckets"]
    bucket = cache(lambda text: fingerprint64(text) % buckets)
    return np.array([bucket(text) for text in _texts(x)], np.int64).reshape(x.shape)


@function("StringLength", reads_texts=True)
def string_length(attributes: Attributes, x: Array) -> Array:
    return np.array([_length(text, attributes["unit"]) for text in _texts(x)], np.int32).reshape(x.shape)


def _length(text: bytes, unit: str) -> int:
    """In bytes, or in characters, which begin where no byte continues one."""
    return len(text) if unit == "BYTE" else sum(byte & 0xC0 != 0x80 for byte in text)


@function("StringToNumber", reads_texts=True)
def string_to_number(attributes: Attributes, x: Array) -> Array:
    kind = np.dtype(attributes["out_type"])
    read = int if kind.kind == "i" else float
    return np.array([read(text.decode("ascii", "replace")) for text in _texts(x)], kind).reshape(x.shape)


_FULL_MATCHES = ("RegexFullMatch", "StaticRegexFullMatch")


@function(*_FULL_MATCHES, reads_texts=True)
def full_match(attributes: Attributes, x: Array, *pattern: Array) -> Array:
    wanted = _pattern(_text(pattern[0]) if pattern else attributes["pattern"].encode("latin-1"))
    return np.array([wanted.fullmatch(text) is not None for text in _texts(x)], bool).reshape(x.shape)


# Strings from strings


@function("StringLower", reads_texts=True)
def string_lower(attributes: Attributes, x: Array) -> Array:
    return _each(x, _cased(attributes, bytes.lower, str.lower))


@function("StringUpper", reads_texts=True)
def string_upper(attributes: Attributes, x: Array) -> Array:
    return _each(x, _cased(attributes, bytes.upper, str.upper))


def _cased(attributes: Attributes, plain: Callable[[bytes], bytes], wide: Callable[[str], str]) -> Callable[[bytes], bytes]:
    """Letters of ASCII alone, or of all of Unicode if the encoding is named."""
    if attributes["encoding"].lower() != "utf-8":
        return plain
    return lambda text: wide(text.decode("utf-8", "replace")).encode()


@function("StringStrip", reads_texts=True)
def string_strip(attributes: Attributes, x: Array) -> Array:
    return _each(x, lambda text: text.strip(_SPACE))


@function("Substr", reads_texts=True)
def substr(attributes: Attributes, x: Array, places: Array, lengths: Array) -> Array:
    """Parts of strings, in bytes or in characters; a place counted from the end is negative."""
    x, places, lengths = np.broadcast_arrays(x, places, lengths)
    rows = zip(_texts(x), places.reshape(-1).tolist(), lengths.reshape(-1).tolist(), strict=True)
    return _numbers([_part(text, place, length, attributes["unit"]) for text, place, length in rows], x.shape)


def _part(text: bytes, place: int, length: int, unit: str) -> bytes:
    whole: Any = text if unit == "BYTE" else text.decode("utf-8", "surrogateescape")
    if not -len(whole) <= place <= len(whole):
        raise ValueError(f"place {place} is outside a string of length {len(whole)}")
    start = place % len(whole) if place < 0 else place
    found = whole[start:start + max(length, 0)]
    return found if isinstance(found, bytes) else found.encode("utf-8", "surrogateescape")


@function("StringJoin", reads_texts=True)
def string_join(attributes: Attributes, *parts: Array) -> Array:
    mark = attributes["separator"].encode("latin-1")
    whole = np.broadcast_arrays(*parts)
    rows = zip(*map(_texts, whole), strict=True)
    return _numbers([mark.join(row) for row in rows], whole[0].shape)


@function("ReduceJoin", reads_texts=True)
def reduce_join(attributes: Attributes, x: Array, axes: Array) -> Array:
    """Joined along some dimensions, in the order in which they are named; none named: all, the last one first."""
    mark, rank = attributes["separator"].encode("latin-1"), x.ndim
    order = [int(a) % rank for a in axes.reshape(-1)] or list(range(rank))
    rest = [d for d in range(rank) if d not in order]
    moved = x.transpose(*rest, *order)
    kept = moved.shape[:len(rest)]
    rows = moved.reshape(-1, int(np.prod(moved.shape[len(rest):], dtype=np.int64)))
    dims = [1 if d in order else n for d, n in enumerate(x.shape)] if attributes["keep_dims"] else kept
    return _numbers([mark.join(_texts(row)) for row in rows], dims)


def _pattern(text: bytes) -> re.Pattern[bytes]:
    r"""RE2's syntax as Python's: \z is \Z, and classes of ASCII are written out."""
    for name, members in _CLASSES.items():
        text = text.replace(b"[:" + name + b":]", members)
    text = re.sub(rb"\\p\{(\w+)\}|\\pP", lambda match: _UNICODE.get(match[1] or b"P", match[0]), text)
    try:
        return re.compile(text.replace(rb"\z", rb"\Z"))
    except re.error as error:
        raise ValueError(f"the pattern {text[:60]!r} cannot be read: {error}") from None


_CLASSES = {b"alnum": b"0-9A-Za-z", b"alpha": b"A-Za-z", b"ascii": rb"\x00-\x7F", b"blank": rb"\t ",
            b"cntrl": rb"\x00-\x1F\x7F", b"digit": b"0-9", b"lower": b"a-z",
            b"punct": rb"!-/:-@\[-`{-~", b"space": rb"\t\n\v\f\r ", b"upper": b"A-Z",
            b"word": b"0-9A-Za-z_", b"xdigit": b"0-9A-Fa-f"}
_UNICODE = {b"P": rb"[!-#%-*,-/:;?@\[-\]_{}]", b"L": b"[A-Za-z]", b"N": b"[0-9]"}
"""Of Unicode's classes, what is ASCII."""


def _replaced(attributes: Attributes, x: Array, pattern: bytes, rewrite: bytes) -> Array:
    r"""Where the pattern stands, the rewriting, in which \1 is what the first group took."""
    wanted = _pattern(pattern)
    # everything but \0 .. \9 stands for itself
    template = re.sub(rb"\\([0-9])", rb"\\g<\1>", rewrite)
    return _each(x, lambda text: wanted.sub(template, text, count=0 if attributes["replace_global"] else 1))


@function("RegexReplace", reads_texts=True)
def regex_replace(attributes: Attributes, x: Array, pattern: Array, rewrite: Array) -> Array:
    return _replaced(attributes, x, _text(pattern), _text(rewrite))


@function("StaticRegexReplace", reads_texts=True)
def static_regex_replace(attributes: Attributes, x: Array) -> Array:
    return _replaced(attributes, x, attributes["pattern"].encode("latin-1"), attributes["rewrite"].encode("latin-1"))


# Strings from numbers


@function("AsString")
def as_string(attributes: Attributes, x: Array) -> Array:
    """As C prints them, with the width, fill and precision asked for."""
    precision, kind = attributes["precision"], x.dtype.kind
    letter = {"b": "s", "i": "d", "u": "d"}.get(kind) or \
        ("e" if attributes["scientific"] else "g" if attributes["shortest"] else "f")
    width = attributes["width"] if attributes["width"] > 0 else ""
    digits = f".{precision}" if precision >= 0 and kind == "f" else ""
    form = f"%{attributes['fill'] if width else ''}{width}{digits}{letter}"
    words = {True: "true", False: "false"} if kind == "b" else {}
    return _numbers([(form % words.get(value, value)).encode() for value in x.reshape(-1).tolist()], x.shape)


