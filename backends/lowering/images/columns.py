"""Values of an image program that have one number for each channel: columns [lanes, blocks], computed once a region."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.images.geometry import Channels, on_partitions
from nxcc.backends.lowering.pointwise.formulas import emits
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import F32, DType
from nxcc.ir.hlo.imagespace import CHANNEL, VIEWS, ImageMap
from nxcc.ir.hlo.module import Instruction

Column = Access | float
"""A tile [lanes, blocks], or a number for all channels."""


class Columns:
    """Makes columns of the channels `start` to `start + size` of values. operands: views of the program's parameters.

    repeats: how often the channels lie on the partitions.
    """

    def __init__(self, kernel: Kernel, operands: Mapping[Instruction, View], maps: Mapping[Instruction, ImageMap],
                 channels: Channels, start: Index = 0, repeats: int = 1) -> None:
        self.repeats = repeats
        self.kernel, self.operands, self.maps, self.channels, self.start = kernel, operands, maps, channels, start
        self._found: dict[Instruction, Column] = {}
        self._sums: dict[tuple[str, Column, Column], Column] = {}

    def load(self, values: Iterable[Instruction]) -> None:
        """Bring the parameters that columns of these values are made of: all before anything is computed, so that no transfer
        waits for the memory of a passing result."""
        waiting = list(values)
        while waiting:
            value = waiting.pop()
            if value.opcode == "parameter":
                self.of(value)
            else:
                waiting.extend(value.operands)

    def of(self, value: Instruction) -> Column:
        found = self._found.get(value)
        if found is None:
            found = self._found[value] = self._make(value)
        return found

    def _make(self, value: Instruction) -> Column:
        if value.opcode == "constant":
            return float(value.attributes["literal"].splat_value.item())
        if value.opcode == "parameter":
            return self._load(value)
        if value.opcode in VIEWS:
            return self.of(value.operands[0])
        inputs = [self.of(operand) for operand in value.operands]
        if all(not isinstance(column, Access) for column in inputs):
            first = self._tile(value.operands[0].shape.dtype)
            self.kernel.memset(first, float(inputs[0]) if not isinstance(inputs[0], Access) else 0.0)
            inputs[0] = first
        out = self._tile(value.shape.dtype)
        emits()[value.opcode](self.kernel, value, inputs, out)
        return out

    def _tile(self, dtype: DType) -> Access:
        return self.kernel.sbuf((self.channels.lanes, self.channels.blocks), dtype)

    def _load(self, parameter: Instruction) -> Column:
        """By Sync's queue, with the weights: they are there before the engines come to this region."""
        tile = self._tile(parameter.shape.dtype)
        view, marks = self.operands[parameter], self.maps[parameter]
        lanes, blocks = self.channels.lanes // self.repeats, self.channels.blocks
        if CHANNEL in marks:
            d = marks.index(CHANNEL)
            some = replace(view, dims=(view.dims[d],)).cut(0, self.start, lanes * blocks)
            source = on_partitions(some, Channels(lanes, blocks))
        else:
            source = replace(view, dims=((0, lanes), (0, blocks)))
        for time in range(self.repeats):
            self.kernel.dma(tile.rows(time * lanes, lanes), source, engine=Engine.SYNC)
        return tile

    def wide(self, value: Instruction) -> Column:
        """The same in f32, as engines take factors and offsets."""
        column = self.of(value)
        if not isinstance(column, Access) or column.dtype is F32:
            return column
        key = "wide", column, 0.0
        found = self._sums.get(key)
        if found is None:
            found = self._sums[key] = self._tile(F32)
            self.kernel.copy(found, column)
        return found

    # ---- arithmetic of factors and offsets, in f32 ----------------------------------------------------------------------

    def combined(self, op: str, a: Column, b: Column) -> Column:
        """a op b (add, subtract, multiply), each pair computed once."""
        if not isinstance(a, Access) and not isinstance(b, Access):
            return {"add": a + b, "subtract": a - b, "multiply": a * b}[op]
        if (op, a, b) in (("multiply", a, 1.0), ("add", a, 0.0), ("subtract", a, 0.0)):
            return a
        if (op, a, b) in (("multiply", 1.0, b), ("add", 0.0, b)):
            return b
        key = op, a, b
        found = self._sums.get(key)
        if found is None:
            found = self._sums[key] = self._combine(op, a, b)
        return found

    def _combine(self, op: str, a: Column, b: Column) -> Column:
        out = self._tile(F32)
        if isinstance(a, Access) and isinstance(b, Access):
            self.kernel.tensor_tensor(out, a, b, op)
        elif isinstance(a, Access):
            self.kernel.tensor_scalar(out, a, op, b)
        else:
            assert isinstance(b, Access)
            self.kernel.tensor_scalar(out, b, op, a, reverse0=True)
        return out

    def inverse(self, a: Column) -> Column:
        """1 / a."""
        if not isinstance(a, Access):
            return 1.0 / a
        key = "inverse", a, 1.0
        found = self._sums.get(key)
        if found is None:
            found = self._sums[key] = self._tile(F32)
            self.kernel.reciprocal(found, a)
        return found

    def tile(self, column: Column) -> Access:
        """A number as a column."""
        if isinstance(column, Access):
            return column
        key = "fill", column, 0.0
        found = self._sums.get(key)
        if found is None:
            found = self._sums[key] = self._tile(F32)
            self.kernel.memset(found, column)
        assert isinstance(found, Access)
        return found
