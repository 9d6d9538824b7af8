"""Slices, gathers and scatters at places that values name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nxcc.ir.dtypes import F32, PRED, S32, S64, U8, U32
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.shapes import array

from harness.random_hlo.generator import Generator, has_dims, maker
from harness.random_hlo.reduction import taken_apart


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


@dataclass(frozen=True)
class _Places:
    """Where a gather reads or a scatter writes. batching: (dimension of the operand, dimension of the indices) pairs.

    sizes: of a slice; gone: its dimensions of size 1 that vanish; batch: dimensions of the indices without the vectors'.
    """

    indices: Instruction
    dimensions: list[int]
    vectors_at: int
    batching: list[tuple[int, int]]
    sizes: list[int]
    gone: list[int]

    @property
    def batch(self) -> list[int]:
        return [size for d, size in enumerate(self.indices.shape.dims) if d != self.vectors_at]

    @property
    def window(self) -> list[int]:
        taken = {d for d, _ in self.batching}
        return [size for d, size in enumerate(self.sizes) if d not in self.gone and d not in taken]


def _places(g: Generator, x: Instruction) -> _Places:
    """Indices for some dimensions of a value, now and then outside of it."""
    order = g.random.sample(range(x.shape.rank), x.shape.rank)
    shared = g.random.choice((0, 0, 0, 1, 1, 2)) if x.shape.rank > 1 else 0
    batched, rest = order[:min(shared, x.shape.rank - 1)], order[min(shared, x.shape.rank - 1):]
    dimensions = g.random.sample(rest, g.random.randint(0 if g.random.random() < 0.05 else 1, min(2, len(rest))))
    own = g.random.choices((1, 3, 8, 20), k=g.random.choice((0, 1, 1, 1, 2)))
    batch = [x.shape.dims[d] for d in batched] + own
    names = list(range(len(batch)))
    g.random.shuffle(names)
    batch = [batch[n] for n in names]
    lowest = -2 if g.random.random() < 0.3 else 0
    columns = [g.numbers.integers(lowest, max(1, x.shape.dims[d] - lowest), batch) for d in dimensions]
    place = g.random.randint(0, len(batch))
    dtype = g.random.choice((S32, S32, S32, S64, U32 if lowest == 0 else S32, U8 if lowest == 0 else S32))
    values = np.stack(columns, axis=place) if columns else np.zeros([*batch[:place], 0, *batch[place:]])
    if len(dimensions) == 1 and g.random.random() < 0.2:
        values, place = values.reshape(batch), len(batch)  # the vectors' dimension left out
    values = values.astype(dtype.numpy)
    given = g.scope.parameters_left and g.random.random() < 0.3
    indices = g.parameter(array(dtype, *values.shape)) if given else g.note(g.scope.builder.constant(values))
    behind = values.ndim > len(batch)
    pairs = sorted((d, at + (at >= place and behind)) for d, at in ((d, names.index(n)) for n, d in enumerate(batched)))
    sizes = [1 if d in batched or size == 0 else size for d, size in enumerate(x.shape.dims)]
    for d in dimensions:
        sizes[d] = g.random.randint(1, sizes[d]) if g.random.random() < 0.3 else 1
    gone = [d for d in sorted(dimensions) if sizes[d] == 1 and g.random.random() < 0.8]
    return _Places(indices, dimensions, place, pairs, sizes, gone)


@maker("gather")
def _gather(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: shape.rank > 0 and 0 < shape.element_count <= 3000)
    if x is None:
        return None
    places = _places(g, x)
    offsets = sorted(g.random.sample(range(len(places.batch) + len(places.window)), len(places.window)))
    return g.make("gather", x, places.indices, offset_dims=tuple(offsets), collapsed_slice_dims=tuple(places.gone),
                  start_index_map=tuple(places.dimensions), index_vector_dim=places.vectors_at,
                  operand_batching_dims=tuple(d for d, _ in places.batching),
                  start_indices_batching_dims=tuple(d for _, d in places.batching), slice_sizes=tuple(places.sizes))


@maker("scatter")
def _scatter(g: Generator) -> Instruction | list[Instruction] | None:
    x = g.pick(lambda shape: shape.rank > 0 and 0 < shape.element_count <= 3000)
    if x is None:
        return None
    found = _places(g, x)
    batch, window = found.batch, found.window
    places = sorted(g.random.sample(range(len(batch) + len(window)), len(window)))
    rest, inner = iter(batch), iter(window)
    dims = [next(inner) if d in places else next(rest) for d in range(len(batch) + len(window))]
    if int(np.prod(dims)) > 4000:
        return None
    operands = [x]
    if g.random.random() < 0.1:
        operands.append(g.like(x.shape.with_dtype(g.random.choice((F32, S32)))))
    updates = [g.like(array(o.shape.dtype, *dims)) for o in operands]
    return taken_apart(g, g.make(
        "scatter", *operands, found.indices, *updates, update_window_dims=tuple(places), inserted_window_dims=tuple(found.gone),
        scatter_dims_to_operand_dims=tuple(found.dimensions), index_vector_dim=found.vectors_at,
        input_batching_dims=tuple(d for d, _ in found.batching),
        scatter_indices_batching_dims=tuple(d for _, d in found.batching), called=[_written(g, operands)]))


def _written(g: Generator, operands: list[Instruction]) -> Computation:
    """The combiner of a scatter: an operator, or the update itself."""
    def one(old: Instruction, new: Instruction) -> Instruction:
        words = ("add", "maximum", "minimum", "multiply", "update")
        if old.shape.dtype.is_complex:
            words = ("add", "update")
        elif old.shape.dtype is PRED:
            words = ("and", "or", "xor", "update")
        opcode = g.random.choice(words)
        return new if opcode == "update" else g.make(opcode, old, new)

    def body(p: list[Instruction]) -> Instruction:
        results = [one(p[n], p[n + len(operands)]) for n in range(len(operands))]
        return results[0] if len(results) == 1 else g.make("tuple", *results)

    return g.computation([array(o.shape.dtype) for o in operands] * 2, body)


@maker("sorted-places")
def _sorted_places(g: Generator) -> Instruction | None:
    """Rows read or written at ascending places that differ, as the instruction promises."""
    x = g.pick(lambda shape: shape.rank > 0 and 0 < shape.element_count <= 3000)
    if x is None:
        return None
    dim = g.random.randrange(x.shape.rank)
    count = g.random.randint(1, x.shape.dims[dim])
    places = np.sort(g.numbers.permutation(x.shape.dims[dim])[:count]).astype(np.int32)
    indices = g.note(g.scope.builder.constant(places))
    rest = tuple(d for d in range(x.shape.rank) if d != dim)
    if g.random.random() < 0.5:
        return g.make("gather", x, indices, offset_dims=rest, collapsed_slice_dims=(dim,), start_index_map=(dim,),
                      index_vector_dim=1, slice_sizes=tuple(1 if d == dim else size for d, size in enumerate(x.shape.dims)),
                      indices_are_sorted=True)
    updates = g.like(array(x.shape.dtype, *(count if d == dim else size for d, size in enumerate(x.shape.dims))))
    return g.make("scatter", x, indices, updates, update_window_dims=rest, inserted_window_dims=(dim,),
                  scatter_dims_to_operand_dims=(dim,), index_vector_dim=1, called=[_written(g, [x])],
                  indices_are_sorted=True, unique_indices=True)
