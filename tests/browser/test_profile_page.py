"""The page of a profile in a real browser, opened from disk: it draws, and zoom, search and links between the parts work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nxcc.backends.simulator.timeline import COLUMNS
from nxcc.compiler.driver import Request, compile_file
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.page.build import write_profile_page
from nxcc.compiler.reports.estimate import Estimate, estimate
from nxcc.compiler.reports.profile import profile_report
from nxcc.neff.reader import open_neff

from harness.browser import Window

TEXT = """HloModule m
ENTRY main {
  x = f32[256,256] parameter(0)
  w = f32[256,512] parameter(1)
  y = f32[256,512] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/net/dense/dot"}
  t = f32[256,512] tanh(y), metadata={op_name="jit(f)/net/act/tanh"}
  v = f32[512,128] parameter(2)
  ROOT z = f32[256,128] dot(t, v), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/net/head/dot"}
}
"""
LARGE = 120_000
"""Spans of the large page: more than the hundred thousand instructions that must stay usable."""
READY = "document.documentElement.dataset.ready"
PAGE = "const p = window.nxccProfile; "


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Estimate:
    folder = tmp_path_factory.mktemp("profile")
    (folder / "m.hlo").write_text(TEXT)
    compile_file(Request(str(folder / "m.hlo"), CompileOptions(output=str(folder / "m.neff"), optlevel="0")))
    return estimate(open_neff(str(folder / "m.neff")), spans=True, ranges=False)


def written(found: Estimate, path: Path) -> Path:
    with open(path, "wb") as file:
        write_profile_page(found, profile_report(found, "m.neff"), file)
    return path


@pytest.fixture
def page(window: Window, found: Estimate, tmp_path: Path) -> Window:
    window.open(written(found, tmp_path / "p.html"))
    window.wait(READY)
    return window


def shown(page: Window) -> tuple[float, float]:
    low, high = page.script(PAGE + "return [p.view.from, p.view.to]")
    return low, high


def drawn_colours(page: Window) -> int:
    """Colours that are opaque on the timeline's canvas."""
    return page.script(PAGE + """p.draw(); const c = document.getElementById('tracks');
      const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; const seen = new Set();
      for (let i = 0; i < d.length; i += 4) if (d[i + 3] === 255) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]);
      return seen.size""")


def span_place(page: Window, name: str) -> list[float]:
    """A point of the window on the first piece of an instruction, after zooming to it."""
    return page.script(PAGE + """
      for (const row of p.profile.rows) for (let i = 0; i < row.size; i++) {
        const span = p.profile.span(row.first + i);
        if (span.slot.name !== arguments[0] || span.isTransfer) continue;
        p.zoomTo(span.start, span.end, 10); p.draw();
        const track = p.tracks.tracks.find(one => one.row === row);
        const box = document.getElementById('tracks').getBoundingClientRect();
        return [box.left + p.tracks.x((span.start + span.end) / 2), box.top + track.y + track.height / 2];
      }""", name)


def details(page: Window) -> str:
    return page.script("return document.getElementById('details').innerText")


def test_page_opens_from_disk_and_draws(page):
    assert page.problems() == []
    assert page.script("return document.getElementById('failure').hidden")
    assert drawn_colours(page) > 10
    assert page.script("return document.getElementById('labels').innerText").count("DMA traffic") == 1
    assert "m.neff" in page.script("return document.querySelector('h1').innerText")


def test_keys_zoom_and_pan_and_go_back(page):
    whole = shown(page)
    page.script("document.getElementById('tracks').focus()")
    page.keys("w", "w")
    low, high = shown(page)
    assert high - low == pytest.approx((whole[1] - whole[0]) * 0.49)
    page.keys("d")
    assert shown(page)[0] > low
    page.keys("a", "s")
    assert shown(page)[1] - shown(page)[0] == pytest.approx((whole[1] - whole[0]) * 0.7)
    page.keys("0")
    assert shown(page) == pytest.approx(whole)
    page.keys("Backspace")
    assert shown(page)[1] - shown(page)[0] == pytest.approx((whole[1] - whole[0]) * 0.7)


def test_times_on_the_axis_differ_however_near_the_reader_is(page):
    for part in (1, 10, 1000, 100_000):
        texts = page.script(PAGE + f"""const length = p.profile.length, from = length * 0.61;
          p.view.from = from; p.view.to = Math.min(length, from + length / {part}); p.draw();
          return p.tracks.axis().map(one => one[1])""")
        assert len(set(texts)) == len(texts) > 0


def test_engines_have_the_names_that_documents_give_them(page):
    labels = page.script("return document.getElementById('labels').innerText")
    assert "Vector (DVE)" in labels and "Scalar (Activation)" in labels
    assert "Vector (DVE)" in page.script("return document.getElementById('panel-overview').innerText")


def test_roofline_fits_beside_its_words(page):
    page.click_on("#tab-roofline")
    height, width = page.script("""const box = document.querySelector('.roofline').getBoundingClientRect();
      return [box.height, box.width]""")
    assert height < max(270, page.script("return document.getElementById('panel-roofline').clientHeight")) and width > 300


