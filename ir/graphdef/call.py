"""One node as its lowering rule sees it: attributes with defaults, inputs checked against the signature, an emitter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nxcc.ir.diagnostics import GRAPH_DYNAMIC, GRAPH_INVALID, GRAPH_OPERATOR, LIMIT_EXCEEDED, CompileError
from nxcc.ir.dtypes import DType
from nxcc.ir.graphdef.bearing import TEXT_BEARING
from nxcc.ir.graphdef.datatypes import STRING, DataType, by_number
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.loose import Loose
from nxcc.ir.graphdef.reader import Node
from nxcc.ir.graphdef.registry import ranks_of
from nxcc.ir.graphdef.signatures import Argument, Attribute, Signature, attribute_value
from nxcc.ir.graphdef.tables import Contents
from nxcc.ir.graphdef.tensors import Strings
from nxcc.ir.graphdef.values import Partial, Table, Value
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.literals import Array, Literal

if TYPE_CHECKING:
    from nxcc.ir.graphdef.scope import Scope

_NO_VALUE: dict[str, Any] = {"list(type)": (), "list(int)": (), "list(shape)": (), "list(string)": ()}


MAX_COUNTED_ELEMENTS = 64
"""Of an integer input that may follow from counts: shapes and sizes, nothing larger."""


MAX_TABLE_ELEMENTS = 1 << 26
MAX_NUMBERS = 1 << 20
"""Of an input that gives sizes, axes or places."""
MAX_TENSORS = 1 << 16
"""Of one argument of a node."""


class Attributes:
    """The attributes of a node: given values, else the signature's defaults."""

    def __init__(self, node: Node, signature: Signature) -> None:
        self.node = node
        self.signature = signature

    def get(self, name: str) -> Any:
        """A value as attribute_value gives it. CompileError(GRAPH_INVALID) if it is missing or of another kind."""
        declared = self.signature.attributes[name]
        if name not in self.node.attributes:
            if declared.default is None and declared.kind not in ("shape", "func"):
                raise CompileError(GRAPH_INVALID, f"{self.node.op} needs the attribute {name!r}", self.node.name)
            return declared.default
        value = attribute_value(declared.kind, self.node.attributes[name])
        if value is None:
            value = self._mistyped(name, declared)
        return value

    def _mistyped(self, name: str, declared: Attribute) -> Any:
        given = self.node.attributes[name].WhichOneof("value")
        if given is None and declared.kind in _NO_VALUE:
            return _NO_VALUE[declared.kind]
        raise CompileError(GRAPH_INVALID, f"the attribute {name!r} of {self.node.op} must be of type {declared.kind}",
                           self.node.name, why=f"it holds {given or 'nothing'}")

    def types(self, argument: Argument) -> list[DataType]:
        """The types of the tensors that an argument stands for."""
        if argument.is_list:
            return [self._row(number) for number in self.get(argument.type)]
        if argument.type in self.signature.attributes:
            kind = self._row(self.get(argument.type))
        else:
            from nxcc.ir.graphdef.datatypes import BY_NAME
            kind = BY_NAME[argument.type]
        count = self.get(argument.count) if argument.count else 1
        if not 0 <= count <= MAX_TENSORS:
            raise CompileError(GRAPH_INVALID, f"the attribute {argument.count!r} is {count}", self.node.name)
        return [kind] * count

    def _row(self, number: int) -> DataType:
        found = by_number(number)
        if found is None:
            raise CompileError(GRAPH_INVALID, f"{number} is no data type", self.node.name)
        return found

    def all_types(self, arguments: Sequence[Argument]) -> list[DataType]:
        return [kind for argument in arguments for kind in self.types(argument)]


