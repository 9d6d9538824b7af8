"""What asks for shapes, and what makes arrays of shapes that are asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nxcc.ir.graphdef.loose import Facts, Known, spans_of
from nxcc.ir.graphdef.shape_functions.registry import shape_function, sizes
from nxcc.ir.graphdef.spans import ANY, FAR, Span, at, product, total


@shape_function("Shape")
def _shape(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims = facts[0].dims
    if dims is None:
        return [((ANY,), None)]
    values = np.empty(len(dims), object)
    values[:] = dims
    return [((at(len(dims)),), values)]


@shape_function("Size")
def _size(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims = facts[0].dims
    if dims is None:
        return [((), None)]
    value = np.empty((), object)
    value[()] = product(dims)
    return [((), value)]


@shape_function("Rank")
def _rank(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims = facts[0].dims
    return [((), None if dims is None else spans_of(np.array(len(dims))))]


@shape_function("Fill")
def _fill(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [(sizes(facts[0]), None)]


@shape_function("Reshape")
def _reshape(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    wanted, own = facts[1].values, facts[0].dims
    dims = sizes(facts[1])
    if dims is None or wanted is None or own is None:
        return [(dims, None)]
    open_ = [d for d, span in enumerate(wanted.reshape(-1)) if span == at(-1)]
    others = [span for d, span in enumerate(dims) if d not in open_]
    if len(open_) == 1 and all(span.exact for span in others):
        each = max(math.prod(span.low for span in others), 1)
        dims = tuple(product(own).mapped(lambda n: n // each) if d in open_ else n for d, n in enumerate(dims))
    return [(dims, None)]


@shape_function("ExpandDims")
def _expand_dims(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, axis = facts[0].dims, facts[1].numbers
    if dims is None or axis is None:
        return [(None, None)]
    place = int(axis.reshape(-1)[0]) % (len(dims) + 1)
    return [((*dims[:place], at(1), *dims[place:]), None)]


@shape_function("Squeeze")
def _squeeze(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, named = facts[0].dims, attributes["squeeze_dims"]
    if dims is None or (not named and any(n.low <= 1 < n.high for n in dims)):
        return [(None, None)]
    gone = {d % len(dims) for d in named} or {d for d, n in enumerate(dims) if n == at(1)}
    return [(tuple(n for d, n in enumerate(dims) if d not in gone), None)]


@shape_function("EnsureShape")
def _ensure_shape(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    wanted, dims = attributes["shape"], facts[0].dims
    own = dims if dims is not None else (ANY,) * len(wanted)
    return [(tuple(n if w < 0 else at(w) for w, n in zip(wanted, own, strict=False)), None)]


@shape_function("OneHot")
def _one_hot(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, depth = facts[0].dims, facts[1].values
    if dims is None:
        return [(None, None)]
    place = attributes["axis"] % (len(dims) + 1)
    return [((*dims[:place], ANY if depth is None else depth.reshape(-1)[0], *dims[place:]), None)]


@shape_function("Pad", "PadV2")
def _pad(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, amounts = facts[0].dims, facts[1].values
    if dims is None:
        return [(None, None)]
    if amounts is None:
        return [(tuple(Span(n.low, FAR) for n in dims), None)]
    return [(tuple(total([n, *row]) for n, row in zip(dims, amounts.reshape(-1, 2), strict=True)), None)]


@shape_function("Range")
def _range(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [((ANY,), None)]
