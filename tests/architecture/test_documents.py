"""What the documents repeat from declarations is what the declarations say."""

import re
from pathlib import Path

from nxcc.backends.isa.layout import encoding_reference

ROOT = Path(__file__).parents[2]


def test_encoding_chapter_is_generated_from_the_declarations() -> None:
    assert encoding_reference().rstrip() in (ROOT / "ARCHITECTURE.md").read_text()


def test_every_pass_file_is_in_the_pipeline_or_serves_one() -> None:
    from nxcc.passes.pipeline import PASS_NAMES
    support = {"angles", "casts", "combiners", "cost", "counted_loops", "effects", "intervals", "notes", "outlining", "patterns",
               "pipeline", "repeats", "rewriting", "turns"}
    rooms_of_others = {"rules", "partitioning"}
    files = {p.stem for p in (ROOT / "passes").rglob("*.py") if p.parent.name not in rooms_of_others} - support - {"__init__"}
    assert {name.replace("_", "-") for name in files} <= set(PASS_NAMES)


def test_files_that_the_architecture_names_exist() -> None:
    named = set(re.findall(r"[\w/*]+\.(?:py|toml|js|txt)\b", (ROOT / "ARCHITECTURE.md").read_text()))
    assert len(named) > 80
    assert not [name for name in named if not next(ROOT.rglob(name), None)]
