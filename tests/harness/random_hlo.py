"""Random modules that are valid by construction, and what all judges say of them.

A module grows from typed values: an operator is drawn, its operands are taken from the values that are there, or made to
fit. Elementwise operators come from their declarations alone (arity, and the element types that the shape rule takes); an
operator with structure has a maker here, which chooses attributes; the rest is in LEFT_OUT with its reason.

python -m harness.random_hlo [--count N] [--seed S]     runs any number (with tests/ on the path).
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from nxcc.compiler.options import CompileOptions
from nxcc.compiler.reduce import Budget, Candidate, reduce_candidate
from nxcc.compiler.trial import DIFFERS, REFUSED, Trial, Verdict
from nxcc.ir.dtypes import BF16, F16, F32, PRED, S8, S16, S32, U8, U16, U32, U64, DType
from nxcc.ir.hlo.attributes import ConvolutionDimensions, PaddingDimension, Window, WindowDimension
from nxcc.ir.hlo.builder import Builder, infer_shape
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.operator import ShapeError, find, operators
from nxcc.ir.hlo.oracle import evaluate
from nxcc.ir.hlo.text.writer import write_text
from nxcc.ir.hlo.verifier import verify
from nxcc.ir.literals import literal_of, splat
from nxcc.ir.shapes import Shape, array, tuple_of
from nxcc.passes.pipeline import PASS_NAMES

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Bounds:
    """How large a module may grow. sizes: of dimensions, odd ones and ones around the machine's limits among them."""

    instructions: int = 10
    parameters: int = 4
    rank: int = 4
    elements: int = 20_000
    depth: int = 2
    sizes: tuple[int, ...] = (1, 1, 2, 3, 4, 5, 7, 8, 13, 16, 31, 64, 127, 128, 130, 513)
    dtypes: tuple[DType, ...] = (F32, F32, F32, F32, F32, BF16, BF16, F16, S32, S32, U32, S8, U8, S16, U16, PRED)


LEFT_OUT: dict[str, str] = {
    "parameter": "made for values that nothing else gives", "constant": "as parameter", "tuple": "made for results and loops",
    "get-tuple-element": "made with what yields tuples",
    **dict.fromkeys(("complex", "real", "imag", "fft", "cholesky", "triangular-solve"),
                    "complex numbers and factorisations run on the host, by the oracle's own code"),
    **dict.fromkeys(("all-reduce-start", "all-reduce-done", "all-gather", "all-gather-start", "all-gather-done",
                     "reduce-scatter", "all-to-all", "collective-broadcast", "collective-permute", "collective-permute-start",
                     "collective-permute-done", "ragged-all-to-all", "all-reduce", "partition-id", "replica-id"),
                    "one core has nobody to talk to"),
    **dict.fromkeys(("send", "send-done", "recv", "recv-done", "infeed", "outfeed"), "there is no host program to talk to"),
    **dict.fromkeys(("async-start", "async-update", "async-done", "copy-start", "copy-done", "after-all", "add-dependency",
                     "domain"), "order and annotations, which passes of XLA write; the conformance sample has them"),
    **dict.fromkeys(("dynamic-reshape", "get-dimension-size", "set-dimension-size"), "shapes are static here"),
    **dict.fromkeys(("rng", "rng-get-and-update-state"), "results are not defined bit by bit"),
    **dict.fromkeys(("stochastic-convert", "scaled-dot", "ragged-dot", "scan", "bitcast", "custom-call", "mulhi"),
                    "rare in what front ends write; the conformance sample has them"),
}
"""Operators that are not drawn, with the reason."""


