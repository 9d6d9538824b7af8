"""Texts of the computations that reductions, windows and scatters call."""

from __future__ import annotations


def combiner(name: str, opcode: str, dtype: str = "f32") -> str:
    """A computation of two scalars, on a line of its own."""
    return f"{name} {{ a = {dtype}[] parameter(0) b = {dtype}[] parameter(1) ROOT r = {dtype}[] {opcode}(a, b) }}\n"
