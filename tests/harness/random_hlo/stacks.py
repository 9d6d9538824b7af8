"""Stacks of layers whose sizes cross what the machine works on at a time: 128 partitions, 512 columns, a bank of PSUM."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nxcc.ir.dtypes import BF16, F32, S32, DType
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.shapes import array, tuple_of

from harness.random_hlo.generator import Generator, maker

ROWS = (1, 3, 33, 127, 128, 129, 150, 257, 384)
DEPTHS = (8, 48, 64, 128, 130, 192, 520)
WIDTHS = (5, 96, 128, 256, 511, 513, 640)
MOST = 120_000
"""Elements of one value."""


class Layers:
    """Layers over rows [.., rows, depth] of one dtype. wide: statistics are computed in f32."""

    def __init__(self, g: Generator, dtype: DType) -> None:
        self.g, self.dtype, self.wide = g, dtype, g.random.random() < 0.6

    def full(self, value: float, like: Instruction) -> Instruction:
        number = self.g.scope.builder.constant(np.asarray(value).astype(like.shape.dtype.numpy))
        return self.g.scope.builder.broadcast(number, like.shape.dims)

    def over_rows(self, x: Instruction, like: Instruction) -> Instruction:
        return self.g.scope.builder.broadcast(x, like.shape.dims, range(like.shape.rank - 1))

    def over_columns(self, x: Instruction, like: Instruction) -> Instruction:
        return self.g.scope.builder.broadcast(x, like.shape.dims, [like.shape.rank - 1])

    def summed(self, opcode: str, x: Instruction) -> Instruction:
        start = self.g.scope.builder.constant(np.asarray(0 if opcode == "add" else -math.inf).astype(x.shape.dtype.numpy))
        combiner = self.g.combiner(x.shape.dtype, (opcode,))
        return self.g.make("reduce", x, start, dimensions=(x.shape.rank - 1,), called=[combiner])

    def cast(self, x: Instruction, dtype: DType) -> Instruction:
        return x if x.shape.dtype is dtype else self.g.make("convert", x, shape=x.shape.with_dtype(dtype))

    def weights(self, *dims: int) -> Instruction:
        """A parameter of its own, so that products of deep sums stay small."""
        given = self.g.parameter(array(self.dtype, *dims))
        return self.g.make("multiply", given, self.full(1 / math.sqrt(dims[0]), given)) if len(dims) > 1 else given

    def norm(self, given: Instruction) -> Instruction:
        g = self.g
        x = self.cast(given, F32) if self.wide else given
        size = x.shape.dims[-1]
        if g.random.random() < 0.7:
            mean = self.summed("add", x)
            x = g.make("subtract", x, self.over_rows(g.make("multiply", mean, self.full(1 / size, mean)), x))
        square = self.summed("add", g.make("multiply", x, x))
        variance = g.make("add", g.make("divide", square, self.full(size, square)), self.full(1e-3, square))
        x = g.make("multiply", x, self.over_rows(g.make("rsqrt", variance), x))
        x = self.cast(x, self.dtype)
        x = g.make("multiply", x, self.over_columns(self.weights(size), x))
        return g.make("add", x, self.over_columns(self.weights(size), x)) if g.random.random() < 0.6 else x

    def dense(self, x: Instruction, width: int) -> Instruction:
        last = x.shape.rank - 1
        y = self.g.scope.builder.dot(x, self.weights(x.shape.dims[-1], width), ([last], [0]))
        return self.g.make("add", y, self.over_columns(self.weights(width), y)) if self.g.random.random() < 0.6 else y

    def bent(self, x: Instruction) -> Instruction:
        g, kind = self.g, self.g.random.choice(("tanh", "relu", "silu", "gelu", "gated"))
        if kind == "tanh":
            return g.make("tanh", x)
        if kind == "relu":
            return g.make("maximum", x, self.full(0, x))
        if kind == "gelu":
            inner = g.make("erf", g.make("multiply", x, self.full(math.sqrt(0.5), x)))
            return g.make("multiply", g.make("multiply", x, self.full(0.5, x)), g.make("add", inner, self.full(1, x)))
        made = g.make("multiply", x, g.make("logistic", x))
        return g.make("multiply", made, self.full(0.5, made)) if kind == "gated" else made

    def softmax(self, given: Instruction) -> Instruction:
        g = self.g
        x = self.cast(given, F32) if self.wide else given
        powers = g.make("exponential", g.make("subtract", x, self.over_rows(self.summed("maximum", x), x)))
        return self.cast(g.make("divide", powers, self.over_rows(self.summed("add", powers), powers)), self.dtype)

    def attention(self, x: Instruction, heads: int) -> Instruction:
        """x [batch, rows, depth]; positions and heads change places, or the product takes them as they are."""
        g, build = self.g, self.g.scope.builder
        batch, rows, depth = x.shape.dims
        whole = self.dense(x, 3 * depth)
        q, k, v = (build.reshape(build.slice(whole, (0, 0, n * depth), (batch, rows, (n + 1) * depth)),
                                 (batch, rows, heads, depth // heads)) for n in range(3))
        if g.random.random() < 0.5:
            q, k, v = (build.transpose(one, (0, 2, 1, 3)) for one in (q, k, v))
            scores, place, head = build.dot(q, k, ([3], [3]), ([0, 1], [0, 1])), 2, 1
        else:
            scores, place, head = build.dot(q, k, ([3], [3]), ([0, 2], [0, 2])), 1, 2
        scores = g.make("multiply", scores, self.full(1 / math.sqrt(depth // heads), scores))
        if g.random.random() < 0.5:
            counts = scores.shape.with_dtype(S32)
            row, column = (g.make("iota", shape=counts, iota_dimension=d) for d in (2, 3))
            below = g.make("compare", row, column, direction="GE")
            scores = g.make("select", below, scores, self.full(g.random.choice((-1e4, -math.inf)), scores))
        made = build.dot(self.softmax(scores), v, ([3], [place]), ([0, 1], [0, head]))
        return self.dense(build.reshape(build.transpose(made, (0, 2, 1, 3)), (batch, rows, depth)), depth)


def layers_of(g: Generator) -> Layers | None:
    """Layers for the outermost computation, which alone can have more parameters."""
    if g.depth:
        return None
    g.scope.parameters_left += 16
    return Layers(g, g.random.choice((F32, F32, BF16)))


def rows_of(g: Generator, layers: Layers, depths: Sequence[int]) -> Instruction:
    batch, rows, depth = g.random.choice((1, 1, 2)), g.random.choice(ROWS), g.random.choice(depths)
    while batch * rows * depth > MOST:
        rows = max(1, rows // 2)
    return g.parameter(array(layers.dtype, batch, rows, depth))


@maker("network-transformer")
def _transformer(g: Generator) -> Instruction | list[Instruction] | None:
    """Attention and a pair of products, each behind or before a norm, each added to what came in; one layer or two alike."""
    layers = layers_of(g)
    if layers is None:
        return None
    x = rows_of(g, layers, (32, 64, 128, 192))
    heads, before = g.random.choice((1, 2, 4)), g.random.random() < 0.5
    width = g.random.choice(WIDTHS)
    middle = []
    for _ in range(g.random.choice((1, 1, 2))):
        for part in range(2):
            y = layers.norm(x) if before else x
            if part:
                y = layers.dense(layers.bent(layers.dense(y, width)), x.shape.dims[-1])
            else:
                y = layers.attention(y, heads)
            x = g.make("add", x, y)
            x = x if before else layers.norm(x)
        middle.append(x)
    return middle if g.random.random() < 0.2 else x


@maker("network-layers")
def _rows(g: Generator) -> Instruction | None:
    """Products, norms, softmaxes and skips in any order over rows of one depth, some of which are wide."""
    layers = layers_of(g)
    if layers is None:
        return None
    skip = x = rows_of(g, layers, DEPTHS)
    for _ in range(g.random.randint(2, 5)):
        kind = g.random.choice(("dense", "dense", "norm", "softmax", "bent", "skip"))
        if kind == "dense":
            fitting = [width for width in WIDTHS if math.prod(x.shape.dims[:-1]) * width <= MOST]
            x = layers.dense(x, g.random.choice((x.shape.dims[-1], *fitting)))
        elif kind == "skip":
            x, skip = (g.make("add", x, skip) if x.shape == skip.shape else x), x
        else:
            x = {"norm": layers.norm, "softmax": layers.softmax, "bent": layers.bent}[kind](x)
    return x


@maker("network-loop")
def _loop(g: Generator) -> list[Instruction] | None:
    """A counted loop over steps of a recurrent layer: a slice comes in, a row goes out, the state passes through a product."""
    layers = layers_of(g)
    if layers is None:
        return None
    turns, rows, depth = g.random.randint(1, 6), g.random.choice((1, 3, 33, 130)), g.random.choice((8, 40, 128))
    build, dtype = g.scope.builder, layers.dtype
    inputs, first = g.parameter(array(dtype, turns, rows, depth)), g.parameter(array(dtype, rows, depth))
    matrix = layers.weights(depth, depth)
    state = tuple_of(array(S32), first.shape, inputs.shape, inputs.shape, matrix.shape)
    outputs = build.broadcast(build.constant(np.asarray(0).astype(dtype.numpy)), inputs.shape.dims)
    start = g.make("tuple", build.constant(np.asarray(0, np.int32)), first, inputs, outputs, matrix)
    backwards = g.random.random() < 0.3

    def condition(p: list[Instruction]) -> Instruction:
        build = g.scope.builder
        return g.make("compare", build.get_tuple_element(p[0], 0), build.constant(np.asarray(turns, np.int32)), direction="LT")

    def body(p: list[Instruction]) -> Instruction:
        build = g.scope.builder
        turn, h, read, written, w = (build.get_tuple_element(p[0], n) for n in range(5))
        place = g.make("subtract", build.constant(np.asarray(turns - 1, np.int32)), turn) if backwards else turn
        zero = build.constant(np.asarray(0, np.int32))
        step = g.make("dynamic-slice", read, place, zero, zero, dynamic_slice_sizes=(1, rows, depth))
        h = layers.bent(g.make("add", build.dot(h, w, ([1], [0])), build.reshape(step, (rows, depth))))
        if g.random.random() < 0.5:
            h = layers.softmax(h)
        out = g.make("dynamic-update-slice", written, build.reshape(h, (1, rows, depth)), place, zero, zero)
        return g.make("tuple", g.make("add", turn, build.constant(np.asarray(1, np.int32))), h, read, out, w)

    made = g.make("while", start, shape=state, called=[g.computation([state], body), g.computation([state], condition)])
    return [g.scope.builder.get_tuple_element(made, 1), g.scope.builder.get_tuple_element(made, 3)]
