"""Places, sets and counts that values decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nxcc.ir.graphdef.loose import Facts, Known
from nxcc.ir.graphdef.shape_functions.registry import shape_function
from nxcc.ir.graphdef.spans import ANY, Span, at, product


@shape_function("Where")
def _where(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims = facts[0].dims
    return [((ANY, ANY) if dims is None else (Span(0, product(dims).high), at(len(dims))), None)]


@shape_function("Unique")
def _unique(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    size = facts[0].size
    return [((Span(min(size.low, 1), size.high),), None), ((size,), None)]


@shape_function("DenseBincount")
def _dense_bincount(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, values = facts[0].dims, facts[1].values
    count = values.reshape(-1)[0] if values is not None else ANY
    return [(None if dims is None else (*dims[:-1], count), None)]


@shape_function("Bincount")
def _bincount(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    values = facts[1].values
    return [((values.reshape(-1)[0] if values is not None else ANY,), None)]


@shape_function("HistogramFixedWidth")
def _histogram(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    values = facts[2].values
    return [((ANY if values is None else values.reshape(-1)[0],), None)]