class Generator:
    """Makes one module from a seed."""

    def __init__(self, seed: int, bounds: Bounds | None = None) -> None:
        self.random = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.bounds = bounds or Bounds()
        self.module = Module(f"random_{seed}")
        entry = self.module.add(Computation("main"), entry=True)
        self.scope = Scope(Builder(entry), self.bounds.parameters)
        self.depth = 0

    def candidate(self) -> Candidate:
        """The module with a value for each parameter; what nothing reads is its result."""
        self.parameter(self.shape())
        while len(self.scope.made) < self.bounds.instructions:
            self.step()
        entry = self.module.entry
        results = [i for i in self.scope.made if not i.users and (i.shape.is_array or i.opcode == "tuple")]
        results = results or [self.scope.values[-1]]
        entry.root = results[0] if len(results) == 1 else self.scope.builder.make("tuple", *results)
        self.module.computations = self.module.reachable()
        verify(self.module)
        return Candidate(self.module, tuple(self.value(p.shape) for p in entry.parameters))

    def step(self) -> None:
        """One operator more; a maker that finds nothing to work on gives None, and another is drawn."""
        made = None
        while made is None:
            opcode = self.random.choice(drawn_opcodes())
            maker = MAKERS.get(opcode)
            made = maker(self) if maker else self.elementwise(opcode)
        self.scope.made += made if isinstance(made, list) else [made]
        self.scope.values += [i for i in (made if isinstance(made, list) else [made]) if i.shape.is_array]

    # Types and values

    def shape(self, dtype: DType | None = None, rank: int | None = None) -> Shape:
        """A shape within the bounds."""
        count = self.random.randint(0, self.bounds.rank) if rank is None else rank
        dims: list[int] = []
        left = self.bounds.elements
        for _ in range(count):
            dims.append(self.random.choice([size for size in self.bounds.sizes if size <= left]))
            left //= dims[-1]
        self.random.shuffle(dims)
        return array(dtype or self.random.choice(self.bounds.dtypes), *dims)

    def value(self, shape: Shape) -> Array:
        """Values for a parameter: mostly tame ones; now and then the special ones of the type are among them."""
        dtype, dims = shape.dtype, shape.dims
        if dtype is PRED:
            return self.numbers.integers(0, 2, dims).astype(bool)
        wild = self.random.random() < 0.15
        if dtype.is_integer:
            info = np.iinfo(dtype.numpy)
            low, high = (info.min, info.max) if wild else (-9 if dtype.is_signed else 0, 9)
            return self.numbers.integers(low, high, dims, dtype=np.int64 if dtype is not U64 else np.uint64,
                                         endpoint=True).astype(dtype.numpy)
        values = np.asarray(self.numbers.normal(size=dims) * self.random.choice((0.5, 1, 1, 3, 30)))
        if wild and values.size:
            flat = values.reshape(-1)
            flat[self.numbers.integers(0, flat.size, 4)] = (np.nan, np.inf, -np.inf, -0.0)
        return values.astype(dtype.numpy)

    def pick(self, accept: Callable[[Shape], bool] = lambda shape: True) -> Instruction | None:
        """A value that is there, later ones more often."""
        found = [i for i in self.scope.values if accept(i.shape)]
        return found[-1 - min(int(self.random.expovariate(0.6)), len(found) - 1)] if found else None

    def like(self, shape: Shape) -> Instruction:
        """A value of a shape: one that is there, a parameter, another dtype of one, a constant, a number repeated."""
        shape = shape.without_layout()
        same = self.pick(lambda other: other.without_layout() == shape)
        if same is not None and self.random.random() < 0.7:
            return same
        if self.scope.parameters_left and self.random.random() < 0.6:
            return self.parameter(shape)
        other = self.pick(lambda found: found.dims == shape.dims and found.dtype is not shape.dtype)
        if other is not None and self.random.random() < 0.5:
            return self.note(self.scope.builder.make("convert", other, shape=shape))
        if shape.element_count <= 256:
            return self.note(self.scope.builder.constant(self.value(shape)))
        one = self.scope.builder.constant(self.value(array(shape.dtype)))
        return self.note(self.scope.builder.broadcast(one, shape.dims))

    def note(self, made: Instruction) -> Instruction:
        """Remember a value that was made on the way."""
        self.scope.values.append(made)
        return made

    def parameter(self, shape: Shape) -> Instruction:
        self.scope.parameters_left -= 1
        number = sum(i.opcode == "parameter" for i in self.scope.builder.computation.instructions)
        return self.note(self.scope.builder.parameter(number, shape))

    def make(self, opcode: str, *operands: Instruction, **options: Any) -> Instruction:
        return self.scope.builder.make(opcode, *operands, **options)

    def index(self, high: int) -> Instruction:
        """A scalar index, now and then outside of its range."""
        return self.scope.builder.constant(np.asarray(self.random.randint(-1, high + 1), np.int32))

    # Elementwise operators, from their declarations

    def elementwise(self, opcode: str) -> Instruction | None:
        legal = element_types(opcode)
        first = self.pick(lambda shape: shape.dtype in legal)
        if first is None:
            return None
        count = find(opcode).min_operands
        return self.make(opcode, first, *(self.like(first.shape) for _ in range(count - 1)))

    # Computations

    def computation(self, shapes: Sequence[Shape], body: Callable[[list[Instruction]], Instruction]) -> Computation:
        """A computation with these parameters; body makes instructions through this generator and gives the root."""
        outer, self.depth = self.scope, self.depth + 1
        inner = self.module.add(Computation(f"called_{len(self.module.computations)}"))
        builder = outer.builder.within(inner)
        self.scope = Scope(builder, 0)
        parameters = [builder.parameter(number, shape) for number, shape in enumerate(shapes)]
        self.scope.values += [p for p in parameters if p.shape.is_array]
        inner.root = body(parameters)
        self.scope, self.depth = outer, self.depth - 1
        return inner

    def combiner(self, dtype: DType, opcodes: Sequence[str] | None = None) -> Computation:
        """A computation of two scalars."""
        opcode = self.random.choice(opcodes or ("add", "maximum", "minimum", "multiply"))
        if dtype is PRED:
            opcode = self.random.choice(("and", "or", "xor"))
        return self.computation([array(dtype)] * 2, lambda p: self.make(opcode, *p))

    def steps(self, count: int, wanted: Shape) -> Instruction:
        """A few operators inside a computation, then a value of the wanted shape."""
        for _ in range(count):
            self.step()
        fitting = self.pick(lambda shape: shape.without_layout() == wanted.without_layout())
        return fitting if fitting is not None else self.like(wanted)


