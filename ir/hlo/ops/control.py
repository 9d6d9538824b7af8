"""Parameters, constants, tuples, calls and control flow."""

from nxcc.ir.hlo.attributes import (
    ASYNC_THREAD,
    DOMAIN,
    FUSION_KIND,
    INDEX,
    IS_COMPOSITE,
    LITERAL,
    OUTPUT_ALIASING,
    PARAMETER_NUMBER,
    PREFETCH_INDEX,
)
from nxcc.ir.hlo.operator import operator

operator("parameter", 0, attributes=(PARAMETER_NUMBER,))
operator("constant", 0, attributes=(LITERAL,))
operator("tuple", (0, None))
operator("get-tuple-element", 1, attributes=(INDEX,))
operator("call", (0, None), attributes=(IS_COMPOSITE, OUTPUT_ALIASING), called=("to_apply",), calls_back=True)
operator("fusion", (0, None), attributes=(FUSION_KIND, OUTPUT_ALIASING), called=("calls",), calls_back=True)
operator("while", 1, called=("body", "condition"), calls_back=True)
operator("conditional", (1, None), called=("branch_computations*",), calls_back=True)
operator("after-all", (0, None))
operator("add-dependency", 2, identity=True)
operator("opt-barrier", 1, identity=True)
operator("domain", 1, attributes=(DOMAIN,), identity=True)
operator("copy-start", 1, attributes=(PREFETCH_INDEX,))
operator("copy-done", 1)
operator("async-start", (0, None), attributes=(ASYNC_THREAD, OUTPUT_ALIASING), called=("calls",), calls_back=True)
operator("async-update", (1, None))
operator("async-done", 1)
