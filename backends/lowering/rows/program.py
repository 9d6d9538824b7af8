"""What the schedules of row programs share: how operands and results run over rows and columns, and what is loaded how."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from nxcc.backends.lowering.rows.plan import plan_rows
from nxcc.backends.lowering.rows.products import Spread, to_spread
from nxcc.backends.lowering.tiling import memory_order, unfolded
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index
from nxcc.backends.tile.program import Access, View, contiguous, merge_dims
from nxcc.ir.dtypes import F32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.hlo.rowspace import COLUMN, UNIT, RowMap, is_column_parallel, maps_of, row_map, shown

FIXED_SHARE = 4
"""What is the same for all rows may take one part in so many of SBUF and stay; more is loaded with each tile."""

TEMPORARIES = 2
"""Tiles that elementwise work takes beside what it reads and makes."""

Maps = dict[Instruction, RowMap]


@dataclass(frozen=True, slots=True)
class Input:
    """An operand as the program reads it. view: [row dimensions.., column dimensions..]; fixed: the same in all rows."""

    instruction: Instruction
    view: View
    fixed: bool


class RowProgram:
    """Facts of one region: rows of its operands and results, and the steps.

    dots: products in order. lefts: their left sides that come from outside, by product. batch: row dimensions that select a
    matrix. shares: parts of the columns that count as rows. is_parallel: columns do not depend on each other either, so that
    tiles may be cut along them too. chained: rows are those of other programs, too; others may become what lies together.
    """

    def __init__(self, kernel: Kernel, body: Computation, rows: int, operands: Sequence[View], results: Sequence[View],
                 chained: bool = False) -> None:
        self.kernel = kernel
        self.shares = 1
        self.order = body.post_order()
        self.roots = list(body.root.operands) if body.root.opcode == "tuple" else [body.root]
        self.operands = {p: operands[int(p.attributes["parameter_number"])] for p in body.parameters}
        found = maps_of(self.order, {root: row_map(root, rows) for root in self.roots})
        assert found is not None, f"{body.name} is no row program"
        self.rows, maps = (None if chained else self._as_it_lies(found, results)) or (rows, found)
        self.maps = maps
        self.plan = plan_rows(self.order, maps, self.roots)
        self.sizes = self._row_sizes()
        self.column_order = self._column_order()
        self.outputs = [self._arrange(view, root) for root, view in zip(self.roots, results, strict=True)]
        self.dots = [step.value for step in self.plan.steps if step.value.opcode == "dot"]
        self.lefts = {dot: shown(dot.operands[0]) for dot in self.dots if shown(dot.operands[0]).opcode == "parameter"}
        self.batch = max((len(i.attribute("lhs_batch_dims")) for i in self.dots), default=0)
        self.is_parallel = is_column_parallel(self.order, maps, self.roots)
        read = {value for step in self.plan.steps if step.value.opcode != "dot" for value in step.reads}
        read |= {self.plan.shown.get(root, root) for root in self.roots}
        read |= {self.plan.shown.get(dot.operands[0], dot.operands[0]) for dot in self.dots if dot not in self.lefts}
        self.inputs = [self._input(p) for p in self.operands if p in maps and p in read]

    def _as_it_lies(self, maps: Maps, results: Sequence[View]) -> tuple[int, Maps] | None:
        """Rows and maps of a program without products or reductions whose columns are the dimension that lies together.

        None where the given maps move as many bytes in runs, or where the dimensions do not allow others.
        """
        dims = {root.shape.dims for root in self.roots}
        if len(dims) > 1 or any(i.opcode == "dot" for i in self.order) or not is_column_parallel(self.order, maps, self.roots):
            return None
        order = [d for d in memory_order(results[0]) if results[0].sizes[d] > 1]
        if len(order) < 2:
            return None
        marks = dict(zip(order, (*range(len(order) - 1), COLUMN), strict=True))
        turned = maps_of(self.order, {root: tuple(marks.get(d, UNIT) for d in range(root.shape.rank)) for root in self.roots})
        if turned is None or not is_column_parallel(self.order, turned, self.roots):
            return None
        views = [*self.operands.items(), *zip(self.roots, results, strict=True)]
        better = _bytes_in_runs(views, turned) > _bytes_in_runs(views, maps)
        return (len(order) - 1, turned) if better else None

    def _row_sizes(self) -> tuple[int, ...]:
        sizes = [1] * self.rows
        for value, marks in self.maps.items():
            for size, mark in zip(value.shape.dims, marks, strict=True):
                if mark >= 0:
                    sizes[mark] = size
        return tuple(sizes)

    def _column_order(self) -> list[int] | None:
        """Column dimensions as they lie in the operand with most elements of its own, the slowest first; None where values have
        different ones."""
        sizes = {found for value, marks in self.maps.items() if (found := tuple(
            size for size, mark in zip(value.shape.dims, marks, strict=True) if mark == COLUMN))}
        if len(sizes) != 1 or any(i.opcode in ("dot", "transpose") for i in self.order):
            return None
        largest = max((p for p in self.operands if p in self.maps and COLUMN in self.maps[p]),
                      key=lambda p: _own_bytes(self.operands[p]), default=None)
        if largest is None:
            return None
        view = self.operands[largest]
        return memory_order(replace(view, dims=tuple(
            dim for dim, mark in zip(view.dims, self.maps[largest], strict=True) if mark == COLUMN)))

    def _arrange(self, view: View, value: Instruction) -> View:
        """[row dimensions in order.., column dimensions..]; a row dimension that the value lacks has size 1."""
        dims: list[tuple[int, int]] = [(0, 1)] * self.rows
        columns = []
        for dim, mark in zip(view.dims, self.maps[value], strict=True):
            if mark >= 0:
                dims[mark] = dim
            elif mark == COLUMN:
                columns.append(dim)
        if self.column_order is not None and columns:
            columns = [columns[d] for d in self.column_order]
        return View(view.memory, view.dtype, view.address, (*dims, *columns))

    def arranged(self, parameter: Instruction) -> View:
        """An operand as [row dimensions.., column dimensions..], repeated along the rows that it lacks."""
        view = self._arrange(self.operands[parameter], parameter)
        dims = tuple((stride, size) if size == full else (0, full)
                     for (stride, size), full in zip(view.dims, self.sizes, strict=False))
        return replace(view, dims=(*dims, *view.dims[self.rows:]))

    def left(self, parameter: Instruction) -> View:
        """The left side of products as [row dimensions.., summed dimension], also where that has a single element."""
        view = self.arranged(parameter)
        return view if len(view.dims) > self.rows else view.insert(self.rows)

    def _input(self, parameter: Instruction) -> Input:
        view = self.arranged(parameter)
        fixed = all(stride == 0 for stride, _ in view.dims[:self.rows]) and len(view.dims) > self.rows
        return Input(parameter, view, fixed)

    def columns(self, instruction: Instruction, width: int | None) -> int:
        """Columns of a value's tile; width: where they are cut."""
        marks = self.maps[instruction]
        if width is not None and COLUMN in marks:
            return width
        total = math.prod(size for size, mark in zip(instruction.shape.dims, marks, strict=True) if mark == COLUMN)
        return total // self.shares if COLUMN in marks else total

    def total_columns(self) -> int:
        """Columns of the results of a program with independent columns."""
        columns = self.outputs[0].dims[self.rows:]
        return columns[0][1] // self.shares if columns else 1

    def cut_columns(self, value: Instruction, view: View, start: Index, size: int) -> View:
        """Columns start.. of a value's view; a value without columns stays as it is."""
        return view.cut(len(view.dims) - 1, start, size) if COLUMN in self.maps[value] else view

    def sums_alive(self) -> int:
        """Most products whose sums, or what overwrites them, are in PSUM at once."""
        return self._peaks()[1]

    def alive(self) -> int:
        """Most tiles with columns in SBUF at once: operands, values, and two temporaries."""
        return self.values_alive() + TEMPORARIES

    def values_alive(self) -> int:
        """As `alive`, without temporaries."""
        return self._peaks()[0]

    def _peaks(self) -> tuple[int, int]:
        tiles = {i.instruction for i in self.inputs if COLUMN in self.maps[i.instruction] and not i.fixed}
        sums: set[Instruction] = set()
        most, most_sums = len(tiles), 0
        for step in self.plan.steps:
            value = step.value
            dying = [v for v in step.reads if self.plan.last[v] is step and v not in self.plan.results]
            if COLUMN in self.maps[value]:
                over_sums = step.dtype is F32 and value not in self.plan.results and not sums.isdisjoint(dying)
                stays = value.opcode == "dot" or over_sums
                (sums if stays else tiles).add(value)
            if value.opcode == "dot":
                most_sums = max(most_sums, len(sums))
            most = max(most, len(tiles))
            tiles.difference_update(dying)
            sums.difference_update(dying)
        return most, most_sums

    def join_rows(self, views: Sequence[View], keep: int) -> tuple[list[View], int]:
        """Join neighbouring row dimensions behind the first `keep` where all views allow it; and how many there are then."""
        groups: list[list[int]] = []
        for d in range(self.rows):
            last = groups[-1][-1] if groups else -1
            if d > keep and last >= keep and all(follow(v.dims[last], v.dims[d]) for v in views):
                # the dimension that says how far apart rows lie comes last
                groups[-1].insert(len(groups[-1]) - all(v.dims[d][1] == 1 for v in views), d)
            else:
                groups.append([d])
        joined = []
        for v in views:
            dims = tuple((v.dims[g[-1]][0], math.prod(v.dims[d][1] for d in g)) for g in groups)
            joined.append(replace(v, dims=(*dims, *v.dims[self.rows:])))
        return joined, len(groups)

    def side(self, dot: Instruction) -> View:
        """The right operand of a dot as [batch rows.., k, n]."""
        view = self.operands[dot.operands[1]]
        batch, summed = dot.attribute("rhs_batch_dims"), dot.attribute("rhs_contracting_dims")
        free = [d for d in range(len(view.dims)) if d not in batch and d not in summed]
        view = view.permute((*batch, *summed, *free))
        for d in range(len(batch), self.batch):  # a product's own batches are the first rows
            view = view.insert(d)
        return replace(view, dims=tuple(
            (stride if size > 1 else 0, self.sizes[d]) if d < self.batch else (stride, size)
            for d, (stride, size) in enumerate(view.dims)))

    def fixed_rows(self, inputs: Sequence[Input], lanes: int) -> dict[Instruction, Spread | None]:
        """What is the same for all rows and may stay on the chip, brought to be repeated; None where a transfer repeats it."""
        room = self.kernel.room.sbuf_bytes // FIXED_SHARE
        found: dict[Instruction, Spread | None] = {}
        for row in inputs:
            view = columns_of(row, self.rows)
            room -= view.elements * row.view.dtype.byte_size
            if row.fixed and room >= 0:
                found[row.instruction] = to_spread(self.kernel, view, lanes)
        return found

    def load(self, view: View, rows: int, groups: int = 1) -> Access:
        """A tile [rows, groups, columns] of a view whose leading dimensions are the rows, then the groups.

        Columns that repeat others come once where the transfer would take them in short runs, and are repeated on the chip.
        """
        kernel, columns = self.kernel, view.elements // (rows * groups)
        lead = _leading(view, columns)
        if groups > 1 and lead and view.dims[lead - 1] == (0, groups):
            alone = self.load(view.at(lead - 1, 0), rows)
            return replace(alone, dims=((0, groups), alone.dims[1]))
        tile = kernel.sbuf((rows, groups, columns), view.dtype)
        if not _repeats_in_short_runs(view, lead, kernel.target.dma.descriptor_bytes_min):
            kernel.dma(unfolded(tile, view), view)
            return tile
        once = replace(view, dims=(*view.dims[:lead], *((stride, size) for stride, size in view.dims[lead:] if stride)))
        with kernel.scope():
            given = kernel.sbuf((rows, groups, once.elements // (rows * groups)), view.dtype)
            kernel.dma(unfolded(given, once), once)
            steps = iter(contiguous(once.sizes[lead:]))
            dims = tuple((next(steps)[0] if stride else 0, size) for stride, size in view.dims[lead:])
            kernel.copy(tile.reshape(groups, *view.sizes[lead:]), replace(given, dims=(given.dims[0], *dims)))
        return tile


def _leading(view: View, columns: int) -> int:
    """How many dimensions come before the columns."""
    lead = len(view.dims)
    while math.prod(view.sizes[lead:]) < columns:
        lead -= 1
    return lead


def _repeats_in_short_runs(view: View, lead: int, least: int) -> bool:
    """Whether columns lie upon each other, and fewer bytes than a descriptor should have beside each other."""
    run = view.dtype.byte_size
    for stride, size in reversed(merge_dims(view.dims[lead:])):
        if stride != run:
            break
        run *= size
    return run < least and any(stride == 0 and size > 1 for stride, size in view.dims[lead:])


def _own_bytes(view: View) -> int:
    """Bytes of the elements that do not lie upon others."""
    return math.prod(size for stride, size in view.dims if stride) * view.dtype.byte_size


def _bytes_in_runs(views: Iterable[tuple[Instruction, View]], maps: Mapping[Instruction, RowMap]) -> int:
    """Bytes of values whose columns are neighbours in memory."""
    return sum(_own_bytes(view) for value, view in views if value in maps and any(
        mark == COLUMN and stride == view.dtype.byte_size for (stride, _), mark in zip(view.dims, maps[value], strict=True)))


def columns_of(row: Input, rows: int) -> View:
    """An operand without its row dimensions."""
    return replace(row.view, dims=row.view.dims[rows:])


def follow(slow: tuple[int, int], fast: tuple[int, int]) -> bool:
    """Whether two neighbouring dimensions (stride, size) are one: those of size 1 join any."""
    return slow[1] == 1 or fast[1] == 1 or slow[0] == fast[0] * fast[1]
