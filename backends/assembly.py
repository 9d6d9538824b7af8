"""From a tile program to the streams of a function: registers are assigned, loops laid out, waits and signals attached.

What waits for what is decided in nxcc.backends.synchronization; here it becomes instructions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from nxcc.backends.berths import ALONE, EPOCH, FIRST_OF_REGIONS, Berth, Entrance, room
from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.layout import TERMS_MAX, WAITS_MAX
from nxcc.backends.isa.program import (
    DMA_PARTITION_STRIDE,
    REGISTERS,
    AccessPattern,
    Affine,
    DmaPattern,
    Engine,
    Function,
    Instruction,
    Memory,
    Signal,
    Stream,
    Wait,
)
from nxcc.backends.synchronization.derived import derived
from nxcc.backends.synchronization.extents import operands_of, span
from nxcc.backends.synchronization.ordered import ordered
from nxcc.backends.synchronization.plan import BASE, Event, Plan, Site, site_key
from nxcc.backends.target import Target
from nxcc.backends.tile.expressions import Expr, Index, Symbol, expr
from nxcc.backends.tile.program import Access, Loop, Op, ScalarLoad, ScalarOp, Statement, TileProgram, View
from nxcc.ir.diagnostics import LIMIT_EXCEEDED, CompileError
from nxcc.ir.facts import dataclass

Item = TypeVar("Item")

BASE_REGISTER = 1
FIRST_ARGUMENT_REGISTER = 2
TICKET = Affine(EPOCH)
"""Index of the semaphore that orders regions, and at level 0 everything."""

@dataclass(frozen=True)
class AssembledFunction:
    """function: the streams. argument_registers: where the caller puts each argument. total: completions in one call."""

    function: Function
    argument_registers: tuple[int, ...]
    total: int
    semaphores: int


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

    def bind(self, symbol: Symbol, register: int) -> None:
        """A symbol whose register is fixed."""
        self._of[symbol] = register

    def mark(self) -> int:
        return self._next

    def spare(self) -> int:
        """A register for a partial sum, until the scope gives it back."""
        return self.take(Symbol("sum", "scalar", 0, 0))

    def release(self, mark: int) -> None:
        self._next = mark

    def affine(self, value: Expr) -> Affine:
        terms: dict[int, int] = {}
        for symbol, coefficient in value.terms:
            register = self._of[symbol]
            terms[register] = terms.get(register, 0) + coefficient
        return Affine(value.constant, tuple(sorted((r, c) for r, c in terms.items() if c)))


def plan_of(program: TileProgram, target: Target, overlapped: bool) -> Plan:
    """What waits for what in a region: everything in program order or, if overlapped, by conflicts alone."""
    users = scalar_users(program.body)
    most = room(target, Berth.WHOLE).semaphores
    plan = derived(program, users, target.psum.bank_bytes, most, target.dma.engines) if overlapped else None
    return plan or ordered(program, users, target.dma.engines)


def assemble(program: TileProgram, target: Target, plan: Plan, entrance: Entrance = ALONE) -> AssembledFunction:
    """The streams of a region at the place of its entrance; its tiles are allocated from 0 on."""
    registers = Registers(FIRST_ARGUMENT_REGISTER)
    arguments = tuple(registers.take(symbol) for symbol in program.arguments)
    assembler = _Assembler(registers, program, plan, target, entrance)
    assembler.block(program.body)
    assembler.finish()
    used = room(target, entrance.berth).first_semaphore + plan.semaphores
    return AssembledFunction(Function(_name(program, target, entrance), assembler.streams), arguments, plan.total, used)


def _name(program: TileProgram, target: Target, entrance: Entrance) -> str:
    """Tells a region's entrances apart."""
    if entrance == ALONE:
        return program.name
    usual = room(target, entrance.berth)
    after = "".join(f".{number}" for number in sorted(entrance.after))
    sbuf = f".sbuf{entrance.sbuf_start}" if entrance.sbuf_start != usual.sbuf_start else ""
    psum = f".bank{entrance.psum_bank}" if entrance.psum_bank * target.psum.bank_bytes != usual.psum_start else ""
    front = f".front{entrance.front}" if entrance.front else ""
    taken = f".taken{entrance.taken[0]}-{entrance.taken[1]}" if any(entrance.taken) else ""
    return f"{program.name}.{entrance.berth.value}{entrance.lag or ''}{after}{sbuf}{psum}{'.psum' * entrance.shares_psum}" \
        f"{front}{taken}"


