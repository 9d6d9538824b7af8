"""`make bench`: what nxcc costs and what it predicts, beside XLA for this CPU in the same run and beside published chip times.

Sections: start (what every command pays), compile (CPU seconds, peak memory), size (code of equal layers, of large products
and of a decoder of 7 billion parameters), simulate (`nxcc run`), estimate (published, estimated and roofline times). The
machine may be busy: read CPU seconds and ratios, not wall time. XLA's part needs jax, IREE's also iree-compile (extra `bench`,
or --xla-python and --iree-compile); what is missing is said and left out.
"""

from __future__ import annotations

import argparse
import compileall
import json
import math
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import chip
import inferentia
from decoder import SEVEN_BILLION, Decoder, decoder_text
from modules import Corpus, CorpusMissing, layers_text, matmul_text, mlp_text, open_corpus, parameter_shapes, write_as_proto
from peers import HERE, Peers, find_peers
from processes import Cost, run

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
from calibration.published import KERNELS  # noqa: E402

NXCC = [sys.executable, "-m", "nxcc.cli"]
MODELS = ("bert_base_b1_s128", "resnet50_jax_b1", "gpt2_decode_b1_kv63")
SIMULATED = ("bert_base_b1_s128", "resnet50_jax_b1")
CALLS = 5
GRAPH = "resnet50_tf1"
FRONTEND_CPU_S, FRONTEND_MEMORY = 3.0, 1.5
"""What reading, lowering and compiling the graph may take: CPU seconds, and memory of its own as a multiple of the file."""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""For simulated runs: on a busy machine more threads of numpy's BLAS wait for each other in loops, which counts as CPU time."""


@dataclass
class Bench:
    """One run: options, folders, whom to measure beside, and what was found."""

    options: argparse.Namespace
    cache: Path
    peers: Peers
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


# ---- start -------------------------------------------------------------------------------------------------------------

STARTED: tuple[tuple[str, ...], ...] = (("--help",), ("list-operators",), ("compile", "--help"))


def bench_start(bench: Bench) -> None:
    """CPU seconds of commands that do next to nothing, the least of several runs."""
    say("\nstart: CPU seconds of a whole process, the least of 5")
    rows = {}
    for words in STARTED:
        rows[" ".join(words)] = min(bench.nxcc(*words).cpu_s for _ in range(5))
        say(f"nxcc {' '.join(words):18} {rows[' '.join(words)]:8.3f}")
    bench.results["start"] = rows


# ---- compile ----------------------------------------------------------------------------------------------------------


def bench_compile(bench: Bench) -> None:
    """CPU seconds and peak memory of whole processes."""
    say("\ncompile: whole process, start-up included")
    say(f"{'model':22} {'weights':10} {'CPU s':>8} {'MiB':>7} {'own MiB':>7} {'XLA s':>8} {'MiB':>7} {'ratio s':>8} ratio MiB"
        f" {'IREE s':>8} {'MiB':>7} {'ratio s':>8}")
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
        others = {"xla": bench.peers.xla_compile(path), "iree": bench.peers.iree_compile(path)}
        rows.append(_compile_row(name, weights, ours, others))
    bench.results["compile"] = rows


def _compile_row(name: str, weights: str, ours: Cost, others: dict[str, Cost | None]) -> dict[str, Any]:
    row: dict[str, Any] = {"model": name, "weights": weights, "cpu_s": ours.cpu_s, "peak_mib": ours.peak_mib,
                           "anonymous_mib": ours.anonymous_mib, "failure": ours.failure}
    shown = [f"{name:22} {weights:10} {ours.cpu_s:8.2f} {ours.peak_mib:7.0f} {ours.anonymous_mib:7.0f}"]
    for peer, cost in others.items():
        if cost is None or cost.failure:
            shown.append(f"{'-':>8} {'-':>7} {'-':>8}" + f" {'-':>9}" * (peer == "xla"))
        else:
            shown.append(f"{cost.cpu_s:8.2f} {cost.peak_mib:7.0f} {ratio(ours.cpu_s, cost.cpu_s):>8}"
                         + f" {ratio(ours.peak_mib, cost.peak_mib):>9}" * (peer == "xla"))
        if cost is not None:
            row |= {f"{peer}_cpu_s": cost.cpu_s, f"{peer}_peak_mib": cost.peak_mib, f"{peer}_failure": cost.failure}
    say(" ".join(shown))
    for what, failure in (("nxcc", ours.failure), *((peer, cost.failure) for peer, cost in others.items() if cost)):
        if failure:
            say(f"  {what}: {failure}")
    return row


