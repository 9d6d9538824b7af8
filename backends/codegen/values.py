"""A value of HLO as code generation holds it: views of buffers in the arena."""

from __future__ import annotations

from typing import Any

from nxcc.backends.codegen.arena import Buffer
from nxcc.backends.tile.program import View
from nxcc.ir.facts import dataclass


@dataclass(frozen=True, slots=True)
class Located:
    """An array value: a view and the buffer it lies in."""

    view: View
    buffer: Buffer


Value = Any
"""Located, or a tuple of values; None for tokens."""


def leaves(value: Value) -> list[Located]:
    """Array leaves of a value, depth first; tokens left out."""
    if isinstance(value, Located):
        return [value]
    if value is None:
        return []
    return [leaf for element in value for leaf in leaves(element)]


def release_one(value: Value) -> Value:
    """Hand a held value on: the holder that `Generator.computation` counted becomes the caller's."""
    for leaf in leaves(value):
        leaf.buffer.references -= 1
    return value
