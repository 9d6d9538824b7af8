"""Attributes in HLO text: one codec per attributes.Kind, and the attributes that every instruction may carry.

Which attribute belongs to which operator, its kind and default come from the operator declarations, never from here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from nxcc.ir.diagnostics import near
from nxcc.ir.dtypes import F32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import (
    Attribute,
    ConvolutionDimensions,
    Domain,
    Kind,
    OperandAlias,
    PaddingDimension,
    ReplicaGroups,
    ResultAccuracy,
    SliceDimension,
    Window,
    WindowDimension,
)
from nxcc.ir.hlo.text.cursor import Cursor, TextError, escape
from nxcc.ir.hlo.text.literals import float_text, read_typed_literal, write_typed_literal
from nxcc.ir.hlo.text.shapes import parse_shape
from nxcc.ir.hlo.text.sharding import canonical_iota, read_sharding, write_sharding
from nxcc.ir.shapes import Shape, shape_text

_PADS = re.compile(r"-?[0-9]+_-?[0-9]+(?:_-?[0-9]+)?(?:x-?[0-9]+_-?[0-9]+(?:_-?[0-9]+)?)*")
_SIZES = re.compile(r"-?[0-9]+(?:x-?[0-9]+)*")
_LABELS = re.compile(r"([0-9bf?]+)_([0-9io?]+)->([0-9bf?]+)")
_WINDOW_KEY = re.compile(r"(size|stride|pad|lhs_dilate|rhs_dilate|rhs_reversal)=")
_LIMIT = 2**63


# Reading: each takes a cursor over the value and leaves it behind the value.


def _read_int(cursor: Cursor) -> int:
    value = cursor.integer()
    if not -_LIMIT <= value < _LIMIT:
        raise cursor.fail("integer is out of range")
    return value


def _read_bool(cursor: Cursor) -> bool:
    start = cursor.position
    word = cursor.word("true or false")
    if word not in ("true", "false", "1", "0"):
        raise TextError(start, f"{word!r} is neither true nor false")
    return word in ("true", "1")


def _read_float(cursor: Cursor) -> float:
    """A float of the protobuf's precision (f32)."""
    written = cursor.number()
    return float(np.float32(written.split("(")[0]))


def _read_name(cursor: Cursor) -> str:
    return cursor.word()


_OLD_WORDS = {"API_VERSION_UNSPECIFIED": "API_VERSION_ORIGINAL"}
"""What printers of XLA wrote once, and torch-neuronx still does, where no version is set."""


def _known_word(attribute: Attribute, word: str, cursor: Cursor) -> str:
    """The word if the enum has such a value, in whatever case it was written; words of no enum are the verifier's."""
    if not attribute.enum:
        return word
    from nxcc.ir.hlo.proto.codecs import enum_words
    words = enum_words(attribute.enum)
    for known in (word, word.lower(), word.upper(), _OLD_WORDS.get(word, "")):
        if known in words:
            return known
    raise cursor.fail(f"{word!r} is no value of {attribute.key}", why="values are " + ", ".join(words),
                      remedy=near(word, words))


def _read_ints(cursor: Cursor) -> tuple[int, ...]:
    """A list, or a list of lists that the protobuf holds end to end (slice sizes of a collective-permute in place)."""
    probe = Cursor(cursor.text, cursor.position, cursor.end)
    if probe.take("{") and probe.at("{"):
        return tuple(size for sizes in _list(cursor, lambda c: c.integers()) for size in sizes)
    return cursor.integers()


def _read_names(cursor: Cursor) -> tuple[str, ...]:
    return tuple(_list(cursor, Cursor.word))


def _list(cursor: Cursor, read: Callable[[Cursor], Any], opening: str = "{", closing: str = "}") -> list[Any]:
    cursor.expect(opening)
    found: list[Any] = []
    while not cursor.take(closing):
        if found:
            cursor.expect(",")
        found.append(read(cursor))
    return found


def _small(text: str, cursor: Cursor) -> int:
    if len(text) > 19:
        raise cursor.fail("integer is out of range")
    return int(text)


def _sizes(cursor: Cursor) -> list[int]:
    return [_small(t, cursor) for t in cursor.match(_SIZES, "sizes joined by x").split("x")]


def _pads(cursor: Cursor) -> list[list[int]]:
    return [[_small(t, cursor) for t in part.split("_")] for part in cursor.match(_PADS, "low_high joined by x").split("x")]


