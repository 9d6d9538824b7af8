"""The file of a profile's page: self-contained, escaped, and its columns hold what the timeline held."""

import base64
import gzip
import html.parser
import itertools
import json
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from nxcc.compiler.driver import Request, compile_file
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.page.build import PROFILE_SCRIPTS, page
from nxcc.compiler.page.data import profile_columns, profile_facts
from nxcc.compiler.reports.estimate import estimate
from nxcc.compiler.reports.profile import ProfileRequest, profile_file
from nxcc.neff.reader import open_neff

TEXT = """HloModule m
ENTRY main {
  x = f32[128,256] parameter(0)
  w = f32[256,512] parameter(1)
  y = f32[128,512] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/a</script>b/dot"}
  h = f32[128,512] tanh(y)
  ROOT r = f32[128,512] negate(h)
}
"""


@pytest.fixture(scope="module")
def neff(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("page")
    (folder / "m.hlo").write_text(TEXT)
    options = CompileOptions(output=str(folder / "m.neff"), optlevel="0", placement="support", keep_on_host="^h$")
    compile_file(Request(str(folder / "m.hlo"), options))
    return str(folder / "m.neff")


@pytest.fixture(scope="module")
def written(neff: str) -> str:
    path = Path(neff).with_name("p.html")
    profile_file(ProfileRequest(neff, page=str(path)))
    return path.read_text()


class Elements(html.parser.HTMLParser):
    """Attributes that make a browser fetch something, and the text of scripts by id."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.scripts: dict[str, str] = {}
        self.current = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.fetched += [value for key, value in attrs if key in ("src", "href", "data", "srcset") and value]
        self.current = f"{tag}#{found.get('id', '')}" if tag == "script" else ""

    def handle_data(self, data: str) -> None:
        if self.current:
            self.scripts[self.current] = self.scripts.get(self.current, "") + data

    def handle_endtag(self, tag: str) -> None:
        self.current = ""


def parsed(text: str) -> Elements:
    elements = Elements()
    elements.feed(text)
    return elements


def test_page_fetches_nothing(written):
    assert parsed(written).fetched == ["data:,"]
    assert "default-src 'none'" in written
    assert not re.search(r"@import|url\(", written)
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|EventSource|import)\s*\(", written)


def test_names_cannot_end_the_script(written):
    facts = json.loads(parsed(written).scripts["script#facts"])
    assert any("</script>" in region["layer"] for region in facts["region_facts"])


def test_every_script_is_in_the_page(written):
    script = parsed(written).scripts["script#"]
    assert all(resources.files("nxcc.compiler.page").joinpath(name).read_text() in script for name in PROFILE_SCRIPTS)


def read_columns(text: str) -> dict[str, np.ndarray]:
    elements = parsed(text)
    packed = gzip.decompress(base64.b64decode(elements.scripts["script#packed"]))
    facts = json.loads(elements.scripts["script#facts"])
    return {name: np.frombuffer(packed, kind, count, at) for name, kind, at, count in facts["columns"]}


def test_columns_hold_the_timeline(neff, written):
    found = estimate(open_neff(neff), spans=True, ranges=False)
    columns = read_columns(written)
    facts = json.loads(parsed(written).scripts["script#facts"])
    spans = sum(len(timing.timeline.columns) for timing in found.timings)
    assert len(columns["start"]) == spans == sum(row[3] for row in facts["rows"])
    ends = []
    for name, kind, first, count in facts["rows"]:
        start = np.cumsum(columns["start"][first:first + count], dtype=np.int64)
        length = columns["length"][first:first + count]
        assert kind in ("engine", "queue") and (start[1:] >= (start + length)[:-1]).all(), name
        ends.append(int((start + length).max()))
    assert max(ends) * facts["unit_ns"] / 1e3 <= facts["length_us"] + 1e-6
    assert columns["path_length"].sum() * facts["unit_ns"] / 1e3 == pytest.approx(found.simulated_us)


def test_what_was_waited_for_ended_before(neff):
    columns, layout = profile_columns(estimate(open_neff(neff), spans=True, ranges=False))
    start = np.zeros(len(columns["start"]), np.int64)
    for _, _, first, count in layout.rows:
        start[first:first + count] = np.cumsum(columns["start"][first:first + count], dtype=np.int64)
    waiting = np.flatnonzero(columns["after"])
    before = waiting - columns["after"][waiting]
    assert len(waiting) and (start[before] + columns["length"][before] <= start[waiting]).all()


def test_host_nodes_stand_between_device_nodes(neff):
    found = estimate(open_neff(neff), spans=True, ranges=False)
    _, layout = profile_columns(found)
    nodes = profile_facts(found, layout)["nodes"]
    assert [node["executor"] for node in nodes] == ["device", "host", "device"]
    for before, after in itertools.pairwise(nodes):
        assert after["start_us"] == pytest.approx(before["start_us"] + before["us"], abs=1e-3)


def test_equal_profiles_are_equal_bytes(neff, written):
    path = Path(neff).with_name("again.html")
    profile_file(ProfileRequest(neff, page=str(path)))
    assert path.read_text() == written


def test_values_with_marks_of_the_template_stay_as_they_are():
    text = page("t", (), "profile.html", {"name": "{{script}}"}, {}).decode()
    assert json.loads(parsed(text).scripts["script#facts"])["name"] == "{{script}}"
