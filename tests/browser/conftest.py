"""Windows for the tests of pages: one of each browser that is there, opened once a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.browser import Window, browser, driver_path
from harness.firefox import firefox, firefox_path

BROWSERS = {"chromium": (driver_path, browser), "firefox": (firefox_path, firefox)}


@pytest.fixture(scope="session", params=BROWSERS)
def window(request: pytest.FixtureRequest) -> Iterator[Window]:
    """A real browser's window; the test is skipped where the browser is not installed."""
    path, start = BROWSERS[request.param]
    if not path():
        pytest.skip(f"no {request.param} that can be driven on this machine: `make browser` installs it")
    with start() as opened:
        yield opened
