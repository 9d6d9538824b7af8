"""Calls, choices, loops and random bits."""

from __future__ import annotations

import numpy as np

from nxcc.ir.dtypes import BF16, F32, PRED, S32, S64, U8, U16, U32, U64, DType
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.literals import literal_of, splat
from nxcc.ir.shapes import Shape, array, tuple_of

from harness.random_hlo.generator import Generator, maker


@maker("call", "fusion")
def _call(g: Generator) -> Instruction | None:
    x = g.pick()
    if x is None or g.depth >= g.bounds.depth:
        return None
    y = g.like(x.shape)
    count = g.random.randint(1, 3)
    body = g.computation([x.shape, y.shape], lambda p: g.steps(count, x.shape))
    if g.random.random() < 0.5:
        return g.make("call", x, y, shape=body.root.shape, called=[body])
    body.is_fusion = True
    return g.make("fusion", x, y, shape=body.root.shape, called=[body], kind="kLoop")


@maker("conditional")
def _conditional(g: Generator) -> Instruction | list[Instruction] | None:
    """Branches with operands of their own, now and then tuples; one result or two."""
    x = g.pick()
    if x is None or g.depth >= g.bounds.depth:
        return None
    of_truth = g.random.random() < 0.5
    count = 2 if of_truth else g.random.randint(1, 6)
    shapes = [x.shape.without_layout()]
    if g.random.random() < 0.4:
        shapes.append(g.like(g.shape(rank=g.random.randint(0, 2))).shape.without_layout())
    operands = []
    for _ in range(count):
        other = g.pick() or x
        operands.append(g.make("tuple", other, x) if g.random.random() < 0.3 else other if g.random.random() < 0.5 else x)

    def body(p: list[Instruction]) -> Instruction:
        if p[0].shape.is_tuple:
            for n in range(len(p[0].shape.elements)):
                g.note(g.scope.builder.get_tuple_element(p[0], n))
        found = [g.steps(g.random.randint(0, 2), shape) for shape in shapes]
        return found[0] if len(found) == 1 else g.make("tuple", *found)

    branches = [g.computation([operand.shape.without_layout()], body) for operand in operands]
    chooser = g.like(array(PRED if of_truth else S32))
    shape = shapes[0] if len(shapes) == 1 else tuple_of(*shapes)
    made = g.make("conditional", chooser, *operands, shape=shape, called=branches)
    return made if len(shapes) == 1 else [g.scope.builder.get_tuple_element(made, n) for n in range(len(shapes))]


@maker("loop-over-rows")
def _rows(g: Generator) -> Instruction | list[Instruction] | None:
    """A loop that reads a row of one array a turn, carries a value, and writes a row of another: what scans become."""
    x = g.pick(lambda shape: shape.rank > 0 and 0 < shape.dims[0] <= 40 and shape.element_count <= 4000)
    if x is None or g.depth >= g.bounds.depth:
        return None
    builder, count = g.scope.builder, x.shape.dims[0]
    row = array(x.shape.dtype, *x.shape.dims[1:])
    counter = g.random.choice((S32, S32, S32, S64, U32))
    backwards = g.random.random() < 0.3
    turns = count if g.random.random() < 0.7 else g.random.randint(0, count + 2)
    rows = x.shape.without_layout()
    state = tuple_of(array(counter), rows, row, rows)

    def number(value: int) -> Instruction:
        return g.scope.builder.constant(np.asarray(value, counter.numpy))

    def body(p: list[Instruction]) -> Instruction:
        step, data, carried, written = (g.scope.builder.get_tuple_element(p[0], n) for n in range(4))
        place = g.make("subtract", number(count - 1), step) if backwards else step
        if g.random.random() < 0.3:
            zero = number(0)
            place = g.make("select", g.make("compare", place, zero, direction="LT"), g.make("add", place, number(count)), place)
        starts = [place, *(number(0) for _ in row.dims)]
        read = g.make("dynamic-slice", data, *starts, dynamic_slice_sizes=(1, *row.dims))
        g.note(carried)
        g.note(g.scope.builder.reshape(read, row.dims))
        following = g.steps(g.random.randint(1, 3), row)
        result = g.scope.builder.reshape(g.steps(g.random.randint(0, 1), row), (1, *row.dims))
        written = g.make("dynamic-update-slice", written, result, *starts)
        return g.make("tuple", g.make("add", step, number(1)), data, following, written)

    def condition(p: list[Instruction]) -> Instruction:
        return g.make("compare", g.scope.builder.get_tuple_element(p[0], 0), number(turns), direction="LT")

    zero = builder.literal(splat(counter, (), 0))
    start = g.make("tuple", zero, x, g.like(row), g.like(rows))
    made = g.make("while", start, shape=state, called=[g.computation([state], body), g.computation([state], condition)])
    return [builder.get_tuple_element(made, n) for n in (0, 2, 3)]


