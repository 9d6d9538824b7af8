"""Regions closer together on chip, once their weights lie elsewhere.

Before: a region's tiles lie around those of its weights, which are read in another part of SBUF now (see `pinning`). After:
what the region still touches lies together, at the start of its bytes, and those behind are free. Bytes that one access spans
stay as they are to each other; of two accesses those that shared bytes still do, and no others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from nxcc.backends.berths import Work
from nxcc.backends.isa.layout import is_trigger
from nxcc.backends.isa.program import Function, Instruction, Memory, Operand, Program
from nxcc.backends.onchip.reads import at_offset, footprint, offset_of
from nxcc.backends.onchip.transfers import sizes_of
from nxcc.ir.facts import dataclass


@dataclass(frozen=True)
class _Moves:
    """Runs of grains that a region touches: where each starts, and by how many bytes it moves. size: bytes of all together."""

    starts: tuple[int, ...]
    shifts: tuple[int, ...]
    size: int

    def shift(self, low: int) -> int:
        return self.shifts[bisect_right(self.starts, low) - 1]


def squeezed(program: Program, work: Sequence[Work], align: int) -> tuple[Program, list[Work]]:
    """The program with the bytes of each region that it touches no more given up, and where each region works then.

    align: bytes of a grain. What is resident stays where it is; a region that touches bytes outside its own does so, too.
    """
    resident = program.resident
    places = {one.region: one for one in work}
    spans: dict[int, set[tuple[int, int]]] = defaultdict(set)
    entries = [entry for entry in program.entries if resident is None or entry.name != resident.entry]
    for entry in entries:
        for stream in entry.streams.values():
            for instruction in stream:
                spans[instruction.debug].update(_touched(instruction, resident.offset if resident else None, align))
    moves = {region: _moves(found, places[region], align) for region, found in spans.items() if region in places}
    kept = {region: found for region, found in moves.items() if found is not None}
    changed = [_moved_entry(entry, kept, resident.offset if resident else None) if entry in entries else entry
               for entry in program.entries]
    sizes = {region: found.size for region, found in kept.items()}
    return replace(program, entries=changed), [Work(one.region, one.start, sizes.get(one.region, one.size), one.lag)
                                               for one in work]


def resident_at(program: Program, offset: int) -> Program:
    """The program with what is resident from another byte of each partition on."""
    assert program.resident is not None
    border = program.resident.offset
    shift = offset - border

    def moved(one: Instruction) -> Instruction:
        operands = {name: at_offset(operand, shift) if _stays(operand, border) else operand
                    for name, operand in one.operands.items()}
        return Instruction(one.spec, operands, one.fields, one.waits, one.signals, one.debug)

    entries = [Function(entry.name, {engine: list(map(moved, stream)) for engine, stream in entry.streams.items()})
               for entry in program.entries]
    return replace(program, entries=entries, sbuf_bytes=program.sbuf_bytes + shift,
                   resident=replace(program.resident, offset=offset))


def _touched(instruction: Instruction, border: int | None, align: int) -> set[tuple[int, int]]:
    """Ranges of grains that an instruction's operands span below the border."""
    sizes = sizes_of(instruction) if is_trigger(instruction.spec) else ()
    found = set()
    for operand in instruction.operands.values():
        if _is_work(operand, border):
            place = footprint(operand, sizes)
            found.add((place.low // align, -(-place.high // align)))
    return found


def _stays(operand: Operand, border: int) -> bool:
    return operand.memory is Memory.SBUF and offset_of(operand) >= border


def _is_work(operand: Operand, border: int | None) -> bool:
    return operand.memory is Memory.SBUF and (border is None or not _stays(operand, border))


def _moves(spans: set[tuple[int, int]], place: Work, align: int) -> _Moves | None:
    """None where nothing may move."""
    ordered = sorted(spans)
    if not ordered or place.start % align or ordered[0][0] * align < place.start \
            or max(high for _, high in ordered) * align > -(-(place.start + place.size) // align) * align:
        return None
    runs: list[list[int]] = []
    for low, high in ordered:
        if runs and low < runs[-1][1]:
            runs[-1][1] = max(runs[-1][1], high)
        else:
            runs.append([low, high])
    end, shifts = place.start // align, []
    for low, high in runs:
        shifts.append((end - low) * align)
        end += high - low
    return _Moves(tuple(low * align for low, _ in runs), tuple(shifts), end * align - place.start)


def _moved_entry(entry: Function, moves: Mapping[int, _Moves], border: int | None) -> Function:
    return Function(entry.name, {engine: [_moved(one, moves.get(one.debug), border) for one in stream]
                                 for engine, stream in entry.streams.items()})


def _moved(one: Instruction, moves: _Moves | None, border: int | None) -> Instruction:
    if moves is None or not any(moves.shifts):
        return one
    sizes = sizes_of(one) if is_trigger(one.spec) else ()
    operands = {name: at_offset(operand, moves.shift(footprint(operand, sizes).low)) if _is_work(operand, border) else operand
                for name, operand in one.operands.items()}
    return Instruction(one.spec, operands, one.fields, one.waits, one.signals, one.debug)
