"""What the instructions of one engine do in a strict run: accesses are told to the watch, transfers are cut into pieces."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

from nxcc.backends.isa.instructions import dma as dma_isa
from nxcc.backends.isa.instructions import pe as pe_isa
from nxcc.backends.isa.program import AccessPattern, Affine, DmaPattern, Engine, Function, Instruction, Memory, Signal, Wait
from nxcc.backends.simulator.engines.pe import BANK_BYTES
from nxcc.backends.simulator.functional import FastActions, bind
from nxcc.backends.simulator.memory import Memories, View, invalid, raw
from nxcc.backends.simulator.numerics import Scratch
from nxcc.backends.simulator.operation import SEMANTICS, Alerts, Operation, Settings
from nxcc.backends.simulator.streams import Action, Blocked, Pending, Sequencer, evaluator
from nxcc.backends.simulator.strict.ordering import ENGINE_NUMBERS, Clock
from nxcc.backends.simulator.strict.watch import TRANSFERS, Access, Event, Piece, Watch
from nxcc.ir.diagnostics import CompileError


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
