"""Recurrences with what makes their coefficients and what becomes of their states, against the oracle."""

from __future__ import annotations

import pytest

from harness.combiners import combiner
from harness.whole import check_whole

COMBINERS = combiner("add", "add")


def recurrence(dims: str) -> str:
    return f"""%step (f: f32[{dims}], t: f32[{dims}], h: f32[{dims}]) -> (f32[{dims}], f32[{dims}]) {{
  %f = f32[{dims}] parameter(0)
  %t = f32[{dims}] parameter(1)
  %h = f32[{dims}] parameter(2)
  %m = f32[{dims}] multiply(%f, %h)
  %n = f32[{dims}] add(%m, %t)
  ROOT %r = (f32[{dims}], f32[{dims}]) tuple(%n, %n)
}}
"""


def selective(batch: int, channels: int, states: int, steps: int, *, late: bool = False, started: bool = False,
              reverse: str = "false") -> str:
    """A selective state space with a gate; late: time is the first dimension of what is given, as a framework's loop has it."""
    b, c, s, t = batch, channels, states, steps
    full, row = f"f32[{b},{c},{s},{t}]", f"f32[{b},{c},{t}]"

    def given(name: str, number: int, size: int) -> str:
        if not late:
            return f"%{name} = f32[{b},{size},{t}] parameter({number})"
        return f"%{name}0 = f32[{b},{t},{size}] parameter({number})\n" \
            f"  %{name} = f32[{b},{size},{t}] transpose(%{name}0), dimensions={{0,2,1}}"
    source = "parameter(5)" if started else "broadcast(%zero), dimensions={}"
    start = f"%start = f32[{b},{c},{s}] {source}"
    order = f"dimensions={{3}}, num_carries=1, is_reverse={reverse}, to_apply=%step"
    return f"""HloModule selective
{COMBINERS}
{recurrence(f"{b},{c},{s}")}
ENTRY main {{
  {given("raw", 0, c)}
  %delta = {row} logistic(%raw)
  {given("u", 1, c)}
  %a0 = f32[{c},{s}] parameter(2)
  {given("b", 3, s)}
  {given("c", 4, s)}
  %zero = f32[] constant(0)
  {start}
  %a1 = f32[{c},{s}] exponential(%a0)
  %a = f32[{c},{s}] negate(%a1)
  %deltas = {full} broadcast(%delta), dimensions={{0,1,3}}
  %as = {full} broadcast(%a), dimensions={{1,2}}
  %da = {full} multiply(%deltas, %as)
  %factors = {full} exponential(%da)
  %du = {row} multiply(%delta, %u)
  %dus = {full} broadcast(%du), dimensions={{0,1,3}}
  %bs = {full} broadcast(%b), dimensions={{0,2,3}}
  %terms = {full} multiply(%dus, %bs)
  %scanned = ({full}, f32[{b},{c},{s}]) scan(%factors, %terms, %start), {order}
  %h = {full} get-tuple-element(%scanned), index=0
  %cs = {full} broadcast(%c), dimensions={{0,2,3}}
  %weighted = {full} multiply(%h, %cs)
  %y = {row} reduce(%weighted, %zero), dimensions={{2}}, to_apply=%add
  %gate = {row} logistic(%u)
  ROOT %out = {row} multiply(%y, %gate)
}}
"""


@pytest.mark.parametrize(("batch", "channels", "states", "steps", "late", "started", "reverse"), [
    (1, 256, 4, 600, False, False, "false"), (2, 130, 3, 70, False, True, "true"), (2, 150, 16, 200, True, False, "false"),
    (1, 1, 2, 40, False, True, "false"), (1, 40, 20, 1100, True, True, "false"), (3, 700, 1, 64, False, False, "false")])
def test_selective_state_space(batch: int, channels: int, states: int, steps: int, late: bool, started: bool,
                               reverse: str) -> None:
    text = selective(batch, channels, states, steps, late=late, started=started, reverse=reverse)
    check_whole(text, levels=("2",), strict=True)


@pytest.mark.parametrize("vector_first", (False, True))
def test_states_that_a_product_sums_up(vector_first: bool) -> None:
    """As frameworks write the output of a state space: lben,bln->ble."""
    text = selective(2, 130, 5, 70)
    dims = ("rhs_batch_dims={0,1}, rhs_contracting_dims={2}", "lhs_batch_dims={1,0}, lhs_contracting_dims={3}")
    operands, order = "%moved, %late", (dims[1], dims[0])
    if vector_first:
        operands = "%late, %moved"
        order = tuple(part.replace("rhs", "xhs").replace("lhs", "rhs").replace("xhs", "lhs") for part in (dims[0], dims[1]))
    start, end = text.index("  %cs = "), text.index("  %gate = ")
    text = text[:start] + f"""  %moved = f32[70,2,130,5] transpose(%h), dimensions={{3,0,1,2}}
  %late = f32[2,70,5] transpose(%c), dimensions={{0,2,1}}
  %product = f32[2,70,130] dot({operands}), {", ".join(order)}
  %y = f32[2,130,70] transpose(%product), dimensions={{0,2,1}}
""" + text[end:]
    check_whole(text, levels=("0", "2"), strict=True)


@pytest.mark.parametrize(("rows", "steps"), [(200, 700), (3, 1300)])
def test_average(rows: int, steps: int) -> None:
    """An exponential average: no states to sum over."""
    m = f"f32[{rows},{steps}]"
    check_whole(f"""HloModule average
{recurrence(str(rows))}
ENTRY main {{
  %x = {m} parameter(0)
  %g = f32[{rows}] parameter(1)
  %start = f32[{rows}] parameter(2)
  %keep = f32[{rows}] logistic(%g)
  %keeps = {m} broadcast(%keep), dimensions={{0}}
  %half = f32[] constant(0.5)
  %halves = {m} broadcast(%half), dimensions={{}}
  %terms = {m} multiply(%x, %halves)
  %scanned = ({m}, f32[{rows}]) scan(%keeps, %terms, %start), dimensions={{1}}, num_carries=1, to_apply=%step
  %h = {m} get-tuple-element(%scanned), index=0
  ROOT %out = {m} tanh(%h)
}}
""", levels=("2",), strict=True)
