"""Inputs and outputs that are strings: numpy arrays of bytes or str outside, numbers in the run's table inside.

The module says which they are (`nxcc.ir.hlo.texts`), the NEFF repeats it by name, and whoever runs it hands in and gets
strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nxcc.compiler.interface.parameters import Tensor
from nxcc.ir.diagnostics import INPUT_MISMATCH, NEFF_INVALID, CompileError
from nxcc.ir.dtypes import U32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.texts import texts_of, to_numbers, to_texts
from nxcc.ir.literals import Array
from nxcc.neff.members import Graph

KEY = "texts"
"""Under `nxcc` in neff.json: names of inputs and outputs that are strings."""


def by_name(module: Module, tensors: Iterable[Tensor], results: Sequence[str]) -> list[str]:
    """What the NEFF says of a module; tensors: its parameters; results: names of its outputs."""
    inputs, outputs = texts_of(module)
    return [tensor.name for tensor in tensors if tensor.number in inputs] + [results[number] for number in sorted(outputs)]


@dataclass(frozen=True)
class TextValues:
    """names: of inputs and outputs that are strings."""

    names: frozenset[str]

    def entered(self, tensors: Sequence[Tensor], values: Sequence[Array], path: str) -> list[Array]:
        """Inputs as the program takes them: strings as numbers of the table of this run."""
        return [self._entered(tensor.name, value, path) if tensor.name in self.names else value
                for tensor, value in zip(tensors, values, strict=True)]

    def _entered(self, name: str, value: Array, path: str) -> Array:
        try:
            return to_numbers(value)
        except TypeError as error:
            raise CompileError(INPUT_MISMATCH, f"{name} holds something else than strings", path, why=str(error)) from None

    def shown(self, names: Sequence[str], values: Sequence[Array], path: str) -> list[Array]:
        """Outputs as the user gets them; names: theirs, in order."""
        try:
            return [to_texts(value) if name in self.names else value for name, value in zip(names, values, strict=True)]
        except ValueError as error:
            raise _invalid(path, str(error)) from None


def open_texts(graph: Graph, path: str) -> TextValues:
    """What a NEFF says; CompileError(NEFF_INVALID) if it does not fit its inputs and outputs."""
    found = graph.nxcc.extra.get(KEY, [])
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise _invalid(path, "it is no list of names")
    known = {row.name for row in graph.inputs if row.dtype is U32} | {row.name for row in graph.outputs if row.dtype is U32}
    if not known.issuperset(found):
        raise _invalid(path, "it names what is no input or output of u32")
    return TextValues(frozenset(found))


def _invalid(path: str, why: str) -> CompileError:
    return CompileError(NEFF_INVALID, f"`{KEY}` of neff.json does not fit the inputs and outputs", path, why=why)

