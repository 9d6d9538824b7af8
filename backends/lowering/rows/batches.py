"""Row programs with a matrix for each of many: attention with its heads. Several heads are worked on in step.

Around it all go loops over the outer selecting dimensions and over rows that do not join. Inside, a block of the innermost
selecting dimension (all heads if they fit) has its matrices on the chip; each tile of rows loads what it needs for the whole
block in one transfer an operand; groups of the block then run through the program. The first half of a run stands before the
second half of the one before, from tile to tile and from batch to batch, so that the engines of one half work while the
other's do.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from nxcc.backends.isa.program import Memory
from nxcc.backends.lowering.rows.products import Sides, bring, is_turned, multiply, sides, sides_bytes, turn
from nxcc.backends.lowering.rows.program import RowProgram
from nxcc.backends.lowering.rows.values import Pool, Values, sums_banks
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.diagnostics import OUT_OF_MEMORY, CompileError
from nxcc.ir.hlo.module import Instruction

PIECES_MAX = 8
"""Runs of a block that may be written one after the other; more are looped over."""

GROUPS_MAX = 8
"""Groups in step at most: their instructions are written one after the other."""

TURNING_BANKS = 2
"""Banks of PSUM that turning takes; all others are for sums, in turns."""

UNDER_WAY = 3
"""Runs whose values have tiles of their own."""

BLOCK_SHARE = 0.4
"""Part of SBUF for what a block of groups has on the chip."""

VALUE_SHARE = 0.4
"""Part of SBUF for the values of one run."""


class RowBatches:
    """Loops over batches, blocks of groups, tiles of rows and groups."""

    def __init__(self, program: RowProgram, keep: Sequence[Access] = (), share_bytes: int = 0) -> None:
        """keep: tiles [rows, 1, columns of all groups] for tiles of rows, that the result of a single batch goes to instead of
        HBM. share_bytes: of a partition, which shares of the room are of; all of it unless given."""
        self.program, self.kernel, self.keep = program, program.kernel, keep
        self.share_bytes = share_bytes or self.kernel.room.sbuf_bytes
        self.sources = list(dict.fromkeys(program.lefts.values()))
        self.copies = 1

    def lower(self) -> None:
        program, batch = self.program, self.program.batch
        views, count = program.join_rows([*(i.view for i in program.inputs), *program.outputs,
                                          *map(program.left, self.sources)], batch)
        if count == batch:
            views, count = [v.insert(batch) for v in views], count + 1
        outer = [*range(batch - 1), *range(batch, count - 1)]
        order = [*outer, batch - 1, count - 1]
        views = [v.permute((*order, *range(count, len(v.dims)))) for v in views]
        matrices = [program.side(dot) for dot in program.dots]
        for d in range(batch, count - 1):
            matrices = [v.insert(d - 1, views[0].sizes[d - 1]) for v in matrices]
        self.copies = self.kernel.copies.outer if any(size > 1 for size in views[0].sizes[:len(outer)]) else 1
        for cuts in _bodies_of_batches(self.kernel, [*views, *matrices], len(outer)):
            with self.kernel.psum_scope():
                line = _Line(self)
                for cut in cuts:
                    self._batch(cut[:len(views)], dict(zip(program.dots, cut[len(views):], strict=True)), line)
                line.close()

    def _batch(self, views: list[View], matrices: Mapping[Instruction, View], line: _Line) -> None:
        """views: [groups, rows, columns..]; matrices: [groups, k, columns]."""
        heads, rows = views[0].sizes[:2]
        packs = {dot: dot in self.program.lefts and is_turned(view) for dot, view in matrices.items()}
        groups = self._groups(heads, rows, matrices, packs)
        line.open(groups)
        is_late = {dot: dot not in self.program.lefts and rows <= self._together for dot in matrices}
        for blocks in _bodies(self.kernel, heads, self._block(heads, groups, views, matrices)):
            for first, block in blocks:
                here = {dot: partial(bring, self.kernel, view.cut(0, first, block), packs[dot])
                        for dot, view in matrices.items()}
                matrices_ = _Matrices({dot: load for dot, load in here.items() if is_late[dot]},
                                      {dot: load() for dot, load in here.items() if not is_late[dot]})
                for tiles in _bodies(self.kernel, rows, self.kernel.target.partitions):
                    for row, size in tiles:
                        keep = self._kept(row, size, first, block)
                        part = [v.cut(0, first, block).cut(1, row, size) for v in views]
                        self._tile(part, matrices_, packs, groups, line, keep)
                    line.end(rows > self.kernel.target.partitions)
            line.end(block < heads)

    @property
    def _together(self) -> int:
        """Rows of the tiles that are written one after the other."""
        return self.kernel.target.partitions * self.kernel.copies.inner

    def _tile(self, views: Sequence[View], matrices: _Matrices, packs: Mapping[Instruction, bool], groups: int, line: _Line,
              keep: Access | None) -> None:
        """One tile of rows of a block; views: [groups of the block, rows, columns..]. keep: where the result stays."""
        kernel, program = self.kernel, self.program
        block, rows = views[0].sizes[:2]
        given = {i.instruction: self._load(view) for i, view in zip(program.inputs, views, strict=False)}
        lefts = {dot: self._left(dot, views, packs[dot]) for dot in program.lefts}
        sides_ = matrices.all()
        first = len(program.inputs)
        outputs = dict(zip(program.roots, views[first:], strict=False))
        results = {root: keep or kernel.sbuf((rows, block, program.columns(root, None)), root.shape.dtype)
                   for root in program.roots}

        def values(start: Index, size: int) -> Values:
            product = _Product(self, {dot: side.of(start) for dot, side in lefts.items()},
                               {dot: side.of(start) for dot, side in sides_.items()})
            places = {program.plan.shown.get(root, root): tile.cut(0, start, size) for root, tile in results.items()}
            part = {name: tile.cut(0, start, size) for name, tile in given.items()}
            return Values(kernel, program.plan, line.pool(rows, size), lambda i: program.columns(i, None), part, product,
                          kernel.room.psum_banks, places)

        def settle(run: Values, start: Index, size: int) -> None:
            for root, tile in results.items():
                run.settle(root, tile.cut(0, start, size))
            run.give_back()

        def finish() -> None:
            if keep is not None:
                return
            for root, view in outputs.items():
                shaped = results[root].linear().reshape((rows, block, *view.sizes[2:]))
                assert shaped is not None
                kernel.dma(view.permute((1, 0, *range(2, len(view.dims)))), shaped)

        if kernel.copies.rotates and block <= PIECES_MAX * groups:
            for start in range(0, block, groups):
                size = min(groups, block - start)
                line.add(values(start, size), partial(settle, start=start, size=size))
            line.then(finish)
            return
        line.end(True)
        for place, size in kernel.tiles(block, groups):
            run = values(place, size)
            run.run()
            settle(run, place, size)
            line.forget()
        finish()

    def _kept(self, row: Index, size: int, first: Index, block: int) -> Access | None:
        """The part [rows, groups of a block, columns] of a tile that stays."""
        if not self.keep:
            return None
        number, (root,) = expr(row), self.program.roots
        if not number.is_constant:
            raise CompileError(OUT_OF_MEMORY, f"{self.kernel.program.name} keeps tiles of rows that it loops over")
        tile, columns = self.keep[number.constant // self.kernel.target.partitions], self.program.columns(root, None)
        return tile.rows(0, size).reshape(tile.free // columns, columns).cut(0, first, block)

    def _load(self, view: View) -> Access:
        """[rows, groups, columns]; what is the same for all groups comes once and repeats by a stride of 0."""
        block, rows = view.sizes[:2]
        if view.dims[0][0] == 0:
            tile = self.program.load(view.at(0, 0), rows)
            return replace(tile, dims=((0, block), tile.dims[1]))
        return self._load_all(view)

    def _load_all(self, view: View) -> Access:
        """[rows, groups, columns]."""
        block, rows = view.sizes[:2]
        columns = view.elements // (block * rows)
        tile = self.kernel.sbuf((rows, block, columns), view.dtype)
        shaped = tile.linear().reshape((rows, block, *view.sizes[2:]))
        assert shaped is not None
        self.kernel.dma(shaped, view.permute((1, 0, *range(2, len(view.dims)))))
        return tile

    def _left(self, dot: Instruction, views: Sequence[View], packs: bool) -> Sides:
        source = self.program.lefts[dot]
        view = views[len(views) - len(self.sources) + self.sources.index(source)]
        raw = self._load_all(view)
        rows, block, depth = raw.sizes
        to = sides(self.kernel, depth, block, rows, raw.dtype, packs)
        turn(self.kernel, raw, to, scale=self.program.plan.scales.get(dot, 1.0))
        return to

    def half(self) -> int:
        """The number of steps before the left side of the last product is made, if one is made here."""
        plan, dots = self.program.plan, self.program.dots
        left = plan.shown.get(dots[-1].operands[0], dots[-1].operands[0])
        return next((n for n, step in enumerate(plan.steps) if step.value is left), 0)

    # ---- sizes --------------------------------------------------------------------------------------------------

    def _groups(self, heads: int, rows: int, matrices: Mapping[Instruction, View], packs: Mapping[Instruction, bool]) -> int:
        """Groups in step: as many as PSUM and SBUF hold the values of, in equal parts of all."""
        lanes = self.kernel.target.partitions
        together = max((lanes // view.sizes[1] for dot, view in matrices.items()
                        if packs[dot] and lanes % view.sizes[1] == 0 and view.sizes[1] % 32 == 0), default=1)
        widths = [view.sizes[2] for view in matrices.values()]
        widest = max([*widths, *(self.program.columns(root, None) for root in self.program.roots)])
        room = self.kernel.room
        for parts in range(1, heads + 1):
            share = (heads + parts - 1) // parts
            groups = min(heads, (share + together - 1) // together * together)
            ahead = sums_banks(self.kernel, widths[0], groups) if self.half() and (groups < heads or rows > lanes) else 0
            banks = sum(sums_banks(self.kernel, width, groups) for width in widths) + ahead + 1
            values = groups * widest * 4 * self.program.alive() * self.kernel.copies.inner
            if groups <= GROUPS_MAX and banks <= room.psum_banks and values <= VALUE_SHARE * self.share_bytes:
                return self.kernel.choose("groups", groups, max(together, groups // 2 // together * together))
        return min(heads, together)

    def _block(self, heads: int, groups: int, views: Sequence[View], matrices: Mapping[Instruction, View]) -> int:
        """Groups whose matrices and operands are on the chip at once: all, or whole groups in step."""
        lanes = self.kernel.target.partitions
        each = sum(2 * sides_bytes(v.sizes[1], v.sizes[2], v.dtype, lanes) for v in matrices.values())
        for view in views:
            if view.dims[0][0]:
                columns = view.elements // (view.sizes[0] * view.sizes[1])
                each += 2 * columns * view.dtype.byte_size
        most = int(BLOCK_SHARE * self.share_bytes) // (each * self.copies)
        return heads if heads <= most else max(1, most // groups) * groups


class _Matrices:
    """Matrices of a block. late: how those come that are multiplied last: behind the left sides of the first tile of rows."""

    def __init__(self, late: Mapping[Instruction, Callable[[], Sides]], here: dict[Instruction, Sides]) -> None:
        self._late, self._here = dict(late), here

    def all(self) -> dict[Instruction, Sides]:
        self._here |= {dot: load() for dot, load in self._late.items()}
        self._late = {}
        return self._here


class _Line:
    """Runs that follow each other, the first half of one before the second half of the one before it."""

    def __init__(self, batches: RowBatches) -> None:
        self.batches, self.kernel, self.half = batches, batches.kernel, batches.half()
        self.waiting: list[Callable[[], None]] = []
        self.pools: dict[tuple[int, int], deque[Pool]] = {}
        self.banks: list[Access] = []
        self.forget()

    def open(self, groups: int) -> None:
        """Take banks for the sums of so many groups: in turns for each product, as long as there are any."""
        if self.banks:
            return
        kernel, program = self.kernel, self.batches.program
        for dot in itertools.cycle(program.dots):
            needed = sums_banks(kernel, program.columns(dot, None), groups)
            if needed > kernel.psum_free_banks - TURNING_BANKS:
                break
            self.banks.append(kernel.psum((kernel.target.partitions, 1, needed * kernel.target.tensor.moving_max)))
        self.forget()

    def pool(self, rows: int, size: int) -> Pool:
        """Tiles for the values of a run; those of the last run but one are free again."""
        pools = self.pools.setdefault((rows, size), deque())
        if len(pools) < UNDER_WAY:
            pools.append(Pool(self.kernel, rows, size, shares=self.sums))
        else:
            pools.rotate(-1)
        return pools[-1]

    def add(self, run: Values, settle: Callable[[Values], None]) -> None:
        """Write the first half of a run, and what waits of the one before."""
        run.run(0, self.half)
        if self.half:
            run.prepare(self.half)
        self._write()

        def rest() -> None:
            run.run(self.half)
            settle(run)

        self.waiting = [rest]

    def then(self, work: Callable[[], None]) -> None:
        """What is to be written behind the last run."""
        self.waiting.append(work)

    def end(self, really: bool) -> None:
        """The tiles of the runs so far are given back, if so."""
        if really:
            self._write()
            self.forget()

    def forget(self) -> None:
        """The tiles of earlier runs are no longer there."""
        self.pools.clear()
        self.sums = Pool(self.kernel, self.kernel.target.partitions, 1, self.banks)

    def close(self) -> None:
        self._write()

    def _write(self) -> None:
        for work in self.waiting:
            work()
        self.waiting = []


def _bodies(kernel: Kernel, total: int, step: int, copies: int = 0) -> Iterator[list[tuple[Index, int]]]:
    """Pieces of 0..total, those together that are written one after the other and have tiles of their own. A single piece has
    no scope, so that its tiles rotate with those of what it is part of. copies: how many come together, as in Kernel.tiles."""
    if total <= step:
        yield [(0, total)]
        return
    copies = copies or kernel.copies.inner
    full, rest = divmod(total, step)
    rounds, single = divmod(full, copies)
    if rounds > 1:
        with kernel.loop(rounds) as index:
            yield [(index * (step * copies) + copy * step, step) for copy in range(copies)]
    else:
        single = full
    pieces: list[tuple[Index, int]] = [(piece * step, step) for piece in range(full - single, full)]
    pieces += [(full * step, rest)] * bool(rest)
    for first in range(0, len(pieces), copies):
        with kernel.scope():
            yield pieces[first:first + copies]


def _bodies_of_batches(kernel: Kernel, views: list[View], count: int) -> Iterator[list[list[View]]]:
    """Loops over the first `count` dimensions; lists of what is written one after the other in the innermost."""
    if count == 0:
        yield [views]
        return
    size = views[0].sizes[0]
    if size == 1:
        yield from _bodies_of_batches(kernel, [v.at(0, 0) for v in views], count - 1)
    elif all(n == 1 for n in views[0].sizes[1:count]):
        for body in _bodies(kernel, size, 1, kernel.copies.outer):
            yield [[_without(v.at(0, index), count - 1) for v in views] for index, _ in body]
    else:
        with kernel.loop(size) as index:
            yield from _bodies_of_batches(kernel, [v.at(0, index) for v in views], count - 1)


def _without(view: View, count: int) -> View:
    """A view without its first dimensions, so many, of size 1."""
    return view if count == 0 else _without(view.at(0, 0), count - 1)


def outer_loops(kernel: Kernel, views: list[View], count: int) -> Iterator[list[View]]:
    """Loops over the first `count` dimensions; in the innermost tiles rotate, so that the next batch loads during this one."""
    if count == 0:
        yield views
        return
    size = views[0].sizes[0]
    if count == 1 or all(n == 1 for n in views[0].sizes[1:count]):
        for index, _ in kernel.tiles(size, 1, outer=True):
            yield from outer_loops(kernel, [v.at(0, index) for v in views], count - 1)
        return
    with kernel.loop(size) as index:
        yield from outer_loops(kernel, [v.at(0, index) for v in views], count - 1)


class _Product:
    """Products of the groups of one run."""

    def __init__(self, batches: RowBatches, lefts: Mapping[Instruction, Sides], matrices: Mapping[Instruction, Sides]) -> None:
        self.kernel, self.lefts, self.matrices = batches.kernel, lefts, matrices
        self.scales = batches.program.plan.scales

    def __call__(self, dot: Instruction, left: Access | None, out: Access) -> None:
        kernel = self.kernel
        rows, groups, columns = out.sizes
        side, matrix = self.lefts.get(dot), self.matrices[dot]
        if side is None:
            assert left is not None
            side = sides(kernel, left.sizes[2], groups, rows, left.dtype, False)
            turn(kernel, left, side, scale=self.scales.get(dot, 1.0))
        for group in range(groups):
            if out.memory is Memory.PSUM:
                multiply(kernel, out.at(0, group), side, matrix, group, (0, rows), (0, columns))
                continue
            for start, size in kernel.tiles(columns, kernel.target.tensor.moving_max):
                bank = kernel.psum((rows, size))
                multiply(kernel, bank, side, matrix, group, (0, rows), (start, size))
                kernel.copy(out.at(0, group).cut(0, start, size), bank)


