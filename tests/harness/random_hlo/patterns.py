"""Patterns of several operators that front ends write again and again, with their variants."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nxcc.ir.dtypes import BF16, F16, F32, PRED, S32, U32, U64, DType
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.literals import literal_of
from nxcc.ir.shapes import Shape, array, tuple_of

from harness.random_hlo.generator import Generator, maker

FLOATS = (F32, F32, F32, BF16, F16)


def _full(g: Generator, value: float, shape: Shape) -> Instruction:
    """A number repeated."""
    number = g.scope.builder.constant(np.asarray(value).astype(shape.dtype.numpy))
    return g.scope.builder.broadcast(number, shape.dims)


def _reduced(g: Generator, opcode: str, x: Instruction, dimensions: Sequence[int]) -> Instruction:
    start = {"add": 0.0, "maximum": -math.inf, "minimum": math.inf}[opcode]
    first = g.scope.builder.constant(np.asarray(start).astype(x.shape.dtype.numpy))
    return g.make("reduce", x, first, dimensions=tuple(dimensions), called=[g.combiner(x.shape.dtype, (opcode,))])


def _spread(g: Generator, x: Instruction, like: Instruction, gone: Sequence[int]) -> Instruction:
    """A value without some dimensions, repeated along them."""
    return g.scope.builder.broadcast(x, like.shape.dims, [d for d in range(like.shape.rank) if d not in gone])


def _floats(g: Generator, rank: int, most: int = 20_000) -> Instruction:
    """A float value of at least this rank, as wide as it comes."""
    found = g.pick(lambda shape: shape.dtype in FLOATS and shape.rank >= rank and 0 < shape.element_count <= most)
    if found is not None and g.random.random() < 0.7:
        return found
    sizes = [g.random.choice((1, 2, 3, 5, 8, 31, 128, 130)) for _ in range(rank)]
    while math.prod(sizes) > most:
        sizes[sizes.index(max(sizes))] //= 2
    return g.like(array(g.random.choice(FLOATS), *sizes))


def _axes(g: Generator, x: Instruction) -> list[int]:
    """What is normalised over: the last dimension mostly, else any, or two."""
    rank = x.shape.rank
    some = sorted(g.random.sample(range(rank), min(2, rank)))
    return g.random.choice(([rank - 1], [rank - 1], [g.random.randrange(rank)], some))


def _wide(g: Generator, x: Instruction) -> Instruction:
    """In f32, where statistics often are."""
    return g.make("convert", x, shape=x.shape.with_dtype(F32)) if x.shape.dtype is not F32 and g.random.random() < 0.7 else x


def _back(g: Generator, x: Instruction, dtype: DType) -> Instruction:
    return x if x.shape.dtype is dtype else g.make("convert", x, shape=x.shape.with_dtype(dtype))


@maker("pattern-softmax")
def _softmax(g: Generator) -> Instruction | None:
    """Softmax, log-softmax, their masked and stabilised forms."""
    given = _floats(g, 1)
    x, axes = _wide(g, given), _axes(g, given)
    if g.random.random() < 0.4:
        x = g.make("select", g.like(x.shape.with_dtype(PRED)), x, _full(g, g.random.choice((-6e4, -1e4)), x.shape))
    if g.random.random() < 0.8:
        x = g.make("subtract", x, _spread(g, _reduced(g, "maximum", x, axes), x, axes))
    powers = g.make("exponential", x)
    total = _reduced(g, "add", powers, axes)
    if g.random.random() < 0.3:
        made = g.make("subtract", x, _spread(g, g.make("log", total), x, axes))
    elif g.random.random() < 0.3:
        made = g.make("multiply", powers, _spread(g, g.make("divide", _full(g, 1.0, total.shape), total), x, axes))
    else:
        made = g.make("divide", powers, _spread(g, total, x, axes))
    return _back(g, made, given.shape.dtype)


@maker("pattern-norm")
def _norm(g: Generator) -> Instruction | list[Instruction] | None:
    """Layer, RMS, group and batch norms: two ways to the variance, with or without scale and bias."""
    given = _floats(g, 1)
    x, axes = _wide(g, given), _axes(g, given)
    count = math.prod(x.shape.dims[d] for d in axes)
    kind = g.random.choice(("centred", "moments", "rms"))

    def mean(value: Instruction) -> Instruction:
        total = _reduced(g, "add", value, axes)
        if g.random.random() < 0.5:
            return g.make("divide", total, _full(g, count, total.shape))
        return g.make("multiply", total, _full(g, 1 / count, total.shape))

    middle = None if kind == "rms" else mean(x)
    centred = x if middle is None else g.make("subtract", x, _spread(g, middle, x, axes))
    if kind == "moments":
        assert middle is not None
        variance = g.make("subtract", mean(g.make("multiply", x, x)), g.make("multiply", middle, middle))
        variance = g.make("maximum", variance, _full(g, 0.0, variance.shape))
    else:
        variance = mean(g.make("multiply", centred, centred))
    moved = g.make("add", variance, _full(g, g.random.choice((1e-5, 1e-2)), variance.shape))
    if g.random.random() < 0.5:
        made = g.make("multiply", centred, _spread(g, g.make("rsqrt", moved), x, axes))
    else:
        made = g.make("divide", centred, _spread(g, g.make("sqrt", moved), x, axes))
    if g.random.random() < 0.6:
        row = array(x.shape.dtype, *(x.shape.dims[d] for d in axes))
        made = g.make("multiply", made, g.scope.builder.broadcast(g.like(row), x.shape.dims, axes))
        made = g.make("add", made, g.scope.builder.broadcast(g.like(row), x.shape.dims, axes))
    made = _back(g, made, given.shape.dtype)
    return [made, middle] if middle is not None and g.random.random() < 0.3 else made


@maker("pattern-attention")
def _attention(g: Generator) -> Instruction | None:
    """Products, a scale, a mask, a softmax, a product; heads before or after positions."""
    batch, heads = g.random.choice((1, 2)), g.random.choice((1, 2, 3))
    rows, columns = g.random.choice((1, 3, 8, 33, 130)), g.random.choice((1, 4, 17, 128, 129))
    depth, dtype = g.random.choice((1, 4, 16, 33)), g.random.choice(FLOATS)
    late = g.random.random() < 0.5  # [batch, positions, heads, depth]

    def given(positions: int) -> Instruction:
        dims = (batch, positions, heads, depth) if late else (batch, heads, positions, depth)
        return g.like(array(dtype, *dims))

    head, depth_at = (2, 3) if late else (1, 3)
    place = 1 if late else 2
    q, k, v = given(rows), given(columns), given(columns)
    scores = g.scope.builder.dot(q, k, ([depth_at], [depth_at]), ([0, head], [0, head]),
                                 dtype=F32 if g.random.random() < 0.4 else None)
    scores = g.make("multiply", scores, _full(g, 1 / math.sqrt(depth), scores.shape))
    kind = g.random.choice(("none", "causal", "given", "added", "lengths"))
    if kind == "causal":
        places = scores.shape.with_dtype(S32)
        below = g.make("compare", g.make("iota", shape=places, iota_dimension=2),
                       g.make("iota", shape=places, iota_dimension=3), direction="GE")
        scores = g.make("select", below, scores, _full(g, -1e4, scores.shape))
    elif kind == "given":
        mask = g.scope.builder.broadcast(g.like(array(PRED, batch, columns)), scores.shape.dims, (0, 3))
        scores = g.make("select", mask, scores, _full(g, -1e4, scores.shape))
    elif kind == "added":
        bias = g.like(array(scores.shape.dtype, heads, rows, columns))
        scores = g.make("add", scores, g.scope.builder.broadcast(bias, scores.shape.dims, (1, 2, 3)))
    elif kind == "lengths":
        lengths = g.scope.builder.broadcast(g.like(array(S32, batch)), scores.shape.dims, (0,))
        below = g.make("compare", g.make("iota", shape=lengths.shape, iota_dimension=3), lengths, direction="LT")
        scores = g.make("select", below, scores, _full(g, -1e4, scores.shape))
    powers = g.make("exponential", g.make("subtract", scores, _spread(g, _reduced(g, "maximum", scores, [3]), scores, [3])))
    weights = g.make("divide", powers, _spread(g, _reduced(g, "add", powers, [3]), powers, [3]))
    weights = _back(g, weights, dtype)
    made = g.scope.builder.dot(weights, v, ([3], [place]), ([0, 1], [0, head]))
    if g.random.random() < 0.5:
        made = g.scope.builder.transpose(made, (0, 2, 1, 3))
        made = g.scope.builder.reshape(made, (batch, rows, heads * depth))
    return made


@maker("pattern-rotary")
def _rotary(g: Generator) -> Instruction | None:
    """Positions' angles, halves or pairs turned by them."""
    x = _floats(g, 2, 8000)
    size = x.shape.dims[-1]
    if size % 2 or size == 0:
        return None
    half, last = size // 2, x.shape.rank - 1
    cosine, sine = (g.like(array(x.shape.dtype, x.shape.dims[-2], half)) for _ in range(2))
    dims = [*x.shape.dims[:-1], half]
    cosine, sine = (g.scope.builder.broadcast(v, dims, (last - 1, last)) for v in (cosine, sine))
    pairs = g.random.random() < 0.5
    starts, limits = [0] * x.shape.rank, list(x.shape.dims)

    def part(second: bool) -> Instruction:
        if pairs:
            return g.scope.builder.slice(x, [*starts[:-1], int(second)], limits, [1] * last + [2])
        return g.scope.builder.slice(x, [*starts[:-1], half if second else 0], [*limits[:-1], size if second else half])

    one, two = part(False), part(True)
    left = g.make("subtract", g.make("multiply", one, cosine), g.make("multiply", two, sine))
    right = g.make("add", g.make("multiply", one, sine), g.make("multiply", two, cosine))
    if not pairs:
        return g.make("concatenate", left, right, dimensions=(last,))
    left, right = (g.scope.builder.reshape(v, [*dims, 1]) for v in (left, right))
    return g.scope.builder.reshape(g.make("concatenate", left, right, dimensions=(last + 1,)), x.shape.dims)


