"""The page of a comparison in a real browser: tables, sorting, search."""

from __future__ import annotations

from pathlib import Path

import pytest

from nxcc.compiler.page.build import write_comparison_page

from harness.browser import Window


def row(name: str, before: float | None, after: float | None) -> dict:
    return {"name": name, "before_us": before, "after_us": after, "delta_us": (after or 0) - (before or 0)}


SIDE = {"device_us": 10.0, "simulated_us": 10.0, "host_us": 60.0, "bound_by": "PE", "instructions": 5, "transfers": 1,
        "hbm_bytes": 4096, "pe_flops": 1}
ROWS = [row("net/slower", 2.0, 5.0), row("net/faster", 4.0, 2.0), row("same", 1.0, 1.0), row("gone", 1.0, None),
        row("new", None, 0.5)]
BODY = {"target": "v2", "before": SIDE | {"file": "a.neff"}, "after": SIDE | {"file": "b<script>.neff", "device_us": 10.5},
        "delta_us": 0.5, "ratio": 1.05, "layers": ROWS, "hlo": ROWS, "critical_path": [row("pe", 1.0, 2.0)],
        "engines": [row("PE", 1.0, 2.0)], "machine": [row("PE matmul", 1.0, 2.0) | {"before_count": 3, "after_count": 4}]}
NAMES = "return [...document.querySelectorAll('#panel-layers tbody tr')].map(row => row.firstChild.innerText)"


@pytest.fixture
def page(window: Window, tmp_path: Path) -> Window:
    with open(tmp_path / "c.html", "wb") as file:
        write_comparison_page(BODY, file)
    window.open(tmp_path / "c.html")
    window.wait("document.documentElement.dataset.ready")
    return window


def test_largest_change_comes_first_and_what_is_equal_is_left_out(page):
    assert page.problems() == []
    assert page.script(NAMES) == ["net/slower", "net/faster", "gone", "new"]
    assert "b<script>.neff" in page.script("return document.getElementById('subtitle').innerText")


def test_better_and_worse_differ_by_more_than_colour(page):
    texts = page.script("return [...document.querySelectorAll('#panel-layers tbody tr')].map(row => row.innerText)")
    assert "+3 us" in texts[0] and "−2 us" in texts[1] and "gone" in texts[2] and "new" in texts[3]


def test_search_and_the_box_narrow_the_table(page):
    page.click_on("#changed")
    assert page.script(NAMES) == ["net/slower", "net/faster", "gone", "new", "same"]
    page.keys("/", *"faster")
    assert page.script(NAMES) == ["net/faster"]


def test_other_tables_are_a_click_away(page):
    page.click_on("#tab-machine")
    assert "PE matmul" in page.script("return document.getElementById('panel-machine').innerText")
