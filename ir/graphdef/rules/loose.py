"""What is known of the shapes of values that only a run makes whole, operator by operator, and how such a step is recorded.

An operator stands here if a host program has a function of its name. What reads or makes strings is always such a step; the
others are where an input's size is not known, or is one that the operator's own rule cannot keep to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nxcc.ir.dtypes import U32
from nxcc.ir.facts import dataclass
from nxcc.ir.graphdef.datatypes import by_number
from nxcc.ir.graphdef.loose import MAX_VALUES, Facts, Known, Loose, LooseStep, exact_values, spans_of, text_constant
from nxcc.ir.graphdef.signatures import Unranked, shape_value
from nxcc.ir.graphdef.spans import ANY, FAR, Span, Spans, at, broadcast, product, total
from nxcc.ir.graphdef.tensors import Strings
from nxcc.ir.graphdef.values import Partial, Stack, Value
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.programs.arrays import ELEMENTWISE, REDUCTIONS
from nxcc.ir.hlo.programs.mathematics import MATRIX_FUNCTIONS, SPECIAL
from nxcc.ir.hlo.programs.registry import Function, find_function
from nxcc.ir.literals import Array

if TYPE_CHECKING:
    from nxcc.ir.graphdef.call import Call

Infer = Callable[[dict[str, Any], Sequence[Facts]], Sequence[Known]]
_RULES: dict[str, Infer] = {}
ALIASES = {"StopGradient": "Identity", "PreventGradient": "Identity", "Snapshot": "Identity", "CheckNumerics": "Identity"}
"""Operators that do what the function of another name does."""
_COUNTED = frozenset(("SparseReshape", "SparseFillEmptyRows", "SparseToDense", "StringToHashBucketFast", "Unique"))
_FAULTS = (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError)
_DEPENDS = "the size of its result depends on values"
_PICKS = frozenset(("Where", "Unique"))
"""Operators whose result's size depends on values, that a graph with strings computes on the host at once."""


def _infer(*names: str) -> Callable[[Infer], Infer]:
    def declare(function: Infer) -> Infer:
        for name in names:
            _RULES[name] = function
        return function
    return declare


@dataclass(frozen=True, slots=True)
class LooseRule:
    function: Function
    infer: Infer


def find_loose(operator: str) -> LooseRule | None:
    """How an operator becomes a step; None if it cannot."""
    name = ALIASES.get(operator, operator)
    function, infer = find_function(name), _RULES.get(name)
    return LooseRule(function, infer) if function is not None and infer is not None else None


def steps() -> dict[str, str]:
    """Operators that become steps of host programs, with why they run there."""
    names = {*_RULES, *ALIASES}
    return {name: "it works on strings" if function.reads_texts or name == "AsString" else
            "it has no device lowering" if function.on_host else _DEPENDS
            for name in sorted(names) if (function := find_function(ALIASES.get(name, name))) is not None}


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


# Elementwise


