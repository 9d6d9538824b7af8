"""Golden cases: one file each, a first line that says what is done, the input, a separator, the whole output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "golden"
MARK = "// nxcc:"
SEPARATOR = "// ---- after ----"


@dataclass(frozen=True)
class Case:
    """words: the first line's, after the mark. given: the input. expected: below the separator, empty in a new case."""

    path: Path
    words: tuple[str, ...]
    given: str
    expected: str


def cases(folder: str) -> list[Case]:
    """Every case under a folder of tests/golden, by path."""
    found = [read_case(path) for path in sorted((FOLDER / folder).rglob("*.hlo"))]
    assert found, f"no golden cases in {folder}"
    return found


def read_case(path: Path) -> Case:
    first, _, rest = path.read_text().partition("\n")
    assert first.startswith(MARK), f"{path} must begin with {MARK!r}"
    given, _, expected = rest.partition(f"{SEPARATOR}\n")
    return Case(path, tuple(first.removeprefix(MARK).split()), given, expected)


def name_of(case: Case) -> str:
    return str(case.path.relative_to(FOLDER).with_suffix(""))


def check(case: Case, run: Callable[[Case], str], update: bool) -> None:
    """Compare the output with what the case expects, or write it there."""
    output = run(case)
    if update:
        head = f"{MARK} {' '.join(case.words)}\n{case.given}"
        case.path.write_text(f"{head}{SEPARATOR}\n{output}")
    else:
        assert output == case.expected
