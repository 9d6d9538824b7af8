"""From a formula's terms to engine instructions on tiles.

Neighbouring terms that one instruction can compute are joined, temporaries are shared by liveness, and where they do not fit
beside each other for all columns, the columns are cut into pieces.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.instructions.vector import GPSIMD_OPS
from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.lowering.terms import Kind, Span, Term, copy
from nxcc.backends.lowering.words import for_engines
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index
from nxcc.backends.tile.program import Access
from nxcc.ir.dtypes import F32, PRED, S32, U8, U32, DType
from nxcc.ir.facts import dataclass

Tile = Access | float

HABIT = 2e-6
"""Seconds of work that Scalar may have more than Vector before it stops bringing products out of PSUM."""

ORDERED_TERMS = 40
"""Terms of a formula, at most, whose order is looked for."""

SPARE_SLOTS = 1
"""Temporaries that rest where two engines compute a formula, so that neither waits until the other has read what was there."""

HALF_COLUMNS = 256
"""Columns of half a tile, at least, where halves are worked on in step."""

LAG = 3
"""Instructions that the second half is behind."""

HOP = 1.0
"""What an engine waits for another one's result, in passes of Vector over a tile's columns."""

Made = dict[Hashable, Access]
"""Columns by what they are computed from."""

_ENGINES = {Kind.ALU: Engine.VECTOR, Kind.BITS: Engine.VECTOR, Kind.NATIVE: Engine.GPSIMD}
_LEAVES = (Kind.INPUT, Kind.NUMBER)
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
    plan = _Plan(tuple(stored), kernel.copies.rotates)
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
    plan = _Plan((term,), kernel.copies.rotates)
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


def _in_halves(kernel: Kernel, plan: _Plan, tiles: Sequence[Tile], out: Access, scratch: Sequence[Access]) -> None:
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
    _Emission(kernel, _Plan((term,), kernel.copies.rotates), tiles, [place], groups, made=made).run(columns_alone=True)


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
    if root.kind in _LEAVES or root.kind is Kind.PART:
        return copy(root, out.dtype), out
    if root.dtype is out.dtype:
        return root, out
    if root.kind in _CONVERTING and root.dtype is F32:
        return Term(root.kind, root.op, root.inputs, out.dtype, root.span, root.number), out
    if {root.dtype, out.dtype} in ({S32, U32}, {U8, PRED}):
        return root, out.retype(root.dtype)
    return copy(root, out.dtype), out


@dataclass(frozen=True, slots=True)
class _Slot:
    """A temporary's memory."""

    number: int
    byte_size: int
    span: Span


