"""Attention as HLO text, and the combiners that programs of rows reduce with."""

from __future__ import annotations

from harness.combiners import combiner

COMBINERS = combiner("add", "add") + combiner("max", "maximum")


def softmax(dims: tuple[int, ...], values: str, result: str = "%p") -> str:
    """Lines that make the softmax of f32 values over their last dimension, with COMBINERS."""
    *outer, _ = range(len(dims))
    s, r = (f"f32[{','.join(map(str, sizes))}]" for sizes in (dims, dims[:-1]))
    kept = f"dimensions={{{','.join(map(str, outer))}}}"
    return f"""  %low = f32[] constant(-inf)
  %zero = f32[] constant(0)
  %most = {r} reduce(%{values}, %low), dimensions={{{len(outer)}}}, to_apply=%max
  %mosts = {s} broadcast(%most), {kept}
  %shifted = {s} subtract(%{values}, %mosts)
  %e = {s} exponential(%shifted)
  %total = {r} reduce(%e, %zero), dimensions={{{len(outer)}}}, to_apply=%add
  %totals = {s} broadcast(%total), {kept}
  {result} = {s} divide(%e, %totals)"""


def attention(batch: int, heads: int, rows: int, keys: int, depth: int, turned: bool = True) -> str:
    """Softmax attention with a mask; turned: keys lie as [.., keys, heads, depth], as a projection leaves them."""
    def lies(count: int) -> str:
        return f"f32[{batch},{count},{heads},{depth}]"
    k = f"f32[{batch},{heads},{depth},{keys}]"
    s = f"f32[{batch},{heads},{rows},{keys}]"
    by_head = "lhs_batch_dims={0,1}, rhs_batch_dims={0,1}, lhs_contracting_dims={3}, rhs_contracting_dims={2}"
    of_keys = f"""%k0 = {lies(keys)} parameter(1)
  %k = {k} transpose(%k0), dimensions={{0,2,3,1}}""" if turned else f"%k = {k} parameter(1)"
    return f"""HloModule attention
{COMBINERS}
ENTRY main {{
  %q0 = {lies(rows)} parameter(0)
  %q = f32[{batch},{heads},{rows},{depth}] transpose(%q0), dimensions={{0,2,1,3}}
  {of_keys}
  %v0 = {lies(keys)} parameter(2)
  %v = f32[{batch},{heads},{keys},{depth}] transpose(%v0), dimensions={{0,2,1,3}}
  %mask = f32[{batch},{keys}] parameter(3)
  %dots = {s} dot(%q, %k), {by_head}
  %eighth = f32[] constant(0.125)
  %eighths = {s} broadcast(%eighth), dimensions={{}}
  %scaled = {s} multiply(%dots, %eighths)
  %masks = {s} broadcast(%mask), dimensions={{0,3}}
  %scores = {s} add(%scaled, %masks)
{softmax((batch, heads, rows, keys), "scores")}
  ROOT %o = f32[{batch},{heads},{rows},{depth}] dot(%p, %v), {by_head}
}}
"""
