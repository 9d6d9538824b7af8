"""Hold element types that the target lacks in wider ones that have all of their values.

Before, on a target without four-bit integers and f8e4m3fn:
  a = s4[8] parameter(0)    c = s4[8] add(a, a)                     x = f32[8] parameter(1)    q = f8e4m3fn[8] convert(x)
After:
  a = s8[8] parameter(0), frontend_attributes={nxcc.interface="s4"}
  b = s8[8] add(a, a)    d = s8[8] shift-left(b, 4)    c = s8[8] shift-right-arithmetic(d, 4)
  r = (x rounded to the nearest f8e4m3fn, in f32)      q = bf16[8] convert(r)

Integers are bytes whose upper bits repeat the sign, or are zero: what may leave the type's range is brought back. Floats are
bf16, which has every value of the eight-bit types; what is computed is computed in f32 and rounded to the type. The loader
converts inputs, weights and results, so that the interface keeps its types.

A type stays as it is, for the host, where an instruction looks at its bits, where a program outside the module has it, or where
a product takes f8e4m3fn: the vendor's documents refuse that on this hardware but for an option of the same name as here, and
the host is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from nxcc.ir.dtypes import (
    BF16,
    F4E2M1FN,
    F6E2M3FN,
    F6E3M2FN,
    F8E3M4,
    F8E4M3,
    F8E4M3B11FNUZ,
    F8E4M3FN,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    F8E8M0FNU,
    F32,
    S2,
    S4,
    S8,
    S32,
    U2,
    U4,
    U8,
    DType,
)
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import Window
from nxcc.ir.hlo.builder import Builder, Names
from nxcc.ir.hlo.combiners import plain_opcode
from nxcc.ir.hlo.marks import INTERFACE, OUTPUT
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.ops.reduction import ROUNDED_CELLS
from nxcc.ir.hlo.wide_bodies import widened, widened_dtype
from nxcc.ir.literals import Array, Literal
from nxcc.ir.shapes import Shape, tuple_of
from nxcc.passes.combiners import combiner
from nxcc.passes.dtypes.legalize_dtypes import update_entry_layout
from nxcc.passes.notes import Note, Report, unheard
from nxcc.passes.rewriting import remove_unread, settle

_finfo: Any = ml_dtypes.finfo
_iinfo: Any = ml_dtypes.iinfo

WIDER: dict[DType, DType] = {
    S2: S8, S4: S8, U2: U8, U4: U8,
    **dict.fromkeys((F4E2M1FN, F6E2M3FN, F6E3M2FN, F8E3M4, F8E4M3, F8E4M3B11FNUZ, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ,
                     F8E8M0FNU), BF16)}
"""Element types and what holds them where the target lacks them."""

_MOVED = frozenset((
    "parameter", "constant", "tuple", "get-tuple-element", "reshape", "transpose", "broadcast", "slice", "reverse", "copy",
    "pad", "concatenate", "select", "gather", "dynamic-slice", "dynamic-update-slice", "opt-barrier", "sort", "topk", "maximum",
    "minimum", "clamp", "compare", "sign", "is-finite", "while", "conditional", "call", "fusion", "map", "domain"))
"""Operators that make no value that is not there, or are what they call."""

_COMBINED = frozenset(("reduce", "reduce-window", "scatter", "select-and-scatter"))
_PRODUCTS = frozenset(("dot", "convolution"))
_WRAPPED = frozenset(("add", "subtract", "multiply", "negate", "abs", "not", "and", "or", "xor", "shift-left", "divide",
                      "remainder", "power", "iota", "popcnt", "shift-right-logical"))
"""Integer operators whose low bits are right in a wider type, those of _NATURAL given operands without a sign."""

_ROUNDED_ONCE = frozenset(("add", "multiply"))
"""Combiners of floats whose partial results are wider than the type."""
_NATURAL = frozenset(("popcnt", "shift-right-logical"))
_MODULAR = frozenset(("add", "multiply", "and", "or", "xor"))


@dataclass(frozen=True)
class WidenDtypes:
    """dtypes: what the target has; empty: everything. multiply_f8e4m3fn: products take it, though the documents refuse that."""

    dtypes: frozenset[DType] = frozenset()
    report: Report = unheard
    multiply_f8e4m3fn: bool = False
    name: str = "widen-dtypes"

    def run(self, module: Module) -> bool:
        present = {leaf.dtype for i in module.instructions() for leaf in i.shape.leaves()}
        chosen = present & WIDER.keys() - self.dtypes if self.dtypes else set()
        refused = frozenset() if self.multiply_f8e4m3fn else frozenset({F8E4M3FN})
        while chosen and (hindered := {dtype for i in module.instructions() for dtype in _hindered(i, chosen, refused)}):
            chosen -= hindered
        if not chosen:
            return False
        _widen_folds(module, chosen)
        _Widener(module, {dtype: WIDER[dtype] for dtype in chosen}).run()
        held = ", ".join(f"{dtype} in {WIDER[dtype]}" for dtype in sorted(chosen, key=str))
        self.report(Note(self.name, f"the target lacks element types; values stay the same, held otherwise: {held}"))
        return True


# What cannot be

def _hindered(instruction: Instruction, chosen: set[DType], refused: frozenset[DType]) -> Iterator[DType]:
    """Chosen types that must stay as they are because of this instruction. refused: what products do not take."""
    shapes = [instruction.shape, *(o.shape for o in instruction.operands)]
    found = {leaf.dtype for shape in shapes for leaf in shape.leaves()} & chosen
    if found and (any(shape.dynamic for shape in shapes) or not _is_possible(instruction, chosen, refused)):
        yield from found


def _is_possible(instruction: Instruction, chosen: set[DType], refused: frozenset[DType]) -> bool:
    opcode, dtype = instruction.opcode, instruction.shape.dtype
    if opcode == "parameter":
        return instruction.shape.is_array or instruction.parent is not instruction.parent.parent.entry  # type: ignore[union-attr]
    if opcode in _MOVED or opcode in _COMBINED:
        return opcode != "constant" or instruction.shape.is_array
    if opcode in _PRODUCTS:
        return not any(o.shape.dtype in refused for o in instruction.operands) and dtype is not F8E8M0FNU
    if opcode == "bitcast":
        return instruction.operands[0].shape.dtype is dtype
    if dtype in chosen and dtype.is_integer:
        return opcode in _WRAPPED or opcode == "convert" or opcode == "shift-right-arithmetic" and dtype.is_signed
    return (instruction.operator.elementwise or opcode == "iota") and opcode not in ("bitcast-convert", "stochastic-convert") \
        and dtype is not F8E8M0FNU


# Rewriting

def _widen_folds(module: Module, chosen: set[DType]) -> None:
    """Reductions by combiners that compute with such floats are taken in f32, and rounded once."""
    names = Names(module)
    for computation in list(module.computations):
        builder = Builder(computation, names=names)
        for reduction in [i for i in computation.post_order() if i.opcode == "reduce"]:
            held = any(o.shape.dtype in chosen and o.shape.dtype.is_float for o in reduction.operands)
            wide = widened(reduction.called[0]) if held and plain_opcode(reduction.called[0]) is None else None
            if wide is not None:
                builder.location = reduction.location
                computation.replace(reduction, _in_f32(reduction, _taken_over(wide, module, names), builder))
                remove_unread(computation, [reduction])
                settle(computation)


def _taken_over(wide: Computation, module: Module, names: Names) -> Computation:
    """A combiner, and what it calls, as computations of the module."""
    waiting = [wide]
    while waiting:
        body = waiting.pop()
        body.name, body.parent = names.of_computation(body.name), module
        module.computations.insert(0, body)
        for instruction in body.instructions:
            instruction.name = names.of_instruction(instruction.name)
        waiting += dict.fromkeys(c for i in body.instructions for c in i.called if c.parent is None and c not in waiting)
    return wide


def _in_f32(reduction: Instruction, wide: Computation, builder: Builder) -> Instruction:
    operands = [builder.convert(o, kind) if (kind := widened_dtype(o.shape.dtype)) is not o.shape.dtype else o
                for o in reduction.operands]
    made = builder.make("reduce", *operands, called=[wide], **reduction.attributes)
    if reduction.shape.is_array:
        return builder.convert(made, reduction.shape.dtype)
    parts = [builder.get_tuple_element(made, n) for n in range(len(reduction.shape.elements))]
    return builder.tuple(*(part if part.shape.dtype is shape.dtype else builder.convert(part, shape.dtype)
                           for part, shape in zip(parts, reduction.shape.elements, strict=True)))


class _Widener:
    """wider: the types that are held otherwise, and in what."""

    def __init__(self, module: Module, wider: dict[DType, DType]) -> None:
        self.module = module
        self.wider = wider
        self.given = {i: i.shape for i in module.instructions()}
        self.summing = _summing(module)
        self.sums = {c: opcode for c in module.computations if (opcode := plain_opcode(c)) in _ROUNDED_ONCE}

    def run(self) -> None:
        entry = self.module.entry
        before = [leaf.dtype for leaf in entry.root.shape.leaves()]
        for parameter in entry.parameters:
            if parameter.shape.dtype in self.wider:
                parameter.frontend_attributes.setdefault(INTERFACE, parameter.shape.dtype.name)
        names = Names(self.module)
        for computation in list(self.module.computations):
            self._rewrite(Builder(computation, names=names))
        for number, (dtype, leaf) in enumerate(zip(before, entry.root.shape.leaves(), strict=True)):
            if dtype is not leaf.dtype:
                self.module.frontend_attributes.setdefault(f"{OUTPUT}{number}", dtype.name)
        update_entry_layout(self.module)

    def _rewrite(self, builder: Builder) -> None:
        computation = builder.computation
        changed = False
        for instruction in computation.post_order():
            given = self.given[instruction]
            touched = [given, *map(self._given, instruction.operands)]
            if not any(leaf.dtype in self.wider for shape in touched for leaf in shape.leaves()):
                continue
            changed = True
            builder.location = instruction.location
            made = self._made(instruction, given.dtype, builder)
            if made is not instruction:
                computation.replace(instruction, made)
                if given.dtype in self.wider:
                    self.given[made] = given
                remove_unread(computation, [instruction])
        if changed:
            settle(computation)

    def _given(self, instruction: Instruction) -> Shape:
        return self.given.get(instruction, instruction.shape)

    def _made(self, instruction: Instruction, dtype: DType, builder: Builder) -> Instruction:
        """What stands for the instruction; dtype: what its elements were."""
        opcode = instruction.opcode
        if opcode in _PRODUCTS and dtype in self.wider:
            product = builder.make(opcode, *instruction.operands, called=instruction.called, **instruction.attributes,
                                   shape=instruction.shape.with_dtype(F32 if dtype.is_float else S32))
            return self._back(product, dtype, builder)
        if opcode == "convert":
            return self._converted(instruction, dtype, builder)
        if opcode in _MOVED or dtype not in self.wider:
            instruction.shape = self._widened(instruction.shape)
            if opcode == "constant":
                instruction.attributes["literal"] = _held(instruction.attributes["literal"], instruction.shape.dtype)
            return instruction
        if opcode in _COMBINED:
            return self._combined(instruction, dtype, builder)
        return self._computed(instruction, dtype, builder)

    def _widened(self, shape: Shape) -> Shape:
        if shape.is_tuple:
            return tuple_of(*map(self._widened, shape.elements))
        return shape.with_dtype(self.wider[shape.dtype]) if shape.dtype in self.wider else shape

    def _combined(self, instruction: Instruction, dtype: DType, builder: Builder) -> Instruction:
        """Sums and products are brought back at the end; any other computation does it itself."""
        if dtype.is_float and instruction.called[-1] in self.sums and _is_rounded_once(instruction):
            return self._summed(instruction, dtype, builder)
        wraps = instruction.called[-1] in self.summing and instruction.shape.is_array and dtype.is_integer
        instruction.shape = self._widened(instruction.shape)
        return self._kept(instruction, dtype, builder) if wraps else instruction

    def _summed(self, old: Instruction, dtype: DType, builder: Builder) -> Instruction:
        """A sum or product of floats in f32, rounded once, as those of the types that the target has are."""
        operands = [builder.convert(o, F32) if self._given(o).dtype is dtype else o for o in old.operands]
        called = combiner(self.module, self.sums[old.called[-1]], F32, builder)
        made = builder.make(old.opcode, *operands, shape=old.shape.with_dtype(F32), called=[called], **old.attributes)
        return self._back(made, dtype, builder)

    def _kept(self, old: Instruction, dtype: DType, builder: Builder) -> Instruction:
        """A copy of an instruction, brought back into the range of its type."""
        copy = builder.make(old.opcode, *old.operands, shape=old.shape, called=old.called, **old.attributes)
        return self._back(copy, dtype, builder)

    def _computed(self, instruction: Instruction, dtype: DType, builder: Builder) -> Instruction:
        operands = list(instruction.operands)
        shape = instruction.shape.with_dtype(self.wider[dtype] if dtype.is_integer else F32)
        if instruction.opcode in _NATURAL and dtype.is_signed:
            operands[0] = _masked(operands[0], dtype, builder)
        if dtype.is_float:
            operands = [builder.convert(o, F32) if o.shape.dtype is BF16 else o for o in operands]
        made = builder.make(instruction.opcode, *operands, shape=shape, called=instruction.called, **instruction.attributes)
        if instruction.parent in self.summing and instruction is instruction.parent.root and dtype.is_integer:
            return made
        return self._back(made, dtype, builder)

    def _converted(self, instruction: Instruction, dtype: DType, builder: Builder) -> Instruction:
        (source,) = instruction.operands
        if dtype not in self.wider:
            return builder.convert(source, dtype)
        if dtype.is_float:
            return self._back(source if source.shape.dtype is F32 else builder.convert(source, F32), dtype, builder)
        held = builder.convert(source, self.wider[dtype])
        if not self._given(source).dtype.is_float:
            return self._back(held, dtype, builder)
        limits = _iinfo(dtype.numpy)
        low, high = (_number(value, held, builder) for value in (limits.min, limits.max))
        return builder.make("clamp", low, held, high)

    def _back(self, x: Instruction, dtype: DType, builder: Builder) -> Instruction:
        """x as a value of the type, held as such values are: wrapped integers, rounded floats."""
        if dtype.is_float:
            return builder.convert(_rounded(x, dtype, builder), BF16)
        held = x if x.shape.dtype is self.wider[dtype] else builder.convert(x, self.wider[dtype])
        if not dtype.is_signed:
            return _masked(held, dtype, builder)
        places = _number(held.shape.dtype.bits - dtype.bits, held, builder)
        return builder.make("shift-right-arithmetic", builder.make("shift-left", held, places), places)


def _is_rounded_once(instruction: Instruction) -> bool:
    """Whether a sum is of one array and rounded when all of it is there: small windows are rounded at each addition."""
    if instruction.opcode == "reduce-window" and instruction.shape.is_array:
        window: Window = instruction.attribute("window")
        return math.prod(d.size for d in window.dims) > ROUNDED_CELLS
    return instruction.opcode in ("reduce", "scatter") and instruction.shape.is_array


def _summing(module: Module) -> set[Computation]:
    """Combiners that are one operator whose low bits do not depend on upper ones, called by nothing but reductions."""
    found: set[Computation] = set()
    other: set[Computation] = set()
    for instruction in module.instructions():
        for called in instruction.called:
            is_sum = instruction.opcode in _COMBINED and instruction.shape.is_array and called is instruction.called[-1]
            (found if is_sum and plain_opcode(called) in _MODULAR else other).add(called)
    return found - other


def _number(value: Any, like: Instruction, builder: Builder) -> Instruction:
    return builder.broadcast(builder.splat(like.shape.dtype, (), value), like.shape.dims)


def _masked(x: Instruction, dtype: DType, builder: Builder) -> Instruction:
    """The low bits of an integer, without a sign."""
    return builder.make("and", x, _number(2 ** dtype.bits - 1, x, builder))


def _rounded(x: Instruction, dtype: DType, builder: Builder) -> Instruction:
    """An f32 as the nearest number of a smaller float type, ties to even; beyond the largest, what it becomes there."""
    facts = _finfo(dtype.numpy)
    normal, bits, most = float(facts.smallest_normal), int(facts.nmant), float(facts.max)
    infinity, nan, zero = (float(np.float32(value).astype(dtype.numpy)) for value in (np.inf, np.nan, -0.0))

    def number(value: float) -> Instruction:
        return _number(value, x, builder)

    def size(value: Instruction) -> Instruction:
        return builder.make("abs", value)

    def chosen(operand: Instruction, direction: str, limit: Instruction, then: Instruction, other: Instruction) -> Instruction:
        return builder.make("select", builder.compare(operand, limit, direction), then, other)

    step = normal * 2.0 ** -bits
    coarse = builder.make("reduce-precision", x, exponent_bits=8, mantissa_bits=bits)
    fine = builder.make("round-nearest-even", builder.make("multiply", x, number(1 / step)))
    result = chosen(size(x), "LT", number(normal), builder.make("multiply", fine, number(step)), coarse)
    if infinity == most:
        result = builder.make("clamp", number(-most), result, number(most))
    else:
        beyond = number(infinity) if np.isnan(infinity) else builder.make("multiply", x, number(infinity))
        result = chosen(size(result), "GT", number(most), beyond, result)
    if not np.isnan(nan):
        result = chosen(x, "NE", x, number(nan), result)
    return result if np.signbit(zero) else chosen(result, "EQ", number(0.0), number(0.0), result)


def _held(literal: Literal, dtype: DType) -> Literal:
    """The literal in the type that holds it, converted when it is asked for; a splat stays one."""
    shape = literal.shape.with_dtype(dtype)
    if literal.is_splat:
        value = np.asarray(literal.splat_value).astype(dtype.numpy)
        return Literal(shape, np.broadcast_to(value, shape.dims))

    def load() -> Array:
        return literal.array.astype(dtype.numpy)
    return Literal(shape, load=load)
