"""Reductions and windows: reduce, reduce-window, select-and-scatter, scan, sort, topk, batch norm."""

from nxcc.ir.hlo.attributes import BATCH_NORM, DIMENSIONS, IS_STABLE, LARGEST, SCAN, WINDOW, K
from nxcc.ir.hlo.operator import operator

operator("reduce", (2, None), attributes=(DIMENSIONS,), called=("to_apply",), calls_back=True)
operator("reduce-window", (2, None), attributes=(WINDOW,), called=("to_apply",), calls_back=True)
operator("select-and-scatter", 3, attributes=(WINDOW,), called=("select", "scatter"), calls_back=True)
operator("scan", (1, None), attributes=SCAN, called=("to_apply",), calls_back=True)
operator("sort", (1, None), attributes=(DIMENSIONS, IS_STABLE), called=("to_apply",), calls_back=True)
operator("topk", 1, attributes=(K, LARGEST, IS_STABLE))
operator("batch-norm-grad", 5, attributes=BATCH_NORM)
operator("batch-norm-inference", 5, attributes=BATCH_NORM)
operator("batch-norm-training", 3, attributes=BATCH_NORM)
