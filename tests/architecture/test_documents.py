"""What the documents repeat from declarations is what the declarations say."""

import re
from pathlib import Path

import pytest

from nxcc.backends.isa.layout import encoding_reference
from nxcc.cli import nxcc
from nxcc.compiler.options import ACCEPTED, BY_FLAG, REPLACED

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "GUIDE.md", "MEASUREMENTS.md", "ARCHITECTURE.md")


def test_encoding_chapter_is_generated_from_the_declarations(request: pytest.FixtureRequest) -> None:
    page, chapter = ROOT / "ARCHITECTURE.md", encoding_reference().rstrip()
    if request.config.getoption("--update-golden"):
        text = page.read_text()
        page.write_text(text[:text.index(chapter.partition("\n")[0])] + chapter + "\n")
    assert page.read_text().rstrip().endswith(chapter)


def test_every_pass_file_is_in_the_pipeline_or_serves_one() -> None:
    from nxcc.passes.pipeline import PASS_NAMES
    support = {"added_zeros", "angles_and_places", "casts", "combiners", "cost", "counted_loops", "effects", "intervals",
               "left_out", "notes", "outlining", "patterns", "pipeline", "repeats", "rewriting", "turns"}
    rooms_of_others = {"rules", "partitioning"}
    files = {p.stem for p in (ROOT / "passes").rglob("*.py") if p.parent.name not in rooms_of_others} - support - {"__init__"}
    assert {name.replace("_", "-") for name in files} <= set(PASS_NAMES)


def test_files_that_the_architecture_names_exist() -> None:
    named = set(re.findall(r"[\w/*]+\.(?:py|toml|js|txt)\b", (ROOT / "ARCHITECTURE.md").read_text()))
    assert len(named) > 80
    assert not [name for name in named if not next(ROOT.rglob(name), None)]


@pytest.mark.parametrize("page", PAGES)
def test_links_of_the_pages_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text())
    assert not [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]


def test_commands_and_options_of_the_guide_exist() -> None:
    text = (ROOT / "GUIDE.md").read_text()
    named = {first or second for first, second in re.findall(r"^nxcc ([a-z-]+)|`nxcc ([a-z-]+)", text, re.MULTILINE)}
    assert len(named) > 9 and named <= set(nxcc.commands), named - set(nxcc.commands)
    commands = [*nxcc.commands.values(), *nxcc.commands["cache"].commands.values()]
    declared = {flag for command in commands for option in command.params for flag in (*option.opts, *option.secondary_opts)}
    options = {word.replace("_", "-") for word in re.findall(r"--[a-z][a-z0-9_-]+", text)}
    assert len(options) > 25
    unknown = options - declared - set(BY_FLAG) - set(REPLACED) - set(ACCEPTED) - {"--help"}
    assert not unknown