@maker("while")
def _while(g: Generator) -> Instruction | list[Instruction] | None:
    """A loop whose count is known, is data, or follows from the data that it works on; several carried values."""
    x = g.pick(lambda shape: shape.element_count <= 3000)
    if x is None or g.depth >= g.bounds.depth:
        return None
    counter = g.random.choice((S32, S32, S64, U32))
    carried = [x, *([g.like(g.shape(rank=1))] if g.random.random() < 0.5 else [])]
    state = tuple_of(array(counter), *(v.shape.without_layout() for v in carried))
    trips, kind = g.random.randint(0, 4), g.random.choice(("known", "known", "data", "value"))

    def element(value: Instruction, place: int) -> Instruction:
        return g.scope.builder.get_tuple_element(value, place)

    def number(value: int) -> Instruction:
        return g.scope.builder.constant(np.asarray(value, counter.numpy))

    def condition(p: list[Instruction]) -> Instruction:
        below = g.make("compare", element(p[0], 0), number(trips), direction="LT")
        if kind != "value" or p[0].shape.elements[1].rank or not p[0].shape.elements[1].dtype.is_float:
            return below
        value = element(p[0], 1)
        return g.make("and", below, g.make("compare", value, value, direction="EQ"))

    def body(p: list[Instruction]) -> Instruction:
        values = [g.note(element(p[0], n)) for n in range(len(carried) + 1)]
        following = g.make("add", values[0], number(1))
        return g.make("tuple", following, *(g.steps(g.random.randint(0, 2), v.shape) for v in values[1:]))

    first = g.make("clamp", number(0), g.like(array(counter)), number(4)) if kind == "data" else \
        g.scope.builder.literal(splat(counter, (), 0))
    start = g.make("tuple", first, *carried)
    made = g.make("while", start, shape=state, called=[g.computation([state], body), g.computation([state], condition)])
    return [element(made, n) for n in range(len(carried) + 1)]


@maker("loop-to-a-bound")
def _bounded(g: Generator) -> Instruction | list[Instruction] | None:
    """A counter from one value to another; the state is a tuple in a tuple, of any types."""
    x = g.pick(lambda shape: shape.element_count <= 2000)
    if x is None or g.depth >= g.bounds.depth:
        return None
    counter = g.random.choice((S32, S32, S64, U8, U32))
    most, step = g.scope.builder.constant(np.asarray(5, counter.numpy)), g.random.choice((1, 1, 2))
    none = g.scope.builder.literal(splat(counter, (), 0))
    first, last = (g.make("clamp", none, g.like(array(counter)), most) for _ in range(2))
    carried = [x, *(g.like(g.shape(rank=g.random.randint(0, 2))) for _ in range(g.random.randint(0, 2)))]
    inner = tuple_of(*(v.shape.without_layout() for v in carried))
    state = tuple_of(array(counter), inner, array(counter))

    def body(p: list[Instruction]) -> Instruction:
        take = g.scope.builder.get_tuple_element
        place, nested, bound = (take(p[0], n) for n in range(3))
        values = [g.note(take(nested, n)) for n in range(len(carried))]
        following = g.make("add", place, g.scope.builder.constant(np.asarray(step, counter.numpy)))
        results = [g.steps(g.random.randint(0, 2), v.shape) for v in values]
        if len(results) > 1 and results[0].shape == results[1].shape:
            results[:2] = results[1::-1]
        return g.make("tuple", following, g.make("tuple", *results), bound)

    def condition(p: list[Instruction]) -> Instruction:
        take = g.scope.builder.get_tuple_element
        return g.make("compare", take(p[0], 0), take(p[0], 2), direction=g.random.choice(("LT", "LT", "LE")))

    start = g.make("tuple", first, g.make("tuple", *carried), last)
    made = g.make("while", start, shape=state, called=[g.computation([state], body), g.computation([state], condition)])
    nested = g.scope.builder.get_tuple_element(made, 1)
    return [g.scope.builder.get_tuple_element(made, 0),
            *(g.scope.builder.get_tuple_element(nested, n) for n in range(len(carried)))]


