"""Modules with loops, as text: a counter (or a sum) that ends them, and a body."""

from __future__ import annotations

SQUARE = "f32[64,64]{1,0}"


def looping(turns: int, work: str, *, functions: str = "", by_data: bool = False) -> str:
    """A while over (counter, x f32[64,64]). work: lines that make %y of %x, with %zero and %nought (s32, f32).

    by_data: the loop ends when a sum of x is large enough, which nobody knows before it runs.
    """
    test = ("%sum = f32[] reduce(%x, %nought), dimensions={0,1}, to_apply=%add\n  ROOT %test = pred[] compare(%sum, %end), "
            "direction=LT\n") if by_data else "ROOT %test = pred[] compare(%i, %end), direction=LT\n"
    end = "f32[] constant(1000)" if by_data else f"s32[] constant({turns})"
    state = f"(s32[], {SQUARE})"
    return f"""HloModule looping
%add (a: f32[], b: f32[]) -> f32[] {{
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}}
{functions}
%body (s: {state}) -> {state} {{
  %s = {state} parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = {SQUARE} get-tuple-element(%s), index=1
  %one = s32[] constant(1)
  %zero = s32[] constant(0)
  %nought = f32[] constant(0)
  %next = s32[] add(%i, %one)
  {work}
  ROOT %t = {state} tuple(%next, %y)
}}
%condition (s: {state}) -> pred[] {{
  %s = {state} parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = {SQUARE} get-tuple-element(%s), index=1
  %nought = f32[] constant(0)
  %end = {end}
  {test}}}
ENTRY %main (x: {SQUARE}) -> {SQUARE} {{
  %x = {SQUARE} parameter(0)
  %zero = s32[] constant(0)
  %t = {state} tuple(%zero, %x)
  %loop = {state} while(%t), condition=%condition, body=%body
  ROOT %r = {SQUARE} get-tuple-element(%loop), index=1
}}
"""


SINE = f"%y = {SQUARE} sine(%x)"
PRODUCT = f"""%d = {SQUARE} dot(%x, %x), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  %y = {SQUARE} tanh(%d)"""
ROW = f"""%row = f32[1,64]{{1,0}} dynamic-slice(%x, %i, %zero), dynamic_slice_sizes={{1,64}}
  %new = f32[1,64]{{1,0}} exponential(%row)
  %y = {SQUARE} dynamic-update-slice(%x, %new, %i, %zero)"""
BRANCH = f"""%sum = f32[] reduce(%x, %nought), dimensions={{0,1}}, to_apply=%add
  %positive = pred[] compare(%sum, %nought), direction=GT
  %y = {SQUARE} conditional(%positive, %x, %x), true_computation=%then, false_computation=%other"""
ARMS = f"""%then (x: {SQUARE}) -> {SQUARE} {{
  %x = {SQUARE} parameter(0)
  ROOT %y = {SQUARE} tanh(%x)
}}
%other (x: {SQUARE}) -> {SQUARE} {{
  %x = {SQUARE} parameter(0)
  ROOT %y = {SQUARE} dot(%x, %x), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}
"""


def nested(outer: int, inner: int) -> str:
    """A loop in a loop."""
    state = f"(s32[], {SQUARE})"
    functions = f"""%inner (s: {state}) -> {state} {{
  %s = {state} parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = {SQUARE} get-tuple-element(%s), index=1
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %y = {SQUARE} tanh(%x)
  ROOT %t = {state} tuple(%next, %y)
}}
%again (s: {state}) -> pred[] {{
  %s = {state} parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %end = s32[] constant({inner})
  ROOT %test = pred[] compare(%i, %end), direction=LT
}}
"""
    work = f"""%it = {state} tuple(%zero, %x)
  %il = {state} while(%it), condition=%again, body=%inner
  %e = {SQUARE} get-tuple-element(%il), index=1
  %y = {SQUARE} multiply(%e, %e)"""
    return looping(outer, work, functions=functions)
