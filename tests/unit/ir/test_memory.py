"""Memory that is left, and what the oracle refuses for want of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nxcc.ir import memory
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.hlo.oracle import evaluate
from nxcc.ir.hlo.text.reader import read_text


def test_the_tighter_of_machine_and_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {"meminfo": "MemTotal: 900 kB\nMemAvailable:    600 kB\n", "max": "500000\n", "current": "200000\n"}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(memory, "_MEMINFO", str(tmp_path / "meminfo"))
    monkeypatch.setattr(memory, "_LIMITS", ((str(tmp_path / "max"), str(tmp_path / "current")),))
    assert memory.available_bytes() == 300000
    (tmp_path / "max").write_text("max\n")
    assert memory.available_bytes() == 600 << 10
    (tmp_path / "meminfo").unlink()
    assert memory.available_bytes() is None


@pytest.mark.parametrize(("left", "refused"), ((8 << 30, True), (None, False)))
def test_what_the_machine_cannot_hold_is_refused(left: int | None, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result of a declared size that nobody evaluates: the broadcast is a view, and only its slice is made."""
    monkeypatch.setattr("nxcc.ir.hlo.oracle.available_bytes", lambda: left)
    text = "HloModule m\nENTRY e {\n c = f32[] constant(2)\n b = f32[4000000000] broadcast(c), dimensions={}\n"
    assert evaluate(read_text(text + " ROOT s = f32[2] slice(b), slice={[7:9]}\n}\n"), []).tolist() == [2, 2]
    if refused:
        with pytest.raises(CompileError, match="NXC0107.*this machine has"):
            evaluate(read_text(text + " n = f32[4000000000] negate(b)\n ROOT s = f32[2] slice(n), slice={[7:9]}\n}\n"), [])
