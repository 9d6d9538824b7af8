"""Parts of networks: images through convolutions and windows, rows through products and norms, recurrences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nxcc.ir.dtypes import BF16, F16, F32, S32
from nxcc.ir.hlo.attributes import ConvolutionDimensions, Window, WindowDimension
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.operator import ShapeError
from nxcc.ir.literals import splat
from nxcc.ir.shapes import array, tuple_of

from harness.random_hlo.generator import Generator, maker

DTYPES = (F32, F32, BF16, F16)


def _more_weights(g: Generator) -> None:
    """Networks have more parameters than other patterns."""
    if g.depth == 0:
        g.scope.parameters_left += 6


def _number(g: Generator, value: float, like: Instruction) -> Instruction:
    one = g.scope.builder.constant(np.asarray(value).astype(like.shape.dtype.numpy))
    return g.scope.builder.broadcast(one, like.shape.dims)


def _bent(g: Generator, x: Instruction) -> Instruction:
    """An activation, or none."""
    kind = g.random.choice(("relu", "relu", "relu6", "leaky", "silu", "tanh", "none", "none"))
    if kind == "relu":
        return g.make("maximum", x, _number(g, 0, x))
    if kind == "relu6":
        return g.make("clamp", _number(g, 0, x), x, _number(g, 6, x))
    if kind == "leaky":
        positive = g.make("compare", x, _number(g, 0, x), direction="GE")
        return g.make("select", positive, x, g.make("multiply", x, _number(g, 0.125, x)))
    if kind == "silu":
        return g.make("multiply", x, g.make("logistic", x))
    return g.make("tanh", x) if kind == "tanh" else x


def _sum(g: Generator, x: Instruction, dimensions: Sequence[int]) -> Instruction:
    zero = g.scope.builder.constant(np.asarray(0).astype(x.shape.dtype.numpy))
    return g.make("reduce", x, zero, dimensions=tuple(dimensions), called=[g.combiner(x.shape.dtype, ("add",))])


# ---- images ----------------------------------------------------------------------------------------------------------


@maker("network-image")
def _image(g: Generator) -> Instruction | list[Instruction] | None:
    """Some layers over images whose channels are the last dimension or the second; now and then a skip, a middle result."""
    last = g.random.random() < 0.6
    _more_weights(g)
    images, channels = g.random.choice((1, 1, 2, 5)), g.random.choice((1, 3, 16, 40, 130))
    size = g.random.choice((4, 7, 12, 17, 34))
    dtype = g.random.choice(DTYPES)
    dims = (images, size, g.random.choice((size, size + 1)), channels)
    x = g.like(array(dtype, *(dims if last else (dims[0], dims[3], dims[1], dims[2]))))
    layers = (_convolved, _convolved, _convolved, _scaled, _pooled, _skipped, _padded, _enlarged, _halved)
    middle, skip = [], x
    for _ in range(g.random.randint(2, 6)):
        try:
            following = g.random.choice(layers)(g, x, skip, last)
        except ShapeError:
            break
        if min(following.shape.dims) == 0:
            break
        if g.random.random() < 0.3:
            skip = following
        if g.random.random() < 0.1:
            middle.append(following)
        x = following
    if g.random.random() < 0.4:
        x = _sum(g, x, (1, 2) if last else (2, 3))
        if g.random.random() < 0.5:
            x = g.scope.builder.dot(x, g.like(array(x.shape.dtype, x.shape.dims[1], g.random.choice((1, 10, 33)))), ([1], [0]))
    return [x, *middle]


def _convolved(g: Generator, x: Instruction, skip: Instruction, last: bool) -> Instruction:
    channel = 3 if last else 1
    features = x.shape.dims[channel]
    groups = g.random.choice((1, 1, 1, features if features <= 40 else 1, 4 if features % 4 == 0 else 1))
    outputs = groups * g.random.choice((1, 1, 2)) if groups > 1 else g.random.choice((1, 4, 16, 33, 130))
    height, width = g.random.choice(((1, 1), (3, 3), (3, 3), (1, 3), (5, 2)))
    rows = [WindowDimension(n, g.random.choice((1, 1, 1, 2)), (n - 1) // 2, n // 2, g.random.choice((1, 1, 1, 2)),
                            g.random.choice((1,) * 7 + (2,))) for n in (height, width)]
    places = (0, 3, (1, 2)) if last else (0, 1, (2, 3))
    numbers = ConvolutionDimensions(*places, 2, 3, (0, 1), *places)
    kernel = g.like(array(x.shape.dtype, height, width, features // groups, outputs))
    made = g.make("convolution", x, kernel, window=Window(tuple(rows)), dim_labels=numbers, feature_group_count=groups)
    if g.random.random() < 0.6:
        bias = g.like(array(x.shape.dtype, outputs))
        made = g.make("add", made, g.scope.builder.broadcast(bias, made.shape.dims, (channel,)))
    return _bent(g, made)


def _scaled(g: Generator, x: Instruction, skip: Instruction, last: bool) -> Instruction:
    """A norm with known statistics: a factor and a sum for each channel."""
    channel = 3 if last else 1
    row = array(x.shape.dtype, x.shape.dims[channel])
    made = g.make("multiply", x, g.scope.builder.broadcast(g.like(row), x.shape.dims, (channel,)))
    return _bent(g, g.make("add", made, g.scope.builder.broadcast(g.like(row), x.shape.dims, (channel,))))


def _pooled(g: Generator, x: Instruction, skip: Instruction, last: bool) -> Instruction:
    opcode, wide, step = g.random.choice(("maximum", "add")), g.random.choice((2, 3)), g.random.choice((1, 2, 2))
    low, high = g.random.choice(((0, 0), (1, 1), (0, 1))) if wide == 3 else (0, 0)
    rows = [WindowDimension(1)] * 4
    for d in ((1, 2) if last else (2, 3)):
        rows[d] = WindowDimension(wide, step, low, high)
    start = g.scope.builder.constant(np.asarray(-math.inf if opcode == "maximum" else 0).astype(x.shape.dtype.numpy))
    made = g.make("reduce-window", x, start, window=Window(tuple(rows)), called=[g.combiner(x.shape.dtype, (opcode,))])
    return g.make("multiply", made, _number(g, 1 / wide**2, made)) if opcode == "add" else made


def _skipped(g: Generator, x: Instruction, skip: Instruction, last: bool) -> Instruction:
    """What came before, added or beside it."""
    if skip.shape == x.shape and g.random.random() < 0.6:
        return _bent(g, g.make("add", x, skip))
    channel = 3 if last else 1
    alike = all(a == b for d, (a, b) in enumerate(zip(x.shape.dims, skip.shape.dims, strict=True)) if d != channel)
    return g.make("concatenate", x, skip, dimensions=(channel,)) if alike else _bent(g, x)


def _padded(g: Generator, x: Instruction, skip: Instruction, last: bool) -> Instruction:
    """A gate of the whole image's mean for each channel."""
    gone = (1, 2) if last else (2, 3)
    gate = g.make("logistic", _sum(g, x, gone))
    return g.make("multiply", x, g.scope.builder.broadcast(gate, x.shape.dims, [d for d in range(4) if d not in gone]))


