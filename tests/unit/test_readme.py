"""The README's tour prints what the README says, but for numbers, which every change of code generation moves."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def tour() -> list[tuple[str, str]]:
    """Each command of the tour, without its comment, and what is printed below it."""
    text = (ROOT / "README.md").read_text().split("## Three minutes")[1].split("```")[1]
    found = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        found.append((command.split("  #")[0].strip(), output.strip()))
    return found


def without_numbers(text: str) -> list[str]:
    plain = re.sub(r"-?[0-9][0-9.,]*(e[+-]?[0-9]+)?", "#", text.strip())
    return [" ".join(line.split()) for line in plain.splitlines()]


def test_the_tour_prints_what_the_readme_shows(tmp_path: Path) -> None:
    (folder, _), *commands = tour()
    source = ROOT / folder.removeprefix("cd ")
    shutil.copytree(source, tmp_path / "tour")
    assert len(commands) > 3
    for command, expected in commands:
        assert command.startswith("nxcc ")
        words = [sys.executable, "-m", "nxcc.cli", *shlex.split(command)[1:]]
        found = subprocess.run(words, cwd=tmp_path / "tour", capture_output=True, text=True, check=True)
        assert without_numbers(found.stdout) == without_numbers(expected), command
