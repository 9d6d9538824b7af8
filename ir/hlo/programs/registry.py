"""The functions that host programs call: how they are declared and found."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from nxcc.ir.facts import dataclass
from nxcc.ir.literals import Array

FAMILIES = ("arrays", "mathematics", "sparse", "strings")
"""Modules of this folder; imported on first look-up."""

Attributes = Mapping[str, Any]
Evaluate = Callable[..., Sequence[Array]]
_E = TypeVar("_E", bound=Callable[..., Any])


@dataclass(frozen=True)
class Function:
    """evaluate: of attributes and arrays, its results. moves: it only moves elements, whatever they are. reads_texts: it
    needs strings, not only their numbers. on_host: nothing else computes it."""

    name: str
    evaluate: Evaluate
    moves: bool = False
    reads_texts: bool = False
    on_host: bool = False


_FUNCTIONS: dict[str, Function] = {}


def function(*names: str, moves: bool = False, reads_texts: bool = False, on_host: bool = False) -> Callable[[_E], _E]:
    """Declare what computes these functions; one that returns an array has one result."""
    def declare(evaluate: _E) -> _E:
        for name in names:
            assert name not in _FUNCTIONS, f"{name} is declared twice"
            _FUNCTIONS[name] = Function(name, _as_sequence(evaluate), moves, reads_texts, on_host or reads_texts)
        return evaluate
    return declare


def _as_sequence(evaluate: Callable[..., Any]) -> Evaluate:
    def several(attributes: Attributes, *values: Array) -> Sequence[Array]:
        found = evaluate(attributes, *values)
        return found if isinstance(found, (list, tuple)) else (found,)
    return several


def declare(name: str, evaluate: Callable[..., Any]) -> None:
    """Declare one function of a table."""
    function(name)(evaluate)


@cache
def _load_families() -> None:
    for family in FAMILIES:
        importlib.import_module(f"nxcc.ir.hlo.programs.{family}")


def find_function(name: str) -> Function | None:
    _load_families()
    return _FUNCTIONS.get(name)


def functions() -> dict[str, Function]:
    _load_families()
    return dict(sorted(_FUNCTIONS.items()))
