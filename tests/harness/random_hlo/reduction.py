"""Reductions, windows and order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nxcc.ir.dtypes import BF16, F16, F32, PRED, S32, S64, U8, U32, DType
from nxcc.ir.hlo.attributes import Window, WindowDimension
from nxcc.ir.hlo.builder import infer_shape
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.hlo.operator import find
from nxcc.ir.shapes import Shape, array, tuple_of

from harness.random_hlo.elementwise import ordered
from harness.random_hlo.generator import Generator, has_dims, maker

SUMS = ("add", "add", "maximum", "minimum")


def taken_apart(g: Generator, made: Instruction) -> Instruction | list[Instruction]:
    """The elements of a tuple, or the array itself."""
    if made.shape.is_array:
        return made
    return [g.scope.builder.get_tuple_element(made, n) for n, element in enumerate(made.shape.elements) if element.is_array]


def _integer_sums(dtype: DType) -> tuple[str, ...]:
    return (*SUMS, "multiply", "and", "or", "xor") if dtype.is_integer else SUMS


def canonical(g: Generator, x: Instruction) -> Instruction:
    """The value with one kind of NaN: which sign a computed NaN has is nobody's promise, and orders look at it."""
    if not x.shape.dtype.is_float:
        return x
    is_nan = g.make("compare", x, x, direction="NE")
    nan = g.scope.builder.splat(x.shape.dtype, (), np.asarray(np.nan, x.shape.dtype.numpy))
    return g.make("select", is_nan, g.scope.builder.broadcast(nan, x.shape.dims), x)


def _place_of_first(g: Generator, value: DType, place: DType) -> Computation:
    """The combiner of argmax or argmin: ties go to the lower place."""
    direction = g.random.choice(("GT", "LT"))

    def body(p: list[Instruction]) -> Instruction:
        kind = "TOTALORDER" if value.is_float else ""
        better, same = (g.make("compare", p[0], p[2], direction=word, type=kind) for word in (direction, "EQ"))
        earlier = g.make("and", same, g.make("compare", p[1], p[3], direction="LT"))
        first = g.make("or", better, earlier)
        return g.make("tuple", g.make("select", first, p[0], p[2]), g.make("select", first, p[1], p[3]))

    return g.computation([array(value), array(place)] * 2, body)


@maker("reduce")
def _reduce(g: Generator) -> Instruction | list[Instruction] | None:
    x = g.pick(has_dims)
    if x is None:
        return None
    dimensions = tuple(sorted(g.random.sample(range(x.shape.rank), g.random.randint(1, x.shape.rank))))
    if ordered(x.shape) and x.shape.dtype is not PRED and g.random.random() < 0.2:
        place = g.random.choice((S32, S32, U32, S64))
        count = g.note(g.make("iota", shape=x.shape.without_layout().with_dtype(place), iota_dimension=dimensions[-1]))
        combiner = _place_of_first(g, x.shape.dtype, place)
        x = canonical(g, x)
        starts = [canonical(g, g.like(array(x.shape.dtype))), g.like(array(place))]
        shape = tuple_of(*(array(dtype, *(size for d, size in enumerate(x.shape.dims) if d not in dimensions))
                           for dtype in (x.shape.dtype, place)))
        made = g.make("reduce", x, count, *starts, dimensions=dimensions, called=[combiner], shape=shape)
        return taken_apart(g, made)
    if ordered(x.shape) and x.shape.dtype is not PRED and g.random.random() < 0.2:
        return _several(g, x, dimensions)
    return g.make("reduce", x, g.like(array(x.shape.dtype)), dimensions=dimensions, called=[_sum_body(g, x.shape.dtype)])


def _several(g: Generator, x: Instruction, dimensions: tuple[int, ...]) -> Instruction | list[Instruction]:
    """Several reductions at once, each with a combiner of its own."""
    chosen = g.random.choices((F32, S32, BF16, x.shape.dtype), k=g.random.randint(1, 2))
    others = [g.like(x.shape.with_dtype(dtype)) for dtype in chosen]
    dtypes = [o.shape.dtype for o in (x, *others)]

    def body(p: list[Instruction]) -> Instruction:
        half = len(p) // 2
        return g.make("tuple", *(g.make(g.random.choice(_integer_sums(dtype)), p[n], p[n + half])
                                 for n, dtype in enumerate(dtypes)))

    combiner = g.computation([array(dtype) for dtype in dtypes] * 2, body)
    starts = [g.like(array(dtype)) for dtype in dtypes]
    left = [size for d, size in enumerate(x.shape.dims) if d not in dimensions]
    made = g.make("reduce", x, *others, *starts, dimensions=dimensions, called=[combiner],
                  shape=tuple_of(*(array(dtype, *left) for dtype in dtypes)))
    return taken_apart(g, made)


