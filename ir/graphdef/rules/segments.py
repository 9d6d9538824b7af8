"""Sums, products and extremes of segments: rows that share an id."""

from __future__ import annotations

from collections.abc import Callable

from nxcc.ir.dtypes import BF16, F16, F32, F64
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter, highest, lowest
from nxcc.ir.graphdef.registry import row
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
    def lower(call: Call) -> Value:
        ids = call.ints(1)
        return segments(call.emit, call.x(0), call.x(1), ids[-1] + 1 if ids else 0, opcode)
    return lower


for _name, _opcode in _OPCODES.items():
    row(f"UnsortedSegment{_name}", _unsorted(_opcode), needs=("scatter",))
row("SegmentSum", _sorted("add"), needs=("scatter",))
row("SegmentProd", _sorted("multiply"), needs=("scatter",))
