"""Chains of row programs: what one makes for the next stays on the chip, row by row.

Tiles of rows pass the members of a chain like a wave: while the last member works on one tile, the one before works on the
next, so that the tensor engine multiplies for one member while another's sums are being read. Matrices stay.

A few tiles stand in a line instead: member after member works on all of them. Matrices come in the order in which they are
used, round about in a ring, as far ahead as it is long, and rows come by another queue, which matrices need not wait for. What
members hand on shares memory with what is no longer read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from nxcc.backends.capability.chains import LINE_SHARE, SLACK_BYTES, head_share, line_share
from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.lowering.rows.chain_head import Head, is_head
from nxcc.backends.lowering.rows.chain_member import Handed, Member
from nxcc.backends.lowering.rows.chain_supply import Places, Ring, Supply
from nxcc.backends.lowering.rows.chain_turned import Turned
from nxcc.backends.lowering.rows.products import UnderWay
from nxcc.backends.lowering.rows.program import RowProgram
from nxcc.backends.lowering.rows.region import rows_together
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, expr
from nxcc.backends.tile.program import Access, View, contiguous
from nxcc.ir.diagnostics import OUT_OF_MEMORY, CompileError
from nxcc.ir.dtypes import U8, DType
from nxcc.ir.hlo.marks import CHAIN, row_dims
from nxcc.ir.hlo.module import Computation, Instruction

TURNING_BANKS = 2
"""PSUM banks for turning left sides, which no member keeps."""


def lower_row_chain(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Write the tile program of a chain."""
    rows = int(instruction.frontend_attributes[CHAIN])
    body = instruction.called[0]
    fusions = [i for i in body.post_order() if i.opcode == "fusion"]
    heads = [fusion for fusion in fusions if is_head(fusion)]
    members = [fusion for fusion in fusions if fusion not in heads]
    share = line_share(members, rows, kernel.target)
    if heads:
        share = head_share(heads[0], members, rows, kernel.target)
    _Lowering(Chain(kernel, rows, share, bool(heads)), fusions, body, operands, results).lower()


def members_together(instruction: Instruction, operands: Sequence[View | None]) -> Iterator[tuple[int, Sequence[int]]]:
    """As `rows_together` for each member's operands from outside."""
    for fusion in instruction.called[0].post_order():
        if fusion.opcode == "fusion":
            numbers = [int(o.attributes["parameter_number"]) if o.opcode == "parameter" else None for o in fusion.operands]
            for place, order in rows_together(fusion, [None if n is None else operands[n] for n in numbers]):
                number = numbers[place]
                assert number is not None
                yield number, order


