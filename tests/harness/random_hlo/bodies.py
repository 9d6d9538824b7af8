"""Computations of several operators where one is usual: what folds, maps and scatters call, shared ones, several results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nxcc.ir.dtypes import BF16, F16, F32, PRED, S32, U8, DType
from nxcc.ir.hlo.attributes import Window, WindowDimension
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.shapes import array, tuple_of

from harness.random_hlo.elementwise import ordered
from harness.random_hlo.generator import Generator, has_dims, maker
from harness.random_hlo.reduction import canonical, taken_apart

Two = Callable[[Generator, Instruction, Instruction], Instruction]


def _number(g: Generator, value: float, dtype: DType) -> Instruction:
    return g.scope.builder.constant(np.asarray(value).astype(dtype.numpy))


def _of_larger_size(g: Generator, a: Instruction, b: Instruction) -> Instruction:
    """The one whose magnitude is larger; of equals the first."""
    size = [g.make("abs", x) if x.shape.dtype.is_signed or x.shape.dtype.is_float else x for x in (a, b)]
    return g.make("select", g.make("compare", *size, direction=g.random.choice(("GE", "GT"))), a, b)


def _in_another_type(g: Generator, a: Instruction, b: Instruction) -> Instruction:
    """An extreme by way of f32, or of s32."""
    wide = F32 if a.shape.dtype.is_float else S32
    made = g.make(g.random.choice(("maximum", "minimum")), *(g.make("convert", x, shape=array(wide)) for x in (a, b)))
    return g.make("convert", made, shape=a.shape)


def _logarithm_of_sum(g: Generator, a: Instruction, b: Instruction) -> Instruction:
    """log(exp(a) + exp(b)), as a cumulative one has it."""
    apart = g.make("negate", g.make("abs", g.make("subtract", a, b)))
    return g.make("add", g.make("maximum", a, b), g.make("log-plus-one", g.make("exponential", apart)))


def _called(g: Generator, a: Instruction, b: Instruction) -> Instruction:
    inner = g.combiner(a.shape.dtype, ("add", "maximum", "minimum"))
    return g.make("call", a, b, shape=a.shape, called=[inner])


def _step(g: Generator, a: Instruction, b: Instruction) -> Instruction:
    """Three times the one and the other: the order decides."""
    return g.make("add", g.make("multiply", a, _number(g, 3, a.shape.dtype)), b)


def _capped(g: Generator, a: Instruction, b: Instruction) -> Instruction:
    return g.make("minimum", g.make("add", a, b), _number(g, 5, a.shape.dtype))


_ALWAYS: tuple[Two, ...] = (
    _of_larger_size, _in_another_type, _called,
    lambda g, a, b: g.make("subtract", a, g.make("negate", b)) if a.shape.dtype.is_signed or a.shape.dtype.is_float
    else g.make("add", b, a),
    lambda g, a, b: g.make("clamp", _number(g, 0, a.shape.dtype), g.make("maximum", a, b), _number(g, 3, a.shape.dtype)),
)
_OF_INTEGERS: tuple[Two, ...] = (
    _step, _capped, lambda g, a, b: a, lambda g, a, b: b, lambda g, a, b: _number(g, 7, a.shape.dtype),
    lambda g, a, b: g.make("not", g.make("xor", a, b)),
    lambda g, a, b: g.make("add", g.make("add", a, b), _number(g, 1, a.shape.dtype)),
)
_OF_FLOATS: tuple[Two, ...] = (_logarithm_of_sum,)
_OF_TRUTH: tuple[Two, ...] = (
    lambda g, a, b: g.make("not", g.make("xor", a, b)), lambda g, a, b: g.make("compare", a, b, direction="NE"),
    lambda g, a, b: g.make("or", b, a), lambda g, a, b: a, lambda g, a, b: b)


def _folding(g: Generator, dtype: DType) -> Computation:
    """A combiner of several operators, or of none."""
    rows = _OF_TRUTH if dtype is PRED else (*_ALWAYS, *(_OF_FLOATS if dtype.is_float else _OF_INTEGERS))
    return g.computation([array(dtype)] * 2, lambda p: g.random.choice(rows)(g, *p))


def _foldable(g: Generator, most: int) -> Instruction | None:
    return g.pick(lambda shape: has_dims(shape) and ordered(shape) and 0 < shape.element_count <= most
                  and shape.dtype.bits in (8, 16, 32) and (not shape.dtype.is_float or shape.dtype in (F32, BF16, F16)))


@maker("fold")
def _fold(g: Generator) -> Instruction | list[Instruction] | None:
    """A reduction, a window, or a scatter of single elements with such a combiner."""
    x = _foldable(g, 3000)
    if x is None:
        return None
    x = canonical(g, x)
    body, start = _folding(g, x.shape.dtype), g.like(array(x.shape.dtype))
    kind = g.random.choice(("reduce", "reduce", "window", "scatter"))
    if kind == "reduce":
        dimensions = tuple(sorted(g.random.sample(range(x.shape.rank), g.random.randint(1, x.shape.rank))))
        return g.make("reduce", x, start, dimensions=dimensions, called=[body])
    if kind == "window":
        draw = g.random.choice
        rows = tuple(WindowDimension(draw((1, 1, 2, min(3, size))), draw((1, 2)), draw((0, 0, 1)), draw((0, 0, 1)), 1, 1)
                     for size in x.shape.dims)
        if any(row.size > size + row.padding_low + row.padding_high for row, size in zip(rows, x.shape.dims, strict=True)):
            return None
        return g.make("reduce-window", x, start, window=Window(rows), called=[body])
    size, rank = g.random.randint(1, 20), x.shape.rank
    places = np.stack([g.numbers.integers(0, n, size) for n in x.shape.dims], axis=1).astype(np.int32)
    updates = g.like(array(x.shape.dtype, size))
    return g.make("scatter", x, g.note(g.scope.builder.constant(places)), updates, update_window_dims=(),
                  inserted_window_dims=tuple(range(rank)), scatter_dims_to_operand_dims=tuple(range(rank)), index_vector_dim=1,
                  called=[body])


@maker("scatter-of-pairs")
def _pairs(g: Generator) -> Instruction | list[Instruction] | None:
    """Rows of two arrays at the same places: the second follows the first, or each goes its own way."""
    x = _foldable(g, 2000)
    if x is None:
        return None
    x = canonical(g, x)
    other = canonical(g, g.like(x.shape.with_dtype(g.random.choice((S32, F32, x.shape.dtype, U8)))))
    count, rest = g.random.randint(1, 12), x.shape.dims[1:]
    places = g.numbers.integers(-1 if g.random.random() < 0.3 else 0, x.shape.dims[0] + 1, (count, 1)).astype(np.int32)
    dtypes = [x.shape.dtype, other.shape.dtype]
    follows = g.random.random() < 0.5

    def body(p: list[Instruction]) -> Instruction:
        if not follows:
            return g.make("tuple", g.make(g.random.choice(("add", "maximum")), p[0], p[2]), p[g.random.choice((1, 3))])
        better = g.make("compare", p[2], p[0], direction=g.random.choice(("GT", "LT")))
        return g.make("tuple", *(g.make("select", better, p[n + 2], p[n]) for n in range(2)))

    if PRED in dtypes:
        return None
    combiner = g.computation([array(dtype) for dtype in dtypes] * 2, body)
    updates = [canonical(g, g.like(array(dtype, count, *rest))) for dtype in dtypes]
    made = g.make("scatter", x, other, g.note(g.scope.builder.constant(places)), *updates,
                  update_window_dims=tuple(range(1, x.shape.rank)), inserted_window_dims=(0,),
                  scatter_dims_to_operand_dims=(0,), index_vector_dim=1, called=[combiner])
    return taken_apart(g, made)


@maker("map-of-several")
def _map(g: Generator) -> Instruction | None:
    """A map of one to three arrays, of different types."""
    x = g.pick(has_dims)
    if x is None:
        return None
    others = [g.like(x.shape.with_dtype(g.random.choice((F32, S32, BF16, PRED, x.shape.dtype))))
              for _ in range(g.random.randint(0, 2))]
    scalars = [array(o.shape.dtype) for o in (x, *others)]
    wanted = g.random.choice(scalars)
    body = g.computation(scalars, lambda p: g.scalar_steps(g.random.randint(1, 4), wanted))
    return g.make("map", x, *others, dimensions=tuple(range(x.shape.rank)), called=[body])


@maker("shared-calls")
def _shared(g: Generator) -> list[Instruction] | None:
    """One computation that is called from two or three places, one of them with another's result."""
    x = g.pick()
    if x is None or g.depth >= g.bounds.depth:
        return None
    shape = x.shape.without_layout()
    body = g.computation([shape, shape], lambda p: g.steps(g.random.randint(1, 3), shape))
    found = [x]
    for _ in range(g.random.randint(2, 3)):
        found.append(g.make("call", found[-1], g.like(shape), shape=body.root.shape, called=[body]))
    return found[1:]


@maker("fusion-of-several")
def _several(g: Generator) -> list[Instruction] | None:
    """A fusion with two results of different shapes."""
    x = g.pick()
    if x is None or g.depth >= g.bounds.depth:
        return None
    y = g.pick() or x
    shapes = [v.shape.without_layout() for v in (x, y)]

    def root(p: list[Instruction]) -> Instruction:
        first = g.steps(g.random.randint(1, 3), shapes[0])
        return g.make("tuple", first, g.steps(g.random.randint(0, 2), shapes[1]))

    body = g.computation(shapes, root)
    body.is_fusion = True
    made = g.make("fusion", x, y, shape=tuple_of(*shapes), called=[body], kind=g.random.choice(("kLoop", "kInput", "kOutput",
                                                                                                "kCustom")))
    return [g.scope.builder.get_tuple_element(made, n) for n in range(2)]
