"""What holds a graph together: placeholders, constants, variables, and operators that pass their input on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nxcc.ir.diagnostics import GRAPH_INVALID, IO_CONFIG, CompileError
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.loose import text_constant
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.tensors import Strings
from nxcc.ir.graphdef.values import Value, Variable
from nxcc.ir.literals import Literal


@rule("Placeholder", "PlaceholderV2")
def placeholder(call: Call) -> Value:
    raise CompileError(IO_CONFIG, f"the placeholder {call.name!r} is not fed", call.name, why="an output depends on it",
                       remedy="add it to the inputs of --io-config")


@rule("Const")
def const(call: Call) -> Value:
    value = call.tensor("value")
    if isinstance(value, Strings):
        call.need(len(value.values) == math.prod(value.dims), f"a constant of {list(value.dims)} strings is too large")
        return text_constant(call.emit, value.values, value.dims, call.dtype("dtype"))
    kind = call.dtype("dtype")
    call.need(value.shape.dtype is kind, f"the attribute dtype says {kind}, the value is {value.shape.dtype}")
    return call.emit.builder.literal(value)


@rule("Identity", "StopGradient", "PreventGradient", "Snapshot", "PlaceholderWithDefault", "CheckNumerics", "GuaranteeConst",
      "Copy", "CopyHost", "DeepCopy", "DebugIdentity", "DebugIdentityV2", "DebugIdentityV3", "CheckNumericsV2",
      "DisableCopyOnRead", "LoopCond")
def identity(call: Call) -> Sequence[Value]:
    return call.inputs[:1]


@rule("IdentityN")
def identity_n(call: Call) -> Sequence[Value]:
    return call.inputs


@rule("NoOp", "ControlTrigger", "Assert", "Print", "PrintV2")
def nothing(call: Call) -> Sequence[Value]:
    """Assertions and prints do not change the result."""
    return call.inputs[:1] if call.node.op == "Print" else ()


@rule("EnsureShape")
def ensure_shape(call: Call) -> Value:
    x, wanted = call.x(0), call.attr("shape")
    if isinstance(wanted, tuple):
        dims = x.shape.dims
        fits = len(wanted) == len(dims) and all(a in (-1, b) for a, b in zip(wanted, dims, strict=True))
        call.need(fits, f"the shape must be {list(wanted)}, it is {list(dims)}")
    return x


def _not_frozen(call: Call) -> CompileError:
    return CompileError(GRAPH_INVALID, f"the variable {call.name!r} has no value", call.name, why="the graph is not frozen",
                        remedy="freeze it, or give the SavedModel folder with its variables")


@rule("VariableV2", "Variable")
def variable(call: Call) -> Value:
    literal = call.scope.world.variables.get(call.node.name)
    if literal is None:
        raise _not_frozen(call)
    return call.emit.builder.literal(literal)


@rule("VarHandleOp")
def variable_handle(call: Call) -> Value:
    return Variable(call.node.name, call.scope.world.variables.get(call.node.name))


def variable_value(call: Call) -> Literal:
    handle = call.inputs[0]
    if not isinstance(handle, Variable) or handle.value is None:
        raise _not_frozen(call)
    return handle.value


@rule("VariableShape")
def variable_shape(call: Call) -> Value:
    return call.emit.constant(np.array(variable_value(call).shape.dims, call.dtype("out_type").numpy))


@rule("ReadVariableOp")
def read_variable(call: Call) -> Value:
    return call.emit.builder.literal(variable_value(call))