def _sum_body(g: Generator, dtype: DType) -> Computation:
    """A combiner: one operator, or a maximum or minimum by comparing, or by turning the sign."""
    choice = g.random.random()
    if choice < 0.85 or dtype is PRED or dtype.is_complex or dtype.is_float:
        return g.combiner(dtype, _integer_sums(dtype))
    if choice < 0.93 and dtype.is_signed:
        return g.computation([array(dtype)] * 2,
                             lambda p: g.make("negate", g.make("maximum", *(g.make("negate", x) for x in p))))
    direction = g.random.choice(("LT", "LE", "GT", "GE"))
    return g.computation([array(dtype)] * 2, lambda p: g.make("select", g.make("compare", *p, direction=direction), *p))


def _window_over(g: Generator, shape: Shape, *, dilated: bool) -> Window:
    rows = []
    for size in shape.dims:
        width = g.random.choice([w for w in (1, 1, 2, 3, 5) if w <= max(1, size)])
        padding = g.random.randint(0, width - 1), g.random.randint(0, width - 1)
        dilation = (g.random.choice((1, 1, 1, 2, 3)), g.random.choice((1, 1, 2, 3))) if dilated else (1, 1)
        if dilated and g.random.random() < 0.15 and size > 4:
            padding = g.random.choice(((-1, 0), (2, -1), (0, 4), (-2, -1), (5, 5)))
        rows.append(WindowDimension(width, g.random.choice((1, 1, 2, 3)), *padding, *dilation,
                                    dilated and g.random.random() < 0.05))
    return Window(tuple(rows))


def _small(shape: Shape) -> bool:
    return shape.rank > 0 and 0 < shape.element_count <= 3000 and shape.dtype is not PRED


def _window_of_places(g: Generator, x: Instruction, window: Window) -> Instruction | list[Instruction]:
    """The largest of each window, and where it lies."""
    count = g.note(g.make("iota", shape=x.shape.without_layout().with_dtype(S32), iota_dimension=x.shape.rank - 1))
    combiner, x = _place_of_first(g, x.shape.dtype, S32), canonical(g, x)
    starts = [canonical(g, g.like(array(x.shape.dtype))), g.like(array(S32))]
    alone = infer_shape(find("reduce-window"), [x.shape, starts[0].shape], {"window": window}, [g.combiner(x.shape.dtype)])
    shape = tuple_of(alone, alone.with_dtype(S32))
    return taken_apart(g, g.make("reduce-window", x, count, *starts, window=window, called=[combiner], shape=shape))


@maker("reduce-window")
def _reduce_window(g: Generator) -> Instruction | list[Instruction] | None:
    x = g.pick(lambda shape: _small(shape) and ordered(shape))
    if x is None:
        return None
    if g.random.random() < 0.3:
        return _cumulative(g, x)
    window = _window_over(g, x.shape, dilated=True)
    if x.shape.dtype is not PRED and g.random.random() < 0.15:
        return _window_of_places(g, x, window)
    combiner = g.combiner(x.shape.dtype, _integer_sums(x.shape.dtype))
    return g.make("reduce-window", x, g.like(array(x.shape.dtype)), window=window, called=[combiner])


def _cumulative(g: Generator, x: Instruction) -> Instruction:
    """A window that reaches back to the first element, or on to the last."""
    dimension = g.random.randrange(x.shape.rank)
    rows = [WindowDimension(1, 1, 0, 0, 1, 1)] * x.shape.rank
    size = x.shape.dims[dimension]
    low = size - 1 if g.random.random() < 0.5 else 0
    rows[dimension] = WindowDimension(size, 1, low, size - 1 - low, 1, 1)
    combiner = g.combiner(x.shape.dtype, _integer_sums(x.shape.dtype))
    return g.make("reduce-window", x, g.like(array(x.shape.dtype)), window=Window(tuple(rows)), called=[combiner])


@maker("select-and-scatter")
def _select_and_scatter(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: _small(shape) and ordered(shape) and shape.dtype.bits >= 8)
    if x is None:
        return None
    window = _window_over(g, x.shape, dilated=False)
    dtype = x.shape.dtype
    add = g.combiner(dtype, ("add", "add", "maximum", "minimum"))
    source = infer_shape(find("reduce-window"), [x.shape, array(dtype)], {"window": window}, [add])
    direction = g.random.choice(("GE", "GE", "GT", "LE", "LT"))
    select = g.computation([array(dtype)] * 2, lambda p: g.make("compare", *p, direction=direction))
    return g.make("select-and-scatter", x, g.like(source), g.like(array(dtype)), window=window, called=[select, add])


def _total(g: Generator, x: Instruction) -> Instruction:
    """A float as an integer of the same order, as front ends write it: negative ones turned over."""
    if x.shape.dtype is not F32:
        return x
    bits = g.make("bitcast-convert", x, shape=x.shape.with_dtype(S32))
    most = g.scope.builder.constant(np.asarray(2**31 - 1, np.int32))
    zero = g.scope.builder.constant(np.asarray(0, np.int32))
    turned = g.make("subtract", most, bits)
    return g.make("select", g.make("compare", bits, zero, direction="LT"), turned, bits)


