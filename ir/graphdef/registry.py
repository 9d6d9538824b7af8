"""Lowering rules of TensorFlow operators: how they are declared and found.

A rule is a function of one Call that returns the operator's results, one a port: a value, or several in a sequence.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from nxcc.ir.graphdef.values import Value

if TYPE_CHECKING:
    from nxcc.ir.graphdef.call import Call

FAMILIES = ("array", "audio", "contraction", "control", "counted", "detection", "elementwise", "fourier", "gradients", "graph",
            "image", "indexing", "known", "linalg", "lists", "normalization", "pooling", "quantization", "random",
            "recurrent", "reduction", "sampling", "segments", "slices", "solving", "sparse", "special",
            "tables")
"""Modules under nxcc.ir.graphdef.rules; imported on first look-up."""

Ranks = tuple[int | str | None, ...]
Rule = Callable[["Call"], Value | Sequence[Value]]
_R = TypeVar("_R", bound=Callable[..., object])
_RULES: dict[str, Rule] = {}
_NEEDS: dict[str, tuple[str, ...]] = {}
_RANKS: dict[str, Ranks] = {}


def rule(*operators: str, needs: tuple[str, ...] = (), ranks: Ranks = ()) -> Callable[[_R], _R]:
    """Declare the lowering of these operators.

    needs: HLO opcodes beyond arithmetic and movement that it cannot do without, by which a target's support is told.
    ranks: of the first inputs: a number of dimensions, a string "2+" for at least so many, None for any.
    """
    def declare(function: _R) -> _R:
        for name in operators:
            assert name not in _RULES, f"{name} has two rules"
            _RULES[name] = function  # type: ignore[assignment]  # the decorated rule, checked where it is called
            _NEEDS[name] = needs
            _RANKS[name] = ranks
        return function
    return declare


_PARTIAL_RULES: dict[str, Rule] = {}


def partial_rule(*operators: str) -> Callable[[_R], _R]:
    """Declare the lowering of these operators where an input is a Partial, or a size depends on the count of one."""
    def declare(function: _R) -> _R:
        for name in operators:
            assert name not in _PARTIAL_RULES, f"{name} has two rules for partial values"
            _PARTIAL_RULES[name] = function  # type: ignore[assignment]  # as in `rule`
        return function
    return declare


def row(operator: str, function: Rule, needs: tuple[str, ...] = ()) -> None:
    """Declare the lowering of one operator of a table."""
    rule(operator, needs=needs)(function)


@cache
def _load_families() -> None:
    for family in FAMILIES:
        importlib.import_module(f"nxcc.ir.graphdef.rules.{family}")


def rules() -> dict[str, Rule]:
    """All rules by operator, sorted."""
    _load_families()
    return dict(sorted(_RULES.items()))


def find_rule(operator: str) -> Rule | None:
    _load_families()
    return _RULES.get(operator)


def find_partial_rule(operator: str) -> Rule | None:
    _load_families()
    return _PARTIAL_RULES.get(operator)


def ranks_of(operator: str) -> Ranks:
    """The declared ranks of the first inputs of an operator."""
    return _RANKS.get(operator, ())


def needed_opcodes(operator: str) -> tuple[str, ...]:
    """The HLO opcodes that a rule cannot do without, beyond arithmetic and movement."""
    _load_families()
    return _NEEDS[operator]