@maker("pattern-routing")
def _routing(g: Generator) -> Instruction | None:
    """Experts: the best of each token, one-hot, places by a cumulative sum, dispatch by a product."""
    tokens, experts, depth = g.random.choice((3, 16, 33)), g.random.choice((2, 5, 8)), g.random.choice((1, 8, 20))
    scores, x = g.like(array(F32, tokens, experts)), g.like(array(F32, tokens, depth))
    count = g.random.randint(1, experts)
    found = g.make("topk", _finite(g, scores), k=count, largest=True)
    chosen = g.scope.builder.get_tuple_element(found, 1)
    cube = array(S32, tokens, count, experts)
    hot = g.make("compare", g.scope.builder.broadcast(chosen, cube.dims, (0, 1)), g.make("iota", shape=cube, iota_dimension=2),
                 direction="EQ")
    weights = g.make("convert", hot, shape=cube.with_dtype(F32))
    if g.random.random() < 0.5:
        gates = g.scope.builder.get_tuple_element(found, 0)
        weights = g.make("multiply", weights, g.scope.builder.broadcast(gates, cube.dims, (0, 1)))
    dispatch = _reduced(g, "add", weights, [1])
    return g.scope.builder.dot(dispatch, x, ([0], [0]))


def _finite(g: Generator, x: Instruction) -> Instruction:
    """With a number for each NaN, whose sign nobody promises."""
    return g.make("select", g.make("compare", x, x, direction="EQ"), x, _full(g, 0.25, x.shape))


