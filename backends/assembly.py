"""From a tile program to the streams of a function: registers are assigned, loops laid out, order made explicit.

Here the plain order of `--optlevel 0`: one semaphore counts completions (a ticket), and every instruction waits for all
before it in program order. The caller's count at entry is in BASE_REGISTER; each engine adds the function's total at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import (
    REGISTERS,
    AccessPattern,
    Affine,
    DmaPattern,
    Engine,
    Function,
    Instruction,
    Signal,
    Stream,
    Wait,
)
from nxcc.backends.tile.expressions import Expr, Symbol
from nxcc.backends.tile.program import Access, Loop, Op, ScalarLoad, ScalarOp, Statement, TileProgram, View
from nxcc.ir.diagnostics import LIMIT_EXCEEDED, CompileError

BASE_REGISTER = 1
FIRST_ARGUMENT_REGISTER = 2
TICKET = Affine(0)
"""Index of the semaphore that counts completions."""

DMA_SHARES = 16
"""A DMA signals once for each of the 16 engines that carry a share of it (hardware model 1.8, completion)."""


@dataclass(frozen=True)
class AssembledFunction:
    """function: the streams. argument_registers: where the caller puts each argument. total: completions in one call."""

    function: Function
    argument_registers: tuple[int, ...]
    total: int


class Registers:
    """Which register holds each symbol; scopes give theirs back."""

    def __init__(self, first: int) -> None:
        self._next = first
        self._of: dict[Symbol, int] = {}

    def take(self, symbol: Symbol) -> int:
        if self._next >= REGISTERS:
            raise CompileError(LIMIT_EXCEEDED, f"a region needs more than {REGISTERS} registers",
                               remedy="compile with a lower --optlevel or report the module")
        self._of[symbol] = self._next
        self._next += 1
        return self._next - 1

    def mark(self) -> int:
        return self._next

    def release(self, mark: int) -> None:
        self._next = mark

    def affine(self, value: Expr) -> Affine:
        terms: dict[int, int] = {}
        for symbol, coefficient in value.terms:
            register = self._of[symbol]
            terms[register] = terms.get(register, 0) + coefficient
        return Affine(value.constant, tuple(sorted((r, c) for r, c in terms.items() if c)))


def assemble(program: TileProgram) -> AssembledFunction:
    """Streams in program order, every instruction waiting for all that come before it."""
    registers = Registers(FIRST_ARGUMENT_REGISTER)
    arguments = tuple(registers.take(symbol) for symbol in program.arguments)
    assembler = _Assembler(registers, scalar_users(program.body))
    total = assembler.block(program.body, Affine(0, ((BASE_REGISTER, 1),)), 0)
    advance = Affine(total, ((BASE_REGISTER, 1),))
    for stream in assembler.streams.values():
        stream.append(Instruction(isa.control.REGISTER_SET, fields={"register": BASE_REGISTER, "value": advance}))
    return AssembledFunction(Function(program.name, assembler.streams), arguments, total)


class _Assembler:
    def __init__(self, registers: Registers, users: dict[Symbol, frozenset[Engine]]) -> None:
        self.registers = registers
        self.users = users
        self.streams: dict[Engine, Stream] = {}

    def block(self, statements: Sequence[Statement], start: Affine, outer: int) -> int:
        """Lay out a block whose first ticket is `start`; returns the number of completions in it."""
        mark = self.registers.mark()
        position = 0
        previous: Engine | None = None
        for statement in statements:
            here = Affine(start.constant + position, start.terms)
            if isinstance(statement, Op):
                position += self._op(statement, here, previous)
                previous = None if statement.is_dma else statement.engine
            elif isinstance(statement, Loop):
                position += self._loop(statement, here)
                previous = None
            elif isinstance(statement, ScalarLoad):
                position += self._scalar_load(statement, here)
                previous = None
            else:
                self._scalar_op(statement)
        self.registers.release(mark)
        return position

    def _stream(self, engine: Engine) -> Stream:
        return self.streams.setdefault(engine, [])

    def _op(self, op: Op, ticket: Affine, previous: Engine | None) -> int:
        operands = {name: self._pattern(operand) for name, operand in op.operands.items()}
        fields = {name: self.registers.affine(v) if isinstance(v, Expr) else v for name, v in op.fields.items()}
        amount = DMA_SHARES if op.is_dma else 1
        # An engine finishes its own instructions in order, so right behind one of its own it need not wait.
        waits = () if previous is op.engine else (Wait(TICKET, ticket),)
        self._stream(op.engine).append(
            Instruction(op.spec, operands, _with_defaults(op, fields), waits, (Signal(TICKET, amount),), op.debug))
        return amount

    def _pattern(self, operand: Access | View) -> AccessPattern | DmaPattern:
        if isinstance(operand, View):
            return DmaPattern(operand.memory, operand.dtype, self.registers.affine(operand.address),
                              tuple(stride for stride, _ in operand.dims))
        return AccessPattern(operand.memory, operand.dtype, operand.partition, operand.partitions,
                             self.registers.affine(operand.offset), operand.dims)

    def _loop(self, loop: Loop, ticket: Affine) -> int:
        engines = engines_of(loop.body, self.users)
        mark = self.registers.mark()
        register = self.registers.take(loop.symbol)
        rings = ring_symbols(loop)
        slots = [(ring, self.registers.take(ring)) for ring in rings]
        counter = Affine(0, ((register, 1),))
        for engine in engines:
            stream = self._stream(engine)
            stream.append(Instruction(isa.control.LOOP, fields={"register": register, "count": Affine(loop.count)}))
            for ring, slot in slots:
                stream.append(Instruction(isa.control.REGISTER_ALU, fields={
                    "register": slot, "op": "modulo", "a": counter, "b": Affine(ring.depth)}))
        body = completions(loop.body, self.users)
        inner = Affine(ticket.constant, tuple(sorted((*ticket.terms, (register, body)))) if body else ticket.terms)
        self.block(loop.body, inner, body)
        for engine in engines:
            self._stream(engine).append(Instruction(isa.control.END))
        self.registers.release(mark)
        return body * loop.count

    def _scalar_load(self, statement: ScalarLoad, ticket: Affine) -> int:
        register = self.registers.take(statement.symbol)
        engines = sorted(self.users.get(statement.symbol, ()), key=lambda e: e.value)
        for engine in engines:
            self._stream(engine).append(Instruction(
                isa.control.REGISTER_LOAD, {"source": self._pattern(statement.source)}, {"register": register},
                (Wait(TICKET, ticket),), (Signal(TICKET, 1),)))
        return len(engines)

    def _scalar_op(self, statement: ScalarOp) -> None:
        a, b = self.registers.affine(statement.a), self.registers.affine(statement.b)
        register = self.registers.take(statement.symbol)
        for engine in sorted(self.users.get(statement.symbol, ()), key=lambda e: e.value):
            self._stream(engine).append(Instruction(
                isa.control.REGISTER_ALU, fields={"register": register, "op": statement.op, "a": a, "b": b}))


def _with_defaults(op: Op, fields: dict[str, Any]) -> dict[str, Any]:
    return {spec.name: fields.get(spec.name, spec.default) for spec in op.spec.fields}


def symbols_of(op: Op) -> set[Symbol]:
    """All symbols that the operands and fields of an instruction read."""
    found: set[Symbol] = set()
    for operand in op.operands.values():
        value = operand.address if isinstance(operand, View) else operand.offset
        found |= {symbol for symbol, _ in value.terms}
    for field in op.fields.values():
        if isinstance(field, Expr):
            found |= {symbol for symbol, _ in field.terms}
    return found


def scalar_users(statements: Sequence[Statement]) -> dict[Symbol, frozenset[Engine]]:
    """Which engines need each run-time scalar, directly or through other scalars."""
    users: dict[Symbol, frozenset[Engine]] = {}
    for statement in reversed(list(_flat(statements))):
        if isinstance(statement, Op):
            _use(users, symbols_of(statement), frozenset((statement.engine,)))
        elif isinstance(statement, ScalarOp):
            read = {s for s, _ in (*statement.a.terms, *statement.b.terms)}
            _use(users, read, users.get(statement.symbol, frozenset()))
        elif isinstance(statement, ScalarLoad):
            _use(users, {s for s, _ in statement.source.address.terms}, users.get(statement.symbol, frozenset()))
    return users


def _use(users: dict[Symbol, frozenset[Engine]], symbols: set[Symbol], engines: frozenset[Engine]) -> None:
    for symbol in symbols:
        users[symbol] = users.get(symbol, frozenset()) | engines


def _flat(statements: Sequence[Statement]) -> list[Statement]:
    found: list[Statement] = []
    for statement in statements:
        found.append(statement)
        if isinstance(statement, Loop):
            found.extend(_flat(statement.body))
    return found


def ring_symbols(loop: Loop) -> list[Symbol]:
    """Ring slots driven by this loop's variable, in order of first use."""
    found: dict[Symbol, None] = {}
    for statement in _flat(loop.body):
        if isinstance(statement, Op):
            for operand in statement.operands.values():
                terms = (operand.address if isinstance(operand, View) else operand.offset).terms
                found.update((s, None) for s, _ in terms if s.kind == "ring" and s.source is loop.symbol)
    return list(found)


def engines_of(statements: Sequence[Statement], users: dict[Symbol, frozenset[Engine]]) -> list[Engine]:
    """Engines that run anything in a block, in a fixed order."""
    found: set[Engine] = set()
    for statement in _flat(statements):
        if isinstance(statement, Op):
            found.add(statement.engine)
        elif isinstance(statement, ScalarLoad | ScalarOp):
            found |= users.get(statement.symbol, frozenset())
    return sorted(found, key=lambda e: e.value)


def completions(statements: Sequence[Statement], users: dict[Symbol, frozenset[Engine]]) -> int:
    """How often a block signals the ticket."""
    total = 0
    for statement in statements:
        if isinstance(statement, Op):
            total += DMA_SHARES if statement.is_dma else 1
        elif isinstance(statement, Loop):
            total += statement.count * completions(statement.body, users)
        elif isinstance(statement, ScalarLoad):
            total += len(users.get(statement.symbol, ()))
    return total