def test_row_leads_to_the_timeline_and_back(page):
    whole = shown(page)
    page.click_on("#tab-hlo")
    page.click_on("#panel-hlo tbody tr")
    name = page.script("return document.querySelector('#panel-hlo tbody tr').firstChild.innerText")
    assert name in details(page)
    low, high = shown(page)
    assert high - low < 0.9 * (whole[1] - whole[0])
    assert page.script("return document.querySelector('#panel-hlo tbody tr').getAttribute('aria-selected')") == "true"
    page.click_on("#back")
    assert shown(page) == pytest.approx(whole)


def test_piece_shows_its_facts_and_leads_to_its_row(page):
    x, y = span_place(page, "matmul")
    page.click(x, y)
    assert "matmul" in details(page) and "stationary=" in details(page)
    page.keys("Enter")
    region = page.script(PAGE + "return p.profile.regions[p.selection.region].name")
    page.keys("Enter")
    assert page.script("return document.querySelector('#panel-hlo [aria-selected=true]').firstChild.innerText") == region
    assert page.script("return document.getElementById('tab-hlo').getAttribute('aria-selected')") == "true"


def test_piece_leads_to_what_it_waited_for(page):
    x, y = span_place(page, "activation")
    page.click(x, y)
    before = page.script(PAGE + "return p.selection.span.after")
    assert before >= 0 and "waited for" in details(page)
    page.keys("g")
    assert page.script(PAGE + "return p.selection.span.number") == before


def test_pointer_shows_what_it_is_over(page):
    x, y = span_place(page, "matmul")
    page.move(x, y)
    page.wait("!document.getElementById('tooltip').hidden")
    words = page.script("return document.getElementById('tooltip').innerText")
    assert "matmul" in words and "flop" in words and "net/" in words


def test_search_filters_tables_and_walks_through_pieces(page):
    page.script("document.getElementById('tracks').focus()")
    page.keys("/", *"act", "Enter")
    assert page.script("return document.getElementById('matches').innerText").endswith("pieces")
    rows = page.script("return [...document.querySelectorAll('#panel-layers tbody tr')].map(row => row.firstChild.innerText)")
    assert rows == ["net/act"]
    first = page.script(PAGE + "return p.selection.span.number")
    page.keys("Enter")
    assert page.script(PAGE + "return p.selection.span.number") != first
    assert "act" in page.script(PAGE + "return p.profile.regions[p.selection.span.region].layer || p.selection.span.slot.name")
    page.keys("Escape")
    assert len(page.script("return [...document.querySelectorAll('#panel-layers tbody tr')].map(row => row.innerText)")) > 1


def test_theme_turns_and_the_roofline_leads_to_regions(page):
    theme = page.script("return document.documentElement.dataset.theme")
    page.click_on("#theme")
    assert page.script("return document.documentElement.dataset.theme") not in ("", theme)
    page.click_on("#tab-roofline")
    page.click_on("#panel-roofline circle:last-of-type")
    assert "critical path" in details(page)
    page.click_on("#theme")
    assert page.problems() == []


def test_columns_sort(page):
    page.click_on("#tab-layers")
    page.click_on("#panel-layers thead th:first-child button")
    names = page.script("return [...document.querySelectorAll('#panel-layers tbody tr')].map(row => row.firstChild.innerText)")
    assert names == sorted(names)


def large(found: Estimate) -> Estimate:
    """The same run many times over: its timeline repeated until there are LARGE spans."""
    timing = found.timings[0]
    line = timing.timeline
    assert line is not None
    spans = line.columns.copy()
    times = -(-LARGE // len(spans))
    copies = np.tile(spans, (times, 1))
    shift = np.repeat(np.arange(times) * timing.ticks, len(spans))
    start, end, after = (COLUMNS.index(name) for name in ("start", "end", "after"))
    copies[:, start] += shift
    copies[:, end] += shift
    earlier = np.repeat(np.arange(times) * len(spans), len(spans))
    copies[:, after] = np.where(copies[:, after] >= 0, copies[:, after] + earlier, -1)
    line.cells = type(line.cells)("q", copies.reshape(-1).tobytes())
    timing.ticks *= times
    return found


def test_a_hundred_thousand_instructions_stay_usable(window, tmp_path, found):
    ticks = found.timings[0].ticks
    cells = found.timings[0].timeline.cells
    try:
        path = written(large(found), tmp_path / "large.html")
    finally:
        found.timings[0].ticks, found.timings[0].timeline.cells = ticks, cells
    window.open(path)
    window.wait(READY)
    assert window.script(PAGE + "return p.profile.count") >= LARGE
    # Drawing costs pixels, not pieces: rectangles and looked-up places stay below a few for each pixel of each row.
    rectangles, pixels = window.script(PAGE + """p.view.show(0, p.view.length); const context = p.tracks.context;
      const fill = context.fillRect; let count = 0;
      context.fillRect = function (...box) { count++; return fill.apply(this, box); };
      p.tracks.draw(); delete context.fillRect; return [count, p.tracks.width * p.tracks.tracks.length]""")
    assert 100 < rectangles < 2 * pixels < LARGE
    window.script("document.getElementById('tracks').focus()")
    window.keys(*"wwwwddssaa")
    assert drawn_colours(window) > 10
    assert window.problems() == []
