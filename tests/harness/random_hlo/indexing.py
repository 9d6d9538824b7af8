"""Slices, gathers and scatters at places that values name."""

from __future__ import annotations

import numpy as np

from nxcc.ir.dtypes import S32, S64, U32
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.shapes import array

from harness.random_hlo.generator import Generator, has_dims, maker


def _starts(g: Generator, x: Instruction) -> list[Instruction]:
    """One index a dimension, of one integer type."""
    dtype = g.random.choice((S32, S32, S64, U32))
    if dtype is not S32:
        return [g.like(array(dtype)) for _ in x.shape.dims]
    return [g.like(array(S32)) if g.random.random() < 0.4 else g.index(size) for size in x.shape.dims]


@maker("dynamic-slice")
def _dynamic_slice(g: Generator) -> Instruction | None:
    x = g.pick(has_dims)
    if x is None:
        return None
    sizes = tuple(g.random.randint(1, size) if size else 0 for size in x.shape.dims)
    starts = _starts(g, x)
    return g.make("dynamic-slice", x, *starts, dynamic_slice_sizes=sizes)


@maker("dynamic-update-slice")
def _dynamic_update_slice(g: Generator) -> Instruction | None:
    x = g.pick(has_dims)
    if x is None:
        return None
    update = array(x.shape.dtype, *(g.random.randint(1, size) if size else 0 for size in x.shape.dims))
    starts = _starts(g, x)
    return g.make("dynamic-update-slice", x, g.like(update), *starts)


def _indices(g: Generator, x: Instruction) -> tuple[Instruction, list[int], int]:
    """Indices for some dimensions of a value, now and then outside of it; the dimensions, and where the vectors lie."""
    dimensions = g.random.sample(range(x.shape.rank), g.random.randint(1, min(2, x.shape.rank)))
    batch = [g.random.choice((1, 3, 8, 20)) for _ in range(g.random.choice((0, 1, 1, 1, 2)))]
    lowest = -1 if g.random.random() < 0.3 else 0
    columns = [g.numbers.integers(lowest, max(1, x.shape.dims[d]), batch) for d in dimensions]
    place = g.random.randint(0, len(batch))
    dtype = g.random.choice((S32, S32, S32, S64))
    values = np.stack(columns, axis=place).astype(dtype.numpy)
    given = g.scope.parameters_left and g.random.random() < 0.3
    indices = g.parameter(array(dtype, *values.shape)) if given else g.note(g.scope.builder.constant(values))
    return indices, dimensions, place


def _window(g: Generator, x: Instruction, dimensions: list[int]) -> tuple[list[int], list[int]]:
    """(sizes of a slice, dimensions of size 1 that vanish)."""
    sizes = [size if d not in dimensions else g.random.randint(1, size) if g.random.random() < 0.3 else 1
             for d, size in enumerate(x.shape.dims)]
    gone = [d for d, size in enumerate(sizes) if size == 1 and (d in dimensions and g.random.random() < 0.8)]
    return sizes, gone


@maker("gather")
def _gather(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: shape.rank > 0 and 0 < shape.element_count <= 3000)
    if x is None:
        return None
    indices, dimensions, place = _indices(g, x)
    sizes, gone = _window(g, x, dimensions)
    batch, kept = indices.shape.rank - 1, x.shape.rank - len(gone)
    offsets = sorted(g.random.sample(range(batch + kept), kept))
    return g.make("gather", x, indices, offset_dims=tuple(offsets), collapsed_slice_dims=tuple(gone),
                  start_index_map=tuple(dimensions), index_vector_dim=place, slice_sizes=tuple(sizes))


@maker("scatter")
def _scatter(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: shape.rank > 0 and 0 < shape.element_count <= 3000)
    if x is None:
        return None
    indices, dimensions, place = _indices(g, x)
    sizes, gone = _window(g, x, dimensions)
    batch = [size for d, size in enumerate(indices.shape.dims) if d != place]
    window = [size for d, size in enumerate(sizes) if d not in gone]
    places = sorted(g.random.sample(range(len(batch) + len(window)), len(window)))
    rest, inner = iter(batch), iter(window)
    dims = [next(inner) if d in places else next(rest) for d in range(len(batch) + len(window))]
    if int(np.prod(dims)) > 4000:
        return None
    updates = g.like(array(x.shape.dtype, *dims))
    words = ("add", "maximum", "minimum", "multiply") if not x.shape.dtype.is_complex else ("add",)
    replaces = g.random.random() < 0.25
    combiner = g.computation([array(x.shape.dtype)] * 2, lambda p: p[1]) if replaces else g.combiner(x.shape.dtype, words)
    return g.make("scatter", x, indices, updates, update_window_dims=tuple(places), inserted_window_dims=tuple(gone),
                  scatter_dims_to_operand_dims=tuple(dimensions), index_vector_dim=place, called=[combiner])
