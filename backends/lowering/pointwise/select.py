"""Comparison, selection and logic on tiles."""

from __future__ import annotations

from nxcc.backends.lowering.pointwise.formulas import BOOL, FLOAT, INTEGER, formula
from nxcc.backends.lowering.terms import Span, Term, alu, bits, cast, constant, native, part, select, term
from nxcc.ir.dtypes import F32, S8, S16, S32, U8, U16, DType
from nxcc.ir.hlo.module import Instruction

_DIRECTIONS = {"EQ": "equal", "NE": "not_equal", "GE": "greater_equal", "GT": "greater", "LE": "less_equal", "LT": "less"}
_CARRIERS = {1: U8, 2: U16, 4: F32}
"""dtypes under which a select moves bits of each width; 32-bit integers are none of its operands."""


def octet(x: Term) -> Term:
    """A pred as a byte of 0 or 1."""
    return term(x.number, U8) if x.span is Span.NUMBER else part(x, U8)


@formula("compare", kinds=FLOAT, temporaries=3)
def compare_floats(instruction: Instruction, x: Term, y: Term) -> Term:
    direction = _DIRECTIONS[instruction.attribute("direction")]
    if instruction.attribute("type") == "TOTALORDER":
        return cast(native(direction, _total_order(x), _total_order(y)), U8)
    return alu(direction, x, y, U8)


def _total_order(x: Term) -> Term:
    """A 32-bit integer that orders as the floats do, with -NaN first, -0 before +0 and NaN last."""
    data = constant(x)
    size = data.dtype.byte_size
    raw = part(data, S32) if size == 4 else cast(part(data, S16 if size == 2 else S8), S32)
    return bits("bitwise_xor", raw, native("multiply", native("less", raw, 0), (1 << (8 * size - 1)) - 1))


@formula("compare", kinds=INTEGER, temporaries=1)
def compare_integers(instruction: Instruction, x: Term, y: Term) -> Term:
    """Up to 16 bits are exact in f32; wider ones are compared natively."""
    direction = _DIRECTIONS[instruction.attribute("direction")]
    return cast(native(direction, x, y), U8) if x.dtype.bits == 32 else alu(direction, x, y, U8)


@formula("compare", kinds=BOOL)
def compare_preds(instruction: Instruction, x: Term, y: Term) -> Term:
    return alu(_DIRECTIONS[instruction.attribute("direction")], octet(x), octet(y), U8)


@formula("select", kinds=BOOL, temporaries=1)
def select_elements(instruction: Instruction, predicate: Term, x: Term, y: Term) -> Term:
    if predicate.span is Span.NUMBER:
        return x if predicate.number else y
    return choose(predicate, x, y, instruction.shape.dtype)


def choose(predicate: Term, x: Term, y: Term, dtype: DType) -> Term:
    """predicate ? x : y, moving bits where the dtypes agree."""
    if x.dtype is not y.dtype:
        return select(octet(predicate), x, y)
    carrier = _CARRIERS[dtype.byte_size]
    if dtype.is_float:
        return select(octet(predicate), x, y, dtype)
    moved = select(octet(predicate), part(x, carrier), part(y, carrier), carrier)
    return part(moved, dtype)


@formula("copy", kinds=(*FLOAT, *INTEGER, *BOOL))
def same(instruction: Instruction, x: Term) -> Term:
    """Inside fused regions; elsewhere a copy is a view."""
    return x


_LOGIC = {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "add": "bitwise_or", "multiply": "bitwise_and",
          "maximum": "bitwise_or", "minimum": "bitwise_and"}


@formula(*_LOGIC, kinds=BOOL)
def logic(instruction: Instruction, x: Term, y: Term) -> Term:
    return bits(_LOGIC[instruction.opcode], octet(x), octet(y))


@formula("not", kinds=BOOL)
def negation(instruction: Instruction, x: Term) -> Term:
    return bits("bitwise_xor", octet(x), 1)


