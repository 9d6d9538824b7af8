"""A real browser without a screen, driven over WebDriver (W3C recommendation) with the standard library alone."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

START_SECONDS = 120
KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Backspace": "\ue003", "ArrowRight": "\ue014", "ArrowLeft": "\ue012"}
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def driver_path() -> str:
    """Chromium's driver, or an empty string; both programs are in Debian's chromium-driver and its dependency."""
    has_browser = any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return (shutil.which("chromedriver") or "") if has_browser else ""


class Window:
    """What tests do with a window; one class a browser."""

    def open(self, path: Path) -> None:
        """Load a file from disk."""
        raise NotImplementedError

    def script(self, text: str, *arguments: Any) -> Any:
        """The value of a function body."""
        raise NotImplementedError

    def wait(self, condition: str, seconds: float = 90) -> None:
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not self.script(f"return Boolean({condition})"):
            assert time.monotonic() < end, f"not true in {seconds} s: {condition}"
            time.sleep(0.05)

    def keys(self, *keys: str) -> None:
        """Type into whatever has the focus."""
        raise NotImplementedError

    def click(self, x: float, y: float) -> None:
        """Press the mouse at a point of the window."""
        raise NotImplementedError

    def move(self, x: float, y: float) -> None:
        """Hold the mouse over a point of the window."""
        raise NotImplementedError

    def click_on(self, selector: str) -> None:
        """Click an element that a selector finds."""
        raise NotImplementedError

    def problems(self) -> list[str]:
        """What the page wrote as errors, requests that its policy refused among them."""
        raise NotImplementedError

    def screenshot(self, path: Path) -> None:
        """Write a picture of the window."""
        raise NotImplementedError


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Browser(Window):
    """Chromium, by way of its driver."""

    def __init__(self, base: str, session: str) -> None:
        self.base, self.session = base, session

    def command(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return _call(method, f"{self.base}/session/{self.session}" + (f"/{path}" if path else ""), body)

    def open(self, path: Path) -> None:
        self.command("POST", "url", {"url": path.absolute().as_uri()})

    def script(self, text: str, *arguments: Any) -> Any:
        return self.command("POST", "execute/sync", {"script": text, "args": list(arguments)})

    def keys(self, *keys: str) -> None:
        presses = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self.command("POST", "actions", {"actions": [{"type": "key", "id": "keyboard", "actions": presses}]})

    def click(self, x: float, y: float) -> None:
        moves = [{"type": "pointerMove", "x": round(x), "y": round(y)}, {"type": "pointerDown", "button": 0},
                 {"type": "pointerUp", "button": 0}]
        self.command("POST", "actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": moves}]})

    def move(self, x: float, y: float) -> None:
        self.command("POST", "actions", {"actions": [
            {"type": "pointer", "id": "mouse", "actions": [{"type": "pointerMove", "x": round(x), "y": round(y)}]}]})

    def click_on(self, selector: str) -> None:
        found = self.command("POST", "element", {"using": "css selector", "value": selector})
        self.command("POST", f"element/{found[ELEMENT]}/click", {})

    def problems(self) -> list[str]:
        return [row["message"] for row in self.command("POST", "se/log", {"type": "browser"}) if row["level"] == "SEVERE"]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.command("GET", "screenshot")))


def _call(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body or {}).encode() if method == "POST" else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(json.load(error)["value"]["message"]) from None


@contextlib.contextmanager
def browser(width: int = 1400, height: int = 900) -> Iterator[Browser]:
    """A window of this size, closed at the end."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="nxcc-browser-", ignore_cleanup_errors=True) as home:
        driver = subprocess.Popen([driver_path(), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  env={**os.environ, "HOME": home})
        window = None
        try:
            base = f"http://127.0.0.1:{port}"
            _wait_for(base)
            arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                         f"--window-size={width},{height}",
                         f"--user-data-dir={home}/profile"]
            made = _call("POST", f"{base}/session", {"capabilities": {"alwaysMatch": {
                "browserName": "chrome", "goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}}})
            window = Browser(base, made["sessionId"])
            yield window
        finally:
            if window is not None:
                with contextlib.suppress(OSError):
                    window.command("DELETE", "")
            driver.terminate()
            driver.wait(20)


def _wait_for(base: str) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            if _call("GET", f"{base}/status")["ready"]:
                return
        except (OSError, AssertionError):
            assert time.monotonic() < end, "the browser's driver does not start"
        time.sleep(0.1)
