"""Compute 64-bit integers in 32 bits, which is all that the engines have.

Before:
  ids = s64[2,8] parameter(0)    zero = s64[2,8] broadcast(constant(0))    ROOT c = pred[2,8] compare(ids, zero), direction=LT
After:
  ids = s32[2,8] parameter(0), frontend_attributes={nxcc.interface="s64"}    zero = s32[2,8] broadcast(constant(0))
  ROOT c = pred[2,8] compare(ids, zero), direction=LT

A parameter keeps its 64-bit interface: the loader checks that values fit. A result keeps it too: the loader widens it.
Whether the rest may be narrowed follows from the intervals that values can have, and from who reads them: sums and products
have right low words whatever happens above. Where neither proves it, the machine's own rule holds (64-bit integers are computed
in 32 bits), and a warning names the value. What has a constant beyond 32 bits stays in 64 bits, and so does what depends on
it, what it is computed from beyond 32 bits, and what has a meaning of its own for the upper word; that goes to the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nxcc.ir.dtypes import S32, S64, U32, U64, DType
from nxcc.ir.hlo.builder import Builder, clone_computation
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.literals import Array, Literal
from nxcc.ir.shapes import Shape, tuple_of
from nxcc.passes.intervals import Interval, Intervals, fits, full_range
from nxcc.passes.notes import Report, note_at, unheard
from nxcc.passes.rewriting import flow_computations, settle

NARROW: dict[DType, DType] = {S64: S32, U64: U32}
INTERFACE = "nxcc.interface"
"""Frontend attribute of a parameter: the dtype that the user hands in."""
OUTPUT = "nxcc.output."
"""Frontend attribute of the module, with the number of a result leaf: the dtype that the user gets."""

_MODULAR = frozenset(("add", "subtract", "multiply", "negate", "and", "or", "xor", "not", "shift-left"))
_MOVING = frozenset(("reshape", "transpose", "broadcast", "slice", "reverse", "copy", "gather", "dynamic-slice", "concatenate",
                     "pad", "dynamic-update-slice", "select"))
_LOW_WORDS = _MODULAR | _MOVING
"""Operators whose low word depends on the low words of their 64-bit operands alone (indices, counts of shifts apart)."""

_OTHERS = frozenset(("abs", "sign", "maximum", "minimum", "clamp", "compare", "convert", "divide", "remainder", "power",
                     "shift-right-arithmetic", "shift-right-logical", "iota", "constant", "parameter", "tuple", "sort",
                     "get-tuple-element", "scatter", "reduce", "reduce-window", "while", "conditional", "dot", "popcnt"))
_NARROWABLE = _LOW_WORDS | _OTHERS
_COMBINED = frozenset(("reduce", "reduce-window", "scatter", "sort"))
_FLOW = frozenset(("while", "conditional"))


@dataclass(frozen=True)
class LegalizeDtypes:
    report: Report = unheard
    name: str = "legalize-dtypes"

    def run(self, module: Module) -> bool:
        if not any(_has_wide(i.shape) for i in module.instructions()):
            return False
        return _Legalizer(module, self).run()


def _has_wide(shape: Shape) -> bool:
    return shape.dtype in NARROW or any(_has_wide(element) for element in shape.elements)


def _narrow(shape: Shape) -> Shape:
    if shape.is_tuple:
        return tuple_of(*map(_narrow, shape.elements))
    return shape.with_dtype(NARROW[shape.dtype]) if shape.dtype in NARROW else shape


def _fits_narrow(interval: Interval | None, dtype: DType) -> bool:
    return fits(interval, NARROW[dtype])


class _Legalizer:
    def __init__(self, module: Module, owner: LegalizeDtypes) -> None:
        self.module = module
        self.owner = owner
        self.flow = flow_computations(module)
        known = {n: full_range(NARROW[p.shape.dtype]) for n, p in enumerate(module.entry.parameters) if p.shape.dtype in NARROW}
        self.intervals = Intervals(module, {n: i for n, i in known.items() if i is not None})
        self.kept: set[Instruction] = set()
        self.clones: dict[Computation, Computation] = {}
        self.warned: set[Instruction] = set()
        self.reported: set[Instruction] = set()
        self.narrowed: dict[Instruction, DType] = {}
        self.result_dtypes = [shape.dtype for shape in module.entry.root.shape.leaves()]

    def run(self) -> bool:
        self._decide()
        self._warn()
        before = [(i.shape, i.operands, i.called) for i in self.module.instructions()]
        for computation in self.flow:
            self._rewrite(computation)
        self._interface()
        after = [(i.shape, i.operands, i.called) for i in self.module.instructions()]
        return before != after

    # What stays in 64 bits

    def _decide(self) -> None:
        """Instructions that keep 64 bits, and all that depends on them, to a fixed point."""
        changed = True
        while changed:
            changed = False
            for computation in self.flow:
                for instruction in computation.post_order():
                    if instruction not in self.kept and self._touches(instruction) and self._stays(instruction):
                        self._keep(instruction)
                        changed = True

    def _touches(self, instruction: Instruction) -> bool:
        return _has_wide(instruction.shape) or any(_has_wide(o.shape) for o in instruction.operands)

    def _stays(self, instruction: Instruction) -> bool:
        if self._is_result(instruction):
            return False
        opcode = instruction.opcode
        if opcode not in _NARROWABLE or opcode == "parameter" and instruction.shape.is_tuple and self._in_entry(instruction):
            return True
        if _has_wide(instruction.shape) and any(o in self.kept and _has_wide(o.shape) for o in instruction.operands):
            return True
        if opcode in _FLOW:
            inner = (i for c in instruction.called for i in c.instructions)
            return any(i in self.kept and _has_wide(i.shape) for i in inner)
        if opcode in _COMBINED:
            return not all(self._narrowable_inside(i) for c in instruction.called for i in c.instructions)
        return self._needs_upper_word(instruction)

    def _is_result(self, instruction: Instruction) -> bool:
        """The tuple of all results, whose elements are narrowed or not one by one."""
        return instruction is self.module.entry.root and instruction.opcode == "tuple"

    def _in_entry(self, instruction: Instruction) -> bool:
        return instruction.parent is self.module.entry

    def _narrowable_inside(self, instruction: Instruction) -> bool:
        """In a combiner: nothing that calls, nothing with a constant beyond 32 bits."""
        if instruction.called or instruction.opcode not in _NARROWABLE:
            return not self._touches(instruction)
        return not self._is_large_constant(instruction)

    def _needs_upper_word(self, instruction: Instruction) -> bool:
        if instruction.opcode == "constant":
            return self._is_large_constant(instruction) and not self._low_word_suffices(instruction)
        if instruction.opcode in ("shift-right-logical", "popcnt") and instruction.operands[0].shape.dtype in NARROW:
            interval = self.intervals[instruction.operands[0]]
            return bool(interval[0] < 0)
        return False

    def _is_large_constant(self, instruction: Instruction) -> bool:
        shape = instruction.shape
        return instruction.opcode == "constant" and shape.dtype in NARROW and not _fits_narrow(
            self.intervals[instruction], shape.dtype)

    def _low_word_suffices(self, instruction: Instruction) -> bool:
        """Whether all that is made of a value in the end are low words."""
        stack, seen = [instruction], {instruction}
        while stack:
            current = stack.pop()
            if current.parent is None or current is current.parent.root:
                return False
            for user in current.users:
                if user.opcode == "convert" and user.shape.dtype.is_integer and user.shape.dtype.bits <= 32:
                    continue
                if user.opcode not in _LOW_WORDS or current in _exact_operands(user) or user.shape.dtype not in NARROW:
                    return False
                if user not in seen:
                    seen.add(user)
                    stack.append(user)
        return True

    def _keep(self, instruction: Instruction) -> None:
        """A loop or choice that keeps 64 bits does so inside too, and so do tuples that are read as a whole."""
        stack = [instruction]
        while stack:
            current = stack.pop()
            if current in self.kept:
                continue
            self.kept.add(current)
            stack.extend(o for o in current.operands if self._must_stay_for(o))
            if current.opcode in _FLOW:
                stack.extend(i for c in current.called for i in c.instructions if self._touches(i))

    def _must_stay_for(self, operand: Instruction) -> bool:
        """Whether what is read in 64 bits would not be there any more in 32."""
        if operand.shape.is_tuple:
            return _has_wide(operand.shape)
        return operand.shape.dtype in NARROW and not _fits_narrow(self.intervals[operand], operand.shape.dtype)

    # What cannot be proved

    def _warn(self) -> None:
        right: set[Instruction] = set()
        for computation in reversed(self.flow):
            for instruction in computation.post_order():
                if instruction in self.kept or not self._touches(instruction):
                    continue
                for operand in _demanded(instruction):
                    if operand.shape.dtype in NARROW and operand not in self.kept:
                        self._check(operand, right)
                if instruction.shape.dtype in NARROW and self._low_word_is_right(instruction, right):
                    right.add(instruction)
            if computation.root.shape.dtype in NARROW and computation.root not in self.kept:
                self._check(computation.root, right)

    def _check(self, value: Instruction, right: set[Instruction]) -> None:
        interval = self.intervals[value]
        if value in right and _fits_narrow(interval, value.shape.dtype) or value in self.warned:
            return
        self.warned.add(value)
        value = _origin(value)
        if value in self.reported:
            return
        self.reported.add(value)
        dtype = value.shape.dtype
        self.owner.report(note_at(self.owner.name, value, f"{value.opcode} of {dtype} is computed in {NARROW[dtype]}; "
                                  f"its values are not known to fit", is_warning=True))

    def _low_word_is_right(self, instruction: Instruction, right: set[Instruction]) -> bool:
        """Whether the 32-bit instruction gives the low word of the 64-bit one; what was warned of is not warned of again."""
        wide = [o for o in instruction.operands if o.shape.dtype in NARROW]
        if instruction.opcode in _LOW_WORDS:
            return all(o in right or o in self.warned for o in wide)
        if instruction.opcode == "convert" and not wide:
            return not instruction.operands[0].shape.dtype.is_float
        return True

    # Rewriting

    def _rewrite(self, computation: Computation) -> None:
        builder = Builder(computation)
        widened: dict[Instruction, Instruction] = {}
        for instruction in computation.post_order():
            if not self._touches(instruction) and not any(o in widened for o in instruction.operands):
                continue
            builder.location = instruction.location
            if instruction in self.kept or self._is_mixed(instruction):
                self._widen_operands(instruction, widened, builder)
            else:
                self._narrow(instruction)
        for instruction in list(computation.instructions):
            if instruction.opcode == "convert" and instruction.operands[0].shape.dtype is instruction.shape.dtype:
                computation.replace(instruction, instruction.operands[0])
                computation.remove(instruction)
        settle(computation)

    def _is_mixed(self, instruction: Instruction) -> bool:
        """Reads values of both widths, though it is no wide value itself: indices of one type must stay of one type."""
        wide = [o for o in instruction.operands if o in self.kept and _has_wide(o.shape)]
        return bool(wide) and not _has_wide(instruction.shape) and len(instruction.operands) > 1

    def _widen_operands(self, instruction: Instruction, widened: dict[Instruction, Instruction], builder: Builder) -> None:
        assert instruction.parent is not None
        operands = [o if o in self.kept else self._widened(o, widened, builder) for o in instruction.operands]
        instruction.parent.set_operands(instruction, operands)

    def _widened(self, value: Instruction, widened: dict[Instruction, Instruction], builder: Builder) -> Instruction:
        """A narrowed value in 64 bits again."""
        if not value.shape.is_array or value not in self.narrowed:
            return value
        if value not in widened:
            widened[value] = builder.convert(value, self.narrowed[value])
        return widened[value]

    def _narrow(self, instruction: Instruction) -> None:
        if instruction.opcode == "constant":
            literal: Literal = instruction.attributes["literal"]
            instruction.attributes["literal"] = _narrow_literal(literal)
        if instruction.opcode in _COMBINED:
            instruction.called = tuple(self._combiner(c) for c in instruction.called)
        if instruction.shape.dtype in NARROW:
            self.narrowed[instruction] = instruction.shape.dtype
        instruction.shape = self._shape(instruction)

    def _shape(self, instruction: Instruction) -> Shape:
        """The shape in 32 bits; tuples follow from their elements, which may have kept 64."""
        if instruction.opcode == "tuple":
            return tuple_of(*(o.shape for o in instruction.operands))
        if instruction.opcode == "get-tuple-element":
            return instruction.operands[0].shape.elements[int(instruction.attribute("index"))]
        return _narrow(instruction.shape)

    def _combiner(self, computation: Computation) -> Computation:
        if not any(_has_wide(i.shape) for i in computation.instructions):
            return computation
        if computation not in self.clones:
            names = {c.name for c in self.module.computations}
            clone = clone_computation(computation, self.module.unique_name(f"{computation.name}.narrow", names))
            clone.parent = self.module
            self.module.computations.insert(self.module.computations.index(computation), clone)
            for instruction in clone.post_order():
                self._narrow(instruction)
            self.clones[computation] = clone
        return self.clones[computation]

    # Parameters and results

    def _interface(self) -> None:
        entry = self.module.entry
        for parameter in entry.parameters:
            if parameter in self.narrowed:
                parameter.frontend_attributes.setdefault(INTERFACE, self.narrowed[parameter].name)
        for number, (given, shape) in enumerate(zip(self.result_dtypes, entry.root.shape.leaves(), strict=True)):
            if shape.dtype is not given:
                self.module.frontend_attributes[f"{OUTPUT}{number}"] = given.name
        update_entry_layout(self.module)
        self._update_aliases()

    def _update_aliases(self) -> None:
        """An alias whose two sides differ in size now is dropped."""
        module, entry = self.module, self.module.entry
        kept = []
        for alias in module.aliases:
            source = _part(entry.parameters[alias.parameter].shape, alias.parameter_index)
            target = _part(entry.root.shape, alias.output_index)
            if source.byte_size == target.byte_size:
                kept.append(alias)
            else:
                parameter = entry.parameters[alias.parameter]
                self.owner.report(note_at(self.owner.name, parameter, "no longer shares memory with a result"))
        module.aliases = tuple(kept)


def update_entry_layout(module: Module) -> None:
    """The header's layout of the entry with the element types that the entry has now."""
    if module.entry_layout is not None:
        shapes, result = module.entry_layout
        parameters = [_like(p.shape, s) for p, s in zip(module.entry.parameters, shapes, strict=True)]
        module.entry_layout = tuple(parameters), _like(module.entry.root.shape, result)


def _origin(value: Instruction) -> Instruction:
    """Where a value is computed that was only moved since."""
    while value.opcode in ("reshape", "transpose", "broadcast", "slice", "reverse", "copy", "gather", "dynamic-slice"):
        value = value.operands[0]
    return value


def _exact_operands(instruction: Instruction) -> tuple[Instruction, ...]:
    """Operands of a low-word operator whose whole value matters: indices, counts of shifts."""
    first = {"gather": 1, "dynamic-slice": 1, "dynamic-update-slice": 2, "shift-left": 1}.get(instruction.opcode)
    return instruction.operands[first:] if first is not None else ()


def _demanded(instruction: Instruction) -> Iterable[Instruction]:
    """Operands whose whole value matters."""
    if instruction.opcode in _LOW_WORDS and instruction.shape.dtype in NARROW:
        return _exact_operands(instruction)
    if instruction.opcode == "convert" and instruction.shape.dtype.is_integer and instruction.shape.dtype.bits <= 32:
        return ()
    return instruction.operands



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