# ---- size -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sized:
    """A module whose cost is shown by itself or as a ratio to that of the next one. weights: as --weight-params takes them."""

    name: str
    text: str
    weights: str = ""


def _decoder(name: str, shape: Decoder) -> Sized:
    return Sized(name, decoder_text(shape), f"0-{shape.weights - 1}")


PRODUCTS = (1024, 2048, 5000, 8192)
"""Extents of the products whose code is counted."""


def bench_size(bench: Bench) -> None:
    """Machine instructions and CPU seconds of products of several sizes, of equal layers, and of a large decoder."""
    say("\nsize: machine instructions in the file; ratios to the first of each kind below it")
    layers = [Sized(f"{n} layers", layers_text(n), f"1-{4 * n}") for n in (6, 24)]
    decoders = [_decoder(f"decoder {n} layers", replace(SEVEN_BILLION, layers=n)) for n in (6, 24)]
    large = [_decoder("7B decoder, decode", SEVEN_BILLION), _decoder("7B decoder, prefill", replace(SEVEN_BILLION, tokens=128))]
    products = [[Sized(f"{dtype} matmul {n}^3", matmul_text(n, dtype)) for n in PRODUCTS] for dtype in ("bf16", "f32")]
    rows = []
    for group in (*products, layers, decoders):
        small, *others = (_size_row(bench, module) for module in group)
        for great in others:
            if not small["failure"] and not great["failure"]:
                say(f"{'  to the first':20} {ratio(great['instructions'], small['instructions'])}               "
                    f"{ratio(great['cpu_s'], small['cpu_s'])}")
        rows += [small, *others]
    rows += [_size_row(bench, module, profiled=True) for module in large]
    bench.results["size"] = rows


def _size_row(bench: Bench, module: Sized, profiled: bool = False) -> dict[str, Any]:
    """Compile a module, and profile what came out if asked to."""
    stem = "".join(c if c.isalnum() else "_" for c in module.name)
    path = write_as_proto(module.text, bench.cache / f"{stem}.hlo.pb")
    neff, cost = bench.compile(path, stem, *(["--weight-params", module.weights] if module.weights else []))
    row: dict[str, Any] = {"name": module.name, "cpu_s": cost.cpu_s, "peak_mib": cost.peak_mib, "failure": cost.failure,
                           "instructions": 0 if cost.failure else _instructions(bench, neff)}
    line = f"{module.name:20} {row['instructions']:8} instructions {cost.cpu_s:8.2f} CPU s {cost.peak_mib:6.0f} MiB"
    if profiled and not cost.failure:
        row |= {f"{command}_cpu_s": bench.nxcc(command, str(neff)).cpu_s for command in ("profile", "estimate")}
        line += f"; profile {row['profile_cpu_s']:.2f}, estimate {row['estimate_cpu_s']:.2f} CPU s"
    say(f"{line}  {cost.failure}")
    return row


def _instructions(bench: Bench, neff: Path) -> int:
    """Static machine instructions of a file: the lines of its disassembly below engines."""
    text = bench.nxcc("disasm", str(neff)).out
    return sum(1 for line in text.splitlines() if line.startswith("    "))


# ---- simulate ---------------------------------------------------------------------------------------------------------


def bench_simulate(bench: Bench) -> None:
    """CPU seconds of one simulated call, loading left out, beside XLA's code."""
    say("\nsimulate: CPU seconds of one call, numpy with one thread")
    corpus = bench.corpus()
    rows = []
    for name in SIMULATED:
        neff, cost = bench.compile(corpus.model(name), name, "--weight-params", corpus.weight_params("models", name))
        row: dict[str, Any] = {"model": name, "failure": cost.failure}
        if not cost.failure:
            ran = run([*NXCC, "run", str(neff), "--weights", str(corpus.weights(name)), "--inputs", str(corpus.inputs(name)),
                       "--timing", "--json"], bench.options.timeout, ONE_THREAD)
            row["failure"] = ran.failure
            if not ran.failure:
                row["run_cpu_s"] = json.loads(ran.out)["run_cpu_s"]
        if bench.peers.xla:
            shapes = parameter_shapes(corpus.model(name), bench.cache / f"{name}.shapes.json")
            theirs = run([bench.peers.xla, str(HERE / "xla_cpu.py"), str(corpus.model(name)), str(CALLS), str(shapes)],
                         bench.options.timeout)
            row["xla_cpu_s"] = None if theirs.failure else float(theirs.out) / 1e3
        rows.append(row)
        ours, xla = row.get("run_cpu_s"), row.get("xla_cpu_s")
        say(f"{name:22} {row['failure'] or f'{ours:8.3f}'}  XLA {f'{xla:8.3f}' if xla else '-'}"
            + (f"  ratio {ours / xla:.2f}" if ours and xla else ""))
    bench.results["simulate"] = rows


