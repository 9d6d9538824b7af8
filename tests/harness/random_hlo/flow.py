"""Calls, choices, loops and random bits."""

from __future__ import annotations

import numpy as np

from nxcc.ir.dtypes import F32, PRED, S32, S64, U8, U16, U32, U64
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
def _conditional(g: Generator) -> Instruction | None:
    x = g.pick()
    if x is None or g.depth >= g.bounds.depth:
        return None
    shape = x.shape
    of_truth = g.random.random() < 0.5
    count = 2 if of_truth else g.random.randint(1, 4)
    branches = [g.computation([shape], lambda p: g.steps(g.random.randint(1, 2), shape)) for _ in range(count)]
    chooser = g.like(array(PRED if of_truth else S32))
    return g.make("conditional", chooser, *[x] * count, shape=shape, called=branches)


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
