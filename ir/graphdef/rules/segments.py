"""Sums, products and extremes of segments: rows that share an id."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nxcc.ir.dtypes import BF16, F16, F32, F64
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter, highest, lowest
from nxcc.ir.graphdef.registry import row, rule
from nxcc.ir.graphdef.rules.indexing import scatter
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.module import Instruction

_LARGEST = {F16: 65504.0, BF16: 3.3895313892515355e38, F32: 3.4028234663852886e38, F64: 1.7976931348623157e308}
_OPCODES = {"Sum": "add", "Prod": "multiply", "Max": "maximum", "Min": "minimum"}


def _extreme(opcode: str, x: Instruction) -> float:
    """What an empty segment holds: TensorFlow starts extremes at the finite limits of the type."""
    limits = {"add": 0, "multiply": 1, "maximum": lowest(x.shape.dtype), "minimum": highest(x.shape.dtype)}
    value: float = limits[opcode]
    if x.shape.dtype.is_float and opcode in ("maximum", "minimum"):
        return _LARGEST[x.shape.dtype] * (-1 if opcode == "maximum" else 1)
    return value


def segments(e: Emitter, x: Instruction, ids: Instruction, count: int, opcode: str) -> Instruction:
    """[count, ...]: rows of x combined by id; ids outside are dropped."""
    n, depth = ids.shape.element_count, ids.shape.rank
    tail = x.shape.dims[depth:]
    # HLO's scatter drops what is out of range, and negative ids are
    return scatter(e, e.full(x.shape.dtype, (count, *tail), _extreme(opcode, x)), e.reshape(ids, (n, 1)),
                   e.reshape(x, (n, *tail)), opcode)


def _unsorted(opcode: str) -> Callable[[Call], Value]:
    return lambda call: segments(call.emit, call.x(0), call.x(1), call.number(2), opcode)


def _sorted(opcode: str) -> Callable[[Call], Value]:
    """The last id says how many segments there are; one that no row has is 0, and 1 for a product."""
    def lower(call: Call) -> Value:
        e, x, ids = call.emit, call.x(0), call.constant(1)
        call.need(ids.ndim == 1 and bool((np.diff(ids.astype(np.int64)) >= 0).all()) and bool((ids >= 0).all()),
                  "segment_ids must be a vector of numbers in order, not negative")
        count = int(ids[-1]) + 1 if ids.size else 0
        call.table(count)
        found = segments(e, x, call.x(1), count, opcode)
        missing = np.bincount(ids.astype(np.int64), minlength=count) == 0
        if not missing.any():
            return found
        empty = e.spread(e.constant(missing), found.shape.dims, (0,))
        return e.select(empty, e.like(found, int(opcode == "multiply")), found)
    return lower


def _mean(e: Emitter, total: Instruction, ids: Instruction, root: bool = False) -> Instruction:
    """Sums of segments over how many rows each has, or over the root of that number."""
    kind = F32 if total.shape.dtype in (F16, BF16) else total.shape.dtype
    rows = segments(e, e.full(kind, ids.shape.dims, 1), ids, total.shape.dims[0], "add")
    rows = e.maximum(rows, e.like(rows, 1))
    whole = e.spread(e.make("sqrt", rows) if root else rows, total.shape.dims, (0,))
    return e.convert(e.divide(e.convert(total, kind), whole), total.shape.dtype)


@rule("SegmentMean", needs=("scatter",))
def segment_mean(call: Call) -> Value:
    total = _sorted("add")(call)
    assert isinstance(total, Instruction)
    return _mean(call.emit, total, call.x(1))


_SPARSE = tuple(f"SparseSegment{name}{form}" for name in ("Sum", "Mean", "SqrtN") for form in ("", "WithNumSegments"))


@rule(*_SPARSE, needs=("gather", "scatter"), ranks=("1+", 1, 1))
def sparse_segments(call: Call) -> Value:
    """Segments of the rows that the indices choose; without a number of segments, the last id says it."""
    e, ids = call.emit, call.x(2)
    if len(call.inputs) > 3:
        count = call.number(3)
    else:
        count = max(call.ints(2), default=-1) + 1
    call.need(ids.shape == call.x(1).shape.with_dtype(ids.shape.dtype) and count >= 0,
              f"indices {call.x(1).shape} and segment_ids {ids.shape} must be as many")
    total = segments(e, e.take(e.wide(call.x(0)), call.x(1), 0), ids, count, "add")
    if "Sum" not in call.node.op:
        total = _mean(e, total, ids, "SqrtN" in call.node.op)
    return e.convert(total, call.x(0).shape.dtype)


for _name, _opcode in _OPCODES.items():
    row(f"UnsortedSegment{_name}", _unsorted(_opcode), needs=("scatter",))
    row(f"Segment{_name}", _sorted(_opcode), needs=("scatter",))
    row(f"Segment{_name}V2", _unsorted(_opcode), needs=("scatter",))
