"""Mutants of a corpus's modules: the device is held against the oracle, and the oracle against XLA where there is one.

python -m conformance.mutate [--count N] [--seed S] [--xla PYTHON] [--keep FOLDER] [ZIP|FOLDER ...]   (with tests/ on the path)
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from conformance.corpus import Case, Corpus, CorpusMissing, open_corpora
from conformance.mutations import mutant
from conformance.pool import run_all
from conformance.report import group_lines
from conformance.run import TARGETS
from conformance.walk import CLASSES, INTERNAL_ERROR, REJECTED, WRONG, Stopped, Walk, WalkOutcome, cause_words

from nxcc.compiler.debugging.candidate import Candidate
from nxcc.compiler.debugging.reduce import packed
from nxcc.compiler.debugging.trial import AGREES, BROKEN, DIFFERS, REFUSED, Trial, Verdict
from nxcc.compiler.options import CompileOptions
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.oracle import evaluate
from nxcc.ir.hlo.proto.reader import read_module
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.text.writer import write_text

from harness.inputs import random_leaves
from harness.random_hlo.judging import XlaTrial, differs_where_excused
from harness.xla import Xla

UNFIT = frozenset(("rng", "rng-get-and-update-state", "infeed", "recv", "send", "outfeed", "stochastic-convert",
                   "partition-id"))
"""Operators whose result is nobody's promise, or that need a partner."""

KIND = {AGREES: "", REFUSED: REJECTED, BROKEN: INTERNAL_ERROR, DIFFERS: WRONG}


@dataclass(frozen=True)
class MutantCase:
    """A module of the corpus and the seed of what is changed in it."""

    case: Case
    seed: int


@dataclass
class MutantOutcome(WalkOutcome):
    """changes: what was done to the module; text: the mutant, where it failed; judged: by whom."""

    changes: list[str] = field(default_factory=list)
    text: str = ""
    judged: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class MutantSettings:
    """levels: one of them is drawn for each mutant. xla: a Python with jax, or empty."""

    levels: tuple[str, ...] = ("0", "1", "2")
    target: str = "v2"
    strict: bool = False
    xla: str = ""
    most: int = 3


class MutantRunner:
    """Makes mutants and hears their judges, for the pool."""

    def __init__(self, settings: MutantSettings) -> None:
        self.settings = settings
        self._opened: dict[str, Corpus] = {}
        self._xla: Xla | None = None

    def __call__(self, case: MutantCase) -> MutantOutcome:
        if case.case.source not in self._opened:
            self._opened[case.case.source] = open_corpora([case.case.source])[0]
        if self.settings.xla and self._xla is None:
            self._xla = Xla(self.settings.xla)
        return _MutantWalk(self.lost(case), self._opened[case.case.source], case, self.settings, self._xla).run()

    def lost(self, case: MutantCase) -> MutantOutcome:
        return MutantOutcome(case.case.source, f"{case.case.name}@{case.seed}", case.case.family, True, "")


class _MutantWalk(Walk[MutantOutcome]):
    def __init__(self, outcome: MutantOutcome, corpus: Corpus, case: MutantCase, settings: MutantSettings,
                 xla: Xla | None) -> None:
        super().__init__(outcome)
        self.corpus, self.case, self.settings, self.xla = corpus, case, settings, xla

    def steps(self) -> None:
        choices = random.Random(zlib.crc32(f"{self.case.case.name} {self.case.seed}".encode()))
        candidate = self.do("mutate", lambda: self._candidate(choices))
        if candidate is None:
            return
        with self.optional():
            if self.xla is not None:
                self._hear("XLA", XlaTrial(self.xla), candidate)
        level = choices.choice(self.settings.levels)
        options = CompileOptions(optlevel=level, target=self.settings.target, placement="support")
        trial = Trial(options, self.settings.strict or choices.random() < 0.2, self.case.seed)
        self._hear(f"device {level}", trial, candidate)

    def _candidate(self, choices: random.Random) -> Candidate | None:
        module = _module(self.corpus, self.case.case)
        if UNFIT & {i.opcode for i in module.instructions()}:
            return None
        made = mutant(module, choices, self.settings.most)
        if made is None:
            return None
        mutated, self.outcome.changes = made
        found = Candidate(mutated, tuple(_values(mutated, choices)))
        return None if _sorts_nan(found) else found

    def _hear(self, name: str, trial: Trial | XlaTrial, candidate: Candidate) -> None:
        verdict: Verdict = self.do(name, lambda: trial.judge(candidate.module, candidate.values))
        self.outcome.judged[f"{name}: {verdict.kind}"] += 1
        if verdict.kind == AGREES or name == "XLA" and verdict.kind == REFUSED:
            return
        if verdict.kind == DIFFERS and isinstance(trial, Trial) and differs_where_excused(candidate, trial):
            return
        self.outcome.text = write_text(candidate.module, short=True)
        words = " ".join(sorted({i.opcode for i in candidate.module.instructions()} - _PLAIN)[:6])
        cause = f"{name}: {words}" if verdict.kind == DIFFERS else cause_words(verdict.key)
        self.fail(name, KIND[verdict.kind], cause, f"{'+'.join(self.outcome.changes)}: {verdict.text}")
        raise Stopped


def _sorts_nan(candidate: Candidate) -> bool:
    """Whether a NaN is sorted by a comparison that gives it no place; the oracle's refusal is told later."""
    sorts = [i for i in candidate.module.instructions() if i.opcode == "sort"]
    if not sorts:
        return False
    found: list[bool] = []

    def note(instruction: Instruction, value: Any) -> None:
        keys = value if isinstance(value, tuple) else (value,)
        found.extend(instruction.opcode == "sort" and key.dtype.kind in "fV" and bool(np.isnan(key.astype(np.float32)).any())
                     for key in keys if isinstance(key, np.ndarray))

    try:
        evaluate(candidate.module, candidate.values, note)
    except CompileError:
        return False
    return any(found)