def _alike(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [(broadcast(*(f.dims for f in facts)), None)]


for _name in (*ELEMENTWISE, *SPECIAL, "NextAfter", "Select", "SelectV2", "Substr", "StringJoin"):
    _RULES[_name] = _alike


@_infer("Cast", "Identity", "ZerosLike", "OnesLike", "Cumsum", "ReverseV2",
        "StringToHashBucketFast", "StringLength", "StringToNumber",
        "AsString", "RegexFullMatch", "StaticRegexFullMatch", "StringLower", "StringUpper", "StringStrip", "RegexReplace",
        "StaticRegexReplace", "DrawBoundingBoxes", "DrawBoundingBoxesV2", *MATRIX_FUNCTIONS)
def _same(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [(facts[0].dims, facts[0].values)]


@_infer(*REDUCTIONS, "ReduceJoin")
def _reduced(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, axes = facts[0].dims, facts[1].numbers
    if dims is None or axes is None:
        return [(None, None)]
    gone = {int(a) % max(len(dims), 1) for a in axes.reshape(-1)}
    if not gone and "separator" in attributes:
        gone = set(range(len(dims)))
    kept = attributes["keep_dims"]
    return [(tuple(at(1) if d in gone else n for d, n in enumerate(dims) if kept or d not in gone), None)]


# Sizes


@_infer("Shape")
def _shape(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims = facts[0].dims
    if dims is None:
        return [((ANY,), None)]
    values = np.empty(len(dims), object)
    values[:] = dims
    return [((at(len(dims)),), values)]


@_infer("Size")
def _size(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims = facts[0].dims
    if dims is None:
        return [((), None)]
    value = np.empty((), object)
    value[()] = product(dims)
    return [((), value)]


def _sizes(facts: Facts) -> Spans | None:
    """Dimensions that an input gives; -1 and what is not known may be anything."""
    if facts.values is None:
        count = facts.size
        return (ANY,) * count.low if count.exact else None
    return tuple(ANY if span.low < 0 else span for span in facts.values.reshape(-1))


@_infer("Fill")
def _fill(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [(_sizes(facts[0]), None)]


@_infer("Reshape")
def _reshape(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    wanted, own = facts[1].values, facts[0].dims
    dims = _sizes(facts[1])
    if dims is None or wanted is None or own is None:
        return [(dims, None)]
    open_ = [d for d, span in enumerate(wanted.reshape(-1)) if span == at(-1)]
    others = [span for d, span in enumerate(dims) if d not in open_]
    if len(open_) == 1 and all(span.exact for span in others):
        each = max(math.prod(span.low for span in others), 1)
        dims = tuple(product(own).mapped(lambda n: n // each) if d in open_ else n for d, n in enumerate(dims))
    return [(dims, None)]


@_infer("ExpandDims")
def _expand_dims(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, axis = facts[0].dims, facts[1].numbers
    if dims is None or axis is None:
        return [(None, None)]
    place = int(axis.reshape(-1)[0]) % (len(dims) + 1)
    return [((*dims[:place], at(1), *dims[place:]), None)]


@_infer("Squeeze")
def _squeeze(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, named = facts[0].dims, attributes["squeeze_dims"]
    if dims is None or (not named and any(n.low <= 1 < n.high for n in dims)):
        return [(None, None)]
    gone = {d % len(dims) for d in named} or {d for d, n in enumerate(dims) if n == at(1)}
    return [(tuple(n for d, n in enumerate(dims) if d not in gone), None)]


@_infer("Rank")
def _rank(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims = facts[0].dims
    return [((), None if dims is None else spans_of(np.array(len(dims))))]


@_infer("EnsureShape")
def _ensure_shape(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    wanted, dims = attributes["shape"], facts[0].dims
    own = dims if dims is not None else (ANY,) * len(wanted)
    return [(tuple(n if w < 0 else at(w) for w, n in zip(wanted, own, strict=False)), None)]


@_infer("OneHot")
def _one_hot(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, depth = facts[0].dims, facts[1].values
    if dims is None:
        return [(None, None)]
    place = attributes["axis"] % (len(dims) + 1)
    return [((*dims[:place], ANY if depth is None else depth.reshape(-1)[0], *dims[place:]), None)]


@_infer("Pad", "PadV2")
def _pad(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, amounts = facts[0].dims, facts[1].values
    if dims is None:
        return [(None, None)]
    if amounts is None:
        return [(tuple(Span(n.low, FAR) for n in dims), None)]
    return [(tuple(total([n, *row]) for n, row in zip(dims, amounts.reshape(-1, 2), strict=True)), None)]


@_infer("Range")
def _range(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [((ANY,), None)]


# Movement


@_infer("ConcatV2")
def _concat(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    shapes, axis = [f.dims for f in facts[:-1] if f.dims is not None], facts[-1].numbers
    if axis is None or len(shapes) < len(facts) - 1:
        return [(None, None)]
    place = int(axis.reshape(-1)[0]) % len(shapes[0])
    return [(tuple(total([s[d] for s in shapes]) if d == place else _narrowest([s[d] for s in shapes])
                   for d in range(len(shapes[0]))), None)]


def _narrowest(spans: Sequence[Span]) -> Span:
    """Of sizes that must be equal."""
    return Span(max(s.low for s in spans), min(s.high for s in spans))


@_infer("Pack")
def _pack(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    shapes = [f.dims for f in facts if f.dims is not None]
    if len(shapes) < len(facts):
        return [(None, None)]
    dims = [_narrowest(column) for column in zip(*shapes, strict=True)]
    place = attributes["axis"] % (len(dims) + 1)
    return [((*dims[:place], at(len(facts)), *dims[place:]), None)]


@_infer("Slice")
def _slice(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, begin, size = facts[0].dims, facts[1].numbers, facts[2].numbers
    if dims is None:
        return [(None, None)]
    found = []
    for d, n in enumerate(dims):
        wanted = -1 if size is None else int(size.reshape(-1)[d])
        if wanted >= 0:
            found.append(at(wanted))
        elif size is not None and begin is not None:
            start = int(begin.reshape(-1)[d])
            found.append(Span(max(n.low - start, 0), max(n.high - start, 0)))
        else:
            found.append(Span(0, n.high))
    return [(tuple(found), None)]


@_infer("StridedSlice")
def _strided_slice(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, count = facts[0].dims, facts[1].size
    if dims is None or not count.exact:
        return [(None, None)]
    masks = {name: attributes[f"{name}_mask"] for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    used = sum(1 for i in range(count.low) if not (masks["ellipsis"] | masks["new_axis"]) >> i & 1)
    found: list[Span] = []
    place = 0
    for i in range(count.low):
        if masks["ellipsis"] >> i & 1:
            found += dims[place:place + len(dims) - used]
            place += len(dims) - used
        elif masks["new_axis"] >> i & 1:
            found.append(at(1))
        else:
            if not masks["shrink_axis"] >> i & 1 and place < len(dims):
                found.append(_range_size(dims[place], i, masks, facts))
            place += 1
    return [((*found, *dims[place:]), None)]


def _range_size(n: Span, i: int, masks: dict[str, int], facts: Sequence[Facts]) -> Span:
    """How many places a range takes of a dimension."""
    ends: list[Any] = []
    for name, given in (("begin", facts[1]), ("end", facts[2])):
        if masks[name] >> i & 1:
            ends.append(None)
        elif given.values is None or not given.values.reshape(-1)[i].exact:
            return Span(0, n.high)
        else:
            ends.append(given.values.reshape(-1)[i].low)
    step = facts[3].numbers
    if step is None or not step.reshape(-1)[i]:
        return Span(0, n.high)
    taken = slice(ends[0], ends[1], int(step.reshape(-1)[i]))
    sizes = [len(range(*taken.indices(size))) for size in (n.low, n.high)]
    return Span(min(sizes), min(max(sizes), FAR))


@_infer("GatherV2")
def _gather(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    x, indices, axis = facts[0].dims, facts[1].dims, facts[2].numbers
    if x is None or indices is None or axis is None:
        return [(None, None)]
    place = int(axis.reshape(-1)[0]) % len(x)
    return [((*x[:place], *indices, *x[place + 1:]), None)]


@_infer("GatherNd")
def _gather_nd(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    x, indices = facts[0].dims, facts[1].dims
    if x is None or not indices or not indices[-1].exact:
        return [(None, None)]
    return [((*indices[:-1], *x[indices[-1].low:]), None)]


@_infer("Tile")
def _tile(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, times = facts[0].dims, _sizes(facts[1])
    if dims is None or times is None or len(times) != len(dims):
        return [(None, None)]
    return [(tuple(product(pair) for pair in zip(dims, times, strict=True)), None)]


@_infer("Transpose")
def _transpose(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, order = facts[0].dims, facts[1].numbers
    if dims is None or order is None or sorted(order.tolist()) != list(range(len(dims))):
        return [(None, None)]
    return [(tuple(dims[int(d)] for d in order), None)]


# Places that values say


@_infer("Where")
def _where(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims = facts[0].dims
    return [((ANY, ANY) if dims is None else (Span(0, product(dims).high), at(len(dims))), None)]


@_infer("Unique")
def _unique(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    size = facts[0].size
    return [((Span(min(size.low, 1), size.high),), None), ((size,), None)]


@_infer("DenseBincount")
def _dense_bincount(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, values = facts[0].dims, facts[1].values
    count = values.reshape(-1)[0] if values is not None else ANY
    return [(None if dims is None else (*dims[:-1], count), None)]


@_infer("Bincount")
def _bincount(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    values = facts[1].values
    return [((values.reshape(-1)[0] if values is not None else ANY,), None)]


# Strings


@_infer("StringSplit", "StringSplitV2")
def _split(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    values = np.empty(2, object)
    values[:] = [facts[0].size, ANY]
    return [((ANY, at(2)), None), ((ANY,), None), ((at(2),), values)]


@_infer("LookupTableFindV2")
def _look_up(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [(facts[2].dims, None)]


@_infer("StringNGrams")
def _n_grams(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [((ANY,), None), (facts[1].dims, None)]


# Matrices


def _matrix(facts: Facts) -> tuple[Spans, Span, Span]:
    """Leading dimensions, rows and columns of the matrices that an input holds; ValueError if it holds none."""
    dims = facts.dims
    if dims is None or len(dims) < 2:
        raise ValueError("a matrix is needed")
    return dims[:-2], dims[-2], dims[-1]


@_infer("SelfAdjointEigV2")
def _self_adjoint_eigen(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    leading, rows, _ = _matrix(facts[0])
    return [((*leading, rows), None), (facts[0].dims if attributes["compute_v"] else (at(0),), None)]


@_infer("Svd")
def _singular_values(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    leading, rows, columns = _matrix(facts[0])
    least = _least(rows, columns)
    if not attributes["compute_uv"]:
        return [((*leading, least), None), ((at(0),), None), ((at(0),), None)]
    whole = attributes["full_matrices"]
    return [((*leading, least), None), ((*leading, rows, rows if whole else least), None),
            ((*leading, columns, columns if whole else least), None)]


def _least(one: Span, other: Span) -> Span:
    return Span(min(one.low, other.low), min(one.high, other.high))


@_infer("Lu")
def _lu(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    leading, rows, columns = _matrix(facts[0])
    if rows != columns:
        raise ValueError("a square matrix is needed")
    return [(facts[0].dims, None), ((*leading, rows), None)]


@_infer("TridiagonalSolve")
def _tridiagonal_solve(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [(facts[1].dims, None)]


@_infer("TridiagonalMatMul")
def _tridiagonal_product(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [(facts[3].dims, None)]


@_infer("HistogramFixedWidth")
def _histogram(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    values = facts[2].values
    return [((ANY if values is None else values.reshape(-1)[0],), None)]


# Sparse and ragged tensors


@_infer("SparseReshape")
def _sparse_reshape(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    rank, before, after = facts[2].size, facts[1].numbers, facts[2].numbers
    values = None
    if after is not None and (before is not None or -1 not in after):
        whole = int(before.prod()) if before is not None else 0
        rest = max(int(np.prod(after[after != -1])), 1)
        values = spans_of(np.where(after == -1, whole // rest, after))
    return [((facts[0].size, rank), None), ((rank,), values)]


@_infer("SparseFillEmptyRows")
def _fill_empty_rows(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    shape, count = facts[2].values, facts[0].size
    rows = shape.reshape(-1)[0] if shape is not None and shape.size else ANY
    filled = Span(max(count.low, rows.low), min(count.high + rows.high, FAR))
    columns = facts[0].dims[1] if facts[0].dims is not None and len(facts[0].dims) > 1 else ANY
    return [((filled, columns), None), ((filled,), None), ((rows,), None), ((count,), None)]


@_infer(*(f"SparseSegment{kind}{form}" for kind in ("Sum", "Mean", "SqrtN") for form in ("", "WithNumSegments")))
def _sparse_segments(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims = facts[0].dims
    count = facts[3].values.reshape(-1)[0] if len(facts) > 3 and facts[3].values is not None else ANY
    return [(None if dims is None else (count, *dims[1:]), None)]


@_infer(*(f"Segment{kind}" for kind in ("Sum", "Prod", "Max", "Min", "Mean")))
def _segments(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims = facts[0].dims
    return [(None if dims is None else (ANY, *dims[1:]), None)]


@_infer(*(f"UnsortedSegment{kind}" for kind in ("Sum", "Prod", "Max", "Min")))
def _unsorted_segments(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    dims, ids, count = facts[0].dims, facts[1].dims, facts[2].values
    size = ANY if count is None else count.reshape(-1)[0]
    return [(None if dims is None or ids is None else (size, *dims[len(ids):]), None)]


@_infer("SparseTensorDenseMatMul")
def _sparse_product(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    shape, b = facts[2].values, facts[3].dims
    rows = ANY if shape is None else shape.reshape(-1)[int(attributes["adjoint_a"])]
    columns = ANY if b is None else b[0 if attributes["adjoint_b"] else 1]
    return [((rows, columns), None)]


@_infer("SparseToDense")
def _sparse_to_dense(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    return [(_sizes(facts[1]), None)]


@_infer("RaggedTensorToSparse")
def _ragged_to_sparse(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    values = facts[-1].dims
    rank = ANY if values is None else at(len(facts) - 1 + len(values))
    if not rank.exact or values is None:
        return [((ANY, ANY), None), ((ANY,), None), ((ANY,), None)]
    sizes = np.empty(rank.low, object)
    sizes[:] = [facts[0].size.mapped(lambda n: max(n - 1, 0)), *[ANY] * (len(facts) - 1), *values[1:]]
    return [((product(values), rank), None), ((product(values),), None), ((rank,), sizes)]


@_infer("RaggedRange")
def _ragged_range(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    rows = [f.dims[0] for f in facts if f.dims]
    count = _narrowest(rows).mapped(lambda n: n + 1) if rows else at(2)
    return [((count,), None), ((ANY,), None)]


@_infer("RaggedTensorToTensor")
def _ragged_to_tensor(attributes: dict[str, Any], facts: Sequence[Facts]) -> Sequence[Known]:
    """A size that is not given is that of the longest row; of the outermost dimension, how many rows there are."""
    dims, first = _sizes(facts[0]), facts[3]
    if dims and dims[0] == ANY:
        if attributes["row_partition_types"][0] == "ROW_SPLITS":
            dims = (first.size.mapped(lambda n: max(n - 1, 0)), *dims[1:])
        elif first.values is not None:
            dims = (first.values.reshape(-1)[0], *dims[1:])
    return [(dims, None)]


