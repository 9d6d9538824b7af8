"""What sequencers compute: 32-bit register arithmetic, and single elements moved between registers and memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nxcc.backends.isa.instructions import control as isa
from nxcc.backends.isa.program import Affine
from nxcc.backends.simulator.memory import Array, invalid, raw
from nxcc.backends.simulator.operation import Operation, Prepared, semantics
from nxcc.ir.dtypes import F32, S32, U32

LARGEST = 2 ** 31 - 1


def wrap(value: int) -> int:
    """The signed 32-bit integer congruent to value."""
    return value if -LARGEST - 1 <= value <= LARGEST else (value + LARGEST + 1 & 0xFFFFFFFF) - LARGEST - 1


def _divide(a: int, b: int) -> int:
    if b == 0:
        raise invalid("a register is divided by 0")
    return a // b


def _modulo(a: int, b: int) -> int:
    if b == 0:
        raise invalid("a register is divided by 0")
    return a % b


REGISTER_ALU: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": _divide,
    "modulo": _modulo,
    "minimum": min,
    "maximum": max,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "shift_left": lambda a, b: a << b if 0 <= b < 32 else 0,
    "shift_right": lambda a, b: a >> b if 0 <= b < 32 else -(a < 0),
    "equal": lambda a, b: int(a == b),
    "not_equal": lambda a, b: int(a != b),
    "less": lambda a, b: int(a < b),
    "less_equal": lambda a, b: int(a <= b),
}
"""Before wrapping. Assumed: shift_right keeps the sign, shifts by 32 or more (or negative) shift everything out."""


@semantics(isa.REGISTER_LOAD)
def register_load(op: Operation) -> Prepared:
    """kernel(array) returns the register's new value."""
    pattern = op.dma("source")
    view = op.memories.dma_view(pattern, (1,), (0,), np.dtype(np.int32) if pattern.dtype is F32 else None)
    return Prepared(lambda x: min(int(x[0]), LARGEST), (view,))


@semantics(isa.REGISTER_STORE)
def register_store(op: Operation) -> Prepared:
    """kernel(array, value)."""
    pattern = op.dma("destination")
    if pattern.dtype not in (S32, U32):
        raise invalid("register_store writes 32-bit integers")

    def kernel(to: Array, value: int) -> None:
        to[0] = value & 0xFFFFFFFF
    return Prepared(kernel, (op.memories.dma_view(pattern, (1,), (0,), raw(U32)),), (Affine(0, ((op.field("register"), 1),)),))