@maker("loop-until")
def _until(g: Generator) -> Instruction | list[Instruction] | None:
    """A loop that ends when what it works on says so, or after so many turns: an early end, a search, an iteration."""
    x = g.pick(lambda shape: 0 < shape.element_count <= 2000 and shape.dtype in (F32, S32, BF16, S64))
    if x is None or g.depth >= g.bounds.depth:
        return None
    dtype, dims = x.shape.dtype, x.shape.dims
    state = tuple_of(array(S32), x.shape.without_layout())
    factor, bound = g.random.choice((2, 3)), g.random.choice((1, 10, 100))
    least = g.scope.builder.literal(splat(dtype, (), 0))

    def number(value: int, kind: DType) -> Instruction:
        return g.scope.builder.constant(np.asarray(value).astype(kind.numpy))

    def condition(p: list[Instruction]) -> Instruction:
        turns, value = (g.scope.builder.get_tuple_element(p[0], n) for n in range(2))
        largest = value
        if dims:
            start = g.scope.builder.literal(splat(dtype, (), 0))
            largest = g.make("reduce", value, start, dimensions=tuple(range(len(dims))),
                             called=[g.combiner(dtype, ("maximum",))])
        above = g.make("compare", largest, number(bound, dtype), direction="GT")
        return g.make("and", above, g.make("compare", turns, number(6, S32), direction="LT"))

    def body(p: list[Instruction]) -> Instruction:
        turns, value = (g.scope.builder.get_tuple_element(p[0], n) for n in range(2))
        divisor = g.scope.builder.broadcast(number(factor, dtype), dims)
        smaller = g.make("divide", value, divisor)
        return g.make("tuple", g.make("add", turns, number(1, S32)), smaller)

    first = g.make("select", g.make("compare", x, x, direction="EQ"), x, g.scope.builder.broadcast(least, dims))
    start = g.make("tuple", number(0, S32), first)
    made = g.make("while", start, shape=state, called=[g.computation([state], body), g.computation([state], condition)])
    return [g.scope.builder.get_tuple_element(made, n) for n in range(2)]


@maker("rng-bit-generator")
def _bits(g: Generator) -> Instruction | list[Instruction] | None:
    algorithm = g.random.choice(("rng_three_fry", "rng_philox", "rng_default"))
    words = 2 if algorithm == "rng_three_fry" else g.random.choice((2, 3))
    state = g.scope.builder.literal(literal_of(g.value(array(U64, words))))
    bits = g.shape(g.random.choice((U32, U32, U8, U16, U64)), g.random.randint(1, 2))
    made = g.make("rng-bit-generator", state, shape=tuple_of(state.shape, bits), algorithm=algorithm)
    return [g.scope.builder.get_tuple_element(made, n) for n in range(2)]


@maker("set-dimension-size")
def _dynamic(g: Generator) -> Instruction | None:
    """A part of a dimension counts: what is summed over it, and its size, are static again."""
    x = g.pick(lambda shape: shape.rank > 0 and min(shape.dims) > 0 and shape.dtype in (F32, S32))
    if x is None:
        return None
    dimension = g.random.randrange(x.shape.rank)
    size = g.scope.builder.constant(np.asarray(g.random.randint(0, x.shape.dims[dimension]), np.int32))
    part = g.make("set-dimension-size", x, size, dimensions=(dimension,))
    told = g.make("get-dimension-size", part, dimensions=(dimension,))
    zero = g.scope.builder.literal(splat(x.shape.dtype, (), 0))
    summed = g.make("reduce", part, zero, dimensions=(dimension,), called=[g.combiner(x.shape.dtype, ("add",))])
    scalar: Shape = summed.shape.with_dtype(S32)
    other = g.make("convert", summed, shape=scalar)
    return g.make("add", other, g.scope.builder.broadcast(told, scalar.dims))
