"""Which HLO instructions a machine instruction stands for: several, where a call in a loop belongs to another one each turn."""

from __future__ import annotations

from collections.abc import Iterator

from nxcc.backends.isa.program import Affine, Stream


def debug_indices(stream: Stream) -> Iterator[range]:
    """Indices into the debug map for each instruction of a stream; empty for one that comes from no HLO instruction."""
    turns: list[int] = []
    for instruction in stream:
        name = instruction.spec.name
        if name in ("loop", "while", "if"):
            count = instruction.fields.get("count", Affine(1))
            turns.append(count.constant if count.is_constant else 1)
        elif name == "end":
            turns.pop()
        first, step = instruction.debug, int(instruction.fields.get("debug_step", 0))
        if first < 0:
            yield range(0)
        elif step and turns:
            yield range(first, first + step * turns[-1], step)
        else:
            yield range(first, first + 1)
