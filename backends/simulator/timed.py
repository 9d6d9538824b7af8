"""Streams prepared for timing: flat rows of steps with branch targets, and what each instruction costs, worked out once.

A step is a tuple that begins with its kind; the layouts are said at the constants below. All times are ticks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from nxcc.backends import cost
from nxcc.backends.isa.layout import is_trigger
from nxcc.backends.isa.program import (
    AccessPattern,
    Affine,
    DmaPattern,
    Engine,
    Function,
    Instruction,
    Memory,
    Program,
    Stream,
)
from nxcc.backends.simulator.engines.control import REGISTER_ALU
from nxcc.backends.target import Target
from nxcc.ir.diagnostics import PROGRAM_INVALID, CompileError
from nxcc.ir.facts import dataclass

Step = tuple[Any, ...]
Terms = tuple[tuple[int, int], ...]

# Kinds of steps and what follows the kind in the tuple.
WORK = 0
"""busy, latency, reads, writes, ports, signals (semaphore, amount), computed signals, slot, activation function, Trigger"""
WAIT = 1
"""semaphore (constant, terms), value (constant, terms)"""
SET = 2
"""ticks, register, constant, terms"""
ALU = 3
"""ticks, register, compute, a (constant, terms), b (constant, terms)"""
LOOP = 4
"""ticks, register, count (constant, terms), first step behind the end"""
AGAIN = 5
"""ticks if the loop goes on, ticks if it ends"""
WHILE = 6
"""number among the whiles of its stream"""
REPEAT = 7
"""ticks"""
LEAVE = 8
"""ticks if it leaves, ticks if not, register, first step behind the end of the while"""
IF = 9
"""ticks if taken, ticks if not, register, step of the other arm or the end"""
JUMP = 10
"""ticks, step"""
CALL = 11
"""ticks, function, debug index, register of the loop around it, how far the index moves in each of its turns"""
RETURN = 12
"""ticks"""
HALT = 13
""""""
LOAD = 14
"""register: its value comes from memory; the sequencer goes on when the step before is over"""
REGION = 15
"""debug index of what follows in an entry's own stream"""

