"""Streams made ready to run: structured control flow becomes blocks of actions that a sequencer walks.

A stream is built once per function and sequencer. What an action does is left to an `Actions`: the fast mode binds kernels to
arrays, the strict mode adds its checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from nxcc.backends.isa.instructions import control as isa
from nxcc.backends.isa.program import REGISTERS, Affine, Engine, Function, Instruction, Program, Signal, Stream, Wait
from nxcc.backends.simulator.engines.control import REGISTER_ALU, wrap
from nxcc.backends.simulator.memory import invalid
from nxcc.ir.diagnostics import CompileError

Action = Callable[[], object]


class Blocked(Exception):
    """Raised by a wait's action if the wait is not met: an engine that waits is rare, one that need not must cost nothing."""


class Pending(Protocol):
    """A wait that can be asked again."""

    def met(self) -> bool: ...

    def describe(self) -> str: ...


class Actions(Protocol):
    """What the instructions of one engine do."""

    registers: list[int]

    def wait(self, wait: Wait) -> tuple[Action, Pending]: ...

    def signal(self, signal: Signal) -> Action: ...

    def operation(self, instruction: Instruction) -> list[Action]:
        """The actions of an instruction that is no control flow, its signals included."""
        ...


class Block:
    """Actions without a branch among them; `next` yields the block that follows, None when the engine is done."""

    __slots__ = ("function", "actions", "indices", "waits", "next")

    def __init__(self, function: Function) -> None:
        self.function = function
        self.actions: list[Action] = []
        self.indices: list[int] = []
        """Per action the index of its instruction in the stream."""
        self.waits: dict[int, Pending] = {}
        """By number of the action."""
        self.next: Callable[[], Block | None] = lambda: None


def evaluator(affine: Affine, registers: list[int]) -> Callable[[], int]:
    """A function that yields the affine's present value."""
    constant, terms = affine.constant, affine.terms
    if any(not 0 <= register < REGISTERS for register, _ in terms):
        raise invalid(f"{affine} names a register that does not exist")
    if not terms:
        return lambda: constant
    if len(terms) == 1:
        ((register, factor),) = terms
        return lambda: constant + registers[register] * factor
    return lambda: affine.evaluate(registers)


class _Frame:
    """An open loop, while or if. after: the block behind its end; other: the arm of an if that is not built yet."""

    __slots__ = ("kind", "after", "other", "back")

    def __init__(self, kind: str, after: Block, other: Block | None = None,
                 back: Callable[[], Block | None] | None = None) -> None:
        self.kind, self.after, self.other, self.back = kind, after, other, back


class Sequencer:
    """One engine: its registers, where it is, and the blocks of the functions that it has entered so far."""

    def __init__(self, engine: Engine, program: Program, actions: Actions) -> None:
        self.engine, self.program, self.actions = engine, program, actions
        self.registers = actions.registers
        self.return_block: Block | None = None
        self.block: Block | None = None
        self.iterator: Iterator[Action] = iter(())
        self.pending: Pending | None = None
        self._functions: dict[tuple[bool, int], Block] = {}

    def start(self, entry: int) -> None:
        self.registers[:] = [0] * REGISTERS
        self.pending = None
        self.goto(self.entered(entry, is_entry=True))

    def goto(self, block: Block | None) -> None:
        self.block, self.iterator = block, iter(block.actions if block is not None else ())

    def entered(self, number: int, is_entry: bool) -> Block:
        """The first block of this engine's stream of an entry or function."""
        key = is_entry, number
        if key not in self._functions:
            function = (self.program.entries if is_entry else self.program.functions)[number]
            self._functions[key] = _Builder(self, function, is_entry).build(function.streams.get(self.engine, []))
        return self._functions[key]

    @property
    def is_runnable(self) -> bool:
        return self.block is not None and (self.pending is None or self.pending.met())

    def run(self) -> None:
        """Run until the engine is done (block is None) or a wait is not met (pending is that wait)."""
        self.pending = None
        block, iterator = self.block, self.iterator
        try:
            while block is not None:
                for action in iterator:
                    action()
                block = block.next()
                if block is not None:
                    iterator = iter(block.actions)
        except Blocked:
            assert block is not None
            self.pending = block.waits[self._position(block, iterator)]
        except CompileError as error:
            raise self.located(error, block, iterator) from None
        self.block, self.iterator = block, iterator

    def _position(self, block: Block, iterator: Iterator[Action]) -> int:
        """Number of the action that the iterator yielded last."""
        return len(block.actions) - iterator.__length_hint__() - 1  # type: ignore[attr-defined, no-any-return]

    def located(self, error: CompileError, block: Block | None, iterator: Iterator[Action]) -> CompileError:
        """The error with the instruction at which it arose, unless it names one."""
        if not error.where and block is not None and block.indices:
            index = block.indices[max(self._position(block, iterator), 0)]
            error.where = self.place(block.function, index)
        return error

    def place(self, function: Function, index: int) -> str:
        """Function, engine, index in the stream, instruction and debug number, as errors show them."""
        instruction = function.streams[self.engine][index]
        debug = f", debug {instruction.debug}" if instruction.debug >= 0 else ""
        return f"{function.name}, {self.engine.value} instruction {index} {instruction.spec.name}{debug}"

    def describe(self) -> str:
        """Where a blocked engine stands and for what it waits."""
        assert self.block is not None and self.pending is not None
        index = self.block.indices[self._position(self.block, self.iterator)]
        return f"{self.place(self.block.function, index)} waits for {self.pending.describe()}"


