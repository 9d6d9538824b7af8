"""Recording nodes as steps of host programs: which must be, and what is known of what they give.

What reads or makes strings is always such a step; other operators are where an input's size is not known, or is one that the
operator's own rule cannot keep to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nxcc.ir.dtypes import U32
from nxcc.ir.graphdef.datatypes import by_number
from nxcc.ir.graphdef.loose import MAX_VALUES, Facts, Known, Loose, LooseStep, exact_values, spans_of, text_constant
from nxcc.ir.graphdef.shape_functions.registry import LooseRule
from nxcc.ir.graphdef.signatures import Unranked, shape_value
from nxcc.ir.graphdef.spans import ANY, Span, Spans, at
from nxcc.ir.graphdef.tensors import Strings
from nxcc.ir.graphdef.values import Partial, Stack, Value
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.programs.registry import Function
from nxcc.ir.literals import Array

if TYPE_CHECKING:
    from nxcc.ir.graphdef.call import Call

_COUNTED = frozenset(("SparseReshape", "SparseFillEmptyRows", "SparseToDense", "StringToHashBucketFast", "Unique"))
_FAULTS = (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError)
_PICKS = frozenset(("Where", "Unique"))
"""Operators whose result's size depends on values, that a graph with strings computes on the host at once."""


def is_step(call: Call, rule: LooseRule) -> bool:
    """Whether this node must be a step of a host program."""
    loose = [value for value in call.inputs if isinstance(value, Loose)]
    if rule.function.on_host or not all(value.is_fixed for value in loose):
        return True
    op = call.node.op
    if (rule.function.moves or op == "Cast") and any(_is_half_known(value) for value in loose):
        return True
    if op == "AsString" or (op in _PICKS and call.scope.world.has_texts):
        return True
    return op in _COUNTED and any(isinstance(value, Partial) for value in call.inputs)


def _is_half_known(value: Loose) -> bool:
    """Whether it is numbers that are known in part, as a shape is; once they are taken apart, some are constants."""
    return value.values is not None and exact_values(value.values) is None


def record(call: Call, rule: LooseRule) -> list[Value]:
    """The results of a node as values that have not run."""
    if call.node.op == "LookupTableFindV2":
        call.inputs[:1] = _table_arrays(call)
    inputs = tuple(_input(call, value) for value in call.inputs)
    attributes = _attributes(call)
    facts = [_facts(call, value) for value in inputs]
    kinds = [kind.dtype for kind in call.attributes.all_types(call.signature.outputs)]
    step = LooseStep(rule.function.name, inputs, attributes)
    try:
        found = _evaluated(rule.function, attributes, facts) or rule.infer(attributes, facts)
    except _FAULTS as error:
        raise call.invalid(f"the inputs of {call.node.op} do not fit together: {error}") from None
    results: list[Value] = []
    for port, (kind, (dims, values)) in enumerate(zip(kinds, found, strict=True)):
        assert kind is not None
        results.append(Loose(step, port, kind, _declared(call, port, dims), values if kind.is_integer else None))
    return results


def _declared(call: Call, port: int, dims: Spans | None) -> Spans | None:
    """Sizes that the graph itself notes, where they are not known otherwise; the run checks them."""
    if "_output_shapes" not in call.node.attributes or (dims is not None and all(n.exact for n in dims)):
        return dims
    rows = call.node.attributes["_output_shapes"].list.shape
    noted = shape_value(rows[port]) if port < len(rows) else Unranked
    if not isinstance(noted, tuple) or (dims is not None and len(dims) != len(noted)):
        return dims
    own = dims if dims is not None else (ANY,) * len(noted)
    return tuple(n if n.exact or size < 0 else at(size) for n, size in zip(own, noted, strict=True))


_WRITES = {"TensorListSetItem": (0, 2), "TensorListPushBack": (0, 1), "TensorArrayWriteV3": (3, 2)}
"""Operators that put an element into a list: the inputs that are the list and the element."""


