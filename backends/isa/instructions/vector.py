"""Vector engine (DVE), and the forms that GpSimd shares with it.

Arithmetic converts every operand to f32, computes in f32 and converts the result to the output's dtype (float to integer:
nearest even, saturating, NaN to 0). GpSimd computes natively, wrapping, when all operands are 32-bit integers.
Bit operations take integers as raw bits, all of one width. Comparisons and logical operators give 1 or 0.
"""

from nxcc.backends.isa.program import Engine, FieldKind, FieldSpec, Memory, OperandSpec, instruction
from nxcc.ir.dtypes import F32, S8, S16, S32, U8, U16, U32

VECTOR_OR_GPSIMD = (Engine.VECTOR, Engine.GPSIMD)
SBUF = (Memory.SBUF,)

BIT_OPS = ("invert", "bitwise_and", "bitwise_or", "bitwise_xor", "shift_left", "shift_right_logical")
ARITHMETIC_OPS = ("add", "subtract", "multiply", "maximum", "minimum", "equal", "not_equal", "greater_equal", "greater",
                  "less_equal", "less", "logical_and", "logical_or", "logical_xor", "abs_max", "abs_min", "power")
REDUCE_OPS = ("add", "multiply", "maximum", "minimum", "logical_and", "logical_or", "bitwise_and", "bitwise_or", "bitwise_xor")
UNARY_OPS = ("rsqrt",)
"""Of one operand, for tensor_scalar alone: the scalar is ignored. rsqrt gives infinity with the sign of a zero, and NaN below
zero (assumed)."""

GPSIMD_OPS = ("power", "rsqrt")
"""Operators that run on GpSimd only (hardware model 2.6)."""

ALU_OPS = ("bypass", *ARITHMETIC_OPS, *BIT_OPS, *UNARY_OPS)
"""Shift amounts of 32 or more give 0; maximum and minimum propagate NaN (assumed)."""

TENSOR_TENSOR = instruction(
    "tensor_tensor", 0x20, VECTOR_OR_GPSIMD,
    (OperandSpec("a", "r"), OperandSpec("b", "r"), OperandSpec("out", "w")),
    (FieldSpec("op", FieldKind.ENUM, ALU_OPS),),
    meaning="out = a op b, elementwise. a and b not both in PSUM; SBUF only on GpSimd.")

TENSOR_SCALAR = instruction(
    "tensor_scalar", 0x21, VECTOR_OR_GPSIMD,
    (OperandSpec("data", "r"), OperandSpec("out", "w"), OperandSpec("scalar0", "r", dtypes=(F32, S32, U32), optional=True),
     OperandSpec("scalar1", "r", dtypes=(F32, S32, U32), optional=True)),
    (FieldSpec("op0", FieldKind.ENUM, ALU_OPS), FieldSpec("immediate0", FieldKind.FLOAT, default=0.0),
     FieldSpec("reverse0", FieldKind.FLAG, default=False), FieldSpec("op1", FieldKind.ENUM, ALU_OPS, default="bypass"),
     FieldSpec("immediate1", FieldKind.FLOAT, default=0.0), FieldSpec("reverse1", FieldKind.FLAG, default=False)),
    meaning="out = (data op0 s0) op1 s1; s is an f32 immediate or scalarN [P, 1]; reverse swaps that operator's operands. "
            "Both ops bit operations or both arithmetic; for bit operations immediates are integers. On GpSimd with 32-bit "
            "integer data, out and scalars the arithmetic is native and immediates are integers (exact below 2^53).")

SCALAR_TENSOR_TENSOR = instruction(
    "scalar_tensor_tensor", 0x22, Engine.VECTOR,
    (OperandSpec("data", "r"), OperandSpec("b", "r"), OperandSpec("out", "w"),
     OperandSpec("scalar0", "r", dtypes=(F32,), optional=True)),
    (FieldSpec("op0", FieldKind.ENUM, ALU_OPS), FieldSpec("immediate0", FieldKind.FLOAT, default=0.0),
     FieldSpec("reverse0", FieldKind.FLAG, default=False), FieldSpec("op1", FieldKind.ENUM, ALU_OPS),
     FieldSpec("reverse1", FieldKind.FLAG, default=False)),
    meaning="out = (data op0 s0) op1 b, arithmetic only; data and b not both in PSUM.")