class _Assembler:
    def __init__(self, registers: Registers, program: TileProgram, plan: Plan, target: Target, entrance: Entrance) -> None:
        self.registers = registers
        self.users = scalar_users(program.body)
        self.plan = plan
        self.queues = target.dma.queues
        self.stride_max = target.pattern.stride_max
        self.drainer = target.storing_engine
        self.entrance = entrance
        self.late = frozenset(program.arguments[number] for number in entrance.after)
        self.behind: set[Engine] = set()
        self.first_semaphore = room(target, entrance.berth).first_semaphore
        self.psum_start = entrance.psum_bank * target.psum.bank_bytes
        self.first_loop_register = registers.mark()
        self.streams: dict[Engine, Stream] = {}
        registers.bind(BASE, BASE_REGISTER)

    def block(self, statements: Sequence[Statement]) -> None:
        mark = self.registers.mark()
        for statement in statements:
            if isinstance(statement, Op):
                self._op(statement)
            elif isinstance(statement, Loop):
                self._loop(statement)
            elif isinstance(statement, ScalarLoad):
                self._scalar_load(statement)
            else:
                self._scalar_op(statement)
        self.registers.release(mark)

    def finish(self) -> None:
        """The engine that stores drains and restores the region's semaphores: the next region's loads are another's.

        Once all but its own transfers are done, nobody waits any more: what waits is counted, or stands before this. So all
        that is left for the time behind the last store are that engine's own transfers.
        """
        if self.plan.drain:
            mine = {semaphore for semaphore, engine in self.plan.triggers.items() if engine is self.drainer}
            for own in (False, True):
                self._drain([(s, value) for s, value in self.plan.drain if (s in mine) is own],
                            [(s, amount) for s, amount in self.plan.restore if (s in mine) is own] + [(EPOCH, 1)] * own)
        advance = Affine(self.plan.total, ((BASE_REGISTER, 1),))
        for stream in self.streams.values():
            stream.append(Instruction(isa.control.REGISTER_SET, fields={"register": BASE_REGISTER, "value": advance}))

    def _drain(self, events: Sequence[Event], amounts: Sequence[tuple[int, int]]) -> None:
        stream = self._stream(self.drainer)
        for waits in batched(events, WAITS_MAX):
            stream.append(Instruction(isa.control.NOP, waits=self._waits(waits, self.drainer)))
        for signals in batched(amounts, WAITS_MAX):
            stream.append(Instruction(isa.control.NOP, signals=tuple(self._signal(s, a) for s, a in signals)))

    def _stream(self, engine: Engine) -> Stream:
        stream = self.streams.get(engine)
        if stream is None:
            stream = self.streams[engine] = []
            if self.plan.overlaps:
                stream.append(Instruction(isa.control.NOP, waits=self._waits([_done(self.entrance.lag)], engine)))
        return stream

    def _waits(self, events: Sequence[Event], engine: Engine) -> tuple[Wait, ...]:
        return tuple(Wait(self._semaphore(semaphore), self._short(self.registers.affine(value), engine))
                     for semaphore, value in events)

    def _semaphore(self, number: Index) -> Affine:
        if isinstance(number, Expr):
            return self.registers.affine(number + (self.first_semaphore - FIRST_OF_REGIONS))
        return Affine(number if number < FIRST_OF_REGIONS else number - FIRST_OF_REGIONS + self.first_semaphore)

    def _signal(self, semaphore: Index, amount: int) -> Signal:
        return Signal(self._semaphore(semaphore), amount)

    def _append(self, site: Site, instruction: Instruction, where: Expr | None = None) -> None:
        """Attach waits and signals; waits beyond what one instruction carries go before it, as do those of one that happens
        where a scalar is 1 only."""
        stream = self._stream(site.engine)
        events = [*self._late(site), *self.plan.waits.get(site_key(site), [])]
        spare = len(events) - (0 if where is not None else WAITS_MAX)
        if spare > 0:
            for early in batched(events[:spare], WAITS_MAX):
                stream.append(Instruction(isa.control.NOP, waits=self._waits(early, site.engine)))
            events = events[spare:]
        semaphore, amount = self.plan.signals[site_key(site)]
        instruction.waits = self._waits(events, site.engine)
        instruction.signals = (self._signal(semaphore, amount),)
        if where is None:
            stream.append(instruction)
        else:
            self._choose(stream, self.registers.affine(where), instruction)

    def _choose(self, stream: Stream, where: Affine, instruction: Instruction) -> None:
        """The instruction where it is to happen; else its signals alone, so that counts are the same on both ways."""
        register = self.registers.spare()
        other = Affine(1 - where.constant, tuple((r, -c) for r, c in where.terms))
        for times, one in ((where, instruction), (other, Instruction(isa.control.NOP, signals=instruction.signals))):
            stream += [Instruction(isa.control.LOOP, fields={"register": register, "count": times}), one,
                       Instruction(isa.control.END)]

    def _late(self, site: Site) -> list[Event]:
        """The end of the region before, if the site touches memory of its; an engine awaits it once, since loops run at
        least once and what comes first in the program comes first in the stream."""
        waits = not self.late.isdisjoint(self.plan.addressed.get(site_key(site), ())) \
            or self.entrance.shares_psum and _touches_psum(site.statement) \
            or any(self.entrance.taken) and self._touches_taken(site.statement)
        if site.engine in self.behind or not waits:
            return []
        self.behind.add(site.engine)
        return [_done(0)]

    def _op(self, op: Op) -> None:
        mark = self.registers.mark()
        operands = {name: self._pattern(operand, op.engine) for name, operand in op.operands.items()}
        fields = {name: self._short(self.registers.affine(v), op.engine) if isinstance(v, Expr) else v
                  for name, v in op.fields.items()}
        if op.is_dma:
            # Each place in the program has a queue of its own as far as there are any: queues overlap, one queue does not.
            fields["queue"] = expr(self.plan.signals[site_key(Site(op, op.engine))][0]).constant % self.queues
        self._append(Site(op, op.engine), Instruction(op.spec, operands, _with_defaults(op, fields), debug=op.debug), op.where)
        self.registers.release(mark)

    def _pattern(self, operand: Access | View, engine: Engine) -> AccessPattern | DmaPattern:
        if isinstance(operand, View):
            address = self._short(self.registers.affine(operand.address + self._start(operand)), engine,
                                  operand.memory is not Memory.HBM)
            return DmaPattern(operand.memory, operand.dtype, address, tuple(stride for stride, _ in operand.dims))
        offset = operand.offset + self._start(operand)
        return AccessPattern(operand.memory, operand.dtype, operand.partition, operand.partitions,
                             self._short(self.registers.affine(offset), engine), self._dims(operand))

    def _start(self, operand: Access | View) -> int:
        """What is added to the address of an operand: where its part of the region's memory lies."""
        if operand.memory is not Memory.SBUF:
            return self.psum_start if operand.memory is Memory.PSUM else 0
        low = span(operand)[0] if self.entrance.front else 0
        return self.entrance.place(low) - low

    def _touches_taken(self, statement: Op | ScalarLoad) -> bool:
        """Whether a statement touches SBUF that the region before has."""
        low, high = self.entrance.taken
        spans = [span(o) for o in operands_of(statement) if o.memory is Memory.SBUF]
        places = [(self.entrance.place(first), last - first) for first, last in spans]
        return any(place < high and low < place + size for place, size in places)

    def _dims(self, operand: Access) -> tuple[tuple[int, int], ...]:
        """Dimensions whose strides an instruction can hold: one place is no step from another."""
        return tuple((0 if size == 1 and stride > self.stride_max else stride, size) for stride, size in operand.dims)

    def _short(self, value: Affine, engine: Engine, on_chip: bool = False) -> Affine:
        """The value with as many terms as an instruction holds; the terms of loops are added up in a register first.

        Arguments stay: their multiples do not fit the 32 bits of a register, sums of a region's offsets in units do.
        on_chip: an address of the linear map; steps over partitions and steps over bytes have a register each, so that each
        can be seen to stay within its limit.
        """
        if len(value.terms) <= TERMS_MAX:
            return value
        kept = [term for term in value.terms if term[0] < self.first_loop_register]
        rest = [term for term in value.terms if term[0] >= self.first_loop_register]
        groups = [[term for term in rest if (term[1] % DMA_PARTITION_STRIDE == 0) is whole] for whole in (True, False)] \
            if on_chip else [rest]
        sums = [self._summed(group, engine) if len(group) > 1 else group[0] for group in groups if group]
        return Affine(value.constant, tuple(sorted((*kept, *sums))))

    def _summed(self, rest: Sequence[tuple[int, int]], engine: Engine) -> tuple[int, int]:
        """A register that holds the sum of these terms, in units of what all are multiples of, and the unit."""
        unit = math.gcd(*(coefficient for _, coefficient in rest))
        register = self.registers.spare()
        total: tuple[tuple[int, int], ...] = ()
        for part in batched(rest, TERMS_MAX - 1):
            terms = tuple(sorted((*total, *((r, c // unit) for r, c in part))))
            self._stream(engine).append(Instruction(isa.control.REGISTER_SET, fields={
                "register": register, "value": Affine(0, terms)}))
            total = ((register, 1),)
        return register, unit

    def _loop(self, loop: Loop) -> None:
        engines = engines_of(loop.body, self.users)
        mark = self.registers.mark()
        register = self.registers.take(loop.symbol)
        for engine in engines:
            self._stream(engine).append(
                Instruction(isa.control.LOOP, fields={"register": register, "count": Affine(loop.count)}))
        self.block(loop.body)
        for engine in engines:
            self._stream(engine).append(Instruction(isa.control.END))
        self.registers.release(mark)

    def _scalar_load(self, statement: ScalarLoad) -> None:
        register = self.registers.take(statement.symbol)
        for engine in sorted(self.users.get(statement.symbol, ()), key=lambda e: e.value):
            self._append(Site(statement, engine), Instruction(
                isa.control.REGISTER_LOAD, {"source": self._pattern(statement.source, engine)}, {"register": register}))

    def _scalar_op(self, statement: ScalarOp) -> None:
        a, b = self.registers.affine(statement.a), self.registers.affine(statement.b)
        register = self.registers.take(statement.symbol)
        for engine in sorted(self.users.get(statement.symbol, ()), key=lambda e: e.value):
            self._stream(engine).append(Instruction(
                isa.control.REGISTER_ALU, fields={"register": register, "op": statement.op, "a": a, "b": b}))


def _touches_psum(statement: Op | ScalarLoad) -> bool:
    return isinstance(statement, Op) and any(
        isinstance(o, Access) and o.memory is Memory.PSUM for o in statement.operands.values())


def _done(lag: int) -> Event:
    """All regions before this one are done, but for the last `lag` of them."""
    return EPOCH, Expr(-lag, ((BASE, 1),))


def batched(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start:start + size] for start in range(0, len(items), size)]


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
    if op.where is not None:
        found |= {symbol for symbol, _ in op.where.terms}
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


def engines_of(statements: Sequence[Statement], users: dict[Symbol, frozenset[Engine]]) -> list[Engine]:
    """Engines that run anything in a block, in a fixed order."""
    found: set[Engine] = set()
    for statement in _flat(statements):
        if isinstance(statement, Op):
            found.add(statement.engine)
        elif isinstance(statement, ScalarLoad | ScalarOp):
            found |= users.get(statement.symbol, frozenset())
    return sorted(found, key=lambda e: e.value)
