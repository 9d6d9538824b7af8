"""Calls to the vendor's functions, and products over groups of rows."""

from __future__ import annotations

import numpy as np

from nxcc.ir.dtypes import BF16, F16, F32, S32, U32
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.shapes import Shape, array, tuple_of

from harness.random_hlo.generator import Generator, maker
from harness.random_hlo.reduction import canonical, taken_apart

ONE = ("AwsNeuronErf", "AwsNeuronSoftplus", "AwsNeuronGelu", "AwsNeuronGeluApprxTanh", "AwsNeuronSilu")
TWO = ("AwsNeuronGeluBackward", "AwsNeuronSiluBackward")
SAME = ("AwsNeuronTransferWithStaticRing", "NeuronBoundaryMarker-Start", "Sharding")


@maker("custom-call")
def _custom_call(g: Generator) -> Instruction | list[Instruction] | None:
    x = g.pick(lambda shape: shape.rank > 0 and shape.dtype in (F32, BF16, F16) and shape.element_count > 0)
    if x is None:
        return None
    shape = x.shape.without_layout()
    kind = g.random.choice((_elementwise, _elementwise, _softmax, _norm, _place, _largest))
    return kind(g, x, shape)


def _call(g: Generator, target: str, shape: Shape, *operands: Instruction, config: object = "") -> Instruction:
    made = g.make("custom-call", *operands, shape=shape, custom_call_target=target)
    made.backend_config = str(config).encode()
    return made


def _elementwise(g: Generator, x: Instruction, shape: Shape) -> Instruction:
    target = g.random.choice((*ONE, *TWO, *SAME))
    return _call(g, target, shape, x, *([g.like(shape)] if target in TWO else []))


def _softmax(g: Generator, x: Instruction, shape: Shape) -> Instruction:
    axis = g.random.randrange(-shape.rank, shape.rank)
    if g.random.random() < 0.5:
        return _call(g, "AwsNeuronSoftmax", shape, x, config=axis)
    return _call(g, "AwsNeuronSoftmaxBackward", shape, x, g.like(shape), config=axis)


def _norm(g: Generator, x: Instruction, shape: Shape) -> Instruction:
    axis = g.random.randrange(shape.rank)
    small = g.scope.builder.constant(np.asarray(2.0**-7).astype(shape.dtype.numpy))
    return _call(g, "AwsNeuronRmsNorm", shape, x, g.like(array(shape.dtype, shape.dims[axis])), small, config=axis)


def _place(g: Generator, x: Instruction, shape: Shape) -> Instruction:
    axis = g.random.randrange(shape.rank)
    left = [size for d, size in enumerate(shape.dims) if d != axis]
    target = g.random.choice(("AwsNeuronArgMax", "AwsNeuronArgMin"))
    return _call(g, target, array(g.random.choice((S32, U32)), *left), canonical(g, x), config=axis)


def _largest(g: Generator, x: Instruction, shape: Shape) -> Instruction | list[Instruction]:
    count = g.random.randint(1, min(shape.dims[-1], 20))
    dims = (*shape.dims[:-1], count)
    made = _call(g, "AwsNeuronTopK", tuple_of(array(shape.dtype, *dims), array(U32, *dims)), canonical(g, x), config=count)
    return taken_apart(g, made)


@maker("ragged-dot")
def _ragged(g: Generator) -> Instruction | None:
    """Rows in groups, each multiplied by its own matrix; what no group has is zero."""
    x = g.pick(lambda shape: shape.rank == 2 and shape.dtype in (F32, BF16) and 0 < shape.element_count <= 3000)
    if x is None:
        return None
    rows, depth = x.shape.dims
    groups = g.random.randint(1, 4)
    sizes = np.zeros(groups, np.int32)
    for _ in range(g.random.randint(0, rows)):
        sizes[g.random.randrange(groups)] += 1
    matrices = g.like(array(x.shape.dtype, groups, depth, g.random.choice((1, 5, 16))))
    return g.make("ragged-dot", x, matrices, g.note(g.scope.builder.constant(sizes)), lhs_contracting_dims=(1,),
                  rhs_contracting_dims=(1,), lhs_ragged_dims=(0,), rhs_group_dims=(0,))