def _enlarged(g: Generator, x: Instruction, skip: Instruction, last: bool) -> Instruction:
    """Each place twice in both directions."""
    first = 1 if last else 2
    height, width = x.shape.dims[first:first + 2]
    before, behind = x.shape.dims[:first], x.shape.dims[first + 2:]
    if x.shape.element_count > 20_000:
        return _bent(g, x)
    wide = (*before, height, 2, width, 2, *behind)
    repeated = g.scope.builder.broadcast(x, wide, [d for d in range(6) if d not in (first + 1, first + 3)])
    return g.scope.builder.reshape(repeated, (*before, 2 * height, 2 * width, *behind))


def _halved(g: Generator, x: Instruction, skip: Instruction, last: bool) -> Instruction:
    """One half of the channels opens the other."""
    channel = 3 if last else 1
    half = x.shape.dims[channel] // 2
    if not half or x.shape.dims[channel] % 2:
        return _bent(g, x)
    starts = [[n * half if d == channel else 0 for d in range(4)] for n in range(2)]
    ends = [[(n + 1) * half if d == channel else size for d, size in enumerate(x.shape.dims)] for n in range(2)]
    data, gate = (g.scope.builder.slice(x, low, high) for low, high in zip(starts, ends, strict=True))
    return g.make("multiply", data, g.make("logistic", gate))


# ---- rows ------------------------------------------------------------------------------------------------------------


@maker("network-rows")
def _rows(g: Generator) -> Instruction | list[Instruction] | None:
    """Products, norms, activations and skips one after another over the same rows."""
    _more_weights(g)
    batch = g.random.choice(((), (), (2,), (3, 2)))
    count, width, dtype = g.random.choice((1, 5, 64, 129, 200)), g.random.choice((8, 33, 64, 128, 200)), g.random.choice(DTYPES)
    x = g.like(array(dtype, *batch, count, width))
    skip, middle = x, []
    for _ in range(g.random.randint(2, 6)):
        x = g.random.choice((_product, _product, _normed, _bent, _softened, _gated))(g, x)
        if skip.shape == x.shape and g.random.random() < 0.2:
            x = g.make("add", x, skip)
        if g.random.random() < 0.3:
            skip = x
        if g.random.random() < 0.1:
            middle.append(x)
    return [x, *middle]


