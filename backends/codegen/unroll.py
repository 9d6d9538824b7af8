"""Straight streams for a target whose sequencers have neither registers nor branches.

Before: entries that set registers, call functions and loop. After: no function, and entries in which every call and every
iteration is written out, all addresses and semaphore values being numbers. Waits and signals stay as they are, so the order
of the engines is the same.

A block is expanded for all its iterations at once: registers are arrays with an element an iteration, and one array operation
gives the values of an address in all of them. Instructions that no register touches are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from nxcc.backends.isa.program import Affine, DmaPattern, Engine, Function, Instruction, Operand, Program, Signal, Stream, Wait
from nxcc.backends.isa.structure import Block, Leaf, Node, parse
from nxcc.ir.diagnostics import LIMIT_EXCEEDED, CompileError
from nxcc.ir.facts import dataclass

INSTRUCTIONS_MAX = 1_000_000
"""Instructions of an unrolled program, all engines together; ours: 256 MB of code that the loader would have to keep."""

Numbers = NDArray[np.int64]
Registers = dict[int, Numbers]
Rows = list[list[Instruction]]
"""For each iteration the instructions that it runs, in order."""


def unrolled(program: Program) -> Program:
    """The same program without calls, loops and registers.

    CompileError(LIMIT_EXCEEDED) above INSTRUCTIONS_MAX. Branches on data cannot be unrolled: the partition keeps them away.
    """
    trees: dict[tuple[int, Engine], Block] = {
        (index, engine): parse(stream, _unbalanced, entry=False)
        for index, function in enumerate(program.functions) for engine, stream in function.streams.items()}
    left = [INSTRUCTIONS_MAX]
    entries = [Function(entry.name, {engine: _Unroller(engine, trees, left).entry(stream)
                                     for engine, stream in entry.streams.items()}) for entry in program.entries]
    return replace(program, functions=[], entries=entries)


def _unbalanced(index: int, text: str) -> None:
    raise AssertionError(f"instruction {index}: {text}")


@dataclass
class _Unroller:
    """One engine's part of an entry. left: how many instructions may still be written, shared by all."""

    engine: Engine
    trees: dict[tuple[int, Engine], Block]
    left: list[int]

    def entry(self, stream: Stream) -> Stream:
        root = parse(stream, _unbalanced, entry=True)
        (row,) = self._nodes(root.body, _Way({}, 1))
        return row

    def _nodes(self, nodes: Sequence[Node], way: _Way) -> Rows:
        """All nodes of a block that runs `times` times; registers set in it keep their values for what follows."""
        registers, times = way.registers, way.times
        columns: list[Rows] = []
        for node in nodes:
            if isinstance(node, Block):
                columns.append(self._loop(node, way))
            elif node.instruction.spec.name == "register_set":
                value = node.instruction.fields["value"]
                registers[node.instruction.fields["register"]] = _values(value, registers, times)
            elif node.instruction.spec.name == "register_alu":
                fields = node.instruction.fields
                a, b = (_values(fields[name], registers, times) for name in ("a", "b"))
                registers[fields["register"]] = _ALU[fields["op"]](a, b)
            elif node.instruction.spec.name == "call":
                body = self.trees[node.instruction.fields["function"], self.engine].body
                columns.append(self._nodes(body, replace(way, debug=_debug(node.instruction, way))))
            else:
                columns.append([[one] for one in self._instances(node, way)])
        if not columns:
            return [[] for _ in range(times)]
        if len(columns) == 1:
            return columns[0]
        return [list(chain.from_iterable(parts)) for parts in zip(*columns, strict=True)]

    def _loop(self, block: Block, way: _Way) -> Rows:
        opener, times = block.opener, way.times
        assert opener is not None and opener.spec.name == "loop", "only counted loops are unrolled"
        assert not opener.waits and not opener.signals
        trips = np.maximum(_values(opener.fields["count"], way.registers, times), 0)
        ends = np.cumsum(trips)
        total = int(ends[-1]) if times else 0
        if total == 0:
            return [[] for _ in range(times)]
        inner = {register: np.repeat(values, trips) for register, values in way.registers.items()}
        turns = inner[opener.fields["register"]] = np.arange(total, dtype=np.int64) - np.repeat(ends - trips, trips)
        debug = None if way.debug is None else np.repeat(way.debug, trips)
        rows = self._nodes(block.body, _Way(inner, total, turns, debug))
        return [list(chain.from_iterable(rows[end - count:end]))
                for end, count in zip(ends.tolist(), trips.tolist(), strict=True)]

    def _instances(self, leaf: Leaf, way: _Way) -> list[Instruction]:
        """One instruction as it is in each iteration."""
        registers, times = way.registers, way.times
        self.left[0] -= times
        if self.left[0] < 0:
            raise CompileError(LIMIT_EXCEEDED, f"the unrolled program has more than {INSTRUCTIONS_MAX} instructions",
                               why="this target has no loops: each repetition is written out",
                               remedy="use a smaller batch or shape, or keep part of the model on the host with --keep-on-host")
        one = leaf.instruction
        waits, signals = _waits(one, registers, times), _signals(one, registers, times)
        operands = _operands(one, registers, times)
        fields = _fields(one, registers, times)
        debug = [one.debug] * times if way.debug is None or one.debug < 0 else way.debug.tolist()
        if waits is None and signals is None and operands is None and fields is None:
            same = {at: one if at == one.debug else Instruction(one.spec, one.operands, one.fields, one.waits, one.signals, at)
                    for at in set(debug)}
            return [same[at] for at in debug]
        return [Instruction(one.spec, operands(i) if operands else one.operands, fields(i) if fields else one.fields,
                            waits[i] if waits else one.waits, signals[i] if signals else one.signals, debug[i])
                for i in range(times)]


