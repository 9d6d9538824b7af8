"""Random modules before all judges; any number of them: `python -m harness.random_hlo --count N` with tests/ on the path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nxcc.compiler.debugging.trial import DIFFERS, Trial
from nxcc.ir.dtypes import F32, PRED, S32
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.operator import operators
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.text.writer import write_text
from nxcc.ir.hlo.verifier import verify
from nxcc.passes.pipeline import PASS_NAMES

from harness.random_hlo import (
    LEFT_OUT,
    Bounds,
    Court,
    Fault,
    Generator,
    Tally,
    check,
    drawn_opcodes,
    element_types,
    fault_text,
    reduced,
    trials_for,
)
from harness.random_hlo.__main__ import main
from harness.random_hlo.generator import structured

SEEDS = range(1000, 1016)
SMALL = Bounds(instructions=7, elements=3000)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_judges_agree(seed: int) -> None:
    fault = check(seed, Tally(), SMALL)
    assert fault is None, fault_text(fault, reduced(fault, trials=60, seconds=15.0))


def test_generator_reaches_every_operator_it_draws() -> None:
    counts: dict[str, int] = {}
    for seed in range(250):
        module = Generator(seed).candidate().module
        verify(module)
        for instruction in module.instructions():
            counts[instruction.opcode] = counts.get(instruction.opcode, 0) + 1
    assert set(drawn_opcodes()) <= counts.keys()


def test_every_operator_is_drawn_or_left_out_with_a_reason() -> None:
    assert set(operators()) == set(drawn_opcodes()) | set(LEFT_OUT)
    assert not set(drawn_opcodes()) & set(LEFT_OUT)


def test_seed_decides_module_and_values() -> None:
    first, second, other = (Generator(seed).candidate() for seed in (7, 7, 8))
    assert write_text(first.module) == write_text(second.module) != write_text(other.module)
    for one, same in zip(first.values, second.values, strict=True):
        assert one.tobytes() == same.tobytes()


def test_bounds_hold() -> None:
    networks = tuple(opcode for opcode in structured() if opcode.startswith("network-"))  # they bring weights of their own
    bounds = Bounds(instructions=5, parameters=2, rank=3, elements=500, without=networks)
    for seed in range(40):
        module = Generator(seed, bounds).candidate().module
        assert len(module.entry.parameters) <= bounds.parameters
        ranks = [leaf.rank for i in module.instructions() for leaf in i.shape.leaves()]
        assert max(ranks) <= 2 * bounds.rank  # a dot or a gather may have more dimensions than its operands


def test_modules_survive_text() -> None:
    for seed in range(20):
        candidate = Generator(seed).candidate()
        again = read_text(write_text(candidate.module))
        for one, other in zip(flatten(evaluate(candidate.module, list(candidate.values))),
                              flatten(evaluate(again, list(candidate.values))), strict=True):
            assert one.tobytes() == other.tobytes()


def test_element_types_come_from_the_declaration() -> None:
    assert F32 in element_types("sine") and S32 not in element_types("sine")
    assert PRED in element_types("and") and F32 not in element_types("and")


def test_each_pass_has_its_turn() -> None:
    names = {word for seed in range(len(PASS_NAMES)) for name in trials_for(seed) for word in name.split()}
    assert set(PASS_NAMES) <= names
    assert "--strict" in names


def test_wrong_machine_is_found_and_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that adds wrongly is noticed within a few modules, and what is left is little more than the sum."""
    run = Trial.run

    def device(self: Trial, module: Module, leaves: list[Any]) -> list[Any]:
        found = run(self, module, leaves)
        if any(i.opcode == "add" for i in module.entry.instructions):
            return [value if value.dtype == bool else value + np.asarray(50).astype(value.dtype) for value in found]
        return found

    monkeypatch.setattr(Trial, "run", device)
    flat = Bounds(instructions=5, elements=1000, depth=0)
    faults = (check(seed, Tally(), flat) for seed in range(2000, 2030))
    fault: Fault = next(found for found in faults if found is not None)
    small = reduced(fault, trials=60, seconds=600.0)
    assert fault.verdict.kind == DIFFERS
    assert small.size <= 4
    assert "add" in {i.opcode for i in small.module.entry.instructions}


def test_casts_are_judged_by_the_module_with_these_casts() -> None:
    fault = check(1003, Tally(), SMALL, Court(("1",), cast="all"))
    assert fault is None, fault_text(fault, reduced(fault, trials=60, seconds=15.0))


def test_command_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "2", "--seed", "1000", "--instructions", "3"]) == 0
    assert "2 modules, trials: " in capsys.readouterr().out
