"""The main streams of an entry: calls with their arguments, loops and branches, on all engines alike."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from nxcc.backends.assembly import BASE_REGISTER, TICKET, AssembledFunction
from nxcc.backends.berths import ALONE, READS, Berth, Entrance, Footprint, Touched, beside
from nxcc.backends.codegen.rolling import Call, call_of, find_rolls, rolled
from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import REGISTERS, Affine, DmaPattern, Engine, Function, Instruction, Signal, Stream, Wait
from nxcc.backends.target import Target
from nxcc.backends.tile.program import View
from nxcc.ir.facts import dataclass

CONTROL_REGISTERS = 8
"""Registers at the top that hold selectors of enclosing conditionals; functions never use them."""

ROLL_REGISTER = REGISTERS - CONTROL_REGISTERS
"""Counts the turns of a loop of repeated calls: the lowest of those, where conditionals do not nest to."""

Marks = dict[Engine, int]
"""A place in all streams."""


@dataclass(frozen=True, slots=True)
class _Last:
    """The region called last: how it began, what it has, the HBM that it touches."""

    entrance: Entrance
    need: Footprint
    memory: Touched


class MainStreams:
    """Writes the streams. An engine that takes no part in a call catches up with its count only when it next needs it.

    rolls: repeated calls become loops in the end.
    """

    def __init__(self, target: Target, rolls: bool = False) -> None:
        self.target = target
        self.engines = tuple(engine for engine in Engine if engine in target.engines)
        self.streams: dict[Engine, Stream] = {
            engine: [Instruction(isa.control.REGISTER_SET, fields={"register": BASE_REGISTER, "value": Affine(0)})]
            for engine in self.engines}
        self._behind = dict.fromkeys(self.engines, 0)
        self._used: dict[int, dict[Engine, frozenset[int]]] = {}
        self._selectors = 0
        self._rolls = rolls
        self._runs: list[list[Marks]] = []
        self._last: _Last | None = None

    def entrance(self, operands: Sequence[View], results: Sequence[View], need: Footprint) -> Entrance:
        """How a region that leaves some of the machine to others begins if it is called next.

        It runs beside the region called last, if both fit and no branch lies between.
        """
        if self._last is None:
            return Entrance(Berth.LOWER)
        found = beside(self.target, self._last.entrance, self._last.need, need)
        if not found.lag:
            return found
        numbers: dict[int, int] = {}
        after = set()
        for position, view in enumerate((*operands, *results)):
            number = numbers.setdefault(view.address.constant, len(numbers))
            if self._last.memory.conflicts(view, position >= len(operands)):
                after.add(number)
        return replace(found, after=frozenset(after))

    def call(self, index: int, assembled: AssembledFunction, arguments: dict[int, int], debug: int = -1,
             entrance: Entrance = ALONE, memory: Touched | None = None, need: Footprint | None = None) -> None:
        """Call function `index` on every engine that has code in it; arguments: register -> value.

        debug: entry of the HLO instruction that is called for, since equal ones share a function. memory: HBM that it reads
        and writes, need: what it has of the machine, both for the region after it.
        """
        self._last = _Last(entrance, need, memory) if memory is not None and need is not None else None
        used = self._used.get(index)
        if used is None:
            used = {engine: registers_used(stream) for engine, stream in assembled.function.streams.items()}
            self._used[index] = used
        before = self._marks()
        for engine in self.engines:
            if engine not in used:
                self._behind[engine] += assembled.total
                continue
            self._catch_up(engine)
            for register, value in arguments.items():
                if register in used[engine]:
                    self._append(engine, isa.control.REGISTER_SET, register=register, value=Affine(value))
            self.streams[engine].append(Instruction(isa.control.CALL, fields={"function": index}, debug=debug))
        if not self._runs or self._runs[-1][-1] != before:
            self._runs.append([before])
        self._runs[-1].append(self._marks())

    def _marks(self) -> Marks:
        return {engine: len(stream) for engine, stream in self.streams.items()}

    def begin_while(self) -> None:
        self._on_all(isa.control.WHILE)

    def break_unless(self, condition: View) -> None:
        """Leave the loop if the element at `condition` is 0."""
        register = REGISTERS - 1 - self._selectors
        self._load(condition, register)
        self._on_all(isa.control.BREAK_UNLESS, register=register)

    def load_selector(self, selector: View) -> None:
        """Read the value that the following begin_if tests; conditionals nest up to CONTROL_REGISTERS - 2 deep."""
        self._selectors += 1
        assert self._selectors < CONTROL_REGISTERS - 1, "conditionals nested too deep"
        self._load(selector, REGISTERS - 1 - self._selectors)

    def begin_if(self, value: int) -> None:
        """Begin the arm for a selector equal to `value`."""
        test = REGISTERS - 1
        self._on_all(isa.control.REGISTER_ALU, register=test, op="equal", a=Affine(0, ((REGISTERS - 1 - self._selectors, 1),)),
                     b=Affine(value))
        self._on_all(isa.control.IF, register=test)

    def otherwise(self) -> None:
        self._on_all(isa.control.ELSE)

    def end(self) -> None:
        self._on_all(isa.control.END)

    def release_selector(self) -> None:
        self._selectors -= 1

    def finish(self, name: str) -> Function:
        """End every engine, the Sync engine after all else is done."""
        self._catch_up(Engine.SYNC)
        done = Wait(TICKET, Affine(0, ((BASE_REGISTER, 1),)))
        self.streams[Engine.SYNC].append(Instruction(isa.control.NOP, waits=(done,)))
        for engine in self.engines:
            self._append(engine, isa.control.HALT)
        if self._rolls and not any(ROLL_REGISTER in registers for used in self._used.values() for registers in used.values()):
            for marks in reversed(self._runs):
                self._roll(marks)
        return Function(name, self.streams)

    def _roll(self, marks: list[Marks]) -> None:
        """Make loops of a run of calls that follow each other; marks: where each begins, and where the last ends."""
        calls: list[Call] = [call_of({engine: stream[a[engine]:b[engine]] for engine, stream in self.streams.items()})
                             for a, b in itertools.pairwise(marks)]
        for roll in reversed(find_rolls(calls)):
            first, last = marks[roll.start], marks[roll.start + roll.period * roll.turns]
            for engine, loop in rolled(calls, roll, ROLL_REGISTER).items():
                self.streams[engine][first[engine]:last[engine]] = loop

    def _load(self, source: View, register: int) -> None:
        """Every engine reads the element; the Sync engine, last, opens the next epoch: then it may be overwritten."""
        self._last = None
        operand = DmaPattern(source.memory, source.dtype, Affine(source.address.constant), ())
        epoch = Wait(TICKET, Affine(0, ((BASE_REGISTER, 1),)))
        others = len(self.engines) - 1
        for engine in self.engines:
            self._catch_up(engine)
            last = engine is Engine.SYNC
            waits = (epoch, Wait(Affine(READS), Affine(others))) if last else (epoch,)
            signals = (Signal(Affine(READS), -others), Signal(TICKET, 1)) if last else (Signal(Affine(READS), 1),)
            self.streams[engine].append(Instruction(
                isa.control.REGISTER_LOAD, {"source": operand}, {"register": register}, waits, signals))
            self._behind[engine] += 1

    def _on_all(self, spec: object, **fields: object) -> None:
        self._last = None
        for engine in self.engines:
            self._catch_up(engine)
            self._append(engine, spec, **fields)

    def _catch_up(self, engine: Engine) -> None:
        if self._behind[engine]:
            value = Affine(self._behind[engine], ((BASE_REGISTER, 1),))
            self._behind[engine] = 0
            self._append(engine, isa.control.REGISTER_SET, register=BASE_REGISTER, value=value)

    def _append(self, engine: Engine, spec: object, **fields: object) -> None:
        self.streams[engine].append(Instruction(spec, fields=dict(fields)))  # type: ignore[arg-type]


def registers_used(stream: Stream) -> frozenset[int]:
    """Registers that a stream reads or writes anywhere."""
    found: set[int] = set()
    for instruction in stream:
        for operand in instruction.operands.values():
            affine = operand.address if isinstance(operand, DmaPattern) else operand.offset
            found.update(register for register, _ in affine.terms)
        for name, field in instruction.fields.items():
            if isinstance(field, Affine):
                found.update(register for register, _ in field.terms)
            elif name == "register":
                found.add(field)
    return frozenset(found)
