"""Random numbers: TensorFlow's own sequences cannot be had outside TensorFlow, so each node gets one of ours.

The sequence follows from the node's seeds and name alone, so two compiles of one graph give the same program; every run of
a program gives the same numbers.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np

from nxcc.ir.dtypes import F32, U32, U64
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.rules.special import erfinv
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.shapes import Shape, tuple_of


def _bits(call: Call, dims: Sequence[int]) -> Instruction:
    e = call.emit
    key = f"{call.attr('seed')} {call.attr('seed2')} {call.name}".encode()
    state = e.constant(np.array([zlib.crc32(key), zlib.adler32(key)], np.uint64))
    result = tuple_of(Shape(U64, (2,)), Shape(U32, tuple(dims)))
    made = e.make("rng-bit-generator", state, shape=result, algorithm="rng_three_fry")
    return e.builder.get_tuple_element(made, 1)


def _dims(call: Call) -> list[int]:
    dims = call.ints(0)
    call.need(min(dims, default=0) >= 0, f"a tensor cannot have the shape {dims}")
    return dims


def _uniform(call: Call, dims: Sequence[int]) -> Instruction:
    """f32 in [0, 1): 23 random bits as the mantissa of a number in [1, 2), less one."""
    e = call.emit
    bits = _bits(call, dims)
    mantissa = e.make("shift-right-logical", bits, e.like(bits, 9))
    ones = e.make("or", mantissa, e.like(bits, 0x3F800000))
    return e.offset(e.make("bitcast-convert", ones, shape=Shape(F32, bits.shape.dims)), -1.0)


def _normal(call: Call, dims: Sequence[int], limit: float) -> Instruction:
    """Standard normal by the inverse of its distribution; cut at +-limit by drawing from the part between."""
    e = call.emit
    span = math.erf(limit / math.sqrt(2))
    centred = e.offset(e.scaled(e.offset(_uniform(call, dims), 2 ** -24), 2 * span), -span)
    return e.scaled(erfinv(e, centred), math.sqrt(2))


@rule("RandomUniform", needs=("rng-bit-generator",))
def random_uniform(call: Call) -> Value:
    return call.emit.convert(_uniform(call, _dims(call)), call.dtype("dtype"))


@rule("RandomStandardNormal", needs=("rng-bit-generator",))
def random_normal(call: Call) -> Value:
    return call.emit.convert(_normal(call, _dims(call), math.inf), call.dtype("dtype"))


@rule("TruncatedNormal", needs=("rng-bit-generator",))
def truncated_normal(call: Call) -> Value:
    return call.emit.convert(_normal(call, _dims(call), 2.0), call.dtype("dtype"))


@rule("RandomUniformInt", needs=("rng-bit-generator",))
def random_uniform_int(call: Call) -> Value:
    e, low, high = call.emit, call.x(1), call.x(2)
    bits = e.convert(_bits(call, _dims(call)), low.shape.dtype)
    span = e.broadcast_to(e.subtract(high, low), bits.shape.dims)
    rest = e.make("remainder", bits, span)
    positive = e.select(e.compare(rest, e.like(rest, 0), "LT"), e.add(rest, span), rest)
    return e.add(positive, low)
