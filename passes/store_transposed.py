"""Store a large constant, or a declared weight, in the order in which it is read.

Before:
  w = bf16[3072,768] constant(..)    t = bf16[768,3072] transpose(w), dimensions={1,0}    d = f32[8,3072] dot(x, t), ..
After:
  t = bf16[768,3072] constant(..)    d = f32[8,3072] dot(x, t), ..

Front ends keep dense weights as [outputs, inputs] and transpose them in each request; element by element from memory that is
slow. The new constant is computed when it is written; a declared weight is turned by the loader, and its parameter says so:

  t = bf16[768,3072] parameter(1), frontend_attributes={nxcc.order="1,0"}

What is read in several orders stays as it is, so that no weight is stored twice.
"""

from __future__ import annotations

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.marks import ORDER
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.literals import DerivedLiteral, Literal
from nxcc.ir.shapes import Shape
from nxcc.passes.dtypes.legalize_dtypes import update_entry_layout
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode


@dataclass(frozen=True)
class StoreTransposed:
    """weights: numbers of the entry parameters that the loader may turn."""

    weights: frozenset[int] = frozenset()
    name: str = "store-transposed"

    def run(self, module: Module) -> bool:
        changed = rewrite_module(module, _TABLE)
        turned = [_turn_weight(module, p) for n, p in enumerate(module.entry.parameters) if n in self.weights]
        if any(turned):
            update_entry_layout(module)
        return any(turned) or changed


def _turn_weight(module: Module, parameter: Instruction) -> bool:
    """Let a weight that is only read through one transpose lie in that order."""
    orders = {user.attribute("dimensions") for user in parameter.users if user.opcode == "transpose"}
    if len(orders) != 1 or any(user.opcode != "transpose" for user in parameter.users) or parameter is module.entry.root:
        return False
    order = tuple(orders.pop())
    parameter.frontend_attributes[ORDER] = ",".join(map(str, order))
    parameter.shape = Shape(parameter.shape.dtype, tuple(parameter.shape.dims[d] for d in order))
    for user in list(parameter.users):
        module.entry.replace(user, parameter)
        module.entry.remove(user)
    return True


def _through_reshape(transpose: Instruction, builder: Builder) -> Instruction | None:
    """transpose(reshape(w)) where the reshape moves dimensions of size 1 alone: it is a transpose itself."""
    reshape = transpose.operands[0]
    if reshape.opcode != "reshape" or reshape.shape.rank != reshape.operands[0].shape.rank:
        return None
    source = reshape.operands[0]
    if source.opcode not in ("constant", "parameter"):
        return None
    wide, units = ([d for d, size in enumerate(source.shape.dims) if (size == 1) is alone] for alone in (False, True))
    if [source.shape.dims[d] for d in wide] != [size for size in reshape.shape.dims if size != 1]:
        return None
    order = [units.pop(0) if size == 1 else wide.pop(0) for size in reshape.shape.dims]
    return builder.transpose(source, tuple(order[d] for d in transpose.attribute("dimensions")))


def _stored(instruction: Instruction, builder: Builder) -> Instruction | None:
    constant = instruction.operands[0]
    if constant.opcode != "constant" or len(constant.users) != 1:
        return None
    literal: Literal = constant.attributes["literal"]
    if literal.is_splat:
        return None
    permutation = tuple(instruction.attribute("dimensions"))
    shape = Shape(literal.shape.dtype, instruction.shape.dims)
    stored = DerivedLiteral(shape, literal, order=permutation)
    return builder.literal(stored, instruction.name)


RULES = (Rule("transpose-of-constant", ("transpose",), _stored),
         Rule("transpose-of-units-moved", ("transpose",), _through_reshape))
_TABLE = rules_by_opcode(RULES)
