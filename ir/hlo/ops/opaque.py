"""Custom calls: the targets nxcc knows a meaning for."""

from nxcc.ir.hlo.attributes import CUSTOM_CALL
from nxcc.ir.hlo.operator import operator

operator("custom-call", (0, None), attributes=CUSTOM_CALL, called=("called_computations*",), calls_back=True)
