"""Trip counts of loops whose text says how often they run."""

import pytest

from nxcc.compiler.reports.roofline import module_work
from nxcc.compiler.reports.trips import loops, multiplicities, trip_count
from nxcc.ir.hlo.text.reader import read_text

LOOP = """HloModule m
body {{
  s = (s32[], f32[8], s32[]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  x = f32[8] get-tuple-element(s), index=1
  end = s32[] get-tuple-element(s), index=2
  step = s32[] constant({step})
  j = s32[] add(i, step)
  y = f32[8] tanh(x)
  ROOT t = (s32[], f32[8], s32[]) tuple(j, y, end)
}}
condition {{
  s = (s32[], f32[8], s32[]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  end = s32[] get-tuple-element(s), index=2
  limit = s32[] constant({limit})
  ROOT c = pred[] compare({test}), direction={direction}
}}
ENTRY main {{
  x = f32[8] parameter(0)
  n = s32[] parameter(1)
  start = s32[] constant({start})
  end = s32[] constant(12)
  s = (s32[], f32[8], s32[]) tuple(start, x, {end})
  w = (s32[], f32[8], s32[]) while(s), condition=condition, body=body
  ROOT r = f32[8] get-tuple-element(w), index=1
}}
"""


def module(start=0, step=1, limit=10, test="i, limit", direction="LT", end="end"):
    return read_text(LOOP.format(start=start, step=step, limit=limit, test=test, direction=direction, end=end))


def count(**change):
    (loop,) = loops(module(**change))
    return trip_count(loop)


@pytest.mark.parametrize(("change", "expected"), [
    ({}, 10), ({"direction": "LE"}, 11), ({"start": 3, "step": 4}, 2), ({"start": 20}, 0),
    ({"start": 9, "step": -1, "limit": 0, "direction": "GE"}, 10), ({"test": "limit, i", "direction": "GT"}, 10),
    ({"direction": "NE", "step": 5}, 2), ({"test": "i, end"}, 12)], ids=str)
def test_counted_loops(change, expected):
    assert count(**change) == expected


@pytest.mark.parametrize("change", [{"test": "i, end", "end": "n"}, {"step": -1}, {"direction": "NE", "step": 3}, {"step": 0},
                                    {"direction": "EQ"}], ids=str)
def test_loops_that_say_nothing(change):
    assert count(**change) is None


def test_bodies_count_as_often_as_they_run():
    found = multiplicities(module().entry)
    assert {computation.name: times for computation, times in found.items()} == {"main": 1, "body": 10, "condition": 10}
    assert module_work(module()).scalar == 80
    assert module_work(module(test="i, end", end="n")).scalar == 8


def test_values_that_many_others_read_are_looked_at_once():
    """Each term is the sum of the two before it: as an expression it would be longer than any text."""
    terms = "\n".join(f"  x{k} = s32[] add(x{k - 1}, x{k - 2})" for k in range(2, 3000))
    text = LOOP.format(start=0, step=1, limit=10, test="i, limit", direction="LT", end="end")
    start = "  x0 = s32[] add(i, end)\n  x1 = s32[] add(i, step)\n"
    text = text.replace("  y = f32[8] tanh(x)", f"{start}{terms}\n  y = f32[8] tanh(x)")
    (loop,) = loops(read_text(text.replace("tuple(j, y, end)", "tuple(j, y, x2999)")))
    assert trip_count(loop) == 10


def test_bodies_that_many_others_call():
    levels = "".join(f"c{n} {{\n  x = f32[] parameter(0)\n  a = f32[] call(x), to_apply=c{n - 1}\n"
                     f"  ROOT b = f32[] call(a), to_apply=c{n - 1}\n}}\n" for n in range(1, 60))
    first = "HloModule m\nc0 {\n  x = f32[] parameter(0)\n  ROOT y = f32[] sine(x)\n}\n"
    entry = "ENTRY main {\n  x = f32[] parameter(0)\n  ROOT r = f32[] call(x), to_apply=c59\n}\n"
    found = multiplicities(read_text(first + levels + entry).entry)
    assert {c.name: times for c, times in found.items()}["c0"] == 2**59
