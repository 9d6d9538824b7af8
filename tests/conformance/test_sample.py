"""A small sample of the corpora, through every step and at both optimisation levels; the whole is `make conformance`."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conformance.corpus import Case, Corpus, CorpusMissing, open_corpora
from conformance.report import as_json, group_lines, step_counts, table_lines
from conformance.run import main
from conformance.steps import Outcome, Settings, run_case
from conformance.tolerances import output_error, tolerance, within_rule
from conformance.walk import INTERNAL_ERROR, PASSED, REJECTED, SLOW, WRONG, Failure, TooSlow

from nxcc.ir.dtypes import BF16, C64, F32, S32

SAMPLE = Path(__file__).parents[1] / "data" / "conformance_sample.zip"
CORPUS = Corpus(str(SAMPLE))


@pytest.mark.parametrize("case", CORPUS.cases, ids=lambda case: case.name)
def test_module_passes_or_is_rejected_with_its_code(case: Case) -> None:
    outcome = run_case(CORPUS, case, Settings(levels=("0", "1")))
    code = case.facts.get("nxcc_code")
    if code is None:
        assert outcome.kind == PASSED, outcome.failures
        assert outcome.steps["device v2-O1"] or not case.scored
    else:
        assert outcome.kind == REJECTED and outcome.failures[0].code == code, outcome.failures


def test_sample_reaches_most_operators() -> None:
    assert len({opcode for case in CORPUS.cases for opcode in case.facts["opcodes"]}) >= 100


# The runner itself


def _corpus_with(tmp_path: Path, case: Case, **changed: bytes) -> Corpus:
    """A corpus of one module of the sample, some of its files replaced."""
    with zipfile.ZipFile(SAMPLE) as source:
        for kind in ("pb", "txt", "npz"):
            data = changed.get(kind) or source.read(f"{case.name}.{kind}")
            (tmp_path / f"{case.name}.{kind}").write_bytes(data)
    (tmp_path / "index.json").write_text(json.dumps([dict(case.facts)]))
    return Corpus(str(tmp_path))


def _simple_case() -> Case:
    return next(case for case in CORPUS.cases if case.scored and case.facts["outputs"][0][0] == "f32")


def test_wrong_expected_value_is_a_wrong_result(tmp_path: Path) -> None:
    case = _simple_case()
    inputs, outputs = CORPUS.arrays(case)
    arrays = {f"input{k}": value for k, value in enumerate(inputs)}
    arrays |= {f"output{k}": value + 1 for k, value in enumerate(outputs)}
    corpus = _corpus_with(tmp_path, case)
    np.savez(tmp_path / f"{case.name}.npz", **arrays)
    outcome = run_case(corpus, corpus.cases[0], Settings())
    assert outcome.kind == WRONG
    assert {failure.step for failure in outcome.failures} == {"oracle", "device v2-O1"}


def test_module_without_a_stored_result_is_held_against_the_oracle(tmp_path: Path) -> None:
    case = _simple_case()
    corpus = _corpus_with(tmp_path, Case(case.source, case.name, case.family, {**case.facts, "result": False}))
    outcome = run_case(corpus, corpus.cases[0], Settings(unscored=True))
    assert outcome.kind == PASSED and outcome.steps["device v2-O1"], outcome.failures


def test_text_of_another_module_is_reported(tmp_path: Path) -> None:
    case = _simple_case()
    text = b"HloModule other\nENTRY e { ROOT p = f32[3] parameter(0) }"
    corpus = _corpus_with(tmp_path, case, txt=text)
    assert [f.step for f in run_case(corpus, corpus.cases[0], Settings(())).failures] == ["same"]


def test_truncated_binary_is_rejected_with_its_code(tmp_path: Path) -> None:
    case = _simple_case()
    binary = CORPUS.binary(case)
    assert binary is not None
    corpus = _corpus_with(tmp_path, case, pb=binary[:-9])
    failure = run_case(corpus, corpus.cases[0], Settings(())).failures[0]
    assert (failure.kind, failure.code) == (REJECTED, "NXC0102")


def test_fault_of_a_stage_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("missing")
    monkeypatch.setattr("conformance.steps.evaluate", broken)
    outcome = run_case(CORPUS, _simple_case(), Settings(()))
    assert outcome.kind == INTERNAL_ERROR
    assert outcome.failures[0].cause.startswith("KeyError at ")


def test_alarm_makes_the_module_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: object) -> None:
        raise TooSlow
    monkeypatch.setattr("conformance.steps.evaluate", endless)
    outcome = run_case(CORPUS, _simple_case(), Settings(()))
    assert (outcome.kind, outcome.failures[0].cause) == (SLOW, "too slow in oracle")


def test_what_does_not_fit_this_machine_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def large(*_: object) -> None:
        raise MemoryError
    monkeypatch.setattr("conformance.steps.evaluate", large)
    outcome = run_case(CORPUS, _simple_case(), Settings(()))
    assert (outcome.kind, outcome.failures[0].cause) == (SLOW, "needs too much memory in oracle")


def test_worst_failure_decides_the_class() -> None:
    failures = [Failure("verify", REJECTED, "a"), Failure("device v2-O1", WRONG, "b"), Failure("print", INTERNAL_ERROR, "c")]
    outcome = Outcome("zip", "m", "f", True, "", failures=failures)
    assert outcome.kind == WRONG
    assert group_lines([outcome], 9) == ["    1  wrong result: b  (m)"]


def test_counts_leave_out_what_xla_rejects_too() -> None:
    right = Outcome("zip", "a", "f", True, "", {"binary": True, "oracle": True})
    refused = Outcome("zip", "b", "f", False, REJECTED, {"binary": False}, failures=[Failure("binary", REJECTED, "x")])
    counts = {step: (good, total) for step, good, total in step_counts([right, refused])}
    assert counts["binary"] == (1, 1)
    assert as_json([right, refused], 1.0, Settings())["classes"] == {PASSED: 1}
    assert any("1 of 1 (100.0 %)" in line for line in table_lines([right, refused]))


def test_missing_corpus_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("NXCC_CORPUS", raising=False)
    assert main([]) == 2
    assert "NXCC_CORPUS" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere.zip")]) == 2
    with pytest.raises(CorpusMissing, match=r"neither index\.json nor zips"):
        open_corpora([str(tmp_path)])


def test_each_target_has_its_steps_and_its_judge() -> None:
    case = next(c for c in CORPUS.cases if c.scored and "dot" in c.facts.get("opcodes", ()))
    outcome = run_case(CORPUS, case, Settings(targets=("v1", "v2")))
    assert outcome.kind == PASSED and set(outcome.host) == {"v1-O1", "v2-O1"}
    table = "\n".join(table_lines([outcome]))
    assert "v1-O1 device right" in table and "v2-O1 device right" in table


def test_run_over_processes_writes_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.json"
    assert main([str(SAMPLE), "--sample", "6", "--levels", "", "--json", str(path)]) == 0
    assert len(json.loads(path.read_text())["modules"]) == 6
    assert "class: passed" in capsys.readouterr().out


# Tolerances


def test_error_is_relative_to_the_largest_value() -> None:
    expected = np.array([1000.0, 0.0], np.float32)
    assert output_error(expected + np.float32(1), expected, F32) == pytest.approx(1e-3)


def test_special_values_must_stand_in_their_places() -> None:
    expected = np.array([np.nan, np.inf, 1.0], np.float32)
    assert output_error(expected.copy(), expected, F32) == 0
    assert output_error(np.array([np.nan, -np.inf, 1.0], np.float32), expected, F32) == np.inf
    assert output_error(np.array([0.0, np.inf, 1.0], np.float32), expected, F32) == np.inf


def test_parts_of_complex_values_share_a_scale() -> None:
    expected = np.array([100 + 0j], np.complex64)
    assert output_error(np.array([100 + 0.001j], np.complex64), expected, C64) == pytest.approx(1e-5)


def test_integers_and_types_are_exact() -> None:
    assert output_error(np.array([1, 2]), np.array([1, 3]), S32) == np.inf
    assert output_error(np.zeros(2, np.int32), np.zeros(2, np.int64), S32) == np.inf


def test_tolerance_grows_with_long_sums_only() -> None:
    assert tolerance(S32, 1 << 20) == 0
    assert tolerance(BF16, 1024) == tolerance(BF16)
    assert tolerance(F32, 4096) == pytest.approx(2 * tolerance(F32))


def test_absolute_rule_of_a_test_is_its_own_limit() -> None:
    got, expected = np.array([5.0]), np.array([5.0001])
    assert within_rule(got, expected, {"rule": "absolute", "atol": 1e-3})
    assert not within_rule(got, expected, {"rule": "equal"})
    assert not within_rule(got, np.array([6.0]), {"rule": "absolute", "atol": 1e-3})