def _read_window(cursor: Cursor) -> Window:
    cursor.expect("{")
    parts: dict[str, list[Any]] = {}
    while not cursor.take("}"):
        key = cursor.match(_WINDOW_KEY, "a part of a window: size, stride, pad, lhs_dilate, rhs_dilate or rhs_reversal")[:-1]
        parts[key] = _pads(cursor) if key == "pad" else _sizes(cursor)
    rank = len(parts.get("size", ()))
    # XLA takes a rhs_reversal of any rank: what is left out is 0, what is too much is dropped.
    if "size" in parts and "rhs_reversal" in parts:
        parts["rhs_reversal"] = (parts["rhs_reversal"] + [0] * rank)[:rank]
    if any(len(values) != rank for values in parts.values()):
        raise cursor.fail("the parts of a window differ in rank" if "size" in parts else "a window needs size=")
    ones = [1] * rank
    pads = parts.get("pad", [[0, 0]] * rank)
    if any(len(p) != 2 for p in pads):
        raise cursor.fail("a window is padded by low_high")
    return Window(tuple(
        WindowDimension(size, stride, pad[0], pad[1], window, base, bool(reverse))
        for size, stride, pad, window, base, reverse in zip(
            parts.get("size", []), parts.get("stride", ones), pads, parts.get("rhs_dilate", ones),
            parts.get("lhs_dilate", ones), parts.get("rhs_reversal", [0] * rank), strict=True)))


def _read_conv_dims(cursor: Cursor) -> ConvolutionDimensions:
    start = cursor.position
    found = _LABELS.fullmatch(cursor.match(_LABELS, "labels such as b01f_01io->b01f"))
    assert found is not None
    spatial = len(found[1]) - 2 - found[1].count("?")
    groups = []
    for labels, letters in zip(found.groups(), ("bf", "io", "bf"), strict=True):
        known = labels.replace("?", "")
        if sorted(known) != sorted([*letters, *map(str, range(spatial))]):
            raise TextError(start, f"labels {labels!r} need {letters[0]}, {letters[1]} and the digits 0 to {spatial - 1}",
                            why="each stands once")
        groups.append((labels.index(letters[0]), labels.index(letters[1]),
                       tuple(labels.index(str(d)) for d in range(spatial))))
    (a, b, c), (d, e, f), (g, h, i) = groups
    return ConvolutionDimensions(a, b, c, d, e, f, g, h, i)


def _read_padding(cursor: Cursor) -> tuple[PaddingDimension, ...]:
    if cursor.at_end:
        return ()
    return tuple(PaddingDimension(*part) for part in _pads(cursor))


def _read_slices(cursor: Cursor) -> tuple[SliceDimension, ...]:
    return tuple(_list(cursor, _read_slice))


def _read_slice(cursor: Cursor) -> SliceDimension:
    cursor.expect("[")
    start = _read_int(cursor)
    cursor.expect(":")
    limit = _read_int(cursor)
    stride = _read_int(cursor) if cursor.take(":") else 1
    cursor.expect("]")
    return SliceDimension(start, limit, stride)


def _read_groups(cursor: Cursor) -> ReplicaGroups:
    if cursor.at("["):
        sizes = cursor.integers("[", "]")
        cursor.expect("<=")
        dims = cursor.integers("[", "]")
        permutation = cursor.integers("(", ")") if cursor.take("T") else tuple(range(len(dims)))
        if len(sizes) != 2 or sorted(permutation) != list(range(len(dims))):
            raise cursor.fail("device groups are written [groups,size]<=[dims]T(permutation)")
        dims, permutation = canonical_iota(dims, permutation)
        return ReplicaGroups(iota=(sizes[0], sizes[1], dims, permutation or (0,)))
    if cursor.at("mesh"):
        cursor.skip()
        start, cursor.position = cursor.position, cursor.end
        return ReplicaGroups(mesh=cursor.text[start:cursor.end].strip())
    return ReplicaGroups(tuple(_list(cursor, lambda c: c.integers())))


def _read_pairs(cursor: Cursor) -> tuple[tuple[int, ...], ...]:
    pairs = tuple(_list(cursor, lambda c: c.integers()))
    if any(len(pair) != 2 for pair in pairs):
        raise cursor.fail("each pair has a source and a target")
    return pairs


def _read_shapes(cursor: Cursor) -> tuple[Shape, ...]:
    return tuple(_list(cursor, parse_shape))


def _read_alias(cursor: Cursor) -> OperandAlias:
    output = cursor.integers()
    cursor.expect(":")
    cursor.expect("(")
    operand = cursor.integer()
    cursor.expect(",")
    index = cursor.integers()
    cursor.expect(")")
    return OperandAlias(output, operand, index)


