"""Runs TensorFlow graphs with the oracle and compares with what TensorFlow gave; for tests and for conformance."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nxcc.ir.graphdef.io_config import IoConfig, parse_io_config
from nxcc.ir.graphdef.lowering import lower_graph
from nxcc.ir.graphdef.reader import Graph, read_graph
from nxcc.ir.graphdef.text import binary_of
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.verifier import verify

DATA = Path(__file__).parents[1] / "data"


def graph_of(text: str) -> Graph:
    """A graph from its text form."""
    return read_graph(memoryview(binary_of(text.encode(), "GraphDef", "test")), "test")


def lower(text: str, inputs: Mapping[str, Any] | None = None, outputs: Sequence[str] = ()) -> Module:
    """A verified module from a graph's text form; without outputs, what the graph itself says."""
    config = config_of({"inputs": inputs or {}, "outputs": list(outputs)}) if outputs else None
    module = lower_graph(graph_of(text), config)
    verify(module)
    return module


def config_of(row: Mapping[str, Any]) -> IoConfig:
    return parse_io_config(json.dumps({"inputs": row["inputs"], "outputs": row["outputs"]}))


def run(module: Module, arrays: Sequence[Any]) -> list[np.ndarray]:
    """The outputs; inputs whose type numpy lacks may come as bit patterns."""
    verify(module)
    values = [a if a.dtype == p.shape.dtype.numpy else a.view(p.shape.dtype.numpy)
              for p, a in zip(module.entry.parameters, map(np.asarray, arrays), strict=True)]
    return flatten(evaluate(module, values))


def difference(got: np.ndarray, wanted: np.ndarray, rtol: float, atol: float) -> str:
    """Where two arrays differ by more than atol + rtol * |wanted|; empty if nowhere. NaN equals NaN."""
    wanted = wanted if wanted.dtype == got.dtype else wanted.view(got.dtype)
    if got.shape != wanted.shape:
        return f"shape {got.shape}, wanted {wanted.shape}"
    kind = np.complex128 if got.dtype.kind == "c" else np.float64
    left, right = got.astype(kind), wanted.astype(kind)
    with np.errstate(all="ignore"):
        same = (left == right) | (np.isnan(left) & np.isnan(right)) | (np.abs(left - right) <= atol + rtol * np.abs(right))
    if same.all():
        return ""
    place = tuple(int(v[0]) for v in np.nonzero(np.atleast_1d(~same)))
    first, should = np.atleast_1d(left)[place], np.atleast_1d(right)[place]
    return f"{(~same).sum()} of {same.size} differ, first at {place}: {first}, wanted {should}"


def arrays_of(archive: zipfile.ZipFile, prefix: str, what: str) -> list[np.ndarray]:
    """input0.. or output0.. of a case."""
    found = []
    while f"{prefix}/{what}{len(found)}.npy" in archive.NameToInfo:
        found.append(np.load(io.BytesIO(archive.read(f"{prefix}/{what}{len(found)}.npy"))))
    return found


def check_case(row: Mapping[str, Any], graph: bytes, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> str:
    """What is wrong with one single-operator case; empty if nothing. row: as in the index of the cases."""
    got = run(lower_graph(read_graph(memoryview(graph), row["id"]), config_of(row)), inputs)
    if len(got) != len(outputs):
        return f"{len(got)} outputs, wanted {len(outputs)}"
    for number, (left, right) in enumerate(zip(got, outputs, strict=True)):
        if row["compare"] == "shape_dtype":
            right = left if (left.shape, left.dtype) == (right.shape, right.dtype) else right
        close = row["compare"] == "close"
        found = difference(left, right, row["rtol"] if close else 0.0, row["atol"] if close else 0.0)
        if found:
            return f"output {number}: {found}"
    return ""