# ---- estimate ---------------------------------------------------------------------------------------------------------


def bench_estimate(bench: Bench) -> None:
    """The modules of the timing corpus: estimated, published and roofline times."""
    say("\nestimate: one call on one core; published less the host call where that is inside")
    corpus = bench.corpus()
    priorities = chip.PRIORITIES if bench.options.priority == "all" else tuple(bench.options.priority.split(","))
    found = [row for row in chip.rows(corpus.path / "timing", priorities=priorities)
             if (not bench.options.module or row.module in bench.options.module) and corpus.has_graph(row.module)]

    def one(setting: tuple[str, str]) -> dict[str, Any]:
        shown = _estimated(bench, corpus, *setting)
        sys.stderr.write(f"{' '.join(setting)}: {shown.get('failure') or shown['device_us']}\n")
        return shown

    wanted = list(dict.fromkeys((row.module, row.cast) for row in found))
    with ThreadPoolExecutor(bench.options.jobs) as pool:
        estimates = dict(zip(wanted, pool.map(one, wanted), strict=True))
    lines, families = chip.table(found, estimates)
    hand = _by_hand({line["module"] for line in lines})
    say(f"{'module':28} {'cast':8} {'est ms':>9} {'publ ms':>9} {'best ms':>9} {'hand ms':>9} {'roof ms':>9} {'est/publ':>8} "
        f"{'est/roof':>8} {'grade':5} rows  bound by")
    for line in lines:
        line["hand_ms"] = hand.get(line["module"])
        say(_estimate_line(line))
    say(f"publ, best: mean and least of the rows, less {chip.HOST_CALL_MS} ms of host call where that is inside")
    say("hand: the clock's time of the best published schedule")
    for row in families:
        say(f"{row['family']}: geometric mean of est/publ over {row['modules']} lines of grade A: {row['mean']:.2f}, spread "
            f"{row['spread']:.2f} ({row['least']:.2f} to {row['most']:.2f})")
    left = chip.left_out(corpus.path / "timing", "v2", priorities, corpus.has_graph)
    for reason, ids in sorted(left.items()):
        say(f"left out: {len(ids)} rows: {reason}: {', '.join(ids[:6])}{', ..' if len(ids) > 6 else ''}")
    bench.results["estimate"] = {"lines": lines, "families": families, "left_out": left,
                                 "modules": [{"module": m, "cast": c} | e for (m, c), e in estimates.items()]}


def _estimated(bench: Bench, corpus: Corpus, module: str, cast: str, *options: str,
               timing: tuple[str, ...] = ()) -> dict[str, Any]:
    """The report of `nxcc estimate` on a module of the timing corpus. options: of the compile; timing: of the estimate."""
    path = corpus.timing(module)
    if path is None:
        return {"failure": "the corpus has no graph"}
    weights = corpus.weight_params("timing", module)
    words = ["--weight-params", weights] if weights else []
    neff, compiled = bench.compile(path, f"{module}.{cast}", "--auto-cast", cast, *options, *words)
    if compiled.failure:
        return {"failure": compiled.failure, "compile_cpu_s": compiled.cpu_s}
    timed = bench.nxcc("estimate", str(neff), "--json", "--no-advice", *timing)
    if timed.failure:
        return {"failure": timed.failure, "compile_cpu_s": compiled.cpu_s}
    body: dict[str, Any] = json.loads(timed.out)
    neff.unlink()
    return body | {"compile_cpu_s": compiled.cpu_s, "estimate_cpu_s": timed.cpu_s}


