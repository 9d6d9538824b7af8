"""Compute 64-bit integers in 32 bits wherever that is proved to be the same; the engines have no more.

Before:
  n = s64[2,8] iota(), iota_dimension=1    ids = s64[2,8] parameter(0)    ROOT c = pred[2,8] compare(ids, n), direction=LT
After:
  n = s32[2,8] iota(), iota_dimension=1    ids = s64[2,8] parameter(0)    m = s64[2,8] convert(n)
  ROOT c = pred[2,8] compare(ids, m), direction=LT

The proof is an interval of the values (`intervals`), or that only low words are asked for: sums, products and what moves values
have right low words whatever happens above. What is not proved stays in 64 bits, exact: by pairs of words on the device, or
on the host. Where the two meet, a conversion stands. A result that is computed in 32 bits keeps its 64-bit interface: the
loader widens it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nxcc.ir.dtypes import S32, S64, U32, U64, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names, clone_computation
from nxcc.ir.hlo.combiners import plain_opcode
from nxcc.ir.hlo.marks import OUTPUT
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.literals import Array, Literal
from nxcc.ir.shapes import Shape, tuple_of
from nxcc.passes.dtypes.intervals import Intervals, fits
from nxcc.passes.effects import anchors
from nxcc.passes.patterns import splat_value
from nxcc.passes.rewriting import remove_unread, settle

NARROW: dict[DType, DType] = {S64: S32, U64: U32}

_MODULAR = frozenset(("add", "subtract", "multiply", "negate", "and", "or", "xor", "not"))
_MOVED = {"gather": 1, "dynamic-slice": 1, "dynamic-update-slice": 2}
"""Operators that move values to or from places, and how many of their operands hold the values; the others are indices."""
_DATA = {**_MOVED, "shift-left": 1}

_LOW_WORDS = _MODULAR | frozenset(_DATA) | {"reshape", "transpose", "broadcast", "slice", "reverse", "copy", "pad",
                                            "concatenate", "select", "dot", "convolution"}
"""Operators whose low word depends on the low words of the data alone."""

_BOUNDED = frozenset(("abs", "sign", "maximum", "minimum", "clamp", "divide", "remainder", "shift-right-arithmetic",
                      "shift-right-logical", "popcnt"))
"""Operators that give the same in 32 bits if operands and result fit there."""

_OF_NATURALS = frozenset(("shift-right-logical", "popcnt"))
"""Those of them that look at the upper word of negative numbers."""

_COMBINED = frozenset(("reduce", "reduce-window", "scatter", "sort"))
_FLOW = frozenset(("while", "conditional", "call"))
_ANYWHERE = _LOW_WORDS | _FLOW | {"iota", "constant", "get-tuple-element"}
"""Operators that give the same whenever the result fits."""


@dataclass(frozen=True)
class LegalizeDtypes:
    name: str = "legalize-dtypes"

    def run(self, module: Module) -> bool:
        if not any(_has_wide(i.shape) for i in module.instructions()):
            return False
        return _Legalizer(module).run()


def _has_wide(shape: Shape) -> bool:
    return shape.dtype in NARROW or any(_has_wide(element) for element in shape.elements)


def _narrow(shape: Shape) -> Shape:
    if shape.is_tuple:
        return tuple_of(*map(_narrow, shape.elements))
    return shape.with_dtype(NARROW[shape.dtype]) if shape.dtype in NARROW else shape


class _Legalizer:
    """wide: shapes as they were. shapes: what they become. results: what the root of a called computation must have."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.flow = _flow_of(module)
        self.fixed = {c for i in module.instructions() if i.opcode not in _FLOW for c in i.called}
        self.intervals = Intervals(module, {})
        self.low = {i for computation in self.flow for i in _low_only(computation)}
        self.wide = {i: i.shape for computation in self.flow for i in computation.instructions}
        self.shapes: dict[Instruction, Shape] = {}
        self.results: dict[Computation, Shape] = {}
        self.clones: dict[tuple[Computation, tuple[bool, ...]], Computation] = {}
        self.converted: dict[tuple[Instruction, DType], Instruction] = {}
        self.given = [shape.dtype for shape in module.entry.root.shape.leaves()]

    def run(self) -> bool:
        before = [(i.shape, i.operands, i.called) for i in self.module.instructions()]
        self._decide()
        names = Names(self.module)
        for computation in self.flow:
            self._rewrite(Builder(computation, names=names))
        self._interface()
        return before != [(i.shape, i.operands, i.called) for i in self.module.instructions()]

    # What becomes narrow

    def _decide(self) -> None:
        """Shapes start as narrow as the intervals allow; loops and calls then agree with what they run, to a fixed point."""
        for computation in self.flow:
            for instruction in computation.post_order():
                fixed = computation in self.fixed
                self.shapes[instruction] = instruction.shape if fixed else self._first_shape(instruction)
            root = computation.root
            self.results[computation] = self._fitting(root.shape, self.intervals[root])
        while self._agree():
            pass
        entry = self.module.entry
        self.results[entry] = self.shapes[entry.root]
        for alias in self.module.aliases:
            leaf = _part(entry.root.shape, alias.output_index)
            self.results[entry] = _with_part(self.results[entry], alias.output_index, leaf)

    def _first_shape(self, instruction: Instruction) -> Shape:
        shape = instruction.shape
        if not _has_wide(shape):
            return shape
        if instruction.opcode in _COMBINED:
            return self._combined_shape(instruction)
        if shape.is_array:
            return _narrow(shape) if self._is_narrow(instruction) else shape
        inner = instruction.opcode == "parameter" and instruction.parent is not self.module.entry
        return self._fitting(shape, self.intervals[instruction]) if inner or instruction.opcode in _FLOW else shape

    def _fitting(self, shape: Shape, interval: Any) -> Shape:
        """Leaves narrow where their intervals fit."""
        if shape.is_tuple:
            return tuple_of(*map(self._fitting, shape.elements, interval))
        return _narrow(shape) if shape.dtype in NARROW and fits(interval, NARROW[shape.dtype]) else shape

    def _fits(self, instruction: Instruction) -> bool:
        """Whether all values of an array are known to fit; what is not wide always does."""
        dtype = instruction.shape.dtype
        return dtype not in NARROW or fits(self.intervals[instruction], NARROW[dtype])

    def _is_natural(self, instruction: Instruction) -> bool:
        return bool(self.intervals[instruction][0] >= 0)

    def _is_narrow(self, instruction: Instruction) -> bool:
        """Whether an array's 64-bit values are right, or their low words where only those count, computed in 32 bits."""
        opcode, operands = instruction.opcode, instruction.operands
        fitting = self._fits(instruction)
        if not fitting and instruction not in self.low:
            return False
        if opcode in _BOUNDED:
            natural = opcode not in _OF_NATURALS or self._is_natural(operands[0])
            return fitting and natural and all(map(self._fits, operands))
        if opcode == "shift-left":
            return self._fits(operands[1])
        if opcode == "parameter":
            return instruction.parent is not self.module.entry
        if opcode == "convert":
            return fitting or not operands[0].shape.dtype.is_float
        return opcode in _ANYWHERE

    def _combined_shape(self, instruction: Instruction) -> Shape:
        """Data, initial values and results of one number are narrow together, if the computation allows it."""
        groups = _groups(instruction)
        opcode = plain_opcode(instruction.called[0])
        if opcode in _MODULAR:
            narrow = {0} if self._fits(instruction) or instruction in self.low else set()
        elif opcode is not None:
            narrow = {0} if all(map(self._fits, (instruction, *_members(instruction, groups[0])))) else set()
        else:
            fitting = {k for k, group in enumerate(groups) if all(map(self._fits, _members(instruction, group)))}
            narrow = _choosing(instruction.called[0], _parameter_groups(instruction), fitting)
        leaves = [_narrow(leaf) if k in narrow else leaf for k, leaf in enumerate(instruction.shape.leaves())]
        return tuple_of(*leaves) if instruction.shape.is_tuple else leaves[0]

    def _agree(self) -> bool:
        """Give loops, choices and calls the shapes of what they run, elements those of their tuples; whether it was news."""
        changed = False
        for computation in self.flow:
            for instruction in computation.post_order():
                if instruction.opcode in _FLOW:
                    changed |= self._agree_flow(instruction)
                elif instruction.opcode == "tuple":
                    changed |= self._set(instruction, tuple_of(*(self.shapes[o] for o in instruction.operands)))
                elif instruction.opcode == "get-tuple-element":
                    whole = self.shapes[instruction.operands[0]]
                    changed |= self._set(instruction, whole.elements[int(instruction.attribute("index"))])
        return changed

    def _agree_flow(self, instruction: Instruction) -> bool:
        is_loop = instruction.opcode == "while"
        run = instruction.called[:1] if is_loop else instruction.called
        states = [c.parameters[0] for c in instruction.called] if is_loop else []
        shape = _meet([self.shapes[instruction], *(self.results[c] for c in run), *(self.shapes[s] for s in states)],
                      instruction.shape)
        changed = any([self._set(i, shape) for i in (instruction, *states)])
        for computation in run:
            changed |= self.results[computation] != shape
            self.results[computation] = shape
        return changed

    def _set(self, instruction: Instruction, shape: Shape) -> bool:
        changed = self.shapes[instruction] != shape
        self.shapes[instruction] = shape
        return changed

    # Rewriting

    def _rewrite(self, builder: Builder) -> None:
        computation = builder.computation
        for instruction in computation.post_order():
            if _has_wide(instruction.shape) or any(_has_wide(self.wide[o]) for o in instruction.operands):
                builder.location = instruction.location
                operands = self._operands(instruction, builder)
                if operands != list(instruction.operands):
                    computation.set_operands(instruction, operands)
                self._become(instruction)
        computation.root = self._as(computation.root, self.results[computation], builder)
        for instruction in list(computation.instructions):
            if instruction.opcode == "convert" and instruction.operands[0].shape.dtype is instruction.shape.dtype:
                computation.replace(instruction, instruction.operands[0])
                computation.remove(instruction)
        remove_unread(computation, [i for i in computation.instructions if i.opcode == "broadcast"], anchors(computation))
        settle(computation)

    def _operands(self, instruction: Instruction, builder: Builder) -> list[Instruction]:
        """Operands as the instruction wants them now, conversions between where they are something else."""
        wanted = _SHAPES_OF_OPERANDS.get(instruction.opcode, _Legalizer._by_result)(self, instruction)
        return [self._as(o, shape, builder) for o, shape in zip(instruction.operands, wanted, strict=True)]

    def _as_is(self, instruction: Instruction) -> list[Shape]:
        return [self.shapes[o] for o in instruction.operands]

    def _by_result(self, instruction: Instruction) -> list[Shape]:
        """Narrow where the result is."""
        narrow = self.shapes[instruction] != instruction.shape
        return [_narrow(self.wide[o]) if narrow else self.wide[o] for o in instruction.operands]

    def _by_each_other(self, instruction: Instruction) -> list[Shape]:
        """What is compared is narrow if all values fit."""
        narrow = all(map(self._fits, instruction.operands))
        return [_narrow(self.wide[o]) if narrow else self.wide[o] for o in instruction.operands]

    def _moved(self, instruction: Instruction) -> list[Shape]:
        """Data as the result; indices as they are, but all alike."""
        count = _MOVED[instruction.opcode]
        indices = instruction.operands[count:]
        alike = len({self.shapes[o].dtype for o in indices}) < 2
        return [*self._by_result(instruction)[:count], *((self.shapes if alike else self.wide)[o] for o in indices)]

    def _combined(self, instruction: Instruction) -> list[Shape]:
        shapes = [self.shapes[o] for o in instruction.operands]
        for group, leaf in zip(_groups(instruction), self.shapes[instruction].leaves(), strict=True):
            for place in group:
                shape = self.wide[instruction.operands[place]]
                shapes[place] = shape.with_dtype(leaf.dtype) if shape.dtype in NARROW else shape
        return shapes

    def _state(self, instruction: Instruction) -> list[Shape]:
        return [self.shapes[instruction]]

    def _arguments(self, instruction: Instruction) -> list[Shape]:
        return [self.shapes[p] for p in instruction.called[0].parameters]

    def _branch_arguments(self, instruction: Instruction) -> list[Shape]:
        return [self.shapes[instruction.operands[0]], *(self.shapes[c.parameters[0]] for c in instruction.called)]

    def _as(self, value: Instruction, shape: Shape, builder: Builder) -> Instruction:
        """A value in other widths, leaf by leaf."""
        if [leaf.dtype for leaf in value.shape.leaves()] == [leaf.dtype for leaf in shape.leaves()]:
            return value
        if shape.is_array:
            key = value, shape.dtype
            if key not in self.converted:
                number = splat_value(value)
                self.converted[key] = builder.convert(value, shape.dtype) if number is None else builder.splat(
                    shape.dtype, shape.dims, np.asarray(number).astype(shape.dtype.numpy))
            return self.converted[key]
        elements = [value.operands[k] if value.opcode == "tuple" else builder.get_tuple_element(value, k)
                    for k in range(len(shape.elements))]
        return builder.tuple(*(self._as(e, s, builder) for e, s in zip(elements, shape.elements, strict=True)))

    def _become(self, instruction: Instruction) -> None:
        """Take on the decided shape, with all that it implies."""
        shape = self.shapes[instruction]
        if instruction.opcode == "tuple":
            shape = tuple_of(*(o.shape for o in instruction.operands))
        if instruction.opcode == "constant" and shape != instruction.shape:
            instruction.attributes["literal"] = _narrow_literal(instruction.attributes["literal"])
        if instruction.opcode in _COMBINED and shape != instruction.shape:
            flags = [old.dtype is not new.dtype for old, new in zip(instruction.shape.leaves(), shape.leaves(), strict=True)]
            groups = _parameter_groups(instruction)
            narrow = tuple(flags[group] for _, group in sorted(groups.items()))
            instruction.called = (self._combiner(instruction.called[0], narrow),)
        instruction.shape = shape

    def _combiner(self, computation: Computation, narrow: tuple[bool, ...]) -> Computation:
        """A copy whose parameters are narrow or not, one by one, and so is what is made of them."""
        key = computation, narrow
        if key not in self.clones:
            names = {c.name for c in self.module.computations}
            clone = clone_computation(computation, self.module.unique_name(f"{computation.name}.narrow", names))
            clone.parent = self.module
            self.module.computations.insert(self.module.computations.index(computation), clone)
            _narrow_body(clone, narrow)
            self.clones[key] = clone
        return self.clones[key]

    def _interface(self) -> None:
        """Results that are narrow now say what the user gets."""
        entry = self.module.entry
        for number, (given, shape) in enumerate(zip(self.given, entry.root.shape.leaves(), strict=True)):
            if shape.dtype is not given:
                self.module.frontend_attributes[f"{OUTPUT}{number}"] = given.name
        update_entry_layout(self.module)


