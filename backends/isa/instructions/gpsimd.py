"""GpSimd: integer patterns, masks, gathers along the free dimension, reductions over partitions. SBUF only."""

from nxcc.backends.isa.instructions.vector import REDUCE_OPS
from nxcc.backends.isa.program import Engine, FieldKind, FieldSpec, Memory, OperandSpec, instruction
from nxcc.ir.dtypes import S32, U32

SBUF = (Memory.SBUF,)

IOTA = instruction(
    "iota", 0x40, Engine.GPSIMD, (OperandSpec("out", "w", SBUF),),
    (FieldSpec("base", FieldKind.AFFINE), FieldSpec("channel_multiplier", FieldKind.INT, default=0),
     FieldSpec("steps", FieldKind.INTS)),
    meaning="out[p, i0, i1, ..] = base + p * channel_multiplier + sum of i_k * steps[k], in 32-bit integers, then cast; p "
            "counts from the operand's first partition; one step per free dimension of out.")

AFFINE_SELECT = instruction(
    "affine_select", 0x41, Engine.GPSIMD, (OperandSpec("data", "r", SBUF), OperandSpec("out", "w", SBUF)),
    (FieldSpec("base", FieldKind.AFFINE), FieldSpec("channel_multiplier", FieldKind.INT, default=0),
     FieldSpec("steps", FieldKind.INTS), FieldSpec("compare", FieldKind.ENUM, ("equal", "not_equal", "greater_equal",
                                                                                "greater", "less_equal", "less")),
     FieldSpec("fill", FieldKind.FLOAT, default=0.0)),
    meaning="out = data where (base + p * channel_multiplier + sum i_k * steps[k]) compare 0, else fill.")

GATHER_FREE = instruction(
    "gather_free", 0x42, Engine.GPSIMD,
    (OperandSpec("data", "r", SBUF), OperandSpec("indices", "r", SBUF, (U32, S32)), OperandSpec("out", "w", SBUF)),
    meaning="out[p, i] = data[p, indices[p, i]] over flattened free dimensions, same dtype (nc_n_gather).")

PARTITION_REDUCE = instruction(
    "partition_reduce", 0x43, Engine.GPSIMD, (OperandSpec("data", "r", SBUF), OperandSpec("out", "w", SBUF)),
    (FieldSpec("op", FieldKind.ENUM, REDUCE_OPS),),
    meaning="out[0, i] = op over partitions of data[p, i]; out has one partition; 32-bit integers are native.")
