"""Whether two modules say the same, and if not, where they first differ: the judge of round trips through text and binary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.text.completion import default_comparison
from nxcc.ir.hlo.text.header import entry_layout, frame_chain
from nxcc.ir.hlo.text.order import instruction_order
from nxcc.ir.literals import Literal
from nxcc.ir.shapes import Shape, row_major, shape_text

_OPTIONS = ("is_scheduled", "aliases", "buffer_donors", "frontend_attributes")
_COUNTS = ("replica_count", "num_partitions")
_NOTES = ("frontend_attributes", "backend_config", "sharding", "statistics", "origin")


def modules_equal(a: Module, b: Module, *, names: bool = True, notes: bool = True, counts: bool = True) -> str | None:
    """The first difference in words, or None if there is none.

    Instructions are paired in the order in which XLA prints and serializes them (scheduled modules: in their own order),
    so that definition order does not matter; layouts are compared, a missing one being row-major; literals bit by bit.
    names: instruction and computation names must agree. notes: metadata, sharding, frontend attributes, backend config.
    counts: replica and partition counts, which binary modules do not hold.
    """
    first, second = _computation_order(a), _computation_order(b)
    if len(first) != len(second):
        return f"{len(first)} computations against {len(second)}"
    pairs = dict(zip(first, second, strict=True))
    difference = _headers(a, b, counts)
    if difference is None and pairs.get(a.entry) is not b.entry:
        difference = f"the entry is {a.entry.name} against {b.entry.name}"
    if difference is not None:
        return difference
    for left, right in pairs.items():
        difference = _computations(left, right, pairs, names, notes, a.is_scheduled)
        if difference is not None:
            return f"computation {left.name}: {difference}"
    return None


def _computation_order(module: Module) -> list[Computation]:
    """The entry and what it calls, in an order that does not depend on definition order; then the rest likewise."""
    called = {c for i in module.instructions() for c in i.called}
    order: dict[Computation, None] = {}
    for start in (module.entry, *(c for c in module.computations if c not in called)):
        pending = [start]
        while pending:
            computation = pending.pop()
            if computation not in order:
                order[computation] = None
                instructions = _instruction_order(computation, module.is_scheduled)
                pending += [c for i in reversed(instructions) for c in reversed(i.called)]
    return list(order)


def _instruction_order(computation: Computation, scheduled: bool) -> list[Instruction]:
    keeps_order = scheduled and not computation.is_fusion
    return list(computation.instructions) if keeps_order else instruction_order(computation)


def _headers(a: Module, b: Module, counts: bool) -> str | None:
    for field in ("name", *_OPTIONS, *(_COUNTS if counts else ())):
        left, right = getattr(a, field), getattr(b, field)
        if left != right:
            return f"{field} is {left!r} against {right!r}"
    return _shapes(_layout_shapes(a), _layout_shapes(b), "entry layout")


def _layout_shapes(module: Module) -> list[Shape]:
    parameters, result = entry_layout(module)
    return [*parameters, result]


def _shapes(left: Iterable[Shape], right: Iterable[Shape], what: str) -> str | None:
    texts = [list(map(_full_text, shapes)) for shapes in (left, right)]
    if len(texts[0]) != len(texts[1]):
        return f"{what} has {len(texts[0])} shapes against {len(texts[1])}"
    for one, other in zip(*texts, strict=True):
        if one != other:
            return f"{what} is {one} against {other}"
    return None


def _full_text(shape: Shape) -> str:
    return shape_text(_with_layouts(shape))


def _with_layouts(shape: Shape) -> Shape:
    if shape.is_array:
        return shape if shape.layout is not None else Shape(shape.dtype, shape.dims, (), shape.dynamic, row_major(shape.rank))
    return Shape(shape.dtype, shape.dims, tuple(map(_with_layouts, shape.elements)), shape.dynamic)


def _computations(a: Computation, b: Computation, computations: dict[Computation, Computation], names: bool, notes: bool,
                  scheduled: bool) -> str | None:
    if names and a.name != b.name:
        return f"named {a.name} against {b.name}"
    if (a.execution_thread or "main") != (b.execution_thread or "main"):
        return f"execution thread {a.execution_thread!r} against {b.execution_thread!r}"
    first, second = _instruction_order(a, scheduled), _instruction_order(b, scheduled)
    if len(first) != len(second):
        return f"{len(first)} instructions against {len(second)}"
    pairs = dict(zip(first, second, strict=True))
    if pairs[a.root] is not b.root:
        return f"root {a.root.name} against {b.root.name}"
    for left, right in pairs.items():
        difference = _instructions(left, right, pairs, computations, notes)
        if difference is None and names and left.name != right.name:
            difference = f"named {left.name} against {right.name}"
        if difference is not None:
            return f"instruction {left.name}: {difference}"
    return None


def _instructions(a: Instruction, b: Instruction, pairs: dict[Instruction, Instruction],
                  computations: dict[Computation, Computation], notes: bool) -> str | None:
    if a.operator is not b.operator:
        return f"{a.opcode} against {b.opcode}"
    for what in ("operands", "control_predecessors"):
        left, right = getattr(a, what), getattr(b, what)
        if [pairs.get(o) for o in left] != list(right):
            return f"{what} {[o.name for o in left]} against {[o.name for o in right]}"
    if [computations.get(c) for c in a.called] != list(b.called):
        return f"calls {[c.name for c in a.called]} against {[c.name for c in b.called]}"
    return _shapes([a.shape], [b.shape], "shape") or _attributes(a, b) or (_notes(a, b) if notes else None)


def _attributes(a: Instruction, b: Instruction) -> str | None:
    for key in sorted({*a.attributes, *b.attributes}):
        left, right = _value(a, key), _value(b, key)
        if isinstance(left, Literal) and isinstance(right, Literal):
            difference = literals_equal(left, right)
            if difference is not None:
                return f"{key}: {difference}"
        elif left != right:
            return f"{key} is {left!r} against {right!r}"
    return None


def _value(instruction: Instruction, key: str) -> Any:
    """The attribute or its default; a comparison type that the operands imply and an associativity denied count as absent."""
    value = instruction.attributes.get(key)
    if value is None:
        value = instruction.operator.defaults.get(key)
    if key == "type" and value == default_comparison(instruction.operands[0].shape):
        return ""
    if key == "is_associative" and value == "false":
        return ""
    if isinstance(value, Shape):
        return _full_text(value)
    if isinstance(value, tuple) and value and isinstance(value[0], Shape):
        return tuple(map(_full_text, value))
    return value


def _notes(a: Instruction, b: Instruction) -> str | None:
    """Notes; stack frames by what they say, as every writer numbers them anew."""
    if replace(a.location, stack_frame_id=0) != replace(b.location, stack_frame_id=0):
        return f"location is {a.location!r} against {b.location!r}"
    chains = [_frames(i) for i in (a, b)]
    if chains[0] != chains[1]:
        return f"stack frames are {chains[0]} against {chains[1]}"
    for field in _NOTES:
        left, right = getattr(a, field), getattr(b, field)
        if left != right:
            return f"{field} is {left!r} against {right!r}"
    return None


def _frames(instruction: Instruction) -> tuple[str, ...]:
    computation = instruction.parent
    if not instruction.location.stack_frame_id or computation is None or computation.parent is None:
        return ()
    return frame_chain(computation.parent.stack_frames, instruction.location.stack_frame_id)


def literals_equal(a: Literal, b: Literal) -> str | None:
    """The first difference of two literals, NaN payloads and the sign of zero included, or None."""
    if a.shape != b.shape:
        return f"literal of {a.shape} against {b.shape}"
    if a.shape.is_tuple:
        return next(filter(None, map(literals_equal, a.elements, b.elements)), None)
    if a.shape.element_count == 0:
        return None
    left, right = (np.ascontiguousarray(x.array).reshape(-1) for x in (a, b))
    unequal = left.view(np.uint8).reshape(left.size, -1) != right.view(np.uint8).reshape(right.size, -1)
    different = np.flatnonzero(unequal.any(axis=1))
    if not different.size:
        return None
    index = int(different[0])
    return f"{different.size} of {left.size} values differ, first [{index}]: {left[index]} against {right[index]}"
