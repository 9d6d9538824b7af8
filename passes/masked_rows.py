"""Keep rows of a softmax of which everything is masked to themselves.

Before, of a row that is -inf everywhere:
  m = f32[8] reduce(x, -inf), to_apply=max    e = exponential(x - broadcast(m))    p = divide(e, broadcast(sum(e)))
After:
  n = f32[8] maximum(m, -3.4e38)              e = exponential(x - broadcast(n))    p = divide(e, broadcast(sum(e)))

Such a row is NaN in the end either way: 0 / 0 instead of NaN / NaN. But its exponentials are zeros now, which may go through a
product; as NaN the tensor engine's transpose would spread them to other rows. Only where -inf may come from the module or
straight from a parameter, and where the exponentials are read by nothing but sum and quotient; scale-later then takes the
quotient behind the product.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.combiners import plain_opcode
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.passes.dtypes.casts import largest
from nxcc.passes.patterns import splat_value
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode

_MOVING = frozenset(("broadcast", "reshape", "transpose", "slice", "convert", "copy", "pad", "concatenate", "bitcast",
                     "reverse", "gather", "dynamic-slice", "get-tuple-element"))
_ADDING = frozenset(("add", "subtract", "select", "multiply", "divide", "maximum", "minimum"))
MOST_STEPS = 64
"""Instructions looked at for where -inf may come from."""
MOST_ELEMENTS = 1 << 16
"""Of a constant that is looked at; a larger one may hold -inf."""


@dataclass(frozen=True)
class MaskedRows:
    name: str = "masked-rows"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)


def _bounded(grown: Instruction, builder: Builder) -> Instruction | None:
    difference = grown.operands[0]
    if difference.opcode != "subtract" or difference.operands[1].opcode != "broadcast":
        return None
    x, spread = difference.operands
    most = spread.operands[0]
    if not _is_reduced(most, "maximum") or not _is_normalised(grown) or not _may_be_masked(x):
        return None
    limit = builder.broadcast(builder.splat(most.shape.dtype, (), -largest(most.shape.dtype)), most.shape.dims)
    bounded = builder.broadcast(builder.make("maximum", most, limit), spread.shape.dims, spread.attribute("dimensions"))
    return builder.make("exponential", builder.make("subtract", x, bounded))


def _is_reduced(value: Instruction, opcode: str) -> bool:
    """Whether a value is a reduction by this operator, perhaps in another shape."""
    while value.opcode == "reshape":
        value = value.operands[0]
    return value.opcode == "reduce" and value.shape.is_array and plain_opcode(value.called[0]) == opcode


def _is_normalised(grown: Instruction) -> bool:
    """Whether exponentials are read by a sum, and by a quotient with one, alone."""
    sums = [user for user in grown.users if _is_reduced(user, "add")]
    others = [user for user in grown.users if user not in sums]
    return len(sums) == 1 and bool(others) and all(
        user.opcode == "divide" and user.operands[0] is grown and user.operands[1].opcode == "broadcast"
        and _is_reduced(user.operands[1].operands[0], "add") for user in others)


def _may_be_masked(x: Instruction) -> bool:
    """Whether -inf may be put into a value by a constant, or be added to it as it was handed in."""
    return any(i.opcode == "parameter" and i is not x or i.opcode == "constant" and _is_infinite(i) for i in _sources(x))


def _sources(x: Instruction) -> Iterator[Instruction]:
    """What a value is moved and added from."""
    stack, seen = [x], {x}
    while stack and len(seen) < MOST_STEPS:
        instruction = stack.pop()
        yield instruction
        if instruction.opcode in _MOVING:
            fresh = instruction.operands[:1] if instruction.opcode != "concatenate" else instruction.operands
        else:
            fresh = instruction.operands if instruction.opcode in _ADDING else ()
        stack += [o for o in fresh if o not in seen]
        seen.update(fresh)


def _is_infinite(constant: Instruction) -> bool:
    shape = constant.shape
    if not shape.is_array or not shape.dtype.is_float:
        return False
    number = splat_value(constant)
    if number is None and shape.element_count > MOST_ELEMENTS:
        return True
    values = constant.attributes["literal"].array if number is None else number
    return bool(np.isneginf(np.asarray(values).astype(np.float32)).any())


RULES = (Rule("masked-rows", ("exponential",), _bounded),)
_TABLE = rules_by_opcode(RULES)
