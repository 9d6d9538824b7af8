"""The operators that Vector and GpSimd share: in f32, on raw bits, and on GpSimd's native 32-bit integers.

Each operator is a function (x, y, out) of arrays; out is never partly overlapped by x or y.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nxcc.backends.isa.instructions.vector import BIT_OPS, GPSIMD_OPS
from nxcc.backends.isa.program import Engine
from nxcc.backends.simulator.memory import Array, View, invalid, raw
from nxcc.backends.simulator.numerics import immediate, is_boolean_storage, narrow, widen
from nxcc.backends.simulator.operation import Kernel, Operation
from nxcc.ir.dtypes import F32, DType

Binary = Callable[[Any, Any, Array], Any]


def _copy(x: Array, y: Any, out: Array) -> None:
    np.copyto(out, x)


def _maximum(x: Any, y: Any, out: Array) -> Any:
    return np.maximum(x, y, out=out)


def _minimum(x: Any, y: Any, out: Array) -> Any:
    return np.minimum(x, y, out=out)


def _absolute(choose: Binary) -> Binary:
    return lambda x, y, out: choose(np.abs(x), np.abs(y), out)


def _inverse_root(x: Any, y: Any, out: Array) -> Any:
    """Rounded twice: the engine's is called precise, without a figure."""
    return np.divide(1.0, np.sqrt(x, out=out), out=out)


TRUTH: dict[str, Binary] = {
    "equal": np.equal, "not_equal": np.not_equal, "greater_equal": np.greater_equal, "greater": np.greater,
    "less_equal": np.less_equal, "less": np.less, "logical_and": np.logical_and, "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}
"""Operators that give 1 or 0."""

ARITHMETIC: dict[str, Binary] = {
    "bypass": _copy, "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "maximum": _maximum,
    "minimum": _minimum, "abs_max": _absolute(_maximum), "abs_min": _absolute(_minimum), "power": np.power,
    "rsqrt": _inverse_root, **TRUTH,
}
"""In f32, and (but for powers and roots) in 32-bit integers, where numpy wraps as the machine does."""

BITS: dict[str, Binary] = {
    "bypass": _copy, "invert": lambda x, y, out: np.invert(x, out), "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor, "shift_left": np.left_shift, "shift_right_logical": np.right_shift,
}
"""On unsigned integers; numpy, too, gives 0 for a shift by the width or more."""


def _reduction(ufunc: np.ufunc) -> Callable[[Array, tuple[int, ...], Array | None], Any]:
    return lambda x, axis, out: ufunc.reduce(x, axis=axis, out=out)


REDUCTIONS: dict[str, Callable[[Array, tuple[int, ...], Array | None], Any]] = {
    "add": _reduction(np.add), "multiply": _reduction(np.multiply), "maximum": _reduction(np.maximum),
    "minimum": _reduction(np.minimum), "logical_and": _reduction(np.logical_and), "logical_or": _reduction(np.logical_or),
    "bitwise_and": _reduction(np.bitwise_and), "bitwise_or": _reduction(np.bitwise_or),
    "bitwise_xor": _reduction(np.bitwise_xor),
}


def is_bitwise(*operators: str) -> bool:
    """Whether these operators work on raw bits; bit and arithmetic operators do not mix in one instruction."""
    bits = {name in BIT_OPS for name in operators if name != "bypass"}
    if len(bits) > 1:
        raise invalid("bit operators and arithmetic operators do not mix")
    return True in bits


def check_engine(operation: Operation, *operators: str) -> None:
    """Refuses operators that the operation's engine has not."""
    for name in operators:
        if name in GPSIMD_OPS and operation.engine is not Engine.GPSIMD:
            raise invalid(f"{name} runs on GpSimd only")


def as_raw(views: Sequence[View], dtypes: Sequence[DType]) -> None:
    """Turn views into views of raw bits, which must be of one width."""
    if len({d.byte_size for d in dtypes}) != 1 or any(d.is_float for d in dtypes):
        raise invalid("bit operators need integers of one width")
    for view, dtype in zip(views, dtypes, strict=True):
        view.dtype = raw(dtype)


def float_store(operation: Operation, out: DType, shape: tuple[int, ...], last: str) -> Callable[[Any, Any, Array], Any]:
    """The function (x, y, out) that applies the operator `last` in f32 and stores the result in dtype `out`."""
    function = ARITHMETIC[last]
    if out is F32:
        return function
    if last in TRUTH and is_boolean_storage(out):
        return lambda x, y, to: function(x, y, to.view(np.bool_))
    store = narrow(out, shape, operation.scratch)
    if last == "bypass":
        return lambda x, y, to: store(x, to)
    work = operation.scratch.array("result", shape)

    def compute(x: Any, y: Any, to: Array) -> None:
        function(x, y, work)
        store(work, to)
    return compute


def binary_kernel(operation: Operation, dtypes: tuple[DType, DType, DType], shape: tuple[int, ...], name: str) -> Kernel:
    """kernel(a, b, out) in f32, for dtypes of a, b and out."""
    a_dtype, b_dtype, out_dtype = dtypes
    compute = float_store(operation, out_dtype, shape, name)
    widen_a = widen(a_dtype, shape, operation.scratch, "a")
    widen_b = widen(b_dtype, shape, operation.scratch, "b")
    if widen_a is None and widen_b is None:
        return compute
    left, right = widen_a or _same, widen_b or _same
    return lambda a, b, out: compute(left(a), right(b), out)


def _same(x: Array) -> Array:
    return x


class Scalar:
    """The second operand of a tensor-scalar operator: an immediate, or one value a partition.

    value(array or None) yields what the operator takes; `view` is the operand's, None for an immediate.
    """

    __slots__ = ("view", "value")

    def __init__(self, view: View | None, value: Callable[[Any], Any]) -> None:
        self.view, self.value = view, value


def float_scalar(operation: Operation, index: int, like: View) -> Scalar:
    name = f"scalar{index}"
    view = operation.per_partition(name, like)
    if view is None:
        number = immediate(operation.field(f"immediate{index}"))
        return Scalar(None, lambda _: number)
    convert = widen(operation.pattern(name).dtype, view.shape, operation.scratch, name)
    return Scalar(view, convert or _same)


def integer_scalar(operation: Operation, index: int, like: View) -> Scalar:
    """An operand in the integer type of `like`'s elements; an immediate is taken modulo its range."""
    name = f"scalar{index}"
    view = operation.per_partition(name, like)
    if view is None:
        bits = 8 * like.dtype.itemsize
        number = np.array(int(operation.field(f"immediate{index}")) % (1 << bits), f"u{like.dtype.itemsize}").view(like.dtype)
        return Scalar(None, lambda _: number)
    if operation.pattern(name).dtype is F32 or view.dtype.itemsize != like.dtype.itemsize:
        raise invalid(f"{name} must be an integer as wide as the data")
    view.dtype = like.dtype
    return Scalar(view, _same)


def ordered(function: Binary, reverse: bool) -> Binary:
    """The operator with its operands swapped if `reverse`."""
    return (lambda x, y, out: function(y, x, out)) if reverse else function
