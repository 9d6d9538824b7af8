"""Row programs with long rows and a matrix for each of many: attention over many keys, softmax of a batch of products.

A tile of rows holds its long values whole, and goes through stages: each ends where a reduction over the columns, or a product
that sums over them, has seen all of them. Stages are cut into pieces of columns. While one tile of rows is in its last
stage the next is in the stage before, and so on, piece by piece, so that all engines have work; each of these tiles has memory
of its own, a slot.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.emission import HABIT, Made
from nxcc.backends.lowering.reduction import combiner
from nxcc.backends.lowering.rows.batches import outer_loops
from nxcc.backends.lowering.rows.plan import Step
from nxcc.backends.lowering.rows.products import Sides, bring, bring_blocks, is_turned, multiply, sides
from nxcc.backends.lowering.rows.program import RowProgram
from nxcc.backends.lowering.rows.values import Pool, Values
from nxcc.backends.lowering.rows.wide_course import Course, Stage, crossing_values, product_left
from nxcc.backends.lowering.rows.wide_work import Slot, Work
from nxcc.backends.lowering.tiling import retyped, unfolded
from nxcc.backends.tile.expressions import Expr, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.diagnostics import OUT_OF_MEMORY, CompileError
from nxcc.ir.dtypes import F32
from nxcc.ir.hlo.module import Instruction

PIECE_BANKS = 2
"""Banks of PSUM of a piece of a product's columns; two pieces take turns."""

TURNING_BANKS = 2
"""Banks for squares of a left side that is turned piece by piece."""

RING = 2
"""Pieces of a long value that are there at a time, where it is not kept."""

SQUARE_SETS = 3
"""Tiles in SBUF for the squares of so many pieces that are turned."""


