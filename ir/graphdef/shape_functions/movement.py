"""What joins, repeats, turns and gathers elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nxcc.ir.graphdef.loose import Facts, Known
from nxcc.ir.graphdef.shape_functions.registry import narrowest, shape_function, sizes
from nxcc.ir.graphdef.spans import at, product, total


@shape_function("ConcatV2")
def _concat(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    shapes, axis = [f.dims for f in facts[:-1] if f.dims is not None], facts[-1].numbers
    if axis is None or len(shapes) < len(facts) - 1:
        return [(None, None)]
    place = int(axis.reshape(-1)[0]) % len(shapes[0])
    return [(tuple(total([s[d] for s in shapes]) if d == place else narrowest([s[d] for s in shapes])
                   for d in range(len(shapes[0]))), None)]


@shape_function("Pack")
def _pack(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    shapes = [f.dims for f in facts if f.dims is not None]
    if len(shapes) < len(facts):
        return [(None, None)]
    dims = [narrowest(column) for column in zip(*shapes, strict=True)]
    place = attributes["axis"] % (len(dims) + 1)
    return [((*dims[:place], at(len(facts)), *dims[place:]), None)]


@shape_function("Tile")
def _tile(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, times = facts[0].dims, sizes(facts[1])
    if dims is None or times is None or len(times) != len(dims):
        return [(None, None)]
    return [(tuple(product(pair) for pair in zip(dims, times, strict=True)), None)]


@shape_function("Transpose")
def _transpose(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, order = facts[0].dims, facts[1].numbers
    if dims is None or order is None or sorted(order.tolist()) != list(range(len(dims))):
        return [(None, None)]
    return [(tuple(dims[int(d)] for d in order), None)]


@shape_function("GatherV2")
def _gather(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    x, indices, axis = facts[0].dims, facts[1].dims, facts[2].numbers
    if x is None or indices is None or axis is None:
        return [(None, None)]
    place = int(axis.reshape(-1)[0]) % len(x)
    return [((*x[:place], *indices, *x[place + 1:]), None)]


@shape_function("GatherNd")
def _gather_nd(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    x, indices = facts[0].dims, facts[1].dims
    if x is None or not indices or not indices[-1].exact:
        return [(None, None)]
    return [((*indices[:-1], *x[indices[-1].low:]), None)]
