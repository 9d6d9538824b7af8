"""Where nxcc itself lies, for the key of the cache and the place of an internal error."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import nxcc
from nxcc.compiler import own_files
from nxcc.compiler.debugging.failures import guard
from nxcc.compiler.debugging.trial import fault_place
from nxcc.passes.dead_code import DeadCode


def test_every_room_lies_in_the_package() -> None:
    assert all((Path(own_files.package_folder()) / room / "__init__.py").is_file() for room in own_files.ROOMS)


def test_an_edited_file_is_another_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(own_files.package_folder())
    shutil.copy(source / "__init__.py", tmp_path)
    for room in own_files.ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "one.py").write_text("ONE = 1\n")
    monkeypatch.setattr(nxcc, "__file__", str(tmp_path / "__init__.py"))
    digests = {own_files.code_digest()}
    for room in own_files.ROOMS:
        (tmp_path / room / "one.py").write_text("ONE = 2\n")
        digests.add(own_files.code_digest())
    assert len(digests) == 1 + len(own_files.ROOMS)


def _fail() -> int:
    DeadCode().run(None)  # type: ignore[arg-type]
    return 0


def test_a_fault_is_placed_in_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AttributeError) as caught:
        _fail()
    place = fault_place(caught.value)
    assert place.startswith("passes/dead_code.py:")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert guard(_fail, []) == 70
    assert place in capsys.readouterr().err
