"""Scalar computations (combiners, comparators, map bodies) applied to whole arrays.

HLO describes what a reduction or a scatter does to two elements. Evaluating that once per pair of elements would take
minutes for real models; here the same computation is evaluated once per pair of arrays, which is the same thing for
elementwise code. Where a combiner is one plain operation of its two parameters, numpy's own reduction is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nxcc.ir.dtypes import C64, DType, from_numpy
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.associativity import is_associative
from nxcc.ir.hlo.module import Computation
from nxcc.ir.hlo.scalar_function import Run, ScalarFunction
from nxcc.ir.hlo.wide_bodies import widened, widened_dtype
from nxcc.ir.literals import Array


@dataclass(frozen=True)
class Plain:
    """A combiner that is one operation of its two parameters.

    ufunc: on numbers; on_pred: on bools. exact: the result is one of the operands or bitwise, no precision is at stake.
    """

    ufunc: np.ufunc
    on_pred: np.ufunc
    exact: bool


PLAIN: dict[str, Plain] = {
    "add": Plain(np.add, np.logical_or, False),
    "multiply": Plain(np.multiply, np.logical_and, False),
    "maximum": Plain(np.maximum, np.logical_or, True),
    "minimum": Plain(np.minimum, np.logical_and, True),
    "and": Plain(np.bitwise_and, np.logical_and, True),
    "or": Plain(np.bitwise_or, np.logical_or, True),
    "xor": Plain(np.bitwise_xor, np.logical_xor, True),
}


IDENTITIES = {"add": 0.0, "maximum": -math.inf, "minimum": math.inf, "multiply": 1.0}
"""Initial values of float reductions that change nothing, however often they are taken in."""


def plain_opcode(computation: Computation) -> str | None:
    """The opcode if the computation is one operation of PLAIN on its two parameters, in either order."""
    root = computation.root
    if root.opcode not in PLAIN or len(root.operands) != 2:
        return None
    parameters = computation.parameters
    return root.opcode if len(parameters) == 2 and set(root.operands) == set(parameters) else None


def returned_parameter(computation: Computation) -> int | None:
    """The number of the parameter that the computation returns unchanged, if it does."""
    root = computation.root
    return int(root.attributes["parameter_number"]) if root.opcode == "parameter" else None


def wide_numpy(dtype: DType, exact: bool = False) -> np.dtype[Any]:
    """The numpy type to accumulate in: exact operations need no more bits, but a type that numpy is quick at.

    Sums and products of floats are rounded once, at the end: XLA accumulates bf16 and f16 in f32 and leaves the order
    open, so the exact sum is the fair middle of what it may return.
    """
    if dtype.is_float:
        return np.dtype(np.float64) if not exact or dtype.bits == 64 else np.dtype(np.float32)
    if dtype.is_complex:
        return np.dtype(np.complex128) if dtype is C64 and not exact else dtype.numpy
    if dtype.bits < 8 and dtype.is_integer:
        return np.dtype(np.int8 if dtype.is_signed else np.uint8)
    return dtype.numpy


def identity(opcode: str, dtype: np.dtype[Any]) -> Any:
    """The neutral element of a plain operation in a wide type; -inf and inf for extremes of floats."""
    if dtype == np.bool_:
        return opcode in ("multiply", "minimum", "and")
    constants = {"add": 0, "multiply": 1, "or": 0, "xor": 0}
    if opcode in constants:
        return dtype.type(constants[opcode])
    if opcode == "and":
        return np.invert(dtype.type(0))
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        return dtype.type(info.min if opcode == "maximum" else info.max)
    return dtype.type(-np.inf if opcode == "maximum" else np.inf)


@dataclass(frozen=True)
class PlainOperation:
    """A plain operation on values of one dtype: widen, compute with `ufunc` in `wide`, and round once by `narrow`."""

    opcode: str
    dtype: DType
    wide: np.dtype[Any]
    ufunc: np.ufunc

    @property
    def identity(self) -> Any:
        return identity(self.opcode, self.wide)

    def widen(self, x: Array) -> Array:
        return np.asarray(x).astype(self.wide, copy=False)

    def narrow(self, x: Array) -> Array:
        return np.asarray(x).astype(self.dtype.numpy, copy=False)


def plain_operation(computation: Computation, dtype: DType) -> PlainOperation | None:
    """The plain operation that a combiner is on values of this dtype, if it is one."""
    opcode = plain_opcode(computation)
    if opcode is None or computation.root.shape.dtype is not dtype:
        return None
    row = PLAIN[opcode]
    wide = wide_numpy(dtype, row.exact)
    return PlainOperation(opcode, dtype, wide, row.on_pred if wide == np.bool_ else row.ufunc)


# Folding


SEQUENTIAL_LIMIT = 512
"""Folds up to this many elements go in order, as a plain loop would; longer ones as a balanced tree if the combiner is
associative, which takes logarithmically many array operations."""


def reduce_arrays(computation: Computation, run: Run, arrays: Sequence[Array], inits: Sequence[Any],
                  axes: Sequence[int]) -> tuple[Array, ...]:
    """Fold `axes` (of all arrays alike) with a combiner (accumulators..., values...); each init takes part once.

    Floats narrower than f32 are folded in f32, see `wide_bodies`.
    """
    axes = tuple(axes)
    if len(arrays) == 1:
        plain = plain_operation(computation, from_numpy(arrays[0].dtype))
        if plain is not None:
            return (_reduce_plain(plain, arrays[0], inits[0], axes),)
    results = [leaf.dtype.numpy for leaf in computation.root.shape.leaves()]
    wide = widened(computation)
    if wide is not None:
        computation, arrays = wide, [x.astype(widened_dtype(from_numpy(x.dtype)).numpy, copy=False) for x in arrays]
    function = ScalarFunction(computation, run)
    fronted = [np.moveaxis(x, axes, range(len(axes))) for x in arrays]
    rows = [x.reshape(-1, *x.shape[len(axes):]) if x.size else np.empty((0, *x.shape[len(axes):]), x.dtype)
            for x in fronted]
    slab = rows[0].shape[1:]
    start = tuple(np.broadcast_to(np.asarray(init).astype(dtype), slab)
                  for init, dtype in zip(inits, function.result_types, strict=True))
    folded = _fold_rows(function, rows, start)
    return tuple(x.astype(dtype, copy=False) for x, dtype in zip(folded, results, strict=True))


def _reduce_plain(plain: PlainOperation, x: Array, init: Any, axes: tuple[int, ...]) -> Array:
    # numpy casts its own types in small blocks; wide copies are made of the others only
    source = x if x.dtype.isbuiltin == 1 else plain.widen(x)
    start = np.asarray(init).astype(plain.wide)[()]
    accumulate = None if plain.wide == np.bool_ else plain.wide
    return plain.narrow(plain.ufunc.reduce(source, axis=axes, dtype=accumulate, initial=start))


def _fold_rows(function: ScalarFunction, rows: Sequence[Array], start: tuple[Array, ...]) -> tuple[Array, ...]:
    count = len(rows[0])
    if count > SEQUENTIAL_LIMIT and is_associative(function):
        rows = [x.astype(dtype, copy=False) for x, dtype in zip(rows, function.result_types, strict=True)]
        while len(rows[0]) > 1:
            half = len(rows[0]) // 2
            pairs = function(*(x[0:2 * half:2] for x in rows), *(x[1:2 * half:2] for x in rows))
            rows = [np.concatenate([pair, x[2 * half:]]) for pair, x in zip(pairs, rows, strict=True)]
        count = 1
    for place in range(count):
        start = function(*start, *(x[place] for x in rows))
    return start


def scatter_into(computation: Computation, run: Run, targets: Sequence[Array], places: Array,
                 updates: Sequence[Array]) -> None:
    """targets[places] = combiner(targets[places], updates), duplicates one after another in their order; in place.

    targets: flat, writable, one an operand. places: flat indices; updates: flat, as long as places.
    """
    if returned_parameter(computation) == 1 and len(targets) == 1:
        targets[0][places] = updates[0]
        return
    if len(targets) == 1:
        plain = plain_operation(computation, from_numpy(targets[0].dtype))
        if plain is not None:
            _scatter_plain(plain, targets[0], places, updates[0])
            return
    function = ScalarFunction(computation, run)
    order = np.argsort(places, kind="stable")
    for chosen in _rounds(places[order], order):
        at = places[chosen]
        results = function(*(target[at] for target in targets), *(update[chosen] for update in updates))
        for target, result in zip(targets, results, strict=True):
            target[at] = result


def _scatter_plain(plain: PlainOperation, target: Array, places: Array, updates: Array) -> None:
    """Rounds after every update, as the combiner says, but bf16 and fp8 once: XLA CPU widens the whole scatter for them."""
    if target.dtype.isbuiltin == 1:
        plain.ufunc.at(target, places, updates)
        return
    touched = np.unique(places)
    sums = plain.widen(target[touched])
    plain.ufunc.at(sums, np.searchsorted(touched, places), plain.widen(updates))
    target[touched] = plain.narrow(sums)


def _rounds(places: Array, order: Array) -> list[Array]:
    """Cut sorted places into rounds without duplicates: the n-th update of a place is in round n."""
    if not len(places):
        return []
    first = np.flatnonzero(np.concatenate([[True], places[1:] != places[:-1]]))
    lengths = np.diff(np.append(first, len(places)))
    occurrence = np.arange(len(places)) - np.repeat(first, lengths)
    by_round = np.argsort(occurrence, kind="stable")
    return np.split(order[by_round], np.cumsum(np.bincount(occurrence))[:-1])


# Sorting


def total_order_key(x: Array) -> Array:
    """Integers that compare as the floats do in total order: -NaN < -inf < ... < -0 < +0 < ... < inf < NaN.

    Values of other types come back as they are, in a type that numpy sorts.
    """
    dtype = from_numpy(x.dtype)
    x = np.ascontiguousarray(x.astype(wide_numpy(dtype, exact=True), copy=False)).reshape(x.shape)
    if not dtype.is_float:
        return x
    bits: Array = x.view(np.int32 if x.dtype.itemsize == 4 else np.int64)
    # negative floats count downwards: flip all but the sign bit
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits)


def sort_permutation(computation: Computation, run: Run, arrays: Sequence[Array]) -> Array:
    """The stable order of the last axis by a comparator (a0, b0, a1, b1, ...) -> pred, as indices."""
    simple = _simple_order(computation, arrays)
    if simple is not None:
        return simple
    function = ScalarFunction(computation, run)

    def less(left: Sequence[Array], right: Sequence[Array]) -> Array:
        return function(*(x for pair in zip(left, right, strict=True) for x in pair))[0]

    return _merge_exchange(less, arrays)


def _simple_order(computation: Computation, arrays: Sequence[Array]) -> Array | None:
    """The order if the comparator compares parameters 2k and 2k+1 for less or greater, else None."""
    root = computation.root
    if root.opcode != "compare" or any(o.opcode != "parameter" for o in root.operands):
        return None
    left, right = (int(o.attributes["parameter_number"]) for o in root.operands)
    direction = root.attribute("direction")
    if left // 2 != right // 2 or left == right or direction not in ("LT", "GT"):
        return None
    key = arrays[left // 2]
    dtype = from_numpy(key.dtype)
    if dtype.is_complex:
        return None
    total = root.attribute("type") == "TOTALORDER"
    key = total_order_key(key) if total else key.astype(wide_numpy(dtype, exact=True), copy=False)
    ascending = (direction == "LT") == (left < right)
    if not ascending:
        key = -key if key.dtype.kind == "f" else np.invert(key)
    return np.argsort(key, axis=-1, kind="stable")


def _merge_exchange(less: Callable[[Sequence[Array], Sequence[Array]], Array], arrays: Sequence[Array]) -> Array:
    """Sort the last axis by a network of compare-exchanges, each step on whole arrays; ties keep their order.

    Merge exchange: Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M; any length, about log2(n)^2 / 2 steps.
    A comparator that is no strict weak order leaves some order, as it does everywhere.
    """
    count = arrays[0].shape[-1]
    order = np.broadcast_to(np.arange(count), arrays[0].shape).copy()
    columns = [*(x.copy() for x in arrays), order]
    for low, distance in _network(count):
        high = low + distance
        left, right = [c[..., low] for c in columns], [c[..., high] for c in columns]
        before, after = less(left[:-1], right[:-1]), less(right[:-1], left[:-1])
        swap = np.where(before == after, right[-1] < left[-1], after)
        for column, a, b in zip(columns, left, right, strict=True):
            column[..., low] = np.where(swap, b, a)
            column[..., high] = np.where(swap, a, b)
    return columns[-1]


def _network(count: int) -> list[tuple[Array, int]]:
    """Steps of the merge exchange network: places to compare with the one `distance` further."""
    steps: list[tuple[Array, int]] = []
    if count < 2:
        return steps
    top = 1 << ((count - 1).bit_length() - 1)
    p = top
    while p:
        q, rest, distance = top, 0, p
        while True:
            places = np.arange(count - distance)
            chosen = places[(places & p) == rest]
            if len(chosen):
                steps.append((chosen, distance))
            if q == p:
                break
            distance, q, rest = q - p, q >> 1, p
        p >>= 1
    return steps
