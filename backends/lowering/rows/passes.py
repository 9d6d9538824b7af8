"""Row programs without products whose rows are too long for the chip: softmax over a vocabulary, norms of large images.

A tile of rows is passed over once for each reduction that waits for another, and once more for results that wait for the last:
each pass loads pieces of the columns, makes again what it needs of them, and keeps what reductions make of each piece. Operands
that have room are loaded by the first pass and stay for the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace

from nxcc.backends.lowering.reduction import combiner
from nxcc.backends.lowering.rows.plan import Plan, Step, part_of
from nxcc.backends.lowering.rows.program import RowProgram, follow
from nxcc.backends.lowering.rows.tiles import VALUE_SHARE, Rows, RowTiles
from nxcc.backends.lowering.rows.values import STATISTICS_COLUMNS, Pool, Values, starts_neutral
from nxcc.backends.lowering.tiling import store, unfolded
from nxcc.backends.target import Target
from nxcc.backends.tile.expressions import Expr, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import F32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.rowspace import COLUMN

PIECE = 2048
"""Columns of a piece, at most."""

VALUES_LEAST = 4
"""Rows of which fewer values than this have room on the chip are long."""

ROWS_MIN = 64
"""Rows from which tiles fill enough of the partitions."""

WHOLE_SHARE = 0.8
"""Part of SBUF that values may take which lie there whole, with all their columns."""

KEPT_SHARE = 0.75
"""Part of SBUF that operands may take which stay whole."""

STATISTICS = 6
"""Numbers that Vector's statistics of some columns are."""


@dataclass
class Pass:
    """rows: work on single columns before it. wide: on pieces, with reductions. roots: long results that it stores."""

    rows: list[Step] = field(default_factory=list)
    wide: list[Step] = field(default_factory=list)
    roots: list[Instruction] = field(default_factory=list)


def is_long(columns: int, target: Target) -> bool:
    """Whether a few values with so many columns of f32 have no room on a partition."""
    return VALUES_LEAST * F32.byte_size * columns > target.sbuf.usable_bytes


def comes_in_passes(program: RowProgram) -> bool:
    """Whether rows are too long to lie on the chip whole, and may be cut."""
    target, width = program.kernel.target, long_columns(program)
    if program.dots or program.is_parallel or not is_long(width, target) or math.prod(program.sizes) < ROWS_MIN:
        return False
    long = sum(program.columns(row.instruction, None) == width for row in program.inputs)
    if (program.alive() + long) * F32.byte_size * width <= WHOLE_SHARE * target.sbuf.usable_bytes:
        return False
    reduces = [step.value for step in program.plan.steps if step.value.opcode == "reduce"]
    reduces += [total for step in program.plan.steps for total in (step.total, step.spread) if total is not None]
    return all(map(cuts, reduces)) and all(program.columns(value, None) in (1, width) for value in program.maps)


def cuts(reduce: Instruction) -> bool:
    """Whether a reduction over columns is that of what it makes of pieces."""
    return starts_neutral(reduce) and (reduce.operands[0].shape.dtype, reduce.shape.dtype) == (F32, F32)


def passes_of(program: RowProgram) -> list[Pass]:
    """The passes over a program's long rows, of which there is one length, and at the end work on single columns alone."""
    width = long_columns(program)
    levels: dict[Instruction, int] = {}
    made: dict[Instruction, Step] = {}
    goals: dict[int, list[Step]] = {}
    narrow: list[tuple[int, Step]] = []
    for step in program.plan.steps:
        level = max((levels.get(value, 0) for value in step.reads), default=0)
        is_long = any(program.columns(value, None) == width for value in step.reads)
        sums = step.total is not None or step.value.opcode == "reduce" and is_long
        if sums:
            goals.setdefault(level, []).append(step)
        if step.value.opcode != "reduce" and program.columns(step.value, None) == width:
            made[step.value] = step
        elif not sums:
            narrow.append((level, step))
        levels[step.value] = level + (step.value.opcode == "reduce" and is_long)
        for name in (step.total, step.spread):
            if name is not None:
                levels[name] = level + 1
    return _passes(program, goals, made, narrow, levels)


