"""Factorisations and systems of equations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nxcc.ir.graphdef.loose import Facts, Known
from nxcc.ir.graphdef.shape_functions.registry import shape_function
from nxcc.ir.graphdef.spans import Span, Spans, at


def _matrix(facts: Facts) -> tuple[Spans, Span, Span]:
    """Leading dimensions, rows and columns of the matrices that an input holds; ValueError if it holds none."""
    dims = facts.dims
    if dims is None or len(dims) < 2:
        raise ValueError("a matrix is needed")
    return dims[:-2], dims[-2], dims[-1]


@shape_function("SelfAdjointEigV2")
def _self_adjoint_eigen(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    leading, rows, _ = _matrix(facts[0])
    return [((*leading, rows), None), (facts[0].dims if attributes["compute_v"] else (at(0),), None)]


@shape_function("Svd")
def _singular_values(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    leading, rows, columns = _matrix(facts[0])
    least = _least(rows, columns)
    if not attributes["compute_uv"]:
        return [((*leading, least), None), ((at(0),), None), ((at(0),), None)]
    whole = attributes["full_matrices"]
    return [((*leading, least), None), ((*leading, rows, rows if whole else least), None),
            ((*leading, columns, columns if whole else least), None)]


def _least(one: Span, other: Span) -> Span:
    return Span(min(one.low, other.low), min(one.high, other.high))


@shape_function("Lu")
def _lu(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    leading, rows, columns = _matrix(facts[0])
    if rows != columns:
        raise ValueError("a square matrix is needed")
    return [(facts[0].dims, None), ((*leading, rows), None)]


@shape_function("TridiagonalSolve")
def _tridiagonal_solve(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [(facts[1].dims, None)]


@shape_function("TridiagonalMatMul")
def _tridiagonal_product(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [(facts[3].dims, None)]
