"""The declaration of an HLO operator and the registry; parser, printer, codec, verifier, builder and oracle derive from it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import field
from functools import cache
from typing import Any

from nxcc.ir.diagnostics import UNKNOWN_OPERATOR, CompileError, near
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import Attribute
from nxcc.ir.shapes import Shape

FAMILIES = ("elementwise", "conversion", "contraction", "convolution", "linear_algebra", "reduction", "movement", "indexing",
            "control", "collective", "random", "opaque")
"""Modules under nxcc.ir.hlo.ops that declare operators; imported on first look-up."""

ShapeRule = Callable[..., Shape]
"""shape(*operand_shapes, **attributes) -> Shape; operators with called computations also get `called=`.

Raises ShapeError with the reason in words when operands or attributes break the operator's rule.
"""

Evaluation = Callable[..., Any]
"""evaluate(instruction, *operand_values) -> value.

Values: numpy arrays of `dtype.numpy`, tuples of values for tuple shapes, None for tokens. Operators that call computations
declare `calls_back=True` and take a keyword `run(computation, *values) -> value`.
"""


class ShapeError(Exception):
    """Why operands or attributes do not fit an operator; the verifier and the readers turn it into a CompileError."""


@dataclass(frozen=True, eq=False)
class Operator:
    """One HLO operator.

    min_operands / max_operands: arity, max None for any number.
    called: text keys of the called computations in protobuf order; a trailing "*" means any number in braces.
    shape: rule for the result; None when the result shape must be declared (then `check` may still verify it).
    check: check(instruction) -> None, raises ShapeError; for what the shape rule alone cannot say.
    refuse: refuse(instruction), raises CompileError for a legal instruction that neither device nor host can run.
    """

    name: str
    min_operands: int
    max_operands: int | None
    attributes: tuple[Attribute, ...] = ()
    called: tuple[str, ...] = ()
    shape: ShapeRule | None = None
    check: Callable[[Any], None] | None = None
    evaluate: Evaluation | None = None
    refuse: Callable[[Any], object] | None = None
    calls_back: bool = False
    elementwise: bool = False
    commutative: bool = False
    side_effect: bool = False
    moves_data: bool = False
    identity: bool = False
    defaults: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name


OPERATORS: dict[str, Operator] = {}


def operator(name: str, operands: int | tuple[int, int | None], *, attributes: Sequence[Attribute] = (),
             **properties: Any) -> Operator:
    """Declare an operator; `operands` is a count or a (min, max) pair with max None for any number."""
    assert name not in OPERATORS, f"{name} declared twice"
    low, high = operands if isinstance(operands, tuple) else (operands, operands)
    row = Operator(name, low, high, tuple(attributes), defaults={a.key: a.default for a in attributes}, **properties)
    OPERATORS[name] = row
    return row


@cache
def _load_families() -> None:
    for family in FAMILIES:
        importlib.import_module(f"nxcc.ir.hlo.ops.{family}")


def operators() -> dict[str, Operator]:
    """All declared operators by name."""
    _load_families()
    return OPERATORS


def find(name: str) -> Operator:
    """The operator of this name; CompileError(NXC0105) naming the nearest one if there is none."""
    _load_families()
    row = OPERATORS.get(name)
    if row is None:
        raise CompileError(UNKNOWN_OPERATOR, f"no HLO operator is named {name!r}", remedy=near(name, OPERATORS))
    return row