def _read_accuracy(cursor: Cursor) -> ResultAccuracy:
    cursor.expect("{")
    mode, tolerance = "", None
    while not cursor.take("}"):
        key = cursor.word("mode or tolerance")
        cursor.expect("=")
        if key == "mode":
            mode = cursor.word().lower()
        elif key == "tolerance":
            tolerance = _read_tolerance(cursor)
        else:
            raise cursor.fail(f"{key!r} is neither mode nor tolerance")
        cursor.take(",")
    if mode not in ("", "default", "highest"):
        raise cursor.fail(f"{mode!r} is no accuracy mode: default or highest was expected")
    return ResultAccuracy("" if mode == "default" else mode, tolerance)


def _read_tolerance(cursor: Cursor) -> tuple[float, float, int]:
    cursor.expect("{")
    values = {"atol": 0.0, "rtol": 0.0, "ulps": 0.0}
    while not cursor.take("}"):
        key = cursor.word()
        if key not in values:
            raise cursor.fail(f"{key!r} is no tolerance: atol, rtol or ulps was expected")
        cursor.expect("=")
        values[key] = float(cursor.number().split("(")[0])
        cursor.take(",")
    if not abs(values["ulps"]) < _LIMIT:
        raise cursor.fail("ulps is out of range")
    return values["atol"], values["rtol"], int(values["ulps"])


def _read_domain(cursor: Cursor) -> Domain:
    cursor.expect("{")
    cursor.expect("kind")
    cursor.expect("=")
    kind = cursor.string()
    if kind != "sharding":
        raise cursor.fail(f"domain kind {kind!r} is unknown, only \"sharding\" exists")
    shardings = []
    for key in ("entry", "exit"):
        cursor.expect(",")
        cursor.expect(key)
        cursor.expect("=")
        shardings.append(read_sharding(cursor))
    cursor.expect("}")
    return Domain(*shardings)


def _to_end(cursor: Cursor) -> int:
    cursor.skip()
    end, cursor.position = cursor.end, cursor.end
    return end


def _read_verbatim(cursor: Cursor) -> str:
    cursor.skip()
    start = cursor.position
    return cursor.text[start:_to_end(cursor)]


_READERS: dict[Kind, Callable[[Cursor], Any]] = {
    Kind.INT: _read_int, Kind.BOOL: _read_bool, Kind.FLOAT: _read_float, Kind.STRING: Cursor.string, Kind.NAME: _read_name,
    Kind.INTS: _read_ints, Kind.NAMES: _read_names, Kind.WINDOW: _read_window, Kind.CONV_DIMS: _read_conv_dims,
    Kind.PADDING: _read_padding, Kind.SLICES: _read_slices, Kind.GROUPS: _read_groups, Kind.PAIRS: _read_pairs,
    Kind.SHAPE: parse_shape, Kind.SHAPES: _read_shapes, Kind.ALIASES: lambda c: tuple(_list(c, _read_alias)),
    Kind.ACCURACY: _read_accuracy, Kind.DOMAIN: _read_domain, Kind.LITERAL: read_typed_literal, Kind.SPARSITY: _read_verbatim}


def read_attribute(attribute: Attribute, cursor: Cursor) -> Any:
    """The value of this attribute that fills the cursor's span."""
    start = Cursor(cursor.text, cursor.position, cursor.end)
    value = _READERS[attribute.kind](cursor)
    cursor.finish()
    if attribute.kind is Kind.NAME:
        return _known_word(attribute, value, start)
    if attribute.kind is Kind.NAMES:
        names = tuple(_known_word(attribute, name, start) for name in value)
        return () if set(names) == {"default"} else names
    return value


# Writing


@dataclass(frozen=True, slots=True)
class Style:
    """What the printer writes besides the bare module.

    percent: `%` before names. signatures: `(x: f32[2]) -> f32[2]` after computation names. comments: `/*index=5*/`.
    """

    percent: bool = True
    signatures: bool = True
    comments: bool = True
    metadata: bool = True
    control_predecessors: bool = True
    large_constants: bool = True


def braced(values: tuple[int, ...]) -> str:
    return "{" + ",".join(map(str, values)) + "}"


