"""`make demo`: compile the trained model in examples/, run all test images, compare with XLA and with the truth."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from nxcc.compiler.console.progress import Journal
from nxcc.compiler.driver import Request, compile_file
from nxcc.compiler.files.arrays import read_arrays
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.reports.estimate import estimate_file
from nxcc.compiler.reports.report_text import size_text
from nxcc.compiler.runtime.loaded import load
from nxcc.compiler.session import build_report
from nxcc.compiler.tolerances import output_error
from nxcc.ir.facts import dataclass
from nxcc.ir.literals import Array

TOLERANCE_KEYS = {"none": "f32_none", "all": "autocast_all_bf16"}


@dataclass(frozen=True)
class Outcome:
    """One compile of the model and all its test images. error: of the logits, relative to XLA's largest."""

    auto_cast: str
    report: dict[str, Any]
    estimate: dict[str, Any]
    correct: int
    images: int
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.error <= self.limit


def run_demo(folder: str, auto_casts: Sequence[str] = ("none", "all")) -> list[Outcome]:
    """Compile, run and compare, once for each --auto-cast mode. folder: examples/digits_encoder."""
    with open(os.path.join(folder, "meta.json"), encoding="utf-8") as file:
        tolerances = json.load(file)["tolerance"]
    tests = read_arrays(os.path.join(folder, "test_set.npz"))
    return [_outcome(folder, mode, float(tolerances[TOLERANCE_KEYS[mode]]), tests["ids"], tests["labels"], tests["logits"])
            for mode in auto_casts]


def _outcome(folder: str, auto_cast: str, limit: float, ids: Array, labels: Array, expected: Array) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="nxcc-demo-") as scratch:
        output = os.path.join(scratch, "digits_encoder.neff")
        journal = Journal(quiet=True)
        options = CompileOptions(output=output, auto_cast=auto_cast)
        build = compile_file(Request(os.path.join(folder, "module.hlo.pb"), options, journal))
        loaded = load(output)
        logits = np.concatenate([loaded.run([batch])[0] for batch in batches(ids, loaded.inputs[0].shape.dims[0])])
        estimate = estimate_file(output)
    logits = logits[:len(ids)]
    correct = int((logits.argmax(axis=1) == labels).sum())
    return Outcome(auto_cast, build_report(build, journal), estimate, correct, len(ids), output_error(logits, expected), limit)


def batches(ids: Array, size: int) -> list[Array]:
    """The images in batches of one size, the last one filled up with zeros."""
    count = -(-len(ids) // size)
    padded = np.zeros((count * size, *ids.shape[1:]), ids.dtype)
    padded[:len(ids)] = ids
    return list(padded.reshape(count, size, *ids.shape[1:]))


def demo_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """The report: a row a fact, a column a mode."""
    rows: list[tuple[str, list[str]]] = [
        ("", [f"--auto-cast {o.auto_cast}" for o in outcomes]),
        ("on the device", [f"{o.report['percent_supported']:.0f} % of {o.report['total_count']} operations" for o in outcomes]),
        ("fits", [f"{size_text(o.report['memory']['hbm_bytes'])} HBM" for o in outcomes]),
        ("", [f"{size_text(o.report['memory']['sbuf_bytes_per_partition'])} SBUF a partition" for o in outcomes]),
        ("NEFF", [size_text(o.report["neff_bytes"]) for o in outcomes]),
        ("right answers", [f"{o.correct} of {o.images} ({o.correct / o.images:.1%})" for o in outcomes]),
        ("error against XLA", [f"{o.error:.2g} (limit {o.limit:g})" for o in outcomes]),
        ("estimated time", [f"{o.estimate['device_us']:.0f} us a batch" for o in outcomes]),
        ("bound by", [str(o.estimate["bound_by"]) for o in outcomes]),
    ]
    return [f"{title:18} " + " ".join(f"{cell:32}" for cell in cells).rstrip() for title, cells in rows]


def main() -> int:
    """Print the report; 1 if an error is beyond its limit."""
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join("examples", "digits_encoder")
    outcomes = run_demo(folder)
    sys.stdout.write("digits_encoder: a trained 2-layer transformer, batch 32, 360 held-out images, simulated on v2\n\n")
    sys.stdout.write("\n".join(demo_lines(outcomes)) + "\n")
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
