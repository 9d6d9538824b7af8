"""Write custom calls whose meaning is known in plain operators, in f32, so that the device runs them as it runs those.

Before:
  y = bf16[8,64] custom-call(x), custom_call_target="AwsNeuronSoftmax", backend_config="1"
After:
  w = f32[8,64] convert(x)    e = exp(w - broadcast(max(w, 1)))    y = bf16[8,64] convert(e / broadcast(sum(e, 1)))

What is one function of the scalar engine stays as it is, and so do factorisations, which the host computes. Formulas and their
sources: `ir/hlo/ops/opaque.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np

from nxcc.ir.dtypes import F32, S32, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.ops.opaque import axis_of, blended_places, decimal_of, nearest_places, resize_flags
from nxcc.ir.literals import Array
from nxcc.ir.shapes import Shape, tuple_of
from nxcc.passes.combiners import combiner
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode


@dataclass(frozen=True)
class ExpandCustomCalls:
    name: str = "expand-custom-calls"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)


def _expand(instruction: Instruction, builder: Builder) -> Instruction | None:
    meaning = _MEANINGS.get(instruction.attribute("custom_call_target"))
    if meaning is None or not all(o.shape.is_array and o.shape.dtype.bits <= 32 for o in instruction.operands):
        return None
    return meaning(_Call(instruction, builder))


class _Call:
    """The operators of one call. x: its first operand as given."""

    def __init__(self, instruction: Instruction, builder: Builder) -> None:
        self.instruction = instruction
        self.builder = builder
        self.x = instruction.operands[0]

    def wide(self) -> list[Instruction]:
        return [self.cast(o, F32) for o in self.instruction.operands]

    def cast(self, x: Instruction, dtype: DType) -> Instruction:
        return x if x.shape.dtype is dtype else self.builder.convert(x, dtype)

    def result(self, x: Instruction) -> Instruction:
        return self.cast(x, self.instruction.shape.dtype)

    def number(self, value: float, like: Instruction) -> Instruction:
        return self.builder.broadcast(self.builder.splat(like.shape.dtype, (), value), like.shape.dims)

    def make(self, opcode: str, *operands: Instruction | float) -> Instruction:
        """An elementwise operator; numbers are as large as the operands that are none."""
        like = next(o for o in operands if isinstance(o, Instruction))
        return self.builder.make(opcode, *(o if isinstance(o, Instruction) else self.number(o, like) for o in operands))

    def reduced(self, x: Instruction, opcode: str, axis: int, initial: float) -> Instruction:
        """Along one axis, and repeated along it again."""
        start = self.builder.splat(F32, (), initial)
        reduced = self.builder.make("reduce", x, start, dimensions=(axis,),
                                    called=(combiner(self.module, opcode, F32, self.builder),))
        return self.builder.broadcast(reduced, x.shape.dims, [d for d in range(x.shape.rank) if d != axis])

    @property
    def module(self) -> Module:
        module = self.builder.computation.parent
        assert module is not None
        return module


# Normalisation and softmax

def _softmax(call: _Call) -> Instruction:
    axis, (x,) = axis_of(call.instruction), call.wide()
    grown = call.make("exponential", call.make("subtract", x, call.reduced(x, "maximum", axis, -math.inf)))
    return call.result(call.make("divide", grown, call.reduced(grown, "add", axis, 0.0)))


def _softmax_backward(call: _Call) -> Instruction:
    axis, (gradient, y) = axis_of(call.instruction), call.wide()
    inner = call.reduced(call.make("multiply", gradient, y), "add", axis, 0.0)
    return call.result(call.make("multiply", y, call.make("subtract", gradient, inner)))


def _rms_norm(call: _Call) -> Instruction | None:
    axis, (x, weight, epsilon) = axis_of(call.instruction), call.wide()
    if weight.shape.dims != (x.shape.dims[axis],) or epsilon.shape.element_count != 1 or not weight.shape.element_count:
        return None
    total = call.reduced(call.make("multiply", x, x), "add", axis, 0.0)
    mean = call.make("multiply", total, 1.0 / x.shape.dims[axis])
    raised = call.make("add", mean, call.builder.broadcast(call.builder.reshape(epsilon, ()), x.shape.dims))
    scaled = call.make("multiply", x, call.make("rsqrt", raised))
    return call.result(call.make("multiply", scaled, call.builder.broadcast(weight, x.shape.dims, (axis,))))


# Gradients of activations

def _gelu_backward(call: _Call) -> Instruction:
    *gradient, x = call.wide()
    below = call.make("multiply", call.make("add", call.make("erf", call.make("multiply", x, math.sqrt(0.5))), 1.0), 0.5)
    bell = call.make("exponential", call.make("multiply", call.make("multiply", x, x), -0.5))
    slope = call.make("add", below, call.make("multiply", call.make("multiply", x, bell), 1 / math.sqrt(2 * math.pi)))
    return call.result(reduce(partial(call.make, "multiply"), gradient, slope))


def _silu_backward(call: _Call) -> Instruction:
    *gradient, x = call.wide()
    sigmoid = call.make("logistic", x)
    slope = call.make("add", call.make("multiply", x, call.make("subtract", 1.0, sigmoid)), 1.0)
    return call.result(reduce(partial(call.make, "multiply"), gradient, call.make("multiply", sigmoid, slope)))


# Selection

def _top_k(call: _Call, k: int) -> Instruction:
    found = call.builder.make("topk", call.x, k=k, largest=True)
    parts = [call.builder.get_tuple_element(found, n) for n in range(2)]
    return call.builder.tuple(*(call.cast(part, shape.dtype)
                                for part, shape in zip(parts, call.instruction.shape.elements, strict=True)))


def _arg(direction: str, limit: Callable[[DType], Any]) -> Callable[[_Call], Instruction]:
    def expand(call: _Call) -> Instruction:
        """Values and their places reduced together; the first of equals, and the first NaN."""
        axis, x, builder = axis_of(call.instruction), call.x, call.builder
        places = builder.make("iota", shape=Shape(S32, x.shape.dims), iota_dimension=axis)
        start = builder.splat(x.shape.dtype, (), limit(x.shape.dtype)), builder.splat(S32, (), 0)
        dims = tuple(size for d, size in enumerate(x.shape.dims) if d != axis)
        shape = tuple_of(Shape(x.shape.dtype, dims), Shape(S32, dims))
        found = builder.make("reduce", x, places, *start, shape=shape, dimensions=(axis,),
                             called=(_picker(call, x.shape.dtype, direction),))
        return call.result(builder.get_tuple_element(found, 1))
    return expand


def _picker(call: _Call, dtype: DType, direction: str) -> Computation:
    """(value, place) of two pairs: the one whose value comes first in the direction, or is NaN; of equals the earlier one."""
    module = call.module
    made = Computation(module.unique_name(f"pick_{direction.lower()}_{dtype}", {c.name for c in module.computations}))
    made.parent = module
    module.computations.insert(0, made)
    inner = call.builder.within(made)
    shapes = Shape(dtype), Shape(S32), Shape(dtype), Shape(S32)
    left, here, right, there = (inner.parameter(n, shape, inner.unique_name("pick")) for n, shape in enumerate(shapes))
    first = inner.make("or", inner.compare(left, right, direction), inner.compare(left, left, "NE"))
    tied = inner.make("and", inner.compare(left, right, "EQ"), inner.compare(here, there, "LT"))
    place = inner.make("select", inner.make("or", first, tied), here, there)
    made.root = inner.tuple(inner.make("select", first, left, right), place)
    return made


def _lowest(dtype: DType) -> Any:
    return -math.inf if dtype.is_float else np.iinfo(dtype.numpy).min


def _highest(dtype: DType) -> Any:
    return math.inf if dtype.is_float else np.iinfo(dtype.numpy).max


# Products

def _int_matmult(call: _Call) -> Instruction | None:
    left, right = call.instruction.operands
    if call.instruction.backend_config or left.shape.rank != 2 or right.shape.rank != 2:
        return None
    return call.builder.dot(left, right, ((1,), (0,)), dtype=call.instruction.shape.dtype)


# Images, NHWC

def _taken(call: _Call, x: Instruction, axis: int, places: Array) -> Instruction:
    """The slices of x at known places along an axis."""
    indices = call.builder.constant(places.astype(np.int32))
    offsets = tuple(d for d in range(x.shape.rank) if d != axis)
    sizes = tuple(1 if d == axis else size for d, size in enumerate(x.shape.dims))
    return call.builder.make("gather", x, indices, offset_dims=offsets, collapsed_slice_dims=(axis,), start_index_map=(axis,),
                             index_vector_dim=1, slice_sizes=sizes)


def _resize_nearest(call: _Call) -> Instruction:
    flags, x = resize_flags(call.instruction), call.x
    for axis in (1, 2):
        x = _taken(call, x, axis, nearest_places(x.shape.dims[axis], call.instruction.shape.dims[axis], *flags))
    return call.result(x)


def _resize_nearest_grad(call: _Call) -> Instruction:
    """Products with matrices of 0 and 1: row i of the image is the sum of the rows that were taken from it."""
    flags, (x,) = resize_flags(call.instruction), call.wide()
    for axis in (1, 2):
        target = call.instruction.shape.dims[axis]
        places = nearest_places(target, x.shape.dims[axis], *flags)
        matrix = call.builder.constant((np.arange(target)[:, None] == places).astype(np.float32))
        turned = call.builder.dot(matrix, x, ((1,), (axis,)))
        x = call.builder.transpose(turned, [*range(1, axis + 1), 0, *range(axis + 1, 4)])
    return call.result(x)


def _resize_bilinear(call: _Call) -> Instruction:
    flags, (x,) = resize_flags(call.instruction), call.wide()
    for axis in (1, 2):
        low, high, weight = blended_places(x.shape.dims[axis], call.instruction.shape.dims[axis], *flags)
        first, second = _taken(call, x, axis, low), _taken(call, x, axis, high)
        share = call.builder.broadcast(call.builder.constant(weight.astype(np.float32)), first.shape.dims, (axis,))
        x = call.make("add", first, call.make("multiply", call.make("subtract", second, first), share))
    return call.result(x)


_MEANINGS: dict[str, Callable[[_Call], Instruction | None]] = {
    "AwsNeuronSoftmax": _softmax, "AwsNeuronSoftmaxBackward": _softmax_backward, "AwsNeuronRmsNorm": _rms_norm,
    "AwsNeuronGeluBackward": _gelu_backward, "AwsNeuronSiluBackward": _silu_backward,
    "AwsNeuronArgMax": _arg("GT", _lowest), "AwsNeuronArgMin": _arg("LT", _highest),
    "AwsNeuronTopK": lambda call: _top_k(call, decimal_of(call.instruction)),
    "TopK": lambda call: _top_k(call, call.instruction.shape.elements[0].dims[-1]),
    "AwsNeuronIntMatmult": _int_matmult,
    "ResizeNearest": _resize_nearest, "ResizeNearestGrad": _resize_nearest_grad, "ResizeBilinear": _resize_bilinear,
}

RULES = (Rule("custom-call", ("custom-call",), _expand),)
_TABLE = rules_by_opcode(RULES)
EXPANDED_TARGETS: Sequence[str] = tuple(_MEANINGS)
