"""The compile cache: finished NEFFs on disk, found by the content of everything that they are made from.

`<folder>/v1/<2 hex>/<62 hex>/` holds an entry: `out.neff`; `key.json`, all that went into the key; `report.json`, what the
compile found out and the digest of out.neff. Entries appear by renaming a finished folder, so readers need no lock and
writers race harmlessly; a damaged entry is removed when it is met. The time of change of key.json is that of the last use.
Light to import. Source of the layout: CLI and NEFF reference, section 6.3.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import Any, BinaryIO

from nxcc.ir.diagnostics import FILE_UNREADABLE, FILE_UNWRITABLE, USAGE, CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.files import whole_file

VERSION_FOLDER = "v1"
FINDINGS_FOLDER = "found"
"""Beside entries: see nxcc.compiler.cache.findings."""

NEFF, KEY, REPORT = "out.neff", "key.json", "report.json"
DEFAULT_LIMIT_BYTES = 4 << 30
"""What a cache is cut down to after each write; least recently used entries go first."""

UNFINISHED = "tmp-"
UNFINISHED_LIFE_S = 3600.0
"""Folders of writers that were killed go after this time."""

_PIECE_BYTES = 1 << 20
_DIGITS = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class Key:
    """What an output depends on, by name, in readable form; equal rows mean equal bytes."""

    rows: dict[str, Any]

    @property
    def text(self) -> str:
        return json.dumps(self.rows, indent=1, sort_keys=True) + "\n"

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """A finished entry. used: seconds since 1970 of its last use."""

    digest: str
    path: str
    size: int = 0
    used: float = field(default=0.0, compare=False)

    def rows(self) -> dict[str, Any]:
        """The key's rows; empty if the entry is damaged or gone."""
        return _read_json(os.path.join(self.path, KEY))

    def model(self) -> str:
        """What the compiled module is called."""
        return str(_read_json(os.path.join(self.path, REPORT)).get("body", {}).get("model", ""))


