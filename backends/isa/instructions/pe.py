"""Tensor engine: 128 x 128 systolic array, operands from SBUF, results to PSUM."""

from nxcc.backends.isa.program import Affine, Engine, FieldKind, FieldSpec, Memory, OperandSpec, instruction
from nxcc.ir.dtypes import BF16, F8E3M4, F8E4M3, F8E5M2, F16, F32

SBUF, PSUM = (Memory.SBUF,), (Memory.PSUM,)
PE_INPUTS = (F32, BF16, F16, F8E4M3, F8E5M2, F8E3M4)

MATMUL = instruction(
    "matmul", 0x01, Engine.PE,
    (OperandSpec("stationary", "r", SBUF, PE_INPUTS), OperandSpec("moving", "r", SBUF, PE_INPUTS),
     OperandSpec("out", "rw", PSUM, (F32,))),
    (FieldSpec("accumulate", FieldKind.FLAG, default=False), FieldSpec("tf32", FieldKind.FLAG, default=False),
     FieldSpec("turn", FieldKind.AFFINE, default=Affine(1))),
    meaning="out[m, n] (= or +=) sum_k stationary[k, m] * moving[k, n]; k lies on partitions of both, m on those of out; "
            "m <= 128, n <= 512 and within one PSUM bank; f32 sums; f32 pairs only with f32. tf32: f32 operands are "
            "rounded to 10 mantissa bits on entry and run at full rate. out is read only if accumulate and turn is not 0: "
            "where turn counts the passes of a loop, the first opens the sums.")

ADDS = Affine(1)
"""A turn that is no first one."""

PE_TRANSPOSE = instruction(
    "pe_transpose", 0x02, Engine.PE,
    (OperandSpec("data", "r", SBUF, PE_INPUTS), OperandSpec("out", "w", PSUM, PE_INPUTS)),
    meaning="out[f, p] = data[p, f], at most 128 x 128, same dtype; a matmul with the identity, so one NaN or Inf in "
            "data[p, f] turns the other elements of out[f] into NaN.")
