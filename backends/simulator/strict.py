"""Runs a machine program while looking for what the machine would not forgive.

Beside what the functional mode checks: SBUF, PSUM and registers start with rubbish and reading bytes that nobody wrote is an
error; transfers move in up to 16 pieces at random later times; engines take turns at random; two accesses to a byte, one of
them a write, that no semaphore orders are an error whatever order this run took; accumulation groups, activation ranges and
overlapping transfers are checked; nothing may be under way when the program ends.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from nxcc.backends.isa.instructions import dma as dma_isa
from nxcc.backends.isa.instructions import pe as pe_isa
from nxcc.backends.isa.program import (
    REGISTERS,
    AccessPattern,
    Affine,
    DmaPattern,
    Engine,
    Function,
    Instruction,
    Memory,
    Program,
    Signal,
    Wait,
)
from nxcc.backends.simulator.engines.pe import BANK_BYTES
from nxcc.backends.simulator.functional import FastActions, Machine, bind, deadlock
from nxcc.backends.simulator.memory import Array, Memories, View, invalid, raw
from nxcc.backends.simulator.numerics import Scratch
from nxcc.backends.simulator.operation import SEMANTICS, Alerts, Operation, Settings
from nxcc.backends.simulator.ordering import ENGINE_NUMBERS, Clock, SignalHistory
from nxcc.backends.simulator.shadow import FIRST_EVENT, Shadow, numbers, place_of
from nxcc.backends.simulator.streams import Action, Blocked, Pending, Sequencer, evaluator
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass

DMA_ENGINES = 16
"""Of v2, where the caller does not say: a transfer is cut over all, and each counts the semaphore up by one (documented,
hardware model 1.8)."""

POISON = 0xFF
"""The byte that fills memory: a NaN in every float type, and -1 or the largest value in integers."""

DMA_READER_KINDS = 4
"""Transfers that read the same bytes at once are remembered up to this number; an older one may be forgotten."""

TRANSFERS = (dma_isa.DMA_COPY, dma_isa.DMA_TRANSPOSE, dma_isa.DMA_GATHER, dma_isa.DMA_SCATTER)


@dataclass(frozen=True, slots=True)
class Event:
    """An access: by an engine (its count) or a piece of a transfer (its ticket), where it stands in the program."""

    engine: int
    time: int
    ticket: int
    is_matmul: bool
    function: Function
    index: int

    def precedes(self, clock: Clock) -> bool:
        return bool(clock.tickets >> self.ticket & 1) if self.ticket >= 0 else clock.times[self.engine] >= self.time


@dataclass(frozen=True, slots=True)
class Access:
    """Arrays in one memory that an operation reads and writes."""

    memory: Memory
    array: Array
    reads: bool
    writes: bool


@dataclass(slots=True)
class Piece:
    """Work of one DMA engine for one transfer: accesses and kernel (none for an idle engine), then its signals."""

    move: Callable[[], object] | None
    accesses: Sequence[Access]
    clock: Clock
    event: Event | None
    signals: list[tuple[int, int]]


class Watch:
    """The state shared by all engines of a strict machine: shadows of the memories, accesses, signals, work under way."""

    def __init__(self, memories: Memories, semaphores: list[int], dma_engines: int = DMA_ENGINES) -> None:
        self.dma_engines = dma_engines
        self.memories, self.semaphores = memories, semaphores
        self.shadows = {Memory.SBUF: Shadow(Memory.SBUF, memories.sbuf), Memory.PSUM: Shadow(Memory.PSUM, memories.psum),
                        Memory.HBM: Shadow(Memory.HBM, memories.hbm)}
        self.pitches = {Memory.SBUF: memories.sbuf_pitch, Memory.PSUM: memories.psum_pitch, Memory.HBM: 0}
        self.events: list[Event] = []
        self.histories: dict[int, SignalHistory] = {}
        self.pieces: list[Piece] = []
        self.tickets = 0
        self.transfers: list[Event] = []
        """All pieces of transfers of the running entry that move bytes."""
        self.first = FIRST_EVENT
        """Number of the first access of the running entry; accesses of earlier entries precede all of it."""
        self.engine_names = list(Engine)

    def start(self, resident: int) -> None:
        """Begin an entry with rubbish on chip; resident: the bytes of an SBUF partition from there on stay as they are."""
        rows = (self.memories.partitions, self.memories.sbuf_pitch)
        self.memories.sbuf.reshape(rows)[:, :resident] = POISON
        self.memories.psum.fill(POISON)
        self.shadows[Memory.PSUM].forget()
        kept = self.shadows[Memory.SBUF].writer.reshape(rows)[:, resident:].copy()
        self.shadows[Memory.SBUF].forget()
        self.shadows[Memory.SBUF].writer.reshape(rows)[:, resident:] = kept
        self.first += len(self.events)
        self.events.clear()
        self.histories.clear()
        self.pieces.clear()
        self.transfers.clear()
        self.tickets = 0

    def history(self, semaphore: int) -> SignalHistory:
        return self.histories.setdefault(semaphore, SignalHistory())

    def describe(self, event: Event) -> str:
        engine = self.engine_names[event.engine]
        instruction = event.function.streams[engine][event.index]
        debug = f", debug {instruction.debug}" if instruction.debug >= 0 else ""
        return f"{event.function.name}, {engine.value} instruction {event.index} {instruction.spec.name}{debug}"

    def access(self, accesses: Sequence[Access], event: Event, clock: Clock) -> None:
        """Check an operation's accesses against all earlier ones and remember them."""
        number = self.first + len(self.events)
        self.events.append(event)
        for access in accesses:
            self._check(access, event, clock)
        kind = event.engine if event.ticket < 0 else len(ENGINE_NUMBERS) + event.ticket % DMA_READER_KINDS
        for access in accesses:
            shadow = self.shadows[access.memory]
            if access.reads:
                shadow.cells(access.array, shadow.reader(kind))[...] = number
            if access.writes:
                shadow.cells(access.array, shadow.writer)[...] = number

    def _check(self, access: Access, event: Event, clock: Clock) -> None:
        shadow = self.shadows[access.memory]
        missing = shadow.unwritten(access.array) if access.reads else None
        if missing is not None:
            where = place_of(shadow, access.array, missing, self.pitches[access.memory])
            raise self._error(event, f"{where} is read before anything is written there")
        self._ordered(shadow, access, shadow.writer, event, clock)
        if access.writes:
            for reader in shadow.readers.values():
                self._ordered(shadow, access, reader, event, clock)

    def _ordered(self, shadow: Shadow, access: Access, of: Array, event: Event, clock: Clock) -> None:
        cells = shadow.cells(access.array, of)
        for number in numbers(cells, self.first):
            other = self.events[number - self.first]
            if other is event or other.precedes(clock):
                continue
            where = place_of(shadow, access.array, cells == number, self.pitches[access.memory])
            verbs = "writes" if access.writes else "reads", "wrote" if of is shadow.writer else "read"
            raise self._error(event, f"race: it {verbs[0]} {where}, which {self.describe(other)} {verbs[1]}",
                              "no semaphore orders the two")

    def _error(self, event: Event, what: str, why: str = "") -> CompileError:
        error = invalid(what, why)
        error.where = self.describe(event)
        return error

    def check_group(self, array: Array, event: Event) -> None:
        """Raise if anything but a matmul wrote the bytes that a matmul accumulates onto."""
        shadow = self.shadows[Memory.PSUM]
        for number in numbers(shadow.cells(array, shadow.writer), self.first):
            other = self.events[number - self.first]
            if not other.is_matmul:
                raise self._error(event, f"accumulates onto what {self.describe(other)} wrote",
                                  "a group starts with a matmul that overwrites")

    def complete(self, number: int) -> None:
        """Let one piece of a transfer under way happen."""
        piece = self.pieces[number]
        self.pieces[number] = self.pieces[-1]
        self.pieces.pop()
        if piece.move is not None and piece.event is not None:
            self.access(piece.accesses, piece.event, piece.clock)
            try:
                piece.move()
            except CompileError as error:
                error.where = error.where or self.describe(piece.event)
                raise
        for semaphore, amount in piece.signals:
            self.semaphores[semaphore] += amount


