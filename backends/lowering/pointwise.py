"""Elementwise operators on tiles: one emission rule an opcode, composed by fused regions and by single instructions alike."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache

from nxcc.backends.isa.program import Engine
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access
from nxcc.ir.hlo.module import Instruction

Tile = Access | float
"""An input of an elementwise operator in a region: a tile [rows, columns], a column [rows, 1] that repeats along the free
dimension (where out has more than one), or a number that repeats everywhere."""

Emit = Callable[[Kernel, Instruction, Sequence[Tile], Access], None]
"""emit(kernel, instruction, inputs, out): out is a tile [rows, columns] in SBUF; may make temporaries. Inputs lie in SBUF, have
the dtype that HLO gives the operand, and must not be overwritten. At least one input is a tile of out's size."""

Reason = Callable[[Instruction, Target], str | None]

EMITS: dict[str, Emit] = {}
REASONS: dict[str, Reason] = {}
TEMPORARIES: dict[str, int] = {}


def pointwise(*opcodes: str, temporaries: int = 0, unsupported: Reason | None = None) -> Callable[[Emit], Emit]:
    """Declare how opcodes are computed on tiles; temporaries: how many 4-byte tiles of the operands' size it makes at most."""

    def register(emit: Emit) -> Emit:
        for opcode in opcodes:
            assert opcode not in EMITS, f"{opcode} has two emissions"
            EMITS[opcode] = emit
            TEMPORARIES[opcode] = temporaries
            if unsupported is not None:
                REASONS[opcode] = unsupported
        return emit

    return register


@cache
def _load() -> None:
    for family in ("pointwise_float", "pointwise_integer", "pointwise_select", "pointwise_convert"):
        importlib.import_module(f"nxcc.backends.lowering.{family}")


def repeats(tile: Tile, out: Access) -> bool:
    """True if the input is a number or a column that repeats along out's free dimensions."""
    return not isinstance(tile, Access) or (tile.free == 1 and out.free > 1)


def alu(kernel: Kernel, op: str, a: Tile, b: Tile, out: Access, engine: Engine = Engine.VECTOR) -> None:
    """out = a op b by the instruction that fits: tensor_scalar where an input repeats, else tensor_tensor."""
    if not repeats(b, out):
        if not repeats(a, out):
            assert isinstance(a, Access) and isinstance(b, Access)
            kernel.tensor_tensor(out, a, b, op, engine)
        else:
            assert isinstance(b, Access)
            kernel.tensor_scalar(out, b, op, a, reverse0=True, engine=engine)
    else:
        assert isinstance(a, Access) and not repeats(a, out), "one input must be a whole tile"
        kernel.tensor_scalar(out, a, op, b, engine=engine)


def emits() -> dict[str, Emit]:
    _load()
    return EMITS
