"""Splitting strings, and looking them up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nxcc.ir.graphdef.loose import Facts, Known
from nxcc.ir.graphdef.shape_functions.registry import shape_function
from nxcc.ir.graphdef.spans import ANY, at


@shape_function("StringSplit", "StringSplitV2")
def _split(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    values = np.empty(2, object)
    values[:] = [facts[0].size, ANY]
    return [((ANY, at(2)), None), ((ANY,), None), ((at(2),), values)]


@shape_function("LookupTableFindV2")
def _look_up(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [(facts[2].dims, None)]


@shape_function("StringNGrams")
def _n_grams(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [((ANY,), None), (facts[1].dims, None)]
