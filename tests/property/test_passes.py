"""Random modules of shape operators, elementwise work, reductions and products: the pipeline keeps what they compute."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nxcc.ir.dtypes import F32, S64
from nxcc.ir.hlo.attributes import PaddingDimension
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.writer import write_text
from nxcc.ir.hlo.verifier import verify
from nxcc.ir.shapes import Shape
from nxcc.passes.combiners import combiner
from nxcc.passes.pipeline import Settings, passes

from harness.capacity import NothingFits

INSTRUCTIONS = 24
ELEMENTS_MAX = 400


class RandomModule:
    """Valid by construction: every step takes a value that exists and makes one that fits."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.module = Module("random")
        self.entry = self.module.add(Computation("main"), entry=True)
        self.builder = Builder(self.entry)
        shapes = [(2, 3, 4), (6, 4), (4,), (1, 6, 1, 4), (2, 12)]
        self.values = [self.builder.parameter(n, Shape(F32, dims)) for n, dims in enumerate(shapes)]
        self.entry.root = self.values[0]
        self.values.append(self.builder.convert(self.builder.make("iota", shape=Shape(S64, (6, 4)), iota_dimension=0), F32))
        for _ in range(INSTRUCTIONS):
            step = STEPS[self.random.integers(len(STEPS))]
            made = step(self, self.values[self.random.integers(len(self.values))])
            if made is not None and 0 < made.shape.element_count <= ELEMENTS_MAX:
                self.values.append(made)
        self.entry.root = self.builder.tuple(*self.values[-6:])

    def factors(self, count: int) -> list[int]:
        """Sizes whose product is count, some of them 1."""
        sizes = []
        while count > 1:
            divisors = [d for d in range(2, count + 1) if count % d == 0]
            sizes.append(int(self.random.choice(divisors)))
            count //= sizes[-1]
        for _ in range(self.random.integers(3)):
            sizes.insert(int(self.random.integers(len(sizes) + 1)), 1)
        return sizes


def _reshape(r: RandomModule, x: Instruction) -> Instruction:
    return r.builder.reshape(x, r.factors(x.shape.element_count))


def _back(r: RandomModule, x: Instruction) -> Instruction:
    """To sizes that another value has, so that things meet."""
    same = [v for v in r.values if v.shape.element_count == x.shape.element_count]
    return r.builder.reshape(x, same[r.random.integers(len(same))].shape.dims)


def _transpose(r: RandomModule, x: Instruction) -> Instruction:
    return r.builder.transpose(x, [int(d) for d in r.random.permutation(x.shape.rank)])


def _broadcast(r: RandomModule, x: Instruction) -> Instruction | None:
    if x.shape.element_count > ELEMENTS_MAX // 3 or x.shape.rank > 5:
        return None
    dims = list(x.shape.dims)
    place = int(r.random.integers(len(dims) + 1))
    dims.insert(place, int(r.random.integers(1, 4)))
    return r.builder.broadcast(x, dims, [d for d in range(len(dims)) if d != place])


def _number(r: RandomModule, x: Instruction) -> Instruction:
    value = float(r.random.choice([0.0, -0.0, 1.0, 2.0, -0.5, 3.0]))
    number = r.builder.broadcast(r.builder.splat(F32, (), value), x.shape.dims)
    return r.builder.make(str(r.random.choice(["add", "multiply", "subtract", "maximum"])), x, number)


def _unary(r: RandomModule, x: Instruction) -> Instruction:
    return r.builder.make(str(r.random.choice(["negate", "tanh", "abs"])), x)


def _binary(r: RandomModule, x: Instruction) -> Instruction:
    same = [v for v in r.values if v.shape == x.shape]
    return r.builder.make(str(r.random.choice(["add", "multiply", "maximum"])), x, same[r.random.integers(len(same))])


def _reduce(r: RandomModule, x: Instruction) -> Instruction | None:
    if not x.shape.rank:
        return None
    over = tuple(d for d in range(x.shape.rank) if r.random.random() < 0.4)
    add = combiner(r.module, "add", F32, r.builder)
    return r.builder.make("reduce", x, r.builder.splat(F32, (), 0), dimensions=over, called=(add,))


def _slice(r: RandomModule, x: Instruction) -> Instruction:
    starts = [int(r.random.integers(size)) for size in x.shape.dims]
    limits = [int(r.random.integers(start, size)) + 1 for start, size in zip(starts, x.shape.dims, strict=True)]
    return r.builder.slice(x, starts, limits, [int(r.random.integers(1, 3)) for _ in starts])


def _concatenate(r: RandomModule, x: Instruction) -> Instruction | None:
    if not x.shape.rank:
        return None
    return r.builder.make("concatenate", x, x, dimensions=(int(r.random.integers(x.shape.rank)),))


def _pad(r: RandomModule, x: Instruction) -> Instruction:
    sides = r.random.integers(0, 2, (x.shape.rank, 3)).tolist()
    padding = tuple(PaddingDimension(low, high, interior) for low, high, interior in sides)
    return r.builder.make("pad", x, r.builder.splat(F32, (), 1.5), padding=padding)


def _dot(r: RandomModule, x: Instruction) -> Instruction | None:
    """With any other value: dimensions of equal size are summed or batched at random."""
    other = r.values[r.random.integers(len(r.values))]
    pairs: list[tuple[int, int]] = []
    for left, size in enumerate(x.shape.dims):
        fitting = [d for d, s in enumerate(other.shape.dims) if s == size and d not in {p[1] for p in pairs}]
        if fitting and r.random.random() < 0.6:
            pairs.append((left, int(r.random.choice(fitting))))
    batch = [pair for pair in pairs if r.random.random() < 0.5]
    summed = [pair for pair in pairs if pair not in batch]
    lists = [(tuple(p[0] for p in rows), tuple(p[1] for p in rows)) for rows in (summed, batch)]
    made = r.builder.dot(x, other, lists[0], lists[1])
    return made if made.shape.rank <= 6 else None


STEPS: tuple[Callable[[RandomModule, Instruction], Instruction | None], ...] = (
    _reshape, _back, _back, _transpose, _broadcast, _number, _unary, _binary, _binary, _reduce, _slice, _concatenate, _pad,
    _dot)


@pytest.mark.parametrize("seed", range(120))
def test_pipeline_keeps_what_a_random_module_computes(seed: int) -> None:
    made = RandomModule(seed)
    verify(made.module)
    generator = np.random.default_rng(seed)
    inputs = [generator.normal(size=p.shape.dims).astype(np.float32) for p in made.entry.parameters]
    wanted = flatten(evaluate(made.module, inputs))
    for row in passes(Settings(1, "none", "bf16", NothingFits(), NothingFits())):
        before = write_text(made.module)
        changed = row.run(made.module)
        verify(made.module)
        assert changed == (write_text(made.module) != before), f"{row.name} does not say truly whether it changed anything"
    for value, want in zip(flatten(evaluate(made.module, inputs)), wanted, strict=True):
        np.testing.assert_allclose(value, want, rtol=1e-4, atol=1e-4 * float(np.abs(want).max()))


def test_every_step_is_reached() -> None:
    reached = {i.opcode for seed in range(40) for i in RandomModule(seed).entry.instructions}
    assert {"reshape", "transpose", "broadcast", "reduce", "slice", "concatenate", "pad", "dot", "tanh", "maximum"} <= reached
