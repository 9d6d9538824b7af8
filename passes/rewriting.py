"""Local rewriting: rules as values, and the worklist that applies them until none fits.

A rule looks at one instruction and what it reads, and returns what stands for it from then on, made by the builder over
values that exist already. Every rule must bring a module nearer to one normal form, so that rewriting ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.location import NOWHERE
from nxcc.passes.effects import anchors, is_pinned

MAX_STEPS_PER_INSTRUCTION = 64
"""Rewrites that one pass may make for each instruction it starts with; more means rules that undo each other."""

GIVES_UP = True
"""Whether such rules just stop, which leaves a right module that is not in normal form. Tests say no, to hear of them."""

Rewrite = Callable[[Instruction, Builder], Instruction | None]
"""rewrite(instruction, builder) -> what its users read from now on, or None if the rule does not fit."""


@dataclass(frozen=True)
class Rule:
    """One rewriting step: `name` for tests and reports, the opcodes it looks at, and what it does."""

    name: str
    opcodes: tuple[str, ...]
    rewrite: Rewrite


class _Recorder(Builder):
    """A builder that remembers what it made, so that new instructions are rewritten too."""

    def __init__(self, computation: Computation, names: Names | None) -> None:
        super().__init__(computation, names=names)
        self.made: list[Instruction] = []

    def make(self, opcode: str, *operands: Instruction, **rest: Any) -> Instruction:
        made = super().make(opcode, *operands, **rest)
        self.made.append(made)
        return made


def rules_by_opcode(rules: Iterable[Rule]) -> dict[str, tuple[Rule, ...]]:
    """The rules that look at each opcode, in their order."""
    found: dict[str, list[Rule]] = {}
    for rule in rules:
        for opcode in rule.opcodes:
            found.setdefault(opcode, []).append(rule)
    return {opcode: tuple(group) for opcode, group in found.items()}


def rewrite_module(module: Module, rules: dict[str, tuple[Rule, ...]]) -> bool:
    """Apply rules in every computation that runs instruction by instruction; whether anything changed."""
    changed, names = False, Names(module)
    for computation in flow_computations(module):
        changed |= rewrite_computation(computation, rules, names)
    return changed


def flow_computations(module: Module) -> list[Computation]:
    """The entry, and what loops, conditionals and calls run; combiners of reductions and the like are left alone."""
    found = {module.entry: None}
    stack = [module.entry]
    while stack:
        for instruction in stack.pop().instructions:
            if instruction.called and instruction.opcode in ("while", "conditional", "call", "async-start"):
                fresh = [c for c in instruction.called if c not in found]
                found.update(dict.fromkeys(fresh))
                stack.extend(fresh)
    return list(found)


def rewrite_computation(computation: Computation, rules: dict[str, tuple[Rule, ...]], names: Names | None = None) -> bool:
    """Apply rules until none fits; what nobody reads any more is removed; order is post-order afterwards.

    names: of the module, where more of its computations are rewritten.
    """
    builder = _Recorder(computation, names)
    kept = anchors(computation)
    order = computation.post_order()
    waiting = deque([instruction for instruction in order if instruction.opcode in rules])
    queued = set(waiting)
    steps = MAX_STEPS_PER_INSTRUCTION * len(order)
    changed = False
    while waiting:
        instruction = waiting.popleft()
        queued.discard(instruction)
        group = rules[instruction.opcode]
        if instruction.parent is None or instruction in kept or not _is_plain(instruction):
            continue
        builder.location = instruction.location
        result = _first(group, instruction, builder)
        if result is None:
            if builder.made:
                remove_unread(computation, builder.made)
                builder.made.clear()
            continue
        steps -= 1
        if not steps:
            assert GIVES_UP, f"rules do not come to an end at {instruction}"
            remove_unread(computation, builder.made)
            break
        changed = True
        _take_over(instruction, result)
        fresh = [*builder.made, result, *result.users]
        builder.made.clear()
        computation.replace(instruction, result)
        remove_unread(computation, [instruction], kept)
        fresh += result.users
        for row in fresh:
            if row not in queued and row.parent is not None and row.opcode in rules:
                queued.add(row)
                waiting.append(row)
    if changed:
        settle(computation)
    return changed


def _first(group: Sequence[Rule], instruction: Instruction, builder: Builder) -> Instruction | None:
    for rule in group:
        result = rule.rewrite(instruction, builder)
        if result is not None:
            return result
    return None


def _is_plain(instruction: Instruction) -> bool:
    """Static shapes and no ordering: what rules may assume."""
    if instruction.control_predecessors or instruction.shape.dynamic:
        return False
    return all(not operand.shape.dynamic for operand in instruction.operands)


def _take_over(old: Instruction, new: Instruction) -> None:
    """What the framework said about a value goes with it."""
    if new.location == NOWHERE:
        new.location = old.location


def remove_unread(computation: Computation, starts: Iterable[Instruction], kept: set[Instruction] | None = None) -> bool:
    """Remove those of the instructions that nobody reads, and what only they read; whether there were any."""
    stack = list(starts)
    removed = False
    while stack:
        instruction = stack.pop()
        if instruction.users or instruction is computation.root or instruction.parent is not computation:
            continue
        if is_pinned(instruction) or kept and instruction in kept:
            continue
        operands = instruction.operands
        computation.remove(instruction)
        stack.extend(operands)
        removed = True
    return removed


def settle(computation: Computation) -> None:
    """Put a rewritten computation into post-order; a schedule that the input had is no longer one."""
    computation.sort()
    if computation.parent is not None:
        computation.parent.is_scheduled = False