def _by_hand(modules: set[str]) -> dict[str, float]:
    """Milliseconds on the clock of the quickest published schedule of each of these modules that has one."""
    found: dict[str, float] = {}
    for row in KERNELS:
        if row.module in modules:
            found[row.module] = min(found.get(row.module, math.inf), row.clocked_us() / 1e3)
    return found


def _estimate_line(line: dict[str, Any]) -> str:
    hand = line.get("hand_ms")
    published = f"{line['device_ms']:9.3f} {line['best_ms']:9.3f} " + (f"{hand:9.3f}" if hand else f"{'-':>9}")
    head = f"{line['module']:28} {line['cast']:8}"
    if "failure" in line:
        return f"{head} {'-':>9} {published} {'-':>9} {'-':>8} {'-':>8} {line['grade']:5} {line['rows']:4}  {line['failure']}"
    return (f"{head} {line['estimated_ms']:9.3f} {published} {line['roofline_ms']:9.3f} {line['ratio']:8.2f} "
            f"{line['of_roofline']:8.2f} {line['grade']:5} {line['rows']:4}  {line['bound_by']}"
            + (" (loops on data taken once)" if line["assumed_branches"] else ""))


# ---- graphs -----------------------------------------------------------------------------------------------------------


def bench_frontend(bench: Bench) -> None:
    """A TensorFlow graph of 100 MB: read, lowered and compiled for both targets."""
    say("\nfrontend: a frozen graph to a NEFF, whole process, start-up included")
    rows = []
    path, config = bench.corpus().graph(GRAPH)
    size = path.stat().st_size / 2**20
    for target in ("v1", "v2"):
        _, cost = bench.compile(path, f"{GRAPH}.{target}", "--framework", "TENSORFLOW", "--io-config", str(config),
                                "--target", target)
        row = {"graph": GRAPH, "target": target, "file_mib": size, "cpu_s": cost.cpu_s, "anonymous_mib": cost.anonymous_mib,
               "failure": cost.failure}
        rows.append(row)
        say(f"{GRAPH:16} {target} {size:7.1f} MiB {cost.cpu_s:8.2f} CPU s (limit {FRONTEND_CPU_S}) "
            f"{cost.anonymous_mib:7.1f} MiB of its own, "
            f"{cost.anonymous_mib / size:.2f} times the file (limit {FRONTEND_MEMORY})  {cost.failure}")
    bench.results["frontend"] = rows


# ---- v1 ---------------------------------------------------------------------------------------------------------------


def bench_inferentia(bench: Bench) -> None:
    """Estimated v1 times beside published ones of Inf1."""
    say("\ninferentia: one call on one core of v1; published less the host call where that is inside")
    corpus = bench.corpus()
    found = {setting: rows for setting, rows in inferentia.settings(corpus.path / "timing").items()
             if not bench.options.module or setting.module in bench.options.module}
    estimates = {setting: _estimated(
        bench, corpus, setting.module, setting.cast, "--target", "v1", "--auto-cast-type", setting.cast_type,
        timing=("--busy-cores", str(setting.busy_cores))) for setting in found}
    lines = inferentia.table(found, estimates)
    say(f"{'module':28} {'cores':>5} {'est ms':>9} {'publ ms':>9} {'est/publ':>8} {'grade':5} bound by; most moved by")
    for line in lines:
        head = f"{line['module']:28} {line['busy_cores']:5}"
        if "failure" in line:
            say(f"{head} {'-':>9} {line['published_ms']:9.3f} {'-':>8} {line['grade']:5} {line['failure']}")
            continue
        moved = line["moved_ms"] and f"{line['moved_most_by']}: {line['moved_ms'][0]:.2f} to {line['moved_ms'][1]:.2f} ms"
        say(f"{head} {line['estimated_ms']:9.3f} {line['published_ms']:9.3f} {line['ratio']:8.2f} {line['grade']:5} "
            f"{line['bound_by']}; {moved}")
    total = inferentia.summary(lines, list(estimates.values()))
    if total["lines"]:
        say(f"grade A: {total['lines']} lines, est/publ {total['least']:.2f} to {total['most']:.2f}, geometric mean "
            f"{total['mean']:.2f}, rank correlation {total['rank_correlation']:.2f}; {total['missing']} without an estimate; "
            f"most moved by: {total['moved_most_by']}")
    bench.results["inferentia"] = {"lines": lines, "summary": total}


