"""Choose among values in the type that they came from, where the wider type adds nothing.

Before:
  c = f64[8,8] convert(x)    r = f64[4,4] reduce-window(c, constant(-inf)), window={..}, to_apply=max
  ROOT y = f32[4,4] convert(r)
After:
  ROOT r = f32[4,4] reduce-window(x, constant(-inf)), window={..}, to_apply=max.f32

Maxima, minima, choices and moves give one of their operands back. If all of these were f32 (or s32, ..) before they were
widened to a 64-bit type, which the engines lack, the choice is the same without widening. Some front ends pool in f64.
"""

from __future__ import annotations

import numpy as np

from nxcc.ir.dtypes import F64, S64, U64, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.combiners import plain_opcode
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.passes.combiners import combiner
from nxcc.passes.patterns import holds_exactly, splat_source, splat_value
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode
from nxcc.passes.rules import arithmetic

WIDE = frozenset((F64, S64, U64))
CHOOSING = ("maximum", "minimum", "clamp", "select", "reduce", "reduce-window", "reshape", "transpose", "broadcast", "slice",
            "pad", "concatenate", "reverse")


@dataclass(frozen=True)
class NarrowSelections:
    name: str = "narrow-selections"

    def run(self, module: Module) -> bool:
        if not any(i.shape.dtype in WIDE for i in module.instructions()):
            return False
        return rewrite_module(module, _TABLE)


def _narrow(instruction: Instruction, builder: Builder) -> Instruction | None:
    wide = instruction.shape.dtype
    if wide not in WIDE or any(plain_opcode(c) not in ("maximum", "minimum") for c in instruction.called):
        return None
    data = [o for o in instruction.operands if o.shape.dtype is wide]
    origin = next((o.operands[0].shape.dtype for o in data if _is_widened(o)), None)
    if origin is None or not all(_is_widened(o) and o.operands[0].shape.dtype is origin or _is_number(o, origin) for o in data):
        return None
    operands = [_in(o, origin, builder) if o.shape.dtype is wide else o for o in instruction.operands]
    called = [_combiner(c, origin, builder) for c in instruction.called]
    shape = instruction.shape.with_dtype(origin)
    made = builder.make(instruction.opcode, *operands, shape=shape, called=called, **instruction.attributes)
    return builder.convert(made, wide)


def _is_widened(value: Instruction) -> bool:
    source = value.operands[0].shape.dtype if value.opcode == "convert" else value.shape.dtype
    if source is value.shape.dtype or not (source.is_integer or source.is_float):
        return False
    return holds_exactly(source, value.shape.dtype)


def _is_number(value: Instruction, dtype: DType) -> bool:
    """Whether a value is one number, which the type holds."""
    number = splat_value(value)
    if number is None:
        return False
    with np.errstate(all="ignore"):
        there = np.asarray(number).astype(dtype.numpy)
    return bool(there.astype(value.shape.dtype.numpy) == number)


def _in(value: Instruction, dtype: DType, builder: Builder) -> Instruction:
    if value.opcode == "convert" and value.operands[0].shape.dtype is dtype:
        return value.operands[0]
    source = splat_source(value)
    assert source is not None
    number = builder.splat(dtype, (), splat_value(value))
    return builder.broadcast(number, value.shape.dims) if value.shape.rank else number


def _combiner(computation: Computation, dtype: DType, builder: Builder) -> Computation:
    module, opcode = builder.computation.parent, plain_opcode(computation)
    assert module is not None and opcode is not None
    return combiner(module, opcode, dtype, builder)


RULES = (Rule("choice-of-widened", CHOOSING, _narrow),)
_TABLE = rules_by_opcode((*RULES, *(rule for rule in arithmetic.RULES if rule.name == "convert")))
