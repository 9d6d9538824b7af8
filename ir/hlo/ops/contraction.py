"""Contractions: dot, convolution and their relatives, and the dense linear algebra operators."""

from nxcc.ir.hlo.attributes import (
    ALGORITHM,
    BATCH_GROUP_COUNT,
    CHOLESKY_LOWER,
    CONVOLUTION_KIND,
    DIM_LABELS,
    DOT_DIMS,
    FEATURE_GROUP_COUNT,
    FFT_LENGTH,
    FFT_TYPE,
    OPERAND_PRECISION,
    RAGGED_DOT_DIMS,
    SPARSITY_CONFIG,
    TRIANGULAR_SOLVE,
    WINDOW,
)
from nxcc.ir.hlo.operator import operator

operator("dot", 2, attributes=(*DOT_DIMS, OPERAND_PRECISION, ALGORITHM))
operator("ragged-dot", 3, attributes=(*RAGGED_DOT_DIMS, OPERAND_PRECISION, ALGORITHM))
operator("scaled-dot", 4, attributes=(*DOT_DIMS, OPERAND_PRECISION, ALGORITHM))
operator("convolution", (2, None), attributes=(WINDOW, DIM_LABELS, FEATURE_GROUP_COUNT, BATCH_GROUP_COUNT, OPERAND_PRECISION,
                                               ALGORITHM, CONVOLUTION_KIND, SPARSITY_CONFIG))
operator("fft", 1, attributes=(FFT_TYPE, FFT_LENGTH))
operator("cholesky", 1, attributes=(CHOLESKY_LOWER,))
operator("triangular-solve", 2, attributes=TRIANGULAR_SOLVE)
