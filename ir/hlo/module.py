"""The HLO module in memory: static, typed, SSA, with nested computations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import TYPE_CHECKING, Any

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import IoAlias
from nxcc.ir.location import NOWHERE, Location
from nxcc.ir.shapes import Shape

if TYPE_CHECKING:
    from nxcc.ir.hlo.operator import Operator


class Instruction:
    """One instruction.

    operator: its declaration. attributes: values by Attribute.key; absent means the declared default (see `attribute`).
    called: called computations in protobuf order (while: body, condition; conditional: branches in order).
    users: the instructions that read it, in order of first use; kept by Computation, never written elsewhere.
    frontend_attributes, backend_config (bytes), sharding, control_predecessors, statistics and origin are common to all.
    """

    __slots__ = ("name", "operator", "opcode", "shape", "operands", "attributes", "called", "location", "users", "parent",
                 "frontend_attributes", "backend_config", "sharding", "control_predecessors", "statistics", "origin")

    def __init__(self, name: str, operator: Operator, shape: Shape, operands: Iterable[Instruction] = (),
                 attributes: dict[str, Any] | None = None, called: Iterable[Computation] = (),
                 location: Location = NOWHERE) -> None:
        self.name = name
        self.operator = operator
        self.opcode = operator.name
        self.shape = shape
        self.operands: tuple[Instruction, ...] = tuple(operands)
        self.attributes: dict[str, Any] = attributes if attributes is not None else {}
        self.called: tuple[Computation, ...] = tuple(called)
        self.location = location
        self.users: dict[Instruction, None] = {}
        self.parent: Computation | None = None
        self.frontend_attributes: dict[str, str] = {}
        self.backend_config: bytes = b""
        self.sharding: Any = None
        self.control_predecessors: tuple[Instruction, ...] = ()
        self.statistics: str = ""
        self.origin: str = ""

    def attribute(self, key: str) -> Any:
        """The value of an attribute, or its declared default."""
        value = self.attributes.get(key)
        return self.operator.defaults[key] if value is None else value

    def __repr__(self) -> str:
        return f"%{self.name} = {self.shape} {self.opcode}({', '.join('%' + o.name for o in self.operands)})"


WIDE = 256
"""Operands from which on one is replaced alone: tuples may have ten thousand, each of which is replaced once."""


class Computation:
    """A list of instructions in which operands come before users, with one root.

    `instructions` keeps definition order; after rewriting, `post_order()` is the order to trust. It is written here only, so
    that it is known whether operands still come before users.
    """

    __slots__ = ("name", "instructions", "root", "parent", "execution_thread", "is_fusion", "_is_in_order")

    def __init__(self, name: str) -> None:
        self.name = name
        self.instructions: dict[Instruction, None] = {}
        self.root: Instruction = None  # type: ignore[assignment]  # set before the computation is used
        self.parent: Module | None = None
        self.execution_thread = ""
        self.is_fusion = False
        self._is_in_order = True

    def arrange(self, order: Iterable[Instruction]) -> None:
        """Another definition order of the same instructions."""
        self.instructions = dict.fromkeys(order)
        self._is_in_order = False

    def add(self, instruction: Instruction) -> Instruction:
        """Append an instruction whose operands are already here; the last one added is the root until set otherwise."""
        self.instructions[instruction] = None
        instruction.parent = self
        for operand in instruction.operands:
            operand.users[instruction] = None
        return instruction

    def set_operands(self, instruction: Instruction, operands: Iterable[Instruction]) -> None:
        """Replace all operands, keeping user lists true."""
        for old in instruction.operands:
            old.users.pop(instruction, None)
        instruction.operands = tuple(operands)
        for new in instruction.operands:
            new.users[instruction] = None
        self._is_in_order = False

    def replace(self, old: Instruction, new: Instruction) -> None:
        """Let every user of `old` (and the root) read `new`; `old` stays until removed. Users keep their order."""
        assert old is not new
        for user in list(old.users):
            if user is new:
                continue
            if len(user.operands) > WIDE:
                self._replace_operand(user, old, new)
            else:
                self.set_operands(user, (new if o is old else o for o in user.operands))
        if self.root is old:
            self.root = new

    def _replace_operand(self, user: Instruction, old: Instruction, new: Instruction) -> None:
        """One operand of a wide instruction; the others are not touched."""
        operands = list(user.operands)
        while old in operands:
            operands[operands.index(old)] = new
        user.operands = tuple(operands)
        old.users.pop(user)
        new.users[user] = None
        self._is_in_order = False

    def remove(self, instruction: Instruction) -> None:
        """Remove an instruction that nobody reads."""
        assert not instruction.users and instruction is not self.root, f"{instruction} is still used"
        for operand in instruction.operands:
            operand.users.pop(instruction, None)
        del self.instructions[instruction]
        instruction.parent = None

    @property
    def parameters(self) -> list[Instruction]:
        """Parameter instructions by number."""
        found = [i for i in self.instructions if i.opcode == "parameter"]
        return sorted(found, key=lambda i: int(i.attributes["parameter_number"]))

    def post_order(self) -> list[Instruction]:
        """All instructions, operands before users, stable with respect to definition order; iterative."""
        return list(self.instructions) if self._is_in_order else operands_first(self.instructions)

    def sort(self) -> None:
        """Put `instructions` into post-order."""
        if not self._is_in_order:
            self.instructions = dict.fromkeys(self.post_order())
            self._is_in_order = True

    def __repr__(self) -> str:
        return f"Computation({self.name}, {len(self.instructions)} instructions)"


LayerNames = dict[str, tuple[str, Location]]
"""Name and location of an instruction's like, by the instruction's name."""


@dataclass
class Module:
    """A module: computations (callees before callers), the entry, and what the header says.

    entry_layout: entry_computation_layout as (parameter shapes, result shape) with layouts, if the input had one.
    stack_frames: tables that Location.stack_frame_id points into, as text rows, verbatim. layers: while equal layers are one
    computation, what its instructions are called in each call, by the call's name.
    """

    name: str
    computations: list[Computation] = field(default_factory=list)
    entry: Computation = None  # type: ignore[assignment]  # set by the reader or builder
    is_scheduled: bool = False
    aliases: tuple[IoAlias, ...] = ()
    buffer_donors: tuple[tuple[int, tuple[int, ...]], ...] = ()
    entry_layout: tuple[tuple[Shape, ...], Shape] | None = None
    replica_count: int = 1
    num_partitions: int = 1
    frontend_attributes: dict[str, str] = field(default_factory=dict)
    header: dict[str, str] = field(default_factory=dict)
    stack_frames: Any = None
    layers: dict[Computation, dict[str, LayerNames]] = field(default_factory=dict)

    def add(self, computation: Computation, entry: bool = False) -> Computation:
        self.computations.append(computation)
        computation.parent = self
        if entry:
            self.entry = computation
        return computation

    def instructions(self) -> Iterator[Instruction]:
        for computation in self.computations:
            yield from computation.instructions

    def reachable(self) -> list[Computation]:
        """Computations reachable from the entry, callees before callers; iterative."""
        return callees_first((self.entry,))

    def unique_name(self, base: str, taken: set[str]) -> str:
        """`base`, or `base.1`, `base.2` ...; adds it to `taken`."""
        name, number = base, 0
        while name in taken:
            number += 1
            name = f"{base}.{number}"
        taken.add(name)
        return name


def operands_first(starts: Iterable[Instruction]) -> list[Instruction]:
    """These instructions and all that they depend on, operands before users, stable with respect to their order; iterative."""
    order: list[Instruction] = []
    done: set[Instruction] = set()
    for start in starts:
        if start in done:
            continue
        done.add(start)
        if done.issuperset(start.operands):
            # Definition order is post-order nearly everywhere.
            order.append(start)
            continue
        stack: list[tuple[Instruction, Iterator[Instruction]]] = [(start, iter(start.operands))]
        while stack:
            node, rest = stack[-1]
            for operand in rest:
                if operand not in done:
                    done.add(operand)
                    stack.append((operand, iter(operand.operands)))
                    break
            else:
                order.append(node)
                stack.pop()
    return order


def callees_first(starts: Iterable[Computation]) -> list[Computation]:
    """The computations and what they call, callees before callers; iterative."""
    order: list[Computation] = []
    seen: set[Computation] = set()
    for start in starts:
        if start in seen:
            continue
        seen.add(start)
        stack: list[tuple[Computation, Iterator[Computation]]] = [(start, _callees(start))]
        while stack:
            node, rest = stack[-1]
            for callee in rest:
                if callee not in seen:
                    seen.add(callee)
                    stack.append((callee, _callees(callee)))
                    break
            else:
                order.append(node)
                stack.pop()
    return order


def _callees(computation: Computation) -> Iterator[Computation]:
    for instruction in computation.instructions:
        yield from instruction.called