@dataclass
class Scope:
    """The values of one computation. made: what was drawn, for the count and the results."""

    builder: Builder
    parameters_left: int
    values: list[Instruction] = field(default_factory=list)
    made: list[Instruction] = field(default_factory=list)


@cache
def element_types(opcode: str) -> frozenset[DType]:
    """The dtypes of Bounds that an elementwise operator takes, as its shape rule says."""
    operator = find(opcode)
    found = set()
    for dtype in set(Bounds().dtypes):
        try:
            infer_shape(operator, [array(dtype, 2)] * operator.min_operands, {})
        except ShapeError:
            continue
        found.add(dtype)
    return frozenset(found)


def drawn_opcodes() -> tuple[str, ...]:
    """Opcodes to draw from, in a fixed order."""
    return tuple(name for name in operators() if name in MAKERS or _is_plain(name))


@cache
def _is_plain(name: str) -> bool:
    """Whether the declaration alone says how to make it."""
    operator = find(name)
    optional = all(not attribute.required for attribute in operator.attributes)
    return name not in LEFT_OUT and operator.elementwise and operator.shape is not None and optional


Maker = Callable[[Generator], "Instruction | list[Instruction] | None"]
MAKERS: dict[str, Maker] = {}


def maker(*names: str) -> Callable[[Maker], Maker]:
    """Register how an operator with structure is made."""
    def register(function: Maker) -> Maker:
        MAKERS.update(dict.fromkeys(names, function))
        return function
    return register


