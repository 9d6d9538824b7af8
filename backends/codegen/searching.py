"""Level 3's search over what the rules of regions choose: `Kernel.choose` names a choice, the clock says which is quickest.

One choice is changed at a time, in the order in which the rule asks, and stays changed if the region alone is quicker by it.
The number of trials has a limit, no clock on the wall decides anything, and what was found is kept, so the same region always
comes out the same. The options of one choice do not depend on each other: several processes write and time them at once.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from nxcc.backends.assembly import BASE_REGISTER, assemble
from nxcc.backends.isa.instructions import control
from nxcc.backends.isa.program import Affine, Function, Instruction, Program
from nxcc.backends.synchronization.plan import Plan
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Clock, Findings
from nxcc.backends.tile.program import ARGUMENT_UNIT, TileProgram
from nxcc.backends.tile.text import program_lines
from nxcc.ir.facts import dataclass

TRIALS = 24
"""Ways to write a region that are timed, at most."""

GAIN = 0.99
"""Of the time so far: what is less of a gain changes nothing."""

ALONE_GAIN = 0.9
"""Of the time so far, for what leaves no room for a neighbour beside the region."""


@dataclass(frozen=True)
class Written:
    """A region written one way. asked: its choices, by name, with the number of options. shares: whether a neighbour has
    room."""

    program: TileProgram
    plan: Plan
    asked: Mapping[str, int]
    shares: bool


Write = Callable[[Mapping[str, int]], Written | None]
"""Writes a region by choices, the first option where nothing is said; None if it does not fit so."""


Trial = tuple[int, bool]
"""What a region takes, written one way, and whether a neighbour has room beside it."""

Timed = Callable[[Mapping[str, int]], Trial | None]
"""The trial of choices; None if the region does not fit so."""


def best_choices(write: Write, clock: Clock, target: Target, addresses: Sequence[int], findings: Findings,
                 alone: bool, jobs: int) -> dict[str, int]:
    """The choices by which a region is quickest. addresses: of its arguments. alone: whether it has no neighbours.
    jobs: processes to search in, which decide nothing."""
    base = write({})
    if base is None or not any(options > 1 for options in base.asked.values()):
        return {}
    text = "\n".join([target.name, str(alone), str(list(base.asked.items())), *program_lines(base.program)])
    key = f"region {hashlib.sha256(text.encode()).hexdigest()}"
    known = findings.get(key)
    if known is not None and _fits(known, base):
        return _chosen(base, known)

    def timed(choices: Mapping[str, int]) -> Trial | None:
        written = write(choices)
        return None if written is None else (_ticks(written, clock, target, addresses), written.shares)

    with _processes(timed, jobs) as trials:
        chosen = _search(base, _ticks(base, clock, target, addresses), trials, alone)
    findings[key] = tuple(chosen.get(name, 0) for name in base.asked)
    return chosen


def _search(base: Written, best: int, trials: Callable[[Sequence[Mapping[str, int]]], Iterator[Trial | None]],
            alone: bool) -> dict[str, int]:
    chosen: dict[str, int] = {}
    left = TRIALS
    for name, options in base.asked.items():
        others = [{**chosen, name: option} for option in range(1, options)] if left else []
        for option, trial in enumerate(trials(others), 1):
            if trial is None:
                continue
            ticks, shares = trial
            if ticks < best * (GAIN if alone or shares or not base.shares else ALONE_GAIN):
                best, chosen[name] = ticks, option
            left -= 1
            if not left:
                break
    return chosen


_timed: list[Timed] = []
"""What a process of a search times: given to it as it starts, since what a region is written from is no message."""


def _time(choices: Mapping[str, int]) -> Trial | None:
    return _timed[-1](choices)


@contextmanager
def _processes(timed: Timed, jobs: int) -> Iterator[Callable[[Sequence[Mapping[str, int]]], Iterator[Trial | None]]]:
    """What times many choices, in their order: in processes that are copies of this one where the system can make such."""
    if jobs < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield lambda many: map(timed, many)
        return
    _timed.append(timed)
    try:
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool:
            yield lambda many: pool.map(_time, many)
    finally:
        _timed.pop()


def _fits(known: Sequence[int], base: Written) -> bool:
    return len(known) == len(base.asked) and all(0 <= option < options
                                                 for option, options in zip(known, base.asked.values(), strict=True))


def _chosen(base: Written, known: Sequence[int]) -> dict[str, int]:
    return {name: option for name, option in zip(base.asked, known, strict=True) if option}


def _ticks(written: Written, clock: Clock, target: Target, addresses: Sequence[int]) -> int:
    """What the region takes with the whole machine idle."""
    return clock(standalone(written, target, addresses), target)


def standalone(written: Written, target: Target, addresses: Sequence[int]) -> Program:
    """A program that calls a region once."""
    assembled = assemble(written.program, target, written.plan)
    places = dict(zip(assembled.argument_registers, dict.fromkeys(addresses), strict=False))
    calls = {engine: [*(Instruction(control.REGISTER_SET, fields={"register": register, "value": Affine(value)})
                        for register, value in ((BASE_REGISTER, 0), *((r, a // ARGUMENT_UNIT) for r, a in places.items()))),
                      Instruction(control.CALL, fields={"function": 0}), Instruction(control.HALT)]
             for engine in assembled.function.streams}
    return Program([assembled.function], [Function("trial", calls)])
