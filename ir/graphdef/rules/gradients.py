"""Gradients of elementwise operators, as graphs hold them that differentiate something in their own computation."""

from __future__ import annotations

from collections.abc import Callable

from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.registry import row, rule
from nxcc.ir.graphdef.rules.elementwise import SELU_ALPHA_SCALE, SELU_SCALE
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.module import Instruction

Binary = Callable[[Emitter, Instruction, Instruction], Instruction]


def _where_positive(e: Emitter, x: Instruction, yes: Instruction, no: Instruction) -> Instruction:
    return e.select(e.compare(x, e.like(x, 0), "GT"), yes, no)


def _between(e: Emitter, dy: Instruction, x: Instruction) -> Instruction:
    inside = e.make("and", e.compare(x, e.like(x, 0), "GT"), e.compare(x, e.like(x, 6), "LT"))
    return e.select(inside, dy, e.like(dy, 0))


def _below(e: Emitter, y: Instruction, yes: Instruction, no: Instruction) -> Instruction:
    return e.select(e.compare(y, e.like(y, 0), "LT"), yes, no)


def _over_square(e: Emitter, dy: Instruction, x: Instruction) -> Instruction:
    grown = e.offset(e.make("abs", x), 1)
    return e.divide(dy, e.multiply(grown, grown))


# From the result y and its gradient, or from the gradient and the argument x or result y, in TensorFlow's order.
_GRADIENTS: dict[str, Binary] = {
    "TanhGrad": lambda e, y, dy: e.multiply(dy, e.subtract(e.like(y, 1), e.multiply(y, y))),
    "SigmoidGrad": lambda e, y, dy: e.multiply(dy, e.multiply(y, e.subtract(e.like(y, 1), y))),
    "SqrtGrad": lambda e, y, dy: e.divide(e.scaled(dy, 0.5), y),
    "RsqrtGrad": lambda e, y, dy: e.multiply(e.multiply(e.multiply(y, y), y), e.scaled(dy, -0.5)),
    "ReciprocalGrad": lambda e, y, dy: e.make("negate", e.multiply(dy, e.multiply(y, y))),
    "ReluGrad": lambda e, dy, x: _where_positive(e, x, dy, e.like(dy, 0)),
    "Relu6Grad": _between,
    "EluGrad": lambda e, dy, y: _below(e, y, e.multiply(e.offset(y, 1), dy), dy),
    "SeluGrad": lambda e, dy, y: _below(e, y, e.multiply(dy, e.offset(y, SELU_ALPHA_SCALE)), e.scaled(dy, SELU_SCALE)),
    "SoftplusGrad": lambda e, dy, x: e.divide(dy, e.offset(e.make("exponential", e.make("negate", x)), 1)),
    "SoftsignGrad": _over_square,
}
_GRADIENTS["InvGrad"] = _GRADIENTS["ReciprocalGrad"]


def _binary(function: Binary) -> Callable[[Call], Value]:
    return lambda call: function(call.emit, call.x(0), call.x(1))


for _name, _function in _GRADIENTS.items():
    row(_name, _binary(_function))


@rule("LeakyReluGrad")
def leaky_relu_grad(call: Call) -> Value:
    e, dy, x = call.emit, call.x(0), call.x(1)
    return _where_positive(e, x, dy, e.scaled(dy, call.attr("alpha")))


@rule("BiasAddGrad", ranks=("2+",))
def bias_add_grad(call: Call) -> Value:
    x = call.x(0)
    channel = x.shape.rank - 1 if call.text("data_format", "NHWC", "NCHW") == "NHWC" else 1
    return call.emit.reduce("add", x, [d for d in range(x.shape.rank) if d != channel])
