"""Any number of random modules before all judges: python -m harness.random_hlo [--count N] [--seed S]."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from nxcc.passes import rewriting

from harness.random_hlo import Bounds, Court, Tally, check, drawn_opcodes, fault_text, reduced
from harness.xla import Xla

rewriting.GIVES_UP = False


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("random_hlo", description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the first module")
    parser.add_argument("--instructions", type=int, default=Bounds().instructions)
    parser.add_argument("--rank", type=int, default=Bounds().rank, help="dimensions a value has at most")
    parser.add_argument("--sizes", default="", help="of dimensions, with commas")
    parser.add_argument("--reduce", type=int, default=150, help="trials to reduce each fault with; 0: do not")
    parser.add_argument("--levels", default="0,1", help="of optimisation; empty: none")
    parser.add_argument("--strict", action="store_true", help="simulate all in strict mode")
    parser.add_argument("--target", default="v2", choices=("v1", "v2"))
    parser.add_argument("--auto-cast", default="", choices=("matmult", "all"), help="what the compiler casts")
    parser.add_argument("--quick", action="store_true", help="the levels only, and no pass switched off")
    parser.add_argument("--xla", default="", metavar="PYTHON", help="a Python with jax: XLA judges the oracle")
    parser.add_argument("--focus", default="", help="opcodes and patterns that every second draw is of, with commas")
    parser.add_argument("--without", default="", help="opcodes that are not drawn, with commas")
    options = parser.parse_args(words)
    tally, faults = Tally(), Counter[str]()
    xla = Xla(options.xla) if options.xla else None
    court = Court(tuple(filter(None, options.levels.split(","))), options.strict, options.target, options.quick,
                  options.auto_cast, xla)
    sizes = tuple(map(int, filter(None, options.sizes.split(",")))) or Bounds().sizes
    bounds = Bounds(instructions=options.instructions, rank=options.rank, sizes=sizes,
                    focus=tuple(filter(None, options.focus.split(","))),
                    without=tuple(filter(None, options.without.split(","))))
    for seed in range(options.seed, options.seed + options.count):
        fault = check(seed, tally, bounds, court)
        if tally.modules % 100 == 0:
            sys.stderr.write(f"{tally.modules} modules, {sum(faults.values())} faults\n")
        if fault is None:
            continue
        faults[fault.verdict.key] += 1
        first = faults[fault.verdict.key] == 1 or fault.verdict.key == "differs"
        small = reduced(fault, options.reduce) if options.reduce and first else fault.candidate
        sys.stdout.write((fault_text(fault, small) if first else f"seed {seed}, {fault.trial}: {fault.verdict.key}") + "\n\n")
        sys.stdout.flush()
    _print_tally(tally, faults)
    if xla is not None:
        xla.close()
    return int(bool(faults))


def _print_tally(tally: Tally, faults: Counter[str]) -> None:
    never = [name for name in drawn_opcodes() if not tally.opcodes[name]]
    lines = [f"{tally.modules} modules, trials: " + ", ".join(f"{n} {kind}" for kind, n in tally.verdicts.most_common()),
             "operators: " + ", ".join(f"{name} {n}" for name, n in tally.opcodes.most_common()),
             f"never drawn: {', '.join(never) or 'none'}"]
    lines += [f"refused {n}: {key}" for key, n in tally.refused.most_common()]
    lines += [f"fault {n}: {key}" for key, n in faults.most_common()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
