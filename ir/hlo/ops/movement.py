"""Data movement with addresses known at compile time."""

from nxcc.ir.hlo.attributes import DIMENSIONS, INFERRED_DIMENSION, IOTA_DIMENSION, OPTIONAL_DIMENSIONS, PADDING, SLICE
from nxcc.ir.hlo.operator import operator

operator("bitcast", 1, moves_data=True)
operator("broadcast", 1, attributes=(OPTIONAL_DIMENSIONS,), moves_data=True)
operator("concatenate", (1, None), attributes=(DIMENSIONS,), moves_data=True)
operator("iota", 0, attributes=(IOTA_DIMENSION,))
operator("pad", 2, attributes=(PADDING,), moves_data=True)
operator("reshape", 1, attributes=(INFERRED_DIMENSION,), moves_data=True)
operator("reverse", 1, attributes=(DIMENSIONS,), moves_data=True)
operator("slice", 1, attributes=(SLICE,), moves_data=True)
operator("transpose", 1, attributes=(DIMENSIONS,), moves_data=True)
