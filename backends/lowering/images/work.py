"""The elementwise work of one stage of an image program, piece by piece."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Memory
from nxcc.backends.lowering.images.columns import Columns
from nxcc.backends.lowering.images.forms import COPY, Action, Form, Forms, actions
from nxcc.backends.lowering.images.geometry import Channels
from nxcc.backends.lowering.images.heads import Place
from nxcc.backends.lowering.pointwise.formulas import emits
from nxcc.backends.tile.expressions import Index
from nxcc.backends.tile.program import Access
from nxcc.ir.dtypes import F32
from nxcc.ir.hlo.module import Instruction

if TYPE_CHECKING:
    from nxcc.backends.lowering.images.parts import Run

SCRATCH = 3
"""Scratch tiles of one value that take turns."""


class Work:
    """The elementwise work of one stage, piece by piece."""

    def __init__(self, run: Run, number: int) -> None:
        self.run, self.kernel, self.program = run, run.kernel, run.program
        stage = self.stage = run.program.stages[number]
        values = [*([stage.head] if stage.head is not None else []), *stage.members]
        made = run.spread(values[0]) if values else Channels(1, 1)
        start = run.cut[0] if run.cut is not None and values and run.is_cut(values[0]) else 0
        repeats = run.program.halves(values[0]) if values else 1
        self.columns = Columns(run.kernel, run.operands, run.program.maps, made, start, repeats)
        self.forms = Forms(self.columns, run.program.channels)
        self.number = number
        self.actions: list[tuple[Instruction, Action]] = []
        self.columns.load(o for value in stage.members for o in value.operands if o in run.program.channels)

    def prepare(self) -> None:
        """What must be there before loops begin: columns, and scratch tiles for pieces of a bank."""
        for value in self.stage.members:
            self.forms.add(value)
        stored = [v for v in self.program.made if self.program.stage_of[v] == self.number]
        self.actions = actions(self.forms, self.stage.members, stored)
        for value, action in self.actions:
            self._columns_of(value, action)
        head = self.stage.head
        if head is None or head.opcode != "convolution":
            return
        for value, action in self.actions:
            if not self._is_stored(value, action):
                self._ring(value, action)
            if action is Action.MAKE and self.forms.of(value).most < math.inf:
                self._ring(value, Action.LIMIT)
        if any(action is Action.WORK for _, action in self.actions):
            self._ring(head, Action.MAKE)

    def _columns_of(self, value: Instruction, action: Action) -> None:
        """Make the columns that an action reads."""
        if action is Action.MAKE and self.forms.of(value).shift != 0.0:
            self.columns.tile(self.forms.of(value).shift)
        if action is Action.WORK:
            for operand in value.operands:
                if operand in self.program.channels:
                    self.columns.of(operand)

    def _ring(self, value: Instruction, action: Action) -> None:
        images, _, height, width = self.program.sizes(value)
        elements = min(self.kernel.target.tensor.moving_max, images * height * width)
        dtype = F32 if action in (Action.SUM, Action.LIMIT) else value.shape.dtype
        tiles = [self.kernel.sbuf((self.run.spread(value).lanes, elements), dtype) for _ in range(SCRATCH)]
        self.run.scratch[value, action] = itertools.cycle(tiles)

    def _is_stored(self, value: Instruction, action: Action) -> bool:
        """Whether an action writes the value's own tile; a sum whose offset is still to be added does not."""
        return value in self.program.stored and (action is not Action.SUM or self.forms.is_plain(value))

    # ---- where ----------------------------------------------------------------------------------------------------------

    def on_operands(self) -> None:
        """Stage 0: a block of channels of everything at a time."""
        if not self.actions:
            return
        image = self.run.images[next(value for value, _ in self.actions if value in self.run.images)]

        def there(value: Instruction, block: Index) -> Access:
            return self.run.images[value].tile.at(0, block).flat()

        for block, _ in self.kernel.tiles(image.blocks, 1):
            self._run(there, block, image.tile.partitions, image.tile.at(0, 0).free, {})

    def on_piece(self, place: Place, sums: Access) -> None:
        """A piece of the head's result."""
        head = self.stage.head
        assert head is not None

        def there(value: Instruction, block: Index) -> Access:
            return self.run.images[value].place(block, place.images, place.rows, place.columns).flat()

        if head in self.program.stored and head.opcode == "convolution":
            self._make(there(head, place.block), sums, Form(head), place.block)
        self._run(there, place.block, sums.partitions, sums.free, {head: sums})

    def _run(self, there: Callable[[Instruction, Index], Access], block: Index, lanes: int, elements: int,
             bases: dict[Instruction, Access]) -> None:
        """All actions on one piece. there: a stored value's place; bases: the head's result."""
        values: dict[Instruction, Access] = {}

        def base(value: Instruction) -> Access:
            return bases.get(value) or there(value, block)

        def value_of(value: Instruction) -> Access:
            if value in values:
                return values[value]
            return base(value)

        for value, action in self.actions:
            if self._is_stored(value, action):
                out = there(value, block)
            elif (value, action) in self.run.scratch:
                out = next(self.run.scratch[value, action]).rows(0, lanes).cut(0, 0, elements)
            else:
                out = self.kernel.sbuf((lanes, elements), F32 if action is Action.SUM else value.shape.dtype)
            if action is Action.MAKE:
                form = self.forms.of(value)
                self._make_bounded(value, out, base(form.base), form, block)
                values[value] = out
            elif action is Action.SUM:
                found = self.forms.sums[value]
                self._add(out, base(found.form.base), found.form, value_of(found.other), block)
                bases[value] = out
            else:
                self._work(value, [o if o in self.program.channels else value_of(o) for o in value.operands], out, block)
                bases[value] = out

    # ---- how ------------------------------------------------------------------------------------------------------------

    def _column(self, column: Access, block: Index) -> Access:
        return column.cut(0, block, 1)

    def _make_bounded(self, value: Instruction, out: Access, data: Access, form: Form, block: Index) -> None:
        """out = what its form says; the bound is Vector's."""
        if form.most == math.inf:
            self._make(out, data, form, block)
            return
        key = value, Action.LIMIT
        with self.kernel.scope():
            if key in self.run.scratch:
                tile = next(self.run.scratch[key]).rows(0, out.partitions).cut(0, 0, out.free)
            else:
                tile = self.kernel.sbuf((out.partitions, out.free), F32)
            self._make(tile, data, form, block)
            self.kernel.tensor_scalar(out, tile, "minimum", form.most)

    def _make(self, out: Access, data: Access, form: Form, block: Index) -> None:
        """out = function(data * scale + shift), on Scalar."""
        scale = self._column(form.scale, block) if isinstance(form.scale, Access) else form.scale
        bias = self._column(self.columns.tile(form.shift), block) if form.shift != 0.0 else None
        self.kernel.activation(out, data, form.function if form.function != COPY else "copy", scale=scale, bias=bias)

    def _add(self, out: Access, data: Access, form: Form, other: Access, block: Index) -> None:
        """out = data * scale + other, on Vector."""
        if form.scale == 1.0:
            self.kernel.tensor_tensor(out, data, other, "add")
            return
        fields = {"op0": "multiply", "op1": "add"}
        if isinstance(form.scale, Access):
            self.kernel.emit(isa.vector.SCALAR_TENSOR_TENSOR, fields=dict(fields), data=data, b=other, out=out,
                             scalar0=self._column(form.scale, block))
        else:
            self.kernel.emit(isa.vector.SCALAR_TENSOR_TENSOR, fields=fields | {"immediate0": form.scale}, data=data, b=other,
                             out=out)

    def _work(self, value: Instruction, operands: list[Instruction | Access], out: Access, block: Index) -> None:
        """Any other operator, by the rules of tiles: rows of SBUF."""
        with self.kernel.scope():
            inputs: list[Access | float] = []
            for operand in operands:
                if isinstance(operand, Access):
                    inputs.append(self._row(operand))
                    continue
                column = self.columns.of(operand)
                inputs.append(self._column(column, block) if isinstance(column, Access) else column)
            target = out if len(out.dims) == 1 else self.kernel.sbuf((out.partitions, out.free), out.dtype)
            emits()[value.opcode](self.kernel, value, inputs, target)
            if target is not out:
                self.kernel.copy(out, target)

    def _row(self, data: Access) -> Access:
        """The same values in one run of SBUF."""
        if data.memory is Memory.SBUF and len(data.dims) == 1 and (data.dims[0][0] == 1 or data.free == 1):
            return data
        head = self.stage.head
        if data.memory is Memory.PSUM and head is not None:
            row = next(self.run.scratch[head, Action.MAKE]).rows(0, data.partitions).cut(0, 0, data.free)
        else:
            row = self.kernel.sbuf((data.partitions, data.free), data.dtype)
        self.kernel.activation(row, data)
        return row
