"""A value of which each part is converted to one smaller type is converted whole, where it is made.

Before:
  x = f32[8,12] add(..)    q = f32[8,6] slice(x), ..    a = bf16[8,6] convert(q)    k = f32[8,6] slice(x)    b = .. convert(k)
After:
  x = f32[8,12] add(..)    c = bf16[8,12] convert(x)    a = bf16[8,6] slice(c), ..    b = bf16[8,6] slice(c), ..

What makes the value stores half as much then, and no conversion is work of its own. Attention reads its queries, keys and
values so where one product makes all three.
"""

from __future__ import annotations

from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode

KEPT = frozenset(("parameter", "constant"))
"""What is not made here."""


def _cast_whole(convert: Instruction, builder: Builder) -> Instruction | None:
    part, dtype = convert.operands[0], convert.shape.dtype
    if part.opcode != "slice" or not _is_narrowing(part.shape.dtype, dtype):
        return None
    whole = part.operands[0]
    if whole.opcode in KEPT or whole is builder.computation.root or whole.control_predecessors:
        return None
    parts = [user for user in whole.users if not _casts(user, dtype)]
    if not all(user.opcode == "slice" and user.users and all(_casts(u, dtype) for u in user.users) for user in parts):
        return None
    if builder.computation.root in parts or sum(user.shape.element_count for user in whole.users) < whole.shape.element_count:
        return None
    cast = next((user for user in whole.users if _casts(user, dtype)), None) or builder.convert(whole, dtype)
    return builder.make("slice", cast, shape=part.shape.with_dtype(dtype), **part.attributes)


def _is_narrowing(wide: DType, narrow: DType) -> bool:
    return wide.is_float and narrow.is_float and narrow.bits < wide.bits


def _casts(user: Instruction, dtype: DType) -> bool:
    return user.opcode == "convert" and user.shape.dtype is dtype


RULES = (Rule("cast-before-slices", ("convert",), _cast_whole),)
_TABLE = rules_by_opcode(RULES)


@dataclass(frozen=True)
class CastBeforeSlices:
    name: str = "cast-before-slices"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)
