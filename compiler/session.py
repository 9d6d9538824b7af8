"""What `compile`, `check` and `run` do from end to end: journal, work, report as a plain object and as lines."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nxcc.compiler.choices.casting import NONE, cast_words
from nxcc.compiler.choices.pipelining import proposal
from nxcc.compiler.choices.relayout import spreading
from nxcc.compiler.console.limits import time_limit
from nxcc.compiler.console.progress import Journal
from nxcc.compiler.driver import Build, Request, check_file, compile_file, lowering_of
from nxcc.compiler.files.arrays import read_arrays, write_npz
from nxcc.compiler.files.outputs import check_outputs
from nxcc.compiler.interface.parameters import WEIGHT
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.reports.plan_report import plan_report
from nxcc.ir.facts import dataclass
from nxcc.ir.files import whole_file
from nxcc.ir.literals import Array
from nxcc.ir.streams import refuse_terminal
from nxcc.neff.writer import write_neff

if TYPE_CHECKING:
    from nxcc.compiler.runtime.loaded import Loaded

def compile_report(model: str, options: CompileOptions, journal: Journal) -> dict[str, Any]:
    """Compile, or with query_compute only say what compiling would give; the report as plain JSON."""
    request = Request(model, options, journal)
    build = check_file(request) if options.query_compute else compile_file(request)
    body = build_report(build, journal)
    if options.query_compute and build.package is not None and build.plan is not None:
        body["estimate"] = _estimate(build)
        if build.target.cores.pipeline_max > 1 and len(build.codes) == 1 and build.codes[0].regions:
            body["pipeline_proposal"] = proposal(build.plan, lowering_of(build), body["estimate"]["device_us"])
    return body


def _estimate(build: Build) -> dict[str, Any]:
    """The prediction for what was just compiled; its NEFF exists only for that."""
    from nxcc.compiler.reports.estimate import estimate_file
    assert build.package is not None
    with tempfile.TemporaryDirectory(prefix="nxcc-check-") as folder:
        path = os.path.join(folder, "model.neff")
        write_neff(path, build.package)
        return estimate_file(path) | {"file": build.module.name}


def build_report(build: Build, journal: Journal) -> dict[str, Any]:
    """What a compile found out, as plain JSON."""
    body: dict[str, Any] = {
        "model": build.module.name, "target": build.target.name, "options": build.options.effective(),
        "output": build.output, "neff_bytes": build.neff_bytes, "notices": journal.notices,
        "casts": cast_words(build.options) if build.options.auto_cast not in ("", NONE) else "",
    }
    if build.tensors:
        inputs = [f"{t.name}: parameter {t.number} ({t.framework or t.hlo})" for t in build.tensors if t.role != WEIGHT]
        body["parameters"] = {"bound": build.bound, "declared": len(build.tensors) - len(inputs), "inputs": inputs}
    if build.options.timing:
        body["stages"] = [asdict(row) for row in journal.stages]
    if build.plan is not None:
        body |= plan_report(build.plan, build.tensors, build.target)
        body["spreading_products"] = spreading(build.options, build.plan)
    if build.codes:
        body |= _code(build)
    if build.package is not None:
        statistics = build.package.statistics
        body["statistics"] = {"macs": statistics.macs, "flops": statistics.flops, "bytes_in": statistics.bytes_in,
                              "bytes_out": statistics.bytes_out, "weights_bytes": statistics.weights_bytes,
                              "instructions": statistics.instructions}
    return body


def _code(build: Build) -> dict[str, Any]:
    counts = Counter[str]()
    programs = [code.program for code in build.codes]
    for program in programs:
        for _, engine, stream in program.streams():
            counts[build.target.engines[engine].member] += len(stream)
    weights = sum(t.shape.byte_size for t in build.tensors if t.role == WEIGHT)
    return {
        "cores": len(programs), "regions": sum(len(code.regions) for code in build.codes),
        "functions": sum(len(program.functions) for program in programs),
        "machine_instructions": dict(sorted(counts.items())),
        "memory": {"hbm_bytes": max(program.hbm_bytes for program in programs), "hbm_limit_bytes": build.target.hbm.bytes,
                   "sbuf_bytes_per_partition": max(program.sbuf_bytes for program in programs),
                   "sbuf_limit_bytes_per_partition": build.target.sbuf.usable_bytes,
                   "constant_bytes": sum(binding.size for code in build.codes for binding, _ in code.constants),
                   "declared_weight_bytes": weights},
    }


# run


@dataclass(frozen=True)
class RunRequest:
    """`nxcc run` as asked for."""

    file: str
    inputs: str | None = None
    outputs: str | None = None
    weights: str | None = None
    strict: bool = False
    target: str | None = None
    seed: int = 0
    timing: bool = False
    time_limit: float | None = None


def run_session(request: RunRequest) -> dict[str, Any]:
    """Load, run, write the outputs; a description of what came out."""
    from nxcc.backends.target import load_target
    from nxcc.compiler.runtime.loaded import load
    target = load_target(request.target).name if request.target else None
    if request.outputs:
        refuse_terminal(request.outputs)
        check_outputs([request.outputs], [path for path in (request.file, request.inputs, request.weights) if path])
    start = time.process_time()
    loaded = load(request.file, request.weights, target=target, strict=request.strict, seed=request.seed)
    arrays = read_arrays(request.inputs) if request.inputs else None
    values = loaded.prepare(arrays, request.inputs or "inputs", request.seed)
    ready = time.process_time()
    with time_limit(request.time_limit):
        outputs = loaded.run(values)
    done = time.process_time()
    if request.outputs:
        with whole_file(request.outputs) as file:
            write_npz(file, {f"output{k}": array for k, array in enumerate(outputs)})
    body: dict[str, Any] = {
        "file": request.file, "target": loaded.graph.nxcc.target,
        "inputs": "given" if request.inputs else f"random, seed {request.seed}",
        "outputs": [_describe(k, array, loaded) for k, array in enumerate(outputs)], "written": request.outputs or "",
        "was_repeated": loaded.was_repeated,
    }
    if request.timing:
        body["load_cpu_s"], body["run_cpu_s"] = ready - start, done - ready
    return body


def _describe(k: int, array: Array, loaded: Loaded) -> dict[str, Any]:
    import numpy as np
    row = loaded.outputs[k]
    found: dict[str, Any] = {"name": f"output{k}", "dtype": row.dtype.name, "shape": list(array.shape)}
    if row.name in loaded.texts.names:
        found["dtype"] = "string"
    elif array.size and array.dtype.kind != "c":
        values = array.astype(np.float64)
        finite = values[np.isfinite(values)]
        found["not_finite"] = int(values.size - finite.size)
        if finite.size:
            found |= {"min": float(finite.min()), "max": float(finite.max()), "mean": float(finite.mean())}
    return found


REPEATED = "a product met what is not finite: run again with code of --relayout exact"


def run_lines(body: dict[str, Any]) -> list[str]:
    """The same for people."""
    lines = [f"{body['file']} ({body['target']}), inputs {body['inputs']}"]
    if body["was_repeated"]:
        lines.append(REPEATED)
    for row in body["outputs"]:
        shape = f"{row['dtype']}[{','.join(map(str, row['shape']))}]"
        span = f"{row['min']:.6g} .. {row['max']:.6g}, mean {row['mean']:.4g}" if "mean" in row else ""
        bad = f", {row['not_finite']} not finite" if row.get("not_finite") else ""
        lines.append(f"{row['name']:10} {shape:20} {span}{bad}")
    if body["written"]:
        lines.append(f"written to {body['written']}")
    if "run_cpu_s" in body:
        lines.append(f"loading {body['load_cpu_s']:.3f} CPU s, running {body['run_cpu_s']:.3f} CPU s")
    return lines