Extent = tuple[int, int, int, int, int, Terms, bool]
"""A compute operand: memory, partitions (first, end), bytes (first, end), register terms of the bytes, and whether it is
streamed: an element an element of work, so that its first is read or written long before its last."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """A transfer. hbm_bytes: of HBM that are read and written."""

    queue: int
    first: int
    engines: int
    data: int
    interval: int
    bytes: int
    hbm_bytes: int


@dataclass(frozen=True, slots=True)
class Slot:
    """A static instruction: where it stands. flops: of one run on the PE. transfer: what it triggers."""

    function: str
    engine: Engine
    index: int
    name: str
    debug: int
    busy: int
    flops: int
    instruction: Instruction
    transfer: Trigger | None


@dataclass
class Code:
    """A program ready to be timed.

    entries, functions: per engine the steps. slots: static instructions by number. ports: pairs of engines that exclude each
    other on a memory, by number; queues: (engine, queue) by number. debug: of each function, its first debug index.
    """

    entries: list[dict[Engine, list[Step]]] = field(default_factory=list)
    functions: list[dict[Engine, list[Step]]] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    ports: dict[tuple[frozenset[Engine], Memory], int] = field(default_factory=dict)
    queues: dict[tuple[Engine, int], int] = field(default_factory=dict)
    debug: list[int] = field(default_factory=list)


_MEMORIES = {Memory.SBUF: 0, Memory.PSUM: 1, Memory.HBM: 2}


def prepare(program: Program, target: Target, slots: list[Slot] | None = None) -> Code:
    """Costs and branch targets of every instruction; CompileError(PROGRAM_INVALID) for streams whose blocks do not close.

    The target's share of HBM bandwidth does not matter here.
    slots: of programs of other cores, which go on here, so that a number means one instruction of all of them.
    """
    code = Code(ports=_contended(program, target), slots=[] if slots is None else slots)
    for functions, prepared, is_entry in ((program.functions, code.functions, False), (program.entries, code.entries, True)):
        for function in functions:
            prepared.append({engine: _Preparer(code, target, function, engine).steps(stream, is_entry)
                             for engine, stream in function.streams.items()})
    code.debug = [_first_debug(function) for function in program.functions]
    return code


def _first_debug(function: Function) -> int:
    found = [i.debug for stream in function.streams.values() for i in stream if i.debug >= 0]
    return min(found, default=-1)


def _contended(program: Program, target: Target) -> dict[tuple[frozenset[Engine], Memory], int]:
    """Ports that two engines of the program both use and that only one may use at a time."""
    used = {(engine, operand.memory) for _, engine, stream in program.streams() for instruction in stream
            for operand in instruction.operands.values() if isinstance(operand, AccessPattern)}
    pairs = dict.fromkeys((frozenset((engine, other)), memory) for engine, facts in target.engines.items()
                          for memory, others in facts.excludes.items() for other in others
                          if (engine, memory) in used and (other, memory) in used)
    return {pair: number for number, pair in enumerate(pairs)}


def _pair(value: Affine) -> tuple[int, Terms]:
    return value.constant, value.terms


class _Preparer:
    """Steps of one stream."""

    def __init__(self, code: Code, target: Target, function: Function, engine: Engine) -> None:
        self.code, self.target, self.function, self.engine = code, target, function, engine
        self.rows: list[Step] = []
        self.open: list[tuple[str, int]] = []
        self.leaves: list[list[int]] = []
        self.turns: list[int] = []
        self.whiles = 0
        sequencer, per_cycle = target.sequencer, target.ticks_per_cycle(engine)
        self.register_ticks = sequencer.register_cycles * per_cycle
        self.taken = sequencer.branch_taken_cycles * per_cycle
        self.not_taken = sequencer.branch_not_taken_cycles * per_cycle

    def steps(self, stream: Stream, is_entry: bool) -> list[Step]:
        region = -1
        for index, instruction in enumerate(stream):
            if instruction.spec.name in _BORDERS:
                region = -1
            elif is_entry and instruction.debug not in (-1, region):
                region = instruction.debug
                self.rows.append((REGION, region))
            for wait in instruction.waits:
                self.rows.append((WAIT, *_pair(wait.index), *_pair(wait.value)))
            handler = _HANDLERS.get(instruction.spec.name, _Preparer._work)
            handler(self, instruction, index)
            if instruction.signals and handler not in (_Preparer._work, _Preparer._load, _Preparer._nop):
                self._work(instruction, index, busy=0)
        if self.open:
            raise self._invalid("a block has no end")
        self.rows.append((HALT,) if is_entry else (RETURN, self.taken))
        return self.rows

    def _invalid(self, what: str) -> CompileError:
        return CompileError(PROGRAM_INVALID, what, f"{self.function.name}, {self.engine.value}")

    # ---- work ---------------------------------------------------------------------------------------------------

    def _work(self, instruction: Instruction, index: int, busy: int | None = None) -> None:
        found = cost.cost(instruction, self.engine, self.target)
        busy = found.busy if busy is None else busy
        transfer = self._trigger(instruction) if is_trigger(instruction.spec) else None
        slot = len(self.code.slots)
        self.code.slots.append(Slot(self.function.name, self.engine, index, instruction.spec.name, instruction.debug, busy,
                                    _flops(instruction), instruction, transfer))
        reads, writes = self._extents(instruction)
        function = instruction.fields.get("function") if instruction.spec.name == "activation" else None
        fixed = tuple([(signal.index.constant, signal.amount) for signal in instruction.signals])
        computed = any(signal.index.terms for signal in instruction.signals)
        signals = tuple([(*_pair(signal.index), signal.amount) for signal in instruction.signals]) if computed else ()
        self.rows.append((WORK, busy, found.latency, reads, writes, self._ports(instruction), fixed, signals, slot,
                          None if function in cost.TABLELESS else function, transfer))

    def _extents(self, instruction: Instruction) -> tuple[tuple[Extent, ...], tuple[Extent, ...]]:
        """What is read and written on chip; nothing for PE, which adds up in PSUM without waiting for itself."""
        reads: list[Extent] = []
        writes: list[Extent] = []
        if self.engine is Engine.PE:
            return (), ()
        operands = {name: o for name, o in instruction.operands.items() if isinstance(o, AccessPattern)}
        work = max((o.free_elements for o in operands.values()), default=0)
        for name, operand in operands.items():
            access = instruction.spec.operand(name).access
            if "r" in access:
                reads.append(_extent(operand, work))
            if "w" in access:
                writes.append(_extent(operand, work))
        return tuple(reads), tuple(writes)

    def _ports(self, instruction: Instruction) -> tuple[int, ...]:
        memories = {operand.memory for operand in instruction.operands.values() if isinstance(operand, AccessPattern)}
        return tuple([number for (pair, memory), number in self.code.ports.items()
                      if self.engine in pair and memory in memories])

    def _trigger(self, instruction: Instruction) -> Trigger:
        found = cost.transfer(instruction, self.target)
        key = self.engine, int(instruction.fields.get("queue", 0)) % self.target.dma.queues
        queue = self.code.queues.setdefault(key, len(self.code.queues))
        sides = [instruction.operands[name] for name in ("source", "destination")]
        touched = found.bytes * sum(isinstance(side, DmaPattern) and side.memory is Memory.HBM for side in sides)
        return Trigger(queue, found.first_engine, found.engines, found.data, found.interval, found.bytes, touched)

    def _nop(self, instruction: Instruction, index: int) -> None:
        """Waits alone are the sequencer's; signals keep their place behind the work before them."""
        if instruction.signals:
            self._work(instruction, index)
        else:
            self.rows.append((SET, cost.cost(instruction, self.engine, self.target).busy, -1, 0, ()))

    def _load(self, instruction: Instruction, index: int) -> None:
        self._work(instruction, index)
        self.rows.append((LOAD, int(instruction.fields["register"])))

    # ---- registers and branches ---------------------------------------------------------------------------------

    def _register_set(self, instruction: Instruction, index: int) -> None:
        self.rows.append((SET, self.register_ticks, int(instruction.fields["register"]), *_pair(instruction.fields["value"])))

    def _register_alu(self, instruction: Instruction, index: int) -> None:
        fields = instruction.fields
        compute: Callable[[int, int], int] = REGISTER_ALU[fields["op"]]
        self.rows.append((ALU, self.register_ticks, int(fields["register"]), compute, _pair(fields["a"]), _pair(fields["b"])))

    def _loop(self, instruction: Instruction, index: int) -> None:
        self.open.append(("loop", len(self.rows)))
        self.turns.append(int(instruction.fields["register"]))
        self.rows.append((LOOP, self.register_ticks, int(instruction.fields["register"]),
                          *_pair(instruction.fields["count"])))

    def _while(self, instruction: Instruction, index: int) -> None:
        self.open.append(("while", len(self.rows)))
        self.leaves.append([])
        self.rows.append((WHILE, self.whiles))
        self.whiles += 1

    def _break_unless(self, instruction: Instruction, index: int) -> None:
        if not self.leaves:
            raise self._invalid("break_unless outside of a while")
        self.leaves[-1].append(len(self.rows))
        self.rows.append((LEAVE, self.taken, self.not_taken, int(instruction.fields["register"])))

    def _if(self, instruction: Instruction, index: int) -> None:
        self.open.append(("if", len(self.rows)))
        self.rows.append((IF, self.taken, self.not_taken, int(instruction.fields["register"])))

    def _else(self, instruction: Instruction, index: int) -> None:
        _kind, start = self._close("if")
        self.open.append(("else", len(self.rows)))
        self.rows.append((JUMP, self.taken))
        self._aim(start)

    def _end(self, instruction: Instruction, index: int) -> None:
        kind, start = self._close("loop", "while", "if", "else")
        if kind == "loop":
            self.turns.pop()
            self.rows.append((AGAIN, self.taken, self.not_taken))
        elif kind == "while":
            self.rows.append((REPEAT, self.taken))
            for leave in self.leaves.pop():
                self._aim(leave)
            return
        self._aim(start)

    def _close(self, *kinds: str) -> tuple[str, int]:
        if not self.open or self.open[-1][0] not in kinds:
            raise self._invalid("a block ends that is not open")
        return self.open.pop()

    def _aim(self, row: int) -> None:
        """Complete a branch: it leads to the next step."""
        self.rows[row] = (*self.rows[row], len(self.rows))

    def _call(self, instruction: Instruction, index: int) -> None:
        number = int(instruction.fields["function"])
        if not 0 <= number < len(self.code.functions) or self.engine not in self.code.functions[number]:
            raise self._invalid(f"function {number} has no code for this engine")
        self.rows.append((CALL, self.taken, number, instruction.debug, self.turns[-1] if self.turns else 0,
                          int(instruction.fields.get("debug_step", 0)) if self.turns else 0))

    def _halt(self, instruction: Instruction, index: int) -> None:
        self.rows.append((HALT,))


