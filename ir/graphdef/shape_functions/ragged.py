"""Ragged tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nxcc.ir.graphdef.loose import Facts, Known
from nxcc.ir.graphdef.shape_functions.registry import narrowest, shape_function, sizes
from nxcc.ir.graphdef.spans import ANY, at, product


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
    dims, first = sizes(facts[0]), facts[3]
    if dims and dims[0] == ANY:
        if attributes["row_partition_types"][0] == "ROW_SPLITS":
            dims = (first.size.mapped(lambda n: max(n - 1, 0)), *dims[1:])
        elif first.values is not None:
            dims = (first.values.reshape(-1)[0], *dims[1:])
    return [(dims, None)]
