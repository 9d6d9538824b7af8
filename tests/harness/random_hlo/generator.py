"""The generator: a module grows from typed values; what each operator needs is said by its declaration or by a maker."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from nxcc.compiler.debugging.candidate import Candidate
from nxcc.ir.dtypes import (
    BF16,
    C64,
    C128,
    F4E2M1FN,
    F6E2M3FN,
    F8E3M4,
    F8E4M3,
    F8E4M3B11FNUZ,
    F8E4M3FN,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    F8E8M0FNU,
    F16,
    F32,
    F64,
    PRED,
    S2,
    S4,
    S8,
    S16,
    S32,
    S64,
    U2,
    U4,
    U8,
    U16,
    U32,
    U64,
    DType,
)
from nxcc.ir.hlo.attributes import IoAlias
from nxcc.ir.hlo.builder import Builder, infer_shape
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.operator import ShapeError, find, operators
from nxcc.ir.hlo.verifier import verify
from nxcc.ir.shapes import Layout, Shape, array, tuple_of

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Bounds:
    """How large a module may grow. sizes: of dimensions, odd ones and ones around the machine's limits among them.

    focus: what every second draw is of. without: what is not drawn.
    """

    instructions: int = 10
    parameters: int = 4
    rank: int = 5
    elements: int = 20_000
    depth: int = 2
    sizes: tuple[int, ...] = (1, 1, 2, 3, 4, 5, 7, 8, 13, 16, 31, 33, 64, 127, 128, 130, 257, 513, 1025, 2049)
    dtypes: tuple[DType, ...] = (F32,) * 8 + (BF16,) * 3 + (F16, F16, S32, S32, S32, U32, S8, U8, S16, U16, PRED, PRED) + \
        (S64, S64, U64, F8E4M3, F8E5M2, F8E4M3FN, F8E3M4, F8E4M3FNUZ, F8E5M2FNUZ, F8E4M3B11FNUZ, F4E2M1FN, F6E2M3FN,
         F8E8M0FNU, S4, U4, S2, U2, F64, C64, C128)
    focus: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


LEFT_OUT: dict[str, str] = {
    "parameter": "made for values that nothing else gives", "constant": "as parameter", "tuple": "made for results and loops",
    "get-tuple-element": "made with what yields tuples",
    **dict.fromkeys(("all-reduce-start", "all-reduce-done", "all-gather", "all-gather-start", "all-gather-done",
                     "reduce-scatter", "collective-broadcast", "all-to-all"), "made with all-reduce"),
    **dict.fromkeys(("collective-permute-start", "collective-permute-done"), "made with collective-permute"),
    **dict.fromkeys(("async-update", "async-done"), "made with async-start"), "copy-done": "made with copy-start",
    "partition-id": "made with replica-id", "after-all": "made with add-dependency",
    "ragged-all-to-all": "one core has nobody to talk to",
    **dict.fromkeys(("send", "send-done", "recv", "recv-done", "infeed", "outfeed"), "there is no host program to talk to"),
    "domain": "an annotation that passes of XLA write; the conformance sample has it",
    "dynamic-reshape": "its result's bound has no rule of its own", "get-dimension-size": "made with set-dimension-size",
    **dict.fromkeys(("rng", "rng-get-and-update-state"), "results are not defined bit by bit"),
    **dict.fromkeys(("stochastic-convert", "scaled-dot", "bitcast"),
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
        while len(results) > 2 and self.random.random() < 0.2:
            results = [*results[2:], self.scope.builder.make("tuple", *results[:2])]
        entry.root = results[0] if len(results) == 1 else self.scope.builder.make("tuple", *results)
        self.module.computations = self.module.reachable()
        if self.random.random() < 0.1:
            self._packed()
        self._border()
        verify(self.module)
        return Candidate(self.module, tuple(self.value(p.shape) for p in entry.parameters))

    def _packed(self) -> None:
        """Some parameters, neighbours by number, become one tuple, now and then with a tuple in it."""
        entry = self.module.entry
        parameters = entry.parameters
        start = self.random.randrange(len(parameters))
        chosen = parameters[start:start + self.random.randint(1, 3)]
        shapes = [one.shape for one in chosen]
        inner = len(shapes) == 3 and self.random.random() < 0.5
        made = self.scope.builder.parameter(len(parameters), tuple_of(shapes[0], tuple_of(*shapes[1:])) if inner else
                                            tuple_of(*shapes))
        nested = self.scope.builder.get_tuple_element(made, 1) if inner else made
        for number, one in enumerate(chosen):
            whole, index = (nested, number - 1) if inner and number else (made, number)
            entry.replace(one, self.scope.builder.get_tuple_element(whole, index))
            entry.remove(one)
        made.attributes["parameter_number"] = start
        for number, one in enumerate([*parameters[:start], made, *parameters[start + len(chosen):]]):
            one.attributes["parameter_number"] = number
        entry.sort()

    def _border(self) -> None:
        """Now and then layouts of parameters and results, and results that may lie where parameters do."""
        entry = self.module.entry
        if self.random.random() < 0.2:
            for instruction in [*entry.parameters, entry.root]:
                instruction.shape = self.laid_out(instruction.shape)
        if self.random.random() < 0.2 and entry.root.shape.is_tuple:
            taken: set[int] = set()
            aliases = []
            for place, result in enumerate(entry.root.shape.elements):
                fitting = [n for n, p in enumerate(entry.parameters)
                           if n not in taken and p.shape == result and p.shape.layout == result.layout]
                if fitting:
                    taken.add(fitting[0])
                    aliases.append(IoAlias((place,), fitting[0], (), "may-alias"))
            self.module.aliases = tuple(aliases)

    def laid_out(self, shape: Shape) -> Shape:
        """The shape with its dimensions in some order in memory."""
        if not shape.is_array:
            return replace(shape, elements=tuple(map(self.laid_out, shape.elements)))
        return replace(shape, layout=Layout(tuple(self.random.sample(range(shape.rank), shape.rank))))

    def step(self) -> None:
        """One operator more; a maker that finds nothing to work on gives None, and another is drawn."""
        made = None
        while made is None:
            opcode = self._draw()
            maker = MAKERS.get(opcode)
            made = maker(self) if maker else self.elementwise(opcode)
        self.scope.made += made if isinstance(made, list) else [made]
        self.scope.values += [i for i in (made if isinstance(made, list) else [made]) if i.shape.is_array]

    def _draw(self) -> str:
        if self.bounds.focus and self.random.random() < 0.5:
            return self.random.choice(self.bounds.focus)
        names = structured() if self.random.random() < 0.4 else drawn_opcodes()
        while (opcode := self.random.choice(names)) in self.bounds.without:
            pass
        return opcode

    # Types and values

    def shape(self, dtype: DType | None = None, rank: int | None = None) -> Shape:
        """A shape within the bounds."""
        count = self.random.randint(0, self.bounds.rank) if rank is None else rank
        dims: list[int] = []
        left = self.bounds.elements
        for _ in range(count):
            dims.append(self.random.choice([size for size in self.bounds.sizes if size <= left]))
            left //= dims[-1]
        if dims and self.random.random() < 0.015:
            dims[0] = 0
        self.random.shuffle(dims)
        return array(dtype or self.random.choice(self.bounds.dtypes), *dims)

    def value(self, shape: Shape) -> Any:
        """Values for a parameter: mostly tame ones; now and then the special ones of the type are among them."""
        if shape.is_tuple:
            return tuple(map(self.value, shape.elements))
        dtype, dims = shape.dtype, shape.dims
        if dtype is PRED:
            return self.numbers.integers(0, 2, dims).astype(bool)
        wild = self.random.random() < 0.15
        if dtype.is_integer:
            lowest = -(1 << dtype.bits - 1) if dtype.is_signed else 0
            tame = max(lowest, -9), min(9, (1 << dtype.bits - 1) - 1)
            low, high = (lowest, lowest + (1 << dtype.bits) - 1) if wild else tame
            return self.numbers.integers(low, high, dims, dtype=np.int64 if dtype is not U64 else np.uint64,
                                         endpoint=True).astype(dtype.numpy)
        if dtype.is_complex:
            return np.asarray(self.numbers.normal(size=dims) + 1j * self.numbers.normal(size=dims)).astype(dtype.numpy)
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
        other = self.pick(lambda one: one.dims == shape.dims and one.dtype is not shape.dtype and not one.dtype.is_complex)
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
        if dtype.is_complex:
            opcode = "add"
        return self.computation([array(dtype)] * 2, lambda p: self.make(opcode, *p))

    def scalar_steps(self, count: int, wanted: Shape) -> Instruction:
        """A few elementwise operators on scalars, as maps and combiners have them, then a value of the wanted shape."""
        plain = [name for name in drawn_opcodes() if name not in MAKERS]
        for _ in range(count):
            made = self.elementwise(self.random.choice(plain))
            if made is not None:
                self.note(made)
        return self.pick(lambda shape: shape == wanted) or self.like(wanted)

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
    """Opcodes to draw from, in an order that does not depend on which family was imported first."""
    return tuple(name for name in sorted(operators()) if name in MAKERS or _is_plain(name))


@cache
def structured() -> tuple[str, ...]:
    """Operators with structure, and patterns of several operators; drawn twice as often as their number says."""
    return tuple(MAKERS)


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


def has_dims(shape: Shape) -> bool:
    return shape.rank > 0