_SHAPES_OF_OPERANDS: dict[str, Callable[[_Legalizer, Instruction], list[Shape]]] = {
    **dict.fromkeys(("tuple", "get-tuple-element", "convert"), _Legalizer._as_is), "compare": _Legalizer._by_each_other,
    **dict.fromkeys(_MOVED, _Legalizer._moved), **dict.fromkeys(_COMBINED, _Legalizer._combined),
    "while": _Legalizer._state, "call": _Legalizer._arguments, "conditional": _Legalizer._branch_arguments,
}


# The flow, and what is asked of its values

def _flow_of(module: Module) -> list[Computation]:
    """The entry, and what loops, choices and calls run."""
    found = {module.entry: None}
    stack = [module.entry]
    while stack:
        for instruction in stack.pop().instructions:
            if instruction.opcode in _FLOW:
                fresh = [c for c in instruction.called if c not in found]
                found.update(dict.fromkeys(fresh))
                stack.extend(fresh)
    return list(found)


def _low_only(computation: Computation) -> set[Instruction]:
    """64-bit arrays of which nothing but low words is read in the end."""
    found: set[Instruction] = set()
    for instruction in reversed(computation.post_order()):
        if instruction.shape.dtype in NARROW and instruction is not computation.root and instruction.users and \
                all(_asks_low(user, instruction, found) for user in instruction.users):
            found.add(instruction)
    return found


