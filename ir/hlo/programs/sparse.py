"""Functions on sparse and ragged tensors: places and values, segments, rows of different lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nxcc.ir.hlo.programs.arrays import MAX_ELEMENTS
from nxcc.ir.hlo.programs.registry import Attributes, function
from nxcc.ir.literals import Array


def _sizes(dims: Array) -> list[int]:
    found = [int(n) for n in dims.reshape(-1)]
    if min(found, default=0) < 0 or math.prod(max(n, 1) for n in found) > MAX_ELEMENTS:
        raise ValueError(f"a tensor cannot have the shape {found}")
    return found


@function("SparseReshape")
def sparse_reshape(attributes: Attributes, places: Array, before: Array, after: Array) -> Sequence[Array]:
    """Places by the number of their element, counted out anew."""
    old, new = [int(n) for n in before], [int(n) for n in after]
    if new.count(-1) == 1:
        new[new.index(-1)] = math.prod(old) // max(-math.prod(new), 1)
    if math.prod(old) != math.prod(new):
        raise ValueError(f"{old} cannot be reshaped to {new}")
    numbers = np.zeros(len(places), np.int64)
    for d, n in enumerate(old):
        numbers = numbers * n + places[:, d]
    columns = np.empty((len(places), len(new)), np.int64)
    for d in reversed(range(len(new))):
        columns[:, d] = numbers % max(new[d], 1)
        numbers = numbers // max(new[d], 1)
    return [columns, np.array(new, np.int64)]


@function("SparseFillEmptyRows")
def sparse_fill_empty_rows(attributes: Attributes, places: Array, values: Array, shape: Array, default: Array
                           ) -> Sequence[Array]:
    """Rows without a value get the default in their first column; which they were; and where each value went."""
    rows = int(_sizes(shape[:1])[0])
    there = np.bincount(places[:, 0], minlength=rows) if len(places) else np.zeros(rows, np.int64)
    if len(there) > rows:
        raise ValueError(f"a place lies outside {rows} rows")
    empty = np.flatnonzero(there == 0)
    added = np.zeros((len(empty), places.shape[1]), np.int64)
    added[:, 0] = empty
    every = np.concatenate([places, added])
    order = np.argsort(every[:, 0], kind="stable")
    went = np.empty_like(order)
    went[order] = np.arange(len(order))
    filled = np.concatenate([values, np.full(len(empty), default, values.dtype)])
    return [every[order], filled[order], there == 0, went[:len(places)].astype(np.int64)]


def _segments(x: Array, ids: Array, count: int) -> Array:
    """Sums of the rows of each segment, added in order."""
    kind = np.float32 if x.dtype.itemsize < 4 and x.dtype.kind not in "iu" else x.dtype
    found = np.zeros((count, *x.shape[1:]), kind)
    np.add.at(found, ids, x.astype(kind))
    return found


def _sparse_segments(attributes: Attributes, x: Array, indices: Array, ids: Array, *count: Array) -> Array:
    if len(ids) != len(indices) or (len(ids) and (int(indices.min()) < 0 or bool((np.diff(ids) < 0).any()))):
        raise ValueError("segment ids must be in order, as many as indices, and these not negative")
    least = int(ids[-1]) + 1 if len(ids) else 0
    size = _sizes(count[0])[0] if count else least
    if size < least or size > MAX_ELEMENTS:
        raise ValueError(f"segment {least - 1} is outside {size}")
    total = _segments(x[indices], ids.astype(np.int64), size)
    if attributes["mean"] or attributes["root"]:
        rows = np.maximum(np.bincount(ids, minlength=size), 1).reshape(-1, *[1] * (x.ndim - 1))
        total = total / (np.sqrt(rows) if attributes["root"] else rows)
    return total.astype(x.dtype)


for _kind in ("Sum", "Mean", "SqrtN"):
    for _form in ("", "WithNumSegments"):
        function(f"SparseSegment{_kind}{_form}")(
            lambda attributes, *values, kind=_kind: _sparse_segments(
                {"mean": kind == "Mean", "root": kind == "SqrtN"}, *values))


_COMBINED = {"Sum": (np.add, 0), "Prod": (np.multiply, 1), "Max": (np.maximum, -math.inf), "Min": (np.minimum, math.inf)}


def _segments_by(kind: str, x: Array, ids: Array, count: int) -> Array:
    """Rows combined by their segment; a negative id drops its row, an empty segment holds what combines to nothing."""
    combine, start = _COMBINED[kind]
    limits = np.iinfo(x.dtype) if x.dtype.kind in "iu" else np.finfo(x.dtype)
    first = min(max(start, limits.min), limits.max)
    found = np.full((count, *x.shape[ids.ndim:]), first, x.dtype)
    flat, rows = ids.reshape(-1), x.reshape(-1, *x.shape[ids.ndim:])
    if flat.size and int(flat.max()) >= count:
        raise ValueError(f"segment {int(flat.max())} is outside {count}")
    combine.at(found, flat[flat >= 0], rows[flat >= 0])
    return found


def _sorted_segments(kind: str, x: Array, ids: Array) -> Array:
    """The last id says how many segments there are; an empty one is 0, and 1 for a product."""
    if len(ids) and (int(ids[0]) < 0 or bool((np.diff(ids) < 0).any())):
        raise ValueError("segment ids must be in order, not negative")
    count = _sizes(ids[-1:] + 1)[0] if len(ids) else 0
    found = _segments_by("Sum" if kind == "Mean" else kind, x, ids, count)
    rows = np.bincount(ids, minlength=count).reshape(-1, *[1] * (x.ndim - 1))
    if kind == "Mean":
        return np.asarray(found / np.maximum(rows, 1), x.dtype)
    return np.where(rows == 0, np.asarray(int(kind == "Prod"), x.dtype), found)


for _kind in (*_COMBINED, "Mean"):
    function(f"Segment{_kind}")(lambda attributes, x, ids, kind=_kind: _sorted_segments(kind, x, ids))
for _kind in _COMBINED:
    function(f"UnsortedSegment{_kind}")(
        lambda attributes, x, ids, count, kind=_kind: _segments_by(kind, x, ids, _sizes(count)[0]))


@function("SparseTensorDenseMatMul")
def sparse_product(attributes: Attributes, places: Array, values: Array, shape: Array, b: Array) -> Array:
    """Each value takes its row of b and adds it to its row of the result."""
    if attributes["adjoint_b"]:
        b = b.conj().T
    side = int(attributes["adjoint_a"])
    given = values.conj() if side else values
    if places.size and int(places.min()) < 0:
        raise ValueError("a place is negative")
    found = np.zeros((_sizes(shape)[side], b.shape[1]), np.result_type(values, b))
    np.add.at(found, places[:, side], given[:, None] * b[places[:, 1 - side]])
    return found


@function("SparseToDense")
def sparse_to_dense(attributes: Attributes, places: Array, shape: Array, values: Array, default: Array) -> Array:
    found = np.full(_sizes(shape), default, values.dtype)
    rows = places.reshape(-1, 1) if places.ndim < 2 else places
    if rows.size and int(rows.min()) < 0:
        raise ValueError("a place is negative")
    found[tuple(rows.T)] = values
    return found


_FIRST, _ROWS, _SPLITS = "FIRST_DIM_SIZE", "VALUE_ROWIDS", "ROW_SPLITS"


@function("RaggedTensorToTensor")
def ragged_to_tensor(attributes: Attributes, shape: Array, values: Array, default: Array, *partitions: Array) -> Array:
    """Rows of different lengths, cut or filled up to one shape; a size of -1 is that of the longest, and a shape that is one
    number, -1, leaves all sizes open."""
    kinds = attributes["row_partition_types"]
    counts, ids = _first_rows(kinds, partitions)
    columns = _columns(ids)
    natural = [counts[0], *(int(c.max()) + 1 if len(c) else 0 for c in columns[1:]), *values.shape[1:]]
    wanted = [int(n) for n in shape.reshape(-1)] if shape.size and shape.ndim else [-1] * len(natural)
    dims = _sizes(np.array([a if b < 0 else b for a, b in zip(natural, wanted, strict=True)]))
    found = np.broadcast_to(default, dims).astype(values.dtype)
    kept = np.logical_and.reduce([column < n for column, n in zip(columns, dims, strict=False)])
    inner = tuple(slice(0, n) for n in dims[len(columns):])
    found[tuple(column[kept] for column in columns)] = values[(kept, *inner)]
    return found


@function("RaggedTensorToSparse")
def ragged_to_sparse(attributes: Attributes, *given: Array) -> Sequence[Array]:
    """Places, values and the shape that holds the longest rows; given: row splits, outermost first, and the values."""
    counts, ids = _first_rows([_SPLITS] * (len(given) - 1), given[:-1])
    columns = _columns(ids)
    inner = np.argwhere(np.ones(given[-1].shape[1:], bool))
    rows = np.stack(columns, 1)
    places = np.concatenate([np.repeat(rows, len(inner), 0), np.tile(inner, (len(rows), 1))], 1)
    sizes = [counts[0], *(int(c.max()) + 1 if len(c) else 0 for c in columns[1:]), *given[-1].shape[1:]]
    return [places.astype(np.int64), given[-1].reshape(-1), np.array(sizes, np.int64)]


@function("RaggedRange")
def ragged_range(attributes: Attributes, starts: Array, limits: Array, deltas: Array) -> Sequence[Array]:
    """Row splits and all ranges, one behind the other."""
    starts, limits, deltas = np.broadcast_arrays(*map(np.atleast_1d, (starts, limits, deltas)))
    if not deltas.all() or np.abs((limits - starts) / deltas).sum() > MAX_ELEMENTS:
        raise ValueError("ranges have too many elements")
    rows = [np.asarray(a + np.arange(max(math.ceil((b - a) / c), 0)) * c, starts.dtype)
            for a, b, c in zip(starts.tolist(), limits.tolist(), deltas.tolist(), strict=True)]
    ends = np.cumsum([0, *map(len, rows)])
    return [ends.astype(attributes["Tsplits"]), np.concatenate(rows) if rows else np.empty(0, starts.dtype)]


def _first_rows(kinds: Sequence[str], partitions: Sequence[Array]) -> tuple[list[int], list[Array]]:
    """For each ragged dimension how many rows there are, and the row of each element."""
    given = list(zip(kinds, partitions, strict=True))
    counts: list[int] = []
    ids: list[Array] = []
    rows = int(given.pop(0)[1]) if kinds[0] == _FIRST else -1
    for kind, partition in given:
        if kind == _SPLITS:
            rows = len(partition) - 1
            ids.append(np.repeat(np.arange(rows), np.diff(partition)))
        elif kind == _ROWS:
            ids.append(partition.astype(np.int64))
        else:
            raise ValueError(f"rows are given as {kind}")
        counts.append(rows)
        rows = len(ids[-1])
    return counts, ids


def _columns(ids: Sequence[Array]) -> list[Array]:
    """The place of each value: its outermost row, and where it stands in the rows within. ids: the row of each element."""
    within = [np.arange(len(rows)) - np.searchsorted(rows, rows) for rows in ids]
    columns, row = [within[-1]], ids[-1]
    for level in reversed(range(len(ids) - 1)):
        columns.insert(0, within[level][row])
        row = ids[level][row]
    return [row, *columns]
