"""Outputs of which only the first places count, as graphs have them whose sizes depend on values.

Such an output is computed at its bound, with its count as an output of its own behind those of the graph. The module says
which belong together (`nxcc.ir.hlo.counted`), the NEFF repeats it by name, and whoever runs it gets the places that count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nxcc.ir.diagnostics import NEFF_INVALID, CompileError
from nxcc.ir.dtypes import S32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.counted import counted_of
from nxcc.ir.hlo.module import Module
from nxcc.ir.literals import Array
from nxcc.neff.members import Graph

KEY = "counts"
"""Under `nxcc` in neff.json: by name of an output the dimension that is cut, and the name of the output with the count."""


def by_name(module: Module, results: Sequence[str]) -> dict[str, list[Any]]:
    """What the NEFF says of a module's outputs; results: their names."""
    return {results[row.output]: [row.axis, results[row.count]] for row in counted_of(module)}


def counted_words(module: Module) -> list[str]:
    """A line for each such output."""
    leaves = list(module.entry.root.shape.leaves())
    return [f"output{row.output} has at most {leaves[row.output].dims[row.axis]} places in dimension {row.axis}: how many "
            "depends on values, and run leaves the others out" for row in counted_of(module)]


@dataclass(frozen=True)
class CountedOutputs:
    """Cuts outputs to what counts. rows: output, dimension, output with the count, by number; hidden: the counts."""

    rows: tuple[tuple[int, int, int], ...]
    hidden: frozenset[int]

    def visible(self, values: Sequence[Any]) -> list[Any]:
        """Without the counts."""
        return [value for number, value in enumerate(values) if number not in self.hidden]

    def cut(self, arrays: Sequence[Array]) -> list[Array]:
        """The outputs in their true size, without the counts."""
        found = list(arrays)
        for output, axis, count in self.rows:
            array = found[output]
            found[output] = array[(slice(None),) * axis + (slice(max(0, int(arrays[count]))),)]
        return self.visible(found)


def open_counted(graph: Graph, path: str) -> CountedOutputs:
    """What a NEFF says; CompileError(NEFF_INVALID) if it does not fit its outputs."""
    found = graph.nxcc.extra.get(KEY, {})
    numbers = {row.name: number for number, row in enumerate(graph.outputs)}
    if not isinstance(found, dict):
        raise _invalid(path)
    rows = []
    for name, row in found.items():
        if not isinstance(row, list) or len(row) != 2 or type(row[0]) is not int or not isinstance(row[1], str):
            raise _invalid(path)
        axis, count = row
        if name not in numbers or count not in numbers or not 0 <= axis < len(graph.outputs[numbers[name]].shape):
            raise _invalid(path)
        scalar = graph.outputs[numbers[count]]
        if scalar.shape or scalar.dtype is not S32:
            raise _invalid(path)
        rows.append((numbers[name], axis, numbers[count]))
    return CountedOutputs(tuple(rows), frozenset(count for _, _, count in rows))


def _invalid(path: str) -> CompileError:
    return CompileError(NEFF_INVALID, f"`{KEY}` of neff.json does not fit the outputs", path)
