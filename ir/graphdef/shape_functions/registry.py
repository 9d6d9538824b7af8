"""What is known of the results of a step before it runs: how shape functions are declared and found.

A shape function takes attributes and the Facts of the inputs, and gives for each result its dimensions and, of small arrays of
integers, its values, as far as they are known. An operator has one if a host program has a function of its name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from nxcc.ir.facts import dataclass
from nxcc.ir.graphdef.loose import Facts, Known
from nxcc.ir.graphdef.spans import ANY, Span, Spans
from nxcc.ir.hlo.programs.registry import Function, find_function

FAMILIES = ("array", "elementwise", "linalg", "movement", "ragged", "segments", "selection", "slices", "sparse", "strings")
"""Modules of this folder; imported on first look-up."""

ALIASES = {"StopGradient": "Identity", "PreventGradient": "Identity", "Snapshot": "Identity", "CheckNumerics": "Identity"}
"""Operators that do what the function of another name does."""

Infer = Callable[[dict[str, Any], Sequence[Facts]], Sequence[Known]]

_DEPENDS = "the size of its result depends on values"
_SHAPE_FUNCTIONS: dict[str, Infer] = {}


@dataclass(frozen=True, slots=True)
class LooseRule:
    """How an operator becomes a step of a host program."""

    function: Function
    infer: Infer


def shape_function(*operators: str) -> Callable[[Infer], Infer]:
    """Declare the shape function of these operators."""
    def declare(function: Infer) -> Infer:
        for name in operators:
            assert name not in _SHAPE_FUNCTIONS, f"{name} has two shape functions"
            _SHAPE_FUNCTIONS[name] = function
        return function
    return declare


@cache
def _load_families() -> None:
    for family in FAMILIES:
        importlib.import_module(f"nxcc.ir.graphdef.shape_functions.{family}")


def find_loose(operator: str) -> LooseRule | None:
    """How an operator becomes a step; None if it cannot."""
    _load_families()
    name = ALIASES.get(operator, operator)
    function, infer = find_function(name), _SHAPE_FUNCTIONS.get(name)
    return LooseRule(function, infer) if function is not None and infer is not None else None


def steps() -> dict[str, str]:
    """Operators that become steps of host programs, with why they run there."""
    _load_families()
    names = {*_SHAPE_FUNCTIONS, *ALIASES}
    return {name: "it works on strings" if function.reads_texts or name == "AsString" else
            "it has no device lowering" if function.on_host else _DEPENDS
            for name in sorted(names) if (function := find_function(ALIASES.get(name, name))) is not None}


def sizes(facts: Facts) -> Spans | None:
    """Dimensions that an input gives; -1 and what is not known may be anything."""
    if facts.values is None:
        count = facts.size
        return (ANY,) * count.low if count.exact else None
    return tuple(ANY if span.low < 0 else span for span in facts.values.reshape(-1))


def narrowest(spans: Sequence[Span]) -> Span:
    """Of sizes that must be equal."""
    return Span(max(s.low for s in spans), min(s.high for s in spans))
