"""Elementwise operators on tiles: one emission rule an opcode, composed by fused regions and by single instructions alike."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache

from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access
from nxcc.ir.hlo.module import Instruction

Emit = Callable[[Kernel, Instruction, Sequence[Access], Access], None]
"""emit(kernel, instruction, inputs, out): all tiles [rows, columns] in SBUF (an input may be in PSUM); may make temporaries."""

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


def emits() -> dict[str, Emit]:
    _load()
    return EMITS
