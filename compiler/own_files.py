"""The files that nxcc itself consists of."""

from __future__ import annotations

import os

import nxcc

ROOMS = ("backends", "compiler", "ir", "neff", "passes")
"""The folders of the package that decide what a compile gives."""


def package_folder() -> str:
    """Where the package lies, as its modules' file names have it."""
    assert nxcc.__file__ is not None
    return os.path.dirname(os.path.abspath(nxcc.__file__))


def code_digest() -> str:
    """SHA-256 of the package's own files: what is edited in place is another compiler of the same version."""
    import hashlib
    total = hashlib.sha256()
    for room in ROOMS:
        for folder, folders, names in os.walk(os.path.join(package_folder(), room)):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for name in sorted(names):
                total.update(name.encode() + b"\0")
                with open(os.path.join(folder, name), "rb") as file:
                    total.update(hashlib.sha256(file.read()).digest())
    return total.hexdigest()
