"""Bias, batch normalisation, local response normalisation, softmax and its losses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nxcc.ir.dtypes import F32, S32
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.rules.contraction import data_format
from nxcc.ir.graphdef.rules.pooling import pool
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.attributes import Window, WindowDimension
from nxcc.ir.hlo.module import Instruction


@rule("BiasAdd", "BiasAddV1")
def bias_add(call: Call) -> Value:
    e, x, bias = call.emit, call.x(0), call.x(1)
    first = call.node.op == "BiasAdd" and call.text("data_format", "NHWC", "NCHW") == "NCHW"
    axis = 1 if first else x.shape.rank - 1
    call.need(x.shape.rank >= 2 and bias.shape.dims == (x.shape.dims[axis],), f"a bias {bias.shape} does not fit {x.shape}")
    return e.add(x, e.spread(bias, x.shape.dims, (axis,)))


# Batch normalisation


def _per_channel(e: Emitter, row: Instruction, x: Instruction, axis: int) -> Instruction:
    return e.spread(row, x.shape.dims, (axis,))


def _moments(e: Emitter, x: Instruction, axes: Sequence[int], axis: int) -> tuple[Instruction, Instruction, int]:
    """Mean and biased variance a channel, and over how many elements."""
    count = math.prod(x.shape.dims[d] for d in axes)
    mean = e.reduce("add", x, axes)
    mean = e.divide(mean, e.like(mean, count))
    centred = e.subtract(x, _per_channel(e, mean, x, axis))
    total = e.reduce("add", e.multiply(centred, centred), axes)
    return mean, e.divide(total, e.like(total, count)), count


def _blend(e: Emitter, old: Instruction, new: Instruction, factor: float) -> Instruction:
    if factor == 1.0 or old.shape != new.shape:
        return new
    return e.add(e.scaled(old, 1.0 - factor), e.scaled(new, factor))


@rule("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", ranks=("4+", 1, 1, 1, 1))
def fused_batch_norm(call: Call) -> Sequence[Value]:
    """Results: y, mean, variance (unbiased when training), and what a gradient would need."""
    e, x, scale, offset = call.emit, *call.operands[:3]
    space = x.shape.rank - 2
    call.need(space in (2, 3), f"the input must have rank 4 or 5, it is {x.shape}")
    axis = data_format(call, space).feature
    wide = e.wide(x)
    training = call.attr("is_training")
    if training:
        axes = [d for d in range(x.shape.rank) if d != axis]
        mean, variance, count = _moments(e, wide, axes, axis)
        factor = call.attr("exponential_avg_factor") if "exponential_avg_factor" in call.signature.attributes else 1.0
        unbiased = e.scaled(variance, count / max(count - 1, 1))
        moving = [_blend(e, call.x(3), mean, factor), _blend(e, call.x(4), unbiased, factor)]
    else:
        mean, variance = call.x(3), call.x(4)
        moving = [mean, variance]
    call.need(mean.shape.dims == scale.shape.dims == offset.shape.dims == (x.shape.dims[axis],),
              f"scale {scale.shape} and offset {offset.shape} do not fit {x.shape}")
    inverse = e.multiply(e.make("rsqrt", e.offset(variance, call.attr("epsilon"))), scale)
    centred = e.subtract(wide, _per_channel(e, mean, x, axis))
    y = e.add(e.multiply(centred, _per_channel(e, inverse, x, axis)), _per_channel(e, offset, x, axis))
    found = [e.convert(y, x.shape.dtype), *moving, mean, variance]
    return [*found, e.full(F32, (0,), 0)] if call.node.op == "FusedBatchNormV3" else found


@rule("BatchNormWithGlobalNormalization", ranks=(4, 1, 1, 1, 1))
def batch_norm_with_global_normalization(call: Call) -> Value:
    """(t - m) / sqrt(v + epsilon), times gamma if that is asked for, plus beta; channels last."""
    e, (x, mean, variance, beta, gamma) = call.emit, call.operands
    channels = x.shape.dims[3]
    rows = (mean, variance, beta, gamma)
    call.need(all(row.shape.dims == (channels,) for row in rows), f"all rows must have {channels} elements")
    scale = e.make("rsqrt", e.offset(variance, call.attr("variance_epsilon")))
    scale = e.multiply(scale, gamma) if call.attr("scale_after_normalization") else scale
    return e.add(e.multiply(e.subtract(x, mean), scale), beta)


@rule("LRN", needs=("reduce-window",), ranks=(4,))
def lrn(call: Call) -> Value:
    """x / (bias + alpha * sum of squares of the channels within depth_radius) ** beta."""
    e, x = call.emit, call.x(0)
    radius = call.attr("depth_radius")
    wide = e.wide(x)
    window = Window((*[WindowDimension(1)] * 3, WindowDimension(2 * radius + 1, 1, radius, radius)))
    total = pool(e, e.multiply(wide, wide), "add", window)
    base = e.offset(e.scaled(total, call.attr("alpha")), call.attr("bias"))
    return e.convert(e.multiply(wide, e.make("power", base, e.like(base, -call.attr("beta")))), x.shape.dtype)


# Softmax


def softmax_over(e: Emitter, x: Instruction, log: bool = False) -> Instruction:
    """Over the last axis, in f32 where the type is narrower."""
    wide, last = e.wide(x), [x.shape.rank - 1]
    shifted = e.subtract(wide, e.reduce("maximum", wide, last, keep=True))
    powers = e.make("exponential", shifted)
    total = e.reduce("add", powers, last, keep=True)
    found = e.subtract(shifted, e.make("log", total)) if log else e.divide(powers, total)
    return e.convert(found, x.shape.dtype)


@rule("Softmax", ranks=("1+",))
def softmax(call: Call) -> Value:
    return softmax_over(call.emit, call.x(0))


@rule("LogSoftmax", ranks=("1+",))
def log_softmax(call: Call) -> Value:
    return softmax_over(call.emit, call.x(0), log=True)


def _cross_entropy(e: Emitter, logits: Instruction, labels: Instruction) -> list[Value]:
    logits, labels = e.together(logits, labels)
    wide, weights = e.wide(logits), e.wide(labels)
    loss = e.make("negate", e.reduce("add", e.multiply(weights, softmax_over(e, wide, log=True)), [1]))
    gradient = e.subtract(softmax_over(e, wide), weights)
    return [e.convert(loss, logits.shape.dtype), e.convert(gradient, logits.shape.dtype)]


@rule("SoftmaxCrossEntropyWithLogits", ranks=(2, 2))
def cross_entropy(call: Call) -> Sequence[Value]:
    return _cross_entropy(call.emit, call.x(0), call.x(1))


@rule("SparseSoftmaxCrossEntropyWithLogits", ranks=(2, 1))
def sparse_cross_entropy(call: Call) -> Sequence[Value]:
    """A label outside the classes gives NaN."""
    e, logits, labels = call.emit, call.x(0), call.x(1)
    dims = logits.shape.dims
    classes = e.iota(S32, dims, 1)
    wanted = e.spread(e.convert(labels, S32), dims, (0,))
    hot = e.select(e.compare(classes, wanted, "EQ"), e.like(logits, 1), e.like(logits, 0))
    bad = e.compare(wanted, e.like(wanted, dims[1]), "GE")
    bad = e.make("or", bad, e.compare(wanted, e.like(wanted, 0), "LT"))
    return _cross_entropy(e, logits, e.select(bad, e.like(hot, np.nan), hot))
