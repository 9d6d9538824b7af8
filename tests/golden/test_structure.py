"""The machine program of operators that cost no region of their own: views, tuples and control flow, as somebody found it good.

What a region's own program is holds `test_lowering`; here a small module goes through code generation at level 0, so that
the views show as strides of what reads them, and control flow as loops and branches of the main streams.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nxcc.backends.codegen.code import DeviceNode
from nxcc.backends.codegen.control import STRUCTURAL
from nxcc.backends.codegen.generator import generate
from nxcc.backends.isa.text import program_text
from nxcc.backends.lowering.views import VIEW_OPCODES
from nxcc.backends.target import load_target
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text

from harness.device import differing, random_inputs, run_on_device

FOLDER = Path(__file__).parent / "structure"
LINES_MAX = 260

HALF = """
half { h = (s32[], f32[4,8]) parameter(0)
  n = s32[] get-tuple-element(h), index=0
  v = f32[4,8] get-tuple-element(h), index=1
  one = s32[] constant(1)
  m = s32[] add(n, one)
  w = f32[4,8] add(v, v)
  ROOT t = (s32[], f32[4,8]) tuple(m, w) }
below { h = (s32[], f32[4,8]) parameter(0)
  n = s32[] get-tuple-element(h), index=0
  four = s32[] constant(4)
  ROOT c = pred[] compare(n, four), direction=LT }
"""
ARMS = """
twice { a = f32[4,8] parameter(0)
  ROOT r = f32[4,8] add(a, a) }
less { a = f32[4,8] parameter(0)
  ROOT r = f32[4,8] negate(a) }
"""
ONE = "x = f32[4,8] parameter(0)\n  "
FORMS = {
    "bitcast": ("", ONE + "v = f32[8,4] bitcast(x)\n  ROOT r = f32[8,4] abs(v)"),
    "bitcast-convert": ("", ONE + "v = s32[4,8] bitcast-convert(x)\n  ROOT r = s32[4,8] not(v)"),
    "broadcast": ("", "x = f32[8] parameter(0)\n  v = f32[4,8] broadcast(x), dimensions={1}\n  ROOT r = f32[4,8] abs(v)"),
    "copy": ("", ONE + "v = f32[4,8] reverse(x), dimensions={1}\n  ROOT r = f32[4,8] copy(v)"),
    "reshape": ("", ONE + "v = f32[2,16] reshape(x)\n  ROOT r = f32[2,16] abs(v)"),
    "reverse": ("", ONE + "v = f32[4,8] reverse(x), dimensions={0,1}\n  ROOT r = f32[4,8] abs(v)"),
    "slice": ("", ONE + "v = f32[2,3] slice(x), slice={[1:3], [1:7:2]}\n  ROOT r = f32[2,3] abs(v)"),
    "transpose": ("", ONE + "v = f32[8,4] transpose(x), dimensions={1,0}\n  ROOT r = f32[8,4] abs(v)"),
    "tuple": ("", ONE + "a = f32[4,8] abs(x)\n  ROOT r = (f32[4,8], f32[4,8]) tuple(a, x)"),
    "get-tuple-element": ("", ONE + "a = f32[4,8] abs(x)\n  t = (f32[4,8], f32[4,8]) tuple(a, x)\n  "
                              "b = f32[4,8] get-tuple-element(t), index=0\n  ROOT r = f32[4,8] negate(b)"),
    "constant": ("", ONE + "c = f32[4,8] constant(3)\n  ROOT r = f32[4,8] add(x, c)"),
    "parameter": ("", "ROOT x = f32[4,8] parameter(0)"),
    "opt-barrier": ("", ONE + "a = f32[4,8] opt-barrier(x)\n  ROOT r = f32[4,8] abs(a)"),
    "domain": ("", ONE + "a = f32[4,8] domain(x), domain={kind=\"sharding\", entry={maximal device=0}, exit={replicated}}\n  "
                   "ROOT r = f32[4,8] abs(a)"),
    "after-all": ("", ONE + "t = token[] after-all()\n  a = f32[4,8] add-dependency(x, t)\n  ROOT r = f32[4,8] abs(a)"),
    "add-dependency": ("", ONE + "t = token[] after-all()\n  a = f32[4,8] add-dependency(x, t)\n  ROOT r = f32[4,8] abs(a)"),
    "call": (ARMS, ONE + "a = f32[4,8] call(x), to_apply=twice\n  ROOT r = f32[4,8] call(a), to_apply=twice"),
    "fusion": (ARMS, ONE + "ROOT r = f32[4,8] fusion(x), kind=kLoop, calls=twice"),
    "conditional": (ARMS, ONE + "p = pred[] parameter(1)\n  "
                    "ROOT r = f32[4,8] conditional(p, x, x), true_computation=twice, false_computation=less"),
    "while": (HALF, ONE + "z = s32[] constant(0)\n  t = (s32[], f32[4,8]) tuple(z, x)\n  "
              "ROOT r = (s32[], f32[4,8]) while(t), condition=below, body=half"),
}


@pytest.mark.parametrize("opcode", sorted(FORMS))
def test_structure(opcode: str, request: pytest.FixtureRequest) -> None:
    computations, entry = FORMS[opcode]
    text = f"HloModule m\n{computations}\nENTRY main {{\n  {entry}\n}}\n"
    module = read_text(text)
    shapes = {f"in{n}": parameter.shape for n, parameter in enumerate(module.entry.parameters)}
    results = {f"out{n}": leaf for n, leaf in enumerate(module.entry.root.shape.leaves())}
    code = generate([DeviceNode("test", module, tuple(shapes), tuple(results))], shapes | results, load_target("v2"))
    lines = program_text(code.program).splitlines()
    if len(lines) > LINES_MAX:
        lines = [*lines[:LINES_MAX], f"... {len(lines) - LINES_MAX} more"]
    found = "\n".join(["// " + entry.replace("\n  ", "\n// "), *lines]) + "\n"
    path = FOLDER / f"{opcode}.txt"
    if request.config.getoption("--update-golden"):
        path.write_text(found)
    assert path.exists(), f"{path} is missing; --update-golden writes it"
    assert path.read_text() == found
    inputs = random_inputs(module)
    for got, want in zip(run_on_device(module, inputs), flatten(evaluate(module, inputs)), strict=True):
        assert not differing(np.asarray(got), np.asarray(want)).any()


def test_each_operator_without_a_region_has_a_form() -> None:
    assert set(FORMS) == VIEW_OPCODES | STRUCTURAL
