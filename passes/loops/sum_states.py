"""A product of a recurrence's states with a vector becomes multiplication and a sum, which a scan program takes in.

Before:
  h = f32[2,96,8,75] get-tuple-element(scan), index=0      t = f32[75,2,96,8] transpose(h), dimensions={3,0,1,2}
  y = f32[75,2,96] dot(t, c), lhs_batch_dims={0,1}, lhs_contracting_dims={3}, rhs_batch_dims={0,1}, rhs_contracting_dims={2}
After:
  p = f32[2,96,8,75] multiply(h, broadcast(c))     r = f32[2,96,75] reduce(p, 0), dimensions={2}, to_apply=add
  y = f32[75,2,96] transpose(r), dimensions={2,0,1}

Frameworks write the output of a state space model so (lben,bln->ble). A product would read each state once, for one result.
"""

from __future__ import annotations

from nxcc.ir.dtypes import F32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.ops.contraction import DotDims, dot_dims
from nxcc.ir.hlo.recurrences import is_linear_recurrence
from nxcc.passes.combiners import combiner
from nxcc.passes.patterns import broadcast_to, transpose_to
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode


@dataclass(frozen=True)
class SumStates:
    name: str = "sum-states"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)


def _summed(dot: Instruction, builder: Builder) -> Instruction | None:
    dims = dot_dims(dot)
    left, right = dot.operands
    for side, other, one in ((left, right, dims), (right, left, _swapped(dims))):
        if len(one.lhs_contracting) == 1 and not one.rhs_free(other.shape.rank):
            found = _source(side)
            if found is not None and {dot.shape.dtype, other.shape.dtype} == {F32}:
                return _sum(*found, other, one, builder)
    return None


def _swapped(dims: DotDims) -> DotDims:
    return DotDims(dims.rhs_batch, dims.rhs_contracting, dims.lhs_batch, dims.lhs_contracting)


def _source(side: Instruction) -> tuple[Instruction, list[int]] | None:
    """The states that are read here, in another order perhaps: them, and which of their dimensions each of this is."""
    places = list(range(side.shape.rank))
    while side.opcode == "transpose":
        places = [side.attribute("dimensions")[place] for place in places]
        side = side.operands[0]
    is_states = side.opcode == "get-tuple-element" and side.attribute("index") == 0
    scan = side.operands[0] if is_states else None
    return (side, places) if scan is not None and scan.opcode == "scan" and is_linear_recurrence(scan) else None


def _sum(states: Instruction, places: list[int], vector: Instruction, dims: DotDims, builder: Builder) -> Instruction | None:
    summed = places[dims.lhs_contracting[0]]
    if (scan := states.operands[0]).attribute("dimensions") == (summed,):
        return None
    meets = dict(zip((*dims.rhs_batch, *dims.rhs_contracting), (*dims.lhs_batch, *dims.lhs_contracting), strict=True))
    order = sorted(meets, key=lambda d: places[meets[d]])
    spread = broadcast_to(builder, transpose_to(builder, vector, order), states.shape.dims, [places[meets[d]] for d in order])
    product = builder.make("multiply", states, spread)
    module = scan.parent.parent if scan.parent is not None else None
    assert module is not None
    result = builder.make("reduce", product, builder.splat(F32, (), 0.0), dimensions=(summed,),
                          called=(combiner(module, "add", F32, builder),))
    left = [d for d in range(states.shape.rank) if d != summed]
    wanted = [places[d] for d in (*dims.lhs_batch, *dims.lhs_free(states.shape.rank))]
    return transpose_to(builder, result, [left.index(d) for d in wanted])


RULES = (Rule("states-by-vector", ("dot",), _summed),)
_TABLE = rules_by_opcode(RULES)
