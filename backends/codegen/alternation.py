"""Two places for what a core takes over and hands over, so that values of one request pass while another is worked on.

Before: an entry reads and writes its inputs and outputs at their addresses. After: a second entry does the same work on places
behind the arena. Requests take the two in turns: the one before is still read by whoever takes it over, the next one comes.
Programs without registers only: every address is a number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection
from dataclasses import replace

from nxcc.backends.codegen.code import DeviceCode
from nxcc.backends.isa.program import Function, Instruction, Memory
from nxcc.backends.onchip.reads import at_offset
from nxcc.backends.onchip.transfers import reach_of
from nxcc.backends.target import Target

SECOND = ".second"
"""Behind an entry's name: the one of the second places."""


def alternate(code: DeviceCode, values: Collection[str], target: Target) -> None:
    """Give the values of these names second places, and each entry but the loading one a second one of them."""
    program, align = code.program, target.hbm.align_bytes
    end = program.hbm_bytes
    blocks: dict[int, tuple[int, int]] = {}
    for name in sorted(values, key=lambda name: code.bindings[name].address):
        binding = code.bindings[name]
        if binding.address not in blocks:
            end = -(-end // align) * align
            blocks[binding.address] = binding.size, end - binding.address
            end += binding.size
        code.second[name] = binding.address + blocks[binding.address][1]
    starts = sorted(blocks)
    loading = program.resident.entry if program.resident is not None else ""

    def moved(one: Instruction) -> Instruction:
        shifts = {name: shift for name, operand in one.operands.items() if operand.memory is Memory.HBM
                  and (shift := _shift(one, name))}
        operands = {name: at_offset(operand, shifts.get(name, 0)) for name, operand in one.operands.items()} if shifts else \
            one.operands
        return Instruction(one.spec, operands, one.fields, one.waits, one.signals, one.debug)

    def _shift(one: Instruction, name: str) -> int:
        low, high = reach_of(one, name)
        number = bisect_right(starts, low) - 1
        if number < 0 or low >= starts[number] + blocks[starts[number]][0]:
            return 0
        size, shift = blocks[starts[number]]
        assert high <= starts[number] + size, "a transfer leaves its value"
        return shift

    seconds = [Function(entry.name + SECOND, {engine: list(map(moved, stream)) for engine, stream in entry.streams.items()})
               for entry in program.entries if entry.name != loading]
    code.program = replace(program, entries=[*program.entries, *seconds], hbm_bytes=end)