class _Builder:
    """Builds the blocks of one stream."""

    def __init__(self, sequencer: Sequencer, function: Function, is_entry: bool) -> None:
        self.sequencer, self.function, self.is_entry = sequencer, function, is_entry
        self.actions, self.registers = sequencer.actions, sequencer.registers
        self.block = Block(function)
        self.frames: list[_Frame] = []
        self.index = 0

    def build(self, stream: Stream) -> Block:
        first = self.block
        for self.index, instruction in enumerate(stream):
            try:
                self._add(instruction)
            except CompileError as error:
                error.where = error.where or self.sequencer.place(self.function, self.index)
                raise
        if self.frames:
            unclosed = invalid("a loop, while or if has no end")
            unclosed.where = self.sequencer.place(self.function, self.index)
            raise unclosed
        if not self.is_entry:
            self.block.next = lambda: self.sequencer.return_block
        return first

    def _add(self, instruction: Instruction) -> None:
        spec = instruction.spec
        if self.sequencer.engine not in spec.engines:
            raise invalid(f"{spec.name} does not run on {self.sequencer.engine.value}")
        structure = _STRUCTURE.get(spec.name)
        if structure is not None:
            structure(self, instruction)
            return
        self._waits(instruction)
        simple = _REGISTER_ACTIONS.get(spec.name)
        if simple is None:
            for action in self.actions.operation(instruction):
                self._append(action)
            return
        for action in simple(self, instruction):
            self._append(action)
        self._signals(instruction)

    def _append(self, action: Action) -> None:
        self.block.actions.append(action)
        self.block.indices.append(self.index)

    def _waits(self, instruction: Instruction) -> None:
        for wait in instruction.waits:
            action, pending = self.actions.wait(wait)
            self.block.waits[len(self.block.actions)] = pending
            self._append(action)

    def _signals(self, instruction: Instruction) -> None:
        for signal in instruction.signals:
            self._append(self.actions.signal(signal))

    def _new(self) -> Block:
        return Block(self.function)

    def _register(self, instruction: Instruction) -> int:
        register = int(instruction.fields["register"])
        if not 0 <= register < REGISTERS:
            raise invalid(f"register {register} does not exist")
        return register

    def _loop(self, instruction: Instruction) -> None:
        self._waits(instruction)
        self._signals(instruction)
        register, count = self._register(instruction), evaluator(instruction.fields["count"], self.registers)
        registers, body, after = self.registers, self._new(), self._new()
        # A function is never entered twice at once, so one place for the count is enough.
        done, limit = 0, 0

        def enter() -> Block:
            nonlocal done, limit
            limit = count()
            if limit <= 0:
                return after
            done = registers[register] = 0
            return body

        def again() -> Block:
            nonlocal done
            done += 1
            if done >= limit:
                return after
            registers[register] = done
            return body
        self.block.next = enter
        self.frames.append(_Frame("loop", after, back=again))
        self.block = body

    def _while(self, instruction: Instruction) -> None:
        self._waits(instruction)
        self._signals(instruction)
        body, after = self._new(), self._new()
        self.block.next = lambda: body
        self.frames.append(_Frame("while", after, back=lambda: body))
        self.block = body

    def _break_unless(self, instruction: Instruction) -> None:
        self._waits(instruction)
        self._signals(instruction)
        frame = next((f for f in reversed(self.frames) if f.kind == "while"), None)
        if frame is None:
            raise invalid("break_unless outside of a while")
        register, registers, onward, after = self._register(instruction), self.registers, self._new(), frame.after
        self.block.next = lambda: onward if registers[register] else after
        self.block = onward

    def _if(self, instruction: Instruction) -> None:
        self._waits(instruction)
        self._signals(instruction)
        register, registers, then, other = self._register(instruction), self.registers, self._new(), self._new()
        self.block.next = lambda: then if registers[register] else other
        self.frames.append(_Frame("if", self._new(), other))
        self.block = then

    def _else(self, instruction: Instruction) -> None:
        frame = self.frames[-1] if self.frames else None
        if frame is None or frame.kind != "if" or frame.other is None:
            raise invalid("else without its if")
        self._waits(instruction)
        self._signals(instruction)
        after = frame.after
        self.block.next = lambda: after
        self.block, frame.other = frame.other, None

    def _end(self, instruction: Instruction) -> None:
        if not self.frames:
            raise invalid("end without its loop, while or if")
        frame = self.frames.pop()
        after = frame.after
        if frame.back is not None:
            self._waits(instruction)
            self._signals(instruction)
            self.block.next = frame.back
            self.block = after
            return
        self.block.next = lambda: after
        if frame.other is not None:
            frame.other.next = lambda: after
        self.block = after
        self._waits(instruction)
        self._signals(instruction)

    def _call(self, instruction: Instruction) -> None:
        self._waits(instruction)
        number, sequencer, onward = int(instruction.fields["function"]), self.sequencer, self._new()
        if not self.is_entry:
            raise invalid("a function calls")
        if not 0 <= number < len(sequencer.program.functions):
            raise invalid(f"function {number} does not exist")

        def enter() -> Block:
            sequencer.return_block = onward
            return sequencer.entered(number, is_entry=False)
        self.block.next = enter
        self.block = onward
        self._signals(instruction)

    def _halt(self, instruction: Instruction) -> None:
        self._waits(instruction)
        self._signals(instruction)
        self.block = self._new()

    def _register_set(self, instruction: Instruction) -> list[Action]:
        register, registers = self._register(instruction), self.registers
        value = evaluator(instruction.fields["value"], registers)

        def action() -> None:
            registers[register] = wrap(value())
        return [action]

    def _register_alu(self, instruction: Instruction) -> list[Action]:
        register, registers, fields = self._register(instruction), self.registers, instruction.fields
        a, b = evaluator(fields["a"], registers), evaluator(fields["b"], registers)
        compute = REGISTER_ALU[fields["op"]]

        def action() -> None:
            registers[register] = wrap(compute(a(), b()))
        return [action]

    def _nop(self, instruction: Instruction) -> list[Action]:
        return []


_STRUCTURE: dict[str, Callable[[_Builder, Instruction], None]] = {
    isa.LOOP.name: _Builder._loop, isa.WHILE.name: _Builder._while, isa.BREAK_UNLESS.name: _Builder._break_unless,
    isa.IF.name: _Builder._if, isa.ELSE.name: _Builder._else, isa.END.name: _Builder._end, isa.CALL.name: _Builder._call,
    isa.HALT.name: _Builder._halt,
}
_REGISTER_ACTIONS: dict[str, Callable[[_Builder, Instruction], list[Action]]] = {
    isa.REGISTER_SET.name: _Builder._register_set, isa.REGISTER_ALU.name: _Builder._register_alu, isa.NOP.name: _Builder._nop,
}