class Cache:
    """A folder of entries; limit_bytes: what it is cut down to after a write."""

    def __init__(self, folder: str, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        if "://" in folder:
            raise CompileError(USAGE, f"the cache {folder} is not a folder", why="nxcc keeps its cache in the file system",
                               remedy="give --cache-dir a folder, which may be shared")
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.root = os.path.join(folder, VERSION_FOLDER)

    def _path(self, digest: str) -> str:
        return os.path.join(self.root, digest[:2], digest[2:])

    def deliver(self, digest: str, output: str, confirm: Callable[[], None] = lambda: None) -> dict[str, Any] | None:
        """Write an entry's NEFF to output and return its report; None if there is no such entry, or it is damaged.

        The digest is verified and confirm called before output appears. Raises CompileError(FILE_UNWRITABLE)
        if output cannot be written.
        """
        path = self._path(digest)
        report = _read_json(os.path.join(path, REPORT))
        try:
            source = open(os.path.join(path, NEFF), "rb")
        except OSError:
            return None
        with source:
            try:
                with whole_file(output) as target:
                    if _copy(source, target) != report.get("neff_sha256"):
                        raise _Damaged
                    confirm()
            except _Damaged:
                _remove(path)
                return None
        _touch(path)
        body: dict[str, Any] = report["body"]
        return body

    def keep(self, key: Key, neff: str, body: dict[str, Any]) -> None:
        """Add an entry for a finished NEFF; another writer's equal entry stays. Raises OSError if it cannot be written."""
        path = self._path(key.digest)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        unfinished = os.path.join(self.root, f"{UNFINISHED}{secrets.token_hex(8)}")
        os.mkdir(unfinished)
        try:
            with open(neff, "rb") as source, open(os.path.join(unfinished, NEFF), "xb") as target:
                digest = _copy(source, target)
            _write(os.path.join(unfinished, REPORT), json.dumps({"body": body, "neff_sha256": digest}, sort_keys=True))
            _write(os.path.join(unfinished, KEY), key.text)
            if not os.path.isdir(path):
                os.rename(unfinished, path)
        except OSError:
            if not os.path.isdir(path):
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        self.prune(self.limit_bytes)

    def entries(self) -> list[Entry]:
        """All entries, the least recently used first; what vanishes meanwhile is left out."""
        found = []
        for digest, path in self._folders():
            try:
                sizes = [os.stat(os.path.join(path, name)) for name in (NEFF, REPORT, KEY)]
            except OSError:
                continue
            found.append(Entry(digest, path, sum(s.st_size for s in sizes), sizes[-1].st_mtime))
        return sorted(found, key=lambda entry: (entry.used, entry.digest))

    def _folders(self) -> Iterator[tuple[str, str]]:
        for first in _names(self.root, 2):
            for rest in _names(os.path.join(self.root, first), 62):
                yield first + rest, os.path.join(self.root, first, rest)

    def find(self, start: str) -> Entry:
        """The one entry whose digest starts so; CompileError(USAGE) if there is none, or several."""
        found = [entry for entry in self.entries() if entry.digest.startswith(start)]
        if len(found) != 1:
            raise CompileError(USAGE, f"{len(found) or 'no'} entries of {self.folder} start with {start!r}",
                               remedy="`nxcc cache list` names them")
        return found[0]

    def prune(self, limit_bytes: int | None = None, older_s: float | None = None) -> list[Entry]:
        """Remove entries unused for longer, then the least recently used above the limit; which ones went."""
        entries, now = self.entries(), time.time()
        total, gone = sum(entry.size for entry in entries), []
        for entry in entries:
            is_old = older_s is not None and now - entry.used > older_s
            if is_old or limit_bytes is not None and total > limit_bytes:
                _remove(entry.path)
                total -= entry.size
                gone.append(entry)
        self._remove_unfinished(now - UNFINISHED_LIFE_S)
        if older_s is not None:
            self._remove_findings(now - older_s)
        return gone

    def clear(self) -> list[Entry]:
        """Remove all entries; which ones went."""
        gone = self.prune(limit_bytes=-1)
        self._remove_unfinished(time.time() + 1)
        shutil.rmtree(os.path.join(self.root, FINDINGS_FOLDER), ignore_errors=True)
        return gone

    def damaged(self) -> list[Entry]:
        """Remove entries whose NEFF is not what was written; which ones went."""
        gone = []
        for entry in self.entries():
            try:
                with open(os.path.join(entry.path, NEFF), "rb") as source:
                    digest = _copy(source, None)
            except OSError:
                continue
            written = _read_json(os.path.join(entry.path, REPORT)).get("neff_sha256")
            if digest != written or Key(entry.rows()).digest != entry.digest:
                _remove(entry.path)
                gone.append(entry)
        return gone

    def _remove_findings(self, before: float) -> None:
        """Those that were found earlier: they are small, and quickly found again."""
        for folder, _, names in os.walk(os.path.join(self.root, FINDINGS_FOLDER)):
            for path in (os.path.join(folder, name) for name in names):
                if _changed(path) < before:
                    try:
                        os.remove(path)
                    except OSError:
                        continue  # Another process was quicker.

    def _remove_unfinished(self, before: float) -> None:
        try:
            names = os.listdir(self.root)
        except OSError:
            return
        for name in names:
            path = os.path.join(self.root, name)
            if name.startswith(UNFINISHED) and _changed(path) < before:
                shutil.rmtree(path, ignore_errors=True)


class _Damaged(Exception):
    """What was copied is not what was written."""


def content_digest(path: str) -> str:
    """SHA-256 of a file, or of a folder's files with their names; CompileError(FILE_UNREADABLE)."""
    try:
        if not os.path.isdir(path):
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        total = hashlib.sha256()
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                full = os.path.join(folder, name)
                total.update(f"{os.path.relpath(full, path)}\0{content_digest(full)}\0".encode())
        return total.hexdigest()
    except OSError as error:
        raise CompileError(FILE_UNREADABLE, f"cannot read {path}", why=error.strerror or str(error)) from None


def first_difference(a: dict[str, Any], b: dict[str, Any], where: str = "") -> str:
    """The first row in which two keys differ; empty if they are equal."""
    for name in sorted({*a, *b}):
        one, other = a.get(name), b.get(name)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            return first_difference(one, other, f"{where}{name}.")
        return f"{where}{name}: {_shown(one)} against {_shown(other)}"
    return ""


def _shown(value: Any) -> str:
    return "absent" if value is None else json.dumps(value, sort_keys=True)


def _copy(source: BinaryIO, target: BinaryIO | None) -> str:
    """Copy to the end; the SHA-256 of what was copied."""
    total = hashlib.sha256()
    while piece := source.read(_PIECE_BYTES):
        total.update(piece)
        if target is not None:
            target.write(piece)
    return total.hexdigest()


def _names(folder: str, length: int) -> list[str]:
    """Names of so many hexadecimal digits in a folder, sorted; none if it is not there."""
    try:
        found = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CompileError(FILE_UNREADABLE, f"cannot read the cache {folder}", why=error.strerror or str(error)) from None
    return sorted(name for name in found if len(name) == length and _DIGITS.issuperset(name))


def _read_json(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: str, text: str) -> None:
    with open(path, "x", encoding="utf-8") as file:
        file.write(text)


def _touch(path: str) -> None:
    try:
        os.utime(os.path.join(path, KEY))
    except OSError:
        return  # The entry was removed meanwhile, or belongs to someone else: then its last use stays unknown.


def _changed(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return time.time()


def _remove(path: str) -> None:
    """Remove an entry; others may do the same at the same time."""
    shutil.rmtree(path, ignore_errors=True)
    if os.path.isdir(path):
        raise CompileError(FILE_UNWRITABLE, f"cannot remove {path}", why="its files may not be removed")
    try:
        os.rmdir(os.path.dirname(path))
    except OSError:
        return  # Other entries are beside it.
