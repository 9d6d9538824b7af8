"""Constants: an array that may be a view into a mapped file, a splat that takes no memory, or decoded on first use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nxcc.ir.dtypes import DType, from_numpy
from nxcc.ir.shapes import Shape, tuple_of

Array = np.ndarray[Any, Any]


class Literal:
    """Value of a constant.

    shape: logical shape. elements: parts of a tuple literal. The array is in logical (row-major index) order whatever the
    layout, read-only, and never copied by us: a mapped payload stays a view, a splat is a broadcast of one element.
    """

    __slots__ = ("shape", "elements", "_array", "_load")

    def __init__(self, shape: Shape, array: Array | None = None, *, load: Callable[[], Array] | None = None,
                 elements: tuple[Literal, ...] = ()) -> None:
        assert shape.is_tuple or (array is None) != (load is None)
        self.shape = shape
        self.elements = elements
        self._array = array
        self._load = load

    @property
    def array(self) -> Array:
        """The values, shaped as `shape.dims`; decodes on first use where the payload is no plain view."""
        if self._array is None:
            assert self._load is not None
            # numpy makes scalars of arrays without dimensions
            self._array = np.asarray(self._load())
        return self._array

    def part(self, dimension: int, start: int, stop: int) -> Array:
        """The values whose index in a dimension is within start..stop-1."""
        part: Array = self.array[(slice(None),) * dimension + (slice(start, stop),)]
        return part

    def pieces(self, piece_bytes: int) -> Iterator[Array]:
        """The values in order, in arrays of about this size where they must be computed, without ever holding all."""
        if not isinstance(self, DerivedLiteral) or self.shape.byte_size <= piece_bytes:
            yield self.array
            return
        count = self.shape.dims[0]
        step = max(1, piece_bytes * count // self.shape.byte_size)
        for start in range(0, count, step):
            yield self.part(0, start, min(start + step, count))

    @property
    def is_splat(self) -> bool:
        """True if all elements are known to be equal without looking at more than one of them."""
        if self.shape.element_count == 1:
            return True
        array = self.array
        return array.size > 0 and all(s == 0 or d == 1 for s, d in zip(array.strides, array.shape, strict=True))

    @property
    def splat_value(self) -> Any:
        """The one element of a splat, as a numpy scalar."""
        assert self.is_splat
        return self.array[(0,) * self.shape.rank]

    def __repr__(self) -> str:
        return f"Literal({self.shape})"


class DerivedLiteral(Literal):
    """Values that are computed from another literal each time they are read, and never held: a large weight, cast or turned.

    order: which dimensions of the source the dimensions are, by number; as they are if empty. cast: what becomes of an array
    of any shape, element by element; None: nothing.
    """

    __slots__ = ("source", "order", "cast")

    def __init__(self, shape: Shape, source: Literal, *, order: tuple[int, ...] = (),
                 cast: Callable[[Array], Array] | None = None) -> None:
        super().__init__(shape, load=lambda: self.part(0, 0, self.shape.dims[0]))
        self.source = source
        self.order = order or tuple(range(shape.rank))
        self.cast = cast

    @property
    def array(self) -> Array:
        assert self._load is not None
        return np.asarray(self._load())

    @property
    def is_splat(self) -> bool:
        return self.shape.element_count == 1

    def part(self, dimension: int, start: int, stop: int) -> Array:
        found = self.source.part(self.order[dimension], start, stop).transpose(self.order)
        return found if self.cast is None else self.cast(found)


def literal_of(array: Array) -> Literal:
    """A literal over an array, without copying it."""
    return Literal(Shape(from_numpy(array.dtype), tuple(array.shape)), array)


def splat(dtype: DType, dims: tuple[int, ...], value: Any) -> Literal:
    """A literal whose elements are all `value`; takes the memory of one element."""
    return Literal(Shape(dtype, dims), np.broadcast_to(np.asarray(value).astype(dtype.numpy), dims))


def tuple_literal(*elements: Literal) -> Literal:
    return Literal(tuple_of(*(e.shape for e in elements)), elements=tuple(elements))