_HANDLERS: Mapping[str, Callable[[_Preparer, Instruction, int], None]] = {
    "nop": _Preparer._nop, "register_load": _Preparer._load, "register_set": _Preparer._register_set,
    "register_alu": _Preparer._register_alu, "loop": _Preparer._loop, "while": _Preparer._while,
    "break_unless": _Preparer._break_unless, "if": _Preparer._if, "else": _Preparer._else, "end": _Preparer._end,
    "call": _Preparer._call, "halt": _Preparer._halt,
}


_BORDERS = frozenset(("loop", "while", "if", "else", "end", "call"))
"""Behind these the region has to be said again: what ran before depends on the way there, and a call has its own."""


def _extent(pattern: AccessPattern, work: int) -> Extent:
    size = pattern.dtype.byte_size
    reach = [stride * (count - 1) * size for stride, count in pattern.dims]
    low = pattern.offset.constant + sum(r for r in reach if r < 0)
    high = pattern.offset.constant + sum(r for r in reach if r > 0) + size
    return (_MEMORIES[pattern.memory], pattern.partition, pattern.partition + pattern.partitions, low, high,
            pattern.offset.terms, pattern.free_elements == work)


def _flops(instruction: Instruction) -> int:
    """Multiplications and additions of a pass through the PE, as far as they are products of data."""
    if instruction.spec.name != "matmul":
        return 0
    moving, stationary = instruction.operands["moving"], instruction.operands["stationary"]
    assert isinstance(moving, AccessPattern) and isinstance(stationary, AccessPattern)
    return 2 * moving.partitions * stationary.free_elements * moving.free_elements
