"""What searches have found, kept beside the compile cache's entries: a search is done once, for all modules that need it.

`<folder>/v1/found/<2 hex>/<62 hex>.json` holds one finding and the text that it answers; the name is the digest of that text
and of the compiler's own files, so another compiler searches anew. A file that is damaged or cannot be written is as none.
"""

from __future__ import annotations

import hashlib
import json
import os

from nxcc.backends.tile.builder import Findings
from nxcc.compiler.cache.folder import cache_folder
from nxcc.compiler.cache.store import FINDINGS_FOLDER, VERSION_FOLDER
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.own_files import code_digest
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.files import write_whole


class KeptFindings:
    """Findings in a cache's folder. compiler: the digest of what finds them."""

    def __init__(self, folder: str, compiler: str) -> None:
        self.root, self.compiler = os.path.join(folder, VERSION_FOLDER, FINDINGS_FOLDER), compiler

    def _path(self, key: str) -> str:
        digest = hashlib.sha256(f"{self.compiler}\0{key}".encode()).hexdigest()
        return os.path.join(self.root, digest[:2], f"{digest[2:]}.json")

    def get(self, key: str, /) -> tuple[int, ...] | None:
        """The finding for a text; None if there is none that can be read."""
        try:
            with open(self._path(key), encoding="utf-8") as file:
                row = json.load(file)
        except (OSError, ValueError):
            return None
        found = row.get("found") if isinstance(row, dict) and row.get("key") == key else None
        return tuple(found) if isinstance(found, list) and all(isinstance(number, int) for number in found) else None

    def __setitem__(self, key: str, found: tuple[int, ...], /) -> None:
        path = self._path(key)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_whole(path, json.dumps({"key": key, "found": list(found)}, sort_keys=True) + "\n")
        except (OSError, CompileError):
            return  # What cannot be kept is searched again.


_here: dict[str, tuple[int, ...]] = {}
"""Of this process, where no cache is used."""


def findings_of(options: CompileOptions) -> Findings | None:
    """Where the searches of a compile look first and keep what they find; None for a level that does not search."""
    if options.optlevel != "3":
        return None
    folder = cache_folder(options)
    return KeptFindings(folder, code_digest()) if folder else _here
