"""Dissolve what only groups or orders instructions: calls, fusions of the input, asynchronous pairs, barriers.

Before:
  d = f32[4] call(x), to_apply=f    s = ((f32[4]), f32[4], u32[]) async-start(d), calls=g    e = f32[4] async-done(s)
  b = f32[4] opt-barrier(e)    ROOT r = f32[4] copy-done(copy-start(b))
After:
  the instructions of f over x, those of g over them, and what read r reads the last of them

Control dependencies go where nothing in the module has a side effect; else only what has one keeps them. A choice between
tuples is one between their elements. A buffer is the array that it holds, and a marker on an array is that array. An
asynchronous start whose result is read by anything but its own chain stays, and so does what one of our own passes outlined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nxcc.ir.diagnostics import LIMIT_EXCEEDED, CompileError
from nxcc.ir.dtypes import BUFFER
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names, inline_call
from nxcc.ir.hlo.marks import OURS
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.ops.opaque import TARGETS
from nxcc.ir.shapes import Shape, tuple_of
from nxcc.passes.dead_code import remove_uncalled
from nxcc.passes.effects import has_side_effect, is_ordered
from nxcc.passes.rewriting import remove_unread, settle

MAX_INSTRUCTIONS = 1 << 18
"""Of a computation after inlining: calls of calls of calls double it at every level."""


@dataclass(frozen=True)
class InlineCalls:
    name: str = "inline-calls"

    def run(self, module: Module) -> bool:
        changed = _hold_arrays(module)
        ordered, names = is_ordered(module), Names(module)
        # callees first, so that what is inlined has been dissolved already
        for computation in module.reachable():
            changed |= _dissolve(Builder(computation, names=names), ordered)
        return remove_uncalled(module) or changed


def _hold_arrays(module: Module) -> bool:
    """A buffer is the array that it holds: values here have memory of their own in any case."""
    shapes = {id(i.shape): i.shape for i in module.instructions()}
    buffers = {number: shape for number, shape in shapes.items() if any(part.dtype is BUFFER for part in _parts(shape))}
    changed = bool(buffers)
    for instruction in module.instructions() if changed else ():
        if id(instruction.shape) in buffers:
            instruction.shape = _held(instruction.shape)
    if changed and module.entry_layout is not None:
        parameters, result = module.entry_layout
        module.entry_layout = tuple(map(_held, parameters)), _held(result)
    return changed


def _parts(shape: Shape) -> Iterator[Shape]:
    yield shape
    for element in shape.elements:
        yield from _parts(element)


def _held(shape: Shape) -> Shape:
    if shape.dtype is BUFFER:
        return shape.elements[0]
    return tuple_of(*map(_held, shape.elements)) if shape.is_tuple else shape


def _dissolve(builder: Builder, ordered: bool) -> bool:
    computation = builder.computation
    changed = _order_effects(computation) if ordered else _drop_order(computation)
    for instruction in list(computation.instructions):
        rule = _RULES.get(instruction.opcode)
        if rule is None or instruction.parent is None or ordered and _is_bound(instruction):
            continue
        builder.location = instruction.location
        changed |= rule(instruction, builder)
    if changed:
        settle(computation)
    return changed


def _drop_order(computation: Computation) -> bool:
    found = [i for i in computation.instructions if i.control_predecessors]
    for instruction in found:
        instruction.control_predecessors = ()
    return bool(found)


def _order_effects(computation: Computation) -> bool:
    """Only what has side effects stays ordered, by what came before it directly or through others."""
    bound = [i for i in computation.instructions if i.control_predecessors]
    if all(has_side_effect(i) and all(map(has_side_effect, i.control_predecessors)) for i in bound):
        return False
    before: dict[Instruction, dict[Instruction, None]] = {}
    for instruction in _in_order(computation):
        found: dict[Instruction, None] = {}
        for earlier in instruction.control_predecessors:
            found |= {earlier: None} if has_side_effect(earlier) else before[earlier]
        for operand in instruction.operands:
            found |= {} if has_side_effect(operand) else before[operand]
        before[instruction] = found
    for instruction in computation.instructions:
        instruction.control_predecessors = tuple(before[instruction]) if has_side_effect(instruction) else ()
    return True


def _in_order(computation: Computation) -> list[Instruction]:
    """Operands and control predecessors before their users."""
    order: dict[Instruction, None] = {}
    for start in computation.instructions:
        stack = [start]
        while stack:
            waiting = [i for i in (*stack[-1].operands, *stack[-1].control_predecessors) if i not in order]
            if waiting:
                stack += waiting
            else:
                order[stack.pop()] = None
    return list(order)


def _is_bound(instruction: Instruction) -> bool:
    if instruction.control_predecessors:
        return True
    assert instruction.parent is not None
    return any(instruction in other.control_predecessors for other in instruction.parent.instructions)


def _inline(instruction: Instruction, builder: Builder) -> bool:
    if any(key.startswith(OURS) for key in instruction.frontend_attributes):
        return False
    _inline_call(instruction, builder)
    return True


def _inline_call(call: Instruction, builder: Builder) -> None:
    """Raises CompileError(LIMIT_EXCEEDED) rather than let nested calls grow without bound."""
    count = len(builder.computation.instructions) + len(call.called[0].instructions)
    if count > MAX_INSTRUCTIONS:
        raise CompileError(LIMIT_EXCEEDED, f"inlining makes {builder.computation.name} longer than {MAX_INSTRUCTIONS} "
                           "instructions", call.name, str(call.location), remedy="call the computation from a loop")
    inline_call(call, builder)


def _pass_through(instruction: Instruction, builder: Builder) -> bool:
    """The first operand stands for the result."""
    builder.computation.replace(instruction, instruction.operands[0])
    remove_unread(builder.computation, [instruction])
    return True


def _copy_done(instruction: Instruction, builder: Builder) -> bool:
    start = instruction.operands[0]
    if start.opcode != "copy-start":
        return False
    builder.computation.replace(instruction, start.operands[0])
    remove_unread(builder.computation, [instruction])
    return True


def _async_done(instruction: Instruction, builder: Builder) -> bool:
    """A call in the place of the pair, inlined."""
    chain = [instruction]
    while chain[-1].opcode in ("async-done", "async-update"):
        chain.append(chain[-1].operands[0])
    start = chain[-1]
    if start.opcode != "async-start" or any(len(link.users) != 1 for link in chain[1:]):
        return False
    call = builder.make("call", *start.operands, called=start.called, shape=instruction.shape)
    builder.computation.replace(instruction, call)
    remove_unread(builder.computation, [instruction])
    _inline_call(call, builder)
    return True


def _choose_elements(instruction: Instruction, builder: Builder) -> bool:
    """A choice between tuples is one between their elements; other choices stay."""
    if not instruction.shape.is_tuple:
        return False
    builder.computation.replace(instruction, _chosen(builder, *instruction.operands))
    remove_unread(builder.computation, [instruction])
    return True


def _chosen(builder: Builder, predicate: Instruction, first: Instruction, second: Instruction) -> Instruction:
    if not first.shape.is_tuple:
        return builder.make("select", predicate, first, second)
    pairs = [[builder.get_tuple_element(side, index) for side in (first, second)] for index in range(len(first.shape.elements))]
    return builder.tuple(*(_chosen(builder, predicate, *pair) for pair in pairs))


def _identity_call(instruction: Instruction, builder: Builder) -> bool:
    """A marker that hands an array on."""
    if not _is_marker(instruction) or has_side_effect(instruction):
        return False
    operand, shape = instruction.operands[0].shape, instruction.shape
    alike = (operand.dtype, operand.dims, operand.dynamic) == (shape.dtype, shape.dims, shape.dynamic)
    return alike and shape.is_array and _pass_through(instruction, builder)


def _is_marker(instruction: Instruction) -> bool:
    if instruction.opcode != "custom-call" or len(instruction.operands) != 1:
        return False
    row = TARGETS.get(instruction.attribute("custom_call_target"))
    return row is not None and row.identity


_RULES: dict[str, Callable[[Instruction, Builder], bool]] = {
    "call": _inline,
    "fusion": _inline,
    "opt-barrier": _pass_through,
    "domain": _pass_through,
    "add-dependency": _pass_through,
    "copy-done": _copy_done,
    "async-done": _async_done,
    "select": _choose_elements,
    "custom-call": _identity_call,
}
