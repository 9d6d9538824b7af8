"""What a strict run looks at: who read and wrote which byte, what has been signalled, what of transfers is under way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nxcc.backends.isa.instructions import dma as dma_isa
from nxcc.backends.isa.program import Engine, Function, Memory
from nxcc.backends.simulator.memory import Array, Memories, invalid
from nxcc.backends.simulator.strict.ordering import ENGINE_NUMBERS, Clock, SignalHistory
from nxcc.backends.simulator.strict.shadow import FIRST_EVENT, Shadow, numbers, place_of
from nxcc.ir.diagnostics import CompileError
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
