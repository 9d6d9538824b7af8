"""Whatever a search may choose for a region gives the same results, and what it chooses is quicker and always the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from nxcc.backends.codegen import attempts, searching
from nxcc.backends.codegen.code import DeviceCode
from nxcc.backends.isa.text import program_text
from nxcc.backends.isa.verifier import verify_program
from nxcc.backends.simulator.functional import Machine
from nxcc.backends.simulator.timing import time_program
from nxcc.backends.target import load_target
from nxcc.compiler.cache import findings
from nxcc.compiler.driver import compile_module
from nxcc.compiler.options import CompileOptions
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text

V2 = load_target("v2")

MODULES = {
    "epilogue": """HloModule m
ENTRY e {
  x = f32[300,256] parameter(0)
  w = f32[256,1500] parameter(1)
  b = f32[1500] parameter(2)
  p = f32[300,1500] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  c = f32[300,1500] broadcast(b), dimensions={1}
  s = f32[300,1500] add(p, c)
  ROOT r = f32[300,1500] tanh(s)
}""",
    "heads": """HloModule m
add { a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT s = f32[] add(a, b) }
max { a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT s = f32[] maximum(a, b) }
ENTRY e {
  q = f32[6,64,32] parameter(0)
  k = f32[6,64,32] parameter(1)
  v = f32[6,64,32] parameter(2)
  s = f32[6,64,64] dot(q, k), lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_contracting_dims={2}
  l = f32[] constant(-inf)
  m = f32[6,64] reduce(s, l), dimensions={2}, to_apply=max
  n = f32[6,64,64] broadcast(m), dimensions={0,1}
  d = f32[6,64,64] subtract(s, n)
  x = f32[6,64,64] exponential(d)
  z = f32[] constant(0)
  t = f32[6,64] reduce(x, z), dimensions={2}, to_apply=add
  u = f32[6,64,64] broadcast(t), dimensions={0,1}
  p = f32[6,64,64] divide(x, u)
  ROOT r = f32[6,64,32] dot(p, v), lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_contracting_dims={1}
}""",
    "matrices that stream by": """HloModule m
add { a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT s = f32[] add(a, b) }
ENTRY e {
  x = f32[700,1024] parameter(0)
  w = f32[1024,1024] parameter(1)
  p = f32[700,1024] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  q = f32[700,1024] multiply(p, p)
  z = f32[] constant(0)
  t = f32[700] reduce(q, z), dimensions={1}, to_apply=add
  i = f32[700] rsqrt(t)
  u = f32[700,1024] broadcast(i), dimensions={0}
  ROOT r = f32[700,1024] multiply(p, u)
}""",
}


def code_of(text: str, jobs: int = 1) -> DeviceCode:
    findings._here.clear()
    code = compile_module(read_text(text), CompileOptions(optlevel="3", jobs=jobs)).code
    assert code is not None
    return code


def check(text: str, code: DeviceCode) -> None:
    """The code's results are the oracle's."""
    verify_program(code.program, V2, hbm_bytes=code.program.hbm_bytes)
    module, random = read_text(text), np.random.default_rng(0)
    inputs = [random.normal(size=p.shape.dims).astype(np.float32) for p in module.entry.parameters]
    machine = Machine(code.program, code.program.hbm_bytes)
    for parameter, value in zip(module.entry.parameters, inputs, strict=True):
        machine.write(code.bindings[f"input{parameter.attributes['parameter_number']}"].address, value)
    for binding, literal in code.constants:
        machine.write(binding.address, np.ascontiguousarray(literal.array))
    machine.run(0)
    out = code.bindings["output0"]
    (want,) = flatten(evaluate(module, inputs))
    np.testing.assert_allclose(machine.read(out.address, out.dtype, out.dims), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODULES)
def test_every_choice_gives_the_same_results(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, int] = {}

    def forced(choice: Mapping[str, int]) -> Any:
        def choose(write: searching.Write, *_: object) -> Mapping[str, int]:
            base = write({})
            if base is not None:
                asked.update(base.asked)
            return choice if write(choice) is not None else {}
        return choose

    monkeypatch.setattr(attempts, "best_choices", forced({}))
    code_of(MODULES[name])
    assert asked
    for which, options in list(asked.items()):
        for option in range(1, options):
            monkeypatch.setattr(attempts, "best_choices", forced({which: option}))
            check(MODULES[name], code_of(MODULES[name]))


@pytest.mark.parametrize("name", MODULES)
def test_a_searched_region_is_never_slower_and_the_same_in_any_number_of_processes(name: str) -> None:
    plain = compile_module(read_text(MODULES[name]), CompileOptions(optlevel="2")).code
    found = code_of(MODULES[name])
    assert plain is not None
    assert time_program(found.program, V2).ticks <= time_program(plain.program, V2).ticks
    assert program_text(code_of(MODULES[name], jobs=2).program) == program_text(found.program)
    check(MODULES[name], found)


def test_what_was_found_is_not_timed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = code_of(MODULES["epilogue"])
    monkeypatch.setattr(searching, "_ticks", None)
    again = compile_module(read_text(MODULES["epilogue"]), CompileOptions(optlevel="3")).code
    assert again is not None and program_text(again.program) == program_text(first.program)


def test_other_processes_time_what_they_are_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """With several jobs this process times no region."""
    here, real = [], searching._ticks
    monkeypatch.setattr(searching, "_ticks", lambda *rest: here.append(rest) or real(*rest))
    alone = code_of(MODULES["epilogue"])
    tried = len(here)
    here.clear()
    shared = code_of(MODULES["epilogue"], jobs=2)
    assert tried > 1 and len(here) == 1  # the region as rules write it, to compare with
    assert program_text(shared.program) == program_text(alone.program)
