"""Elementwise operators on tiles: one emission rule an opcode, composed by fused regions and by single instructions alike.

Most are formulas over terms (see `terms`), one for each kind of element type, from which the emission rule is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TypeVar

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.emission import Tile, bytes_of, emit_term, emit_terms, repeats
from nxcc.backends.lowering.terms import Span, Term, input_term
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access
from nxcc.ir.dtypes import DType, Kind
from nxcc.ir.hlo.module import Instruction

__all__ = ["BOOL", "FLOAT", "INTEGER", "REASONS", "TEMPORARIES", "Emit", "Reason", "Tile", "emits", "formula", "pointwise",
           "routine", "wide_formula", "wide_routine"]

Emit = Callable[[Kernel, Instruction, Sequence[Tile], Access], None]
"""emit(kernel, instruction, inputs, out): out is a tile [rows, columns] in SBUF; may make temporaries. Inputs lie in SBUF, have
the dtype that HLO gives the operand, and must not be overwritten. An input is a tile [rows, columns], a column [rows, 1] that
repeats along the free dimension (where out has more than one), or a number that repeats everywhere; at least one is a tile of
out's size."""

Reason = Callable[[Instruction, Target], str | None]
Formula = Callable[..., Term | tuple[Term, Term]]
"""formula(instruction, *terms): the result's term, given the operands'; of a 64-bit result its two words, the low one first."""

Routine = Callable[[Kernel, Instruction, Sequence[Term], Sequence[Tile], Access], None]
"""routine(kernel, instruction, terms, tiles, out): for what no formula can express, such as loops; terms stand for tiles."""

EMITS: dict[str, Emit] = {}
REASONS: dict[str, Reason] = {}
TEMPORARIES: dict[str, int] = {}
FORMULAS: dict[tuple[str, Kind], Formula] = {}
CALLS: dict[str, Formula] = {}
"""Formulas of custom calls by their target."""

LIMITS: dict[str, Reason] = {}
"""What else the formulas of an opcode cannot do."""

WIDE: dict[str, Formula] = {}
"""Formulas for operators that take or make 64-bit integers."""

ROUTINES: dict[tuple[str, Kind], Routine] = {}
WIDE_ROUTINES: dict[str, Routine] = {}
"""As WIDE, for what no formula can express."""

FLOAT = (Kind.FLOAT,)
INTEGER = (Kind.SIGNED, Kind.UNSIGNED)
BOOL = (Kind.BOOL,)

FAMILIES = ("float", "transcendental", "remainder", "select", "integer", "convert", "wide", "wide_loops", "circular", "custom")
"""Modules of this package that declare formulas; imported on first look-up."""

T = TypeVar("T")


def pointwise(*opcodes: str, temporaries: int = 0, unsupported: Reason | None = None) -> Callable[[Emit], Emit]:
    """Declare how opcodes are computed on tiles; temporaries: 4-byte tiles of the operands' size that it would like to make."""

    def register(emit: Emit) -> Emit:
        for opcode in opcodes:
            assert opcode not in EMITS, f"{opcode} has two emissions"
            EMITS[opcode] = emit
            TEMPORARIES[opcode] = temporaries
            if unsupported is not None:
                REASONS[opcode] = unsupported
        return emit

    return register


def formula(*opcodes: str, kinds: Iterable[Kind] = FLOAT, temporaries: int = 0,
            unsupported: Reason | None = None) -> Callable[[Formula], Formula]:
    """Declare how opcodes are computed on elements of these kinds (of the first operand); unsupported: where they are not."""
    if unsupported is not None:
        LIMITS.update(dict.fromkeys(opcodes, unsupported))
    return _declaration(FORMULAS, opcodes, tuple(kinds), temporaries)


def routine(*opcodes: str, kinds: Iterable[Kind] = FLOAT, temporaries: int = 0) -> Callable[[Routine], Routine]:
    """As `formula`, for a routine."""
    return _declaration(ROUTINES, opcodes, tuple(kinds), temporaries)


def wide_formula(*opcodes: str, temporaries: int = 0) -> Callable[[Formula], Formula]:
    """Declare how opcodes that also have formulas for narrower elements are computed where an operand or the result is wide."""
    return _wide_declaration(WIDE, opcodes, temporaries)


def wide_routine(*opcodes: str, temporaries: int = 0) -> Callable[[Routine], Routine]:
    """As `wide_formula`, for a routine."""
    return _wide_declaration(WIDE_ROUTINES, opcodes, temporaries)


