"""One tile of rows on its way through the stages of long rows (see nxcc.backends.lowering.rows.wide)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nxcc.backends.lowering.emission import Made
from nxcc.backends.lowering.rows.plan import Step
from nxcc.backends.lowering.rows.products import Sides
from nxcc.backends.lowering.rows.wide_course import product_left
from nxcc.backends.lowering.tiling import retyped
from nxcc.backends.tile.expressions import Expr
from nxcc.backends.tile.program import Access
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction

if TYPE_CHECKING:
    from nxcc.backends.lowering.rows.wide import Batch


@dataclass(frozen=True, slots=True)
class Slot:
    """Memory of one tile of rows on its way through the stages. places: of crossing values; raws: left sides as loaded;
    sides: turned; given: operands; partials: by stage, what reductions and sums make of each piece."""

    number: int
    places: dict[Instruction, Access]
    raws: dict[Instruction, Access]
    sides: dict[Instruction, Sides]
    given: dict[Instruction, Access]
    partials: list[dict[Instruction, Access]]


class Work:
    """A tile of rows in a stage."""

    def __init__(self, batch: Batch, stage: int, slot: Slot, number: Expr, rows: int) -> None:
        self.batch, self.slot, self.number, self.rows = batch, slot, number, rows
        self.stage, self.parts = stage, batch.wide.stages[stage]
        self.made: Made = {}
        self.products = [StageSum(batch, step, slot, rows) for step in self.parts.products]

    def piece(self, index: int) -> None:
        """A piece of the columns, but for products with what is turned here."""
        batch, slot, rows = self.batch, self.slot, self.rows
        if self.stage == 0 and index == 0:
            batch.load(slot, self.number, rows, False)
        if index == 0:
            batch.run(slot, self.parts.rows, rows)
            if self.stage == 0 or batch.wide.is_kept:
                batch.turn_computed(slot, self.parts.wide)
        known = batch.piece(slot, self.stage, rows, index, self.made) if self.parts.wide else {}
        for product in self.products:
            product.turn(index, known.get(product.left))

    def multiply(self, index: int) -> None:
        """The products with a piece; one is multiplied when the next is turned, so that the engine does not wait for copies."""
        for product in self.products if index >= 0 else ():
            product.multiply(index)

    def close(self) -> None:
        """The last products, what is joined from all pieces, and what follows."""
        batch, slot, rows = self.batch, self.slot, self.rows
        self.multiply(len(batch.wide.pieces) - 1)
        for product in self.products:
            product.close()
        batch.join(slot, slot.partials[self.stage])
        batch.run(slot, self.parts.later, rows)
        if self.stage == len(batch.wide.stages) - 1:
            batch.store(slot, self.number, rows)


class StageSum:
    """A product that sums over the columns of a left side made here: squares of it are turned and multiplied as they come."""

    def __init__(self, batch: Batch, step: Step, slot: Slot, rows: int) -> None:
        self.batch, self.kernel, self.slot, self.rows = batch, batch.kernel, slot, rows
        self.dot = step.value
        self.left = product_left(batch.program, self.dot)
        self.dtype = self.dot.operands[1].shape.dtype
        self.matrix = batch.matrices[self.dot]
        columns = batch.program.columns(self.dot, None)
        start = slot.number * columns if (slot.number + 1) * columns <= self.kernel.target.tensor.moving_max else 0
        self.out = batch.wide.totals.rows(0, rows).cut(0, start, columns)

    def _squares(self, index: int) -> Iterator[tuple[int, list[int], Access]]:
        """Groups of a piece: the first column, the heights of squares and their tile. Those of the last piece have tiles of
        their own, since the next tile of rows may begin before they are multiplied."""
        wide, lanes = self.batch.wide, self.kernel.target.partitions
        start, size = wide.pieces[index]
        per = self.kernel.target.psum.bank_bytes // (lanes * self.dtype.byte_size) * lanes
        is_last = index == len(wide.pieces) - 1
        tiles = wide.squares[self.slot.number if len(wide.pieces) == 1 else 2 if is_last else index % 2]
        for first, tile in zip(range(start, start + size, per), tiles, strict=False):
            last = min(first + per, start + size)
            heights = [min(lanes, last - at) for at in range(first, last, lanes)]
            flat = retyped(tile, self.dtype).cut(0, 0, len(heights) * self.rows)
            yield first, heights, flat.reshape(len(heights), self.rows)

    def turn(self, index: int, piece: Access | None) -> None:
        """A piece of the left side, turned square by square; piece: where it is not kept whole."""
        lanes, copy = self.kernel.target.partitions, self.batch.copy
        start, scale = self.batch.wide.pieces[index][0], self.batch.program.plan.scales.get(self.dot, 1.0)
        kept = self.slot.places.get(self.left)
        left = kept.at(0, 0).cut(0, start, self.batch.wide.pieces[index][1]) if kept is not None else piece.at(0, 0) \
            if piece is not None else None
        assert left is not None
        for first, heights, tile in self._squares(index):
            bank = retyped(next(self.batch.wide.turning), self.dtype).cut(0, 0, tile.free).reshape(*tile.sizes[1:])
            for square, height in enumerate(heights):
                place = first - start + square * lanes
                self.kernel.pe_transpose(bank.at(0, square).rows(0, height), left.cut(0, place, height))
            full = sum(height == lanes for height in heights)
            if full:
                copy(tile.cut(0, 0, full), bank.cut(0, 0, full), scale)
            if full < len(heights):
                copy(tile.at(0, full).rows(0, heights[-1]), bank.at(0, full).rows(0, heights[-1]), scale)

    def multiply(self, index: int) -> None:
        """The products of a piece that has been turned."""
        lanes = self.kernel.target.partitions
        for first, heights, tile in self._squares(index):
            for square, height in enumerate(heights):
                is_rest = height < min(lanes, self.matrix.depth)
                matrix = self.matrix.rest(0) if is_rest else self.matrix.block(0, first // lanes + square)
                assert matrix is not None
                self.kernel.matmul(self.out, tile.at(0, square).rows(0, height), matrix, accumulate=first + square > 0)

    def close(self) -> None:
        """The sums are brought to their place."""
        self.batch.copy(self.slot.places[self.dot].at(0, 0), self.out)