class SteppingSequencer(Sequencer):
    """A sequencer that stops after every action."""

    current: tuple[Function, int]
    retried: Action | None = None
    """The action of the wait that was not met: it also learns what the wait proves."""

    def step(self) -> None:
        """One action or one branch; afterwards `pending` is set if a wait is not met."""
        self.pending = None
        block, iterator = self.block, self.iterator
        assert block is not None
        try:
            action = self.retried or next(iterator, None)
            if action is None:
                self.goto(block.next())
                return
            self.retried = action
            self.current = block.function, block.indices[self._position(block, iterator)]
            action()
            self.retried = None
        except Blocked:
            self.pending = block.waits[self._position(block, iterator)]
        except CompileError as error:
            raise self.located(error, block, iterator) from None

    def start(self, entry: int) -> None:
        super().start(entry)
        self.retried = None


class StrictActions(FastActions):
    """What one engine's instructions do in strict mode."""

    def __init__(self, engine: Engine, memories: Memories, scratch: Scratch, semaphores: list[int], alerts: Alerts,
                 watch: Watch) -> None:
        super().__init__(engine, memories, scratch, semaphores, alerts)
        self.settings = Settings(alerts, check_ranges=True)
        self.watch, self.number, self.clock = watch, ENGINE_NUMBERS[engine], Clock()
        self.sequencer: SteppingSequencer

    def event(self, ticket: int = -1, is_matmul: bool = False) -> Event:
        function, index = self.sequencer.current
        return Event(self.number, self.clock.times[self.number], ticket, is_matmul, function, index)

    def wait(self, wait: Wait) -> tuple[Action, Pending]:
        action, pending = super().wait(wait)
        index, value = evaluator(wait.index, self.registers), evaluator(wait.value, self.registers)

        def checked() -> None:
            action()
            self.clock = self.clock.joined(self.watch.history(index()).proven(value()))
        return checked, pending

    def signal(self, signal: Signal) -> Action:
        action, index = super().signal(signal), evaluator(signal.index, self.registers)

        def announced() -> None:
            self.watch.history(index()).announce(self.engine, signal.amount, self.clock)
            action()
        return announced

    def operation(self, instruction: Instruction) -> list[Action]:
        if instruction.spec in TRANSFERS:
            return [self._trigger(instruction)]
        first, *signals = super().operation(instruction)
        accesses = self._accesses(instruction)
        is_matmul = instruction.spec is pe_isa.MATMUL
        accumulates = self._accumulates(instruction)

        def checked() -> None:
            self.clock = self.clock.ticked(self.number)
            event = self.event(is_matmul=is_matmul)
            found = accesses()
            if accumulates():
                self.watch.check_group(next(a.array for a in found if a.writes), event)
            self.watch.access(found, event, self.clock)
            first()
        return [checked, *signals]

    def _accumulates(self, instruction: Instruction) -> Callable[[], bool]:
        """Whether a matmul adds to what is there, with the present registers."""
        if instruction.spec is not pe_isa.MATMUL or not instruction.fields.get("accumulate"):
            return lambda: False
        turn = evaluator(instruction.fields.get("turn", pe_isa.ADDS), self.registers)
        return lambda: turn() != 0

    def _accesses(self, instruction: Instruction) -> Callable[[], list[Access]]:
        """A function that yields what the instruction touches with the present registers."""
        makers: list[Callable[[], Access]] = []
        for spec in instruction.spec.operands:
            if spec.name not in instruction.operands:
                continue
            reads, writes = "r" in spec.access, "w" in spec.access
            operand = instruction.operands[spec.name]
            if instruction.spec is pe_isa.MATMUL and spec.name == "out":
                assert isinstance(operand, AccessPattern)
                makers.append(self._sums(operand, self._accumulates(instruction)))
            else:
                makers.append(self._access(operand, reads, writes))
        return lambda: [make() for make in makers]

    def _sums(self, operand: AccessPattern, accumulates: Callable[[], bool]) -> Callable[[], Access]:
        """The output of a matmul, which lies in one bank and is read where it is added to."""
        view = View(self.memories, operand, operand.dims, raw(operand.dtype))
        offset = evaluator(operand.offset, self.registers)

        def access() -> Access:
            at = offset()
            if (at + view.low) // BANK_BYTES != (at + view.high - 1) // BANK_BYTES:
                raise invalid("the output of a matmul crosses a PSUM bank", f"bytes {at + view.low}..{at + view.high - 1}")
            return Access(operand.memory, view.at(at), accumulates(), True)
        return access

    def _access(self, operand: AccessPattern | DmaPattern, reads: bool, writes: bool) -> Callable[[], Access]:
        if isinstance(operand, DmaPattern):
            linear = self.memories.dma_view(operand, (1,), (0,), raw(operand.dtype))
            address = evaluator(operand.address, self.registers)
            return lambda: Access(operand.memory, linear.at(address()), reads, writes)
        view = View(self.memories, operand, operand.dims, raw(operand.dtype))
        offset = evaluator(operand.offset, self.registers)
        return lambda: Access(operand.memory, view.at(offset()), reads, writes)

    def _trigger(self, instruction: Instruction) -> Action:
        shares = [self._share(piece) for piece in _cut(instruction, self.watch.dma_engines)]
        whole = self._transfer_accesses(instruction)
        signals = [(self._semaphore(s.index.is_constant, s.index.constant, evaluator(s.index, self.registers)), s.amount)
                   for s in instruction.signals]

        def trigger() -> None:
            self.clock = self.clock.ticked(self.number)
            self._check_overlap(instruction, whole())
            amounts = [(index(), amount) for index, amount in signals]
            made = [share() for share in shares]
            made += [Piece(None, (), self.clock, None, []) for _ in range(self.watch.dma_engines - len(made))]
            for number, piece in enumerate(made):
                self._announce(piece, number, amounts)
            self.watch.pieces += made
        return trigger

    def _announce(self, piece: Piece, number: int, amounts: list[tuple[int, int]]) -> None:
        """Split the transfer's signals: DMA engine `number` adds its part of each."""
        watch = self.watch
        ticket = watch.tickets
        watch.tickets += 1
        clock = piece.clock
        if piece.move is not None:
            piece.event = self.event(ticket=ticket)
            watch.transfers.append(piece.event)
            clock = clock.with_ticket(ticket)
        for semaphore, amount in amounts:
            part = amount // watch.dma_engines + (number < amount % watch.dma_engines)
            if part:
                watch.history(semaphore).announce(ticket, part, clock)
                piece.signals.append((semaphore, part))

    def _check_overlap(self, instruction: Instruction, accesses: list[Access]) -> None:
        sources = [a for a in accesses if not a.writes]
        for target in (a for a in accesses if a.writes):
            if any(stride == 0 and size > 1 for stride, size in zip(target.array.strides, target.array.shape, strict=True)):
                raise invalid("a transfer writes an element more than once", "its elements are written in any order")
            for source in sources:
                if source.memory is target.memory and self.watch.shadows[source.memory].overlap(source.array, target.array):
                    raise invalid(f"source and destination of {instruction.spec.name} overlap",
                                  "its elements are written in any order")

    def _share(self, instruction: Instruction) -> Callable[[], Piece]:
        """A function that makes one piece of a transfer with the present registers."""
        prepared = SEMANTICS[instruction.spec.name](
            Operation(instruction, self.engine, self.memories, self.scratch, self.settings))
        accesses = self._transfer_accesses(instruction)

        def make() -> Piece:
            # Addresses are those of the trigger, though the bytes move later.
            registers = list(self.registers)
            return Piece(bind(prepared, registers), accesses(), self.clock, None, [])
        return make

    def _transfer_accesses(self, instruction: Instruction) -> Callable[[], list[Access]]:
        sizes, patterns = tuple(instruction.fields["sizes"]), instruction.operands
        source, target = patterns["source"], patterns["destination"]
        assert isinstance(source, DmaPattern) and isinstance(target, DmaPattern)
        adds = instruction.fields.get("accumulate") == "add"
        indexed = {dma_isa.DMA_GATHER: source, dma_isa.DMA_SCATTER: target}.get(instruction.spec)
        makers: list[Callable[[], Iterator[Access]]] = []
        if indexed is not None:
            indices = patterns["indices"]
            assert isinstance(indices, AccessPattern)
            index_view = View(self.memories, indices, indices.dims, raw(indices.dtype))
            offset = evaluator(indices.offset, self.registers)
            makers.append(lambda: iter([Access(Memory.SBUF, index_view.at(offset()), True, False)]))
            makers.append(self._rows(instruction, indexed, index_view, offset, adds))
        for pattern in (source, target):
            if pattern is not indexed:
                makers.append(self._walk(pattern, sizes, pattern is source or adds, pattern is target))
        return lambda: [access for make in makers for access in make()]

    def _walk(self, pattern: DmaPattern, sizes: tuple[int, ...], reads: bool, writes: bool) -> Callable[[], Iterator[Access]]:
        view = self.memories.dma_view(pattern, sizes, pattern.strides, raw(pattern.dtype))
        address = evaluator(pattern.address, self.registers)
        return lambda: iter([Access(pattern.memory, view.at(address()), reads, writes)])

    def _rows(self, instruction: Instruction, pattern: DmaPattern, index_view: View, offset: Callable[[], int],
              adds: bool) -> Callable[[], Iterator[Access]]:
        """The rows that an indexed side touches; indices out of range are left to the kernel."""
        is_target = instruction.spec is dma_isa.DMA_SCATTER
        stride, limit = instruction.fields["index_stride"], instruction.fields["limit"]
        sizes = tuple(instruction.fields["sizes"][1:]) or (1,)
        view = self.memories.dma_view(pattern, sizes, pattern.strides[1:] or (0,), raw(pattern.dtype))
        address = evaluator(pattern.address, self.registers)

        def rows() -> Iterator[Access]:
            start = address()
            for index in index_view.at(offset()).reshape(-1).tolist():
                if index < limit:
                    yield Access(pattern.memory, view.at(start + index * stride), not is_target or adds, is_target)
        return rows


