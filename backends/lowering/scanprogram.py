"""Scan programs: a linear recurrence with what makes its coefficients and what becomes of its states, on the chip.

The region is a `fusion` whose frontend attribute SCAN tells which dimension of its root is time (see nxcc.ir.hlo.scanspace).
Rows lie on partitions, steps in time along them. A piece of time is done for all tiles of rows before the next one; the states
that it ends with stay on the chip. For each tile the states follow one another: coefficients, Vector's scan, and what is read
of it; the tensor engine adds up the sum over the states. What is the same for all rows is loaded for all partitions once a
piece. Products with an operand in PSUM take Vector half the time, so that recurrences and what many states share lie there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.lowering.pointwise.formulas import has_formula
from nxcc.backends.lowering.rows.plan import Plan, Step, plan_rows
from nxcc.backends.lowering.rows.values import Pool, Values
from nxcc.backends.lowering.tiling import loops, retyped, unfolded
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.diagnostics import OUT_OF_MEMORY, CompileError
from nxcc.ir.dtypes import F32
from nxcc.ir.hlo.marks import SCAN
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.hlo.rowspace import COLUMN, RowMap
from nxcc.ir.hlo.scanspace import STATE, scan_maps_of

SHARED_SHARE = 0.4
"""Part of SBUF for a piece of what is the same for all rows."""

LEAST_STEPS = 64
"""Steps of a piece of time at least, if there are so many."""

STATES_UNROLLED = 16
"""States that are written one after the other; more are looped over."""

RING = 2
"""Banks of PSUM that take turns, for each of their uses."""


def steps_last(instruction: Instruction, operands: Sequence[View | None]) -> Sequence[tuple[int, Sequence[int]]]:
    """No operand needs to lie in another way: what has its rows together is turned when it is loaded."""
    return ()


def lower_scan_program(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Write the tile program of a fused recurrence."""
    _Program(kernel, instruction.called[0], int(instruction.frontend_attributes[SCAN]), operands, results[0]).lower()


class _Phase(Enum):
    """When a step runs: once a tile of rows, before the states, for each state, behind them."""

    ROWS = 0
    BEFORE = 1
    STATES = 2
    BEHIND = 3


def _space(marks: RowMap) -> tuple[bool, bool]:
    return STATE in marks, COLUMN in marks