class RowWide:
    """Loops over batches; in each, tiles of rows go through the stages."""

    def __init__(self, program: RowProgram, course: Course) -> None:
        self.program, self.kernel, self.stages, self.is_kept = program, program.kernel, course.stages, course.is_kept
        stages = self.stages
        self.turns = len(stages) if self.is_kept else len(stages) + 1
        lanes, bank = self.kernel.target.partitions, self.kernel.target.tensor.moving_max
        self.width = max(program.columns(dot, None) for dot in program.dots)
        self.firsts = [dot for dot in program.dots if program.columns(dot, None) == self.width]
        piece = PIECE_BANKS * bank
        self.pieces = [(start, min(piece, self.width - start)) for start in range(0, self.width, piece)]
        crossing = crossing_values(program, stages)
        self.crossing = {value: row for value, row in crossing.items() if self.is_kept or row[0] != self.width}
        later = {value for stage in stages[1:] for step in (*stage.rows, *stage.wide, *stage.products, *stage.later)
                 for value in step.reads}
        shown = {program.plan.shown.get(root, root) for root in program.roots}
        self.early = {i.instruction for i in program.inputs} - later - shown
        if self.kernel.room.sbuf_bytes < self.kernel.target.sbuf.usable_bytes:
            raise CompileError(OUT_OF_MEMORY, f"{self.kernel.program.name} has long rows: it takes the whole machine")
        self.sums = itertools.cycle([self.kernel.psum((lanes, piece)) for _ in range(2)])
        self.turning = itertools.cycle([self.kernel.psum((lanes, bank)) for _ in range(TURNING_BANKS)])
        self.aside = self.kernel.psum((lanes, bank))
        self.totals = self.kernel.psum((lanes, bank))
        raw = self.kernel.target.psum.bank_bytes
        self.squares = [[self.kernel.sbuf((lanes, raw // 4), F32) for _ in range(PIECE_BANKS)] for _ in range(SQUARE_SETS)]
        self.closes_later = bool(stages[-1].products) and not self._reads_given(stages[-1].later) and all(
            program.columns(root, None) < self.width for root in program.roots)

    def _reads_given(self, steps: Sequence[Step]) -> bool:
        """Whether steps, or results, are operands that are loaded for each tile of rows."""
        given = {i.instruction for i in self.program.inputs}
        shown = {self.program.plan.shown.get(root, root) for root in self.program.roots}
        return not given.isdisjoint(shown) or any(value in given for step in steps for value in step.reads)

    def lower(self) -> None:
        program, batch = self.program, self.program.batch
        views, count = program.join_rows([*(i.view for i in program.inputs), *program.outputs,
                                          *(program.left(source) for source in program.lefts.values())], batch)
        if count == batch:
            views, count = [v.insert(batch) for v in views], count + 1
        matrices = [program.side(dot) for dot in program.dots]
        for d in range(batch, count - 1):
            matrices = [v.insert(d, views[0].sizes[d]) for v in matrices]
        for cut in outer_loops(self.kernel, [*views, *matrices], count - 1):
            Batch(self, cut[:len(views)], dict(zip(program.dots, cut[len(views):], strict=True))).lower()


class Batch:
    """The tiles of rows of one matrix. views: [rows, columns..] of operands, results and left sides; matrices: [k, columns]."""

    def __init__(self, wide: RowWide, views: Sequence[View], matrices: Mapping[Instruction, View]) -> None:
        self.wide, self.program, self.kernel = wide, wide.program, wide.kernel
        inputs, outputs = len(self.program.inputs), len(self.program.outputs)
        self.inputs = dict(zip((i.instruction for i in self.program.inputs), views, strict=False))
        self.outputs = dict(zip(self.program.roots, views[inputs:], strict=False))
        self.lefts = dict(zip(self.program.lefts, views[inputs + outputs:], strict=True))
        self.rows = views[0].sizes[0]
        self.matrices = {dot: self._matrix(view) for dot, view in matrices.items()}
        lanes = self.kernel.target.partitions
        self.fixed = {value: self._fixed(view, min(lanes, self.rows)) for value, view in self.inputs.items()
                      if not view.dims[0][0]}
        self.rings = [self._rings(stage) for stage in wide.stages]

    def _fixed(self, view: View, rows: int) -> Access:
        """An operand that is the same for all rows."""
        tile = self.kernel.sbuf((rows, 1, view.elements // view.sizes[0]), view.dtype)
        part = view.cut(0, 0, rows)
        self.kernel.dma(unfolded(tile, part), part)
        return tile

    def _matrix(self, view: View) -> Sides:
        """A matrix [k, columns] with k on partitions; one whose neighbours lie along k comes in one transfer and is turned."""
        kernel, lanes = self.kernel, self.kernel.target.partitions
        depth, columns = view.sizes
        if not is_turned(view) or depth > lanes:
            with kernel.psum_scope():
                return bring(kernel, view.insert(0), False)
        to = sides(kernel, depth, 1, columns, view.dtype, False)
        with kernel.scope():
            blocks, rest = divmod(columns, lanes)
            raw = kernel.sbuf((lanes, blocks + bool(rest), depth), view.dtype)
            lying = view.permute((1, 0))
            full = lying.cut(0, 0, blocks * lanes).reshape((blocks, lanes, depth))
            assert full is not None
            kernel.dma(raw.cut(0, 0, blocks), full.permute((1, 0, 2)))
            if rest:
                kernel.dma(raw.at(0, blocks).rows(0, rest), lying.cut(0, blocks * lanes, rest))
            self._turn(lambda number, size: raw.at(0, number).rows(0, size), to.tile.at(0, 0), depth, columns)
        return to

    def _turn(self, raw: Callable[[int, int], Access], to: Access, depth: int, columns: int) -> None:
        """to [depth, columns] = blocks of so many columns as there are partitions, turned; each bank takes several."""
        kernel, lanes = self.kernel, self.kernel.target.partitions
        per = kernel.target.psum.bank_bytes // (lanes * to.dtype.byte_size)
        for start in range(0, columns, per * lanes):
            size = min(per * lanes, columns - start)
            bank = retyped(next(self.wide.turning), to.dtype).rows(0, depth).cut(0, 0, size)
            for at in range(0, size, lanes):
                kernel.pe_transpose(bank.cut(0, at, min(lanes, size - at)),
                                    raw((start + at) // lanes, min(lanes, size - at)))
            self.copy(to.cut(0, start, size), bank)

    def copy(self, out: Access, data: Access, scale: float = 1.0, by: Engine = Engine.VECTOR) -> None:
        """out = data * scale by an engine, unless that has much more to do than the other."""
        if self.kernel.scalar_is_idler(data.free, HABIT if by is Engine.SCALAR else -HABIT):
            self.kernel.activation(out, data, scale=scale)
        elif scale == 1:
            self.kernel.copy(out, data)
        else:
            self.kernel.tensor_scalar(out, data, "multiply", scale)

    # ---- tiles of rows ------------------------------------------------------------------------------------------

    def lower(self) -> None:
        lanes = self.kernel.target.partitions
        full, rest = divmod(self.rows, lanes)
        stages = len(self.wide.stages)
        if full:
            with self.kernel.scope():
                self._pipeline(full, stages)
        if rest:
            with self.kernel.scope():
                slot = self._slot(0, rest)
                self._load_early(slot, expr(full), rest)
                for stage in range(stages):
                    work = Work(self, stage, slot, expr(full), rest)
                    for index in range(len(self.wide.pieces)):
                        work.piece(index)
                        work.multiply(index - 1)
                    work.close()

    def _pipeline(self, count: int, stages: int) -> None:
        """All full tiles of rows: at each time a tile is in each of the stages, whose pieces are written in turn."""
        lanes = self.kernel.target.partitions
        turns = self.wide.turns
        slots = [self._slot(number, lanes) for number in range(min(turns, count))]
        rounds = (count - 1 - stages) // turns if count > 3 * turns else 0
        self._load_early(slots[0], expr(0), lanes)
        for time in range(stages):
            with self.kernel.scope():
                self._at(slots, expr(time), time, self._busy(time, count), time + 1 < count)
        if rounds:
            with self.kernel.loop(rounds) as index:
                for step in range(stages, stages + turns):
                    self._at(slots, index * turns + step, step, self._busy(stages, count), True)
        for time in range(stages + rounds * turns, count + stages):
            with self.kernel.scope():
                self._at(slots, expr(time), time, self._busy(time, count), time + 1 < count)

    def _busy(self, time: int, count: int) -> list[int]:
        """Stages that have one of `count` tiles at a time; the last stage comes first, since what it waits for is done. The
        stage behind the last one is what closes that."""
        last = len(self.wide.stages) - 1
        return [stage for stage in (last, *range(last), last + 1) if 0 <= time - stage < count]

    def _at(self, slots: Sequence[Slot], time: Expr, step: int, busy: Sequence[int], goes_on: bool) -> None:
        """What is done at a time, piece by piece. step: a number that leaves as much as the time when divided by the slots;
        goes_on: another tile comes after."""
        stages, turns, lanes = len(self.wide.stages), self.wide.turns, self.kernel.target.partitions
        works = {stage: Work(self, min(stage, stages - 1), slots[(step - stage) % turns], time - stage, lanes)
                 for stage in busy}
        before = works.pop(stages, None)
        for index in range(len(self.wide.pieces)):
            for stage in works:
                works[stage].piece(index)
            if index == 0 and goes_on:
                self._load_early(slots[(step + 1) % turns], time + 1, lanes)
            if index == 0 and before is not None and self.wide.closes_later:
                before.close()
            for work in works.values():
                work.multiply(index - 1)
        for stage in sorted(works):
            if stage < stages - 1 or not self.wide.closes_later:
                works[stage].close()

    def _slot(self, number: int, rows: int) -> Slot:
        kernel = self.kernel
        places = self._places(rows)
        raws, sides_ = {}, {}
        for dot in self.wide.firsts:
            dtype = dot.operands[1].shape.dtype
            sides_[dot] = sides(kernel, self.matrices[dot].depth, 1, rows, dtype, False)
            if dot in self.lefts:
                raws[dot] = kernel.sbuf((rows, 1, self.matrices[dot].depth), dtype)
        given = {value: kernel.sbuf((rows, 1, view.elements // view.sizes[0]), view.dtype)
                 for value, view in self.inputs.items() if value not in self.fixed}
        return Slot(number, places, raws, sides_, given, [self._partials(stage, rows) for stage in self.wide.stages])

    def _places(self, rows: int) -> dict[Instruction, Access]:
        """Memory of the crossing values; one that is made from another of its size for the last time is written over it, but
        for results, which are stored while the next tile of rows is there."""
        plan = self.program.plan
        places: dict[Instruction, Access] = {}
        sizes = self.wide.crossing
        taken: set[Instruction] = set()
        for step in (step for stage in self.wide.stages for step in (*stage.rows, *stage.wide)):
            if sizes.get(step.value, (0, F32))[0] == self.wide.width:
                over = next((v for v in step.reads if v in places and plan.results.isdisjoint((v, step.value))
                             and plan.last[v] is step and v not in taken and sizes[v] == sizes[step.value]), None)
                taken |= {over} if over is not None else set()
                places[step.value] = places[over] if over is not None else self._fresh(rows, step.value)
        return {**{value: self._fresh(rows, value) for value in sizes if value not in places}, **places}

    def _fresh(self, rows: int, value: Instruction) -> Access:
        columns, dtype = self.wide.crossing[value]
        return self.kernel.sbuf((rows, 1, columns), dtype)

    # ---- stages -------------------------------------------------------------------------------------------------

    def load(self, slot: Slot, number: Expr, rows: int, early: bool) -> None:
        """Operands of a tile of rows: early those that the first stage alone reads, the others when the slot is free."""
        start = number * self.kernel.target.partitions
        for value, tile in slot.given.items():
            if (value in self.wide.early) is early:
                part = self.inputs[value].cut(0, start, rows)
                self.kernel.dma(unfolded(tile, part), part)

    def _load_early(self, slot: Slot, number: Expr, rows: int) -> None:
        """Left sides, and operands of the first stage."""
        kernel, start = self.kernel, number * self.kernel.target.partitions
        self.load(slot, number, rows, True)
        for dot, left in self.lefts.items():
            part, side, scale = left.cut(0, start, rows), slot.sides[dot], self.program.plan.scales.get(dot, 1.0)
            if is_turned(part.permute((1, 0))) or rows == 1:
                kernel.dma(unfolded(slot.raws[dot], part), part)
                self._turn_left(slot.raws[dot], side, scale)
            else:
                bring_blocks(kernel, part.permute((1, 0)).insert(0), side)
                if scale != 1:
                    self.copy(side.tile, side.tile, scale)

    def turn_computed(self, slot: Slot, steps: Sequence[Step]) -> None:
        """Left sides that were made here, for a stage's products."""
        for step in steps:
            if step.value in slot.sides and step.value not in self.lefts:
                left = self.program.plan.shown.get(step.value.operands[0], step.value.operands[0])
                self._turn_left(slot.places[left], slot.sides[step.value], self.program.plan.scales.get(step.value, 1.0))

    def _turn_left(self, raw: Access, side: Sides, scale: float) -> None:
        lanes = self.kernel.target.partitions
        rows, _, depth = raw.sizes
        for block in range(0, depth, lanes):
            size = min(lanes, depth - block)
            bank = retyped(self.wide.aside, raw.dtype).rows(0, size).cut(0, 0, rows)
            self.kernel.pe_transpose(bank, raw.at(0, 0).cut(0, block, size))
            self.copy(side.tile.at(0, block // lanes).rows(0, size), bank, scale)

    def _known(self, slot: Slot, rows: int) -> dict[Instruction, Access]:
        """Operands and crossing values."""
        fixed = {value: tile.rows(0, rows) for value, tile in self.fixed.items()}
        return {**fixed, **slot.given, **slot.places}

    def _values(self, known: Mapping[Instruction, Access], steps: Sequence[Step], columns: Callable[[Instruction], int],
                made: Made | None = None) -> Values:
        own = {value for step in steps for value in (step.value, step.total) if value is not None}
        given = {value: tile for value, tile in known.items() if value not in own}
        places = {value: tile for value, tile in known.items() if value in own}
        rows = next(iter(known.values())).partitions
        return Values(self.kernel, self.program.plan, Pool(self.kernel, rows, 1), columns, given, _none, 0, places, made)

    def run(self, slot: Slot, steps: Sequence[Step], rows: int) -> None:
        """Steps on whole values."""
        if steps:
            values = self._values(self._known(slot, rows), steps, lambda i: self.program.columns(i, None))
            for step in steps:
                values.perform(step)

    def piece(self, slot: Slot, stage: int, rows: int, index: int, made: Made) -> dict[Instruction, Access]:
        """Steps of a stage on one piece of the columns; the pieces of the long values that are known then."""
        steps, partials = self.wide.stages[stage].wide, slot.partials[stage]
        start, size = self.wide.pieces[index]
        width, program = self.wide.width, self.program
        known = {value: tile.cut(1, start, size) if tile.sizes[2] == width else tile
                 for value, tile in self._known(slot, rows).items()}
        known.update({value: tile.cut(1, index, 1) for value, tile in partials.items()})
        known.update({value: tiles[index % RING].rows(0, rows).cut(1, 0, size) for value, tiles in self.rings[stage].items()})
        values = self._values(known, steps,
                              lambda i: size if program.columns(i, None) == width else program.columns(i, None), made)
        for step in steps:
            if step.value.opcode == "dot":
                values.tiles[step.value] = self._product(slot, step, rows, start, size, values)
            else:
                values.perform(step)
        return {**known, **{value: tile for value, tile in values.tiles.items() if isinstance(tile, Access)}}

    def _rings(self, stage: Stage) -> dict[Instruction, list[Access]]:
        """Tiles for pieces of the values of a stage that keeps none; what is read for the last time is written over."""
        if self.wide.is_kept:
            return {}
        lanes, columns = min(self.kernel.target.partitions, self.rows), self.wide.pieces[0][1]
        last = {value: step for step in stage.wide for value in step.reads}
        lefts = {product_left(self.program, step.value) for step in stage.products}
        found: dict[Instruction, list[Access]] = {}
        for step in stage.wide:
            if step.value.opcode in ("dot", "reduce"):
                continue
            over = next((v for v in step.reads if v in found and last[v] is step and v not in lefts
                         and found[v][0].dtype is step.dtype), None)
            found[step.value] = found[over] if over is not None else [
                self.kernel.sbuf((lanes, 1, columns), step.dtype) for _ in range(RING)]
        return found

    def _product(self, slot: Slot, step: Step, rows: int, start: int, size: int, values: Values) -> Access:
        """A piece of a product's columns; in PSUM, unless it is read later."""
        bank = next(self.wide.sums).rows(0, rows).cut(0, 0, size)
        multiply(self.kernel, bank, slot.sides[step.value], self.matrices[step.value], 0, (0, rows), (start, size))
        place = values.places.get(step.value)
        if place is None:
            return bank.insert(0, 1)
        self.copy(place.at(0, 0), bank, by=Engine.SCALAR)
        return place

    def _partials(self, parts: Stage, rows: int) -> dict[Instruction, Access]:
        """Room for what reductions and sums make of each piece."""
        count = len(self.wide.pieces)
        names = [name for step in parts.wide for name in (step.total, step.value if step.value.opcode == "reduce" else None)
                 if name is not None]
        return {name: self.kernel.sbuf((rows, 1, count), F32) for name in names} if count > 1 else {}

    def join(self, slot: Slot, partials: Mapping[Instruction, Access]) -> None:
        """Reductions and sums of all pieces from those of each."""
        for name, tile in partials.items():
            op = combiner(name.called[0])
            assert op is not None
            self.kernel.tensor_reduce(slot.places[name].at(1, 0), tile, op)

    def store(self, slot: Slot, number: Expr, rows: int) -> None:
        values = self._values(self._known(slot, rows), (), lambda i: self.program.columns(i, None))
        for root, view in self.outputs.items():
            part = view.cut(0, number * self.kernel.target.partitions, rows)
            self.kernel.dma(part, unfolded(values.result(root), part))


def _none(dot: Instruction, left: Access | None, out: Access) -> None:
    raise AssertionError(f"{dot} is a product of a stage")
