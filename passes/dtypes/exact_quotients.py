"""Round f32 quotients to the nearest where a unit of the last place decides a whole number or a comparison.

Before:
  q = f32[8] divide(x, y)    ROOT n = f32[8] floor(q)
After, h(v) = v without the lower half of its significand, so that products of halves are exact:
  q = divide(x, y)    qh = h(q)    ql = q - qh    yh = h(y)    yl = y - yh
  rest = x - qh * yh - qh * yl - ql * yh - ql * yl    step = rest / y
  n = floor(select(|step| > 0, q + step, q))

The engines multiply by a reciprocal (the documents: there is no division), which is up to two units off: 49 / 49 comes out
below 1, its floor is 0, and it is not the 1 that it is compared with. What is rounded to whole numbers, a grid of pixels or a
quantized tensor, must not show that, nor what is compared as it is. The rest is exact in f32, so that the corrected quotient
is the nearest one, but for results near the smallest normal number. A step of zero, which
would make 0 of -0, and one of NaN, which zeros and infinities make, keep the first quotient. Narrower floats need none of
this: a quotient of theirs is never as near to the middle of two of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from nxcc.ir.dtypes import F32, U32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.passes.rewriting import flow_computations, settle

_ROUNDING = frozenset(("floor", "ceil", "round-nearest-afz", "round-nearest-even"))
_KEEPING = frozenset((
    "negate", "abs", "clamp", "maximum", "minimum", "select", "copy", "reshape", "transpose", "broadcast", "slice", "reverse",
    "pad", "concatenate", "bitcast"))
"""Operators through which a quotient as it is reaches what compares it."""
_CARRYING = _KEEPING | {"add", "subtract", "multiply", "divide", "convert"}
"""Operators through which a last place reaches what rounds."""

UPPER = 0xFFFFF000
"""The bits of an f32 with its sign, exponent and the upper 12 bits of its significand."""


@dataclass(frozen=True)
class ExactQuotients:
    name: str = "exact-quotients"

    def run(self, module: Module) -> bool:
        changed, names = False, Names(module)
        for computation in flow_computations(module):
            found = list(_decisive(computation))
            builder = Builder(computation, names=names)
            for quotient in found:
                builder.location = quotient.location
                _correct(quotient, builder)
            if found:
                settle(computation)
            changed |= bool(found)
        return changed


def _decisive(computation: Computation) -> Iterator[Instruction]:
    """Quotients whose last place may decide a whole number or a comparison."""
    rounded = [i.operands[0] for i in computation.instructions if _is_rounding(i)]
    compared = [o for i in computation.instructions if i.opcode == "compare" for o in i.operands]
    found = dict.fromkeys((*_reached(rounded, _CARRYING), *_reached(compared, _KEEPING)))
    yield from (i for i in found if i.opcode == "divide" and i.shape.dtype is F32 and not i.shape.dynamic)


def _reached(roots: list[Instruction], through: frozenset[str]) -> Iterator[Instruction]:
    """Float values from which operators `through` lead to one of the roots, which are among them."""
    seen = dict.fromkeys(o for o in roots if o.shape.dtype.is_float)
    stack = list(seen)
    while stack:
        instruction = stack.pop()
        yield instruction
        if instruction.opcode in through:
            fresh = [o for o in instruction.operands if o not in seen and o.shape.dtype.is_float]
            seen.update(dict.fromkeys(fresh))
            stack += fresh


def _is_rounding(instruction: Instruction) -> bool:
    if instruction.opcode == "convert":
        return instruction.operands[0].shape.dtype.is_float and instruction.shape.dtype.is_integer
    return instruction.opcode in _ROUNDING


def _correct(quotient: Instruction, builder: Builder) -> None:
    """Let those that read a quotient read the corrected one."""
    x, y = quotient.operands
    users = list(quotient.users)
    q_upper, y_upper = (_upper(value, builder) for value in (quotient, y))
    q_lower, y_lower = (builder.make("subtract", whole, upper) for whole, upper in ((quotient, q_upper), (y, y_upper)))
    rest = x
    for left, right in ((q_upper, y_upper), (q_upper, y_lower), (q_lower, y_upper), (q_lower, y_lower)):
        rest = builder.make("subtract", rest, builder.make("multiply", left, right))
    step = builder.make("divide", rest, y)
    none = builder.broadcast(builder.splat(F32, (), 0.0), y.shape.dims)
    result = builder.make("select", builder.compare(builder.make("abs", step), none, "GT"),
                          builder.make("add", quotient, step), quotient)
    computation = builder.computation
    for user in dict.fromkeys(users):
        computation.set_operands(user, [result if o is quotient else o for o in user.operands])
    if computation.root is quotient:
        computation.root = result


def _upper(value: Instruction, builder: Builder) -> Instruction:
    dims = value.shape.dims
    mask = builder.broadcast(builder.splat(U32, (), UPPER), dims)
    word = builder.make("bitcast-convert", value, shape=value.shape.with_dtype(U32))
    return builder.make("bitcast-convert", builder.make("and", word, mask), shape=value.shape.with_dtype(F32))