def _write_window(value: Window) -> str:
    dims = value.dims
    parts = ["size=" + "x".join(str(d.size) for d in dims)]
    if any(d.stride != 1 for d in dims):
        parts.append("stride=" + "x".join(str(d.stride) for d in dims))
    if any(d.padding_low or d.padding_high for d in dims):
        parts.append("pad=" + "x".join(f"{d.padding_low}_{d.padding_high}" for d in dims))
    if any(d.base_dilation != 1 for d in dims):
        parts.append("lhs_dilate=" + "x".join(str(d.base_dilation) for d in dims))
    if any(d.window_dilation != 1 for d in dims):
        parts.append("rhs_dilate=" + "x".join(str(d.window_dilation) for d in dims))
    if any(d.reversal for d in dims):
        parts.append("rhs_reversal=" + "x".join(str(int(d.reversal)) for d in dims))
    return "{" + " ".join(parts) + "}"


def _labels(first: tuple[str, int], second: tuple[str, int], spatial: tuple[int, ...]) -> str:
    placed = {first[1]: first[0], second[1]: second[0]} | {d: str(i) for i, d in enumerate(spatial)}
    return "".join(placed.get(i, "?") for i in range(max(placed) + 1))


def _write_conv_dims(value: ConvolutionDimensions) -> str:
    left = _labels(("b", value.input_batch), ("f", value.input_feature), value.input_spatial)
    kernel = _labels(("i", value.kernel_input_feature), ("o", value.kernel_output_feature), value.kernel_spatial)
    out = _labels(("b", value.output_batch), ("f", value.output_feature), value.output_spatial)
    return f"{left}_{kernel}->{out}"


def _write_padding(value: tuple[PaddingDimension, ...]) -> str:
    if any(d.interior for d in value):
        return "x".join(f"{d.low}_{d.high}_{d.interior}" for d in value)
    return "x".join(f"{d.low}_{d.high}" for d in value)


def _write_slices(value: tuple[SliceDimension, ...]) -> str:
    if any(d.stride != 1 for d in value):
        return "{" + ", ".join(f"[{d.start}:{d.limit}:{d.stride}]" for d in value) + "}"
    return "{" + ", ".join(f"[{d.start}:{d.limit}]" for d in value) + "}"


def _write_groups(value: ReplicaGroups) -> str:
    if value.mesh:
        return value.mesh
    if value.iota:
        groups, size, dims, permutation = value.iota
        text = f"[{groups},{size}]<=[{','.join(map(str, dims))}]"
        plain = permutation == tuple(range(len(dims)))
        return text if plain else text + f"T({','.join(map(str, permutation))})"
    return "{" + ",".join(map(braced, value.groups)) + "}"


def _write_alias(value: OperandAlias) -> str:
    return f"{path(value.output_index)}: ({value.operand}, {path(value.operand_index)})"


def path(index: tuple[int, ...]) -> str:
    """A shape index such as {0,1}."""
    return braced(index)


def _write_accuracy(value: ResultAccuracy) -> str:
    if value.tolerance is None:
        return f"{{mode={value.mode}}}"
    atol, rtol, ulps = value.tolerance
    return f"{{tolerance={{atol={float_text(atol)},rtol={float_text(rtol)},ulps={ulps}}}}}"


def _write_domain(value: Domain) -> str:
    return f'{{kind="sharding", entry={write_sharding(value.entry)}, exit={write_sharding(value.exit)}}}'


_WRITERS: dict[Kind, Callable[[Any], str]] = {
    Kind.INT: str, Kind.BOOL: lambda v: "true" if v else "false", Kind.FLOAT: lambda v: float_text(v, F32),
    Kind.STRING: lambda v: f'"{escape(v)}"', Kind.NAME: str, Kind.INTS: braced, Kind.NAMES: lambda v: "{" + ",".join(v) + "}",
    Kind.WINDOW: _write_window, Kind.CONV_DIMS: _write_conv_dims, Kind.PADDING: _write_padding, Kind.SLICES: _write_slices,
    Kind.GROUPS: _write_groups, Kind.PAIRS: lambda v: "{" + ",".join(map(braced, v)) + "}", Kind.SHAPE: shape_text,
    Kind.SHAPES: lambda v: "{" + ", ".join(map(shape_text, v)) + "}",
    Kind.ALIASES: lambda v: "{" + ", ".join(map(_write_alias, v)) + "}",
    Kind.ACCURACY: _write_accuracy, Kind.DOMAIN: _write_domain, Kind.SPARSITY: str,
    Kind.LITERAL: write_typed_literal}


def write_attribute(attribute: Attribute, value: Any) -> str:
    """`key=value` as XLA prints it."""
    return f"{attribute.key}={_WRITERS[attribute.kind](value)}"
