"""What a row program may hold on a target: answers the fusion pass (see nxcc.passes.cost.RowCapacity)."""

from __future__ import annotations

from dataclasses import dataclass

from nxcc.backends.lowering.pointwise import TEMPORARIES, emits
from nxcc.backends.support import unsupported
from nxcc.backends.target import Target
from nxcc.ir.hlo.module import Instruction

SHARE = 0.8
"""Part of SBUF that a region's values may take; the rest is for matrices that stream by and temporaries."""

STREAM_BYTES = 16384
"""Bytes a partition for the stationary and moving tiles of a product, at least."""


@dataclass(frozen=True)
class TargetRowCapacity:
    """Row programs on one target."""

    target: Target
    max_inputs: int = 20

    def supported(self, instruction: Instruction) -> bool:
        if instruction.opcode in ("dot", "reduce"):
            return unsupported(instruction, self.target) is None and instruction.shape.dtype.is_float
        return instruction.opcode in emits() and unsupported(instruction, self.target) is None

    def fits(self, widths: list[tuple[Instruction, int]]) -> bool:
        """Peak of the live tiles when the members run in order, each with its operands and temporaries."""
        members = {instruction: width for instruction, width in widths}
        last: dict[Instruction, Instruction] = {}
        for instruction in members:
            for operand in instruction.operands:
                last.setdefault(operand, instruction)
        live, peak, dots = 0, 0, 0
        for instruction, width in reversed(members.items()):
            live += width * 4
            extra = TEMPORARIES.get(instruction.opcode, 0) * width * 4
            if instruction.opcode == "dot":
                depth = instruction.operands[0].shape.dims[instruction.attribute("lhs_contracting_dims")[0]]
                extra = depth * 8 + STREAM_BYTES
                dots += 1
            peak = max(peak, live + extra)
            for operand in dict.fromkeys(instruction.operands):
                if last[operand] is instruction and operand in members:
                    live -= members[operand] * 4
        inputs = {o for m in members for o in m.operands if o not in members and o.shape.rank}
        loaded = sum(4 * max((o.shape.dims[-1], 1)) for o in inputs)
        return peak + loaded <= SHARE * self.target.sbuf.usable_bytes
