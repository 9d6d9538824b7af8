"""Modules with inputs and expected results that others wrote: a zip or a folder in the corpus form.

Form: `index.json`, a list of objects with `name`, `inputs` and `outputs` as (dtype, dims) pairs, `fit_to_score`, and
`family` or `file`; beside it NAME.pb, perhaps NAME.txt, and NAME.npz with input0.., output0... Types that numpy lacks are
unsigned bit patterns there; types below eight bits take one int8 or uint8 an element. `reprinted.jsonl` holds each module
as XLA's printer writes it, and stands in for a missing NAME.txt.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nxcc.ir.dtypes import BY_NAME, DType

Array = np.ndarray[Any, Any]

VARIABLE = "NXCC_CORPUS"
"""Environment variable with zips and folders, separated as PATH is."""


class CorpusMissing(Exception):
    """No corpus was named, or what was named holds none; the text says what to do."""


@dataclass(frozen=True)
class Case:
    """One module. facts: its row of the index. scored: whether its stored result is fit to be held against."""

    source: str
    name: str
    family: str
    facts: Mapping[str, Any] = field(repr=False)

    @property
    def scored(self) -> bool:
        return bool(self.facts.get("fit_to_score"))

    @property
    def has_result(self) -> bool:
        return bool(self.facts.get("result"))


class Corpus:
    """One zip or folder, open for reading."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._zip = None if os.path.isdir(path) else _open_zip(path)
        names = self._zip.namelist() if self._zip else _files_below(path)
        self._members = {os.path.basename(name): name for name in names}
        if "index.json" not in self._members:
            raise CorpusMissing(f"{path} holds no index.json: it is no corpus")
        self._texts: dict[str, str] | None = None
        rows = json.loads(self._read("index.json"))
        self.cases = [Case(path, row["name"], _family(row), row) for row in rows]

    def _read(self, name: str) -> bytes:
        member = self._members[name]
        if self._zip is not None:
            return self._zip.read(member)
        with open(os.path.join(self.path, member), "rb") as file:
            return file.read()

    def binary(self, case: Case) -> bytes | None:
        """The serialized module."""
        return self._read(f"{case.name}.pb") if f"{case.name}.pb" in self._members else None

    def text(self, case: Case) -> str | None:
        """The module as its author wrote it; if that is not there, as XLA prints it."""
        if f"{case.name}.txt" in self._members:
            return self._read(f"{case.name}.txt").decode("utf-8")
        return self._reprinted().get(case.name)

    def _reprinted(self) -> dict[str, str]:
        if self._texts is None:
            lines = self._read("reprinted.jsonl").splitlines() if "reprinted.jsonl" in self._members else []
            self._texts = {row["name"]: row["text"] for row in map(json.loads, lines)}
        return self._texts

    def arrays(self, case: Case) -> tuple[list[Array], list[Array]]:
        """Inputs and expected results in their own dtypes, as leaves; only where `has_result`."""
        with np.load(io.BytesIO(self._read(f"{case.name}.npz")), allow_pickle=False) as stored:
            return tuple([decoded(stored[f"{kind}{number}"], BY_NAME[dtype])  # type: ignore[return-value]
                          for number, (dtype, _) in enumerate(case.facts[f"{kind}s"])] for kind in ("input", "output"))


def _open_zip(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise CorpusMissing(f"{path} is neither a folder nor a zip of modules ({error})") from None


def _files_below(path: str) -> list[str]:
    return [os.path.relpath(os.path.join(folder, name), path) for folder, _, names in os.walk(path) for name in names]


def _family(row: Mapping[str, Any]) -> str:
    """The group that a table counts a case under: its own word, or the test file it is from."""
    if "family" in row:
        return str(row["family"])
    return re.sub(r"(_test)?\.\w+$", "", os.path.basename(str(row.get("file", "")))) or "other"


def decoded(stored: Array, dtype: DType) -> Array:
    """An array of the corpus in its own dtype."""
    wanted = dtype.numpy
    if stored.dtype == wanted:
        return stored
    if dtype.bits >= 8 and stored.dtype.itemsize == wanted.itemsize and stored.dtype.kind == "u":
        return stored.view(wanted) if stored.ndim else stored.reshape(1).view(wanted).reshape(())
    if dtype.is_integer:
        return stored.astype(wanted)
    return stored.astype(np.uint8).view(wanted) if stored.ndim else stored.reshape(1).astype(np.uint8).view(wanted).reshape(())


def open_corpora(paths: Sequence[str]) -> list[Corpus]:
    """The named corpora, or those of NXCC_CORPUS. Raises CorpusMissing."""
    named = [path for path in paths if path] or [p for p in os.environ.get(VARIABLE, "").split(os.pathsep) if p]
    if not named:
        raise CorpusMissing("no corpus is named: give zips or folders of modules as arguments (make conformance CORPUS=...) or "
                            f"in {VARIABLE}; each holds index.json and NAME.pb, NAME.txt, NAME.npz")
    missing = [path for path in named if not os.path.exists(path)]
    if missing:
        raise CorpusMissing(f"there is no {', '.join(missing)}")
    return [Corpus(path) for path in _expanded(named)]


def _expanded(paths: Sequence[str]) -> Iterator[str]:
    """A folder without an index stands for the zips in it that have one."""
    for path in paths:
        if not os.path.isdir(path) or "index.json" in map(os.path.basename, _files_below(path)):
            yield path
            continue
        inner = sorted(os.path.join(path, name) for name in os.listdir(path) if name.endswith(".zip"))
        found = [zipped for zipped in inner if _has_index(zipped)]
        if not found:
            raise CorpusMissing(f"{path} holds neither index.json nor zips with one")
        yield from found


def _has_index(path: str) -> bool:
    with _open_zip(path) as opened:
        return any(os.path.basename(name) == "index.json" for name in opened.namelist())