class _Plan:
    """The order of a formula's terms, which of them one instruction joins, and the temporaries that the others live in.

    joined: for a term, the operand that is computed by the same instruction. overlaps: whether both Vector and Scalar compute
    the formula. beside: terms that are well kept in PSUM.
    """

    def __init__(self, roots: tuple[Term, ...], orders: bool) -> None:
        """orders: whether the order is looked for in which engines wait least."""
        self.roots = roots
        order = _post_order(roots)
        uses: dict[Term, int] = {}
        for term in order:
            for operand in term.inputs:
                uses[operand] = uses.get(operand, 0) + 1
        self.joined: dict[Term, Term] = {}
        absorbed: set[Term] = set()
        for term in order:
            inner = _joinable(term, uses, absorbed, self.joined)
            if inner is not None and inner not in roots:
                self.joined[term] = inner
                absorbed.add(inner)
        self.order = [term for term in order if term not in absorbed and term.kind not in (*_LEAVES, Kind.PART)]
        engines = {term.kind is Kind.ACTIVATION for term in self.order if term.span is Span.TILE}
        self.overlaps = orders and len(engines) == 2 and len(self.order) <= ORDERED_TERMS
        if self.overlaps:
            self.order = self._overlapping()
        self.slots: dict[Term, _Slot] = {}
        self.count = self._assign_slots()
        self.beside = self._beside(uses)

    def reads(self, term: Term) -> list[Term]:
        """The terms whose memory an instruction reads, parts resolved."""
        inner = self.joined.get(term)
        direct = [x for x in term.inputs if x is not inner] + (list(inner.inputs) if inner else [])
        return [_base(x) for x in direct]

    def _beside(self, uses: Mapping[Term, int]) -> frozenset[Term]:
        """Temporaries that are only read beside another tile: in PSUM they halve Vector's time for both."""
        found: set[Term] = set()
        for term in self.order:
            if term.kind is not Kind.ALU or engine_of(term) is not Engine.VECTOR or term in self.joined:
                continue
            if all(x.span is Span.TILE for x in term.inputs):
                made = [x for x in term.inputs if x in self.slots and uses[x] == 1 and x.dtype is F32 and engine_writes_psum(x)]
                found.update(sorted(made, key=self.order.index)[-1:])
        return frozenset(found)

    def _overlapping(self) -> list[Term]:
        """Terms in an order in which Vector has other work while Scalar computes what it reads next: on either engine the
        one that most work waits for, unless another one is half done before that may begin."""
        order = self.order
        inside = set(order)
        reads = {term: [x for x in self.reads(term) if x in inside] for term in order}
        heights = {term: self._cost(term) for term in order}
        for term in reversed(order):
            for operand in reads[term]:
                heights[operand] = max(heights[operand], heights[term] + self._cost(operand) + HOP)
        done: dict[Term, float] = {}
        free = {True: 0.0, False: 0.0}

        def start(term: Term) -> float:
            return max([free[term.kind is Kind.ACTIVATION], *(done[x] + HOP for x in reads[term])])

        waiting = list(order)
        while waiting:
            ready = [t for t in waiting if all(x in done for x in reads[t])]
            engine = min(ready, key=start).kind is Kind.ACTIVATION
            ready = [t for t in ready if (t.kind is Kind.ACTIVATION) is engine]
            first = max(ready, key=lambda t: heights[t])
            between = [t for t in ready if start(t) + self._cost(t) / 2 <= start(first)]
            term = max(between, key=lambda t: heights[t], default=first)
            done[term] = free[engine] = start(term) + self._cost(term)
            waiting.remove(term)
        return list(done)

    def _cost(self, term: Term) -> float:
        """What an instruction takes, in passes of Vector over its columns, about."""
        if term.span is not Span.TILE:
            return 0.0
        tiles = sum(x.span is Span.TILE for x in self.reads(term))
        return {Kind.ACTIVATION: 0.8, Kind.RECIPROCAL: 8.0}.get(term.kind, float(max(1, tiles)))

    def _assign_slots(self) -> int:
        last: dict[Term, Term] = {}
        for term in self.order:
            for operand in self.reads(term):
                last[operand] = term
        free: dict[tuple[int, Span], list[_Slot]] = {}
        count = 0
        spare = SPARE_SLOTS if self.overlaps else 0
        for term in self.order:
            if term not in self.roots:
                available = free.get((term.dtype.byte_size, term.span))
                if available and len(available) > spare:
                    self.slots[term] = available.pop(0 if self.overlaps else -1)
                else:
                    self.slots[term] = _Slot(count, term.dtype.byte_size, term.span)
                    count += 1
            for operand in dict.fromkeys(self.reads(term)):
                slot = self.slots.get(operand)
                if slot is not None and last[operand] is term:
                    free.setdefault((slot.byte_size, slot.span), []).append(slot)
        return count

    def width(self, kernel: Kernel, columns: int, groups: int = 1) -> int:
        """Columns that the temporaries have room for at a time."""
        slots = set(self.slots.values())
        align = kernel.target.sbuf.align_bytes
        fixed = align * len(slots) * groups
        each = sum(slot.byte_size for slot in slots if slot.span is Span.TILE) * groups
        return max(1, min(columns, (kernel.sbuf_free_bytes - fixed) // each)) if each else columns


def _post_order(roots: Sequence[Term]) -> list[Term]:
    order: list[Term] = []
    done: set[Term] = set()
    stack: list[tuple[Term, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        term, entered = stack.pop()
        if term in done:
            continue
        if entered:
            done.add(term)
            order.append(term)
        else:
            stack.append((term, True))
            stack.extend((operand, False) for operand in reversed(term.inputs))
    return order


def _base(term: Term) -> Term:
    while term.kind is Kind.PART:
        term = term.inputs[0]
    return term


def _is_scalar(term: Term, like: Term) -> bool:
    """Whether a term may be the scalar operand of an instruction whose data is `like`'s other operand."""
    if term.span is Span.NUMBER:
        return True
    if term.span is Span.TILE or like.span is not Span.TILE:
        return False
    if like.kind is Kind.ALU:
        return term.dtype is F32
    return term.dtype in (S32, U32) and all(x.dtype.byte_size == 4 for x in like.inputs)


def _scalar_place(term: Term) -> int | None:
    """Which operand is the scalar, where exactly one is."""
    scalars = [_is_scalar(operand, term) for operand in term.inputs]
    return scalars.index(True) if scalars.count(True) == 1 else None


def engine_of(term: Term) -> Engine:
    return Engine.GPSIMD if term.op in GPSIMD_OPS else _ENGINES[term.kind]


def engine_writes_psum(term: Term) -> bool:
    """Whether a term's engine reaches PSUM."""
    return term.kind is Kind.ACTIVATION or term.kind in _ENGINES and engine_of(term) is not Engine.GPSIMD


def _joinable(term: Term, uses: Mapping[Term, int], absorbed: set[Term], joined: Mapping[Term, Term]) -> Term | None:
    """The operand that the same instruction can compute on the way, if any."""
    if term.kind is Kind.ACTIVATION:
        return _scaled(term, uses, absorbed, joined)
    if term.kind not in _ENGINES:
        return None
    place = _scalar_place(term)
    for index, inner in enumerate(term.inputs):
        if index == place or inner.kind is not term.kind or inner.span is not term.span or uses[inner] != 1:
            continue
        if inner in absorbed or inner in joined or _scalar_place(inner) is None or inner.dtype is not _inside(term):
            continue
        if place is not None or (term.kind is Kind.ALU and engine_of(term) is engine_of(inner) is Engine.VECTOR):
            return inner
    return None


def _scaled(term: Term, uses: Mapping[Term, int], absorbed: set[Term], joined: Mapping[Term, Term]) -> Term | None:
    """A function's operand that is its scale or bias: a product with a number or a column, a sum with a column."""
    inner = term.inputs[0]
    if inner.kind is not Kind.ALU or inner.span is not Span.TILE or uses[inner] != 1 or inner.dtype is not F32:
        return None
    place = _scalar_place(inner)
    if place is None or inner in absorbed or inner in joined:
        return None
    is_number = inner.inputs[place].span is Span.NUMBER
    if inner.op == "multiply" and (is_number or term.number == 1):
        return inner
    return inner if inner.op == "add" and not is_number and term.number == 1 else None


def _squared(term: Term, inner: Term | None) -> tuple[Term, float] | None:
    """(x, s) where a term is (x * s)^2, which is one instruction of Scalar: x * x, or x * c * x with a positive number c."""
    if term.kind is not Kind.ALU or term.op != "multiply" or term.span is not Span.TILE or not term.dtype.is_float:
        return None
    base, factor = term.inputs[0], 1.0
    if inner is not None:
        place = _scalar_place(inner)
        if place is None or inner.op != "multiply" or inner.inputs[place].span is not Span.NUMBER:
            return None
        base, factor = inner.inputs[1 - place], float(inner.inputs[place].number)
    if not base.dtype.is_float or factor <= 0 or any(x is not base for x in term.inputs if x is not inner):
        return None
    return base, math.sqrt(factor)


def _inside(term: Term) -> DType:
    """The dtype between the two operators of an instruction."""
    return F32 if term.kind is Kind.ALU else term.dtype


class _Emission:
    """Writes the instructions of a plan for one piece of the columns.

    groups: above 1, tiles are [rows, groups, columns], and an instruction with an operand for each row is written for one
    group after the other; `group` is the one at work, None for all at once. balances: whether Scalar may do Vector's work.
    """

    def __init__(self, kernel: Kernel, plan: _Plan, tiles: Sequence[Tile], outs: Sequence[Access], groups: int = 1,
                 total: Access | None = None, scratch: Sequence[Access] = (), balances: bool = False,
                 made: Made | None = None) -> None:
        self.kernel = kernel
        self.plan = plan
        self.tiles = tiles
        self.outs = dict(zip(plan.roots, outs, strict=True))
        self.out = outs[0]
        self.memory: dict[_Slot, Access] = {}
        self.groups = groups
        self.group: int | None = None
        self.total = total
        self.balances = balances
        self.over: dict[Term, Access] = {}
        self.held: dict[Term, Access] = {}
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
        if term in self.over:
            return self._of_group(self.over[term]) if self.groups > 1 else self.over[term].flat()
        if term in self.plan.beside and self.groups == 1 and self.balances and self._has_bank(self.out.free):
            bank = self.held[term] = self.kernel.banks.pop(0)
            self.over[term] = bank.rows(0, self.out.partitions).cut(0, 0, self.out.free)
            return self.over[term]
        slot = self.plan.slots[term]
        if slot not in self.memory:
            columns = self.out.sizes[-1] if slot.span is Span.TILE else 1
            sizes = (self.groups, columns) if self.groups > 1 else (columns,)
            self.memory[slot] = self.kernel.sbuf((self.out.partitions, *sizes), term.dtype)
        return self._of_group(self.memory[slot].retype(term.dtype))

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
        place = _scalar_place(term)
        root = _squared(term, inner) if self.balances else None
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
        first = _scalar_place(inner)
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
        return bool(self.kernel.banks) and columns <= self.kernel.target.tensor.moving_max

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
        place = _scalar_place(inner)
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
