"""Quantisation that is only simulated: values are rounded to levels and stay floats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nxcc.ir.dtypes import F32
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.operator import ShapeError

MAX_BITS = 16
"""Of FakeQuant operators."""


def _fake_quant(e: Emitter, x: Instruction, low: Instruction, high: Instruction, bits: int, narrow: bool,
                dimensions: Sequence[int]) -> Instruction:
    """Source: GraphDef format reference, section 12. The range is nudged so that zero is a level."""
    if not 2 <= bits <= MAX_BITS:
        raise ShapeError(f"num_bits is {bits}, it may be 2 to {MAX_BITS}")
    qmin, qmax = (1 if narrow else 0), 2 ** bits - 1
    scale = e.divide(e.subtract(high, low), e.like(low, qmax - qmin))
    zero = e.subtract(e.like(low, qmin), e.divide(low, scale))
    nudged = e.clamp(e.make("floor", e.offset(zero, 0.5)), qmin, qmax)
    least = e.multiply(e.subtract(e.like(low, qmin), nudged), scale)
    most = e.multiply(e.subtract(e.like(low, qmax), nudged), scale)
    least, most, step = (e.spread(v, x.shape.dims, dimensions) for v in (least, most, scale))
    inside = e.minimum(e.maximum(x, least), most)
    level = e.make("floor", e.offset(e.divide(e.subtract(inside, least), step), 0.5))
    return e.add(e.multiply(level, step), least)


@rule("FakeQuantWithMinMaxArgs")
def fake_quant_args(call: Call) -> Value:
    e = call.emit
    low, high = (e.constant(np.array(call.attr(name), np.float32)) for name in ("min", "max"))
    return _fake_quant(e, call.x(0), low, high, call.attr("num_bits"), call.attr("narrow_range"), ())


@rule("FakeQuantWithMinMaxVars", ranks=(None, 0, 0))
def fake_quant_vars(call: Call) -> Value:
    x, low, high = call.operands
    return _fake_quant(call.emit, x, low, high, call.attr("num_bits"), call.attr("narrow_range"), ())


@rule("FakeQuantWithMinMaxVarsPerChannel", ranks=("1+", 1, 1))
def fake_quant_channels(call: Call) -> Value:
    x, low, high = call.operands
    return _fake_quant(call.emit, x, low, high, call.attr("num_bits"), call.attr("narrow_range"), (x.shape.rank - 1,))


_ROUNDINGS = {"HALF_TO_EVEN": "round-nearest-even", "HALF_UP": "floor"}


@rule("QuantizeAndDequantizeV2", "QuantizeAndDequantizeV3", "QuantizeAndDequantizeV4")
def quantize_and_dequantize(call: Call) -> Value:
    """One step size covers both ends of the range; the end that needs the larger step decides."""
    e, x = call.emit, call.x(0)
    call.need(call.attr("axis") == -1, "only one range for the whole tensor can be had (axis=-1)")
    v3 = call.node.op == "QuantizeAndDequantizeV3"
    bits = call.number(3) if v3 else call.attr("num_bits")
    call.need(2 <= bits <= 31, f"num_bits is {bits}, it may be 2 to 31")
    mode = "HALF_TO_EVEN" if v3 else call.text("round_mode", *_ROUNDINGS)
    signed, given = call.attr("signed_input"), call.attr("range_given")
    qmin = -(2 ** (bits - 1)) + bool(call.attr("narrow_range")) if signed else 0
    qmax = 2 ** (bits - 1) - 1 if signed else 2 ** bits - 1
    if given:
        low, high = (e.reshape(call.x(k), ()) for k in (1, 2))
    else:
        low, high = (e.reduce(opcode, x, range(x.shape.rank)) for opcode in ("minimum", "maximum"))
    scale, inverse, low, high = _one_scale(e, low, high, qmin, qmax)
    inside = e.minimum(e.maximum(x, low), high) if given else x
    scaled = e.multiply(inside, scale)
    level = e.make(_ROUNDINGS[mode], e.offset(scaled, 0.5) if mode == "HALF_UP" else scaled)
    return e.multiply(level, inverse)


def _one_scale(e: Emitter, low: Instruction, high: Instruction, qmin: int, qmax: int) -> tuple[Instruction, ...]:
    """Levels per unit, units per level, and the range that the levels cover."""
    most = e.like(low, 3.4028235e38)

    def per_unit(level: int, end: Instruction) -> Instruction:
        used = e.compare(e.scaled(end, level), e.like(end, 0), "GT")
        return e.select(used, e.divide(e.like(end, level), end), most)

    from_low, from_high = per_unit(qmin, low), per_unit(qmax, high)
    by_low = e.compare(from_low, from_high, "LT")
    inverse_low = e.divide(low, e.like(low, qmin or 1))
    inverse_high = e.divide(high, e.like(high, qmax))
    inverse = e.select(by_low, inverse_low, inverse_high)
    return (e.select(by_low, from_low, from_high), inverse, e.select(by_low, low, e.scaled(inverse_high, qmin)),
            e.select(by_low, e.scaled(inverse_low, qmax), high))


# Quantised integers and back. Source: TensorFlow's documentation of both operators; rounding was measured on 2.21.


def _range(call: Call, x: Instruction, number: int) -> Instruction:
    """An end of the range, for the whole tensor or for each slice along an axis, as large as x."""
    e, axis = call.emit, call.attr("axis")
    value = call.x(number)
    if axis == -1:
        call.need(value.shape.element_count == 1, "the range must be two numbers")
        return e.broadcast_to(e.reshape(value, ()), x.shape.dims)
    axis = call.axis(axis, x.shape.rank)
    call.need(value.shape.dims == (x.shape.dims[axis],), f"the range must be vectors of {x.shape.dims[axis]} numbers")
    return e.spread(value, x.shape.dims, (axis,))


def _limits(call: Call) -> tuple[int, int]:
    """The least and the largest quantised number."""
    info = np.iinfo(call.dtype("T").numpy)
    return info.min + bool(call.attr("narrow_range") and call.attr("mode") == "SCALED"), info.max


_MODES = ("MIN_COMBINED", "MIN_FIRST", "SCALED")


@rule("QuantizeV2")
def quantize(call: Call) -> Sequence[Value]:
    e, x, mode = call.emit, call.x(0), call.text("mode", *_MODES)
    given = [call.x(1), call.x(2)]
    call.need(given[0].shape == given[1].shape, "both ends of the range must have one shape")
    zero = e.like(given[0], 0)
    low = e.minimum(given[0], zero)
    widest = e.maximum(e.make("abs", given[0]), e.make("abs", given[1]))
    least = e.scaled(e.maximum(widest, e.like(widest, 1)), call.attr("ensure_minimum_range"))
    high = e.maximum(e.maximum(given[1], e.add(low, least)), zero)
    qmin, qmax = _limits(call)
    if mode == "SCALED":
        low, high, scale = _scaled_range(e, low, high, qmin, qmax)
    else:
        scale = e.divide(e.like(low, qmax - qmin), e.subtract(high, low))
    call.inputs[1:] = [low, high, scale]
    bottom, top, factor = (_range(call, x, number) for number in (1, 2, 3))
    inside = e.maximum(e.minimum(x, top), bottom)
    level = _levels(call, mode, inside, bottom, factor, qmin)
    return [e.convert(e.clamp(level, qmin, qmax), call.dtype("T")), low, high]


def _levels(call: Call, mode: str, inside: Instruction, bottom: Instruction, factor: Instruction, qmin: int) -> Instruction:
    e = call.emit
    rounding = "round-nearest-even" if mode == "SCALED" and call.attr("round_mode") == "HALF_TO_EVEN" else "round-nearest-afz"
    if mode == "SCALED":
        return e.make(rounding, e.multiply(inside, factor))
    if mode == "MIN_FIRST":
        lowest = e.make(rounding, e.multiply(bottom, factor))
        return e.offset(e.subtract(e.make(rounding, e.multiply(inside, factor)), lowest), qmin)
    return e.make(rounding, e.offset(e.multiply(e.subtract(inside, bottom), factor), qmin))


def _scaled_range(e: Emitter, low: Instruction, high: Instruction, qmin: int, qmax: int
                  ) -> tuple[Instruction, Instruction, Instruction]:
    """The range that the levels cover, 0 in its middle, and levels per unit."""
    most = e.like(low, 3.4028235e38)

    def per_unit(level: int, end: Instruction) -> Instruction:
        used = e.compare(e.scaled(end, level), e.like(end, 0), "GT")
        return e.select(used, e.divide(e.like(end, level), end), most)

    scale = e.minimum(per_unit(qmin, low), per_unit(qmax, high))
    return e.divide(e.like(scale, qmin), scale), e.divide(e.like(scale, qmax), scale), scale


@rule("Dequantize")
def dequantize(call: Call) -> Value:
    e, mode = call.emit, call.text("mode", *_MODES)
    x = e.convert(call.x(0), F32)
    low, high = _range(call, x, 1), _range(call, x, 2)
    qmin, qmax = _limits(call)
    if mode == "SCALED":
        step = e.divide(high, e.like(high, qmax))
        if qmin:
            step = e.maximum(step, e.divide(low, e.like(low, qmin)))
        found = e.multiply(x, step)
    else:
        step = e.divide(e.subtract(high, low), e.like(high, qmax - qmin))
        if mode == "MIN_FIRST":
            low = e.multiply(e.make("round-nearest-afz", e.divide(low, step)), step)
        found = e.add(e.multiply(e.offset(x, -qmin), step), low)
    return e.convert(found, call.dtype("dtype"))
