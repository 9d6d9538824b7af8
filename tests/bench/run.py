"""`make bench`: what nxcc costs and what it predicts, beside XLA for this CPU in the same run and beside published chip times.

Sections: compile (CPU seconds, peak memory), size (code of equal layers and of large products), simulate (`nxcc run`),
estimate (published, estimated and roofline times). The machine may be busy: read CPU seconds and ratios, not wall time.
XLA's part needs jax (extra `bench`, or --xla-python with an interpreter that has it); what is missing is said and left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chip
from modules import Corpus, CorpusMissing, layers_text, matmul_text, mlp_text, open_corpus, parameter_shapes, write_as_proto
from processes import Cost, run

NXCC = [sys.executable, "-m", "nxcc.cli"]
HERE = Path(__file__).resolve().parent
MODELS = ("bert_base_b1_s128", "resnet50_jax_b1", "gpt2_decode_b1_kv63")
SIMULATED = ("bert_base_b1_s128", "resnet50_jax_b1")
CALLS = 5
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""For simulated runs: on a busy machine more threads of numpy's BLAS wait for each other in loops, which counts as CPU time."""


@dataclass
class Bench:
    """One run: options, folders, and what was found. xla: an interpreter with jax, empty if there is none."""

    options: argparse.Namespace
    cache: Path
    xla: str = ""
    results: dict[str, Any] = field(default_factory=dict)

    def corpus(self) -> Corpus:
        return open_corpus(self.options.corpus, self.cache)

    def nxcc(self, *words: str) -> Cost:
        return run([*NXCC, *words], self.options.timeout)

    def compile(self, path: Path, name: str, *words: str) -> tuple[Path, Cost]:
        """Compile a module; where the NEFF lies, and what it took."""
        output = self.cache / f"{name}.neff"
        output.unlink(missing_ok=True)
        return output, self.nxcc("compile", str(path), "-o", str(output), "--quiet", f"-O{self.options.optlevel}", *words)


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def ratio(ours: float, theirs: float | None) -> str:
    return f"{ours / theirs:6.2f}" if theirs else "     -"


# ---- compile ----------------------------------------------------------------------------------------------------------


def bench_compile(bench: Bench) -> None:
    """CPU seconds and peak memory of whole processes."""
    say("\ncompile: whole process, start-up included")
    say(f"{'model':22} {'weights':10} {'CPU s':>8} {'MiB':>7} {'own MiB':>7} {'XLA s':>8} {'MiB':>7} {'ratio s':>8} ratio MiB")
    rows = []
    cases: list[tuple[str, str, Path, list[str]]] = [
        ("mlp", "parameters", write_as_proto(mlp_text(), bench.cache / "mlp.hlo.pb"), ["--weight-params", "1-8"]),
        ("mlp", "constants", write_as_proto(mlp_text(), bench.cache / "mlp.constants.hlo.pb", bound=True), [])]
    try:
        corpus = bench.corpus()
        for name in MODELS:
            cases.append((name, "parameters", corpus.model(name), ["--weight-params", corpus.weight_params("models", name)]))
            cases.append((name, "constants", corpus.constants(name), ["--auto-cast", "all"]))
    except CorpusMissing as missing:
        say(f"left out: {missing}")
    for name, weights, path, words in cases:
        _, ours = bench.compile(path, f"{name}.{weights}", *words)
        theirs = run([bench.xla, str(HERE / "xla_cpu.py"), str(path)], bench.options.timeout) if bench.xla else None
        rows.append(_compile_row(name, weights, ours, theirs))
    bench.results["compile"] = rows


def _compile_row(name: str, weights: str, ours: Cost, theirs: Cost | None) -> dict[str, Any]:
    row: dict[str, Any] = {"model": name, "weights": weights, "cpu_s": ours.cpu_s, "peak_mib": ours.peak_mib,
                           "anonymous_mib": ours.anonymous_mib,
                           "failure": ours.failure}
    xla_s = xla_mib = None
    if theirs is not None:
        row |= {"xla_cpu_s": theirs.cpu_s, "xla_peak_mib": theirs.peak_mib, "xla_failure": theirs.failure}
        if not theirs.failure:
            xla_s, xla_mib = theirs.cpu_s, theirs.peak_mib
    other = f"{xla_s:8.2f} {xla_mib:7.0f}" if xla_s is not None else f"{'-':>8} {'-':>7}"
    say(f"{name:22} {weights:10} {ours.cpu_s:8.2f} {ours.peak_mib:7.0f} {ours.anonymous_mib:7.0f} {other} "
        f"{ratio(ours.cpu_s, xla_s):>8} {ratio(ours.peak_mib, xla_mib):>9}")
    if ours.failure:
        say(f"  {ours.failure}")
    return row


