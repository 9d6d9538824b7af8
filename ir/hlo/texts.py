"""Strings of a run: HLO has none, so an array of strings is an array of u32 that are numbers in a table.

Each distinct string has one number, so that equal strings are equal numbers, and what only moves strings moves numbers; the
empty string is 0, which is what arrays are filled with. A table lives as long as one run (`fresh`), and a number means nothing
outside it. The module's frontend attribute `nxcc.texts` names the parameters and results that are strings:
`inputs=0,2 outputs=1`, by the numbers of their leaves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from nxcc.ir.diagnostics import INVALID_MODULE, CompileError
from nxcc.ir.dtypes import U32
from nxcc.ir.hlo.module import Module
from nxcc.ir.literals import Array

ATTRIBUTE = "nxcc.texts"
_WORDS = re.compile(r"inputs=((?:\d{1,9},?)*) outputs=((?:\d{1,9},?)*)")


class Table:
    """The strings of one run, numbered as they come."""

    def __init__(self) -> None:
        self._texts: list[bytes] = [b""]
        self._numbers: dict[bytes, int] = {b"": 0}

    def number(self, text: bytes) -> int:
        found = self._numbers.get(text)
        if found is None:
            found = self._numbers[text] = len(self._texts)
            self._texts.append(text)
        return found

    def numbers(self, texts: Iterable[bytes], dims: Sequence[int]) -> Array:
        """u32[dims]: the numbers of these strings, row-major."""
        return np.array([self.number(text) for text in texts], np.uint32).reshape(tuple(dims))

    def texts(self, numbers: Array) -> list[bytes]:
        """The strings of an array of numbers, row-major; ValueError for a number that none has."""
        flat = numbers.reshape(-1)
        if flat.size and int(flat.max()) >= len(self._texts):
            raise ValueError(f"there is no string {int(flat.max())}")
        texts = self._texts
        return [texts[k] for k in flat.tolist()]


_CURRENT: ContextVar[Table] = ContextVar("table", default=Table())  # noqa: B039  # outside of runs, all share one


def current() -> Table:
    return _CURRENT.get()


@contextmanager
def fresh() -> Iterator[Table]:
    """A table of one run's own."""
    table = Table()
    token = _CURRENT.set(table)
    try:
        yield table
    finally:
        _CURRENT.reset(token)


def is_text(dtype: np.dtype[Any]) -> bool:
    """Whether numpy's arrays of this type hold strings."""
    return dtype.kind in "SUO"


def to_numbers(array: Array) -> Array:
    """The numbers of a numpy array of strings (bytes, str or objects of these); TypeError for objects of another kind."""
    return current().numbers((_plain(item) for item in array.reshape(-1).tolist()), array.shape)


def _plain(item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytes):
        return item
    raise TypeError(f"{type(item).__name__} is no string")


def to_texts(numbers: Array) -> Array:
    """A numpy array of bytes, as long as the longest; ValueError for a number that no string has."""
    texts = current().texts(numbers)
    return np.array(texts, f"S{max(map(len, texts), default=0) or 1}").reshape(numbers.shape)


def declare_texts(module: Module, inputs: Iterable[int], outputs: Iterable[int]) -> None:
    """Note which parameters and results hold strings."""
    words = [",".join(map(str, numbers)) for numbers in (inputs, outputs)]
    if any(words):
        module.frontend_attributes[ATTRIBUTE] = f"inputs={words[0]} outputs={words[1]}"


def texts_of(module: Module) -> tuple[frozenset[int], frozenset[int]]:
    """Which parameters, by their numbers in the module as read, and which leaves of the result are strings; CompileError if
    the module says what cannot be."""
    words = module.frontend_attributes.get(ATTRIBUTE)
    if not words:
        return frozenset(), frozenset()
    match = _WORDS.fullmatch(words)
    inputs, outputs = (frozenset(int(n) for n in part.split(",") if n) for part in match.groups()) if match else ({-1}, {-1})
    leaves = [leaf.dtype for leaf in module.entry.root.shape.leaves()]
    if match is None or not all(n < len(leaves) and leaves[n] is U32 for n in outputs):
        raise CompileError(INVALID_MODULE, f"{ATTRIBUTE} says {words[:60]!r}, which does not fit the module",
                           remedy="write inputs=0,2 outputs=1, with u32 arrays as these")
    return frozenset(inputs), frozenset(outputs)