@dataclass(frozen=True, slots=True)
class _Way:
    """How a block is come to: the registers in each of the `times` times that it runs, the turn of the innermost loop, and the
    debug index of the call that led here; None where there is none."""

    registers: Registers
    times: int
    turns: Numbers | None = None
    debug: Numbers | None = None


_ALU: dict[str, Callable[[Numbers, Numbers], Numbers]] = {
    "modulo": np.mod, "minimum": np.minimum, "and": np.bitwise_and, "less": lambda a, b: np.less(a, b).astype(np.int64),
    "equal": lambda a, b: np.equal(a, b).astype(np.int64)}
"""Operators of addresses that repeat; others need data, and the partition keeps those away."""


def _debug(call: Instruction, way: _Way) -> Numbers | None:
    """The debug index of a call in each iteration: code that several calls share belongs to the instruction of each."""
    if call.debug < 0:
        return way.debug
    step = int(call.fields.get("debug_step", 0))
    turns = way.turns if way.turns is not None else np.zeros(way.times, np.int64)
    return call.debug + step * turns


def _values(value: Affine, registers: Registers, times: int) -> Numbers:
    """The value in each iteration."""
    found = np.full(times, value.constant, np.int64)
    for register, coefficient in value.terms:
        found += registers[register] * coefficient
    return found


def _affines(value: Affine, registers: Registers, times: int) -> list[Affine]:
    return [Affine(number) for number in _values(value, registers, times).tolist()]


def _waits(one: Instruction, registers: Registers, times: int) -> list[tuple[Wait, ...]] | None:
    if all(wait.index.is_constant and wait.value.is_constant for wait in one.waits):
        return None
    columns = [[Wait(index, value) for index, value in zip(_affines(wait.index, registers, times),
                                                           _affines(wait.value, registers, times), strict=True)]
               for wait in one.waits]
    return list(zip(*columns, strict=True))


def _signals(one: Instruction, registers: Registers, times: int) -> list[tuple[Signal, ...]] | None:
    if all(signal.index.is_constant for signal in one.signals):
        return None
    columns = [[Signal(index, signal.amount) for index in _affines(signal.index, registers, times)] for signal in one.signals]
    return list(zip(*columns, strict=True))


def _operands(one: Instruction, registers: Registers, times: int) -> Callable[[int], dict[str, Operand]] | None:
    moving = {name: operand for name, operand in one.operands.items() if _place(operand).terms}
    if not moving:
        return None
    placed = {name: [_at(operand, place) for place in _affines(_place(operand), registers, times)]
              for name, operand in moving.items()}
    return lambda i: one.operands | {name: rows[i] for name, rows in placed.items()}


def _place(operand: Operand) -> Affine:
    return operand.address if isinstance(operand, DmaPattern) else operand.offset


def _at(operand: Operand, place: Affine) -> Operand:
    return replace(operand, address=place) if isinstance(operand, DmaPattern) else replace(operand, offset=place)


def _fields(one: Instruction, registers: Registers, times: int) -> Callable[[int], dict[str, object]] | None:
    moving = {name: value for name, value in one.fields.items() if isinstance(value, Affine) and value.terms}
    if not moving:
        return None
    values = {name: _affines(value, registers, times) for name, value in moving.items()}
    return lambda i: one.fields | {name: rows[i] for name, rows in values.items()}
