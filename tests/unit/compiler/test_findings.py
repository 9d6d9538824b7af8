"""What a search finds is kept, is the same as without, and a finding that cannot be trusted is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from nxcc.backends.isa.text import program_text
from nxcc.backends.lowering.products import trial
from nxcc.compiler.cache.findings import KeptFindings, findings_of
from nxcc.compiler.cache.store import Cache
from nxcc.compiler.driver import compile_module
from nxcc.compiler.options import CompileOptions
from nxcc.ir.hlo.text.reader import read_text

TEXT = ("HloModule m\nENTRY e {\n a = f32[300,200] parameter(0)\n b = f32[200,640] parameter(1)\n"
        " ROOT c = f32[300,640] dot(a, b), lhs_contracting_dims={1}, rhs_contracting_dims={0}\n}")


def code_text(folder: Path) -> str:
    code = compile_module(read_text(TEXT), CompileOptions(optlevel="3", cache_dir=str(folder))).code
    assert code is not None
    return program_text(code.program)


def test_a_search_is_done_once_and_damage_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []
    least = trial._least
    monkeypatch.setattr(trial, "_least", lambda *words: searches.append(words) or least(*words))
    first = code_text(tmp_path)
    assert searches
    times = len(searches)
    assert code_text(tmp_path) == first and len(searches) == times
    for path in (tmp_path / "v1" / "found").rglob("*.json"):
        path.write_text(path.read_text().replace('"found": [', '"found": [7777, '))
    assert code_text(tmp_path) == first and len(searches) == 2 * times
    for path in (tmp_path / "v1" / "found").rglob("*.json"):
        path.write_text("not json")
    assert code_text(tmp_path) == first and len(searches) == 3 * times


def test_findings_are_kept_for_one_compiler_and_go_with_the_cache(tmp_path: Path) -> None:
    ours, other = KeptFindings(str(tmp_path), "ours"), KeptFindings(str(tmp_path), "other")
    ours["question"] = (1, 2)
    assert ours.get("question") == (1, 2) and ours.get("else") is None and other.get("question") is None
    Cache(str(tmp_path)).prune(older_s=3600.0)
    assert ours.get("question") == (1, 2)
    Cache(str(tmp_path)).clear()
    assert ours.get("question") is None


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "v1").write_text("a file")
    findings = KeptFindings(str(tmp_path), "ours")
    findings["question"] = (1,)
    assert findings.get("question") is None


def test_levels_that_do_not_search_keep_nothing(tmp_path: Path) -> None:
    assert findings_of(CompileOptions(optlevel="2", cache_dir=str(tmp_path))) is None