def bench_pipeline(bench: Bench) -> None:
    """NeuronCore Pipeline: estimated and published latency and throughput."""
    say("\npipeline: one model over several cores of v1; latency in an empty pipeline, results a second from a full one")
    corpus = bench.corpus()
    say(f"{'module':20} {'cores':>5} {'us apart':>8} {'a second':>8} {'publ':>7} {'latency ms':>10} {'publ':>5} "
        f"{'on chip MB':>10} {'streamed':>8} {'least':>6} bound by")
    rows = []
    for published in inferentia.pipelines(corpus.path / "timing"):
        for cores in sorted({*inferentia.PIPELINE_CORES, published.cores}):
            found = _estimated(bench, corpus, published.module, "all", "--target", "v1", "--auto-cast-type", "bf16",
                               "--neuroncore-pipeline-cores", str(cores))
            row = inferentia.pipeline_row(published, cores, found)
            rows.append(row)
            say(inferentia.pipeline_line(row))
    say("least: share of the interval in which the least busy stage works; one core: its weights come from memory in each run")
    bench.results["pipeline"] = rows


# ---- clock ------------------------------------------------------------------------------------------------------------


def bench_clock(bench: Bench) -> None:
    """The simulator's time of published schedules, without our compiler in between (tests/calibration)."""
    say("\nclock: hand-written schedules of published kernels")
    say(f"{'kernel':26} {'clock us':>10} {'publ us':>10} {'ratio':>6} grade")
    rows = []
    for row in KERNELS:
        us = row.clocked_us()
        rows.append({"kernel": row.name, "module": row.module, "clock_us": us, "published_us": row.us, "grade": row.grade})
        say(f"{row.name:26} {us:10.1f} {row.us:10.1f} {us / row.us:6.2f} {row.grade:5}  {row.why}")
    ratios = [row["clock_us"] / row["published_us"] for row in rows if row["grade"] == "A"]
    say(f"grade A: geometric mean {chip.mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    bench.results["clock"] = rows


# ---- all --------------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[Bench], None]] = {
    "start": bench_start, "compile": bench_compile, "size": bench_size, "simulate": bench_simulate, "clock": bench_clock,
    "estimate": bench_estimate, "frontend": bench_frontend, "inferentia": bench_inferentia,
    "pipeline": bench_pipeline}


def _compile_bytecode() -> None:
    """Byte code for the package, as an installer makes it: where writing it is forbidden, each process would compile again."""
    import nxcc
    root = Path(nxcc.__file__).resolve().parent
    compileall.compile_dir(str(root), maxlevels=0, quiet=2)
    for package in root.glob("*/__init__.py"):
        compileall.compile_dir(str(package.parent), quiet=2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help=f"any of {', '.join(SECTIONS)}; all if none is named")
    parser.add_argument("--corpus", default="", help="folder with models/ and timing/; default: $NXCC_CORPUS")
    parser.add_argument("--module", action="append", help="estimate only this module (repeatable)")
    parser.add_argument("--priority", default="core",
                        help=f"modules estimated, by their priority in modules.csv: {', '.join(chip.PRIORITIES)} or all")
    parser.add_argument("--xla-python", default=sys.executable, help="interpreter that has jax")
    parser.add_argument("--iree-compile", default="iree-compile", help="IREE's compiler; looked for on the path")
    parser.add_argument("--jobs", type=int, default=1, help="modules estimated at a time")
    parser.add_argument("--optlevel", default="2", choices=list("0123"))
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one process")
    parser.add_argument("--cache", type=Path, default=Path("build/bench"), help="folder for unpacked modules and files made")
    parser.add_argument("--json", type=Path, default=Path("build/bench/bench.json"), help="where to write all results")
    options = parser.parse_args()
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {unknown[0]!r}; known: {', '.join(SECTIONS)}")
    options.cache.mkdir(parents=True, exist_ok=True)
    peers, missing = find_peers(options.xla_python, options.iree_compile, options.cache, options.timeout)
    bench = Bench(options, options.cache, peers)
    for line in missing:
        say(line)
    _compile_bytecode()
    for name in options.sections or SECTIONS:
        try:
            SECTIONS[name](bench)
        except CorpusMissing as absent:
            say(f"left out: {absent}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"schema": 1, "optlevel": options.optlevel, **bench.results}, indent=1, sort_keys=True))
    say(f"\nwritten to {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
