"""The order of a formula's terms, which of them one instruction computes together, and the temporaries of the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nxcc.backends.isa.instructions.vector import GPSIMD_OPS
from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.terms import Kind, Span, Term
from nxcc.backends.tile.builder import Kernel
from nxcc.ir.dtypes import F32, S32, U32, DType
from nxcc.ir.facts import dataclass

ORDERED_TERMS = 40
"""Terms of a formula, at most, whose order is looked for."""

SPARE_SLOTS = 1
"""Temporaries that rest where two engines compute a formula, so that neither waits until the other has read what was there."""

HOP = 1.0
"""What an engine waits for another one's result, in passes of Vector over a tile's columns."""

ENGINES = {Kind.ALU: Engine.VECTOR, Kind.BITS: Engine.VECTOR, Kind.NATIVE: Engine.GPSIMD}
LEAVES = (Kind.INPUT, Kind.NUMBER)


@dataclass(frozen=True, slots=True)
class Slot:
    """A temporary's memory."""

    number: int
    byte_size: int
    span: Span


class Plan:
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
        self.order = [term for term in order if term not in absorbed and term.kind not in (*LEAVES, Kind.PART)]
        engines = {term.kind is Kind.ACTIVATION for term in self.order if term.span is Span.TILE}
        self.overlaps = orders and len(engines) == 2 and len(self.order) <= ORDERED_TERMS
        if self.overlaps:
            self.order = self._overlapping()
        self.slots: dict[Term, Slot] = {}
        self.count = self._assign_slots()
        self.beside = self._beside(uses)

    def reads(self, term: Term) -> list[Term]:
        """The terms whose memory an instruction reads, parts resolved."""
        inner = self.joined.get(term)
        direct = [x for x in term.inputs if x is not inner] + (list(inner.inputs) if inner else [])
        return [base_of(x) for x in direct]

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
        free: dict[tuple[int, Span], list[Slot]] = {}
        count = 0
        spare = SPARE_SLOTS if self.overlaps else 0
        for term in self.order:
            if term not in self.roots:
                available = free.get((term.dtype.byte_size, term.span))
                if available and len(available) > spare:
                    self.slots[term] = available.pop(0 if self.overlaps else -1)
                else:
                    self.slots[term] = Slot(count, term.dtype.byte_size, term.span)
                    count += 1
            for operand in dict.fromkeys(self.reads(term)):
                slot = self.slots.get(operand)
                if slot is not None and last[operand] is term:
                    free.setdefault((slot.byte_size, slot.span), []).append(slot)
        return count

    def _in_banks(self, free: int) -> set[Term]:
        """Temporaries for which there is one of so many banks of PSUM: that of what is read there for the last time, or
        another one."""
        held: set[Term] = set()
        found: set[Term] = set()
        for term in self.order:
            read = held.intersection(self.reads(term))
            if term in self.beside and (read or free):
                free += max(0, len(read) - 1) - (not read)
                found.add(term)
                held.add(term)
            else:
                free += len(read)
            held -= read
        return found

    def width(self, kernel: Kernel, columns: int, groups: int = 1) -> int:
        """Columns that the temporaries have room for at a time; those beside another tile lie in a bank if there is one."""
        fits = groups == 1 and kernel.banks and columns <= kernel.banks[0].free
        in_banks = self._in_banks(len(kernel.banks)) if fits else set()
        slots = {slot for term, slot in self.slots.items() if term not in in_banks}
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


def base_of(term: Term) -> Term:
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


def scalar_place(term: Term) -> int | None:
    """Which operand is the scalar, where exactly one is."""
    scalars = [_is_scalar(operand, term) for operand in term.inputs]
    return scalars.index(True) if scalars.count(True) == 1 else None


def engine_of(term: Term) -> Engine:
    return Engine.GPSIMD if term.op in GPSIMD_OPS else ENGINES[term.kind]


def engine_writes_psum(term: Term) -> bool:
    """Whether a term's engine reaches PSUM."""
    return term.kind is Kind.ACTIVATION or term.kind in ENGINES and engine_of(term) is not Engine.GPSIMD


def _joinable(term: Term, uses: Mapping[Term, int], absorbed: set[Term], joined: Mapping[Term, Term]) -> Term | None:
    """The operand that the same instruction can compute on the way, if any."""
    if term.kind is Kind.ACTIVATION:
        return _scaled(term, uses, absorbed, joined)
    if term.kind not in ENGINES:
        return None
    place = scalar_place(term)
    for index, inner in enumerate(term.inputs):
        if index == place or inner.kind is not term.kind or inner.span is not term.span or uses[inner] != 1:
            continue
        if inner in absorbed or inner in joined or scalar_place(inner) is None or inner.dtype is not inner_dtype(term):
            continue
        if place is not None or (term.kind is Kind.ALU and engine_of(term) is engine_of(inner) is Engine.VECTOR):
            return inner
    return None


def _scaled(term: Term, uses: Mapping[Term, int], absorbed: set[Term], joined: Mapping[Term, Term]) -> Term | None:
    """A function's operand that is its scale or bias: a product with a number or a column, a sum with a column."""
    inner = term.inputs[0]
    if inner.kind is not Kind.ALU or inner.span is not Span.TILE or uses[inner] != 1 or inner.dtype is not F32:
        return None
    place = scalar_place(inner)
    if place is None or inner in absorbed or inner in joined:
        return None
    is_number = inner.inputs[place].span is Span.NUMBER
    if inner.op == "multiply" and (is_number or term.number == 1):
        return inner
    return inner if inner.op == "add" and not is_number and term.number == 1 else None


def squared(term: Term, inner: Term | None) -> tuple[Term, float] | None:
    """(x, s) where a term is (x * s)^2, which is one instruction of Scalar: x * x, or x * c * x with a positive number c."""
    if term.kind is not Kind.ALU or term.op != "multiply" or term.span is not Span.TILE or not term.dtype.is_float:
        return None
    base, factor = term.inputs[0], 1.0
    if inner is not None:
        place = scalar_place(inner)
        if place is None or inner.op != "multiply" or inner.inputs[place].span is not Span.NUMBER:
            return None
        base, factor = inner.inputs[1 - place], float(inner.inputs[place].number)
    if not base.dtype.is_float or factor <= 0 or any(x is not base for x in term.inputs if x is not inner):
        return None
    return base, math.sqrt(factor)


def inner_dtype(term: Term) -> DType:
    """The dtype between the two operators of an instruction."""
    return F32 if term.kind is Kind.ALU else term.dtype
