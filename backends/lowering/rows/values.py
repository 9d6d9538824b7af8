"""Runs the steps of a row program on one tile of rows, or on several `groups` of rows in step.

Every value is a tile [rows, groups, columns], or [rows, groups, 1] where all columns are equal, or a number. Groups are worked
on by one instruction where no operand differs from row to row, else one after the other, so that engines always have another
group's work while they wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.lowering.emission import Made, emit_columns, emit_groups
from nxcc.backends.lowering.pointwise.formulas import Tile, compose, emits, has_formula
from nxcc.backends.lowering.reduction import combiner, emit_row_reduce
from nxcc.backends.lowering.rows.plan import Plan, Step
from nxcc.backends.lowering.terms import Span, Term, input_term
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import expr
from nxcc.backends.tile.program import Access, contiguous
from nxcc.ir.dtypes import F32, DType
from nxcc.ir.hlo.combiners import IDENTITIES
from nxcc.ir.hlo.module import Instruction

STATISTICS_COLUMNS = 512
"""Columns that one instruction takes the mean and variance of, at most."""

Product = Callable[[Instruction, Access | None, Access], None]
"""product(dot, left, sums): write the dot's sums [rows, groups, columns]; left: the left side, if it was computed here."""


class Pool:
    """Tiles of SBUF and PSUM for values; those given back are used again for values of the same size."""

    def __init__(self, kernel: Kernel, rows: int, groups: int, banks: Sequence[Access] = (),
                 shares: Pool | None = None, spare: int = 0, lends: bool = False) -> None:
        """banks: tiles of PSUM that may be used; shares: another pool whose PSUM this one uses too; spare: banks of PSUM up to
        which sums get fresh ones, so that the next product need not wait until the last one's sums are read; lends: whether
        temporaries of elementwise work may lie where sums were read, since the next product waits for that work anyway."""
        self.spare, self.lends = spare, lends
        self.kernel, self.rows, self.groups = kernel, rows, groups
        self._free: dict[tuple[int, DType], list[Access]] = {}
        self._banks: dict[int, list[Access]] = shares._banks if shares is not None else {}
        for tile in banks:
            self.give_back(tile.rows(0, rows))

    def take(self, columns: int, dtype: DType) -> Access:
        free = self._free.get((columns, dtype))
        return free.pop(0) if free else self.kernel.sbuf((self.rows, self.groups, columns), dtype)

    def take_sums(self, columns: int) -> Access:
        """[rows, groups, columns] of f32 in PSUM; no group's columns cross a bank where they fit into one."""
        pitch = sums_pitch(self.kernel, columns)
        banks = sums_banks(self.kernel, columns, self.groups)
        free = self._banks.get(banks)
        if free and self.spare < banks:
            tile = free.pop(0)
        else:
            self.spare -= banks
            tile = self.kernel.psum((self.rows, self.groups, pitch), F32)
        return replace(tile, partitions=self.rows, dims=((pitch, self.groups), (1, columns)))

    @contextmanager
    def lending(self) -> Iterator[None]:
        """What was given back last of PSUM is for temporaries of the work written inside."""
        free = max(self._banks.values(), key=lambda tiles: tiles[-1].free if tiles else 0, default=[])
        if not (self.lends and free and self.groups == 1):
            yield
            return
        outer, self.kernel.banks = self.kernel.banks, [free[-1].flat()]
        yield
        self.kernel.banks = outer

    def give_back(self, tile: Tile) -> None:
        if not isinstance(tile, Access) or not all(stride for stride, size in tile.dims if size > 1):
            return
        if tile.memory is Memory.PSUM:
            self._banks.setdefault(sums_banks(self.kernel, tile.sizes[2], self.groups), []).append(tile)
        else:
            self._free.setdefault((tile.sizes[2], tile.dtype), []).append(tile)


def starts_neutral(reduce: Instruction) -> bool:
    """Whether a reduction begins with a number that changes nothing, so that it may begin again for each piece."""
    op, initial = combiner(reduce.called[0]), reduce.operands[1]
    if op not in IDENTITIES or initial.opcode != "constant" or not initial.attributes["literal"].is_splat:
        return False
    return float(initial.attributes["literal"].splat_value) == IDENTITIES[op]


