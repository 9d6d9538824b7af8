"""Store a large constant in the order in which it is read.

Before:
  w = bf16[3072,768] constant(..)    t = bf16[768,3072] transpose(w), dimensions={1,0}    d = f32[8,3072] dot(x, t), ..
After:
  t = bf16[768,3072] constant(..)    d = f32[8,3072] dot(x, t), ..

Front ends keep dense weights as [outputs, inputs] and transpose them in each request; element by element from memory that is
slow. The new constant is computed when it is written. One that is read in several orders stays as it is, so that no weight is
stored twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.literals import DerivedLiteral, Literal
from nxcc.ir.shapes import Shape
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode


@dataclass(frozen=True)
class StoreTransposed:
    name: str = "store-transposed"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)


def _stored(instruction: Instruction, builder: Builder) -> Instruction | None:
    constant = instruction.operands[0]
    if constant.opcode != "constant" or len(constant.users) != 1:
        return None
    literal: Literal = constant.attributes["literal"]
    if literal.is_splat:
        return None
    permutation = tuple(instruction.attribute("dimensions"))
    shape = Shape(literal.shape.dtype, instruction.shape.dims)
    stored = DerivedLiteral(shape, load=lambda: literal.array.transpose(permutation))
    return builder.literal(stored, instruction.name)


RULES = (Rule("transpose-of-constant", ("transpose",), _stored),)
_TABLE = rules_by_opcode(RULES)
