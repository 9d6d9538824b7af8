"""Products and convolutions."""

from __future__ import annotations

import math

from nxcc.ir.dtypes import BF16, F8E4M3, F8E4M3FN, F8E5M2, F16, F32, F64, S8, S32, S64, U8, DType
from nxcc.ir.hlo.attributes import ConvolutionDimensions, Window, WindowDimension
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.operator import ShapeError
from nxcc.ir.shapes import array

from harness.random_hlo.generator import Generator, maker

MIXED: dict[DType, tuple[DType, ...]] = {
    BF16: (F32, F16), F32: (BF16,), F16: (F32,), F8E4M3: (F8E5M2,), F8E5M2: (F8E4M3,), S8: (U8,), U8: (S8,)}
"""What a product takes beside operands of another type, with a wider result."""


@maker("dot")
def _dot(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: shape.rank > 0)
    if x is None:
        return None
    order = g.random.sample(range(x.shape.rank), x.shape.rank)
    batches = g.random.choice([n for n in (0, 0, 1, 1, 2) if n <= x.shape.rank])
    summed = order[batches:batches + g.random.choice((0, 1, 1, 1, 1, 2))]
    named = [(x.shape.dims[d], "batch") for d in order[:batches]] + [(x.shape.dims[d], "summed") for d in summed]
    named += [(g.random.choice((1, 3, 8, 17)), "free") for _ in range(g.random.choice((0, 1, 1, 1, 1, 2)))]
    places = list(range(len(named)))
    if g.random.random() < 0.7:
        g.random.shuffle(places)
    dims = [named[place][0] for place in places]
    where = [places.index(n) for n in range(len(named))]
    free = [x.shape.dims[d] for d in order[batches + len(summed):]]
    if math.prod([*dims, *free]) > 20 * g.bounds.elements:
        return None
    y = g.like(array(g.random.choice(MIXED.get(x.shape.dtype, (x.shape.dtype,))) if g.random.random() < 0.2 else x.shape.dtype,
                     *dims))
    made = g.scope.builder.dot(x, y, (summed, where[batches:batches + len(summed)]), (order[:batches], where[:batches]))
    if y.shape.dtype is not x.shape.dtype:
        made.shape = made.shape.with_dtype(F32 if x.shape.dtype.is_float else S32)
    elif x.shape.dtype in (BF16, F16, F8E4M3, F8E5M2, F8E4M3FN) and g.random.random() < 0.5:
        made.shape = made.shape.with_dtype(g.random.choice((F32, F32, BF16)))
    elif x.shape.dtype is S8 and g.random.random() < 0.5:
        made.shape = made.shape.with_dtype(S32)
    return made


def _shuffled(g: Generator, outer: tuple[int, int], spatial: int) -> tuple[int, int, tuple[int, ...]]:
    """Places of two named dimensions and of the spatial ones, in any order."""
    places = list(range(spatial + 2))
    if g.random.random() < 0.5:
        g.random.shuffle(places)
    else:
        places = [outer[0], outer[1], *(n for n in places if n not in outer)]
    return places[0], places[1], tuple(places[2:])


@maker("convolution")
def _convolution(g: Generator) -> Instruction | None:
    spatial = g.random.choice((0, 1, 1, 2, 2, 2, 2, 3, 4))
    dtype = g.random.choice((F32, F32, F32, BF16, F16, S32, S8, F8E5M2, S64, U8, F64, F8E4M3))
    groups, batch_groups = g.random.choice(((1, 1), (1, 1), (1, 1), (2, 1), (3, 1), (1, 2)))
    features, outputs = groups * g.random.choice((1, 2, 5)), groups * batch_groups * g.random.choice((1, 3, 4))
    images = batch_groups * g.random.choice((1, 2, 3))
    sizes = [g.random.choice((3, 5, 8, 12) if spatial < 4 else (2, 3)) for _ in range(spatial)]
    kernel = [g.random.choice((1, 2, 3)) for _ in range(spatial)]
    data, weights, result = (_shuffled(g, outer, spatial) for outer in ((0, spatial + 1), (spatial, spatial + 1),
                                                                       (0, spatial + 1)))
    window = Window(tuple(WindowDimension(size, g.random.choice((1, 1, 2, 3)), g.random.randint(-1 if wide > 5 else 0, 2),
                                          g.random.randint(0, 2), g.random.choice((1, 1, 2)), g.random.choice((1, 1, 2)),
                                          g.random.random() < 0.1)
                          for size, wide in zip(kernel, sizes, strict=True)))
    numbers = ConvolutionDimensions(*data, *weights, *result)
    image = g.like(array(dtype, *_laid_out((images, features, *sizes), (data[0], data[1], *data[2]))))
    kernels = g.like(array(dtype, *_laid_out((features // groups, outputs, *kernel), (weights[0], weights[1], *weights[2]))))
    try:
        return g.make("convolution", image, kernels, window=window, dim_labels=numbers, feature_group_count=groups,
                      batch_group_count=batch_groups)
    except ShapeError:
        return None


def _laid_out(sizes: tuple[int, ...], places: tuple[int, ...]) -> list[int]:
    dims = [0] * len(sizes)
    for size, place in zip(sizes, places, strict=True):
        dims[place] = size
    return dims