_PLAIN = frozenset(("parameter", "constant", "tuple", "get-tuple-element", "broadcast", "reshape", "bitcast", "copy"))


def _module(corpus: Corpus, case: Case) -> Module:
    binary = corpus.binary(case)
    return read_module(binary, name=case.name) if binary is not None else read_text(corpus.text(case) or "", name=case.name)


def _values(module: Module, choices: random.Random) -> list[Any]:
    """A value a parameter: small numbers; for one mutant in eight special ones are among the floats."""
    numbers = np.random.default_rng(choices.randrange(1 << 30))
    wild = choices.random() < 0.125
    found = []
    for parameter in module.entry.parameters:
        leaves = random_leaves([parameter.shape], choices.randrange(1000))
        leaves = [_scattered(array, numbers, choices) for array in leaves]
        for array in leaves:
            if wild and array.size and array.dtype.kind not in "biuc":
                flat = array.reshape(-1)
                flat[numbers.integers(0, flat.size, 3)] = np.asarray((np.nan, np.inf, -0.0)).astype(array.dtype)
        found.append(packed(parameter.shape, iter(leaves)))
    return found


def _scattered(array: Any, numbers: np.random.Generator, choices: random.Random) -> Any:
    """The values as they are, or larger ones, some below zero."""
    factor = choices.choice((1, 1, 1, 3, 30))
    if array.dtype.kind == "f" or array.dtype.kind == "V":
        return np.asarray(array.astype(np.float32) * factor).astype(array.dtype)
    if array.dtype.kind == "i" and factor > 1:
        return np.asarray(array - numbers.integers(0, 2, array.shape) * 5).astype(array.dtype)
    return array


def main(words: Sequence[str] | None = None) -> int:
    """0: no wrong result and no internal error; 1: some; 2: no corpus."""
    options = _parser().parse_args(words)
    try:
        cases = [case for corpus in open_corpora(options.corpus) for case in corpus.cases
                 if case.facts.get("xla_cpu") != "rejected"]
    except CorpusMissing as error:
        sys.stderr.write(f"mutate: {error}\n")
        return 2
    choices = random.Random(options.seed)
    rows = [MutantCase(choices.choice(cases), options.seed + n) for n in range(options.count)]
    if options.only:
        rows = [row for row in rows if f"{row.case.name}@{row.seed}" in options.only.split(",")]
    settings = MutantSettings(tuple(options.levels.split(",")), options.target, options.strict, options.xla, options.most)
    outcomes: list[MutantOutcome] = []
    for outcome in run_all(rows, MutantRunner(settings), options.jobs, options.limit):
        outcomes.append(outcome)
        _tell(outcome, options)
        if len(outcomes) % 200 == 0:
            sys.stderr.write(f"{len(outcomes)} of {len(rows)}: {_counts(outcomes)}\n")
    judged = sum((o.judged for o in outcomes), Counter[str]())
    changes = Counter(name for o in outcomes for name in o.changes)
    sys.stdout.write("\n".join([
        *group_lines(outcomes, options.causes),  # type: ignore[arg-type]
        f"{sum(bool(o.changes) for o in outcomes)} mutants of {len(rows)} modules: {_counts(outcomes)}",
        "judges: " + ", ".join(f"{n} {name}" for name, n in judged.most_common()),
        "changes: " + ", ".join(f"{name} {n}" for name, n in changes.most_common())]) + "\n")
    return int(any(o.kind in (WRONG, INTERNAL_ERROR) for o in outcomes))


def _counts(outcomes: Sequence[MutantOutcome]) -> str:
    kinds = Counter(o.kind for o in outcomes)
    return ", ".join(f"{kinds[kind]} {kind}" for kind in CLASSES if kinds[kind])


def _tell(outcome: MutantOutcome, options: argparse.Namespace) -> None:
    """A fault at once, and its module into the folder."""
    if outcome.kind not in (WRONG, INTERNAL_ERROR):
        return
    decisive = next(f for f in outcome.failures if f.kind == outcome.kind)
    sys.stdout.write(f"{outcome.name}: {outcome.kind} in {decisive.step}: {decisive.detail[:300]}\n")
    sys.stdout.flush()
    if options.keep:
        os.makedirs(options.keep, exist_ok=True)
        with open(os.path.join(options.keep, f"{outcome.name}.hlo"), "w", encoding="utf-8") as file:
            file.write(f"// {decisive.step}: {decisive.detail}\n".replace("\n", " ").strip() + "\n" + outcome.text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("mutate", description=__doc__)
    parser.add_argument("corpus", nargs="*", help="zips or folders in the corpus form; default: NXCC_CORPUS")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="NAME@SEED, as printed, with commas")
    parser.add_argument("--levels", default="0,1,2", help="of optimisation; one is drawn for each mutant")
    parser.add_argument("--target", default="v2", choices=TARGETS)
    parser.add_argument("--strict", action="store_true", help="simulate all in strict mode; else every fifth is")
    parser.add_argument("--most", type=int, default=3, help="changes a mutant has at most")
    parser.add_argument("--xla", default="", metavar="PYTHON", help="a Python with jax: XLA judges the oracle")
    parser.add_argument("--keep", default="", metavar="FOLDER", help="where faulty mutants are written as text")
    parser.add_argument("--limit", type=float, default=15.0, help="CPU seconds a mutant")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--causes", type=int, default=60)
    return parser


if __name__ == "__main__":
    sys.exit(main())