def fit_into_lists(call: Call) -> None:
    """An element of a list has the dimensions that the list was made with; the run checks them."""
    if call.node.op not in _WRITES:
        return
    place, number = _WRITES[call.node.op]
    stack, value = call.inputs[place], call.inputs[number]
    if isinstance(stack, Stack) and stack.dims is not None and isinstance(value, Loose):
        if value.dims is None or len(value.dims) == len(stack.dims):
            call.inputs[number] = replace(value, dims=tuple(map(at, stack.dims)))


def _table_arrays(call: Call) -> list[Value]:
    """Keys and values of the table that is read, as constants."""
    contents = call.table_contents(0)
    arrays: list[Value] = []
    for given in (contents.keys, contents.values):
        arrays.append(text_constant(call.emit, given.values, given.dims, U32) if isinstance(given, Strings) else
                      call.emit.builder.literal(given))
    return arrays


def _input(call: Call, value: Value) -> Instruction | Loose:
    if isinstance(value, Partial):
        step = LooseStep("FirstPlaces", (value.items, value.count), {"axis": value.axis})
        shape = value.items.shape
        dims = tuple(Span(0, n) if d == value.axis else at(n) for d, n in enumerate(shape.dims))
        return Loose(step, 0, shape.dtype, dims)
    if isinstance(value, (Instruction, Loose)):
        return value
    raise call.impossible("an input is no array")


def _attributes(call: Call) -> dict[str, Any]:
    """The attributes as JSON holds them; strings with a character a byte, types as numpy names them."""
    found: dict[str, Any] = {}
    for name, declared in call.signature.attributes.items():
        if declared.kind == "string" and name in call.node.attributes:
            call.attr(name)
            found[name] = call.node.attributes[name].s.decode("latin-1")
        elif declared.kind == "type":
            kind = by_number(call.attr(name))
            found[name] = kind.dtype.numpy.name if kind is not None and kind.dtype is not None else ""
        elif declared.kind in ("int", "float", "bool", "string", "list(int)", "list(string)"):
            value = call.attr(name)
            found[name] = list(value) if isinstance(value, tuple) else value
    if call.node.op == "EnsureShape" and isinstance(call.attr("shape"), tuple):
        found["shape"] = list(call.attr("shape"))
    if call.node.op == "Select":
        found["leads"] = True
    return found


def _facts(call: Call, value: Instruction | Loose) -> Facts:
    if isinstance(value, Loose):
        return Facts(value.dims, value.values, value.dtype)
    shape = value.shape
    known = call.scope.constants.value(value) if shape.dtype.is_integer and shape.element_count <= MAX_VALUES else None
    return Facts(tuple(map(at, shape.dims)), None if known is None else spans_of(known), shape.dtype)




def _evaluated(function: Function, attributes: dict[str, Any], facts: Sequence[Facts]) -> list[Known] | None:
    """What follows from known values: numbers computed, or Spans moved."""
    if function.reads_texts or not facts:
        return None
    data = len(facts) - 1 if function.name == "ConcatV2" else len(facts) if function.name == "Pack" else 1
    moved = [f.values for f in facts[:data]] if function.moves else []
    rest = [f.numbers for f in (facts[data:] if function.moves else facts)]
    if any(values is None for values in (*moved, *rest)):
        return None
    if not function.moves:
        rest = [f.numbers.astype(f.dtype.numpy) for f in facts if f.numbers is not None]
    try:
        found = function.evaluate(attributes, *moved, *rest)
    except _FAULTS:
        return None
    if any(np.size(array) > MAX_VALUES or (np.asarray(array).dtype.kind not in "iuO") for array in found):
        return None
    return [_known(np.asarray(array)) for array in found]


def _known(array: Array) -> Known:
    return tuple(map(at, array.shape)), array if array.dtype == object else spans_of(array)
