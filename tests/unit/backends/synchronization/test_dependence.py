"""Accesses that cannot meet, judged by the addresses themselves."""

import itertools

import hypothesis.strategies as st
from hypothesis import given, settings

from nxcc.backends.synchronization.dependence import Block, meet
from nxcc.backends.tile.expressions import Expr, Symbol

I = Symbol("i", "loop", 0, 3)  # noqa: E741
J = Symbol("j", "loop", 0, 4)


def tile(row, column, rows=128, columns=512, pitch=8192):
    """A block of a matrix of bytes."""
    return Block(column + row * pitch, ((pitch, rows), (1, columns)), 1)


def test_columns_side_by_side_do_not_meet():
    at = Expr(0, ((J, 1024),))
    assert not meet(tile(Expr(0), at + 512), tile(Expr(0), at), {J: None}, {})
    assert not meet(tile(Expr(0), at), tile(Expr(0), at + 512), {}, {J: (5, True)})
    assert meet(tile(Expr(0), at + 511), tile(Expr(0), at), {J: None}, {})


def test_rows_of_tiles_do_not_meet_whatever_their_columns_are():
    at = Expr(0, ((I, 128),)), Expr(0, ((J, 512),))
    assert not meet(tile(*at), tile(*at), {}, {I: (4, True)})
    assert meet(tile(*at), tile(*at), {I: None, J: None}, {})


def test_the_same_place_in_another_iteration_meets():
    still = tile(Expr(0), Expr(0, ((J, 512),)))
    assert meet(still, still, {}, {I: (4, True)})
    assert not meet(still, still, {I: None}, {J: (5, True)})
    assert not meet(still, still, {}, {I: (4, True), J: (5, False)})


@st.composite
def blocks(draw):
    terms = tuple((s, draw(st.integers(-12, 12))) for s in (I, J))
    dims = tuple((draw(st.integers(-9, 24)), draw(st.integers(1, 4))) for _ in range(draw(st.integers(0, 2))))
    return Block(Expr(draw(st.integers(-20, 20)), terms), dims, draw(st.sampled_from((1, 2, 4))))


def touched(block, values):
    first = block.address.constant + sum(c * values[s] for s, c in block.address.terms)
    for steps in itertools.product(*(range(size) for _, size in block.dims)):
        start = first + sum(stride * step for (stride, _), step in zip(block.dims, steps, strict=True))
        yield from range(start, start + block.bytes)


RELATIONS = {
    "same": ({I: None, J: None}, {}, lambda a, b: a == b), "outer": ({}, {I: (4, True)}, lambda a, b: a[0] > b[0]),
    "inner": ({I: None}, {J: (5, True)}, lambda a, b: a[0] == b[0] and a[1] > b[1]),
    "behind": ({}, {I: (4, True), J: (5, False)}, lambda a, b: a[0] > b[0] and a[1] < b[1]),
}


@settings(max_examples=150, deadline=None)
@given(blocks(), blocks(), st.sampled_from(tuple(RELATIONS)))
def test_a_no_is_true_for_all_iterations(later, earlier, how):
    equal, apart, allowed = RELATIONS[how]
    if meet(later, earlier, equal, apart):
        return
    places = list(itertools.product(range(4), range(5)))
    for a, b in itertools.product(places, places):
        if allowed(a, b):
            assert not set(touched(later, {I: a[0], J: a[1]})) & set(touched(earlier, {I: b[0], J: b[1]}))
