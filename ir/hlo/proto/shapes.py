"""ShapeProto and LayoutProto to Shape and back. Field meanings: HLO format reference, section 2."""

from __future__ import annotations

import re
from typing import Any

from nxcc.ir.diagnostics import INVALID_MODULE, CompileError
from nxcc.ir.dtypes import BUFFER, BY_NAME, BY_NUMBER, TUPLE
from nxcc.ir.shapes import UNBOUNDED, Layout, Shape, row_major, shape_text

_PARTS = re.compile(r"(SC|[TL#*ESPM])((?:\((?:[^()]|\([^()]*\))*\))+)")
_GROUP = re.compile(r"\(((?:[^()]|\([^()]*\))*)\)")


def shape_from_proto(message: Any) -> Shape:
    """The shape that a ShapeProto describes; an array whose layout is absent or empty has the row-major one.

    Nesting is bounded by the protobuf parser. Raises CompileError(INVALID_MODULE).
    """
    dtype = BY_NUMBER.get(message.element_type)
    if dtype is None:
        raise _invalid(f"element type {message.element_type} is not known")
    if not dtype.is_array:
        elements = tuple(shape_from_proto(part) for part in message.tuple_shapes)
        if elements and dtype not in (TUPLE, BUFFER) or dtype is BUFFER and len(elements) != 1:
            raise _invalid(f"a {dtype} shape cannot have {len(elements)} parts")
        return Shape(dtype, elements=elements)
    dims = tuple(message.dimensions)
    flags = message.is_dynamic_dimension
    if flags and len(flags) != len(dims):
        raise _invalid(f"a shape of rank {len(dims)} has {len(flags)} is_dynamic_dimension")
    if any(size < 0 and size != UNBOUNDED for size in dims):
        raise _invalid(f"a shape has the negative dimension {min(d for d in dims if d != UNBOUNDED)}")
    dynamic = tuple(i for i, size in enumerate(dims) if size == UNBOUNDED or flags and flags[i])
    return Shape(dtype, dims, (), dynamic, _layout(message.layout, len(dims)))


def _layout(message: Any, rank: int) -> Layout:
    order = tuple(message.minor_to_major) or row_major(rank).minor_to_major
    if sorted(order) != list(range(rank)):
        raise _invalid(f"minor_to_major {{{','.join(map(str, order))}}} is no permutation of {rank} dimensions")
    return Layout(order, _extension(message))


def _invalid(what: str) -> CompileError:
    return CompileError(INVALID_MODULE, what)


def _extension(message: Any) -> str:
    """What text writes after the colon of a layout, in its fixed order of parts."""
    text = "".join(f"{'T' if not i else ''}({','.join(_tile_text(d) for d in tile.dimensions)})"
                   for i, tile in enumerate(message.tiles))
    if message.tail_padding_alignment_in_elements not in (0, 1):
        text += f"L({message.tail_padding_alignment_in_elements})"
    text += "".join(f"{mark}({_dtype_name(getattr(message, field))})" for mark, field in _TYPES if getattr(message, field))
    text += "".join(f"{mark}({getattr(message, field)})" for mark, field in _NUMBERS[1:3] if getattr(message, field))
    text += "".join(f"{'SC' if not i else ''}({split.dimension}:{','.join(map(str, split.split_indices))})"
                    for i, split in enumerate(message.split_configs))
    if message.HasField("physical_shape"):
        text += f"P({shape_text(shape_from_proto(message.physical_shape))})"
    if message.dynamic_shape_metadata_prefix_bytes:
        text += f"M({message.dynamic_shape_metadata_prefix_bytes})"
    return text


_TYPES = (("#", "index_primitive_type"), ("*", "pointer_primitive_type"))
_NUMBERS = (("L", "tail_padding_alignment_in_elements"), ("E", "element_size_in_bits"), ("S", "memory_space"),
            ("M", "dynamic_shape_metadata_prefix_bytes"))


def _tile_text(size: int) -> str:
    return "*" if size == UNBOUNDED else str(size)


def _dtype_name(number: int) -> str:
    if number not in BY_NUMBER:
        raise _invalid(f"element type {number} is not known")
    return BY_NUMBER[number].name


def shape_to_proto(shape: Shape, message: Any) -> None:
    """Fill an empty ShapeProto; arrays are written with all that XLA writes, a layout and dynamic flags included."""
    message.element_type = shape.dtype.number
    if not shape.is_array:
        for element in shape.elements:
            shape_to_proto(element, message.tuple_shapes.add())
        return
    message.dimensions.extend(shape.dims)
    message.is_dynamic_dimension.extend(index in shape.dynamic for index in range(shape.rank))
    layout = shape.layout or row_major(shape.rank)
    message.layout.minor_to_major.extend(layout.minor_to_major)
    message.layout.tail_padding_alignment_in_elements = 1
    for mark, groups in _PARTS.findall(layout.extension):
        _write_part(message.layout, mark, _GROUP.findall(groups))


def _write_part(layout: Any, mark: str, groups: list[str]) -> None:
    numbers, types = dict(_NUMBERS), dict(_TYPES)
    if mark in numbers:
        setattr(layout, numbers[mark], int(groups[0]))
    elif mark in types:
        setattr(layout, types[mark], BY_NAME[groups[0]].number)
    elif mark == "T":
        for group in groups:
            layout.tiles.add().dimensions.extend(UNBOUNDED if d == "*" else int(d) for d in group.split(",") if d)
    elif mark == "SC":
        for group in groups:
            dimension, _, indices = group.partition(":")
            layout.split_configs.add(dimension=int(dimension), split_indices=map(int, indices.split(",")))
    else:
        from nxcc.ir.hlo.text.cursor import Cursor
        from nxcc.ir.hlo.text.shapes import parse_shape
        shape_to_proto(parse_shape(Cursor(groups[0])), layout.physical_shape)
