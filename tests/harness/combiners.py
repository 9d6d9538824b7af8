"""Texts of the computations that reductions, windows and scatters call."""

from __future__ import annotations


def combiner(name: str, opcode: str, dtype: str = "f32") -> str:
    """A computation of two scalars, on a line of its own."""
    return f"{name} {{ a = {dtype}[] parameter(0) b = {dtype}[] parameter(1) ROOT r = {dtype}[] {opcode}(a, b) }}\n"


def first_of(name: str, dtype: str = "f32", direction: str = "GT") -> str:
    """A computation of two pairs (value, s32 place): the larger value (GT) or the smaller one (LT), of equals that of the
    earlier place, and any NaN before numbers."""
    return f"""{name} {{
  a = {dtype}[] parameter(0)
  i = s32[] parameter(1)
  b = {dtype}[] parameter(2)
  j = s32[] parameter(3)
  more = pred[] compare(a, b), direction={direction}
  none = pred[] compare(a, a), direction=NE
  first = pred[] or(more, none)
  value = {dtype}[] select(first, a, b)
  same = pred[] compare(a, b), direction=EQ
  before = pred[] compare(i, j), direction=LT
  tie = pred[] and(same, before)
  left = pred[] or(first, tie)
  place = s32[] select(left, i, j)
  ROOT both = ({dtype}[], s32[]) tuple(value, place)
}}
"""
