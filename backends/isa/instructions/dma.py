"""DMA triggers: any engine may start a transfer on its queue; the engine goes on, the semaphore tells when it is done.

In the NEFF a trigger holds the transfer's number and its register terms; sizes, strides and dtypes are the descriptor
template in the engine's JSON member, expanded by the loader (there is no hardware descriptor generator on v2).
"""

from nxcc.backends.isa.program import Engine, FieldKind, FieldSpec, Memory, OperandSpec, instruction
from nxcc.ir.dtypes import S32, U32

ALL = tuple(Engine)
ANY = (Memory.HBM, Memory.SBUF)

DMA_COPY = instruction(
    "dma_copy", 0x60, ALL, (OperandSpec("source", "r", ANY, dma=True), OperandSpec("destination", "w", ANY, dma=True)),
    (FieldSpec("sizes", FieldKind.INTS), FieldSpec("accumulate", FieldKind.ENUM, ("none", "add"), default="none"),
     FieldSpec("queue", FieldKind.INT, default=0)),
    meaning="destination = source over `sizes` (outermost first, in elements; at most 5), cast through f32 if the dtypes "
            "differ (bit exact if equal); accumulate add reads, adds in f32 and writes the destination. Elements are "
            "written in any order.")

DMA_TRANSPOSE = instruction(
    "dma_transpose", 0x61, ALL, (OperandSpec("source", "r", ANY, dma=True), OperandSpec("destination", "w", ANY, dma=True)),
    (FieldSpec("sizes", FieldKind.INTS), FieldSpec("queue", FieldKind.INT, default=0)),
    meaning="as dma_copy with equal 2-byte dtypes, in the engine's transpose mode: same result, other cost.")

DMA_GATHER = instruction(
    "dma_gather", 0x62, Engine.GPSIMD,
    (OperandSpec("source", "r", (Memory.HBM,), dma=True), OperandSpec("indices", "r", (Memory.SBUF,), (U32, S32)),
     OperandSpec("destination", "w", ANY, dma=True)),
    (FieldSpec("sizes", FieldKind.INTS), FieldSpec("index_stride", FieldKind.INT), FieldSpec("limit", FieldKind.INT),
     FieldSpec("queue", FieldKind.INT, default=0)),
    meaning="destination[i, ..] = source[index_stride * indices[i] bytes further, ..]; sizes[0] counts the indices, one a "
            "partition (free size 1) or along the free dimension of one partition; the source's first stride is unused. An "
            "index outside 0..limit-1 is a run-time error: programs clamp first. Descriptors are made by GpSimd.")

DMA_SCATTER = instruction(
    "dma_scatter", 0x63, Engine.GPSIMD,
    (OperandSpec("source", "r", ANY, dma=True), OperandSpec("indices", "r", (Memory.SBUF,), (U32, S32)),
     OperandSpec("destination", "w", (Memory.HBM,), dma=True)),
    (FieldSpec("sizes", FieldKind.INTS), FieldSpec("index_stride", FieldKind.INT), FieldSpec("limit", FieldKind.INT),
     FieldSpec("accumulate", FieldKind.ENUM, ("none", "add"), default="none"), FieldSpec("queue", FieldKind.INT, default=0)),
    meaning="destination[index_stride * indices[i] bytes further, ..] = source[i, ..]; an index equal to limit is skipped, "
            "beyond is a run-time error. Rows of one transfer must be distinct unless a program orders them.")
