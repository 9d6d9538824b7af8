"""Which results of a module count only as far as another result says.

The module's frontend attribute `nxcc.counted` holds `output:dimension:count` for each, separated by commas; output and count
are numbers of leaves of the entry's root, the count an s32 scalar.
"""

from __future__ import annotations

from collections.abc import Iterable

from nxcc.ir.diagnostics import INVALID_MODULE, CompileError
from nxcc.ir.dtypes import S32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Module

ATTRIBUTE = "nxcc.counted"
DIGITS = 10


@dataclass(frozen=True, slots=True)
class Counted:
    """A result, its dimension of which only the first places count, and the result that says how many."""

    output: int
    axis: int
    count: int


def declare_counted(module: Module, rows: Iterable[Counted]) -> None:
    """Note it in the module."""
    words = ",".join(f"{row.output}:{row.axis}:{row.count}" for row in rows)
    if words:
        module.frontend_attributes[ATTRIBUTE] = words


def counted_of(module: Module) -> tuple[Counted, ...]:
    """What the module says; CompileError if it does not fit its results."""
    words = module.frontend_attributes.get(ATTRIBUTE)
    if not words:
        return ()
    leaves = list(module.entry.root.shape.leaves())
    found = []
    for word in words.split(","):
        numbers = [int(part) if part.isdecimal() and len(part) < DIGITS else len(leaves) for part in word.split(":")]
        if len(numbers) != 3 or max(numbers[0], numbers[2]) >= len(leaves):
            raise _invalid(word)
        row = Counted(*numbers)
        if row.axis >= len(leaves[row.output].dims) or leaves[row.count].dims or leaves[row.count].dtype is not S32:
            raise _invalid(word)
        found.append(row)
    return tuple(found)


def _invalid(word: str) -> CompileError:
    return CompileError(INVALID_MODULE, f"{ATTRIBUTE} says {word!r}, which does not fit the results",
                        remedy="write output:dimension:count, with an s32 scalar as count")