def _cut(instruction: Instruction, engines: int) -> list[Instruction]:
    """Up to `engines` transfers that together make one, cut along its longest dimension; indexed ones stay whole."""
    source, target = instruction.operands["source"], instruction.operands["destination"]
    assert isinstance(source, DmaPattern) and isinstance(target, DmaPattern)
    sizes = tuple(instruction.fields["sizes"])
    if "indices" in instruction.operands or not sizes:
        return [instruction]
    axis = sizes.index(max(sizes))
    count = min(sizes[axis], engines)
    bounds = [sizes[axis] * k // count for k in range(count + 1)]
    pieces = []
    for start, stop in itertools.pairwise(bounds):
        operands = dict(instruction.operands)
        for name, pattern in (("source", source), ("destination", target)):
            address = Affine(pattern.address.constant + start * pattern.strides[axis], pattern.address.terms)
            operands[name] = replace(pattern, address=address)
        fields = {**instruction.fields, "sizes": (*sizes[:axis], stop - start, *sizes[axis + 1:])}
        pieces.append(Instruction(instruction.spec, operands, fields, debug=instruction.debug))
    return pieces


class StrictMachine(Machine):
    """Runs each entry in a random legal order; raises PROGRAM_INVALID for what the hardware would not forgive.

    seed: of the order; the same seed gives the same order. HBM bytes count as written when `write` put them there.
    """

    def __init__(self, program: Program, hbm_bytes: int, *, seed: int = 0, dma_engines: int = DMA_ENGINES,
                 **sizes: int) -> None:
        self.random = random.Random(seed)
        self.dma_engines = dma_engines
        super().__init__(program, hbm_bytes, **sizes)

    def _make_sequencers(self, scratch: Scratch) -> list[Sequencer]:
        self.watch = Watch(self.memories, self.semaphores, self.dma_engines)
        self.steppers: list[SteppingSequencer] = []
        self.engines: list[StrictActions] = []
        for engine in Engine:
            actions = StrictActions(engine, self.memories, scratch, self.semaphores, self.alerts, self.watch)
            actions.sequencer = SteppingSequencer(engine, self.program, actions)
            self.engines.append(actions)
            self.steppers.append(actions.sequencer)
        return list(self.steppers)

    def write(self, address: int, array: Array) -> None:
        super().write(address, array)
        self.watch.shadows[Memory.HBM].host_wrote(address, address + array.nbytes)

    def read(self, address: int, dtype: DType, dims: Sequence[int]) -> Array:
        """As Machine.read; bytes that nobody wrote are an error."""
        result = super().read(address, dtype, dims)
        if self.watch.shadows[Memory.HBM].unwritten(self.hbm[address:address + result.nbytes]) is not None:
            raise invalid(f"the result at HBM byte {address} is not written by the program")
        return result

    def _run(self) -> None:
        resident = self.program.resident
        self.watch.start(resident.offset if resident is not None else self.memories.sbuf_pitch)
        for actions in self.engines:
            actions.clock = Clock()
            actions.registers[:] = [self.random.randrange(-1 << 31, 1 << 31) for _ in range(REGISTERS)]
        active = [s for s in self.steppers if s.block is not None]
        while active:
            self._turn(active)
            active = [s for s in active if s.block is not None]
        self._check_finished()

    def _turn(self, active: list[SteppingSequencer]) -> None:
        """A few steps in an order of preference that holds for this turn, so that some engines run far ahead of others."""
        preference = {s.engine: self.random.random() for s in active}
        eagerness = self.random.random()
        for _ in range(self.random.randrange(1, 64)):
            runnable = [s for s in active if s.is_runnable]
            pieces = self.watch.pieces
            if pieces and (not runnable or self.random.random() < eagerness):
                self.watch.complete(self.random.randrange(len(pieces)))
            elif runnable:
                max(runnable, key=lambda s: preference[s.engine] + self.random.random() / 2).step()
            elif any(s.block is not None for s in active):
                raise deadlock([s for s in active if s.block is not None])
            else:
                return

    def _check_finished(self) -> None:
        """Raise if a transfer may be under way when the last engine halts."""
        known = 0
        for actions in self.engines:
            known |= actions.clock.tickets
        for event in self.watch.transfers:
            if not known >> event.ticket & 1:
                error = invalid("the program ends while a transfer may be under way", "no engine waits for its semaphore")
                error.where = self.watch.describe(event)
                raise error

