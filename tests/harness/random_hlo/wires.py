"""Layers that read whichever earlier values they like: regions of such modules may wait for each other in many ways."""

from __future__ import annotations

import math
from collections.abc import Callable

from nxcc.ir.dtypes import BF16, F16, F32
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.shapes import array

from harness.random_hlo.generator import Generator, maker
from harness.random_hlo.stacks import MOST, Layers, layers_of, rows_of

REACH = (2, 3, 5)
"""How far back a layer reads."""

Step = Callable[[Layers, Instruction, Instruction], Instruction]


def _transposed(layers: Layers, x: Instruction, y: Instruction) -> Instruction:
    """A layer over the rows instead of the columns."""
    build = layers.g.scope.builder
    turned = build.transpose(x, (0, 2, 1))
    kind = layers.g.random.choice((layers.norm, layers.softmax, layers.bent, lambda v: layers.dense(v, v.shape.dims[-1])))
    return build.transpose(kind(turned), (0, 2, 1))


def _combined(layers: Layers, x: Instruction, y: Instruction) -> Instruction:
    return layers.g.make(layers.g.random.choice(("add", "add", "subtract", "multiply", "maximum")), x, y)


def _gated(layers: Layers, x: Instruction, y: Instruction) -> Instruction:
    return layers.g.make("multiply", layers.g.make("logistic", x), y)


def _pooled(layers: Layers, x: Instruction, y: Instruction) -> Instruction:
    """Less what is largest in each row, or the sum of each."""
    opcode = layers.g.random.choice(("maximum", "add"))
    return layers.g.make("subtract", y, layers.over_rows(layers.g.make("tanh", layers.summed(opcode, x)), y))


def _correlated(layers: Layers, x: Instruction, y: Instruction) -> Instruction:
    """x (x' y), as linear attention has it."""
    build = layers.g.scope.builder
    depth = x.shape.dims[-1]
    if depth * depth * x.shape.dims[0] > MOST:
        return _combined(layers, x, y)
    inner = build.dot(x, y, ([1], [1]), ([0], [0]))
    inner = layers.g.make("multiply", inner, layers.full(1 / math.prod(x.shape.dims[1:]), inner))
    return build.dot(x, inner, ([2], [layers.g.random.choice((1, 2))]), ([0], [0]))


def _rounded(layers: Layers, x: Instruction, y: Instruction) -> Instruction:
    return layers.cast(layers.cast(x, layers.g.random.choice((BF16, F16, F32))), layers.dtype)


def _rotated(layers: Layers, x: Instruction, y: Instruction) -> Instruction:
    """Halves of the columns change places, as a rotary embedding has it."""
    build, (batch, rows, depth) = layers.g.scope.builder, x.shape.dims
    half = depth // 2
    parts = [build.slice(x, (0, 0, half), (batch, rows, depth)), build.slice(x, (0, 0, 0), (batch, rows, half))]
    return layers.g.make("add", y, layers.g.make("concatenate", layers.g.make("negate", parts[0]), parts[1], dimensions=(2,)))


def _attended(layers: Layers, x: Instruction, y: Instruction) -> Instruction:
    return layers.attention(x, layers.g.random.choice((1, 2, 4)))


STEPS: tuple[Step, ...] = (
    lambda layers, x, y: layers.dense(x, x.shape.dims[-1]), lambda layers, x, y: layers.dense(x, x.shape.dims[-1]),
    lambda layers, x, y: layers.norm(x), lambda layers, x, y: layers.bent(x), lambda layers, x, y: layers.softmax(x),
    _transposed, _combined, _combined, _gated, _pooled, _correlated, _rounded, _rotated, _attended)


@maker("network-wires")
def _wires(g: Generator) -> list[Instruction] | None:
    """Some of the values are results: what nobody reads, and others."""
    layers = layers_of(g)
    if layers is None:
        return None
    g.scope.parameters_left += 16
    values = [rows_of(g, layers, (8, 32, 64, 128, 192, 200))]
    values.append(g.parameter(array(layers.dtype, *values[0].shape.dims)))
    reach = g.random.choice(REACH)
    for _ in range(g.random.randint(3, 10)):
        x, y = (g.random.choice(values[-reach:]) for _ in range(2))
        made = g.random.choice(STEPS)(layers, x, y)
        values.append(_combined(layers, made, x) if g.random.random() < 0.3 else made)
    return [*g.random.sample(values[2:-1], min(2, len(values) - 3)), values[-1]]
