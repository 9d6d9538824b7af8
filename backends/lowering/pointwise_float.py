"""Float arithmetic and transcendental functions on tiles."""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.backends.lowering.pointwise import Tile, alu, pointwise
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access
from nxcc.ir.hlo.module import Instruction

BINARY = {"add": "add", "subtract": "subtract", "multiply": "multiply", "maximum": "maximum", "minimum": "minimum"}


@pointwise(*BINARY)
def emit_binary(kernel: Kernel, instruction: Instruction, inputs: Sequence[Tile], out: Access) -> None:
    alu(kernel, BINARY[instruction.opcode], inputs[0], inputs[1], out)


ACTIVATIONS = {"exponential": "exp", "tanh": "tanh", "logistic": "sigmoid", "abs": "abs"}


@pointwise(*ACTIVATIONS)
def emit_activation(kernel: Kernel, instruction: Instruction, inputs: Sequence[Tile], out: Access) -> None:
    assert isinstance(inputs[0], Access)
    kernel.activation(out, inputs[0], ACTIVATIONS[instruction.opcode])