def _passes(program: RowProgram, goals: dict[int, list[Step]], made: Mapping[Instruction, Step],
            narrow: Sequence[tuple[int, Step]], levels: Mapping[Instruction, int]) -> list[Pass]:
    found: dict[int, Pass] = {}
    for root in program.roots:
        value = program.plan.shown.get(root, root)
        if COLUMN in program.maps[root]:
            goals.setdefault(levels.get(value, 0), [])
    for level, steps in sorted(goals.items()):
        roots = [root for root in program.roots if COLUMN in program.maps[root]
                 and levels.get(program.plan.shown.get(root, root), 0) == level]
        own = set(map(id, steps))
        wanted = [*steps, *(made[value] for root in roots if (value := program.plan.shown.get(root, root)) in made)]
        needed = _needed(wanted, made)
        found[level] = Pass([], [step if id(step) in own else replace(step, total=None)  # a sum that is known by then
                                 for step in program.plan.steps if id(step) in needed], roots)
    last = found[max(found) + 1] = Pass()
    for level, step in narrow:
        next((p for at, p in sorted(found.items()) if at >= level), last).rows.append(step)
    return [found[level] for level in sorted(found)]


def _needed(wanted: Sequence[Step], made: Mapping[Instruction, Step]) -> set[int]:
    """Steps, by identity, and those of long values that they are made from."""
    needed: set[int] = set()
    stack = list(wanted)
    while stack:
        step = stack.pop()
        if id(step) not in needed:
            needed.add(id(step))
            stack.extend(made[value] for value in step.reads if value in made)
    return needed


def long_columns(program: RowProgram) -> int:
    """Columns of the longest values."""
    return max(program.columns(value, None) for value in program.maps)


@dataclass(frozen=True, slots=True)
class _Piece:
    """number: of the piece. start, size: its columns as they follow each other; cuts: in each dimension of the columns."""

    number: Expr
    start: Expr
    size: int
    cuts: tuple[tuple[Expr, int], ...]


