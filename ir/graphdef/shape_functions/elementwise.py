"""Elementwise work, work on whole matrices that keeps their shape, and reductions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nxcc.ir.graphdef.loose import Facts, Known
from nxcc.ir.graphdef.shape_functions.registry import shape_function
from nxcc.ir.graphdef.spans import at, broadcast
from nxcc.ir.hlo.programs.arrays import ELEMENTWISE, REDUCTIONS
from nxcc.ir.hlo.programs.mathematics import MATRIX_FUNCTIONS, SPECIAL


@shape_function(*ELEMENTWISE, *SPECIAL, "NextAfter", "Select", "SelectV2", "Substr", "StringJoin")
def _alike(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [(broadcast(*(f.dims for f in facts)), None)]


@shape_function(
    "Cast", "Identity", "ZerosLike", "OnesLike", "Cumsum", "ReverseV2", "DrawBoundingBoxes", "DrawBoundingBoxesV2",
    "AsString", "StringToHashBucketFast", "StringLength", "StringToNumber", "StringLower", "StringUpper", "StringStrip",
    "RegexFullMatch", "StaticRegexFullMatch", "RegexReplace", "StaticRegexReplace", *MATRIX_FUNCTIONS)
def _same(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [(facts[0].dims, facts[0].values)]


@shape_function(*REDUCTIONS, "ReduceJoin")
def _reduced(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, axes = facts[0].dims, facts[1].numbers
    if dims is None or axes is None:
        return [(None, None)]
    gone = {int(a) % max(len(dims), 1) for a in axes.reshape(-1)}
    if not gone and "separator" in attributes:
        gone = set(range(len(dims)))
    kept = attributes["keep_dims"]
    return [(tuple(at(1) if d in gone else n for d, n in enumerate(dims) if kept or d not in gone), None)]
