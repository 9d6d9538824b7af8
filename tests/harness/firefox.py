"""Firefox without a screen, driven over WebDriver BiDi (W3C draft) with the standard library alone; same methods as Browser."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.browser import KEYS, START_SECONDS, Window, free_port

TEXT, CLOSE = 0x1, 0x8


def firefox_path() -> str:
    """Firefox, or an empty string; Debian has it as firefox-esr."""
    return next((found for name in ("firefox-esr", "firefox") if (found := shutil.which(name))), "")


class WebSocket:
    """The client's side of RFC 6455, as far as text messages need it."""

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        self.socket.sendall((f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._read(1)
        assert b" 101 " in head.split(b"\r\n")[0], head

    def send(self, text: str) -> None:
        data, mask = text.encode(), secrets.token_bytes(4)
        size = len(data)
        length = bytes([0x80 | size]) if size < 126 else struct.pack(">BH", 0x80 | 126, size) if size < 1 << 16 else \
            struct.pack(">BQ", 0x80 | 127, size)
        masked = bytes(byte ^ mask[k % 4] for k, byte in enumerate(data))
        self.socket.sendall(bytes([0x80 | TEXT]) + length + mask + masked)

    def receive(self) -> str:
        """The next whole message."""
        parts = b""
        while True:
            first, second = self._read(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack(">H", self._read(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self._read(8))
            data = self._read(size)
            assert first & 0xF != CLOSE, "the browser has closed the connection"
            if first & 0xF <= TEXT:
                parts += data
                if first & 0x80:
                    return parts.decode()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(min(1 << 20, size - len(data)))
            assert part, "the connection has ended"
            data += part
        return data


class Firefox(Window):
    """One window."""

    def __init__(self, channel: WebSocket) -> None:
        self.channel = channel
        self.number = 0
        self.errors: list[str] = []
        self._command("session.new", {"capabilities": {}})
        self._command("session.subscribe", {"events": ["log.entryAdded"]})
        self.context = self._command("browsingContext.getTree", {})["contexts"][0]["context"]

    def _command(self, method: str, parameters: dict[str, Any]) -> Any:
        self.number += 1
        self.channel.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.channel.receive())
            if message.get("method") == "log.entryAdded" and message["params"]["level"] == "error":
                self.errors.append(message["params"]["text"])
            if message.get("id") == self.number:
                assert message["type"] == "success", message
                return message["result"]

    def open(self, path: Path) -> None:
        self._command("browsingContext.navigate", {"context": self.context, "url": path.absolute().as_uri(),
                                                   "wait": "complete"})

    def script(self, text: str, *arguments: Any) -> Any:
        body = f"function() {{ return JSON.stringify((function() {{ {text} }}).apply(null, arguments)); }}"
        found = self._command("script.callFunction", {
            "functionDeclaration": body, "awaitPromise": False, "target": {"context": self.context},
            "arguments": [{"type": "string", "value": value} for value in arguments]})
        assert found["type"] == "success", found
        return json.loads(found["result"]["value"]) if found["result"]["type"] == "string" else None

    def _act(self, kind: str, actions: list[dict[str, Any]]) -> None:
        source = {"type": kind, "id": kind, "actions": actions}
        self._command("input.performActions", {"context": self.context, "actions": [source]})

    def keys(self, *keys: str) -> None:
        self._act("key", [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")])

    def click(self, x: float, y: float) -> None:
        self._act("pointer", [{"type": "pointerMove", "x": round(x), "y": round(y)}, {"type": "pointerDown", "button": 0},
                              {"type": "pointerUp", "button": 0}])

    def move(self, x: float, y: float) -> None:
        self._act("pointer", [{"type": "pointerMove", "x": round(x), "y": round(y)}])

    def click_on(self, selector: str) -> None:
        x, y = self.script("""const found = document.querySelector(arguments[0]); found.scrollIntoView({ block: 'center' });
          const box = found.getBoundingClientRect(); return [box.left + box.width / 2, box.top + box.height / 2];""", selector)
        self.click(x, y)

    def problems(self) -> list[str]:
        self.script("return null")
        return self.errors

    def screenshot(self, path: Path) -> None:
        found = self._command("browsingContext.captureScreenshot", {"context": self.context})
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def firefox(width: int = 1400, height: int = 900) -> Iterator[Firefox]:
    """A window of this size, closed at the end."""
    with tempfile.TemporaryDirectory(prefix="nxcc-firefox-", ignore_cleanup_errors=True) as home:
        port = free_port()
        profile = Path(home) / "profile"
        profile.mkdir()
        program = subprocess.Popen(
            [firefox_path(), "--headless", "--no-remote", "--profile", str(profile), f"--width={width}", f"--height={height}",
             f"--remote-debugging-port={port}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": home, "MOZ_HEADLESS": "1"})
        try:
            yield Firefox(_connect(port))
        finally:
            program.terminate()
            program.wait(30)


def _connect(port: int) -> WebSocket:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            return WebSocket(port, "/session")
        except (OSError, AssertionError):
            assert time.monotonic() < end, "Firefox does not answer"
            time.sleep(0.2)