def _asks_low(user: Instruction, value: Instruction, low: set[Instruction]) -> bool:
    """Whether a user makes a low word of a value's low word; low: users whose own low words suffice."""
    if user.opcode == "convert":
        return user.shape.dtype.is_integer and user.shape.dtype.bits <= 32 or user in low
    if user.opcode not in _LOW_WORDS or user not in low:
        return False
    return value not in user.operands[_DATA.get(user.opcode, len(user.operands)):]


# Combiners

def _groups(instruction: Instruction) -> list[tuple[int, ...]]:
    """For each result leaf, the places of the operands that have its element type."""
    count = len(list(instruction.shape.leaves()))
    if instruction.opcode == "sort":
        return [(k,) for k in range(count)]
    step = count + (instruction.opcode == "scatter")
    return [(k, step + k) for k in range(count)]


def _members(instruction: Instruction, group: Sequence[int]) -> list[Instruction]:
    return [instruction.operands[place] for place in group]


def _parameter_groups(instruction: Instruction) -> dict[int, int]:
    """The result leaf that each parameter of the combiner or comparator belongs to."""
    count = len(list(instruction.shape.leaves()))
    return {n: n // 2 if instruction.opcode == "sort" else n % count for n in range(2 * count)}


_CHOOSING = frozenset(("parameter", "compare", "select", "tuple", "maximum", "minimum", "clamp"))


def _choosing(computation: Computation, groups: Mapping[int, int], fitting: set[int]) -> set[int]:
    """The groups of parameters that may be narrow: all that fit, if the computation only compares and chooses among them.

    Groups that meet in one instruction go together.
    """
    member: dict[Instruction, int] = {}
    joined = {group: group for group in groups.values()}

    def find(group: int) -> int:
        while joined[group] != group:
            group = joined[group]
        return group

    for instruction in computation.post_order():
        if not _has_wide(instruction.shape) and not any(_has_wide(o.shape) for o in instruction.operands):
            continue
        if instruction.opcode not in _CHOOSING:
            return set()
        if instruction.opcode == "parameter":
            member[instruction] = groups[int(instruction.attribute("parameter_number"))]
            continue
        met = [find(member[o]) for o in instruction.operands if o in member] if instruction.opcode != "tuple" else []
        joined.update(dict.fromkeys(met, met[0]) if met else {})
        if met and instruction.shape.dtype in NARROW:
            member[instruction] = met[0]
    return {group for group in fitting if all(other in fitting for other in joined if find(other) == find(group))}


def _narrow_body(computation: Computation, narrow: Sequence[bool]) -> None:
    """Narrow these parameters and what is computed from them; see `_choosing`, and plain combiners."""
    for instruction in computation.post_order():
        if instruction.opcode == "parameter":
            becomes = narrow[int(instruction.attribute("parameter_number"))]
        else:
            becomes = any(o.shape.dtype in NARROW.values() for o in instruction.operands)
        if instruction.opcode == "tuple":
            instruction.shape = tuple_of(*(o.shape for o in instruction.operands))
        elif becomes:
            instruction.shape = _narrow(instruction.shape)


# Shapes and literals

def _meet(shapes: Sequence[Shape], wide: Shape) -> Shape:
    """Leaf by leaf: as in the first where all are alike, else as in `wide`."""
    if wide.is_tuple:
        return tuple_of(*(_meet([shape.elements[k] for shape in shapes], element) for k, element in enumerate(wide.elements)))
    return wide.with_dtype(shapes[0].dtype) if len({shape.dtype for shape in shapes}) == 1 else wide


def _with_part(shape: Shape, path: tuple[int, ...], part: Shape) -> Shape:
    """The shape with one part replaced."""
    if not path:
        return part
    return tuple_of(*(_with_part(element, path[1:], part) if k == path[0] else element
                      for k, element in enumerate(shape.elements)))


def update_entry_layout(module: Module) -> None:
    """The header's layout of the entry with the element types that the entry has now."""
    if module.entry_layout is not None:
        shapes, result = module.entry_layout
        parameters = [_like(p.shape, s) for p, s in zip(module.entry.parameters, shapes, strict=True)]
        module.entry_layout = tuple(parameters), _like(module.entry.root.shape, result)


def _like(shape: Shape, layout: Shape) -> Shape:
    """A shape with the layouts of another; one whose dimensions have moved has none."""
    if shape.is_tuple:
        return tuple_of(*map(_like, shape.elements, layout.elements))
    if shape.dims != layout.dims:
        return shape
    return Shape(shape.dtype, shape.dims, shape.elements, shape.dynamic, layout.layout)


def _part(shape: Shape, path: tuple[int, ...]) -> Shape:
    for index in path:
        shape = shape.elements[index]
    return shape


def _narrow_literal(literal: Literal) -> Literal:
    """Low words, computed when they are asked for; a splat stays one."""
    shape = _narrow(literal.shape)
    if literal.is_splat:
        value = np.asarray(literal.splat_value).astype(shape.dtype.numpy)
        return Literal(shape, np.broadcast_to(value, shape.dims))

    def load() -> Array:
        return literal.array.astype(shape.dtype.numpy)
    return Literal(shape, load=load)
