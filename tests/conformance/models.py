"""Run whole models and TensorFlow graphs through compiler and simulator, and hold the results against two judges.

python -m conformance.models [--target v1] [--levels 0,2] [--auto-cast all] FOLDER ...     (with tests/ on the path)

Each result is held against the stored one, as far as the casts allow, and tightly against the oracle on the module inside the
NEFF, which is the module after all passes: there, only the order of sums and the engines' functions may differ. Where the host
chooses among rounded values, a last place decides which, and what follows is another value: then each node is held against the
oracle on what that node read.
A graph that is broken or odd must end in an error that says so, or in what TensorFlow computes from it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from conformance.arguments import chosen, runner_parser
from conformance.corpus import CorpusMissing
from conformance.graphs import KINDS, MODEL, ODD, OPERATOR, GraphCase, Prepared, open_graphs, prepare
from conformance.pool import run_all
from conformance.report import group_lines, groups
from conformance.walk import CLASSES, INTERNAL_ERROR, PASSED, REJECTED, WRONG, Differs, Walk, WalkOutcome

from nxcc.compiler.driver import Build, Request, compile_file
from nxcc.compiler.interface.parameters import conform
from nxcc.compiler.options import options_from
from nxcc.compiler.runtime.loaded import Loaded, load
from nxcc.compiler.tolerances import is_discrete, output_error, tolerance
from nxcc.compiler.verify import autocast_tolerance, oracle_inside
from nxcc.ir.diagnostics import INPUT_MISMATCH
from nxcc.ir.dtypes import BF16, F16, DType
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.texts import is_text
from nxcc.ir.shapes import Shape
from nxcc.neff.members import Node
from nxcc.passes.partitioning.nodes import Node as PlanNode

Array = np.ndarray[Any, Any]

STEPS = {"compiled": "compiled", "loaded": "loaded", "ran": "ran", "stored": "agrees with the stored result",
         "oracle": "agrees with the oracle on the module inside"}
SCHEMA = 1
NARROW_TOLERANCE = 0.04
"""Against the oracle on the same module, of outputs that 16-bit values lead to: where a sum in another order lies beside the
middle between two of them, the step is 2^-8 of the value, and later layers see it."""
DISCRETE = 0.05
"""Share of integers that may differ where 16-bit values decide them."""
SUGGESTION_FACTOR = 2
"""The corpus's limits come from roundings at other places than ours."""
CHOICES = frozenset(("sort", "topk", "while", "conditional"))
"""Operators after which casts may bring other values altogether; the oracle on the module with its casts remains the judge."""


@dataclass
class GraphOutcome(WalkOutcome):
    """What a case went through. errors: largest error of each judge. on_host: opcodes of host regions."""

    errors: dict[str, float] = field(default_factory=dict)
    on_host: dict[str, int] = field(default_factory=dict)
    level: str = ""


@dataclass(frozen=True)
class GraphRunner:
    """Takes a case through all steps, for the pool."""

    target: str
    level: str
    auto_cast: str
    strict: bool

    def __call__(self, case: GraphCase) -> GraphOutcome:
        return _GraphWalk(case, self).run()

    def lost(self, case: GraphCase) -> GraphOutcome:
        return _blank(case, self)


def _blank(case: GraphCase, runner: GraphRunner) -> GraphOutcome:
    may_end = REJECTED if case.family == ODD and not str(case.facts["tensorflow_says"]).startswith("runs") else ""
    return GraphOutcome(case.source, case.name, case.family, True, may_end, level=runner.level)


