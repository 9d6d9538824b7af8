"""From a formula's terms to engine instructions on tiles.

Neighbouring terms that one instruction can compute are joined, temporaries are shared by liveness, and where they do not fit
beside each other for all columns, the columns are cut into pieces.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.lowering.emission_plan import (
    LEAVES,
    Plan,
    Slot,
    engine_of,
    engine_writes_psum,
    scalar_place,
    squared,
)
from nxcc.backends.lowering.terms import Kind, Span, Term, copy
from nxcc.backends.lowering.words import for_engines
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index
from nxcc.backends.tile.program import Access
from nxcc.ir.dtypes import F32, PRED, S32, U8, U32, DType

Tile = Access | float

HABIT = 2e-6
"""Seconds of work that Scalar may have more than Vector before it stops bringing products out of PSUM."""

HALF_COLUMNS = 256
"""Columns of half a tile, at least, where halves are worked on in step."""

LAG = 3
"""Instructions that the second half is behind."""

Made = dict[Hashable, Access]
"""Columns by what they are computed from."""

_CONVERTING = (Kind.ALU, Kind.ACTIVATION, Kind.RECIPROCAL, Kind.SELECT)
"""Kinds whose result the engine converts to any dtype on its way out."""


def emit_term(kernel: Kernel, root: Term, tiles: Sequence[Tile], out: Access) -> None:
    """out = root. tiles: the formula's operands by position; out: [rows, columns], no operand's memory."""
    emit_terms(kernel, [root], tiles, [out])


def emit_terms(kernel: Kernel, roots: Sequence[Term], tiles: Sequence[Tile], outs: Sequence[Access]) -> None:
    """Each of outs = its root, what they share being computed once; all outs have one shape and memory of their own."""
    roots = for_engines(roots, kernel.target.engines)
    stored: dict[Term, Access] = {}
    for root, out in zip(roots, outs, strict=True):
        term, place = _stored(root, out.flat())
        stored[copy(term, term.dtype) if term in stored else term] = place
    plan = Plan(tuple(stored), kernel.copies.rotates)
    places = list(stored.values())
    columns = places[0].free
    for start, size in kernel.tiles(columns, plan.width(kernel, columns)):
        cut = [tile if repeats(tile, places[0]) else _columns(tile, start, size) for tile in tiles]
        _Emission(kernel, plan, cut, [_columns(place, start, size) for place in places]).run()


def emit_groups(kernel: Kernel, root: Term, tiles: Sequence[Tile], out: Access, total: Access | None = None,
                scratch: Sequence[Access] = (), made: Made | None = None) -> None:
    """out = root, all tiles being [rows, groups, columns], or [rows, groups, 1] where columns repeat.

    total: [rows, groups, 1] gets the sum of the results, which a function of the scalar engine makes. scratch: those of the
    tiles, of f32, whose last use this is: a temporary of the last instruction that reads one is written over it. made: columns
    that are there already, since other pieces of the same tile need them too; more are added.
    """
    groups, columns = out.sizes[1:]
    (root,) = for_engines([root], kernel.target.engines)
    if groups == 1:
        tiles = [tile.at(0, 0) if isinstance(tile, Access) else tile for tile in tiles]
        scratch = [tile.at(0, 0) for tile in scratch]
        out, total = out.at(0, 0), total.at(0, 0) if total is not None else None
    term, place = _stored(root, out.flat() if groups == 1 else out)
    plan = Plan((term,), kernel.copies.rotates)
    if plan.overlaps and total is None and made is None and groups == 1 and columns >= 2 * HALF_COLUMNS \
            and plan.width(kernel, columns) == columns:
        _in_halves(kernel, plan, tiles, place, scratch)
        return
    if total is not None or plan.width(kernel, columns, groups) == columns:
        _Emission(kernel, plan, tiles, [place], groups, total, scratch, True, made).run()
        return
    last = len(place.dims) - 1
    for start, size in kernel.tiles(columns, plan.width(kernel, columns, groups)):
        cut = [tile if not isinstance(tile, Access) or tile.sizes[-1] == 1 != columns else tile.cut(last, start, size)
               for tile in tiles]
        _Emission(kernel, plan, cut, [place.cut(last, start, size)], groups, balances=True).run()


def _in_halves(kernel: Kernel, plan: Plan, tiles: Sequence[Tile], out: Access, scratch: Sequence[Access]) -> None:
    """Both halves of the columns in step, the second some instructions behind, so that each engine has work of one while the
    other engine computes what it waits for of the other."""
    half = out.free // 2
    runs = []
    for start, size in ((0, half), (half, out.free - half)):
        cut = [tile if repeats(tile, out) else _columns(tile, start, size) for tile in tiles]
        over = [_columns(tile, start, size) for tile in scratch if not repeats(tile, out)]
        runs.append(_Emission(kernel, plan, cut, [_columns(out, start, size)], 1, None, over, True).steps())
    ahead, behind = runs
    for _ in itertools.islice(ahead, LAG):
        pass
    for _ in itertools.chain.from_iterable(itertools.zip_longest(ahead, behind)):
        pass


def emit_columns(kernel: Kernel, root: Term, tiles: Sequence[Tile], out: Access, made: Made) -> None:
    """What `emit_groups` with this place of a result would compute a row at a time is written ahead, and put into `made`."""
    groups = out.sizes[1]
    (root,) = for_engines([root], kernel.target.engines)
    if groups == 1:
        tiles, out = [tile.at(0, 0) if isinstance(tile, Access) else tile for tile in tiles], out.at(0, 0)
    term, place = _stored(root, out.flat() if groups == 1 else out)
    _Emission(kernel, Plan((term,), kernel.copies.rotates), tiles, [place], groups, made=made).run(columns_alone=True)


def column_pieces(kernel: Kernel, tiles: Sequence[Tile], out: Access, width: int) -> Iterator[tuple[list[Tile], Access]]:
    """Cut the columns of out, and of the tiles that do not repeat, into pieces of at most `width`."""
    out = out.flat()
    for start, size in kernel.tiles(out.free, width):
        yield [tile if repeats(tile, out) else _columns(tile, start, size) for tile in tiles], out.cut(0, start, size)


def _columns(tile: Tile, start: Index, size: int) -> Access:
    assert isinstance(tile, Access)
    return tile.flat().cut(0, start, size)


def repeats(tile: Tile, out: Access) -> bool:
    """True if the input is a number or a column that repeats along out's free dimensions."""
    return not isinstance(tile, Access) or (tile.free == 1 and out.free > 1)


