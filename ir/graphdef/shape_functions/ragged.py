"""Ragged tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nxcc.ir.graphdef.loose import Facts, Known
from nxcc.ir.graphdef.shape_functions.registry import narrowest, shape_function, sizes
from nxcc.ir.graphdef.spans import ANY, Span, Spans, at, product


@shape_function("RaggedTensorToSparse")
def _ragged_to_sparse(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    values = facts[-1].dims
    rank = ANY if values is None else at(len(facts) - 1 + len(values))
    if not rank.exact or values is None:
        return [((ANY, ANY), None), ((ANY,), None), ((ANY,), None)]
    sizes = np.empty(rank.low, object)
    sizes[:] = [facts[0].size.mapped(lambda n: max(n - 1, 0)), *[ANY] * (len(facts) - 1), *values[1:]]
    return [((product(values), rank), None), ((product(values),), None), ((rank,), sizes)]


@shape_function("RaggedRange")
def _ragged_range(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    rows = [f.dims[0] for f in facts if f.dims]
    count = narrowest(rows).mapped(lambda n: n + 1) if rows else at(2)
    return [((count,), None), ((ANY,), None)]


@shape_function("RaggedTensorToTensor")
def _ragged_to_tensor(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    """A size that is not given is that of the longest row; of the outermost dimension, how many rows there are."""
    natural = _natural(attributes["row_partition_types"], facts[1], facts[3:])
    given = sizes(facts[0]) if facts[0].dims else None
    if given is None:
        return [(natural if facts[0].dims == () else None, None)]
    if natural is None or len(natural) != len(given):
        return [(given, None)]
    return [(tuple(own if one == ANY else one for one, own in zip(given, natural, strict=True)), None)]


def _natural(kinds: Sequence[str], values: Facts, partitions: Sequence[Facts]) -> Spans | None:
    """Rows, the longest row of each further dimension, and what each element has; None if its rank is not known."""
    if values.dims is None:
        return None
    first = partitions[0]
    if kinds[0] == "ROW_SPLITS":
        return (first.size.mapped(lambda n: max(n - 1, 0)), *map(_longest, partitions), *values.dims[1:])
    rows = first.values.reshape(-1)[0] if first.values is not None else ANY
    return (rows, *[ANY] * (len(kinds) - 1), *values.dims[1:])


def _longest(splits: Facts) -> Span:
    """The longest of the rows that these splits make."""
    numbers = splits.numbers
    return ANY if numbers is None or numbers.size < 2 else at(int(np.diff(numbers.reshape(-1)).max()))