# ---- size -------------------------------------------------------------------------------------------------------------


def bench_size(bench: Bench) -> None:
    """Machine instructions and CPU seconds of products of two sizes, and of two numbers of equal layers."""
    say("\nsize: machine instructions in the file")
    rows = []
    for small, large, text, sizes in (("matmul 1024^3", "matmul 8192^3", matmul_text, (1024, 8192)),
                                      ("6 layers", "24 layers", layers_text, (6, 24))):
        pair = []
        for name, size in zip((small, large), sizes, strict=True):
            path = bench.cache / f"{name.replace(' ', '_')}.hlo"
            path.write_text(text(size))
            words = ["--weight-params", f"1-{4 * size}"] if text is layers_text else []
            neff, cost = bench.compile(path, path.stem, *words)
            pair.append({"name": name, "cpu_s": cost.cpu_s, "instructions": 0 if cost.failure else _instructions(bench, neff),
                         "failure": cost.failure})
            say(f"{name:16} {pair[-1]['instructions']:8} instructions {cost.cpu_s:8.2f} CPU s  {cost.failure}")
        if not any(row["failure"] for row in pair):
            say(f"{'ratio':16} {ratio(pair[1]['instructions'], pair[0]['instructions'])}       "
                f"       {ratio(pair[1]['cpu_s'], pair[0]['cpu_s'])}")
        rows += pair
    bench.results["size"] = rows


def _instructions(bench: Bench, neff: Path) -> int:
    """Static machine instructions of a file: the lines of its disassembly below engines."""
    text = bench.nxcc("disasm", str(neff)).out
    return sum(1 for line in text.splitlines() if line.startswith("    "))


# ---- simulate ---------------------------------------------------------------------------------------------------------


def bench_simulate(bench: Bench) -> None:
    """CPU seconds of one simulated call, loading left out, beside XLA's code."""
    say("\nsimulate: CPU seconds of one call, numpy with one thread")
    try:
        corpus = bench.corpus()
    except CorpusMissing as missing:
        say(f"left out: {missing}")
        return
    rows = []
    for name in SIMULATED:
        neff, cost = bench.compile(corpus.model(name), name, "--weight-params", corpus.weight_params("models", name))
        row: dict[str, Any] = {"model": name, "failure": cost.failure}
        if not cost.failure:
            ran = run([*NXCC, "run", str(neff), "--weights", str(corpus.weights(name)), "--timing", "--json"],
                      bench.options.timeout, ONE_THREAD)
            row["failure"] = ran.failure
            if not ran.failure:
                row["run_cpu_s"] = json.loads(ran.out)["run_cpu_s"]
        if bench.xla:
            shapes = parameter_shapes(corpus.model(name), bench.cache / f"{name}.shapes.json")
            theirs = run([bench.xla, str(HERE / "xla_cpu.py"), str(corpus.model(name)), str(CALLS), str(shapes)],
                         bench.options.timeout)
            row["xla_cpu_s"] = None if theirs.failure else float(theirs.out) / 1e3
        rows.append(row)
        ours, xla = row.get("run_cpu_s"), row.get("xla_cpu_s")
        say(f"{name:22} {row['failure'] or f'{ours:8.3f}'}  XLA {f'{xla:8.3f}' if xla else '-'}"
            + (f"  ratio {ours / xla:.2f}" if ours and xla else ""))
    bench.results["simulate"] = rows


# ---- estimate ---------------------------------------------------------------------------------------------------------