@maker("pattern-dropout")
def _dropout(g: Generator) -> Instruction | None:
    """Bits, a uniform number of them, a mask, a scale."""
    x = _floats(g, 1, 6000)
    state = g.scope.builder.literal(literal_of(g.value(array(U64, 2))))
    bits = x.shape.without_layout().with_dtype(U32)
    made = g.make("rng-bit-generator", state, shape=tuple_of(state.shape, bits), algorithm="rng_three_fry")
    words = g.scope.builder.get_tuple_element(made, 1)
    fraction = g.make("or", g.make("shift-right-logical", words, _full(g, 9, bits)), _full(g, 0x3F800000, bits))
    number = g.make("bitcast-convert", fraction, shape=bits.with_dtype(F32))
    uniform = g.make("subtract", number, _full(g, 1.0, number.shape))
    keep = g.make("compare", uniform, _full(g, 0.75, uniform.shape), direction="LT")
    return g.make("select", keep, g.make("multiply", x, _full(g, 1 / 0.75, x.shape)), _full(g, 0.0, x.shape))


@maker("pattern-one-hot")
def _one_hot(g: Generator) -> Instruction | None:
    """A table read by a product with a one-hot matrix, or a cross entropy picked by one."""
    rows, classes, depth = g.random.choice((1, 5, 33)), g.random.choice((3, 10, 129)), g.random.choice((1, 7, 64))
    labels = g.like(array(S32, rows))
    square = array(S32, rows, classes)
    labels = g.scope.builder.broadcast(labels, square.dims, (0,))
    hot = g.make("compare", labels, g.make("iota", shape=square, iota_dimension=1), direction="EQ")
    dtype = g.random.choice(FLOATS)
    hot = g.make("convert", hot, shape=square.with_dtype(dtype))
    if g.random.random() < 0.5:
        return g.scope.builder.dot(hot, g.like(array(dtype, classes, depth)), ([1], [0]))
    return _reduced(g, "add", g.make("multiply", hot, g.like(hot.shape)), [1])


@maker("pattern-linear")
def _linear(g: Generator) -> Instruction | None:
    """A product, a bias, a function, another product."""
    x = _floats(g, 1, 6000)
    width, last = g.random.choice((1, 5, 64, 129, 200)), x.shape.rank - 1
    y = g.scope.builder.dot(x, g.like(array(x.shape.dtype, x.shape.dims[-1], width)), ([last], [0]))
    y = g.make("add", y, g.scope.builder.broadcast(g.like(array(x.shape.dtype, width)), y.shape.dims, (last,)))
    function = g.random.choice(("tanh", "relu", "logistic", "silu", "gelu", "exponential", "none"))
    if function == "relu":
        y = g.make("maximum", y, _full(g, 0.0, y.shape))
    elif function == "silu":
        y = g.make("multiply", y, g.make("logistic", y))
    elif function == "gelu":
        inner = g.make("erf", g.make("multiply", y, _full(g, math.sqrt(0.5), y.shape)))
        y = g.make("multiply", g.make("multiply", y, _full(g, 0.5, y.shape)), g.make("add", inner, _full(g, 1.0, y.shape)))
    elif function != "none":
        y = g.make(function, y)
    if g.random.random() < 0.5:
        return y
    return g.scope.builder.dot(y, g.like(array(y.shape.dtype, width, g.random.choice((1, 3, 33)))), ([last], [0]))