class Call:
    """A node with its inputs lowered."""

    def __init__(self, node: Node, signature: Signature, scope: Scope, inputs: list[Value]) -> None:
        self.node = node
        self.signature = signature
        self.scope = scope
        self.inputs = inputs
        self.attributes = Attributes(node, signature)

    @property
    def name(self) -> str:
        return self.scope.full_name(self.node.name)

    @property
    def emit(self) -> Emitter:
        return self.scope.emit

    def check(self) -> None:
        """CompileError(GRAPH_INVALID) unless attributes are complete and inputs are as many and as typed as declared."""
        for name, declared in self.signature.attributes.items():
            if declared.default is None and declared.kind != "tensor":
                self.attributes.get(name)
        kinds = self.attributes.all_types(self.signature.inputs)
        if len(kinds) != len(self.inputs):
            raise self.invalid(f"{self.node.op} takes {len(kinds)} inputs, {len(self.inputs)} are given")
        for number, (kind, value) in enumerate(zip(kinds, self.inputs, strict=True)):
            given = value.shape.dtype if isinstance(value, Instruction) else value.dtype if isinstance(value, Loose) else None
            if given is not None and kind.dtype is not given and (kind.dtype is not None or kind.name == "string"):
                raise self.invalid(f"input {number} is {given}, {self.node.op} declares {kind}")

        for number, (rank, value) in enumerate(zip(ranks_of(self.node.op), self.inputs, strict=False)):
            if isinstance(value, Instruction) and not _has_rank(value, rank):
                wanted = str(rank).replace("+", " or more")
                raise self.invalid(f"input {number} of {self.node.op} must have {wanted} dimensions, it is {value.shape}")

    def settle(self) -> None:
        """Make arrays of inputs that have not run and whose sizes are known; CompileError(GRAPH_DYNAMIC) for others."""
        self.inputs[:] = [self.scope.world.settled.array(self.emit, value, self.name) if isinstance(value, Loose) else value
                          for value in self.inputs]

    def refuse_strings(self) -> None:
        """CompileError(GRAPH_OPERATOR) if the operator would compute with strings as if they were numbers."""
        if self.node.op in TEXT_BEARING:
            return
        for name, declared in self.signature.attributes.items():
            if declared.kind in ("type", "list(type)"):
                given = self.attr(name)
                if STRING in (given if isinstance(given, tuple) else (given,)):
                    raise self.impossible(f"{name} says string, and it is for numbers")

    def is_partial(self) -> bool:
        """True if an input is a Partial, or its value follows from the count of one, and all are arrays."""
        arrays = all(isinstance(value, Partial | Instruction) for value in self.inputs)
        return arrays and any(isinstance(value, Partial) or self._is_counted(value)
                              for value in self.inputs if isinstance(value, Partial | Instruction))

    def _is_counted(self, value: Instruction) -> bool:
        constants = self.scope.constants
        return (value.shape.is_array and value.shape.element_count <= MAX_COUNTED_ELEMENTS and value.shape.dtype.is_integer
                and not constants.is_constant(value) and constants.values_of_counts(value) is not None)

    # Attributes

    def attr(self, name: str) -> Any:
        return self.attributes.get(name)

    def dtype(self, name: str) -> DType:
        """The HLO type of a type attribute."""
        kind = by_number(self.attr(name))
        if kind is None or kind.dtype is None:
            raise self.impossible(f"values of type {kind or self.attr(name)} have no form in HLO")
        return kind.dtype

    def tensor(self, name: str) -> Literal | Strings:
        found = self.node.tensor(name)
        if found is None:
            raise self.invalid(f"{self.node.op} needs the attribute {name!r}")
        return found

    def text(self, name: str, *allowed: str) -> str:
        """A string attribute that must be one of some words."""
        value = str(self.attr(name))
        if value not in allowed:
            raise self.invalid(f"{name} is {value!r}; it may be {', '.join(allowed)}")
        return value

    # Inputs

    def x(self, number: int) -> Instruction:
        """An input that HLO can hold."""
        if number >= len(self.inputs):
            raise self.invalid(f"{self.node.op} has no input {number}")
        value = self.inputs[number]
        if not isinstance(value, Instruction):
            raise self.impossible(f"input {number} is {_description(value)}, which HLO does not have")
        return value

    @cached_property
    def operands(self) -> list[Instruction]:
        return [self.x(number) for number in range(len(self.inputs))]

    def known(self, number: int) -> Array | None:
        """The value of an input if it is known at compile time."""
        return self.scope.constants.value(self.x(number))

    def constant(self, number: int) -> Array:
        """The value of an input that must be known at compile time."""
        found = self.known(number)
        if found is None:
            names = self.signature.inputs
            what = names[number].name if number < len(names) and len(names) == len(self.inputs) else f"input {number}"
            raise CompileError(GRAPH_DYNAMIC, f"{what} of {self.node.op} is not known at compile time", self.name,
                               why=f"it depends on values of {self.scope.source_of(self.x(number))}",
                               remedy="shapes, axes and sizes must follow from input shapes and constants")
        return found

    def ints(self, number: int) -> list[int]:
        """A constant vector, or a scalar as a vector of one."""
        count = self.x(number).shape.element_count
        self.need(count <= MAX_NUMBERS, f"input {number} of {self.node.op} must be a few numbers, it has {count}")
        return [int(v) for v in self.constant(number).reshape(-1)]

    def number(self, number: int) -> int:
        """A constant that must be one number."""
        values = self.ints(number)
        if len(values) != 1:
            raise self.invalid(f"input {number} of {self.node.op} must be one number, it has {len(values)}")
        return values[0]

    def axis(self, value: int, rank: int) -> int:
        """An axis counted from the front; CompileError if there is none."""
        if not -rank <= value < rank:
            raise self.invalid(f"axis {value} is outside a tensor of rank {rank}")
        return value % rank

    def axes(self, number: int, rank: int) -> list[int]:
        return sorted({self.axis(v, rank) for v in self.ints(number)})

    def need(self, condition: bool, what: str) -> None:
        if not condition:
            raise self.invalid(what)

    def table_contents(self, number: int) -> Contents:
        """Keys and values of an input that is a lookup table."""
        value = self.inputs[number]
        if not isinstance(value, Table):
            raise self.invalid(f"input {number} of {self.node.op} is no table")
        if value.contents is None:
            raise self.impossible(f"what the table {value.name!r} holds is no constant of the graph",
                                  "fill it from constant keys and values, or begin behind the lookup, with --io-config")
        return value.contents

    def table(self, elements: float) -> None:
        """CompileError(LIMIT_EXCEEDED) if a table that the rule computes would have too many elements."""
        if not elements <= MAX_TABLE_ELEMENTS:  # NaN is no size either
            raise CompileError(LIMIT_EXCEEDED, f"{self.node.op} needs a table of {elements:.3g} elements", self.name,
                               why=f"at most {MAX_TABLE_ELEMENTS} are computed while compiling")

    # Errors

    def invalid(self, what: str) -> CompileError:
        return CompileError(GRAPH_INVALID, what, self.name)

    def impossible(self, why: str, remedy: str = "") -> CompileError:
        return CompileError(GRAPH_OPERATOR, f"{self.node.op} cannot be compiled", self.name, why=why,
                            remedy=remedy or "end the graph before it, or begin after it, with --io-config")


def _has_rank(value: Instruction, rank: int | str | None) -> bool:
    if isinstance(rank, str):
        return value.shape.rank >= int(rank.removesuffix("+"))
    return rank is None or value.shape.rank == rank


def _description(value: Value) -> str:
    return {"Stack": "a tensor list", "ArrayHandle": "a TensorArray", "Variable": "a variable", "Table": "a table",
            "Loose": "an array whose size depends on values",
            "Partial": "an array whose size depends on values"}[type(value).__name__]
