"""Sparse tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nxcc.ir.graphdef.loose import Facts, Known, spans_of
from nxcc.ir.graphdef.shape_functions.registry import shape_function, sizes
from nxcc.ir.graphdef.spans import ANY, FAR, Span


@shape_function("SparseReshape")
def _sparse_reshape(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    rank, before, after = facts[2].size, facts[1].numbers, facts[2].numbers
    values = None
    if after is not None and (before is not None or -1 not in after):
        whole = int(before.prod()) if before is not None else 0
        rest = max(int(np.prod(after[after != -1])), 1)
        values = spans_of(np.where(after == -1, whole // rest, after))
    return [((facts[0].size, rank), None), ((rank,), values)]


@shape_function("SparseFillEmptyRows")
def _fill_empty_rows(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    shape, count = facts[2].values, facts[0].size
    rows = shape.reshape(-1)[0] if shape is not None and shape.size else ANY
    filled = Span(max(count.low, rows.low), min(count.high + rows.high, FAR))
    columns = facts[0].dims[1] if facts[0].dims is not None and len(facts[0].dims) > 1 else ANY
    return [((filled, columns), None), ((filled,), None), ((rows,), None), ((count,), None)]


@shape_function("SparseTensorDenseMatMul")
def _sparse_product(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    shape, b = facts[2].values, facts[3].dims
    rows = ANY if shape is None else shape.reshape(-1)[int(attributes["adjoint_a"])]
    columns = ANY if b is None else b[0 if attributes["adjoint_b"] else 1]
    return [((rows, columns), None)]


@shape_function("SparseToDense")
def _sparse_to_dense(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [(sizes(facts[1]), None)]
