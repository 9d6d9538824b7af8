"""Run modules of a corpus through every step of the compiler, and report.

python -m conformance.run [--sample N] [--levels 0,1] [--target v2,v1] [--json OUT.json] [ZIP|FOLDER ...]   (tests/ on the path)
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence

from conformance.arguments import chosen, runner_parser
from conformance.corpus import Case, CorpusMissing, open_corpora
from conformance.pool import run_all
from conformance.report import as_json, family_lines, group_lines, host_lines, judged, table_lines
from conformance.steps import ModuleRunner, Outcome, Settings
from conformance.walk import CLASSES, INTERNAL_ERROR, WRONG

from nxcc.backends.targets import CHIPS

TARGETS = tuple(sorted(CHIPS, reverse=True))


def main(words: Sequence[str] | None = None) -> int:
    """0: no wrong result and no internal error; 1: some; 2: wrong usage or no corpus."""
    options = _parser().parse_args(words)
    try:
        cases = [case for corpus in open_corpora(options.corpus) for case in corpus.cases]
    except CorpusMissing as error:
        sys.stderr.write(f"conformance: {error}\n")
        return 2
    levels = tuple(level for level in options.levels.split(",") if level)
    settings = Settings(levels, options.strict, options.unscored, tuple(options.target.split(",")))
    cases = _chosen(cases, options)
    start = time.monotonic()
    outcomes = _run(cases, settings, options)
    seconds = time.monotonic() - start
    _print(outcomes, options, seconds)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(as_json(outcomes, seconds, settings), file, indent=1, sort_keys=True)
    return int(any(o.kind in (WRONG, INTERNAL_ERROR) for o in outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = runner_parser("conformance", __doc__, levels="1", limit=20.0, jobs=2, causes=40)
    parser.add_argument("corpus", nargs="*", help="zips or folders in the corpus form; default: NXCC_CORPUS")
    parser.add_argument("--target", default=",".join(TARGETS), help="targets to compile for, as v2,v1")
    parser.add_argument("--names", default="", help="a file with names of modules, one a line")
    parser.add_argument("--scored", action="store_true", help="only modules whose result is fit to score")
    parser.add_argument("--unscored", action="store_true",
                        help="hold modules without a stored result against the oracle on random inputs")
    return parser


def _chosen(cases: list[Case], options: argparse.Namespace) -> list[Case]:
    if options.names:
        with open(options.names, encoding="utf-8") as file:
            names = {line.strip() for line in file}
        cases = [case for case in cases if case.name in names]
    if options.scored:
        cases = [case for case in cases if case.scored]
    return chosen(cases, lambda case: (case.name, case.family, *case.facts.get("opcodes", ())), options)


def _run(cases: Sequence[Case], settings: Settings, options: argparse.Namespace) -> list[Outcome]:
    outcomes: list[Outcome] = []
    kinds: Counter[str] = Counter()
    for outcome in run_all(cases, ModuleRunner(settings), options.jobs, options.limit * max(1, len(settings.variants))):
        outcomes.append(outcome)
        kinds[outcome.kind] += 1
        _progress(len(outcomes), len(cases), kinds)
    return outcomes


def _progress(done: int, total: int, kinds: Counter[str]) -> None:
    """One line that is written over on a terminal, and a line now and then in a log."""
    line = f"{done} of {total}: " + ", ".join(f"{kinds[kind]} {kind}" for kind in CLASSES if kinds[kind])
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{line}" + ("\n" if done == total else ""))
    elif done % 500 == 0 or done == total:
        sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _print(outcomes: list[Outcome], options: argparse.Namespace, seconds: float) -> None:
    by_family = [o for o in outcomes if "stablehlo" in o.source]
    lines = [*table_lines(outcomes), ""] if outcomes else ["no module was chosen"]
    if by_family:
        lines += [*family_lines(by_family), ""]
    lines += [*host_lines(outcomes), *group_lines(outcomes, options.causes)]
    lines.append(f"{len(outcomes)} modules ({len(judged(outcomes))} counted) in {seconds:.0f} s")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
