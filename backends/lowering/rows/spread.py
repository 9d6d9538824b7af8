"""Row programs without products on all partitions: few rows share out their columns, short rows lie on a partition together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from nxcc.backends.lowering.rows.program import RowProgram
from nxcc.backends.lowering.rows.tiles import VALUE_SHARE, Rows, RowTiles
from nxcc.backends.tile.program import View
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.rowspace import COLUMN

LEAST_SHARE = 512
"""Columns of a share at least, where columns lie beside each other on partitions."""

SHORT_ROW = 256
"""Columns up to which several rows are put on one partition."""

LENT_BANKS = 4
"""Banks of PSUM that Scalar leaves products in for Vector."""

TILE_COLUMNS = 2048
"""Columns of all rows on a partition together, at most."""


class RowSpread(RowTiles):
    """Tiles of rows one after the other, of a program without products."""

    def __init__(self, program: RowProgram) -> None:
        assert not program.dots
        if program.kernel.copies.rotates:
            program.kernel.lend_banks(LENT_BANKS)
        program.shares = _shares(program)
        super().__init__(program)

    def lower(self) -> None:
        program = self.program
        views, lead = program.join_rows([*(i.view for i in self.moving), *program.outputs], 0)
        if program.shares > 1:
            names = [*(i.instruction for i in self.moving), *program.roots]
            views = [self._shared(name, view, lead) for name, view in zip(names, views, strict=True)]
            lead += 1
        for rows, groups in self._spread(views, lead):
            self.groups = groups
            if groups > 1:
                self._tile(rows, {}, {}, 0, (0, None))
            else:
                self.row_tile(rows, {}, 0)

    def _shared(self, value: Instruction, view: View, lead: int) -> View:
        """A view whose columns are cut into shares, which are rows too."""
        shares = self.program.shares
        if COLUMN not in self.program.maps[value]:
            return view.insert(lead, shares)
        *rows, (stride, size) = view.dims
        return replace(view, dims=(*rows, (stride * size // shares, shares), (stride, size // shares)))

    def _spread(self, views: list[View], lead: int) -> Iterator[tuple[Rows, int]]:
        """Tiles of rows with as many rows on each partition as fill it; what is left has fewer, in the end one."""
        groups = self._rows_together(views, lead)
        if groups < 2:
            groups = self._neighbours(views, lead)
            yield from self._beside(views, lead, groups) if groups > 1 else (
                (rows, 1) for rows in self._single_tiles(views, lead))
            return
        lanes, rows = self.kernel.target.partitions, views[0].sizes[0]
        full = rows // (lanes * groups) * lanes * groups
        for start, size in self.kernel.tiles(full, lanes * groups, outer=True):
            yield Rows([_split_rows(v.cut(0, start, size), groups) for v in views], 2, lanes), groups
        if rows > full:
            yield from self._spread([v.cut(0, full, rows - full) for v in views], lead)

    def _rows_together(self, views: list[View], lead: int) -> int:
        """How many rows lie on one partition."""
        return min(views[0].sizes[0] // self.kernel.target.partitions, self._most_together()) if lead == 1 else 1

    def _most_together(self) -> int:
        """How many rows have room on one partition."""
        program = self.program
        widest = max(program.columns(i, None) for i in program.maps)
        if program.shares > 1 or widest > SHORT_ROW:
            return 1
        room = int(self.kernel.sbuf_free_bytes * VALUE_SHARE) // (4 * max(1, program.alive()) * self.kernel.copies.outer)
        return min(TILE_COLUMNS // widest, room // max(widest, 4))

    def _neighbours(self, views: list[View], lead: int) -> int:
        """How many rows that the last dimension of several numbers lie on one partition, where what is left fills all of them,
        or, where the last dimension is wanted for that, two tiles."""
        if lead < 2:
            return 1
        size, most, lanes = views[0].sizes[lead - 1], self._most_together(), self.kernel.target.partitions
        others = math.prod(views[0].sizes[:lead - 1])
        if others < lanes:
            most = min(most, others * size // (2 * lanes))
        return max((n for n in range(1, min(size, most) + 1) if size % n == 0), default=1)

    def _beside(self, views: list[View], lead: int, groups: int) -> Iterator[tuple[Rows, int]]:
        """Tiles of rows with so many neighbours along the last dimension of rows on each partition."""
        cut = []
        for view in views:
            stride, size = view.dims[lead - 1]
            cut.append(replace(view, dims=(*view.dims[:lead - 1], (stride * groups, size // groups), (stride, groups),
                                           *view.dims[lead:])))
        for rows in self._single_tiles(cut, lead):
            yield Rows(rows.views, rows.lead + 1, rows.count), groups


def _shares(program: RowProgram) -> int:
    """How many parts of the columns lie on partitions beside each other, where there are few rows."""
    rows, total = math.prod(program.sizes), program.total_columns()
    if not program.is_parallel:
        return 1
    most = min(program.kernel.target.partitions // rows, total // LEAST_SHARE)
    return next((n for n in range(most, 1, -1) if total % n == 0), 1)


def _split_rows(view: View, groups: int) -> View:
    """[rows, ..] as [partitions, groups, ..]: neighbours lie on one partition."""
    (stride, size), *rest = view.dims
    return replace(view, dims=((stride * groups, size // groups), (stride, groups), *rest))