class Chain:
    """What members share. rows: of each; lanes: of a tile; readers: members that read what is handed on; supply: what is loaded
    once; opens: whether matrices may still be waiting in the queue for loads.

    share: the part of SBUF that a line takes, None for a wave. has_head: whether attention comes first in it; count: tiles of
    rows; stages: of members, those that multiply nothing being in that of the one before them; places: where what a stage takes
    lies; closes: whether the last tile is worked on, behind which nothing reads a member's matrices.
    """

    def __init__(self, kernel: Kernel, rows: int, share: float | None, has_head: bool) -> None:
        self.kernel, self.rows, self.has_head = kernel, rows, has_head
        self.is_line, self.share = share is not None, share or 1.0
        self.count = -(-rows // kernel.target.partitions) if self.is_line else 1
        self.lanes = -(-rows // self.count) if self.is_line and not has_head else min(rows, kernel.target.partitions)
        self.full, self.rest = divmod(rows, self.lanes)
        self.places, self.start = Places(kernel.target.sbuf.align_bytes), expr(0)
        self.closes = True
        self.stages: list[int] = []
        self.members: list[Member] = []
        self.readers: dict[Handed, list[Member]] = {}
        self.under_way = UnderWay(kernel)
        self.opens = True
        self.supply = Supply(kernel, [])
        self._ones: dict[DType, Access] = {}
        self._lines = 0

    @property
    def overlaps(self) -> bool:
        """Whether the line's matrices may come while another region works: always, but where attention leaves no room."""
        return not self.has_head or self.share < 1.0

    def buffers(self, value: Handed) -> int:
        """Tiles of a value that are there at once: in a wave it is read so many members later, or written before that."""
        if self.is_line:
            return self.count
        ahead = int(value.member < self.leading)
        return max((reader.number - value.member + ahead * (reader.number >= self.leading)
                    for reader in self.readers.get(value, [])), default=1)

    @property
    def leading(self) -> int:
        """Members that in a wave work on a tile before those behind them work on earlier ones: those before the first that
        multiplies; of only two that multiply also what comes before the second, if that could not wait for all of it."""
        first, *others = (member.number for member in self.members if member.program.dots)
        waits = len(others) == 1 and not all(member.program.is_parallel for member in self.members[first:others[0]])
        return others[0] if waits else first

    def last(self, value: Handed) -> int:
        """The last member during whose work a value is there: one that reads it, or the next one if it is stored."""
        kept = value.member + (value.result in self.members[value.member].stored)
        return max([min(kept, len(self.members) - 1), *(reader.number for reader in self.readers.get(value, []))])

    def tile(self, sizes: Sequence[int], dtype: DType, first: int, last: int) -> Access:
        """A tile of SBUF for what is there while members first .. last work."""
        if not self.is_line:
            return self.kernel.sbuf(sizes, dtype)
        offset = self.places.take(math.prod(sizes[1:]) * dtype.byte_size, self.stages[first], self.stages[last])
        return Access(Memory.SBUF, dtype, 0, sizes[0], self.start + offset, contiguous(sizes[1:]))

    def ones(self, dtype: DType) -> Access:
        """What the tensor engine repeats a row with, on whichever partition that lies."""
        if dtype not in self._ones:
            self._ones[dtype] = self.kernel.sbuf((self.lanes, self.lanes), dtype)
            self.kernel.memset(self._ones[dtype], 1.0)
        return self._ones[dtype]

    def line_partition(self) -> int:
        """Where the next row to be repeated lies: each on another DMA engine's partitions, since those that one engine brings
        come one after the other and hold up what all engines bring."""
        starts = [start for start in self.kernel.target.start_partitions(1) if start < self.lanes]
        self._lines += 1
        return starts[(self._lines - 1) % len(starts)]


class _Lowering:
    def __init__(self, chain: Chain, fusions: Sequence[Instruction], body: Computation, operands: Sequence[View],
                 results: Sequence[View]) -> None:
        self.chain, self.kernel, self.operands = chain, chain.kernel, operands
        self.numbers = {fusion: number for number, fusion in enumerate(fusions)}
        roots = body.root.operands if body.root.opcode == "tuple" else (body.root,)
        self.outside = {self._handed(root): view for root, view in zip(roots, results, strict=True)}
        sources = [[self._source(o) for o in fusion.operands] for fusion in fusions]
        programs = [self._program(number, fusion, sources[number]) for number, fusion in enumerate(fusions)]
        for number, program in enumerate(programs):
            handed = {p: s for p, s in zip(fusions[number].called[0].parameters, sources[number], strict=True)
                      if isinstance(s, Handed)}
            stored = frozenset(value.result for value in self.outside if value.member == number)
            readers = [(s, fusion.called[0].parameters[place], programs[reader]) for reader, fusion in enumerate(fusions)
                       for place, s in enumerate(sources[reader]) if isinstance(s, Handed) and s.member == number]
            turned = not stored and Turned.fits(program, handed, [(p, reader) for _, p, reader in readers])
            kind = Head if is_head(fusions[number]) else Turned if turned else Member
            chain.members.append(kind(chain, number, program, handed, stored))
            opens = bool(program.dots) or not number or isinstance(chain.members[number - 1], Head)
            chain.stages.append((chain.stages[-1] if number else -1) + opens)
        for member in chain.members:
            for source in member.handed.values():
                chain.readers.setdefault(source, []).append(member)

    def _source(self, value: Instruction) -> View | Handed:
        if value.opcode == "parameter":
            return self.operands[int(value.attributes["parameter_number"])]
        return self._handed(value)

    def _handed(self, value: Instruction) -> Handed:
        """The result of a member that a value is; it may have another shape of the same rows and columns."""
        index = 0
        while value.opcode in ("reshape", "transpose", "get-tuple-element"):
            index = int(value.attributes.get("index", index))
            value = value.operands[0]
        return Handed(self.numbers[value], index)

    def _program(self, number: int, fusion: Instruction, sources: Sequence[View | Handed]) -> RowProgram:
        body = fusion.called[0]
        views = [s if isinstance(s, View) else _nowhere(o) for o, s in zip(fusion.operands, sources, strict=True)]
        roots = body.root.operands if body.root.opcode == "tuple" else (body.root,)
        results = [self.outside.get(Handed(number, index)) or _nowhere(root) for index, root in enumerate(roots)]
        return RowProgram(self.kernel, body, row_dims(fusion), views, results, chained=True)

    def lower(self) -> None:
        chain, kernel = self.chain, self.kernel
        share = int(chain.share * kernel.target.sbuf.usable_bytes)
        if chain.is_line and kernel.room.sbuf_bytes < max(share, int(LINE_SHARE * kernel.target.sbuf.usable_bytes)):
            raise CompileError(OUT_OF_MEMORY, f"{kernel.program.name} loads its matrices far ahead")
        if chain.has_head and not (chain.is_line and kernel.copies.rotates):
            raise CompileError(OUT_OF_MEMORY, f"{kernel.program.name} has attention beside a few tiles of rows")
        for member in chain.members:
            member.prepare()
        chain.start = expr(kernel.room.sbuf_bytes - kernel.sbuf_free_bytes)
        for member in chain.members:
            member.take_tiles()
        if chain.is_line:
            self._line(share)
            return
        kernel.work[Engine.SCALAR] = math.inf  # a copy that waits for Vector must not stand before functions of the next member
        self._share_banks()
        chain.supply = Supply(kernel, [part for member in chain.members for part in member.parts])
        chain.supply.advance()
        for member in chain.members:
            member.spread()
        self._wave()

    def _share_banks(self) -> None:
        """PSUM of a wave: for sums of products, temporaries of norms, and what is left for pieces of columns."""
        chain, kernel = self.chain, self.kernel
        room = kernel.psum_free_banks - TURNING_BANKS
        keeping = []
        for member in chain.members:
            if member.banks <= room:
                keeping.append(member)
                room -= member.banks
        for member in chain.members:
            free = kernel.psum_free_banks
            member.borrow_banks(free - room)
            room -= free - kernel.psum_free_banks
        pieces = [member for member in keeping if member.program.is_parallel and not isinstance(member, Turned)]
        for member in keeping:
            member.take_banks(more=room // len(pieces) if member in pieces else 0)

    # ---- several tiles ------------------------------------------------------------------------------------------

    def _wave(self) -> None:
        """Steps in which the members, the last first, work on a tile each, every member on the one behind the next member's."""
        chain, count = self.chain, len(self.chain.members)
        turns = math.lcm(1, *(chain.buffers(value) for value in chain.readers))
        opening = min(count - 1, chain.full)
        rounds = max(0, chain.full - opening) // turns
        rounds = rounds if rounds > 1 else 0
        for step in range(opening):
            self._step(expr(step), step, 0, step)
        chain.opens = False
        if rounds:
            with self.kernel.loop(rounds) as index:
                for offset in range(opening, opening + turns):
                    self._step(index * turns + offset, offset, 0, count - 1)
        for step in range(opening + rounds * turns, chain.full + count - 1):
            self._step(expr(step), step, max(0, step - chain.full + 1), min(step, count - 1))
        if chain.rest:
            for member in chain.members:
                member.turn(expr(chain.full), chain.full, chain.rest)
                member.run(expr(chain.full), chain.full, chain.rest)

    def _step(self, step: Expr, slot: int, first: int, last: int) -> None:
        """Left sides are turned behind the products before them: what Scalar moves for them must not stand behind what the
        end of those needs."""
        members, lanes = self.chain.members, self.chain.lanes

        def turn(number: int) -> None:
            members[number].turn(step + -number, slot - number, lanes)

        lead = range(min(self.chain.leading - 1, last), first - 1, -1)
        for number in lead:
            turn(number)
            members[number].run(step + -number, slot - number, lanes)
        first = max(first, self.chain.leading)
        early = {number for number in range(first, last + 1) if number == last or members[number].loads_left}
        for number in early:
            turn(number)
        for number in range(last, first - 1, -1):
            after = partial(turn, number - 1) if number > first and number - 1 not in early else None
            members[number].run(step + -number, slot - number, lanes, after)

    # ---- a few tiles --------------------------------------------------------------------------------------------

    def _line(self, share: int) -> None:
        """Matrices of later members are under way while the first ones are worked on. share: bytes of a partition."""
        chain, kernel, members = self.chain, self.kernel, self.chain.members
        taken = kernel.room.sbuf_bytes - kernel.sbuf_free_bytes + chain.places.size
        kernel.room = replace(kernel.room, sbuf_bytes=share)
        ring = Ring(kernel, share - taken - max(m.temporary_bytes() for m in members) - SLACK_BYTES)
        chain.supply = Supply(kernel, [part for member in members for part in member.parts], ring)
        chain.under_way.share(kernel.target.partitions * sum(part.size for part in chain.supply.parts))
        if chain.overlaps:
            chain.supply.advance()
        groups = [[m for m in members if chain.stages[m.number] == stage] for stage in range(chain.stages[-1] + 1)]
        if chain.has_head:
            for part in groups[1][0].fixed_parts:
                chain.supply.advance(part)
            groups[1][0].spread()
            for member in groups.pop(0):
                member.run(expr(0), 0, chain.rows)
            chain.supply.advance()
        else:
            groups[0][0].spread()
        tiles = [(number, min(chain.lanes, chain.rows - number * chain.lanes)) for number in range(chain.count)]
        for member in members:
            member.fetch(tiles)
        kernel.sbuf((chain.lanes, chain.places.size), U8)
        for group, following in zip(groups, [*groups[1:], []], strict=True):
            with kernel.psum_scope():
                self._pass(group, tiles, [member.spread for member in following[:1]])
            for part in [part for member in group for part in member.fixed_parts]:
                chain.supply.release(part)

    def _pass(self, group: Sequence[Member], tiles: Sequence[tuple[int, int]], after: list[Callable[[], None]]) -> None:
        """All tiles of rows, one after the other, through a member that multiplies and those that only read what it makes.
        after: written behind the last product."""
        chain = self.chain
        if len(tiles) > 1:
            group[0].take_banks(TURNING_BANKS)
            for member in group[1:]:
                member.borrow_banks(TURNING_BANKS)
        for number, rows in tiles:
            chain.closes = number == len(tiles) - 1
            for member in group:
                later = [m.spread for m in group[1:]] if member is group[0] and number == 0 else []
                later += after if member is group[-1] and chain.closes else []
                if member is group[0] and not chain.closes:
                    following, count = tiles[number + 1]
                    later.append(partial(member.turn, expr(following), following, count))
                if member is not group[0] or number == 0:
                    member.turn(expr(number), number, rows)
                member.run(expr(number), number, rows, partial(_write, later))


def _write(works: Sequence[Callable[[], None]]) -> None:
    for work in works:
        work()


def _nowhere(value: Instruction) -> View:
    """The form of a value that lies in no memory of its own."""
    return View(Memory.SBUF, value.shape.dtype, expr(0), contiguous(value.shape.dims, value.shape.dtype.byte_size))