def sums_pitch(kernel: Kernel, columns: int) -> int:
    """f32 elements from one group's sums to the next's: a power of two up to a bank, else whole banks."""
    bank = kernel.target.tensor.moving_max
    if columns > bank:
        return -(-columns // bank) * bank
    return 1 << (columns - 1).bit_length() if bank & (bank - 1) == 0 else bank


def sums_banks(kernel: Kernel, columns: int, groups: int) -> int:
    """Banks of PSUM for the sums of so many groups."""
    return -(-sums_pitch(kernel, columns) * groups // kernel.target.tensor.moving_max)


class Values:
    """The values of one run of a plan.

    columns: how many a value has in this run. given: tiles of parameters. product: see Product; sums_max: banks of PSUM
    that sums may take, wider ones are brought to SBUF piece by piece by the product itself. places: where results are
    wanted. made: see emit_groups; for columns of operands that do not change.
    """

    def __init__(self, kernel: Kernel, plan: Plan, pool: Pool, columns: Callable[[Instruction], int],
                 given: Mapping[Instruction, Access], product: Product, sums_max: int,
                 places: Mapping[Instruction, Access] | None = None, made: Made | None = None) -> None:
        self.kernel, self.plan, self.pool = kernel, plan, pool
        self.columns, self.product, self.sums_max = columns, product, sums_max
        self.tiles: dict[Instruction, Tile] = dict(given)
        self.given = frozenset(given)
        self.places = places or {}
        self.made = made
        self.ahead: dict[Instruction, Made] = {}

    def prepare(self, number: int) -> None:
        """Write what a step that computes columns needs a row at a time; all that it reads is there."""
        step = self.plan.steps[number]
        columns = self.columns(step.value)
        if step.value.opcode in _RUN or step.squares or columns == 1 or not _has_formula(step) or self._whole_operand(step):
            return
        found = self._term(step)
        assert found is not None
        like = Access(Memory.SBUF, step.dtype, 0, self.pool.rows, expr(0), contiguous((self.pool.groups, columns)))
        made = self.ahead[step.value] = {}
        emit_columns(self.kernel, *found, like, made)

    def run(self, first: int = 0, last: int | None = None) -> None:
        """Run the steps, or some of them."""
        for step in self.plan.steps[first:last]:
            self.perform(step)

    def perform(self, step: Step) -> None:
        """Run one step, and give back what nobody reads after it."""
        _RUN.get(step.value.opcode, Values._compute)(self, step)
        for value in step.reads:
            if self.plan.last[value] is step and value not in self.plan.results and value not in self.given \
                    and value in self.tiles:
                tile = self.tiles.pop(value)
                if tile is not self.tiles[step.value]:
                    self.pool.give_back(tile)

    def whole(self, name: Instruction) -> Access:
        """The tile of a value, by any of its names, with all its columns; repetition is a stride of 0."""
        return self._whole(self.plan.shown.get(name, name), name)

    def give_back(self) -> None:
        """Nobody reads any value of this run any more."""
        for value, tile in self.tiles.items():
            if value not in self.given and value not in self.places:
                self.pool.give_back(tile)

    def result(self, root: Instruction) -> Access:
        """A result's tile in SBUF, with all its columns."""
        value = self.plan.shown.get(root, root)
        tile = self._whole(value, root)
        if tile.memory is Memory.SBUF and tile.dtype is root.shape.dtype:
            return tile
        out = self.pool.take(self.columns(root), root.shape.dtype)
        self._copy(out, tile)
        return out

    def _copy(self, out: Access, data: Access) -> None:
        """A copy with cast of floats by the engine that has less to do; of anything else by Vector."""
        scalar = out.dtype.is_float and data.dtype.is_float and self.kernel.scalar_is_idler(out.free)
        self.kernel.copy(out, data, Engine.SCALAR if scalar else Engine.VECTOR)

    def settle(self, root: Instruction, place: Access) -> None:
        """Bring a result to its place, if it was not computed there."""
        tile = self._whole(self.plan.shown.get(root, root), root)
        if (tile.memory, tile.offset, tile.dims) != (place.memory, place.offset, place.dims):
            self._copy(place, tile)

    def _take(self, step: Step, columns: int) -> Access:
        """A tile of SBUF for a step's value: its place, if it has one of this size."""
        place = self.places.get(step.value)
        if place is not None and place.sizes[2] == columns and place.dtype is step.dtype:
            return place
        return self.pool.take(columns, step.dtype)

    def _tile(self, value: Instruction) -> Tile:
        if value.opcode == "constant" and value not in self.tiles:
            number: float = value.attributes["literal"].splat_value.item()
            return number
        return self.tiles[value]

    def _whole(self, value: Instruction, name: Instruction) -> Access:
        """A value as a tile with the columns of what it is called; repetition is a stride of 0."""
        columns = self.columns(name)
        tile = self._tile(value)
        if not isinstance(tile, Access):
            number, tile = tile, self.pool.take(columns, name.shape.dtype)
            self.kernel.memset(tile, number)
        if tile.sizes[2] == columns:
            return tile
        return replace(tile, dims=(tile.dims[0], (0, columns)))

    # ---- steps --------------------------------------------------------------------------------------------------

    def _reduce(self, step: Step) -> None:
        instruction = step.value
        if step.spread is not None:
            self._statistics(step)
            return
        data = self._whole(self.plan.shown.get(instruction.operands[0], instruction.operands[0]), instruction.operands[0])
        out = self._take(step, 1)
        op = combiner(instruction.called[0])
        if op is not None and starts_neutral(instruction) and data.dtype.is_float and step.dtype is F32:
            self.kernel.tensor_reduce(out.at(1, 0), data, op)
        else:
            for group in range(self.pool.groups):
                emit_row_reduce(self.kernel, instruction, data.at(0, group), out.at(0, group))
        self.tiles[instruction] = out

    def _statistics(self, step: Step) -> None:
        """A sum, and the sum of squared differences from the mean, from one pass over the data."""
        assert step.spread is not None
        data = self._whole(step.reads[0], step.value.operands[0])
        columns, most = data.sizes[2], STATISTICS_COLUMNS
        pieces = -(-columns // most)
        stats = self.pool.take(6 * pieces, F32)
        found = self.pool.take(2, F32)
        for group in range(self.pool.groups):
            for piece in range(pieces):
                size = min(most, columns - piece * most)
                self.kernel.bn_stats(stats.at(0, group).cut(0, 6 * piece, 6), data.at(0, group).cut(0, piece * most, size))
            self.kernel.bn_aggr(found.at(0, group), stats.at(0, group))
        for number, value in enumerate((step.value, step.spread)):
            out = self.tiles[value] = self.pool.take(1, F32)
            self.kernel.tensor_scalar(out, found.cut(1, number, 1), "multiply", float(columns))
        self.pool.give_back(stats)
        self.pool.give_back(found)

    def _dot(self, step: Step) -> None:
        dot = step.value
        source = self.plan.shown.get(dot.operands[0], dot.operands[0])
        is_outside = source.opcode == "parameter" and source not in self.tiles
        left = None if is_outside else self._whole(source, dot.operands[0])
        columns = self.columns(dot)
        if sums_banks(self.kernel, columns, self.pool.groups) <= self.sums_max and self._may_stay(step):
            out = self.pool.take_sums(columns)
        else:
            out = self._take(step, columns)
        self.product(dot, left, out)
        self.tiles[dot] = out

    def _may_stay(self, step: Step) -> bool:
        """Whether sums may be read in PSUM: by formulas and reductions, or by what brings a result to its place."""
        readers = self.plan.readers.get(step.value, [])
        if step.value in self.plan.results and (readers or step.value not in self.places):
            return False
        return step.dtype is F32 and all(reader.value.opcode == "reduce" or _has_formula(reader) for reader in readers)

    def _compute(self, step: Step) -> None:
        """Elementwise work, by formulas joined into one term, or by a rule of its own."""
        columns = self.columns(step.value)
        total = (self.places.get(step.total) or self.pool.take(1, F32)) if step.total is not None else None
        found = self._term(step)
        out = self._place(step, columns) if found is not None else self._take(step, columns)
        if step.squares:
            self._square(step, out, total)
        elif found is not None:
            with self.pool.lending():
                emit_groups(self.kernel, *found, out, total, self._dying(step), self.ahead.get(step.value, self.made))
        else:
            inputs = [self._tile(self.plan.shown.get(o, o)) for o in step.value.operands]
            self._emit(step.value, inputs, out)
        self.tiles[step.value] = out
        if step.total is not None:
            assert total is not None
            self.tiles[step.total] = total

    def _place(self, step: Step, columns: int) -> Access:
        """Sums that this step alone still reads are overwritten if one more formula reads the result, since an operand in
        PSUM costs less; else a tile of SBUF: Vector and Scalar do not reach PSUM at the same time."""
        if step.value in self.places:
            return self._take(step, columns)
        readers = self.plan.readers.get(step.value, [])
        if step.dtype is F32 and columns > 1 and len(readers) == 1 and readers[0].value.opcode != "reduce" \
                and self._may_stay(step):
            for value in step.reads:
                tile = self.tiles[value]
                if isinstance(tile, Access) and tile.memory is Memory.PSUM and self.plan.last[value] is step \
                        and tile.sizes[2] == columns:
                    return tile
        return self._over(step, columns) or self._take(step, columns)

    def _over(self, step: Step, columns: int) -> Access | None:
        """The tile in SBUF of a value that nobody reads after this step."""
        if step.value in self.places or columns == 1:
            return None
        for value in step.reads:
            tile = self.tiles[value]
            dies = self.plan.last[value] is step and value not in self.plan.results and value not in self.given
            if dies and isinstance(tile, Access) and tile.memory is Memory.SBUF and tile.sizes[2] == columns \
                    and tile.dtype is step.dtype and all(stride for stride, size in tile.dims if size > 1):
                return tile
        return None

    def _dying(self, step: Step) -> list[Access]:
        """Tiles of f32 that nobody reads after this step."""
        dying = [self.tiles[v] for v in step.reads if self.plan.last[v] is step and v in self.tiles
                 and v not in self.plan.results and v not in self.given]
        return [tile for tile in dying if isinstance(tile, Access) and tile.dtype is F32
                and all(stride for stride, size in tile.dims if size > 1)]

    def _square(self, step: Step, out: Access, total: Access | None) -> None:
        assert total is not None
        data = self._whole(self.plan.shown.get(step.value.operands[0], step.value.operands[0]), step.value)
        for group in range(self.pool.groups):
            self.kernel.activation(out.at(0, group), data.at(0, group), "square", sum=total.at(0, group))

    def _emit(self, instruction: Instruction, inputs: list[Tile], out: Access) -> None:
        if all(not isinstance(t, Access) or t.sizes[2] < out.sizes[2] for t in inputs):
            first = instruction.operands[0]
            inputs[0] = self._whole(self.plan.shown.get(first, first), first)
        for group in range(self.pool.groups):
            parts = [t.at(0, group) if isinstance(t, Access) else t for t in inputs]
            emits()[instruction.opcode](self.kernel, instruction, parts, out.at(0, group))

    # ---- terms --------------------------------------------------------------------------------------------------

    def _term(self, step: Step) -> tuple[Term, list[Tile]] | None:
        """The formula of a step and the tiles that it reads by position; None if it has a rule of its own."""
        if not _has_formula(step):
            return None
        columns = self.columns(step.value)
        whole = self._whole_operand(step)
        tiles: list[Tile] = []
        leaves: dict[Instruction, Term] = {}
        inside: dict[Instruction, Term] = {}
        for member in step.members:
            terms = []
            for operand in member.operands:
                value = self.plan.shown.get(operand, operand)
                if value in inside:
                    terms.append(inside[value])
                    continue
                if value not in leaves:
                    leaves[value] = self._leaf(value, operand, columns, tiles, operand is whole)
                terms.append(leaves[value])
            found = compose(member, terms)
            assert found is not None
            inside[member] = found
        return inside[step.value], tiles

    def _whole_operand(self, step: Step) -> Instruction | None:
        """An operand that is to be repeated along the columns, where none has them all."""
        columns = self.columns(step.value)
        inside = set(step.members)
        operands = [o for m in step.members for o in m.operands if self.plan.shown.get(o, o) not in inside]
        if any(self._width(self.plan.shown.get(o, o)) == columns for o in operands):
            return None
        return next((o for o in operands if self.plan.shown.get(o, o).opcode != "constant"), operands[0])

    def _leaf(self, value: Instruction, operand: Instruction, columns: int, tiles: list[Tile], whole: bool) -> Term:
        tile = self._whole(value, operand) if whole else self._tile(value)
        if not isinstance(tile, Access):
            return input_term(len(tiles), operand.shape.dtype, Span.NUMBER, tile)
        tiles.append(tile)
        span = Span.TILE if whole or self._width(value) == columns else Span.COLUMN
        return input_term(len(tiles) - 1, operand.shape.dtype, span)

    def _width(self, value: Instruction) -> int:
        """Columns of a value's tile; a number has none."""
        return 0 if value.opcode == "constant" else self.columns(value)


def _has_formula(step: Step) -> bool:
    return all(map(has_formula, step.members))


_RUN: dict[str, Callable[[Values, Step], None]] = {"reduce": Values._reduce, "dot": Values._dot}
