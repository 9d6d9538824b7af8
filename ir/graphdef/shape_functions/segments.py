"""Sums and the like over segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nxcc.ir.graphdef.loose import Facts, Known
from nxcc.ir.graphdef.shape_functions.registry import shape_function
from nxcc.ir.graphdef.spans import ANY


@shape_function(*(f"SparseSegment{kind}{form}" for kind in ("Sum", "Mean", "SqrtN") for form in ("", "WithNumSegments")))
def _sparse_segments(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims = facts[0].dims
    count = facts[3].values.reshape(-1)[0] if len(facts) > 3 and facts[3].values is not None else ANY
    return [(None if dims is None else (count, *dims[1:]), None)]


@shape_function(*(f"Segment{kind}" for kind in ("Sum", "Prod", "Max", "Min", "Mean")))
def _segments(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims = facts[0].dims
    return [(None if dims is None else (ANY, *dims[1:]), None)]


@shape_function(*(f"UnsortedSegment{kind}" for kind in ("Sum", "Prod", "Max", "Min")))
def _unsorted_segments(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, ids, count = facts[0].dims, facts[1].dims, facts[2].values
    size = ANY if count is None else count.reshape(-1)[0]
    return [(None if dims is None or ids is None else (size, *dims[len(ids):]), None)]
