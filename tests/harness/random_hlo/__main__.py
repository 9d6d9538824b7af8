"""Any number of random modules before all judges: python -m harness.random_hlo [--count N] [--seed S]."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from harness.random_hlo import Bounds, Tally, check, drawn_opcodes, fault_text, reduced


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("random_hlo", description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the first module")
    parser.add_argument("--instructions", type=int, default=Bounds().instructions)
    parser.add_argument("--reduce", type=int, default=150, help="trials to reduce each fault with; 0: do not")
    options = parser.parse_args(words)
    tally, faults = Tally(), Counter[str]()
    for seed in range(options.seed, options.seed + options.count):
        fault = check(seed, tally, Bounds(instructions=options.instructions))
        if fault is None:
            continue
        faults[fault.verdict.key] += 1
        first = faults[fault.verdict.key] == 1 or fault.verdict.key == "differs"
        small = reduced(fault, options.reduce) if options.reduce and first else fault.candidate
        sys.stdout.write((fault_text(fault, small) if first else f"seed {seed}, {fault.trial}: {fault.verdict.key}") + "\n\n")
        sys.stdout.flush()
    _print_tally(tally, faults)
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