TENSOR_REDUCE = instruction(
    "tensor_reduce", 0x23, VECTOR_OR_GPSIMD,
    (OperandSpec("data", "r"), OperandSpec("out", "w")),
    (FieldSpec("op", FieldKind.ENUM, REDUCE_OPS), FieldSpec("axes", FieldKind.INT, default=1),
     FieldSpec("negate", FieldKind.FLAG, default=False)),
    meaning="out = op over the last `axes` free dimensions of data (f32 inside; bit operations raw); out has the remaining "
            "ones. On GpSimd 32-bit integers are native.")

TENSOR_TENSOR_SCAN = instruction(
    "tensor_tensor_scan", 0x24, Engine.VECTOR,
    (OperandSpec("a", "r"), OperandSpec("b", "r"), OperandSpec("out", "w"),
     OperandSpec("initial", "r", dtypes=(F32,), optional=True)),
    (FieldSpec("op0", FieldKind.ENUM, ALU_OPS), FieldSpec("op1", FieldKind.ENUM, ALU_OPS),
     FieldSpec("initial_value", FieldKind.FLOAT, default=0.0)),
    meaning="r[i] = (a[i] op0 r[i-1]) op1 b[i] along the flattened free dimensions, r[-1] = initial [P, 1] or "
            "initial_value; f32.")

TENSOR_COPY = instruction(
    "tensor_copy", 0x25, VECTOR_OR_GPSIMD, (OperandSpec("data", "r"), OperandSpec("out", "w")),
    meaning="out = data with cast: bit exact if the dtypes are equal, else through f32.")

COPY_PREDICATED = instruction(
    "copy_predicated", 0x26, Engine.VECTOR,
    (OperandSpec("data", "r"), OperandSpec("predicate", "r", dtypes=(U8, U16, U32, S8, S16, S32)), OperandSpec("out", "rw")),
    meaning="out[i] = data[i] where predicate[i] is not 0, else unchanged; data has the dtype of out (moved as bits).")

MEMSET = instruction(
    "memset", 0x27, VECTOR_OR_GPSIMD, (OperandSpec("out", "w"),), (FieldSpec("value", FieldKind.FLOAT, default=0.0),),
    meaning="out = value, converted to out's dtype; integers up to 2^53 in magnitude are exact.")

RECIPROCAL = instruction(
    "reciprocal", 0x28, Engine.VECTOR, (OperandSpec("data", "r"), OperandSpec("out", "w")),
    meaning="out = 1 / data in f32.")

BN_STATS = instruction(
    "bn_stats", 0x29, Engine.VECTOR, (OperandSpec("data", "r"), OperandSpec("out", "w", dtypes=(F32,))),
    meaning="six values a partition: count, mean, variance * count of the even elements, then of the odd ones; N <= 512.")

BN_AGGR = instruction(
    "bn_aggr", 0x2A, Engine.VECTOR,
    (OperandSpec("data", "r", dtypes=(F32,)), OperandSpec("out", "w", dtypes=(F32,))),
    meaning="mean and (biased) variance from k (count, mean, variance * count) triples a partition; out has two elements.")

VECTOR_TRANSPOSE = instruction(
    "vector_transpose", 0x2B, Engine.VECTOR, (OperandSpec("data", "r"), OperandSpec("out", "w")),
    meaning="out[f, p] = data[p, f] for blocks of 32 x 32 within each quadrant; same dtype.")

MAX8 = instruction(
    "max8", 0x2C, Engine.VECTOR, (OperandSpec("data", "r"), OperandSpec("out", "w")),
    meaning="the 8 largest of each partition, descending; 8 <= N <= 16384.")

FIND_INDEX8 = instruction(
    "find_index8", 0x2D, Engine.VECTOR,
    (OperandSpec("data", "r"), OperandSpec("values", "r"), OperandSpec("out", "w", dtypes=(U16, U32))),
    meaning="for each of 8 values a partition, the index of its first occurrence in data (repeated values take "
            "successive ones).")

MATCH_REPLACE8 = instruction(
    "match_replace8", 0x2E, Engine.VECTOR,
    (OperandSpec("data", "r"), OperandSpec("values", "r"), OperandSpec("out", "w")),
    (FieldSpec("value", FieldKind.FLOAT, default=0.0),),
    meaning="out = data with the first occurrence of each of 8 values a partition replaced by `value`.")

SELECT = instruction(
    "select", 0x2F, Engine.VECTOR,
    (OperandSpec("predicate", "r"), OperandSpec("a", "r"), OperandSpec("b", "r", optional=True), OperandSpec("out", "w")),
    (FieldSpec("immediate", FieldKind.FLOAT, default=0.0),),
    meaning="out = predicate ? a : b; b may be an immediate; values pass through f32 unless all dtypes are equal (then bits); "
            "a and predicate not both in PSUM.")
