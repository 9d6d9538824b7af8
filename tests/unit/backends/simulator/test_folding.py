"""Turns that the clock leaves out must be as if they had been timed: every number of a run, to the tick."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from nxcc.backends.isa.program import Affine, Engine, Function, Program
from nxcc.backends.simulator import folding
from nxcc.backends.simulator.shifts import FOREVER, until_crossing
from nxcc.backends.simulator.timing import Clock
from nxcc.backends.target import load_target
from nxcc.ir.diagnostics import CompileError

from harness.machine import PARTITION, hbm, linear, op, reg, sbuf

V2 = load_target("v2")
WHOLE = {"folds", "events", "timeline"}
"""Numbers that say how a run was timed, not what it took."""


def clock(**streams):
    return Clock(Program([], [Function("main", {Engine[name.upper()]: [*stream, op("halt")]
                                                for name, stream in streams.items()})]), V2)


def numbers(timing):
    return {f.name: getattr(timing, f.name) for f in dataclasses.fields(timing) if f.name not in WHOLE}


def same(which, **given):
    """The timing with turns left out, which must be the one without."""
    folded, full = which.time(**given), which.time(**given, folds=False)
    assert numbers(folded) == numbers(full)
    assert not full.folds
    return folded


def loop(count, *body, register=5):
    return [op("loop", register=register, count=count), *body, op("end")]


def affine_of(*terms, constant=0):
    return Affine(constant, terms)


def exp(**more):
    return op("activation", data=sbuf(64, 20480), out=sbuf(64, 0), function="exp", scale=1.0, **more)


def copy(at=0, free=64, **more):
    return op("tensor_copy", data=sbuf(free, 0), out=sbuf(free, at), **more)


def load(queue=0, **more):
    return op("dma_copy", source=hbm(0, 256, 4), destination=linear(0, PARTITION, 4), sizes=(128, 64), accumulate="none",
              queue=queue, **more)


def ring(turns):
    """Loads into two tiles, each read by Scalar and its result by Vector; waits count on with the turns."""
    first = loop(turns, load(0, wait=[(3, reg(5))], signal=[(1, 16)]))
    second = loop(turns, exp(wait=[(1, reg(5, 16, 16))], signal=[(2, 1)]))
    third = loop(turns, copy(4096, wait=[(2, reg(5, 1, 1))], signal=[(3, 1)]))
    return clock(sync=first, scalar=second, vector=third)


def test_a_ring_of_engines():
    found = same(ring(1000))
    assert found.events < 1000 and [fold.exact for fold in found.folds] == [True]
    assert sum(fold.turns for fold in found.folds) > 900


def test_turns_without_end_take_no_longer():
    short, long = ring(10_000).time(), ring(10 ** 9).time()
    assert long.events == short.events
    (fold,) = short.folds
    assert long.ticks - short.ticks == (10 ** 9 - 10 ** 4) * fold.ticks // fold.turns


def test_short_loops_are_timed_whole():
    assert not ring(folding.LEAST_TURNS - 1).time().folds


def test_loops_in_loops():
    inner = loop(100, exp(wait=[(2, affine_of((5, 100), (6, 1)))], signal=[(1, 1)]), register=6)
    other = loop(100, copy(wait=[(1, affine_of((5, 100), (6, 1), constant=1))], signal=[(2, 1)]), register=6)
    found = same(clock(scalar=loop(200, *inner, exp()), vector=loop(200, *other)))
    assert found.folds[0].turns < 100 and any(fold.turns > 100 for fold in found.folds)


def test_a_register_that_tells_even_turns_from_odd_ones():
    odd = op("register_alu", register=7, op="and", a=reg(5), b=1)
    body = [odd, op("if", register=7), exp(), op("else"), exp(), exp(), op("end")]
    found = same(clock(scalar=loop(4999, *body)))
    assert [fold.turns % 2 for fold in found.folds] == [0]


@pytest.mark.parametrize("comparison", ["less", "less_equal", "equal", "not_equal"])
def test_a_branch_that_changes_in_the_middle(comparison):
    chosen = op("register_alu", register=7, op=comparison, a=reg(5), b=3000)
    found = same(clock(scalar=loop(6000, chosen, op("if", register=7), exp(), exp(), op("end"), exp())))
    assert len(found.folds) == 2


def test_the_least_of_two_counts():
    fewer = op("register_alu", register=7, op="minimum", a=reg(5), b=3000)
    wait = op("nop", wait=[(4, reg(7))])
    found = same(clock(scalar=loop(6000, fewer, wait, exp()), vector=loop(6000, copy(signal=[(4, 1)]))))
    assert found.folds


def test_a_wait_that_is_met_ever_more():
    """Vector counts two a turn, Scalar waits for one a turn; then for as many as there are."""
    waits, last = [(4, reg(5)), (1, reg(5))], op("nop", wait=[(4, 2000)])
    first = [*loop(1000, exp(wait=waits, signal=[(2, 1)])), last]
    found = same(clock(scalar=first, vector=loop(1000, copy(wait=[(2, reg(5))], signal=[(4, 2), (1, 1)]))))
    assert found.folds


def test_an_engine_that_waits_for_a_turn_in_the_middle():
    waits = [op("nop", wait=[(4, 700)]), *(exp() for _ in range(5))]
    found = same(clock(scalar=waits, vector=loop(2000, copy(signal=[(4, 1)]))))
    assert found.folds


def test_a_while_that_data_end():
    turn = [op("while"), op("register_load", source=hbm(0), register=9), op("break_unless", register=9), exp(), op("end")]
    found = same(clock(scalar=turn), trips=5000)
    assert found.assumed == 5001 and found.folds
    assert not same(clock(scalar=turn), trips=500, loads={Engine.SCALAR: [1] * 300 + [0]}).folds


def test_places_that_move_are_timed():
    """What an operand meets of the results before depends on the turn."""
    found = clock(vector=loop(200, op("tensor_copy", data=sbuf(8, 0), out=sbuf(8, reg(5, 32))))).time()
    assert not found.folds


def test_the_path_has_no_gaps():
    timing = ring(5000).time(spans=True)
    assert timing.timeline is not None
    pieces = timing.timeline.path
    assert pieces[0].start == 0 and pieces[-1].end == timing.ticks
    assert all(a.end == b.start for a, b in itertools.pairwise(pieces))


def test_a_timeline_counts_what_it_does_not_show(monkeypatch):
    monkeypatch.setattr(folding, "SHOWN", 500)
    timing = ring(5000).time(spans=True)
    line = timing.timeline
    assert line is not None and line.count < 1500
    on_engines = line.columns[:, 0] < len(Engine)
    assert int(line.weights[on_engines].sum()) == timing.instructions
    assert int(line.weights[~on_engines].sum()) == timing.transfers
    assert line.columns[:, 4].max() <= timing.ticks


def test_what_does_not_become_steady_goes_by_its_mean(monkeypatch):
    monkeypatch.setattr(folding, "PATIENCE", 2000)
    monkeypatch.setattr(folding, "alike", lambda before, after, loosely: loosely)
    found, full = ring(10_000).time(), ring(10_000).time(folds=False)
    assert [fold.exact for fold in found.folds] == [False]
    assert abs(found.ticks - full.ticks) < 0.01 * full.ticks


def test_turns_none_of_which_is_like_another_are_an_error(monkeypatch):
    monkeypatch.setattr(folding, "PATIENCE", 2000)
    monkeypatch.setattr(folding, "alike", lambda before, after, loosely: False)
    with pytest.raises(CompileError, match="NXC0404.*10000 turns"):
        ring(10_000).time()


@pytest.mark.parametrize(("distance", "change"), itertools.product(range(-7, 8), range(-4, 5)))
def test_crossing(distance, change):
    found = until_crossing(distance, change)
    stays = next((n for n in range(20) if (distance + (n + 1) * change > 0) != (distance > 0)), FOREVER)
    assert found == stays
