"""Shapes: what an HLO instruction yields, and how its bytes are laid out at the border of a module."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import field

from nxcc.ir.dtypes import BUFFER, TOKEN, TUPLE, DType
from nxcc.ir.facts import dataclass

UNBOUNDED = -(2**63)
"""The size of an unbounded dynamic dimension, as the protobuf writes it (HLO format, ShapeProto.dimensions)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Physical order of an array's dimensions.

    minor_to_major: dimension numbers, fastest varying first.
    extension: everything after `:` in text (`T(8,128)S(1)`), kept verbatim; it has no meaning for our targets.
    """

    minor_to_major: tuple[int, ...]
    extension: str = ""

    @property
    def is_row_major(self) -> bool:
        return self.minor_to_major == tuple(range(len(self.minor_to_major) - 1, -1, -1))

    def __str__(self) -> str:
        body = ",".join(map(str, self.minor_to_major))
        return "{" + body + (":" + self.extension if self.extension else "") + "}"


@dataclass(frozen=True, slots=True)
class Shape:
    """Shape of one value: an array, or a tuple, token, opaque or buffer.

    dims: sizes (the bound where a dimension is dynamic; UNBOUNDED where there is none).
    dynamic: indices of the dynamic dimensions. elements: parts of a tuple, or the one inner shape of a buffer.
    Two shapes are equal when they hold the same values: layout does not take part.
    """

    dtype: DType
    dims: tuple[int, ...] = ()
    elements: tuple[Shape, ...] = ()
    dynamic: tuple[int, ...] = ()
    layout: Layout | None = field(default=None, compare=False)

    @property
    def is_array(self) -> bool:
        return self.dtype.is_array

    @property
    def is_tuple(self) -> bool:
        return self.dtype is TUPLE

    @property
    def is_token(self) -> bool:
        return self.dtype is TOKEN

    @property
    def rank(self) -> int:
        return len(self.dims)

    @property
    def element_count(self) -> int:
        """Elements of an array (of the bound where it is dynamic); 1 for a scalar."""
        return math.prod(self.dims)

    @property
    def byte_size(self) -> int:
        """Bytes of all leaves, sub-byte elements counted as one byte each."""
        if self.is_array:
            return self.element_count * self.dtype.byte_size
        return sum(element.byte_size for element in self.elements)

    def leaves(self) -> Iterator[Shape]:
        """Array leaves in depth-first order, left to right; tokens and opaques are left out."""
        stack = [self]
        while stack:
            shape = stack.pop()
            if shape.is_array:
                yield shape
            else:
                stack.extend(reversed(shape.elements))

    def with_dtype(self, dtype: DType) -> Shape:
        return Shape(dtype, self.dims, self.elements, self.dynamic, self.layout)

    def without_layout(self) -> Shape:
        return Shape(self.dtype, self.dims, tuple(e.without_layout() for e in self.elements), self.dynamic)

    def __str__(self) -> str:
        return shape_text(self, with_layout=False)


def array(dtype: DType, *dims: int, layout: Layout | None = None) -> Shape:
    return Shape(dtype, tuple(dims), layout=layout)


def tuple_of(*elements: Shape) -> Shape:
    return Shape(TUPLE, elements=tuple(elements))


TOKEN_SHAPE = Shape(TOKEN)


def row_major(rank: int) -> Layout:
    return Layout(tuple(range(rank - 1, -1, -1)))


def _dim_text(shape: Shape, index: int) -> str:
    size = shape.dims[index]
    if index not in shape.dynamic:
        return str(size)
    return "?" if size == UNBOUNDED else f"<={size}"


def shape_text(shape: Shape, with_layout: bool = True, index_comments: bool = False) -> str:
    """The shape as HLO text writes it; index_comments puts `/*index=5*/` before every fifth tuple element."""
    if shape.is_tuple:
        parts = []
        for index, element in enumerate(shape.elements):
            mark = f"/*index={index}*/" if index_comments and index and index % 5 == 0 else ""
            parts.append(mark + shape_text(element, with_layout, index_comments))
        return "(" + ", ".join(parts) + ")"
    if shape.dtype is BUFFER:
        return "b(" + shape_text(shape.elements[0], with_layout, index_comments) + ")"
    sizes = map(str, shape.dims) if not shape.dynamic else [_dim_text(shape, i) for i in range(shape.rank)]
    text = f"{shape.dtype.name}[{','.join(sizes)}]"
    if with_layout and shape.layout is not None and (shape.rank or shape.layout.extension):
        text += str(shape.layout)
    return text
