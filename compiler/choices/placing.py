"""What an instruction costs on the host and on the device, for placement: the same simple models as the estimate's.

The host: max(operations / rate, bytes / rate). The device: the roofline. Facts: target file, [host] and [dma].
"""

from __future__ import annotations

import math

from nxcc.backends.target import Target
from nxcc.compiler.reports.roofline import PICKING, instruction_work, roofline
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction


@dataclass(frozen=True)
class HostAndDevice:
    """Answers placement (see nxcc.passes.cost.PlacementCosts)."""

    target: Target

    @property
    def launch(self) -> int:
        return round(self.target.host.submit_ns + self.target.host.execution_fixed_ns)

    def host(self, instruction: Instruction) -> int:
        work = instruction_work(instruction)
        facts = self.target.host
        seconds = max((sum(work.flops.values()) + work.vector + work.scalar) / facts.flops_per_second,
                      moved_bytes(instruction) / facts.memory_bytes_per_second)
        return math.ceil(seconds * 1e9)

    def device(self, instruction: Instruction) -> int:
        return 0 if is_free(instruction) else math.ceil(roofline(instruction_work(instruction), self.target).us * 1e3)

    def transfer(self, size: int) -> int:
        return math.ceil(size / self.target.host.copy_bytes_per_second * 1e9)


def is_free(instruction: Instruction) -> bool:
    """Whether the instruction only gives a value another form."""
    return instruction.operator.moves_data and len(instruction.operands) == 1


def moved_bytes(instruction: Instruction) -> int:
    """Bytes that an instruction reads and writes."""
    if instruction.opcode in ("reshape", "bitcast"):
        return 0
    operands = instruction.operands[1:] if instruction.opcode in PICKING else instruction.operands
    picked = instruction.shape.byte_size if instruction.opcode in PICKING else 0
    return sum(operand.shape.byte_size for operand in operands) + picked + instruction.shape.byte_size