def _wide_declaration(table: dict[str, T], opcodes: Sequence[str], temporaries: int) -> Callable[[T], T]:
    def register(build: T) -> T:
        for opcode in opcodes:
            assert opcode in EMITS and opcode not in table
            table[opcode] = build
            TEMPORARIES[opcode] = max(TEMPORARIES[opcode], temporaries)
        return build

    return register


def _is_wide(instruction: Instruction) -> bool:
    return any(shape.dtype.bits > 32 for shape in (instruction.shape, *(operand.shape for operand in instruction.operands)))


def _declaration(table: dict[tuple[str, Kind], T], opcodes: Sequence[str], kinds: Sequence[Kind],
                    temporaries: int) -> Callable[[T], T]:
    def register(build: T) -> T:
        for key in ((opcode, kind) for opcode in opcodes for kind in kinds):
            assert key not in FORMULAS and key not in ROUTINES, f"{key} is declared twice"
            table[key] = build
        for opcode in opcodes:
            if opcode not in EMITS:
                pointwise(opcode, unsupported=_unsupported)(_emit)
            TEMPORARIES[opcode] = max(TEMPORARIES[opcode], temporaries)
        return build

    return register


def has_formula(instruction: Instruction) -> bool:
    """Whether `compose` has a term for an instruction, whose result is a float."""
    return instruction.shape.is_array and instruction.shape.dtype.is_float and _formula_of(instruction) is not None


def compose(instruction: Instruction, terms: Sequence[Term]) -> Term | None:
    """The result's term, given the operands'; None if the instruction has a rule of its own."""
    build = _formula_of(instruction)
    result = build(instruction, *terms) if build is not None else None
    return result if isinstance(result, Term) else None


def _formula_of(instruction: Instruction) -> Formula | None:
    _load()
    if not instruction.operands or _is_wide(instruction):
        return None
    if instruction.opcode == "custom-call":
        return CALLS.get(instruction.attribute("custom_call_target"))
    return FORMULAS.get((instruction.opcode, instruction.operands[0].shape.dtype.kind))


def _emit(kernel: Kernel, instruction: Instruction, inputs: Sequence[Tile], out: Access) -> None:
    terms = [_input(position, tile, operand.shape.dtype, out)
             for position, (tile, operand) in enumerate(zip(inputs, instruction.operands, strict=True))]
    key = instruction.opcode, instruction.operands[0].shape.dtype.kind
    is_wide = _is_wide(instruction)
    routine = WIDE_ROUTINES.get(instruction.opcode) if is_wide else ROUTINES.get(key)
    if routine is not None:
        routine(kernel, instruction, terms, inputs, out)
        return
    build = WIDE[instruction.opcode] if is_wide else FORMULAS[key]
    result = build(instruction, *terms)
    if isinstance(result, Term):
        emit_term(kernel, result, inputs, out)
        return
    emit_terms(kernel, result, inputs, [bytes_of(out, word.dtype, 4 * number) for number, word in enumerate(result)])


def _input(position: int, tile: Tile, dtype: DType, out: Access) -> Term:
    if not isinstance(tile, Access):
        return input_term(position, dtype, Span.NUMBER, tile)
    return input_term(position, dtype, Span.COLUMN if repeats(tile, out) else Span.TILE)


def _unsupported(instruction: Instruction, target: Target) -> str | None:
    dtype = instruction.operands[0].shape.dtype
    key = instruction.opcode, dtype.kind
    if key not in FORMULAS and key not in ROUTINES:
        return f"{instruction.opcode} of {dtype} elements has no device code"
    if _is_wide(instruction) and instruction.opcode not in WIDE and instruction.opcode not in WIDE_ROUTINES:
        return f"{instruction.opcode} of 64-bit elements: the engines of {target.name} compute in at most 32 bits"
    if _is_wide(instruction) and instruction.opcode not in WIDE and Engine.GPSIMD not in target.engines:
        return f"{instruction.opcode} of 64-bit elements takes native integers, which {target.name} has not"
    limit = LIMITS.get(instruction.opcode)
    return limit(instruction, target) if limit else None


@cache
def _load() -> None:
    for family in FAMILIES:
        importlib.import_module(f"nxcc.backends.lowering.pointwise.{family}")


def emits() -> dict[str, Emit]:
    _load()
    return EMITS
