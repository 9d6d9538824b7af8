"""Reduction, bisection and trials of modules."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nxcc.cli import main
from nxcc.compiler.debugging.bisect import bisect, bisect_lines, walk_passes
from nxcc.compiler.debugging.candidate import Candidate, extract, recorded
from nxcc.compiler.debugging.reduce import Budget, Start, reduce_candidate
from nxcc.compiler.debugging.trial import AGREES, BROKEN, DIFFERS, REFUSED, Trial, difference
from nxcc.compiler.options import CompileOptions
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.verifier import verify
from nxcc.passes.simplify import Simplify

CHAIN = """HloModule chain
inner { x = f32[8,6] parameter(0)
  ROOT t = f32[8,6] tanh(x) }
ENTRY e {
  a = f32[8,6] parameter(0)
  b = f32[8,6] parameter(1)
  s = f32[8,6] add(a, b)
  c = f32[8,6] call(s), to_apply=inner
  f = f32[8,6] floor(c)
  m = f32[8,6] multiply(f, a)
  n = f32[8,6] negate(b)
  ROOT r = (f32[8,6], f32[8,6]) tuple(m, n)
}"""


def candidate(text: str) -> Candidate:
    module = read_text(text)
    random = np.random.default_rng(0)
    shapes = [parameter.shape for parameter in module.entry.parameters]
    return Candidate(module, tuple(random.normal(size=s.dims).astype(s.dtype.numpy) for s in shapes))


def opcodes(module: Module) -> list[str]:
    return [instruction.opcode for instruction in module.entry.instructions]


def holds(opcode: str) -> Any:
    return lambda module, values: opcode in {i.opcode for i in module.instructions()}


@pytest.mark.parametrize("opcode", ["floor", "negate", "multiply", "tanh"])
def test_reduction_leaves_the_failing_instruction_alone(opcode: str) -> None:
    found = reduce_candidate(candidate(CHAIN), holds(opcode))
    assert set(opcodes(found.module)) == {"parameter", opcode}
    assert {dim for i in found.module.instructions() for dim in i.shape.dims} == {1}
    verify(found.module)
    evaluate(found.module, list(found.values))


def test_parameters_hold_what_was_computed_there() -> None:
    start = candidate(CHAIN)
    values = recorded(start)
    floor = next(i for i in values if i.opcode == "floor")
    cut = extract(start, [start.module.entry.root], frozenset([floor]), values)
    assert "call" not in opcodes(cut.module)
    assert [c.name for c in cut.module.computations] == ["e"]
    for one, other in zip(flatten(evaluate(cut.module, list(cut.values))), flatten(evaluate(start.module, list(start.values))),
                          strict=True):
        np.testing.assert_array_equal(one, other)


def test_reduction_works_inside_loops() -> None:
    loop = """HloModule loop
    body { p = (s32[], f32[4]) parameter(0)
      i = s32[] get-tuple-element(p), index=0
      x = f32[4] get-tuple-element(p), index=1
      one = s32[] constant(1)
      j = s32[] add(i, one)
      y = f32[4] sine(x)
      z = f32[4] cosine(y)
      ROOT t = (s32[], f32[4]) tuple(j, z) }
    condition { p = (s32[], f32[4]) parameter(0)
      i = s32[] get-tuple-element(p), index=0
      n = s32[] constant(3)
      ROOT c = pred[] compare(i, n), direction=LT }
    ENTRY e { x = f32[4] parameter(0)
      zero = s32[] constant(0)
      s = (s32[], f32[4]) tuple(zero, x)
      w = (s32[], f32[4]) while(s), condition=condition, body=body
      ROOT r = f32[4] get-tuple-element(w), index=1 }"""

    def fails(module: Module, values: Any) -> bool:
        return holds("while")(module, values) and holds("cosine")(module, values)

    found = reduce_candidate(candidate(loop), fails)
    assert "sine" not in {i.opcode for i in found.module.instructions()}


def test_dimensions_shrink_in_attributes_too() -> None:
    text = """HloModule m
    ENTRY e { a = f32[40,12] parameter(0)
      s = f32[40,12] slice(a), slice={[0:40], [0:12]}
      b = f32[12,40] transpose(s), dimensions={1,0}
      ROOT d = f32[40,40] dot(s, b), lhs_contracting_dims={1}, rhs_contracting_dims={0} }"""

    def fails(module: Module, values: Any) -> bool:
        return all(holds(opcode)(module, values) for opcode in ("slice", "transpose", "dot"))

    found = reduce_candidate(candidate(text), fails)
    assert max(dim for i in found.module.instructions() for dim in i.shape.dims) == 1
    assert found.values[0].shape == (1, 1)


def test_numbers_stay_numbers_beside_dimensions_that_shrink() -> None:
    """What is cut along dimensions has as many as before, none included."""
    start = candidate("""HloModule m
add { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = f32[] add(a, b) }
ENTRY e { x = f32[40] parameter(0)
  z = f32[] constant(1)
  ROOT r = f32[] reduce(x, z), dimensions={0}, to_apply=add }""")

    def fails(module: Module, values: Any) -> bool:
        ranks = [(i.shape.rank, i.attribute("literal").array.ndim) for i in module.entry.instructions if i.opcode == "constant"]
        assert all(shape == array for shape, array in ranks)
        return "reduce" in opcodes(module)

    found = reduce_candidate(start, fails)
    assert max(p.shape.rank for p in found.module.entry.parameters) == 1


def test_budget_ends_the_search() -> None:
    budget = Budget(trials=3)
    reduce_candidate(candidate(CHAIN), holds("floor"), budget)
    assert budget.used == 3


def test_start_that_fails_only_as_it_is_stays() -> None:
    start = candidate(CHAIN)
    assert reduce_candidate(start, lambda module, values: module is start.module) is start


def test_candidate_that_never_ends_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nxcc.compiler.debugging.reduce.LEAST_TRIAL_SECONDS", 0.05)
    monkeypatch.setattr("nxcc.compiler.debugging.reduce.TRIAL_FACTOR", 0.0)

    def fails(module: Module, values: Any) -> bool:
        while not holds("tanh")(module, values):
            pass
        return True

    found = reduce_candidate(candidate(CHAIN), fails, Budget(trials=30))
    assert holds("tanh")(found.module, found.values)
    assert found.size < candidate(CHAIN).size


# Trials


@pytest.mark.parametrize("level", ["0", "1"])
def test_right_module_agrees(level: str) -> None:
    start = candidate(CHAIN)
    assert Trial(CompileOptions(optlevel=level)).judge(start.module, start.values).kind == AGREES


def test_error_for_the_user_is_no_fault() -> None:
    start = candidate("""HloModule m
    ENTRY e { a = f32[2] parameter(0)
      ROOT c = f32[2] custom-call(a), custom_call_target="nobody_knows" }""")
    verdict = Trial(CompileOptions()).judge(start.module, start.values)
    assert (verdict.kind, verdict.is_fault) == (REFUSED, False)


def test_fault_names_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Simplify, "run", lambda self, module: [][0])
    start = candidate(CHAIN)
    verdict = Trial(CompileOptions()).judge(start.module, start.values)
    assert verdict.kind == BROKEN
    assert verdict.key.startswith("IndexError at ")


def test_rounding_that_flips_a_choice_is_no_difference() -> None:
    start = candidate("""HloModule m
    ENTRY e { a = f32[1] parameter(0)
      s = f32[1] multiply(a, a)
      ROOT f = f32[1] floor(s) }""")
    start = Candidate(start.module, (np.array([2.0], np.float32),))
    assert difference(start.module, start.values, [np.array([3.0], np.float32)], [np.array([4.0], np.float32)]) == ""
    start = Candidate(start.module, (np.array([2.2], np.float32),))
    assert "error 0.25" in difference(start.module, start.values, [np.array([3.0], np.float32)], [np.array([4.0], np.float32)])


# Bisection


def _negate_all(self: Any, module: Module) -> bool:
    """A pass that is wrong: sums become differences."""
    from nxcc.ir.hlo.operator import find
    adds = [i for i in module.instructions() if i.opcode == "add"]
    for instruction in adds:
        instruction.operator, instruction.opcode = find("subtract"), "subtract"
    return bool(adds)


def test_wrong_pass_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nxcc.passes.canonicalize_dot.CanonicalizeDot.run", _negate_all)
    finding = bisect(candidate(CHAIN), Trial(CompileOptions()))
    assert finding.verdict.kind == DIFFERS
    assert finding.culprit_pass == "canonicalize-dot"
    assert "canonicalize-dot" in finding.cured_by


def test_pass_that_raises_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, module: Module) -> bool:
        raise KeyError("x")
    monkeypatch.setattr("nxcc.passes.move_reshapes.MoveReshapes.run", broken)
    name, how, _ = walk_passes(candidate(CHAIN), Trial(CompileOptions()))
    assert (name, how) == ("move-reshapes", "KeyError: 'x'")


def test_wrong_instruction_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trial.run

    def device(self: Trial, module: Module, leaves: list[Any]) -> list[Any]:
        """A machine that takes floor for something else."""
        found = run(self, module, leaves)
        return [value + 3 for value in found] if holds("floor")(module, leaves) else found
    monkeypatch.setattr(Trial, "run", device)
    finding = bisect(candidate(CHAIN), Trial(CompileOptions(optlevel="0")))
    assert finding.culprit_pass == ""
    assert " floor(" in finding.instruction


def test_model_that_agrees_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.hlo"
    path.write_text(CHAIN)
    assert main(["bisect", str(path)]) == 0
    assert "agree" in capsys.readouterr().out
    assert bisect_lines({"model": "m", "verdict": AGREES}) == ["m: simulator and oracle agree"]


# The command


def test_reduce_command_writes_module_and_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nxcc.passes.canonicalize_dot.CanonicalizeDot.run", _negate_all)
    path, output = tmp_path / "m.hlo", tmp_path / "small.hlo"
    path.write_text(CHAIN)
    assert main(["reduce", str(path), "-o", str(output), "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    reduced = Start(str(output), CompileOptions(), str(tmp_path / "small.npz")).candidate()
    assert body["instructions"] == len(reduced.module.entry.instructions) == 3
    assert opcodes(reduced.module) == ["parameter", "parameter", "add"]
    assert Trial(CompileOptions()).judge(reduced.module, reduced.values).kind == DIFFERS


def test_reduce_by_a_command(tmp_path: Path) -> None:
    path, output, script = tmp_path / "m.hlo", tmp_path / "small.hlo", tmp_path / "t.py"
    path.write_text(CHAIN)
    script.write_text("import sys\nsys.exit(3 * (' floor(' in open(sys.argv[1]).read()))")
    assert main(["reduce", str(path), "-o", str(output), "--test", f"{sys.executable} {script}", "--trials", "60"]) == 0
    assert " floor(" in output.read_text() and " multiply(" not in output.read_text()


def test_reduce_refuses_what_does_not_fail(tmp_path: Path) -> None:
    path = tmp_path / "m.hlo"
    path.write_text(CHAIN)
    with pytest.raises(CompileError, match="does not fail"):
        from nxcc.compiler.debugging.reduce import reduce_file
        reduce_file(Start(str(path), CompileOptions()), str(tmp_path / "o.hlo"))
