"""Finding the names that are taken costs a walk over the module: a pass that works in many computations makes one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nxcc.backends.target import load_target
from nxcc.compiler.driver import pass_settings
from nxcc.compiler.options import options_from
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.text.reader import read_text
from nxcc.passes.loops.vectorize_loops import VectorizeLoops
from nxcc.passes.pipeline import run_pipeline
from nxcc.passes.simplify import Simplify

LOOP = """
cond{n} {{ s = (s32[], f32[8]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  most = s32[] constant(4)
  ROOT less = pred[] compare(i, most), direction=LT }}
body{n} {{ s = (s32[], f32[8]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  one = s32[] constant(1)
  next = s32[] add(i, one)
  x = f32[8] get-tuple-element(s), index=1
  y = f32[8] multiply(x, x)
  again = f32[8] negate(y)
  back = f32[8] negate(again)
  z = f32[8] tanh(back)
  ROOT t = (s32[], f32[8]) tuple(next, z) }}
"""


def loops_text(count: int) -> str:
    lines = ["ENTRY e { x0 = f32[8] parameter(0)", "  zero = s32[] constant(0)"]
    for n in range(count):
        lines += [f"  start{n} = (s32[], f32[8]) tuple(zero, x{n})",
                  f"  loop{n} = (s32[], f32[8]) while(start{n}), condition=cond{n}, body=body{n}",
                  f"  {'ROOT ' if n == count - 1 else ''}x{n + 1} = f32[8] get-tuple-element(loop{n}), index=1"]
    return "HloModule loops" + "".join(LOOP.format(n=n) for n in range(count)) + "\n".join([*lines, "}"])


@pytest.mark.parametrize("made", [Simplify(), VectorizeLoops()], ids=lambda made: made.name)
def test_walks_for_names_do_not_grow_with_the_computations(made: Simplify | VectorizeLoops,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    walks = []
    plain = Module.instructions

    def counted(self: Module) -> Iterator[Instruction]:
        walks.append(self)
        return plain(self)

    monkeypatch.setattr(Module, "instructions", counted)
    counts = []
    for loops in (2, 12):
        module = read_text(loops_text(loops))
        walks.clear()
        made.run(module)
        counts.append(len(walks))
        names = [i.name for c in module.computations for i in c.instructions if c is module.entry]
        assert len(names) == len(set(names))
    assert counts[1] <= counts[0], counts


NUMBERED = """HloModule m
ENTRY e {
  a = f32[24,64] parameter(0)
  b = f32[24,64] parameter(1)
  w = bf16[64,64] parameter(2)
  p0 = f32[24,64] multiply(a, b)
  p1 = f32[24,64] add(p0, a)
  p2 = f32[24,64] exponential(p1)
  p3 = f32[24,64] subtract(p2, b)
  p4 = bf16[24,64] convert(p3)
  d = bf16[24,64] dot(p4, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT t = (f32[24,64], bf16[24,64]) tuple(p3, d)
}"""


@pytest.mark.parametrize("target", ["v1", "v2"])
def test_regions_name_what_they_hold_once(target: str) -> None:
    """A module may name its instructions as regions name their parameters."""
    module = read_text(NUMBERED)
    run_pipeline(module, pass_settings(options_from(optlevel=2, target=target), load_target(target)))
    for computation in module.computations:
        names = [instruction.name for instruction in computation.instructions]
        assert len(set(names)) == len(names), computation.name
