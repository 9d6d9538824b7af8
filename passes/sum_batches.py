"""The sum of a product's batches is a product that sums over them too: no batch's result is ever made.

Before (gradients of a loss for each example, as vmap(grad) writes them, added up):
  d = f32[128,256,784] dot(g, x), lhs_batch_dims={0}, rhs_batch_dims={0}          g: f32[128,256], x: f32[128,784]
  t = f32[128,784,256] transpose(d), dimensions={0,2,1}
  s = f32[784,256] reduce(t, zero), dimensions={0}, to_apply=add
After:
  e = f32[256,784] dot(g, x), lhs_contracting_dims={0}, rhs_contracting_dims={0}
  s = f32[784,256] transpose(e), dimensions={1,0}

Transposes, reshapes and conversions to f32 may lie between; other dimensions that are reduced stay reduced. For sums in f32
only, where the order of terms is free.
"""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.ir.dtypes import F32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.combiners import plain_opcode
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.ops.contraction import DotDims, dot_dims
from nxcc.passes.patterns import reshape_to, segments, splat_value, transpose_to
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode


@dataclass(frozen=True)
class SumBatches:
    name: str = "sum-batches"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)


def _summed(reduce: Instruction, builder: Builder) -> Instruction | None:
    if len(reduce.operands) != 2 or reduce.shape.dtype is not F32 or plain_opcode(reduce.called[0]) != "add":
        return None
    value, zero = reduce.operands
    if splat_value(zero) != 0 or not value.shape.element_count:
        return None
    steps: list[tuple[Instruction, frozenset[int]]] = []
    summed: frozenset[int] | None = frozenset(reduce.attribute("dimensions"))
    while summed and value.opcode in _BELOW and len(value.users) == 1:
        steps.append((value, summed))
        summed = _BELOW[value.opcode](value, summed)
        value = value.operands[0]
    if not summed or value.opcode != "dot" or len(value.users) != 1 or not value.shape.dtype.is_float:
        return None
    batches = [d for d in sorted(summed) if d < len(value.attribute("lhs_batch_dims"))]
    if not batches:
        return None
    made = _contracted(value, batches, builder)
    if left := sorted(summed.difference(batches)):
        places = [d - len(batches) for d in left]
        made = builder.make("reduce", made, zero, called=reduce.called, dimensions=tuple(places))
    for step, gone in reversed(steps):
        made = _again(step, gone, made, builder)
    return made


def _below_transpose(transpose: Instruction, summed: frozenset[int]) -> frozenset[int] | None:
    return frozenset(transpose.attribute("dimensions")[d] for d in summed)


def _below_reshape(reshape: Instruction, summed: frozenset[int]) -> frozenset[int] | None:
    """Dimensions of the operand that hold what is summed, and nothing else; None if there are no such."""
    found: set[int] = set()
    for left, right in segments(reshape.operands[0].shape.dims, reshape.shape.dims):
        large = [d for d in right if reshape.shape.dims[d] != 1]
        inside = [d in summed for d in large]
        if any(inside) and not all(inside):
            return None
        if any(inside):
            found.update(left)
    return frozenset(found)


def _below_convert(convert: Instruction, summed: frozenset[int]) -> frozenset[int] | None:
    return summed if convert.shape.dtype is F32 and convert.operands[0].shape.dtype.is_float else None


_BELOW = {"transpose": _below_transpose, "reshape": _below_reshape, "convert": _below_convert}
"""What may stand between a product and a sum of it: which dimensions of its operand are summed."""


def _again(step: Instruction, summed: frozenset[int], value: Instruction, builder: Builder) -> Instruction:
    """The step on a value that has its summed dimensions no more."""
    if step.opcode == "transpose":
        kept = [p for d, p in enumerate(step.attribute("dimensions")) if d not in summed]
        return transpose_to(builder, value, [sorted(kept).index(p) for p in kept])
    return reshape_to(builder, value, _without(step.shape.dims, summed)) if step.opcode == "reshape" else value


def _without(dims: Sequence[int], gone: frozenset[int]) -> tuple[int, ...]:
    return tuple(size for d, size in enumerate(dims) if d not in gone)


def _contracted(dot: Instruction, batches: list[int], builder: Builder) -> Instruction:
    """The dot, to f32, that sums over these of its batches too."""
    dims = dot_dims(dot)
    kept = [b for b in range(len(dims.lhs_batch)) if b not in batches]
    new = DotDims(tuple(dims.lhs_batch[b] for b in kept), (*dims.lhs_contracting, *(dims.lhs_batch[b] for b in batches)),
                  tuple(dims.rhs_batch[b] for b in kept), (*dims.rhs_contracting, *(dims.rhs_batch[b] for b in batches)))
    lhs, rhs = dot.operands
    notes = {key: dot.attributes[key] for key in ("operand_precision", "algorithm") if key in dot.attributes}
    made = builder.dot(lhs, rhs, (new.lhs_contracting, new.rhs_contracting), (new.lhs_batch, new.rhs_batch), F32, **notes)
    made.frontend_attributes = dict(dot.frontend_attributes)
    return made


RULES = (Rule("sum-of-batches", ("reduce",), _summed),)
_TABLE = rules_by_opcode(RULES)