class _Program:
    """Facts of one region. sizes: rows, states, steps."""

    def __init__(self, kernel: Kernel, body: Computation, steps: int, operands: Sequence[View], result: View) -> None:
        self.kernel = kernel
        order = body.post_order()
        self.root = body.root
        maps = scan_maps_of(order, self.root, steps)
        assert maps is not None, f"{body.name} is no scan program"
        self.maps = maps
        self.plan: Plan = plan_rows(order, maps, [self.root], _space, sums=False)
        self.scan = next(i for i in order if i.opcode == "scan")
        self.reverse = bool(self.scan.attribute("is_reverse"))
        full = maps[self.scan]
        dims = self.scan.operands[0].shape.dims
        self.rows = [0] * (1 + max((m for m in full if m >= 0), default=0))
        for size, mark in zip(dims, full, strict=True):
            if mark >= 0:
                self.rows[mark] = size
        self.rows = [size or 1 for size in self.rows]
        self.states = next((size for size, mark in zip(dims, full, strict=True) if mark == STATE), 1)
        self.steps = next(size for size, mark in zip(dims, full, strict=True) if mark == COLUMN)
        self.phases = self._phases()
        names = [p for p in body.parameters if p in maps]
        views = [*(self._arranged(maps[p], operands[int(p.attributes["parameter_number"])]) for p in names),
                 self._arranged(maps[self.root], result)]
        views = self._joined(views)
        self.names, self.views, self.result = names, views[:-1], views[-1]

    def _arranged(self, marks: RowMap, view: View) -> View:
        """[rows.., states, steps], repeated along what the value lacks."""
        dims = [(0, size) for size in (*self.rows, self.states, self.steps)]
        for dim, mark in zip(view.dims, marks, strict=True):
            if mark != -2:
                dims[mark if mark >= 0 else -2 if mark == STATE else -1] = dim
        return replace(view, dims=tuple(dims))

    def _joined(self, views: list[View]) -> list[View]:
        """Neighbouring rows joined where all views allow it."""
        for d in range(len(self.rows) - 1, 0, -1):
            if all(v.dims[d - 1][0] == v.dims[d][0] * v.dims[d][1] for v in views):
                views = [replace(v, dims=(*v.dims[:d - 1], (v.dims[d][0], v.dims[d - 1][1] * v.dims[d][1]), *v.dims[d + 1:]))
                         for v in views]
        return views

    def _phases(self) -> dict[Instruction, _Phase]:
        """By the value of a step."""
        found: dict[Instruction, _Phase] = {}
        for step in self.plan.steps:
            states, steps = _space(self.maps[step.value])
            after = max((found.get(v, _Phase.ROWS).value for v in step.reads), default=0)
            if step.value.opcode == "reduce" or after == _Phase.BEHIND.value:
                found[step.value] = _Phase.BEHIND
            elif not steps:
                found[step.value] = _Phase.ROWS
            else:
                full = states or after == _Phase.STATES.value or step.value is self.scan
                found[step.value] = _Phase.STATES if full else _Phase.BEFORE
        return found

    def of_phase(self, phase: _Phase) -> list[Step]:
        """Steps but for the sum over the states."""
        return [step for step in self.plan.steps if self.phases[step.value] is phase and step.value.opcode != "reduce"]

    @property
    def summed(self) -> Instruction | None:
        """The sum over the states."""
        return next((step.value for step in self.plan.steps if step.value.opcode == "reduce"), None)

    # ---- loops --------------------------------------------------------------------------------------------------

    def lower(self) -> None:
        views = [*self.views, self.result]
        for cut in loops(self.kernel, views, len(views[0].dims) - 3):
            _Rows(self, cut[:-1], cut[-1]).lower()

    def width(self, shared: int) -> int:
        """Steps of a piece of time. shared: values with states and steps that are the same for all rows."""
        most = self.kernel.target.tensor.moving_max
        room = int(self.kernel.room.sbuf_bytes * SHARED_SHARE) // self.kernel.copies.outer
        each = shared * 4 * self.states
        width = min(most, room // each // LEAST_STEPS * LEAST_STEPS) if each else most
        if width < min(self.steps, LEAST_STEPS):
            raise CompileError(OUT_OF_MEMORY, f"{self.kernel.program.name} has {self.states} states a row")
        return min(width, self.steps)


class _Rows:
    """All tiles of rows of one matrix of them. views: [rows, states, steps] of operands; result: the same with one state."""

    def __init__(self, program: _Program, views: Sequence[View], result: View) -> None:
        self.program, self.kernel = program, program.kernel
        self.lanes = min(self.kernel.target.partitions, result.sizes[0])
        self.rows = result.sizes[0]
        self.result = result.at(1, 0)
        self.loaded = dict(zip(program.names, views, strict=True))
        timed = {name for name in program.names if COLUMN in program.maps[name]}
        self.shared = [name for name in program.names if name in timed and not self.loaded[name].dims[0][0] and self.rows > 1]
        self.moving = [name for name in program.names if name in timed and name not in self.shared]
        self.still = [name for name in program.names if name not in timed]
        self.width = program.width(sum(STATE in program.maps[name] for name in self.shared))
        self.tiles = -(-self.rows // self.lanes)
        kernel, bank = self.kernel, self.kernel.target.tensor.moving_max
        self.rings = {use: itertools.cycle([kernel.psum((self.lanes, bank)) for _ in range(RING)])
                      for use in ("before", "states", "sums", "turning")}
        self.identity = self._identity() if self._sums_on_pe() else None
        self.carry = kernel.sbuf((self.lanes, self.tiles, program.states), F32)

    def _sums_on_pe(self) -> bool:
        """Whether the tensor engine adds up the states: one that is no number would spread to other rows."""
        target = self.kernel.target
        exact = target.features.registers and Engine.GPSIMD in target.engines
        return self.program.summed is not None and exact and not self.kernel.exact_transposes

    def _identity(self) -> Access:
        """The identity matrix [rows, rows]."""
        kernel = self.kernel
        ones, tile = (kernel.sbuf((self.lanes, self.lanes), F32) for _ in range(2))
        kernel.memset(ones, 1.0)
        kernel.emit(isa.gpsimd.AFFINE_SELECT, fields={"base": expr(0), "channel_multiplier": 1, "steps": (-1,),
                                                      "compare": "equal", "fill": 0.0}, data=ones, out=tile)
        return tile

    def lower(self) -> None:
        program, kernel = self.program, self.kernel
        self._begin()
        for start, width in kernel.tiles(program.steps, self.width, outer=True):
            place = expr(program.steps - width) - start if program.reverse else start
            shared = {name: self._load_shared(name, place, width) for name in self.shared}
            for number, rows in self._row_tiles():
                self._tile(number, rows, place, width, shared)

    def _row_tiles(self) -> Iterator[tuple[Expr, int]]:
        """Numbers of tiles and their rows."""
        full, rest = divmod(self.rows, self.lanes)
        yield from ((number, self.lanes) for number, _ in self.kernel.tiles(full, 1))
        if rest:
            with self.kernel.scope():
                yield expr(full), rest

    def _begin(self) -> None:
        """States before the first step."""
        start = self.program.plan.shown.get(self.program.scan.operands[2], self.program.scan.operands[2])
        if start.opcode == "constant":
            self.kernel.memset(self.carry, float(start.attributes["literal"].splat_value))
            return
        for number, rows in self._row_tiles():
            known = self._still(number, rows)
            tile = known[start]
            states = tile.sizes[2]
            tile = tile if states == self.program.states else replace(tile, dims=(tile.dims[0], (0, self.program.states)))
            self.kernel.copy(self.carry.rows(0, rows).at(0, number), tile.at(0, 0))

    # ---- operands -----------------------------------------------------------------------------------------------

    def _load_shared(self, name: Instruction, start: Index, width: int) -> Access:
        """A piece of what is the same for all rows, [partitions, states, steps]."""
        kernel, view = self.kernel, self.loaded[name].at(0, 0).cut(1, start, width)
        view = view if STATE in self.program.maps[name] else view.cut(0, 0, 1)
        states, lanes = view.sizes[0], self.lanes
        tile = kernel.sbuf((lanes, states, width), view.dtype)
        if self._turns(view) and states <= kernel.target.partitions and self.identity is not None and view.dtype is F32:
            with kernel.scope():
                lying = kernel.sbuf((states, width), view.dtype)
                self._turn_in(lying, view)
                for state in range(states):
                    bank = next(self.rings["turning"]).cut(0, 0, width)
                    chosen = self.identity.rows(0, states).cut(0, state, 1)
                    kernel.matmul(bank, replace(chosen, dims=((0, lanes),)), lying, exact=True)
                    kernel.copy(tile.at(0, state), bank, Engine.SCALAR)
            return tile
        kernel.dma(unfolded(tile, view.insert(0, lanes)), view.insert(0, lanes))
        return tile

    def _load(self, name: Instruction, number: Expr, rows: int, start: Index, width: int) -> Access:
        """A piece of what rows have of their own: [rows, 1, steps], or with all states [rows, states, steps]."""
        kernel = self.kernel
        view = self.loaded[name].cut(0, number * self.lanes, rows).cut(2, start, width)
        view = view if STATE in self.program.maps[name] else view.cut(1, 0, 1)
        tile = kernel.sbuf((rows, view.sizes[1], width), view.dtype)
        if view.sizes[1] == 1 and self._turns(view.at(1, 0)):
            self._turn_in(tile.at(0, 0), view.at(1, 0))
        else:
            kernel.dma(unfolded(tile, view), view)
        return tile

    def _turns(self, view: View) -> bool:
        """Whether a view [rows, steps] is turned on the chip: it lies so, and the tensor engine takes its dtype."""
        return _lies_turned(view) and view.dtype.name in self.kernel.target.tensor.passes

    def _turn_in(self, tile: Access, view: View) -> None:
        """tile = a view [rows, steps] whose rows are neighbours in memory: it is turned by the tensor engine."""
        kernel, lanes = self.kernel, self.kernel.target.partitions
        rows, width = view.sizes
        for start in range(0, width, lanes):
            size = min(lanes, width - start)
            raw = kernel.sbuf((size, rows), view.dtype)
            part = view.cut(1, start, size).permute((1, 0))
            kernel.dma(unfolded(raw, part), part)
            bank = retyped(next(self.rings["turning"]), view.dtype).rows(0, rows).cut(0, 0, size)
            kernel.pe_transpose(bank, raw)
            kernel.copy(tile.cut(0, start, size), bank, Engine.SCALAR)

    def _store(self, tile: Access, view: View) -> None:
        """view [rows, steps] = tile; turned on the chip where rows are neighbours in memory."""
        kernel, lanes = self.kernel, self.kernel.target.partitions
        if not self._turns(view):
            kernel.dma(view, unfolded(tile, view))
            return
        for start in range(0, view.sizes[1], lanes):
            part = view.cut(1, start, min(lanes, view.sizes[1] - start))
            rows, size = part.sizes
            bank = retyped(next(self.rings["turning"]), tile.dtype).rows(0, size).cut(0, 0, rows)
            kernel.pe_transpose(bank, tile.flat().cut(0, start, size))
            turned = kernel.sbuf((size, rows), tile.dtype)
            kernel.copy(turned, bank, Engine.SCALAR)
            part = part.permute((1, 0))
            kernel.dma(part, unfolded(turned, part))

    # ---- one tile of rows, one piece of time --------------------------------------------------------------------

    def _still(self, number: Expr, rows: int) -> dict[Instruction, Access]:
        """What has no steps: [rows, 1, states], or one column."""
        kernel, program = self.kernel, self.program
        known: dict[Instruction, Access] = {}
        for name in self.still:
            view = self.loaded[name].cut(0, number * self.lanes, rows).at(2, 0)
            view = view if STATE in program.maps[name] else view.cut(1, 0, 1)
            known[name] = kernel.sbuf((rows, 1, view.sizes[1]), view.dtype)
            kernel.dma(unfolded(known[name], view), view)
        return self._run(_Phase.ROWS, rows, known, lambda i: program.states if STATE in program.maps[i] else 1)

    def _run(self, phase: _Phase, rows: int, known: Mapping[Instruction, Access], columns: Callable[[Instruction], int],
             places: Mapping[Instruction, Access] | None = None) -> dict[Instruction, Access]:
        """The steps of a phase; what is known then."""
        steps = self.program.of_phase(phase)
        values = Values(self.kernel, self.program.plan, Pool(self.kernel, rows, 1), columns, known, _none, 0, places)
        for step in steps:
            if step.value is self.program.scan:
                continue
            values.perform(step)
        return {name: tile for name, tile in values.tiles.items() if isinstance(tile, Access)}

    def _tile(self, number: Expr, rows: int, start: Index, width: int, shared: Mapping[Instruction, Access]) -> None:
        program, kernel, summed = self.program, self.kernel, self.program.summed
        known = self._still(number, rows)
        moving = {name: self._load(name, number, rows, start, width) for name in self.moving}
        common = {name: tile.rows(0, rows) for name, tile in shared.items()}

        def columns(value: Instruction) -> int:
            return width if COLUMN in program.maps[value] else 1

        whole = {name: tile for name, tile in {**moving, **common}.items() if tile.sizes[1] == 1}
        before = {step.value: self._bank("before", rows, width) for step in program.of_phase(_Phase.BEFORE)[-1:]
                  if step.dtype is F32 and self._is_multiplied(step.value)}
        known = self._run(_Phase.BEFORE, rows, {**known, **whole}, columns, before)
        by_state = {name: tile for name, tile in {**moving, **common}.items() if tile.sizes[1] > 1}
        total = self._total(rows, width)
        states = program.states
        unrolled = map(expr, range(states)) if states <= STATES_UNROLLED else self._looped(states)
        root = program.plan.shown.get(program.root, program.root)
        pools = itertools.cycle([Pool(kernel, rows, 1) for _ in range(RING)])
        for state in unrolled:
            own = {name: tile.cut(0, state, 1) for name, tile in by_state.items()}
            own.update({name: tile.cut(1, state, 1) if _space(program.maps[name]) == (True, False) else tile
                        for name, tile in known.items()})
            values = self._state(own, columns, next(pools), number, state)
            if summed is not None:
                self._add(values.whole(summed.operands[0]), total, state == expr(0))
                values.give_back()
            else:
                known = {**known, root: values.whole(program.root)}
        if summed is not None:
            assert total is not None
            known = self._run(_Phase.BEHIND, rows, {**known, summed: total.insert(0, 1)}, columns)
        self._finish(known, number, rows, start, width)

    def _looped(self, states: int) -> Iterator[Expr]:
        """The first state, which opens the sum, and a loop over the others."""
        yield expr(0)
        yield from (number + 1 for number, _ in self.kernel.tiles(states - 1, 1))

    def _finish(self, known: Mapping[Instruction, Access], number: Expr, rows: int, start: Index, width: int) -> None:
        program, kernel = self.program, self.kernel
        tile = known[program.plan.shown.get(program.root, program.root)]
        if tile.memory is Memory.PSUM or tile.dtype is not program.root.shape.dtype:
            out = kernel.sbuf(tile.sizes, program.root.shape.dtype)
            kernel.copy(out, tile, Engine.SCALAR)
            tile = out
        self._store(tile.at(0, 0), self.result.cut(0, number * self.lanes, rows).cut(1, start, width))

    def _is_multiplied(self, value: Instruction) -> bool:
        """Whether only formulas read a value, so that it may lie in PSUM."""
        return all(all(map(has_formula, step.members)) for step in self.program.plan.readers.get(value, []))

    def _bank(self, use: str, rows: int, width: int) -> Access:
        return next(self.rings[use]).rows(0, rows).cut(0, 0, width).insert(0, 1)

    def _total(self, rows: int, width: int) -> Access | None:
        if self.program.summed is None:
            return None
        if self.identity is not None:
            return next(self.rings["sums"]).rows(0, rows).cut(0, 0, width)
        return self.kernel.sbuf((rows, width), F32)

    def _add(self, term: Access, total: Access | None, is_first: bool) -> None:
        """total += term."""
        kernel, term = self.kernel, term.at(0, 0)
        assert total is not None
        rows, width = total.partitions, total.free
        if self.identity is None:
            if is_first:
                kernel.copy(total, term)
            else:
                kernel.tensor_tensor(total, total, term, "add")
            return
        if term.memory is Memory.PSUM or any(stride == 0 for stride, size in term.dims if size > 1):
            aside = kernel.sbuf((rows, width), F32)
            kernel.copy(aside, term, Engine.SCALAR)
            term = aside
        kernel.matmul(total, self.identity.rows(0, rows).cut(0, 0, rows), term, accumulate=not is_first, exact=True)

    def _state(self, known: Mapping[Instruction, Access], columns: Callable[[Instruction], int], pool: Pool, number: Expr,
               state: Expr) -> Values:
        """The steps of one state."""
        program, kernel = self.program, self.kernel
        values = Values(kernel, program.plan, pool, columns, known, _none, 0)
        for step in program.of_phase(_Phase.STATES):
            if step.value is program.scan:
                self._recurrence(values, step, number, state)
            else:
                values.perform(step)
        return values

    def _recurrence(self, values: Values, step: Step, number: Expr, state: Expr) -> None:
        program, kernel = self.program, self.kernel
        factors, terms = (values.whole(operand) for operand in step.value.operands[:2])
        rows, width = factors.partitions, factors.sizes[2]
        out = self._bank("states", rows, width) if self._is_multiplied(step.value) and program.plan.results.isdisjoint(
            (step.value,)) else kernel.sbuf((rows, 1, width), F32)
        carry = self.carry.rows(0, rows).at(0, number).cut(0, state, 1)
        a, b, h = (_ordered(tile.at(0, 0), program.reverse) for tile in (factors, terms, out))
        kernel.emit(isa.vector.TENSOR_TENSOR_SCAN, fields={"op0": "multiply", "op1": "add"}, a=a, b=b, out=h, initial=carry)
        if self.width < program.steps:
            kernel.copy(carry, h.cut(0, width - 1, 1), Engine.SCALAR)
        values.tiles[step.value] = out
        for value in step.reads:
            if program.plan.last[value] is step and value not in values.given:
                values.pool.give_back(values.tiles.pop(value))


def _ordered(tile: Access, reverse: bool) -> Access:
    size = tile.sizes[1]
    return tile.cut(0, size - 1, size, -1) if reverse else tile


def _lies_turned(view: View) -> bool:
    """Whether neighbours along the first dimension, not along the second, lie together. view: [rows, steps]."""
    (row, rows), (step, steps) = view.dims
    return row == view.dtype.byte_size and rows > 1 and steps > 1 and step != row


def _none(dot: Instruction, left: Access | None, out: Access) -> None:
    raise AssertionError(f"{dot} is no part of a recurrence")
