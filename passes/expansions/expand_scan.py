"""Write scans as counted loops.

Before:
  s = (f32[8,3], f32[3]) scan(x, c), dimensions={0}, num_carries=1, to_apply=step
After, with room for the results carried along and i counting to 8:
  loop over (i, c, x, y):  p = (f32[3], f32[3]) call(x[i], c), to_apply=step    y[i] = p.0    c = p.1
  s = (y, c)

A scan that runs backwards looks at place 7 - i. Associative ones are no exception: any order of the sums is allowed, this one
too.
"""

from __future__ import annotations

import numpy as np

from nxcc.ir.dtypes import PRED, S32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.shapes import Shape, tuple_of
from nxcc.passes.effects import has_side_effect
from nxcc.passes.rewriting import flow_computations, remove_unread, settle


@dataclass(frozen=True)
class ExpandScan:
    name: str = "expand-scan"

    def run(self, module: Module) -> bool:
        changed = False
        waiting = flow_computations(module)
        waiting += [called for i in module.instructions() if i.opcode == "fusion" for called in i.called]
        while waiting:
            computation = waiting.pop()
            for scan in [i for i in computation.instructions if i.opcode == "scan" and not i.control_predecessors]:
                if has_side_effect(scan):
                    continue
                waiting.append(scan.called[0])
                _Loop(module, computation, scan).write()
                changed = True
        return changed


class _Loop:
    """The loop of one scan. Its state: the turn, carried values, scanned arrays, stacked results."""

    def __init__(self, module: Module, computation: Computation, scan: Instruction) -> None:
        self.module = module
        self.scan = scan
        self.builder = Builder(computation, scan.location)
        self.body = scan.called[0]
        self.carried = int(scan.attribute("num_carries"))
        (self.dimension,) = scan.attribute("dimensions")
        arrays = len(scan.operands) - self.carried
        self.arrays, self.carries = scan.operands[:arrays], scan.operands[arrays:]
        self.length = self.arrays[0].shape.dims[self.dimension]
        shapes = scan.shape.elements if scan.shape.is_tuple else (scan.shape,)
        self.stacked = [shape.without_layout() for shape in shapes[:len(shapes) - self.carried]]

    def write(self) -> None:
        computation, builder = self.builder.computation, self.builder
        rooms = [self._room(shape) for shape in self.stacked]
        values = [builder.splat(S32, (), 0), *self.carries, *self.arrays, *rooms]
        if self.length:
            start = builder.tuple(*values)
            called = self._turn(start.shape), self._condition(start.shape)
            loop = builder.make("while", start, shape=start.shape, called=called)
            values = [builder.get_tuple_element(loop, n) for n in range(len(values))]
        results = [*values[len(values) - len(rooms):], *values[1:1 + self.carried]]
        computation.replace(self.scan, builder.tuple(*results) if self.scan.shape.is_tuple else results[0])
        remove_unread(computation, [self.scan])
        settle(computation)

    def _room(self, shape: Shape) -> Instruction:
        zero = np.zeros((), shape.dtype.numpy)
        return self.builder.broadcast(self.builder.splat(shape.dtype, (), zero), shape.dims)

    def _computation(self, purpose: str, state: Shape) -> tuple[Builder, list[Instruction]]:
        """A new computation, with the elements of its state."""
        names = {c.name for c in self.module.computations}
        made = self.module.add(Computation(self.module.unique_name(f"{self.scan.name}.{purpose}", names)))
        # callees stand before callers
        place = self.module.computations.index(self.builder.computation)
        self.module.computations.insert(place, self.module.computations.pop())
        inner = self.builder.within(made)
        parameter = inner.parameter(0, state)
        return inner, [inner.get_tuple_element(parameter, n) for n in range(len(state.elements))]

    def _condition(self, state: Shape) -> Computation:
        inner, values = self._computation("more", state)
        limit = inner.splat(S32, (), self.length)
        inner.computation.root = inner.make("compare", values[0], limit, shape=Shape(PRED), direction="LT")
        return inner.computation

    def _turn(self, state: Shape) -> Computation:
        inner, values = self._computation("turn", state)
        count, carries = values[0], values[1:1 + self.carried]
        arrays = values[1 + self.carried:1 + self.carried + len(self.arrays)]
        rooms = values[1 + self.carried + len(self.arrays):]
        place = count
        if self.scan.attribute("is_reverse"):
            place = inner.make("subtract", inner.splat(S32, (), self.length - 1), count)
        parts = [self._part(inner, array, place) for array in arrays]
        root = self.body.root.shape
        made = inner.make("call", *parts, *carries, shape=root, called=[self.body])
        results = [inner.get_tuple_element(made, n) for n in range(len(root.elements))] if root.is_tuple else [made]
        filled = [self._filled(inner, room, part, place) for room, part in zip(rooms, results, strict=False)]
        following = inner.make("add", count, inner.splat(S32, (), 1))
        inner.computation.root = inner.make("tuple", following, *results[len(rooms):], *arrays, *filled,
                                            shape=tuple_of(*state.elements))
        return inner.computation

    def _starts(self, inner: Builder, rank: int, place: Instruction) -> list[Instruction]:
        zero = inner.splat(S32, (), 0)
        return [place if d == self.dimension else zero for d in range(rank)]

    def _part(self, inner: Builder, array: Instruction, place: Instruction) -> Instruction:
        """The array at one place of the dimension, without it."""
        dims = array.shape.dims
        sizes = tuple(1 if d == self.dimension else size for d, size in enumerate(dims))
        cut = inner.make("dynamic-slice", array, *self._starts(inner, len(dims), place), dynamic_slice_sizes=sizes)
        return inner.reshape(cut, [size for d, size in enumerate(dims) if d != self.dimension])

    def _filled(self, inner: Builder, room: Instruction, part: Instruction, place: Instruction) -> Instruction:
        sizes = tuple(1 if d == self.dimension else size for d, size in enumerate(room.shape.dims))
        return inner.make("dynamic-update-slice", room, inner.reshape(part, sizes),
                          *self._starts(inner, len(sizes), place))
