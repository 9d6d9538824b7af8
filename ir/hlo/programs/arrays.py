"""Functions on arrays, as TensorFlow means them. Those that only move elements take any kind of element."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nxcc.ir.hlo.programs.registry import Attributes, declare, function
from nxcc.ir.literals import Array

MAX_ELEMENTS = 1 << 28
"""Of one result whose size values say."""


def _one(x: Array) -> int:
    """The one number that an input must be."""
    if x.size != 1:
        raise ValueError(f"one number is needed, not {x.size}")
    return int(x.reshape(())[()])


def _dims(x: Array) -> list[int]:
    found = [int(v) for v in x.reshape(-1)]
    if math.prod(max(n, 1) for n in found) > MAX_ELEMENTS:
        raise ValueError(f"a result of the shape {found} has too many elements")
    return found


# Movement


@function("Identity", moves=True)
def identity(attributes: Attributes, x: Array) -> Array:
    return x


@function("FirstPlaces")
def first_places(attributes: Attributes, x: Array, count: Array) -> Array:
    """What counts of an array at its bound."""
    return np.asarray(x[(slice(None),) * attributes["axis"] + (slice(_one(count)),)])


@function("Reshape", moves=True)
def reshape(attributes: Attributes, x: Array, dims: Array) -> Array:
    return np.reshape(x, _dims(dims))


@function("ExpandDims", moves=True)
def expand_dims(attributes: Attributes, x: Array, axis: Array) -> Array:
    return np.expand_dims(x, _one(axis))


@function("Squeeze", moves=True)
def squeeze(attributes: Attributes, x: Array) -> Array:
    axes = attributes["squeeze_dims"]
    return np.squeeze(x, tuple(axes) if axes else None)


@function("ConcatV2", moves=True)
def concat(attributes: Attributes, *values: Array) -> Array:
    return np.concatenate(values[:-1], _one(values[-1]))


@function("Pack", moves=True)
def pack(attributes: Attributes, *parts: Array) -> Array:
    return np.stack(parts, attributes["axis"])


@function("Slice", moves=True)
def slice_(attributes: Attributes, x: Array, begin: Array, size: Array) -> Array:
    rows = [slice(int(b), n if s == -1 else int(b + s))
            for b, s, n in zip(begin.reshape(-1), size.reshape(-1), x.shape, strict=True)]
    if any(not 0 <= row.start <= row.stop <= n for row, n in zip(rows, x.shape, strict=True)):
        raise ValueError(f"{rows} reach outside {list(x.shape)}")
    return x[tuple(rows)]


@function("StridedSlice", moves=True)
def strided_slice(attributes: Attributes, x: Array, begin: Array, end: Array, strides: Array) -> Array:
    index: list[Any] = []
    for i in range(begin.size):
        low, high, step = (int(v.reshape(-1)[i]) for v in (begin, end, strides))
        index.append(_position(attributes, i, low, high, step))
    return np.asarray(x[tuple(index)])


def _position(attributes: Attributes, i: int, low: int, high: int, step: int) -> Any:
    masks = {name: bool(attributes[f"{name}_mask"] >> i & 1)
             for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    if masks["ellipsis"]:
        return Ellipsis
    if masks["new_axis"]:
        return None
    return low if masks["shrink_axis"] else slice(None if masks["begin"] else low, None if masks["end"] else high, step)


@function("GatherV2", moves=True)
def gather(attributes: Attributes, x: Array, indices: Array, axis: Array) -> Array:
    if attributes.get("batch_dims", 0):
        raise ValueError("batch_dims must be 0 where sizes depend on values")
    if indices.size and int(indices.min()) < 0:
        raise ValueError("an index is negative")
    return np.take(x, indices.astype(np.int64), _one(axis))


@function("GatherNd", moves=True)
def gather_nd(attributes: Attributes, x: Array, indices: Array) -> Array:
    if indices.size and int(indices.min()) < 0:
        raise ValueError("an index is negative")
    return np.asarray(x[tuple(np.moveaxis(indices, -1, 0))])


@function("Tile", moves=True)
def tile(attributes: Attributes, x: Array, times: Array) -> Array:
    if math.prod(_dims(times)) * max(x.size, 1) > MAX_ELEMENTS:
        raise ValueError("the result has too many elements")
    return np.tile(x, _dims(times))


@function("Transpose", moves=True)
def transpose(attributes: Attributes, x: Array, order: Array) -> Array:
    return x.transpose(_dims(order))


@function("Fill")
def fill(attributes: Attributes, dims: Array, value: Array) -> Array:
    return np.full(_dims(dims), value)


@function("Select", "SelectV2")
def select(attributes: Attributes, condition: Array, yes: Array, no: Array) -> Array:
    if attributes.get("leads") and condition.ndim:
        condition = condition.reshape(*condition.shape, *[1] * (yes.ndim - condition.ndim))
    return np.where(condition, yes, no)


@function("ZerosLike")
def zeros_like(attributes: Attributes, x: Array) -> Array:
    return np.zeros_like(x)


@function("OnesLike")
def ones_like(attributes: Attributes, x: Array) -> Array:
    return np.ones_like(x)


@function("ReverseV2", moves=True)
def reverse(attributes: Attributes, x: Array, axes: Array) -> Array:
    return np.flip(x, tuple(int(a) for a in axes.reshape(-1)))


@function("Pad", "PadV2")
def pad(attributes: Attributes, x: Array, paddings: Array, *value: Array) -> Array:
    grown = [n + int(low) + int(high) for n, (low, high) in zip(x.shape, paddings, strict=True)]
    if int(paddings.min(initial=0)) < 0 or math.prod(grown) > MAX_ELEMENTS:
        raise ValueError(f"a tensor cannot be padded to {grown}")
    return np.pad(x, paddings, constant_values=value[0] if value else 0)


@function("EnsureShape")
def ensure_shape(attributes: Attributes, x: Array) -> Array:
    wanted = attributes["shape"]
    if len(wanted) != x.ndim or any(w not in (-1, n) for w, n in zip(wanted, x.shape, strict=True)):
        raise ValueError(f"the shape must be {wanted}, it is {list(x.shape)}")
    return x


@function("OneHot")
def one_hot(attributes: Attributes, x: Array, depth: Array, on: Array, off: Array) -> Array:
    n, axis = _dims(depth.reshape(-1))[0], attributes["axis"]
    if n * max(x.size, 1) > MAX_ELEMENTS:
        raise ValueError("the result has too many elements")
    places = np.expand_dims(x, axis)
    column = np.arange(n).reshape([-1 if d == axis % (x.ndim + 1) else 1 for d in range(x.ndim + 1)])
    return np.where(places == column, on, off)


# Sizes and places


@function("Rank")
def rank(attributes: Attributes, x: Array) -> Array:
    return np.array(x.ndim, np.int32)


@function("Shape")
def shape(attributes: Attributes, x: Array) -> Array:
    return np.array(x.shape, attributes["out_type"])


@function("Size")
def size(attributes: Attributes, x: Array) -> Array:
    return np.array(x.size, attributes["out_type"])


@function("Range")
def range_(attributes: Attributes, start: Array, limit: Array, delta: Array) -> Array:
    if not delta or abs(float(limit) - float(start)) > MAX_ELEMENTS * abs(float(delta)):
        raise ValueError("a range has too many elements")
    steps = np.arange(max(math.ceil((float(limit) - float(start)) / float(delta)), 0))
    return np.asarray(start + steps * delta, start.dtype)


@function("Where")
def where(attributes: Attributes, x: Array) -> Array:
    return np.argwhere(x).astype(np.int64)


@function("Unique")
def unique(attributes: Attributes, x: Array) -> Sequence[Array]:
    """The distinct elements in order of appearance, and which of them each is."""
    values, first, inverse = np.unique(x, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return [values[order], rank[inverse.reshape(-1)].astype(attributes["out_idx"])]


@function("LookupTableFindV2", on_host=True)
def look_up(attributes: Attributes, keys: Array, values: Array, x: Array, default: Array) -> Array:
    """The value of each key, else the default. Strings are numbers by now."""
    if keys.ndim != 1 or values.shape != keys.shape or default.size != 1:
        raise ValueError(f"a table of {keys.shape} keys and {values.shape} values")
    if not keys.size:
        return np.full(x.shape, default.reshape(())[()])
    order = np.argsort(keys, kind="stable")
    place = order[np.minimum(np.searchsorted(keys, x, sorter=order), len(keys) - 1)]
    return np.where(keys[place] == x, values[place], default.reshape(()))


@function("Bincount")
def bincount(attributes: Attributes, x: Array, count: Array, weights: Array) -> Array:
    n = _dims(count.reshape(-1))[0]
    kept = (x >= 0) & (x < n)
    given = weights[kept] if weights.size else np.ones(int(kept.sum()), weights.dtype)
    found = np.zeros(n, weights.dtype)
    np.add.at(found, x[kept], given)
    return found


@function("DenseBincount")
def dense_bincount(attributes: Attributes, x: Array, count: Array, weights: Array) -> Array:
    """Of a vector, or of each row of a matrix; binary: whether a number is there at all."""
    rows = x.reshape(-1, x.shape[-1]) if x.ndim > 1 else x.reshape(1, -1)
    given = weights.reshape(rows.shape) if weights.size else weights
    found = np.stack([bincount(attributes, row, count, given[k] if weights.size else weights) for k, row in enumerate(rows)])
    found = (found != 0).astype(weights.dtype) if attributes["binary_output"] else found
    return found if x.ndim > 1 else found[0]


@function("Cumsum")
def cumsum(attributes: Attributes, x: Array, axis: Array) -> Array:
    d = _one(axis)
    turned = np.flip(x, d) if attributes["reverse"] else x
    found = np.cumsum(turned, d, dtype=x.dtype)
    found = found - turned if attributes["exclusive"] else found
    return np.flip(found, d) if attributes["reverse"] else found


@function("Cast")
def cast(attributes: Attributes, x: Array) -> Array:
    return x.astype(attributes["DstT"])


# Elementwise

_DIVIDED: dict[str, Callable[..., Any]] = {"f": np.true_divide, "c": np.true_divide, "i": np.floor_divide, "u": np.floor_divide}
_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Add": np.add, "AddV2": np.add, "Sub": np.subtract, "Mul": np.multiply, "Maximum": np.maximum, "Minimum": np.minimum,
    "FloorDiv": np.floor_divide, "FloorMod": np.mod, "Pow": np.power, "SquaredDifference": lambda x, y: (x - y) ** 2,
    "RealDiv": lambda x, y: _DIVIDED[x.dtype.kind](x, y), "Equal": np.equal, "NotEqual": np.not_equal, "Less": np.less,
    "LessEqual": np.less_equal, "Greater": np.greater, "GreaterEqual": np.greater_equal, "LogicalAnd": np.logical_and,
    "LogicalOr": np.logical_or, "LogicalNot": np.logical_not, "Neg": np.negative, "Abs": np.abs, "Sign": np.sign,
    "Exp": np.exp, "Log": np.log, "Log1p": np.log1p, "Sqrt": np.sqrt, "Square": np.square, "Tanh": np.tanh, "Floor": np.floor,
    "Ceil": np.ceil, "Rsqrt": lambda x: 1 / np.sqrt(x), "Relu": lambda x: np.maximum(x, 0), "Reciprocal": lambda x: 1 / x,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x))}
ELEMENTWISE = frozenset(_ELEMENTWISE)

for _name, _compute in _ELEMENTWISE.items():
    declare(_name, lambda attributes, *values, compute=_compute: compute(*values))

_REDUCTIONS: dict[str, Callable[..., Any]] = {"Sum": np.sum, "Prod": np.prod, "Max": np.max, "Min": np.min, "Mean": np.mean,
                                              "All": np.all, "Any": np.any}
REDUCTIONS = frozenset(_REDUCTIONS)


def _reduced(name: str, attributes: Attributes, x: Array, axes: Array) -> Array:
    """In the type of the operand; of nothing, an extreme is the type's own."""
    order = tuple(int(a) for a in axes.reshape(-1))
    kept: dict[str, Any] = {"keepdims": attributes["keep_dims"], "axis": order}
    if name in ("Max", "Min"):
        limits = np.iinfo(x.dtype) if x.dtype.kind in "iu" else np.finfo(x.dtype)
        kept["initial"] = limits.min if name == "Max" else limits.max
        if x.dtype.kind == "f":
            kept["initial"] = -np.inf if name == "Max" else np.inf
    elif name not in ("All", "Any"):
        kept["dtype"] = x.dtype
    return np.asarray(_REDUCTIONS[name](x, **kept))


for _name in _REDUCTIONS:
    declare(_name, lambda attributes, x, axes, name=_name: _reduced(name, attributes, x, axes))
