"""Find the place of the largest or smallest element with reductions that the engines have.

Before, p: picks of two pairs (value, place) the larger value, of equals the earlier place, and any NaN before numbers:
  r = (f32[8,100], s32[8,100]) reduce(x, iota, -inf, 0), dimensions={1}, to_apply=p     i = s32[8] get-tuple-element(r), index=1
After:
  m = f32[8] reduce(x, -inf), to_apply=maximum
  h = pred[8,100] or(x == broadcast(m), x != x)
  f = f32[8] reduce(select(h, iota, 100), inf), to_apply=minimum        i = s32[8] convert(f)

Folding pairs takes a dozen instructions for each halving of the elements; these are passes over rows, which one region makes.
If there is a NaN the largest element is one, equals nothing, and the first NaN is left. What a combiner picks is known by
trying it. Places stay exact in f32 up to 2^24; where the value itself is wanted too, signs of zeros keep the pairs.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import product

import numpy as np

from nxcc.ir.dtypes import F32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.combiners import IDENTITIES
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.oracle import evaluate_computation
from nxcc.ir.shapes import Shape
from nxcc.passes.combiners import combiner
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode

ROWS_MIN = 64
"""Rows from which passes over them fill enough of the partitions; fewer are folded on all of them."""

PLACES_MAX = 1 << 24
"""Whole numbers up to which f32 has them all."""

TRIED = (-math.inf, -1.5, -0.0, 0.0, 2.0, math.inf, math.nan)
"""Values of which a combiner is given all pairs."""

EXTREMES = ("maximum", "minimum")


@dataclass(frozen=True)
class ArgReductions:
    name: str = "arg-reductions"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, rules_by_opcode((Rule("place-of-extreme", ("get-tuple-element",), _place),)))


def _place(element: Instruction, builder: Builder) -> Instruction | None:
    reduce = element.operands[0]
    if reduce.opcode != "reduce" or element.attribute("index") != 1 or not _is_search(reduce):
        return None
    x, (along,) = reduce.operands[0], reduce.attribute("dimensions")
    kept, count = tuple(d for d in range(x.shape.rank) if d != along), x.shape.dims[along]
    extreme = _extreme(reduce)
    if extreme is None:
        return None
    assert builder.computation.parent is not None
    make_combiner = partial(combiner, builder.computation.parent, dtype=F32, builder=builder)
    wide = x if x.shape.dtype is F32 else builder.convert(x, F32)

    def reduced(value: Instruction, opcode: str) -> Instruction:
        start = builder.splat(F32, (), IDENTITIES[opcode])
        return builder.make("reduce", value, start, dimensions=(along,), called=(make_combiner(opcode),))

    found = builder.broadcast(reduced(wide, extreme), x.shape.dims, kept)
    hits = builder.make("or", builder.compare(wide, found, "EQ"), builder.compare(wide, wide, "NE"))
    places = builder.broadcast(builder.make("iota", shape=Shape(F32, (count,)), iota_dimension=0), x.shape.dims, (along,))
    none = builder.broadcast(builder.splat(F32, (), count), x.shape.dims)
    first = reduced(builder.make("select", hits, places, none), "minimum")
    return builder.convert(first, element.shape.dtype)


def _is_search(reduce: Instruction) -> bool:
    """Whether values and their places along one dimension are reduced, and only a place is read."""
    if len(reduce.operands) != 4 or len(reduce.attribute("dimensions")) != 1:
        return False
    (x, places), (along,) = reduce.operands[:2], reduce.attribute("dimensions")
    if x.shape.element_count < ROWS_MIN * x.shape.dims[along]:
        return False
    if not x.shape.dtype.is_float or x.shape.dtype.bits > 32 or not 1 < x.shape.dims[along] <= PLACES_MAX:
        return False
    if not places.shape.dtype.is_integer or not _counts(places, along):
        return False
    return all(map(_reads_place, reduce.users))


def _reads_place(user: Instruction) -> bool:
    """Whether a place is all that is read of a search here: its values may have a name that nobody uses."""
    if user.opcode != "get-tuple-element":
        return False
    is_root = user.parent is not None and user.parent.root is user
    return user.attribute("index") == 1 or not user.users and not is_root


def _counts(places: Instruction, along: int) -> bool:
    """Whether a value is its place along a dimension."""
    if places.opcode == "broadcast":
        dims = places.attribute("dimensions")
        return along in dims and _counts(places.operands[0], dims.index(along))
    return places.opcode == "iota" and places.attribute("iota_dimension") == along


def _extreme(reduce: Instruction) -> str | None:
    """The reduction whose first place a combiner finds; None if it picks otherwise."""
    starts = reduce.operands[2:]
    if any(start.opcode != "constant" for start in starts):
        return None
    value, place = (start.attributes["literal"].splat_value for start in starts)
    extreme = next((name for name in EXTREMES if IDENTITIES[name] == float(value)), None)
    if extreme is None:
        return None
    picks = partial(_picked, reduce.called[0])
    alike = all(picks(a, 3, b, 5) == (3 if _comes_first(a, b, extreme) else 5) for a, b in product(TRIED, TRIED))
    return extreme if alike and picks(float(value), int(place), float(value), 0) == 0 else None


def _comes_first(a: float, b: float, extreme: str) -> bool:
    return a != a or b == b and (a >= b if extreme == "maximum" else a <= b)


def _picked(combiner_: Computation, *pairs: float) -> int:
    """The place that a combiner picks of two pairs (value, place)."""
    values = [np.asarray(value, parameter.shape.dtype.numpy)
              for value, parameter in zip(pairs, combiner_.parameters, strict=True)]
    found = evaluate_computation(combiner_, values)
    return int(found[1])