def _has_dims(shape: Shape) -> bool:
    return shape.rank > 0


def _is_float(shape: Shape) -> bool:
    return shape.dtype.is_float


# Elementwise operators whose operands or attributes have rules of their own


@maker("compare")
def _compare(g: Generator) -> Instruction | None:
    x = g.pick()
    return x and g.make("compare", x, g.like(x.shape), direction=g.random.choice(("EQ", "NE", "LT", "LE", "GT", "GE")))


@maker("select")
def _select(g: Generator) -> Instruction | None:
    x = g.pick()
    return x and g.make("select", g.like(x.shape.with_dtype(PRED)), x, g.like(x.shape))


@maker("clamp")
def _clamp(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: shape.dtype is not PRED)
    if x is None:
        return None
    bound = x.shape if g.random.random() < 0.5 else array(x.shape.dtype)
    return g.make("clamp", g.like(bound), x, g.like(bound))


@maker("convert")
def _convert(g: Generator) -> Instruction | None:
    x = g.pick()
    return x and g.make("convert", x, shape=x.shape.with_dtype(g.random.choice(g.bounds.dtypes)))


@maker("bitcast-convert")
def _bitcast_convert(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: shape.dtype is not PRED)
    if x is None:
        return None
    same = sorted({d for d in g.bounds.dtypes if d.bits == x.shape.dtype.bits and d is not PRED}, key=lambda d: d.number)
    return g.make("bitcast-convert", x, shape=x.shape.with_dtype(g.random.choice(same)))


@maker("reduce-precision")
def _reduce_precision(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: shape.dtype in (F32, BF16, F16))
    return x and g.make("reduce-precision", x, exponent_bits=g.random.randint(2, 8), mantissa_bits=g.random.randint(1, 23))


@maker("map")
def _map(g: Generator) -> Instruction | None:
    x = g.pick(_has_dims)
    if x is None:
        return None
    y = g.like(x.shape)
    body = g.combiner(x.shape.dtype)
    return g.make("map", x, y, dimensions=tuple(range(x.shape.rank)), called=[body])


# Movement


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
    dims: list[int] = []
    while count > 1 and len(dims) < g.bounds.rank - 1:
        divisors = [d for d in range(1, min(count, 1000) + 1) if count % d == 0]
        dims.append(g.random.choice(divisors))
        count //= dims[-1]
    return [*dims, count] if count > 1 or g.random.random() < 0.3 else dims


@maker("transpose")
def _transpose(g: Generator) -> Instruction | None:
    x = g.pick(_has_dims)
    return x and g.make("transpose", x, dimensions=tuple(g.random.sample(range(x.shape.rank), x.shape.rank)))


@maker("reverse")
def _reverse(g: Generator) -> Instruction | None:
    x = g.pick(_has_dims)
    return x and g.make("reverse", x, dimensions=tuple(d for d in range(x.shape.rank) if g.random.random() < 0.6))


@maker("slice")
def _slice(g: Generator) -> Instruction | None:
    x = g.pick(_has_dims)
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
    rows = [PaddingDimension(g.random.randint(-min(1, size - 1), 3), g.random.randint(0, 3), g.random.choice((0, 0, 1, 2)))
            for size in x.shape.dims]
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
    shape = g.shape(g.random.choice([d for d in g.bounds.dtypes if d is not PRED]), g.random.randint(1, 3))
    return g.make("iota", shape=shape, iota_dimension=g.random.randrange(shape.rank))


@maker("copy", "opt-barrier")
def _copy(g: Generator) -> Instruction | None:
    x = g.pick()
    return x and g.make(g.random.choice(("copy", "opt-barrier")), x)


# Contraction


