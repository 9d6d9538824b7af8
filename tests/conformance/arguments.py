"""Words that the runners share: which cases, how they are run, where the report goes."""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

Case = TypeVar("Case")


def runner_parser(name: str, description: str | None, *, levels: str, limit: float, jobs: int,
                  causes: int) -> argparse.ArgumentParser:
    """A parser with the words that all runners take; the corpus and what is a runner's own are added to it."""
    parser = argparse.ArgumentParser(name, description=description)
    parser.add_argument("--levels", default=levels, help="optimisation levels, as 0,2; empty: stop before the machine")
    parser.add_argument("--sample", type=int, default=0, help="a random choice of so many")
    parser.add_argument("--seed", type=int, default=0, help="of the random choice")
    parser.add_argument("--only", default="", help="a regular expression that finds something in a name, a family or an opcode")
    parser.add_argument("--strict", action="store_true", help="simulate in strict mode")
    parser.add_argument("--limit", type=float, default=limit, help="CPU seconds a case, for each target and level")
    parser.add_argument("--jobs", type=int, default=jobs)
    parser.add_argument("--json", help="where to write everything")
    parser.add_argument("--causes", type=int, default=causes, help="how many causes to print")
    return parser


def chosen(cases: list[Case], words: Callable[[Case], Iterable[str]], options: argparse.Namespace) -> list[Case]:
    """The cases that --only finds, and of these as many at random as --sample says. words: a case's name, family, opcodes."""
    wanted = re.compile(options.only)
    cases = [case for case in cases if any(map(wanted.search, words(case)))]
    return random.Random(options.seed).sample(cases, options.sample) if 0 < options.sample < len(cases) else cases
