"""Operators that move values."""

from __future__ import annotations

from nxcc.ir.dtypes import PRED
from nxcc.ir.hlo.attributes import PaddingDimension
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.shapes import array

from harness.random_hlo.generator import Generator, has_dims, maker


@maker("broadcast")
def _broadcast(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: shape.rank < g.bounds.rank and shape.element_count * 16 <= g.bounds.elements)
    if x is None:
        return None
    rank = g.random.randint(x.shape.rank, min(g.bounds.rank, x.shape.rank + 2))
    places = sorted(g.random.sample(range(rank), x.shape.rank))
    dims = [g.random.choice((1, 2, 3, 4)) for _ in range(rank)]
    for place, size in zip(places, x.shape.dims, strict=True):
        dims[place] = size
    return g.scope.builder.broadcast(x, dims, places)


@maker("reshape")
def _reshape(g: Generator) -> Instruction | None:
    x = g.pick()
    return x and g.make("reshape", x, shape=array(x.shape.dtype, *_factors(g, x.shape.element_count)))


def _factors(g: Generator, count: int) -> list[int]:
    """Dimensions with this product."""
    if count == 0:
        return [g.random.choice((1, 3)), 0]
    dims: list[int] = []
    while count > 1 and len(dims) < g.bounds.rank - 1:
        divisors = [d for d in range(1, min(count, 1000) + 1) if count % d == 0]
        dims.append(g.random.choice(divisors))
        count //= dims[-1]
    return [*dims, count] if count > 1 or g.random.random() < 0.3 else dims


@maker("transpose")
def _transpose(g: Generator) -> Instruction | None:
    x = g.pick(has_dims)
    return x and g.make("transpose", x, dimensions=tuple(g.random.sample(range(x.shape.rank), x.shape.rank)))


@maker("reverse")
def _reverse(g: Generator) -> Instruction | None:
    x = g.pick(has_dims)
    return x and g.make("reverse", x, dimensions=tuple(d for d in range(x.shape.rank) if g.random.random() < 0.6))


@maker("slice")
def _slice(g: Generator) -> Instruction | None:
    x = g.pick(has_dims)
    if x is None:
        return None
    starts = [g.random.randint(0, size // 2) for size in x.shape.dims]
    limits = [g.random.randint(start + (size > 0), size) for start, size in zip(starts, x.shape.dims, strict=True)]
    return g.scope.builder.slice(x, starts, limits, [g.random.choice((1, 1, 2, 3)) for _ in starts])


@maker("pad")
def _pad(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: shape.rank > 0 and shape.element_count * 8 <= g.bounds.elements)
    if x is None:
        return None
    rows = []
    for size in x.shape.dims:
        interior = g.random.choice((0, 0, 1, 2))
        spread = max(0, size + (size - 1) * interior)
        low = g.random.choice((0, 1, 3, -min(1, spread), -min(3, spread), -g.random.randint(0, spread)))
        high = g.random.choice((0, 1, 3, -min(1, spread), -g.random.randint(0, spread)))
        rows.append(PaddingDimension(low, max(high, -(spread + low)), interior))
    return g.make("pad", x, g.like(array(x.shape.dtype)), padding=tuple(rows))


@maker("concatenate")
def _concatenate(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: shape.rank > 0 and shape.element_count * 4 <= g.bounds.elements)
    if x is None:
        return None
    dimension = g.random.randrange(x.shape.rank)
    parts = [x]
    for _ in range(g.random.randint(1, 2)):
        dims = list(x.shape.dims)
        dims[dimension] = g.random.choice((1, 2, 5, dims[dimension]))
        parts.append(g.like(array(x.shape.dtype, *dims)))
    g.random.shuffle(parts)
    return g.make("concatenate", *parts, dimensions=(dimension,))


@maker("iota")
def _iota(g: Generator) -> Instruction | None:
    shape = g.shape(g.random.choice([d for d in g.bounds.dtypes if d is not PRED and not d.is_complex]), g.random.randint(1, 3))
    return g.make("iota", shape=shape, iota_dimension=g.random.randrange(shape.rank))


@maker("copy", "opt-barrier")
def _copy(g: Generator) -> Instruction | None:
    x = g.pick()
    return x and g.make(g.random.choice(("copy", "opt-barrier")), x)