class _GraphWalk(Walk[GraphOutcome]):
    faults = ("loaded", "ran", "oracle", "stored")

    def __init__(self, case: GraphCase, runner: GraphRunner) -> None:
        super().__init__(_blank(case, runner))
        self.case = case
        self.runner = runner

    def steps(self) -> None:
        with tempfile.TemporaryDirectory(prefix="nxcc-conformance-") as folder:
            files = prepare(self.case, folder)
            build: Build = self.do("compiled", lambda: self._compile(files, folder))
            assert build.plan is not None
            self.outcome.on_host = dict(Counter(row.opcode for row in build.plan.host))
            loaded: Loaded = self.do("loaded", lambda: load(build.output, strict=self.runner.strict))
            inputs = self.do("ran", lambda: loaded.prepare(files.inputs))
            results = self.do("ran", lambda: loaded.run(inputs))
            with self.optional():
                self.do("oracle", lambda: self._by_oracle(loaded, inputs, results, build))
            with self.optional():
                self.do("stored", lambda: self._stored(files, loaded, results, build.module))

    def _compile(self, files: Prepared, folder: str) -> Build:
        cast = self.runner.auto_cast or ("none" if self.case.family in (OPERATOR, ODD) else "")
        options = options_from(output=os.path.join(folder, "model.neff"), target=self.runner.target, optlevel=self.runner.level,
                               auto_cast=cast, io_config=files.io_config, placement="support",
                               framework="TENSORFLOW" if files.io_config else "")
        return compile_file(Request(files.path, options))

    def _by_oracle(self, loaded: Loaded, inputs: list[Array], results: list[Array], build: Build) -> None:
        assert build.plan is not None
        chosen_on_host = any(row.opcode in CHOICES for row in build.plan.host) and _narrow(build.module)
        try:
            self._inside(loaded, inputs, results, build.module)
        except Differs:
            if not chosen_on_host:
                raise
            self._node_by_node(loaded, inputs, {node.name: node for node in build.plan.nodes}, _narrow(build.module))

    def _inside(self, loaded: Loaded, inputs: list[Array], results: list[Array], module: Module) -> None:
        expected = oracle_inside(loaded, None, inputs)
        narrow = _narrow(module)
        for number, (got, wanted, row) in enumerate(zip(results, expected, loaded.outputs, strict=True)):
            self._hold("oracle", f"output{number}", output_error(got, wanted), _limit(row.dtype, narrow))

    def _node_by_node(self, loaded: Loaded, inputs: list[Array], nodes: Mapping[str, PlanNode], narrow: bool) -> None:
        """Each node against the oracle on what it read itself."""
        self.outcome.errors.pop("oracle", None)

        def watch(done: Node, values: Mapping[str, Array]) -> None:
            node = nodes[done.name]
            if not node.on_device:
                return
            expected = flatten(evaluate(node.module, [values[name] for name in node.inputs]))
            for name, wanted, shape in zip(node.outputs, expected, node.module.entry.root.shape.leaves(), strict=True):
                self._hold("oracle", name, output_error(values[name], wanted), _limit(shape.dtype, narrow))

        loaded.run(inputs, watch)

    def _stored(self, files: Prepared, loaded: Loaded, results: list[Array], module: Module) -> None:
        if self.case.family == OPERATOR:
            return self._by_rule(files, loaded, results, module)
        rows = self.case.facts.get("outputs", [{}] * len(results))
        cast = autocast_tolerance(loaded)
        for number, (got, row) in enumerate(zip(results, loaded.outputs, strict=True)):
            facts = rows[number] if self.case.family == MODEL else {}
            stored = files.stored.get(f"output{number}")
            if stored is None:
                continue
            if "sample" in facts:
                got = got.reshape(-1)[facts["sample"]["offset"]::facts["sample"]["stride"]]
            wanted = stored if is_text(got.dtype) else \
                conform(stored, Shape(row.dtype, got.shape), f"output{number}", files.path, INPUT_MISMATCH)
            limit = max(tolerance(row.dtype, cast=cast), self._suggested(loaded), NARROW_TOLERANCE if _narrow(module) else 0.0)
            excused = bool(cast) and (not row.dtype.is_float or _chooses(module))
            self._hold("stored", f"output{number}", _scaled_error(got, wanted, facts), math.inf if excused else limit)
        return None

    def _suggested(self, loaded: Loaded) -> float:
        """What the corpus suggests for the module, if it does."""
        key = {"none": "f32_none", "matmult": "autocast_matmult"}.get(str(loaded.graph.nxcc.options["auto-cast"]),
                                                                       "autocast_all_bf16")
        return SUGGESTION_FACTOR * float(self.case.facts.get("tolerance", {}).get(key, 0.0))

    def _by_rule(self, files: Prepared, loaded: Loaded, results: list[Array], module: Module) -> None:
        facts = self.case.facts
        if facts["compare"] == "shape_dtype":
            return
        cast = autocast_tolerance(loaded) if _narrow(module) else 0.0
        for number, (got, row) in enumerate(zip(results, loaded.outputs, strict=True)):
            wanted = conform(files.stored[f"output{number}"], Shape(row.dtype, got.shape), f"output{number}", files.path,
                             INPUT_MISMATCH)
            if not _within(got, wanted, facts["rtol"], facts["atol"]):
                limit = max(tolerance(row.dtype, cast=cast) if cast else 0.0, 0.0)
                self._hold("stored", f"output{number}", output_error(got, wanted) or 1.0, limit)

    def _hold(self, judge: str, name: str, error: float, limit: float) -> None:
        self.outcome.errors[judge] = max(error, self.outcome.errors.get(judge, 0.0))
        if not error <= limit:
            what = self.case.facts["op"] if self.case.family == OPERATOR else self.case.name
            raise Differs(f"{what}: {name}: error {error:.3g}, limit {limit:.3g}")


