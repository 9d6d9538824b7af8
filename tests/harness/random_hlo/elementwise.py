"""Elementwise operators whose operands or attributes have rules of their own."""

from __future__ import annotations

from nxcc.ir.dtypes import BF16, F16, F32, F64, PRED, DType
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.shapes import Shape, array

from harness.random_hlo.generator import Generator, has_dims, maker


def ordered(shape: Shape) -> bool:
    """Elements that can be compared."""
    return not shape.dtype.is_complex


@maker("compare")
def _compare(g: Generator) -> Instruction | None:
    x = g.pick()
    if x is None:
        return None
    directions = ("EQ", "NE") if x.shape.dtype.is_complex else ("EQ", "NE", "LT", "LE", "GT", "GE")
    kind = "TOTALORDER" if x.shape.dtype.is_float and g.random.random() < 0.2 else ""
    return g.make("compare", x, g.like(x.shape), direction=g.random.choice(directions), type=kind)


@maker("select")
def _select(g: Generator) -> Instruction | None:
    x = g.pick()
    return x and g.make("select", g.like(x.shape.with_dtype(PRED)), x, g.like(x.shape))


@maker("clamp")
def _clamp(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: shape.dtype is not PRED and ordered(shape))
    if x is None:
        return None
    bound = x.shape if g.random.random() < 0.5 else array(x.shape.dtype)
    return g.make("clamp", g.like(bound), x, g.like(bound))


@maker("convert")
def _convert(g: Generator) -> Instruction | None:
    x = g.pick(ordered)
    return x and g.make("convert", x, shape=x.shape.with_dtype(g.random.choice(g.bounds.dtypes)))


@maker("bitcast-convert")
def _bitcast_convert(g: Generator) -> Instruction | None:
    """To another type of the same width, to narrower elements in a dimension of their own, or from such to wider ones."""
    x = g.pick(lambda shape: shape.dtype is not PRED and ordered(shape))
    if x is None:
        return None
    width, last = x.shape.dtype.bits, x.shape.dims[-1] if x.shape.rank else 0

    def fits(dtype: DType) -> bool:
        wider = last > 1 and dtype.bits == width * last
        narrower = width % dtype.bits == 0 and x.shape.rank < g.bounds.rank
        return dtype is not PRED and not dtype.is_complex and (dtype.bits == width or wider or narrower)

    dtype = g.random.choice(sorted({d for d in g.bounds.dtypes if fits(d)}, key=lambda d: d.number))
    dims = x.shape.dims
    if dtype.bits < width:
        dims = (*dims, width // dtype.bits)
    elif dtype.bits > width:
        dims = dims[:-1]
    return g.make("bitcast-convert", x, shape=array(dtype, *dims))


@maker("reduce-precision")
def _reduce_precision(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: shape.dtype in (F32, BF16, F16))
    return x and g.make("reduce-precision", x, exponent_bits=g.random.randint(2, 8), mantissa_bits=g.random.randint(1, 23))


@maker("map")
def _map(g: Generator) -> Instruction | None:
    x = g.pick(has_dims)
    if x is None:
        return None
    y = g.like(x.shape)
    scalar = array(x.shape.dtype)
    count = g.random.randint(1, 3)
    body = g.combiner(x.shape.dtype) if g.random.random() < 0.5 else g.computation(
        [scalar] * 2, lambda p: g.scalar_steps(count, scalar))
    return g.make("map", x, y, dimensions=tuple(range(x.shape.rank)), called=[body])


@maker("complex")
def _complex(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: shape.dtype in (F32, F64))
    return x and g.make("complex", x, g.like(x.shape))


@maker("real", "imag", "abs")
def _part(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: shape.dtype.is_complex or shape.dtype.is_float)
    return x and g.make(g.random.choice(("real", "imag", "abs")), x)
