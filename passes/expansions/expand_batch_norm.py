"""Write batch normalisation in plain operators, in f32 or wider.

Before:
  y = f32[8,16] batch-norm-inference(x, scale, offset, mean, variance), epsilon=1e-05, feature_index=1
After, all over [8,16] but for the two rows of features:
  inverse = f32[16] rsqrt(variance + 1e-05)    factor = f32[16] multiply(scale, inverse)
  y = (x - broadcast(mean)) * broadcast(factor) + broadcast(offset)

Training computes mean and variance over all other dimensions first (in two passes over the data, since the difference of
mean squares cancels); the gradient follows from the chain rule:
  dx = factor * (dy - sum(dy) / n - (x - mean) * inverse^2 * sum(dy * (x - mean)) / n)
"""

from __future__ import annotations

import math

from nxcc.ir.dtypes import F32, F64, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.passes.combiners import combiner
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode


@dataclass(frozen=True)
class ExpandBatchNorm:
    name: str = "expand-batch-norm"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)


class _Norm:
    """The operators of one instruction, over its sizes."""

    def __init__(self, instruction: Instruction, builder: Builder) -> None:
        self.builder = builder
        self.dims = instruction.operands[0].shape.dims
        self.feature = instruction.attribute("feature_index")
        self.epsilon = instruction.attribute("epsilon")
        self.dtype = F64 if instruction.operands[0].shape.dtype is F64 else F32

    def wide(self, x: Instruction) -> Instruction:
        return self.cast(x, self.dtype)

    def cast(self, x: Instruction, dtype: DType) -> Instruction:
        return x if x.shape.dtype is dtype else self.builder.convert(x, dtype)

    def spread(self, features: Instruction) -> Instruction:
        """One value a feature, over the whole."""
        return self.builder.broadcast(features, self.dims, (self.feature,))

    def add(self, a: Instruction, b: Instruction) -> Instruction:
        return self.builder.make("add", a, b)

    def sub(self, a: Instruction, b: Instruction) -> Instruction:
        return self.builder.make("subtract", a, b)

    def mul(self, a: Instruction, b: Instruction) -> Instruction:
        return self.builder.make("multiply", a, b)

    def total(self, x: Instruction) -> Instruction:
        """The sum over everything but the feature."""
        module = self.builder.computation.parent
        assert module is not None
        zero = self.builder.splat(self.dtype, (), 0)
        others = tuple(d for d in range(len(self.dims)) if d != self.feature)
        add = combiner(module, "add", self.dtype, self.builder)
        return self.builder.make("reduce", x, zero, dimensions=others, called=(add,))

    def mean(self, x: Instruction) -> Instruction:
        total = self.total(x)
        count = math.prod(size for d, size in enumerate(self.dims) if d != self.feature)
        return self.builder.make("divide", total, self.number(count, total))

    def number(self, value: float, like: Instruction) -> Instruction:
        return self.builder.broadcast(self.builder.splat(self.dtype, (), value), like.shape.dims)

    def inverse(self, variance: Instruction) -> Instruction:
        return self.builder.make("rsqrt", self.add(variance, self.number(self.epsilon, variance)))

    def normal(self, x: Instruction, scale: Instruction, offset: Instruction, mean: Instruction,
               variance: Instruction) -> Instruction:
        factor = self.mul(scale, self.inverse(variance))
        return self.add(self.mul(self.sub(x, self.spread(mean)), self.spread(factor)), self.spread(offset))


def _inference(instruction: Instruction, builder: Builder) -> Instruction | None:
    norm = _Norm(instruction, builder)
    x, scale, offset, mean, variance = map(norm.wide, instruction.operands)
    return norm.cast(norm.normal(x, scale, offset, mean, variance), instruction.shape.dtype)


def _training(instruction: Instruction, builder: Builder) -> Instruction | None:
    norm = _Norm(instruction, builder)
    x, scale, offset = map(norm.wide, instruction.operands)
    mean = norm.mean(x)
    centred = norm.sub(x, norm.spread(mean))
    variance = norm.mean(norm.mul(centred, centred))
    return _results(norm, instruction, norm.normal(x, scale, offset, mean, variance), mean, variance)


def _grad(instruction: Instruction, builder: Builder) -> Instruction | None:
    norm = _Norm(instruction, builder)
    x, scale, mean, variance, gradient = map(norm.wide, instruction.operands)
    inverse = norm.inverse(variance)
    centred = norm.sub(x, norm.spread(mean))
    product = norm.mul(gradient, centred)
    slope = norm.mul(norm.mul(inverse, inverse), norm.mean(product))
    inner = norm.sub(norm.sub(gradient, norm.spread(norm.mean(gradient))), norm.mul(centred, norm.spread(slope)))
    x_gradient = norm.mul(norm.spread(norm.mul(scale, inverse)), inner)
    return _results(norm, instruction, x_gradient, norm.mul(norm.total(product), inverse), norm.total(gradient))


def _results(norm: _Norm, instruction: Instruction, *values: Instruction) -> Instruction:
    shapes = instruction.shape.elements
    return norm.builder.tuple(*(norm.cast(v, s.dtype) for v, s in zip(values, shapes, strict=True)))


RULES = (
    Rule("batch-norm-inference", ("batch-norm-inference",), _inference),
    Rule("batch-norm-training", ("batch-norm-training",), _training),
    Rule("batch-norm-grad", ("batch-norm-grad",), _grad),
)
_TABLE = rules_by_opcode(RULES)