def _limit(dtype: DType, narrow: bool) -> float:
    """What a result may differ by from the oracle's on the same module. narrow: whether narrow floats lead to it."""
    own = tolerance(dtype)
    return max(own, NARROW_TOLERANCE if dtype.is_float else DISCRETE) if narrow else own


def _narrow(module: Module) -> bool:
    """Whether floats of 16 bits or fewer are computed with."""
    return any(leaf.dtype in (BF16, F16) or (leaf.dtype.is_float and leaf.dtype.bits < 16)
               for instruction in module.instructions() for leaf in instruction.shape.leaves())


def _chooses(module: Module) -> bool:
    """Whether values are chosen by rank, or a loop ends by them: a rounding then brings others, not only near ones."""
    return any(instruction.opcode in CHOICES for instruction in module.instructions())


def _within(got: Array, wanted: Array, rtol: float, atol: float) -> bool:
    if is_discrete(got.dtype):
        return bool((got == wanted).all()) if not rtol and not atol else bool(
            (np.abs(got.astype(np.float64) - wanted) <= atol + rtol * np.abs(wanted.astype(np.float64))).all())
    wide = np.complex128 if got.dtype.kind == "c" else np.float64
    return bool(np.allclose(got.astype(wide), wanted.astype(wide), rtol, atol, equal_nan=True))


def _scaled_error(got: Array, wanted: Array, facts: Any) -> float:
    """The error, in units of the largest value of the whole output where only a sample of it is stored."""
    error = output_error(got, wanted)
    scale = facts.get("max_abs")
    if not scale or not math.isfinite(error) or is_text(got.dtype) or is_discrete(got.dtype):
        return error
    finite = np.abs(wanted[np.isfinite(wanted)].astype(np.float64))
    return error * float(finite.max()) / scale if finite.size else error


# The command


