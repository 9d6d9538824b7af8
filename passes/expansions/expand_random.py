"""Draw what old modules draw from a generator of the machine's own out of Philox, keyed by the instruction's name.

Before:  r = f32[8] rng(low, high), distribution=rng_uniform        s = u64[2] rng-get-and-update-state(), delta=1
After:   bits = u32[8] rng-bit-generator({key of r, 0})             s = u64[2] constant({.., key of s})
         place = bitcast-convert(bits >> 9 | 1.0) - 1               r = low + place * (high - low)

Each is what the operator's declaration says (`ir/hlo/ops/random.py`), so that results can be checked: a module draws the same
numbers in every run, and in every turn of a loop. Whole numbers are low + the upper half of bits * (high - low); a normal
number is the product of sqrt(-2 log(1 - place)) of one word and the cosine of a turn by another.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nxcc.ir.dtypes import F32, F64, PRED, S32, U32, U64, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.ops.random import first_state, key_of
from nxcc.ir.shapes import array, tuple_of
from nxcc.passes.effects import anchors
from nxcc.passes.rewriting import flow_computations, settle

ONE = 0x3F800000
"""The bits of 1.0, over which 23 random ones give a number from 1 to 2."""
SPARE_BITS = 9


@dataclass(frozen=True)
class ExpandRandom:
    """is_straight: the target has no engine for such bits; the host draws them."""

    is_straight: bool = False
    name: str = "expand-random"

    def run(self, module: Module) -> bool:
        rules = {opcode: rule for opcode, rule in _RULES.items() if opcode != "rng" or not self.is_straight}
        changed, names = False, Names(module)
        for computation in flow_computations(module):
            kept = anchors(computation)
            found = [i for i in computation.instructions
                     if i.opcode in rules and i not in kept and not i.control_predecessors and not i.shape.dynamic]
            builder = Builder(computation, names=names)
            for instruction in found:
                builder.location = instruction.location
                computation.replace(instruction, rules[instruction.opcode](instruction, builder))
                computation.remove(instruction)
            if found:
                settle(computation)
            changed |= bool(found)
        return changed


def _state(instruction: Instruction, builder: Builder) -> Instruction:
    return builder.constant(first_state(instruction))


def _drawn(instruction: Instruction, builder: Builder) -> Instruction:
    return _Draw(instruction, builder).result()


_RULES = {"rng": _drawn, "rng-get-and-update-state": _state}


class _Draw:
    """What stands for one rng."""

    def __init__(self, instruction: Instruction, builder: Builder) -> None:
        self.instruction, self.builder = instruction, builder
        self.dtype, self.dims = instruction.shape.dtype, instruction.shape.dims

    def result(self) -> Instruction:
        if self.instruction.attribute("distribution") == "rng_normal":
            return self._normal()
        if self.dtype is PRED:
            lowest = self._make("and", self._bits(U32, self.dims), self._number(1, U32))
            return self._compare(lowest, self._number(0, U32), "NE")
        return self._uniform() if self.dtype.is_float else self._whole()

    def _uniform(self) -> Instruction:
        wide = F64 if self.dtype is F64 else F32
        low, high = (self._spread(self._cast(o, wide)) for o in self.instruction.operands)
        place = self._cast(self._place(self._bits(U32, self.dims)), wide)
        return self._cast(self._make("add", low, self._make("multiply", place, self._make("subtract", high, low))), self.dtype)

    def _whole(self) -> Instruction:
        """At least one number to choose from."""
        wide = self.dtype if self.dtype.bits >= S32.bits else S32
        word = U64 if wide.bits == U64.bits else U32
        low, high = (self._cast(o, wide) for o in self.instruction.operands)
        count = self._make("subtract", self._same_bits(high, word), self._same_bits(low, word))
        one = self.builder.splat(word, (), 1)
        count = self._make("select", self._compare(high, low, "GT"), count, one)
        steps = self._make("mulhi", self._bits(word, self.dims), self._spread(count))
        found = self._make("add", self._spread(self._same_bits(low, word)), steps)
        return self._cast(self._same_bits(found, wide), self.dtype)

    def _normal(self) -> Instruction:
        wide = F64 if self.dtype is F64 else F32
        bits = self._bits(U32, (2, *self.dims))
        one, other = (self._part(bits, n) for n in range(2))
        left = self._make("subtract", self._number(1, F32), self._place(one))
        length = self._make("sqrt", self._make("multiply", self._number(-2, F32), self._make("log", left)))
        turn = self._make("multiply", self._place(other), self._number(2 * math.pi, F32))
        drawn = self._cast(self._make("multiply", length, self._make("cosine", turn)), wide)
        mean, deviation = (self._spread(self._cast(o, wide)) for o in self.instruction.operands)
        return self._cast(self._make("add", mean, self._make("multiply", drawn, deviation)), self.dtype)

    def _bits(self, dtype: DType, dims: tuple[int, ...]) -> Instruction:
        state = self.builder.constant(np.array([key_of(self.instruction), 0], np.uint64))
        shape = tuple_of(state.shape, array(dtype, *dims))
        made = self.builder.make("rng-bit-generator", state, shape=shape, algorithm="rng_philox")
        return self.builder.get_tuple_element(made, 1)

    def _place(self, bits: Instruction) -> Instruction:
        """From 0 to 1, in steps of 2^-23."""
        upper = self._make("shift-right-logical", bits, self._number(SPARE_BITS, U32))
        above = self._same_bits(self._make("or", upper, self._number(ONE, U32)), F32)
        return self._make("subtract", above, self._number(1, F32))

    def _part(self, bits: Instruction, number: int) -> Instruction:
        starts, limits = [number, *(0 for _ in self.dims)], [number + 1, *self.dims]
        return self.builder.reshape(self.builder.slice(bits, starts, limits), self.dims)

    def _number(self, value: float, dtype: DType) -> Instruction:
        return self._spread(self.builder.splat(dtype, (), value))

    def _spread(self, scalar: Instruction) -> Instruction:
        return self.builder.broadcast(scalar, self.dims)

    def _cast(self, x: Instruction, dtype: DType) -> Instruction:
        return x if x.shape.dtype is dtype else self.builder.convert(x, dtype)

    def _same_bits(self, x: Instruction, dtype: DType) -> Instruction:
        return x if x.shape.dtype is dtype else self._make("bitcast-convert", x, shape=x.shape.with_dtype(dtype))

    def _compare(self, left: Instruction, right: Instruction, direction: str) -> Instruction:
        return self.builder.compare(left, right, direction)

    def _make(self, opcode: str, *operands: Instruction, **rest: Any) -> Instruction:
        return self.builder.make(opcode, *operands, **rest)