def _stored(root: Term, out: Access) -> tuple[Term, Access]:
    """The term to write and the place to write it to: as wide parts at the root are the place under another dtype."""
    while root.kind is Kind.PART and root.dtype is out.dtype and root.inputs[0].dtype.byte_size == root.dtype.byte_size:
        root = root.inputs[0]
        out = out.retype(root.dtype)
    if root.kind in LEAVES or root.kind is Kind.PART:
        return copy(root, out.dtype), out
    if root.dtype is out.dtype:
        return root, out
    if root.kind in _CONVERTING and root.dtype is F32:
        return Term(root.kind, root.op, root.inputs, out.dtype, root.span, root.number), out
    if {root.dtype, out.dtype} in ({S32, U32}, {U8, PRED}):
        return root, out.retype(root.dtype)
    return copy(root, out.dtype), out


class _Emission:
    """Writes the instructions of a plan for one piece of the columns.

    groups: above 1, tiles are [rows, groups, columns], and an instruction with an operand for each row is written for one
    group after the other; `group` is the one at work, None for all at once. balances: whether Scalar may do Vector's work.
    """

    def __init__(self, kernel: Kernel, plan: Plan, tiles: Sequence[Tile], outs: Sequence[Access], groups: int = 1,
                 total: Access | None = None, scratch: Sequence[Access] = (), balances: bool = False,
                 made: Made | None = None) -> None:
        self.kernel = kernel
        self.plan = plan
        self.tiles = tiles
        self.outs = dict(zip(plan.roots, outs, strict=True))
        self.out = outs[0]
        self.memory: dict[Slot, Access] = {}
        self.groups = groups
        self.group: int | None = None
        self.total = total
        self.balances = balances
        self.over: dict[Term, Access] = {}
        self.held: dict[Term, Access] = {}
        self.lent: set[Term] = set()
        self.made = made
        if scratch:
            self._overwrite(scratch)

    def _overwrite(self, scratch: Sequence[Access]) -> None:
        """Temporaries that take the place of an operand which no later instruction reads."""
        last: dict[int, Term] = {}
        for term in self.plan.order:
            for read in self.plan.reads(term):
                if read.kind is Kind.INPUT:
                    last[int(read.number)] = term
        for position, term in last.items():
            tile = self.tiles[position]
            fits = term in self.plan.slots and term.span is Span.TILE and term.dtype is F32
            if fits and tile in scratch and term not in self.over and isinstance(tile, Access) \
                    and tile.sizes[-1] == self.out.sizes[-1] and (tile.memory is Memory.SBUF or engine_writes_psum(term)):
                self.over[term] = tile

    def run(self, columns_alone: bool = False) -> None:
        """columns_alone: write only what `made` keeps."""
        for _ in self.steps(columns_alone):
            pass

    def steps(self, columns_alone: bool = False) -> Iterator[Term]:
        """As `run`, a term at a time."""
        write = {Kind.ALU: self._operation, Kind.BITS: self._operation, Kind.NATIVE: self._operation,
                 Kind.ACTIVATION: self._activation, Kind.RECIPROCAL: self._reciprocal, Kind.SELECT: self._select,
                 Kind.COPY: self._copy, Kind.CONSTANT: self._constant}
        for term in self.plan.order:
            if self.made is not None and term.span is Span.COLUMN and term not in self.outs and self._is_made(term, self.made):
                continue
            if columns_alone and term not in self.over:
                continue
            each = self.groups > 1 and self._differs_by_row(term)
            for group in range(self.groups) if each else (None,):
                self.group = group
                write[term.kind](term, self._place(term))
            for read in self.plan.reads(term):
                if read in self.held:
                    self.kernel.banks.append(self.held.pop(read))
            yield term

    def _is_made(self, term: Term, made: Made) -> bool:
        """Whether another piece has written a column; if not, it gets memory that stays."""
        key = self._key(term)
        found = key in made
        if not found:
            made[key] = self.kernel.sbuf((self.out.partitions, self.groups, 1)[:3 if self.groups > 1 else 2], term.dtype)
        self.over[term] = made[key]
        return found

    def _key(self, term: Term) -> Hashable:
        """What a term computes from which tiles."""
        if term.kind is Kind.INPUT:
            return self.tiles[int(term.number)]
        return term.kind, term.op, term.dtype, term.number, tuple(map(self._key, term.inputs))

    def _differs_by_row(self, term: Term) -> bool:
        """Whether an instruction has an operand with one element for each row, or writes one."""
        if term.span is not Span.TILE:
            return False
        inner = self.plan.joined.get(term)
        columns = [x for x in (*term.inputs, *(inner.inputs if inner else ())) if x.span is Span.COLUMN]
        return bool(columns) or self.total is not None and term in self.outs

    def _place(self, term: Term) -> Access:
        if term in self.outs:
            return self._of_group(self.outs[term])
        if term in self.over and (term in self.lent or not self._is_better_beside(term)):
            return self._of_group(self.over[term]) if self.groups > 1 else self.over[term].flat()
        if self._is_better_beside(term):
            self.lent.add(term)
            bank = self.held[term] = self._bank(term)
            self.over[term] = bank.rows(0, self.out.partitions).cut(0, 0, self.out.free)
            return self.over[term]
        slot = self.plan.slots[term]
        if slot not in self.memory:
            columns = self.out.sizes[-1] if slot.span is Span.TILE else 1
            sizes = (self.groups, columns) if self.groups > 1 else (columns,)
            self.memory[slot] = self.kernel.sbuf((self.out.partitions, *sizes), term.dtype)
        return self._of_group(self.memory[slot].retype(term.dtype))

    def _is_better_beside(self, term: Term) -> bool:
        """Whether a bank of PSUM is wanted for a temporary, and there is one."""
        wants = term in self.plan.beside and self.groups == 1 and self.balances
        return wants and (self._has_bank(self.out.free) or any(read in self.held for read in self.plan.reads(term)))

    def _bank(self, term: Term) -> Access:
        """A bank of PSUM for a temporary: that of what is read for the last time, or another one."""
        read = next((x for x in self.plan.reads(term) if x in self.held), None)
        return self.kernel.banks.pop(0) if read is None else self.held.pop(read)

    def _of_group(self, tile: Access) -> Access:
        return tile if self.group is None else tile.at(0, self.group)

    def _value(self, term: Term) -> Access:
        """Where a term that is no number lies."""
        if term.kind is Kind.INPUT:
            tile = self.tiles[int(term.number)]
            assert isinstance(tile, Access)
            return tile.flat() if self.groups == 1 else self._of_group(tile)
        if term.kind is Kind.PART:
            return bytes_of(self._value(term.inputs[0]), term.dtype, int(term.number))
        return self._place(term)

    def _data(self, term: Term, to: Access) -> Access:
        """A term as an operand of to's sizes: a column repeats by a stride of 0."""
        value = self._value(term)
        if value.sizes[-1] == 1 != to.sizes[-1]:
            return replace(value, dims=(*value.dims[:-1], (0, to.sizes[-1])))
        return value

    def _scalar(self, term: Term) -> Access | float:
        return term.number if term.span is Span.NUMBER else self._value(term)

    def _operation(self, term: Term, to: Access) -> None:
        inner = self.plan.joined.get(term)
        place = scalar_place(term)
        root = squared(term, inner) if self.balances else None
        if root is not None and self.kernel.scalar_is_idler(to.free):
            base, scale = root
            self.kernel.activation(to, self._data(base, to), "square", scale=scale)
        elif inner is not None:
            self._joined(term, inner, place, to)
        elif place is None:
            a, b = self._apart(*(self._reachable(self._data(x, to), engine_of(term)) for x in term.inputs))
            self.kernel.tensor_tensor(to, a, b, term.op, engine_of(term))
        else:
            data = self._reachable(self._data(term.inputs[1 - place], to), engine_of(term))
            if self._scales(term) and self.kernel.scalar_is_idler(to.free, HABIT if data.memory is Memory.PSUM else 0):
                self.kernel.activation(to, data, scale=self._scalar(term.inputs[place]))
                return
            self.kernel.tensor_scalar(to, data, term.op, self._scalar(term.inputs[place]), reverse0=place == 0,
                                      engine=engine_of(term))

    def _reachable(self, data: Access, engine: Engine) -> Access:
        """GpSimd has no access to PSUM."""
        return self._aside(data) if engine is Engine.GPSIMD and data.memory is Memory.PSUM else data

    def _apart(self, a: Access, b: Access) -> tuple[Access, Access]:
        """No instruction reads two operands from PSUM."""
        return a, self._aside(b) if a.memory is b.memory is Memory.PSUM else b

    def _aside(self, data: Access) -> Access:
        tile = self.kernel.sbuf(data.sizes, data.dtype)
        self.kernel.copy(tile, data)
        return tile

    def _joined(self, term: Term, inner: Term, place: int | None, to: Access) -> None:
        first = scalar_place(inner)
        assert first is not None
        engine = Engine.GPSIMD if Engine.GPSIMD in (engine_of(term), engine_of(inner)) else Engine.VECTOR
        data, scalar = self._reachable(self._data(inner.inputs[1 - first], to), engine), self._scalar(inner.inputs[first])
        position = term.inputs.index(inner)
        other = term.inputs[1 - position]
        if place is not None:
            if engine is Engine.VECTOR and self._normalises(term, inner) and self.kernel.scalar_is_idler(to.free):
                self._normalise(to, data, scalar, self._scalar(other))
                return
            self.kernel.tensor_scalar(to, data, inner.op, scalar, term.op, self._scalar(other), reverse0=first == 0,
                                      reverse1=position == 1, engine=engine)
            return
        fields: dict[str, Any] = {"op0": inner.op, "op1": term.op, "reverse0": first == 0, "reverse1": position == 1,
                                  "immediate0": 0.0 if isinstance(scalar, Access) else float(scalar)}
        data, b = self._apart(data, self._data(other, to))
        if self._is_scaled_beside(inner, data, b, to):
            bank = self.kernel.banks.pop(0)
            scaled = bank.rows(0, to.partitions).cut(0, 0, to.free).reshape(*to.sizes[1:])
            self.kernel.activation(scaled, data, scale=scalar)
            a, b = (b, scaled) if position == 1 else (scaled, b)
            self.kernel.tensor_tensor(to, a, b, term.op)
            self.kernel.banks.append(bank)
            return
        self.kernel.emit(isa.vector.SCALAR_TENSOR_TENSOR, fields=fields,
                         data=data, b=b, out=to, scalar0=scalar if isinstance(scalar, Access) else None)

    def _is_scaled_beside(self, inner: Term, data: Access, other: Access, to: Access) -> bool:
        """Whether Scalar multiplies an operand by a number or a column, and leaves it in PSUM, which halves Vector's time."""
        return self._scales(inner) and self._has_bank(to.free) and data.memory is other.memory is Memory.SBUF \
            and self.kernel.scalar_is_idler(to.free)

    def _has_bank(self, columns: int) -> bool:
        return bool(self.kernel.banks) and columns <= self.kernel.banks[0].free

    def _scales(self, term: Term) -> bool:
        """Whether a term is a product of floats that Scalar may make on its way through."""
        return self.balances and term.kind is Kind.ALU and term.op == "multiply" and term.span is Span.TILE \
            and term.dtype.is_float and all(x.dtype.is_float for x in term.inputs)

    def _normalises(self, term: Term, inner: Term) -> bool:
        """Whether a term is (data - column) * column."""
        return self.balances and term.kind is Kind.ALU and (inner.op, term.op) == ("subtract", "multiply") \
            and inner.inputs[1].span is Span.COLUMN and term.span is Span.TILE \
            and any(x.span is Span.COLUMN for x in term.inputs)

    def _normalise(self, to: Access, data: Access, mean: Access | float, factor: Access | float) -> None:
        """The same on Scalar: data * factor + bias with the bias -mean * factor."""
        assert isinstance(mean, Access) and isinstance(factor, Access)
        bias = self.kernel.sbuf(mean.sizes, F32)
        self.kernel.tensor_scalar(bias, mean, "multiply", factor, "multiply", -1.0)
        self.kernel.activation(to, data, scale=factor, bias=bias)

    def _activation(self, term: Term, to: Access) -> None:
        inner = self.plan.joined.get(term)
        total = self._of_group(self.total) if self.total is not None and term in self.outs else None
        if inner is None:
            self.kernel.activation(to, self._data(term.inputs[0], to), term.op, scale=float(term.number), sum=total)
            return
        place = scalar_place(inner)
        assert place is not None
        data, scalar = self._data(inner.inputs[1 - place], to), self._scalar(inner.inputs[place])
        if inner.op == "multiply":
            scale = scalar if isinstance(scalar, Access) else float(term.number) * float(scalar)
            self.kernel.activation(to, data, term.op, scale=scale, sum=total)
        else:
            assert isinstance(scalar, Access)
            self.kernel.activation(to, data, term.op, bias=scalar, sum=total)

    def _reciprocal(self, term: Term, to: Access) -> None:
        self.kernel.reciprocal(to, self._data(term.inputs[0], to))

    def _select(self, term: Term, to: Access) -> None:
        predicate, a, b = term.inputs
        other = self._scalar(b) if b.span is Span.NUMBER else self._data(b, to)
        self.kernel.select(to, self._data(predicate, to), self._data(a, to), other)

    def _copy(self, term: Term, to: Access) -> None:
        scalar = term.span is Span.TILE and to.dtype.is_float and term.inputs[0].dtype.is_float \
            and self.balances and self.kernel.scalar_is_idler(to.free)
        self.kernel.copy(to, self._data(term.inputs[0], to), Engine.SCALAR if scalar else Engine.VECTOR)

    def _constant(self, term: Term, to: Access) -> None:
        self.kernel.memset(to, term.number)


def bytes_of(value: Access, dtype: DType, offset: int) -> Access:
    """The elements' bytes from `offset` as elements of a dtype at most as wide."""
    ratio = value.dtype.byte_size // dtype.byte_size
    return replace(value, dtype=dtype, offset=value.offset + offset, dims=tuple((s * ratio, n) for s, n in value.dims))
