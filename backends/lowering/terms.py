"""Elementwise formulas as graphs of terms: what is computed on each element, before any tile or instruction is chosen.

A formula is a function from terms to a term. Which engine runs a term follows from its kind: `alu` is Vector arithmetic in f32
(`power` is GpSimd's), `bits` works on raw bits on Vector, `native` is wrapping 32-bit integer arithmetic on GpSimd,
`activate` a function of the scalar engine. Operators of Python on terms are `alu` with an f32 result.
"""

from __future__ import annotations

import enum

from nxcc.ir.dtypes import F32, S32, U8, U32, DType

Number = int | float


class Span(enum.IntEnum):
    """Where a term's elements lie: a number for all elements, one in each row, one for each element."""

    NUMBER = 0
    COLUMN = 1
    TILE = 2


class Kind(enum.Enum):
    """How a term comes into being; see the functions below."""

    INPUT = "input"
    NUMBER = "number"
    CONSTANT = "constant"
    ALU = "alu"
    BITS = "bits"
    NATIVE = "native"
    ACTIVATION = "activation"
    RECIPROCAL = "reciprocal"
    SELECT = "select"
    COPY = "copy"
    PART = "part"


class Term:
    """One value of a formula.

    op: operator or function name. number: the value of a NUMBER or CONSTANT, the scale of an ACTIVATION, the position of an
    INPUT, the byte offset of a PART.
    """

    __slots__ = ("kind", "op", "inputs", "dtype", "span", "number")

    def __init__(self, kind: Kind, op: str, inputs: tuple[Term, ...], dtype: DType, span: Span, number: Number = 0) -> None:
        self.kind, self.op, self.inputs, self.dtype, self.span, self.number = kind, op, inputs, dtype, span, number

    def __add__(self, other: Term | Number) -> Term:
        return alu("add", self, other)

    def __radd__(self, other: Number) -> Term:
        return alu("add", self, other)

    def __sub__(self, other: Term | Number) -> Term:
        return alu("subtract", self, other)

    def __rsub__(self, other: Number) -> Term:
        return alu("subtract", other, self)

    def __mul__(self, other: Term | Number) -> Term:
        return alu("multiply", self, other)

    def __rmul__(self, other: Number) -> Term:
        return alu("multiply", self, other)

    def __neg__(self) -> Term:
        return alu("multiply", self, -1.0)

    def __lt__(self, other: Term | Number) -> Term:
        return alu("less", self, other, U8)

    def __le__(self, other: Term | Number) -> Term:
        return alu("less_equal", self, other, U8)

    def __gt__(self, other: Term | Number) -> Term:
        return alu("greater", self, other, U8)

    def __ge__(self, other: Term | Number) -> Term:
        return alu("greater_equal", self, other, U8)

    def equals(self, other: Term | Number) -> Term:
        return alu("equal", self, other, U8)


def input_term(position: int, dtype: DType, span: Span, number: Number = 0) -> Term:
    """An operand of the instruction; one that is a number is a number of the operand's dtype."""
    if span is Span.NUMBER:
        return Term(Kind.NUMBER, "", (), dtype, span, number)
    return Term(Kind.INPUT, "", (), dtype, span, position)


def term(value: Term | Number, dtype: DType = F32) -> Term:
    return value if isinstance(value, Term) else Term(Kind.NUMBER, "", (), dtype, Span.NUMBER, value)


def constant(value: Term, dtype: DType | None = None) -> Term:
    """A number written to one element of each row; other terms as they are."""
    if value.span is not Span.NUMBER:
        return value
    return Term(Kind.CONSTANT, "", (), dtype or value.dtype, Span.COLUMN, value.number)


def _operation(kind: Kind, op: str, a: Term | Number, b: Term | Number, dtype: DType, numbers: DType) -> Term:
    left, right = term(a, numbers), term(b, numbers)
    if left.span is right.span is Span.NUMBER:
        left = constant(left)
    return Term(kind, op, (left, right), dtype, max(left.span, right.span))


def alu(op: str, a: Term | Number, b: Term | Number, dtype: DType = F32) -> Term:
    """a op b in f32, converted to dtype (integers: nearest even, saturating, NaN to 0; comparisons give 1 or 0)."""
    return _operation(Kind.ALU, op, a, b, dtype, F32)


def native(op: str, a: Term | Number, b: Term | Number) -> Term:
    """a op b in 32-bit integers of the first term's dtype, wrapping; comparisons give 1 or 0 in that dtype."""
    dtype = next(x.dtype for x in (a, b) if isinstance(x, Term))
    assert dtype in (S32, U32)
    return _operation(Kind.NATIVE, op, a, b, dtype, dtype)


def bits(op: str, a: Term | Number, b: Term | Number = 0) -> Term:
    """a op b on raw bits of integers of one width."""
    dtype = next(x.dtype for x in (a, b) if isinstance(x, Term))
    assert not dtype.is_float
    return _operation(Kind.BITS, op, a, b, dtype, dtype)


def activate(function: str, x: Term, scale: float = 1.0) -> Term:
    """function(x * scale) on the scalar engine, whose documented ranges hold for the product.

    A column that is subtracted is added with its sign changed: so it is the engine's bias.
    """
    data = constant(x)
    if data.kind is Kind.ALU and data.op == "subtract" and data.dtype is F32 and scale == 1:
        minuend, subtrahend = data.inputs
        if minuend.span is Span.TILE and subtrahend.span is Span.COLUMN:
            data = alu("add", minuend, alu("multiply", subtrahend, -1.0))
    return Term(Kind.ACTIVATION, function, (data,), F32, data.span, scale)


def reciprocal(x: Term) -> Term:
    """1 / x in f32, over the whole range."""
    data = constant(x)
    return Term(Kind.RECIPROCAL, "", (data,), F32, data.span)


def select(predicate: Term, a: Term | Number, b: Term | Number, dtype: DType = F32) -> Term:
    """predicate ? a : b. Terms of another dtype than the result pass through f32; numbers are of the result's dtype."""
    first, second = constant(term(a, dtype)), term(b, dtype)
    if not dtype.is_float:
        second = constant(second)
    predicate = constant(predicate)
    return Term(Kind.SELECT, "", (predicate, first, second), dtype, max(predicate.span, first.span, second.span))


def copy(x: Term, dtype: DType) -> Term:
    """x in another dtype by the engines' conversion, through f32; bit by bit if it has the dtype."""
    data = constant(x)
    return Term(Kind.COPY, "", (data,), dtype, data.span)


def cast(x: Term, dtype: DType) -> Term:
    """As `copy`, but x itself if it has the dtype."""
    return x if x.dtype is dtype else copy(x, dtype)


def part(x: Term, dtype: DType, offset: int = 0) -> Term:
    """The bytes from `offset` of each element, as a dtype at most as wide: the element's bits if as wide. Costs nothing."""
    data = constant(x)
    assert offset + dtype.byte_size <= data.dtype.byte_size
    if dtype is data.dtype:
        return data
    return Term(Kind.PART, "", (data,), dtype, data.span, offset)
