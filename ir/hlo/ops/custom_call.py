"""What a row of the table of custom calls is, and what the rows of every family need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nxcc.ir.diagnostics import UNSUPPORTED_MODULE, CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction

Dims = tuple[int, ...]


@dataclass(frozen=True)
class CustomCall:
    """What a target means.

    operands: how many it takes, None for any number; optional: how many of these, the first ones, may be left out; identity:
    it passes its operands through; elementwise: result element from the operands' elements at the same place. results: the
    dimensions of each result, ShapeError where operands do not fit; None: not checked.
    """

    target: str
    operands: int | None
    evaluate: Callable[..., Any]
    identity: bool = False
    elementwise: bool = False
    optional: int = 0
    results: Callable[[Instruction], list[Dims]] | None = None


def config_text(instruction: Instruction) -> str:
    return instruction.backend_config.decode("utf-8", "replace")


def wrong_use(instruction: Instruction, why: str) -> CompileError:
    target = instruction.attribute("custom_call_target")
    return CompileError(UNSUPPORTED_MODULE, f"custom call {target!r} is not used as its meaning asks", where=instruction.name,
                        location=str(instruction.location), why=why)
