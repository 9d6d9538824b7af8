"""What the documents repeat from declarations is what the declarations say."""

from pathlib import Path

from nxcc.backends.isa.layout import encoding_reference

ROOT = Path(__file__).parents[2]


def test_encoding_chapter_is_generated_from_the_declarations() -> None:
    assert encoding_reference().rstrip() in (ROOT / "ARCHITECTURE.md").read_text()


def test_every_pass_file_is_in_the_pipeline_or_serves_one() -> None:
    from nxcc.passes.pipeline import PASS_NAMES
    support = {"__init__", "angles", "base", "casts", "combiners", "cost", "counted_loops", "effects", "intervals", "notes",
               "outlining", "partition", "patterns", "pipeline", "placement", "regions", "repeats", "rewriting", "stages",
               "turns"}
    files = {p.stem for p in (ROOT / "passes").glob("*.py")} - support
    assert {name.replace("_", "-") for name in files} <= set(PASS_NAMES)
