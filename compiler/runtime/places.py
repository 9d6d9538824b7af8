"""Where the values of a core lie in its HBM arena: the additions to def.json's variables, read with care."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nxcc.ir.diagnostics import NEFF_INVALID, CompileError
from nxcc.ir.dtypes import BY_NAME, DType
from nxcc.ir.facts import dataclass

if TYPE_CHECKING:
    from nxcc.neff.reader import LoadedSubgraph


@dataclass(frozen=True)
class Place:
    """A value's address in the arena, in bytes, and how it lies there: row-major, in this dtype.

    second: where it lies for every other request of a stream; None if all have it at one address.
    """

    address: int
    dtype: DType
    dims: tuple[int, ...]
    second: int | None = None

    @property
    def byte_size(self) -> int:
        return math.prod(self.dims) * self.dtype.byte_size

    def to_json(self) -> dict[str, Any]:
        found = {"address": self.address, "dtype": self.dtype.name, "shape": list(self.dims)}
        return found if self.second is None else found | {"second": self.second}

    def of_turn(self, turn: int) -> Place:
        """The place of a request: turns are 0 and 1."""
        return self if self.second is None or not turn else replace(self, address=self.second)


def places_of(subgraph: LoadedSubgraph) -> dict[str, Place]:
    """The places of all variables that have one, by name; CompileError(NEFF_INVALID) for a malformed one."""
    return {name: _place(variable.nxcc, f"{subgraph.path}: {subgraph.name}/def.json: {name}")
            for name, variable in subgraph.definition.var.items() if "address" in variable.nxcc}


def _place(row: dict[str, Any], where: str) -> Place:
    address, word, dims, second = row.get("address"), row.get("dtype"), row.get("shape"), row.get("second")
    is_valid = (_is_address(address) and (second is None or _is_address(second)) and isinstance(word, str) and word in BY_NAME
                and BY_NAME[word].is_array and isinstance(dims, list) and all(type(d) is int and d >= 0 for d in dims))
    if not is_valid:
        raise CompileError(NEFF_INVALID, "a variable's place is malformed", where)
    assert isinstance(address, int) and isinstance(dims, list)
    return Place(address, BY_NAME[str(word)], tuple(dims), second)


def _is_address(value: Any) -> bool:
    return type(value) is int and value >= 0