def bench_estimate(bench: Bench) -> None:
    """The core modules of the timing corpus: estimated, published and roofline times."""
    say("\nestimate: one call on one core; published less the host call where that is inside")
    try:
        corpus = bench.corpus()
    except CorpusMissing as missing:
        say(f"left out: {missing}")
        return
    found = [row for row in chip.rows(corpus.path / "timing") if not bench.options.module or row.module in bench.options.module]
    estimates = {}
    for module, cast in dict.fromkeys((row.module, row.cast) for row in found):
        estimates[module, cast] = _estimated(bench, corpus, module, cast)
        shown = estimates[module, cast]
        sys.stderr.write(f"{module} {cast}: {shown.get('failure') or shown['device_us']}\n")
    lines, families = chip.table(found, estimates)
    say(f"{'module':28} {'cast':8} {'est ms':>9} {'publ ms':>9} {'best ms':>9} {'roof ms':>9} {'est/publ':>8} {'est/roof':>8} "
        f"{'grade':5} rows  bound by")
    for line in lines:
        say(_estimate_line(line))
    for row in families:
        say(f"family {row['family']}: geometric mean of est/publ over {row['modules']} lines of grade A: {row['mean']:.2f} "
            f"({row['least']:.2f} to {row['most']:.2f})")
    bench.results["estimate"] = {"lines": lines, "families": families,
                                 "modules": [{"module": m, "cast": c} | e for (m, c), e in estimates.items()]}


def _estimated(bench: Bench, corpus: Corpus, module: str, cast: str) -> dict[str, Any]:
    path = corpus.timing(module)
    if path is None:
        return {"failure": "the corpus has no graph"}
    weights = corpus.weight_params("timing", module)
    words = ["--weight-params", weights] if weights else []
    neff, compiled = bench.compile(path, f"{module}.{cast}", "--auto-cast", cast, *words)
    if compiled.failure:
        return {"failure": compiled.failure, "compile_cpu_s": compiled.cpu_s}
    timed = bench.nxcc("estimate", str(neff), "--json")
    if timed.failure:
        return {"failure": timed.failure, "compile_cpu_s": compiled.cpu_s}
    body: dict[str, Any] = json.loads(timed.out)
    neff.unlink()
    return body | {"compile_cpu_s": compiled.cpu_s, "estimate_cpu_s": timed.cpu_s}


def _estimate_line(line: dict[str, Any]) -> str:
    published = f"{line['device_ms']:9.3f} {line['best_ms']:9.3f}"
    head = f"{line['module']:28} {line['cast']:8}"
    if "failure" in line:
        return f"{head} {'-':>9} {published} {'-':>9} {'-':>8} {'-':>8} {line['grade']:5} {line['rows']:4}  {line['failure']}"
    return (f"{head} {line['estimated_ms']:9.3f} {published} {line['roofline_ms']:9.3f} {line['ratio']:8.2f} "
            f"{line['of_roofline']:8.2f} {line['grade']:5} {line['rows']:4}  {line['bound_by']}"
            + (" (loops on data taken once)" if line["assumed_branches"] else ""))


# ---- all --------------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[Bench], None]] = {
    "compile": bench_compile, "size": bench_size, "simulate": bench_simulate, "estimate": bench_estimate}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help=f"any of {', '.join(SECTIONS)}; all if none is named")
    parser.add_argument("--corpus", default="", help="folder with models/ and timing/; default: $NXCC_CORPUS")
    parser.add_argument("--module", action="append", help="estimate only this module (repeatable)")
    parser.add_argument("--xla-python", default=sys.executable, help="interpreter that has jax")
    parser.add_argument("--optlevel", default="2", choices=list("012"))
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one process")
    parser.add_argument("--cache", type=Path, default=Path("build/bench"), help="folder for unpacked modules and files made")
    parser.add_argument("--json", type=Path, default=Path("build/bench/bench.json"), help="where to write all results")
    options = parser.parse_args()
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {unknown[0]!r}; known: {', '.join(SECTIONS)}")
    options.cache.mkdir(parents=True, exist_ok=True)
    bench = Bench(options, options.cache)
    if run([options.xla_python, "-c", "import jax"]).status == 0:
        bench.xla = options.xla_python
    else:
        say(f"XLA is left out: {options.xla_python} has no jax (pip install 'nxcc[bench]', or --xla-python)")
    for name in options.sections or SECTIONS:
        SECTIONS[name](bench)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"schema": 1, "optlevel": options.optlevel, **bench.results}, indent=1, sort_keys=True))
    say(f"\nwritten to {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
