"""Data movement with addresses known at run time, and dynamic dimension sizes."""

from nxcc.ir.hlo.attributes import DIMENSIONS, DYNAMIC_SLICE_SIZES, GATHER, SCATTER
from nxcc.ir.hlo.operator import operator

operator("dynamic-slice", (1, None), attributes=(DYNAMIC_SLICE_SIZES,), moves_data=True)
operator("dynamic-update-slice", (2, None), moves_data=True)
operator("gather", 2, attributes=GATHER, moves_data=True)
operator("scatter", (3, None), attributes=SCATTER, called=("to_apply",), calls_back=True)
operator("dynamic-reshape", (1, None), moves_data=True)
operator("get-dimension-size", 1, attributes=(DIMENSIONS,))
operator("set-dimension-size", 2, attributes=(DIMENSIONS,))
