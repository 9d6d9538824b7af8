"""Slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nxcc.ir.graphdef.loose import Facts, Known
from nxcc.ir.graphdef.shape_functions.registry import shape_function
from nxcc.ir.graphdef.spans import FAR, Span, at


@shape_function("Slice")
def _slice(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, begin, size = facts[0].dims, facts[1].numbers, facts[2].numbers
    if dims is None:
        return [(None, None)]
    found = []
    for d, n in enumerate(dims):
        wanted = -1 if size is None else int(size.reshape(-1)[d])
        if wanted >= 0:
            found.append(at(wanted))
        elif size is not None and begin is not None:
            start = int(begin.reshape(-1)[d])
            found.append(Span(max(n.low - start, 0), max(n.high - start, 0)))
        else:
            found.append(Span(0, n.high))
    return [(tuple(found), None)]


@shape_function("StridedSlice")
def _strided_slice(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, count = facts[0].dims, facts[1].size
    if dims is None or not count.exact:
        return [(None, None)]
    masks = {name: attributes[f"{name}_mask"] for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    used = sum(1 for i in range(count.low) if not (masks["ellipsis"] | masks["new_axis"]) >> i & 1)
    found: list[Span] = []
    place = 0
    for i in range(count.low):
        if masks["ellipsis"] >> i & 1:
            found += dims[place:place + len(dims) - used]
            place += len(dims) - used
        elif masks["new_axis"] >> i & 1:
            found.append(at(1))
        else:
            if not masks["shrink_axis"] >> i & 1 and place < len(dims):
                found.append(_range_size(dims[place], i, masks, facts))
            place += 1
    return [((*found, *dims[place:]), None)]


def _range_size(n: Span, i: int, masks: dict[str, int], facts: Sequence[Facts]) -> Span:
    """How many places a range takes of a dimension."""
    ends: list[Any] = []
    for name, given in (("begin", facts[1]), ("end", facts[2])):
        if masks[name] >> i & 1:
            ends.append(None)
        elif given.values is None or not given.values.reshape(-1)[i].exact:
            return Span(0, n.high)
        else:
            ends.append(given.values.reshape(-1)[i].low)
    step = facts[3].numbers
    if step is None or not step.reshape(-1)[i]:
        return Span(0, n.high)
    taken = slice(ends[0], ends[1], int(step.reshape(-1)[i]))
    found = [len(range(*taken.indices(size))) for size in (n.low, n.high)]
    return Span(min(found), min(max(found), FAR))