@maker("dot")
def _dot(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: shape.rank > 0 and shape.dtype is not PRED)
    if x is None:
        return None
    order = g.random.sample(range(x.shape.rank), x.shape.rank)
    batches = g.random.randint(0, min(1, x.shape.rank - 1))
    contracted = order[batches:batches + g.random.randint(1, max(1, min(2, x.shape.rank - batches)))]
    kept = [x.shape.dims[d] for d in order[:batches]]
    summed = [x.shape.dims[d] for d in contracted]
    free = [g.random.choice((1, 3, 8, 17))] if g.random.random() < 0.8 else []
    y = g.like(array(x.shape.dtype, *kept, *summed, *free))
    right = list(range(batches)), list(range(batches, batches + len(contracted)))
    return g.scope.builder.dot(x, y, (contracted, right[1]), (order[:batches], right[0]))


@maker("convolution")
def _convolution(g: Generator) -> Instruction | None:
    spatial = g.random.randint(1, 2)
    dtype = g.random.choice((F32, F32, BF16, F16, S32))
    groups = g.random.choice((1, 1, 1, 2))
    features, outputs = groups * g.random.choice((1, 2, 5)), groups * g.random.choice((1, 3, 4))
    sizes = [g.random.choice((3, 5, 8, 12)) for _ in range(spatial)]
    kernel = [g.random.choice((1, 2, 3)) for _ in range(spatial)]
    image = g.like(array(dtype, g.random.choice((1, 2, 3)), *sizes, features))
    weights = g.like(array(dtype, *kernel, features // groups, outputs))
    window = Window(tuple(WindowDimension(size, g.random.choice((1, 1, 2)), g.random.randint(0, 2), g.random.randint(0, 2),
                                          g.random.choice((1, 1, 2)), g.random.choice((1, 1, 2)), g.random.random() < 0.1)
                          for size in kernel))
    inner = tuple(range(1, spatial + 1))
    numbers = ConvolutionDimensions(0, spatial + 1, inner, spatial, spatial + 1, tuple(range(spatial)), 0, spatial + 1, inner)
    try:
        return g.make("convolution", image, weights, window=window, dim_labels=numbers, feature_group_count=groups)
    except ShapeError:
        return None


# Reductions and order


@maker("reduce")
def _reduce(g: Generator) -> Instruction | None:
    x = g.pick(_has_dims)
    if x is None:
        return None
    dimensions = tuple(sorted(g.random.sample(range(x.shape.rank), g.random.randint(1, x.shape.rank))))
    combiner = g.combiner(x.shape.dtype, ("add", "add", "maximum", "minimum"))
    return g.make("reduce", x, g.like(array(x.shape.dtype)), dimensions=dimensions, called=[combiner])


def _window_over(g: Generator, shape: Shape, *, dilated: bool) -> Window:
    rows = []
    for size in shape.dims:
        width = g.random.choice([w for w in (1, 1, 2, 3) if w <= size])
        padding = g.random.randint(0, width - 1), g.random.randint(0, width - 1)
        dilation = (1, g.random.choice((1, 1, 2))) if dilated else (1, 1)
        rows.append(WindowDimension(width, g.random.choice((1, 1, 2)), *padding, *dilation))
    return Window(tuple(rows))


def _small(shape: Shape) -> bool:
    return shape.rank > 0 and 0 < shape.element_count <= 3000 and shape.dtype is not PRED


@maker("reduce-window")
def _reduce_window(g: Generator) -> Instruction | None:
    x = g.pick(_small)
    if x is None:
        return None
    combiner = g.combiner(x.shape.dtype, ("add", "maximum", "minimum"))
    window = _window_over(g, x.shape, dilated=True)
    return g.make("reduce-window", x, g.like(array(x.shape.dtype)), window=window, called=[combiner])


@maker("select-and-scatter")
def _select_and_scatter(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: _small(shape) and shape.dtype in (F32, BF16, S32))
    if x is None:
        return None
    window = _window_over(g, x.shape, dilated=False)
    dtype = x.shape.dtype
    add = g.combiner(dtype, ("add",))
    source = infer_shape(find("reduce-window"), [x.shape, array(dtype)], {"window": window}, [add])
    select = g.computation([array(dtype)] * 2, lambda p: g.make("compare", *p, direction="GE"))
    return g.make("select-and-scatter", x, g.like(source), g.like(array(dtype)), window=window, called=[select, add])


@maker("sort")
def _sort(g: Generator) -> Instruction | list[Instruction] | None:
    x = g.pick(lambda shape: shape.rank > 0 and shape.dtype is not PRED)
    if x is None:
        return None
    others = [g.like(x.shape.with_dtype(g.random.choice((F32, S32, BF16))))] if g.random.random() < 0.4 else []
    shapes = [array(o.shape.dtype) for o in (x, *others) for _ in range(2)]
    kind = "TOTALORDER" if x.shape.dtype.is_float else ""
    direction = g.random.choice(("LT", "GT"))
    comparator = g.computation(shapes, lambda p: g.make("compare", p[0], p[1], direction=direction, type=kind))
    dimension = (g.random.randrange(x.shape.rank),)
    made = g.make("sort", x, *others, dimensions=dimension, is_stable=True, called=[comparator])
    return _taken_apart(g, made)


def _taken_apart(g: Generator, made: Instruction) -> Instruction | list[Instruction]:
    """The elements of a tuple, or the array itself."""
    if made.shape.is_array:
        return made
    return [g.scope.builder.get_tuple_element(made, n) for n, element in enumerate(made.shape.elements) if element.is_array]


@maker("topk")
def _topk(g: Generator) -> Instruction | list[Instruction] | None:
    x = g.pick(lambda shape: shape.rank > 0 and shape.dtype in (F32, BF16, S32) and shape.dims[-1] > 0)
    if x is None:
        return None
    return _taken_apart(g, g.make("topk", x, k=g.random.randint(1, min(x.shape.dims[-1], 20)), largest=True))


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
    return _taken_apart(g, g.make(opcode, *operands, epsilon=0.01, feature_index=feature))


# Indexing


@maker("dynamic-slice")
def _dynamic_slice(g: Generator) -> Instruction | None:
    x = g.pick(_has_dims)
    if x is None:
        return None
    sizes = tuple(g.random.randint(1, size) if size else 0 for size in x.shape.dims)
    starts = [g.like(array(S32)) if g.random.random() < 0.4 else g.index(size) for size in x.shape.dims]
    return g.make("dynamic-slice", x, *starts, dynamic_slice_sizes=sizes)


@maker("dynamic-update-slice")
def _dynamic_update_slice(g: Generator) -> Instruction | None:
    x = g.pick(_has_dims)
    if x is None:
        return None
    update = array(x.shape.dtype, *(g.random.randint(1, size) if size else 0 for size in x.shape.dims))
    starts = [g.like(array(S32)) if g.random.random() < 0.4 else g.index(size) for size in x.shape.dims]
    return g.make("dynamic-update-slice", x, g.like(update), *starts)


def _rows(g: Generator, x: Instruction) -> tuple[Instruction, int]:
    """Indices [n, 1] for one dimension of a value, now and then outside of it."""
    dimension = g.random.randrange(x.shape.rank)
    count, size = g.random.choice((1, 3, 8, 20)), x.shape.dims[dimension]
    lowest = -1 if g.random.random() < 0.3 else 0
    values = [[g.random.randint(lowest, max(0, size - 1))] for _ in range(count)]
    return g.note(g.scope.builder.constant(np.array(values, np.int32))), dimension


@maker("gather")
def _gather(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: shape.rank > 0 and 0 < shape.element_count <= 3000)
    if x is None:
        return None
    indices, dimension = _rows(g, x)
    sizes = tuple(1 if d == dimension else size for d, size in enumerate(x.shape.dims))
    return g.make("gather", x, indices, offset_dims=tuple(range(1, x.shape.rank)), collapsed_slice_dims=(dimension,),
                  start_index_map=(dimension,), index_vector_dim=1, slice_sizes=sizes)


@maker("scatter")
def _scatter(g: Generator) -> Instruction | None:
    x = g.pick(lambda shape: shape.rank > 0 and 0 < shape.element_count <= 3000)
    if x is None:
        return None
    indices, dimension = _rows(g, x)
    rest = [size for d, size in enumerate(x.shape.dims) if d != dimension]
    updates = g.like(array(x.shape.dtype, indices.shape.dims[0], *rest))
    combiner = g.combiner(x.shape.dtype, ("add", "maximum", "minimum"))
    return g.make("scatter", x, indices, updates, update_window_dims=tuple(range(1, x.shape.rank)),
                  inserted_window_dims=(dimension,), scatter_dims_to_operand_dims=(dimension,), index_vector_dim=1,
                  called=[combiner])


# Control flow and random bits


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
    branches = [g.computation([shape], lambda p: g.steps(g.random.randint(1, 2), shape)) for _ in range(2)]
    chooser = g.like(array(PRED if g.random.random() < 0.5 else S32))
    return g.make("conditional", chooser, x, x, shape=shape, called=branches)


@maker("while")
def _while(g: Generator) -> Instruction | list[Instruction] | None:
    x = g.pick(lambda shape: shape.element_count <= 3000)
    if x is None or g.depth >= g.bounds.depth:
        return None
    state = tuple_of(array(S32), x.shape.without_layout())
    trips = g.random.randint(0, 4)

    def condition(p: list[Instruction]) -> Instruction:
        limit = g.scope.builder.constant(np.asarray(trips, np.int32))
        return g.make("compare", g.scope.builder.get_tuple_element(p[0], 0), limit, direction="LT")

    def body(p: list[Instruction]) -> Instruction:
        count, value = (g.note(g.scope.builder.get_tuple_element(p[0], n)) for n in range(2))
        following = g.make("add", count, g.scope.builder.constant(np.asarray(1, np.int32)))
        return g.make("tuple", following, g.steps(g.random.randint(1, 3), value.shape))

    start = g.make("tuple", g.scope.builder.literal(splat(S32, (), 0)), x)
    made = g.make("while", start, shape=state, called=[g.computation([state], body), g.computation([state], condition)])
    return g.scope.builder.get_tuple_element(made, 1)


@maker("rng-bit-generator")
def _bits(g: Generator) -> Instruction | None:
    algorithm = g.random.choice(("rng_three_fry", "rng_philox"))
    words = 2 if algorithm == "rng_three_fry" else 3
    state = g.scope.builder.literal(literal_of(g.value(array(U64, words))))
    bits = g.shape(U32, g.random.randint(1, 2))
    made = g.make("rng-bit-generator", state, shape=tuple_of(state.shape, bits), algorithm=algorithm)
    return g.scope.builder.get_tuple_element(made, 1)


# Judging

EXCUSED = "differs by special values in products"
"""A verdict that is no fault, see multiplies_special_values."""


@dataclass
class Tally:
    """What a number of modules came to. opcodes: how often each was generated; refused: codes of errors for the user."""

    modules: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    opcodes: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Fault:
    """A module that some judge finds wrong. trial: the judge's name."""

    seed: int
    trial: str
    verdict: Verdict
    candidate: Candidate


def trials_for(seed: int) -> dict[str, Trial]:
    """The judges of a module: both levels, one pass switched off in turn, and strict simulation of every fourth."""
    off = PASS_NAMES[seed % len(PASS_NAMES)]
    found = {"-O0": Trial(CompileOptions(optlevel="0")), "-O1": Trial(CompileOptions(optlevel="1")),
             f"-O1 --disable-pass {off}": Trial(CompileOptions(optlevel="1", disable_pass=(off,)))}
    if seed % 4 == 0:
        found["-O1 --strict"] = Trial(CompileOptions(optlevel="1"), strict=True, seed=seed)
    return found


def check(seed: int, tally: Tally, bounds: Bounds | None = None) -> Fault | None:
    """Generate a module and hear its judges; the first fault."""
    candidate = Generator(seed, bounds).candidate()
    tally.modules += 1
    tally.opcodes += Counter(i.opcode for i in candidate.module.instructions())
    for name, trial in trials_for(seed).items():
        verdict = trial.judge(candidate.module, candidate.values)
        tally.verdicts[verdict.kind] += 1
        if verdict.kind == REFUSED:
            tally.refused[verdict.key] += 1
        if verdict.kind == DIFFERS and name != "-O0" and multiplies_special_values(candidate):
            tally.verdicts[EXCUSED] += 1
        elif verdict.is_fault:
            return Fault(seed, name, verdict, candidate)
    return None


def multiplies_special_values(candidate: Candidate) -> bool:
    """Whether a dot or a convolution reads NaN or an infinity.

    From level 1 on operands are turned on the tensor engine, by a product with the identity, in which one such value makes
    its whole row NaN (hardware model: NaN/Inf and PE transposes). At level 0 nothing is turned there.
    """
    special: set[Instruction] = set()

    def note(instruction: Instruction, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.dtype.kind not in "biu":
            with np.errstate(invalid="ignore"):
                if not np.isfinite(value.astype(np.float64)).all():
                    special.add(instruction)

    evaluate(candidate.module, candidate.values, note)
    products = [i for i in candidate.module.instructions() if i.opcode in ("dot", "convolution")]
    return any(operand in special for product in products for operand in product.operands)


def reduced(fault: Fault, trials: int = 150, seconds: float = 60.0) -> Candidate:
    """The smallest module found with the same fault."""
    trial = trials_for(fault.seed)[fault.trial]

    def fails(module: Module, values: Sequence[Any]) -> bool:
        verdict = trial.judge(module, values)
        return (verdict.kind, verdict.key) == (fault.verdict.kind, fault.verdict.key)

    return reduce_candidate(fault.candidate, fails, Budget(trials, seconds))


def fault_text(fault: Fault, small: Candidate) -> str:
    """What to paste into a bug report or a test."""
    head = f"seed {fault.seed}, {fault.trial}: {fault.verdict.kind}: {fault.verdict.text}"
    lines = [head, write_text(small.module, short=True)]
    lines += [f"input{k}: {value!r}" for k, value in enumerate(small.values) if np.asarray(value).size <= 16]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("random_hlo", description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the first module")
    parser.add_argument("--instructions", type=int, default=Bounds().instructions)
    parser.add_argument("--reduce", type=int, default=150, help="trials to reduce each fault with; 0: do not")
    options = parser.parse_args(words)
    tally, faults = Tally(), Counter[str]()
    for seed in range(options.seed, options.seed + options.count):
        fault = check(seed, tally, Bounds(instructions=options.instructions))
        if fault is None:
            continue
        faults[fault.verdict.key] += 1
        first = faults[fault.verdict.key] == 1 or fault.verdict.key == "differs"
        small = reduced(fault, options.reduce) if options.reduce and first else fault.candidate
        sys.stdout.write((fault_text(fault, small) if first else f"seed {seed}, {fault.trial}: {fault.verdict.key}") + "\n\n")
        sys.stdout.flush()
    _print_tally(tally, faults)
    return int(bool(faults))


def _print_tally(tally: Tally, faults: Counter[str]) -> None:
    never = [name for name in drawn_opcodes() if not tally.opcodes[name]]
    lines = [f"{tally.modules} modules, trials: " + ", ".join(f"{n} {kind}" for kind, n in tally.verdicts.most_common()),
             "operators: " + ", ".join(f"{name} {n}" for name, n in tally.opcodes.most_common()),
             f"never drawn: {', '.join(never) or 'none'}"]
    lines += [f"refused {n}: {key}" for key, n in tally.refused.most_common()]
    lines += [f"fault {n}: {key}" for key, n in faults.most_common()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