def _of_integer(opcode: str) -> Callable[[Generator, Instruction], Instruction]:
    """A function of a value and a constant, where it is an integer."""
    def key(g: Generator, x: Instruction) -> Instruction:
        if not x.shape.dtype.is_integer:
            return x
        return g.make(opcode, x, g.scope.builder.constant(np.asarray(3).astype(x.shape.dtype.numpy)))
    return key


_KEYS: dict[str, Callable[[Generator, Instruction], Instruction]] = {
    "itself": lambda g, x: x, "same": lambda g, x: x,
    "negated": lambda g, x: g.make("negate", x) if x.shape.dtype.is_signed else x,
    "magnitude": lambda g, x: g.make("abs", x) if x.shape.dtype.is_signed else x,
    "total": _total, "remainder": _of_integer("remainder"), "flipped": _of_integer("xor"),
}
"""What comparators look at."""


@maker("sort")
def _sort(g: Generator) -> Instruction | list[Instruction] | None:
    x = g.pick(lambda shape: shape.rank > 0 and shape.dtype is not PRED and ordered(shape))
    if x is None:
        return None
    count = g.random.choice((0, 0, 1, 2, 4))
    others = [g.like(x.shape.with_dtype(g.random.choice((F32, S32, BF16, S64, U8, F16, U32)))) for _ in range(count)]
    x, others = canonical(g, x), [canonical(g, other) for other in others]
    shapes = [array(o.shape.dtype) for o in (x, *others) for _ in range(2)]
    direction, turn = g.random.choice(("LT", "GT")), g.random.choice(tuple(_KEYS))

    def compared(p: list[Instruction]) -> Instruction:
        one, other = (_KEYS[turn](g, value) for value in p)
        kind = "TOTALORDER" if one.shape.dtype.is_float else ""
        return g.make("compare", one, other, direction=direction, type=kind)

    def body(p: list[Instruction]) -> Instruction:
        key = 2 * g.random.randrange(len(p) // 2)
        first = compared(p[key:key + 2])
        if len(p) < 4 or g.random.random() < 0.5:
            return first
        same = g.make("compare", *(_KEYS[turn](g, value) for value in p[key:key + 2]), direction="EQ",
                      type="TOTALORDER" if first.operands[0].shape.dtype.is_float else "")
        then = compared(p[2:4] if key != 2 else p[:2])
        if g.random.random() < 0.5:
            return g.make("select", same, then, first)
        return g.make("or", first, g.make("and", same, then))

    comparator = g.computation(shapes, body)
    dimension = (g.random.randrange(x.shape.rank),)
    made = g.make("sort", x, *others, dimensions=dimension, is_stable=True, called=[comparator])
    return taken_apart(g, made)


@maker("topk")
def _topk(g: Generator) -> Instruction | list[Instruction] | None:
    x = g.pick(lambda shape: shape.rank > 0 and shape.dtype in (F32, BF16, S32, S64) and shape.dims[-1] > 0)
    if x is None:
        return None
    count, largest = g.random.randint(1, min(x.shape.dims[-1], 20)), g.random.random() < 0.7
    return taken_apart(g, g.make("topk", canonical(g, x), k=count, largest=largest))


@maker("batch-norm-training", "batch-norm-inference", "batch-norm-grad")
def _batch_norm(g: Generator) -> Instruction | list[Instruction] | None:
    x = g.pick(lambda shape: shape.rank > 1 and shape.dtype is F32 and shape.element_count <= 3000)
    if x is None:
        return None
    feature = g.random.randrange(x.shape.rank)
    row = array(F32, x.shape.dims[feature])
    opcode = g.random.choice(("batch-norm-training", "batch-norm-inference", "batch-norm-grad"))
    rest = {"batch-norm-training": [row] * 2, "batch-norm-inference": [row] * 3, "batch-norm-grad": [row] * 2}[opcode]
    operands = [x, *(g.like(shape) for shape in rest)]
    if opcode != "batch-norm-training":
        operands.append(g.make("abs", g.like(row)))
    if opcode == "batch-norm-grad":
        operands.append(g.like(x.shape))
    return taken_apart(g, g.make(opcode, *operands, epsilon=2.0**-7, feature_index=feature))


@maker("scan")
def _scan(g: Generator) -> Instruction | list[Instruction] | None:
    """Slices of one array and one carried value, which stays small."""
    x = g.pick(lambda shape: shape.rank > 0 and 0 < shape.element_count <= 500 and shape.dtype in (F32, S32, BF16, S64, U8))
    if x is None:
        return None
    dimension = g.random.randrange(x.shape.rank)
    part = array(x.shape.dtype, *(size for d, size in enumerate(x.shape.dims) if d != dimension))
    opcodes = g.random.choices(("add", "maximum", "subtract"), k=2)
    body = g.computation([part, part], lambda p: g.make("tuple", *(g.make(opcode, p[0], p[1]) for opcode in opcodes)))
    made = g.make("scan", x, g.like(part), dimensions=(dimension,), is_reverse=g.random.random() < 0.4, num_carries=1,
                  called=[body])
    return taken_apart(g, made)