def main(words: Sequence[str] | None = None) -> int:
    """0: no wrong result and no internal error; 1: some; 2: wrong usage or no corpus."""
    options = _parser().parse_args(words)
    try:
        cases = chosen(open_graphs(options.corpus), lambda case: (case.name, case.family, *case.opcodes), options)
    except CorpusMissing as error:
        sys.stderr.write(f"conformance: {error}\n")
        return 2
    start = time.monotonic()
    outcomes: list[GraphOutcome] = []
    for level in options.levels.split(","):
        runner = GraphRunner(options.target, level, options.auto_cast, options.strict)
        for outcome in run_all(cases, runner, options.jobs, options.limit):
            outcomes.append(outcome)
            sys.stderr.write(f"{len(outcomes)} {_line(outcome)}\n")
    seconds = time.monotonic() - start
    sys.stdout.write("\n".join(_report(outcomes, options, seconds)) + "\n")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(_as_json(outcomes, options, seconds), file, indent=1, sort_keys=True)
    return int(any(o.kind in (WRONG, INTERNAL_ERROR) for o in outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = runner_parser("conformance.models", __doc__, levels="2", limit=300.0, jobs=1, causes=60)
    parser.add_argument("corpus", nargs="*", help="folders of models or of TensorFlow graphs")
    parser.add_argument("--target", default="v1", choices=("v1", "v2"))
    parser.add_argument("--auto-cast", default="", help="for all; default: the target's own, and for single operators none")
    return parser


def _line(outcome: GraphOutcome) -> str:
    errors = ", ".join(f"{judge} {error:.2g}" for judge, error in sorted(outcome.errors.items()))
    host = " ".join(f"{opcode}:{count}" for opcode, count in sorted(outcome.on_host.items()))
    words = next((f"{f.cause} {f.detail}" for f in outcome.failures if f.kind == outcome.kind), "")
    seconds = sum(outcome.seconds.values())
    return f"{outcome.name} O{outcome.level} {outcome.kind} [{errors}] host[{host}] {seconds:.1f} s {words}".rstrip()


def _report(outcomes: list[GraphOutcome], options: argparse.Namespace, seconds: float) -> list[str]:
    kinds = [kind for kind in KINDS if any(o.family == kind for o in outcomes)]
    lines = [f"{options.target}, levels {options.levels}", f"{'':46}" + "".join(f"{kind + 's':>16}" for kind in kinds)]
    rows: list[tuple[str, Callable[[GraphOutcome], bool]]] = [
        (label, lambda o, step=step: o.steps.get(step, False)) for step, label in STEPS.items()]  # type: ignore[misc]
    rows.append(("  of these nothing on the host", lambda o: o.steps.get("oracle", False) and not o.on_host))
    rows += [(f"class: {kind}", lambda o, kind=kind: o.kind == kind) for kind in CLASSES]  # type: ignore[misc]
    rows.append(("  rejected, as by TensorFlow", lambda o: o.kind == o.expected))
    for label, holds in rows:
        cells = [f"{sum(holds(o) for o in outcomes if o.family == kind)} of {sum(o.family == kind for o in outcomes)}"
                 for kind in kinds]
        lines.append(f"{label:46}" + "".join(f"{cell:>16}" for cell in cells))
    accepted = [o.name for o in outcomes if o.expected and o.kind == PASSED]
    if accepted:
        lines.append(f"accepted, though TensorFlow rejects it: {', '.join(accepted)}")
    found = Counter(opcode for o in outcomes for opcode in o.on_host)
    lines.append("on the host, in so many: " + ", ".join(f"{opcode} {count}" for opcode, count in found.most_common()))
    return [*lines, *group_lines(outcomes, options.causes), f"{len(outcomes)} runs in {seconds:.0f} s"]


def _as_json(outcomes: list[GraphOutcome], options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    settings = {name: getattr(options, name) for name in ("target", "levels", "auto_cast", "strict")}
    rows = [{"name": o.name, "kind": o.family, "level": o.level, "class": o.kind, "expected": o.expected, "steps": o.steps,
             "seconds": {step: round(s, 3) for step, s in o.seconds.items()}, "on_host": o.on_host,
             "errors": {judge: e if math.isfinite(e) else None for judge, e in o.errors.items()},
             "failures": [{"step": f.step, "class": f.kind, "cause": f.cause, "detail": f.detail, "code": f.code}
                          for f in o.failures]} for o in outcomes]
    return {"schema": SCHEMA, "settings": settings, "seconds": round(seconds, 1), "cases": rows,
            "groups": [{"class": kind, "cause": cause, "cases": names} for kind, cause, names in groups(outcomes)]}


if __name__ == "__main__":
    sys.exit(main())
