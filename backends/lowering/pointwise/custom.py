"""Custom calls that are one function of the scalar engine."""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.backends.lowering.pointwise.float import ACTIVATIONS as OPERATORS
from nxcc.backends.lowering.pointwise.formulas import CALLS, Tile, pointwise
from nxcc.backends.lowering.terms import Term, activate
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.ops.opaque import TARGETS

ACTIVATIONS = {"AwsNeuronErf": "erf", "AwsNeuronSoftplus": "softplus", "AwsNeuronGelu": "gelu",
               "AwsNeuronGeluApprxTanh": "gelu_apprx_tanh", "AwsNeuronSilu": "silu"}
"""Custom-call target -> activation function."""


def scalar_function(instruction: Instruction) -> str | None:
    """The activation function that an operator of one operand is; None if it is more, or something else."""
    if instruction.opcode == "custom-call":
        return ACTIVATIONS.get(instruction.attribute("custom_call_target"))
    return OPERATORS.get(instruction.opcode)


def _unsupported(instruction: Instruction, target: Target) -> str | None:
    name = instruction.attribute("custom_call_target")
    row = TARGETS.get(name)
    if row is not None and row.identity and len(instruction.operands) == 1:
        given = instruction.operands[0].shape
        if not (given.is_array and instruction.shape.is_array):
            return f"{name} of a tuple has no device lowering"
        return None if given.dims == instruction.shape.dims else \
            f"{name} turns {given} into {instruction.shape}: that takes more than one device"
    if name not in ACTIVATIONS:
        return f"custom call {name} has no device lowering"
    return None if instruction.shape.dtype.is_float else f"{name} of {instruction.shape.dtype} elements has no lowering"


@pointwise("custom-call", unsupported=_unsupported)
def emit_custom_call(kernel: Kernel, instruction: Instruction, inputs: Sequence[Tile], out: Access) -> None:
    assert isinstance(inputs[0], Access)
    kernel.activation(out, inputs[0], ACTIVATIONS[instruction.attribute("custom_call_target")])


def _term(instruction: Instruction, x: Term) -> Term:
    return activate(ACTIVATIONS[instruction.attribute("custom_call_target")], x)


CALLS.update(dict.fromkeys(ACTIVATIONS, _term))