def _over_columns(g: Generator, column: Instruction, x: Instruction) -> Instruction:
    return g.scope.builder.broadcast(column, x.shape.dims, range(x.shape.rank - 1))


def _product(g: Generator, x: Instruction) -> Instruction:
    wide, last, dtype = g.random.choice((x.shape.dims[-1], 1, 16, 130, 260)), x.shape.rank - 1, x.shape.dtype
    x = g.scope.builder.dot(x, g.like(array(dtype, x.shape.dims[-1], wide)), ([last], [0]))
    if g.random.random() < 0.5:
        return x
    return g.make("add", x, g.scope.builder.broadcast(g.like(array(dtype, wide)), x.shape.dims, (last,)))


def _normed(g: Generator, x: Instruction) -> Instruction:
    square = _sum(g, g.make("multiply", x, x), (x.shape.rank - 1,))
    mean = g.make("add", g.make("multiply", square, _number(g, 1 / x.shape.dims[-1], square)), _number(g, 1e-2, square))
    return g.make("multiply", x, _over_columns(g, g.make("rsqrt", mean), x))


def _softened(g: Generator, x: Instruction) -> Instruction:
    powers = g.make("exponential", g.make("tanh", x))
    return g.make("divide", powers, _over_columns(g, _sum(g, powers, (x.shape.rank - 1,)), x))


def _gated(g: Generator, x: Instruction) -> Instruction:
    if x.shape.dims[-1] % 2:
        return x
    half, start = x.shape.dims[-1] // 2, [0] * (x.shape.rank - 1)
    one = g.scope.builder.slice(x, [*start, 0], [*x.shape.dims[:-1], half])
    return g.make("multiply", one, g.make("logistic", g.scope.builder.slice(x, [*start, half], x.shape.dims)))


# ---- recurrences -----------------------------------------------------------------------------------------------------


@maker("network-recurrence")
def _recurrence(g: Generator) -> Instruction | list[Instruction] | None:
    """h' = a h + b turn by turn in a loop, a and b from rows or alike in every turn; each turn's row is kept, or the last."""
    _more_weights(g)
    turns, width = g.random.choice((1, 2, 5, 16, 40)), g.random.choice(((8,), (3, 5), (33,), (2, 130)))
    dtype = g.random.choice((F32, F32, BF16))
    row, builder = array(dtype, *width), g.scope.builder
    decay, more, start = g.like(array(dtype, turns, *width)), g.like(array(dtype, turns, *width)), g.like(row)
    still, through, backwards = g.random.random() < 0.3, g.random.random() < 0.3, g.random.random() < 0.3
    state = tuple_of(array(S32), row, array(dtype, turns, *width), array(dtype, turns, *width), array(dtype, turns, *width))

    def body(p: list[Instruction]) -> Instruction:
        step, carried, a, b, kept = (g.scope.builder.get_tuple_element(p[0], n) for n in range(5))
        one = g.scope.builder.constant(np.asarray(1, np.int32))
        last = g.scope.builder.constant(np.asarray(turns - 1, np.int32))
        zero = g.scope.builder.constant(np.asarray(0, np.int32))
        place = g.make("subtract", last, step) if backwards else step
        starts = [place, *[zero] * len(width)]

        def at(value: Instruction) -> Instruction:
            part = g.make("dynamic-slice", value, *starts, dynamic_slice_sizes=(1, *width))
            return g.scope.builder.reshape(part, width)

        factor = _number(g, 0.5, carried) if still else g.make("logistic", at(a)) if through else at(a)
        following = g.make("add", g.make("multiply", factor, carried), at(b))
        if g.random.random() < 0.15:
            following = g.make("tanh", following)
        written = g.make("dynamic-update-slice", kept, g.scope.builder.reshape(following, (1, *width)), *starts)
        return g.make("tuple", g.make("add", step, one), following, a, b, written)

    def condition(p: list[Instruction]) -> Instruction:
        most = g.scope.builder.constant(np.asarray(turns, np.int32))
        return g.make("compare", g.scope.builder.get_tuple_element(p[0], 0), most, direction="LT")

    empty = builder.splat(dtype, (turns, *width), np.asarray(0).astype(dtype.numpy))
    first = g.make("tuple", builder.literal(splat(S32, (), 0)), start, decay, more, empty)
    made = g.make("while", first, shape=state, called=[g.computation([state], body), g.computation([state], condition)])
    found = [builder.get_tuple_element(made, n) for n in (1, 4)]
    return found if g.random.random() < 0.7 else found[g.random.randrange(2)]