class RowPasses(RowTiles):
    """Tiles of rows one after the other, each in several passes."""

    def __init__(self, program: RowProgram) -> None:
        super().__init__(program)
        self.passes, self.width = passes_of(program), long_columns(program)
        self.kept = self._kept()
        self.most = self._most()

    def lower(self) -> None:
        program = self.program
        views, lead = program.join_rows([*(i.view for i in self.moving), *program.outputs], 0)
        columns = [len(v.dims) > lead and math.prod(v.sizes[lead:]) == self.width for v in views]
        views = _joined_columns(views, lead, columns)
        for rows in self._single_tiles(views, lead):
            self._pass_over(rows)

    def _pass_over(self, rows: Rows) -> None:
        """All passes over a tile of rows."""
        program, moving = self.program, len(self.moving)
        views = dict(zip((i.instruction for i in self.moving), rows.views, strict=False))
        outputs = dict(zip(program.roots, rows.views[moving:], strict=True))
        long = {value: view for value, view in views.items() if self._is_long(value)}
        known = {value: program.load(view, rows.count) for value, view in views.items() if value not in long}
        known |= {name: tile.rows(0, rows.count).insert(0) for name, tile in self.fixed.items() if not self._is_long(name)}
        kept = {name: self.kernel.sbuf((rows.count, 1, self.width), long[name].dtype) for name in self.kept}
        for one in self.passes:
            known |= self._rows(one.rows, known, rows.count)
            if one.wide or one.roots:
                known |= self._pieces_of(one, known, long, {root: outputs[root] for root in one.roots}, rows, kept)
                read = {value for step in one.wide for value in step.reads}
                long = {name: view for name, view in long.items() if name not in kept or name not in read}
        values = self._part([], known, rows.count, self.width, frozenset())
        for root, view in outputs.items():
            if not self._is_long(root):
                store(self.kernel, view, values.result(root))

    def _kept(self) -> dict[Instruction, int]:
        """Long operands that stay for several passes, all or none, and their bytes of a partition."""
        reads = [{value for step in one.wide for value in step.reads} for one in self.passes]
        found = {i.instruction: self.width * i.view.dtype.byte_size for i in self.moving
                 if self._is_long(i.instruction) and sum(i.instruction in read for read in reads) > 1}
        return found if sum(found.values()) <= KEPT_SHARE * self.kernel.target.sbuf.usable_bytes else {}

    def _is_long(self, value: Instruction) -> bool:
        return self.program.columns(value, None) == self.width

    def _part(self, steps: Sequence[Step], known: Mapping[Instruction, Access], rows: int, size: int,
              kept: frozenset[Instruction], places: Mapping[Instruction, Access] | None = None) -> Values:
        """Values of some steps, long ones with `size` columns."""
        plan: Plan = part_of(self.program.plan, steps, kept)
        return Values(self.kernel, plan, Pool(self.kernel, rows, 1), lambda i: size if self._is_long(i) else 1, known, _none, 0,
                      places)

    def _rows(self, steps: Sequence[Step], known: Mapping[Instruction, Access], rows: int) -> dict[Instruction, Access]:
        """Values of single columns."""
        own = frozenset(step.value for step in steps)
        values = self._part(steps, known, rows, self.width, own)
        values.run()
        return {value: tile for value, tile in values.tiles.items() if value in own and isinstance(tile, Access)}

    # ---- pieces -------------------------------------------------------------------------------------------------

    def _pieces_of(self, one: Pass, known: Mapping[Instruction, Access], long: Mapping[Instruction, View],
                   outputs: Mapping[Instruction, View], rows: Rows,
                   kept: Mapping[Instruction, Access]) -> dict[Instruction, Access]:
        """A pass; what its reductions found. long: operands to load; kept: tiles for what stays."""
        kernel, program = self.kernel, self.program
        shown = {program.plan.shown.get(root, root) for root in outputs}
        read = {value for step in one.wide for value in step.reads} | shown
        like = next(iter((*(view for value, view in long.items() if value in read), *outputs.values())), None)
        lead, most = rows.lead, self.most
        sizes = like.sizes[lead:] if like is not None else (self.width,)
        partials = self._partials(one, _count(sizes, most), rows.count)
        for piece in self._pieces_in(sizes, most):
            given = dict(known)
            given |= {name: tile.cut(0, piece.start, piece.size).rows(0, rows.count).insert(0)
                      for name, tile in self.fixed.items() if name in read and self._is_long(name)}
            given |= {name: tile.cut(1, piece.start, piece.size) for name, tile in kept.items() if name in read}
            for name, view in long.items():
                if name in kept and name in read:
                    part = _cut(view, lead, piece)
                    kernel.dma(unfolded(given[name], part), part)
                elif name in read:
                    given[name] = program.load(_cut(view, lead, piece), rows.count)
            places = {name: tile.cut(1, piece.number, 1) for name, tile in partials.items()}
            values = self._part(one.wide, given, rows.count, piece.size, frozenset(shown), places)
            for step in one.wide:
                if step.spread is not None:
                    self._statistics(step, values, piece, partials[step.value])
                else:
                    values.perform(step)
            for root, view in outputs.items():
                store(kernel, _cut(view, lead, piece), values.result(root))
        return self._joined(one, partials, rows.count)

    def _most(self) -> int:
        """Columns of a piece for which there is room."""
        streaming = [i for i in self.program.inputs if self._is_long(i.instruction) and i.instruction not in self.kept]
        each = F32.byte_size * (self.program.alive() + len(streaming)) * self.kernel.copies.inner
        room = int((self.kernel.sbuf_free_bytes - sum(self.kept.values())) * VALUE_SHARE) // each
        return min(PIECE, max(64, room // 64 * 64))

    @property
    def _triples(self) -> int:
        """Numbers that statistics of a piece are."""
        return STATISTICS * -(-self.most // STATISTICS_COLUMNS)

    def _pieces_in(self, sizes: Sequence[int], most: int) -> Iterator[_Piece]:
        """Pieces of columns that lie in dimensions of these sizes, of at most so many columns."""
        inner, whole = math.prod(sizes[1:]), tuple((expr(0), size) for size in sizes[1:])
        if inner > most:
            count = _count(sizes[1:], most)
            for at, _ in self.kernel.tiles(sizes[0], 1):
                for piece in self._pieces_in(sizes[1:], most):
                    yield _Piece(at * count + piece.number, at * inner + piece.start, piece.size, ((at, 1), *piece.cuts))
            return
        step = min(sizes[0], most // inner)
        full, rest = divmod(sizes[0], step)
        for number, _ in self.kernel.tiles(full, 1):
            yield _Piece(number, number * (step * inner), step * inner, ((number * step, step), *whole))
        if rest:
            yield _Piece(expr(full), expr(full * step * inner), rest * inner, ((expr(full * step), rest), *whole))

    # ---- reductions ---------------------------------------------------------------------------------------------

    def _statistics(self, step: Step, values: Values, piece: _Piece, stats: Access) -> None:
        """Count, mean and variance of a piece's columns, of as many at a time as an instruction takes."""
        data = values.whole(step.value.operands[0]).at(0, 0)
        place = stats.at(0, 0)
        for number, start in enumerate(range(0, piece.size, STATISTICS_COLUMNS)):
            own = place.cut(0, piece.number * self._triples + STATISTICS * number, STATISTICS)
            self.kernel.bn_stats(own, data.cut(0, start, min(STATISTICS_COLUMNS, piece.size - start)))

    def _partials(self, one: Pass, count: int, rows: int) -> dict[Instruction, Access]:
        """Room for what a pass's reductions make of each piece; statistics of no columns count for nothing."""
        found = {}
        for step in one.wide:
            for name in _sums(step):
                numbers = self._triples if step.spread is not None else 1
                found[name] = self.kernel.sbuf((rows, 1, count * numbers), F32)
                if step.spread is not None:
                    self.kernel.memset(found[name], 0.0)
        return found

    def _joined(self, one: Pass, partials: Mapping[Instruction, Access], rows: int) -> dict[Instruction, Access]:
        """Reductions of all columns from those of pieces."""
        kernel, found = self.kernel, {}
        for step in one.wide:
            for name in _sums(step):
                if step.spread is not None:
                    both = kernel.sbuf((rows, 1, 2), F32)
                    kernel.bn_aggr(both.at(0, 0), partials[name].at(0, 0))
                    for number, value in enumerate((step.value, step.spread)):
                        found[value] = kernel.sbuf((rows, 1, 1), F32)
                        kernel.tensor_scalar(found[value], both.cut(1, number, 1), "multiply", float(self.width))
                    continue
                op = combiner(name.called[0])
                assert op is not None
                found[name] = kernel.sbuf((rows, 1, 1), F32)
                kernel.tensor_reduce(found[name].at(1, 0), partials[name], op)
        return found


def _sums(step: Step) -> list[Instruction]:
    """Reductions that come with a step of long values."""
    return [name for name in (step.total, step.value if step.value.opcode == "reduce" else None) if name is not None]


def _count(sizes: Sequence[int], most: int) -> int:
    """Pieces of columns that lie in dimensions of these sizes."""
    inner = math.prod(sizes[1:])
    return sizes[0] * _count(sizes[1:], most) if inner > most else -(-sizes[0] // min(sizes[0], most // inner))


def _cut(view: View, lead: int, piece: _Piece) -> View:
    """A piece of a view's columns."""
    for d, (start, size) in enumerate(piece.cuts):
        view = view.cut(lead + d, start, size)
    return view


def _joined_columns(views: Sequence[View], lead: int, long: Sequence[bool]) -> list[View]:
    """Dimensions of columns that follow each other in all long views become one."""
    sizes = {view.sizes[lead:] for view, is_long in zip(views, long, strict=True) if is_long}
    assert len(sizes) == 1, f"long rows in different dimensions: {sizes}"
    groups: list[list[int]] = []
    for d in range(lead, lead + len(next(iter(sizes)))):
        if groups and all(follow(v.dims[d - 1], v.dims[d]) for v, is_long in zip(views, long, strict=True) if is_long):
            groups[-1].append(d)
        else:
            groups.append([d])
    return [replace(view, dims=(*view.dims[:lead], *(
        (view.dims[g[-1]][0], math.prod(view.dims[d][1] for d in g)) for g in groups))) if is_long else view
        for view, is_long in zip(views, long, strict=True)]


def _none(dot: Instruction, left: Access | None, out: Access) -> None:
    raise AssertionError(f"{dot} is no part of a program in passes")
