"""What a tensor of the graph is while it is lowered: an HLO instruction, or one of the things that HLO does not have."""

from __future__ import annotations

from dataclasses import replace

from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.ir.graphdef.distances import Number
from nxcc.ir.graphdef.loose import Loose
from nxcc.ir.graphdef.tables import Contents
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.literals import Literal


@dataclass(frozen=True, slots=True)
class Stack:
    """A tensor list, or the contents of a TensorArray: `length` elements of one shape, held as one array.

    dims: of an element, None while unknown. items: [length, *dims]; None as long as nothing was written.
    end: the place of the last write to a list that grows, where it is not known how far. growing: it is being filled by a
    loop, up to its length.
    """

    dtype: DType
    length: int
    dims: tuple[int, ...] | None = None
    items: Instruction | None = None
    end: Number | None = None
    growing: bool = False

    def holding(self, items: Instruction) -> Stack:
        return replace(self, dims=items.shape.dims[1:], items=items, length=items.shape.dims[0])


@dataclass(frozen=True, slots=True)
class ArrayHandle:
    """The handle of a TensorArray; its contents travel with the flow."""

    name: str


@dataclass(frozen=True, slots=True)
class Variable:
    """The handle of a variable whose value was read from a checkpoint."""

    name: str
    value: Literal | None = None


@dataclass(frozen=True, slots=True)
class Partial:
    """An array of which only the first `count` places along an axis count, as detection heads make them.

    items: the array at its bound; what lies beyond the count has no meaning. count: an s32 scalar.
    """

    items: Instruction
    count: Instruction
    axis: int = 0

    @property
    def bound(self) -> int:
        return self.items.shape.dims[self.axis]


@dataclass(frozen=True, slots=True)
class Table:
    """The handle of a lookup table. contents: None where they are no constants of the graph."""

    name: str
    contents: Contents | None = None


Value = Instruction | Stack | ArrayHandle | Variable | Partial | Loose | Table
