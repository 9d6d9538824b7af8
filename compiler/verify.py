"""Compare the simulator with the oracle, or with given values, output by output.

The error of an output is max|got - expected| / max|expected| for floats (NaN equals NaN, an infinity equals itself), and
the share of elements that differ for integers and booleans.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nxcc.compiler.console.limits import time_limit
from nxcc.compiler.driver import Request, compile_file, graph_request
from nxcc.compiler.files.arrays import read_arrays
from nxcc.compiler.files.inputs import read_model
from nxcc.compiler.interface.parameters import conform, conform_texts
from nxcc.compiler.interface.weights import bind_file, declare_weights, match_weights
from nxcc.compiler.options import DECLARED, CompileOptions, Role
from nxcc.compiler.problems import raise_problems
from nxcc.compiler.runtime.carried import embedded_module
from nxcc.compiler.runtime.loaded import Loaded, load
from nxcc.compiler.tolerances import Depths, depths_of, longest_sum, output_error, tolerance
from nxcc.ir.diagnostics import INPUT_MISMATCH, MISMATCH, WEIGHT_MISMATCH, WEIGHT_MISSING, CompileError
from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.texts import fresh
from nxcc.ir.literals import Array
from nxcc.ir.shapes import Shape
from nxcc.neff.reader import is_neff

LOAD_OPTIONS = ("target", "weights")
"""Options of a compile that have a meaning for a file that is compiled already."""


@dataclass(frozen=True)
class VerifyRequest:
    """`nxcc verify` as asked for. has_target: whether a NEFF for another target than that of the options is refused."""

    path: str
    options: CompileOptions
    inputs: str | None = None
    expected: str | None = None
    tolerance: float | None = None
    strict: bool = False
    seed: int = 0
    time_limit: float | None = None
    has_target: bool = False


@dataclass(frozen=True)
class Comparison:
    """One output: its error and what it may be. bound: whether the error is within the tolerance."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


def verify_file(request: VerifyRequest) -> dict[str, Any]:
    """Run and compare; the report as plain JSON, whose `passed` says how it went.

    Weights of a model are bound when it is compiled, or, if it declares them, when the NEFF is loaded.
    """
    if is_neff(request.path):
        return _verify_neff(request, request.path, None) | {"notices": _passed_over(request)}
    with tempfile.TemporaryDirectory(prefix="nxcc-verify-") as folder:
        output = os.path.join(folder, "module.neff")
        options = replace(request.options, output=output, depfile="", stop_after="")
        if options.weight_params:
            options = replace(options, weights="")
        compile_file(Request(request.path, options))
        return _verify_neff(request, output, read_model(request.path, graph_request(request.options))) | {"notices": []}


def _passed_over(request: VerifyRequest) -> list[str]:
    """A line if options of a compile were given for a file that is compiled already."""
    given = [row.name for name, row in DECLARED.items() if row.role is Role.CODE and name not in LOAD_OPTIONS
             and getattr(request.options, name) != getattr(CompileOptions, name)]
    return [f"{' and '.join(given)} has no effect: {request.path} is compiled already"] if given else []


def _verify_neff(request: VerifyRequest, path: str, original: Module | None) -> dict[str, Any]:
    """original: the module as read, which is then the judge instead of the stripped one inside the NEFF."""
    with time_limit(request.time_limit):
        return _compared(request, path, original)


def _compared(request: VerifyRequest, path: str, original: Module | None) -> dict[str, Any]:
    declared_only = original is None or bool(request.options.weight_params)
    weights = request.options.weights or None
    target = request.options.target if request.has_target else None
    loaded = load(path, weights if declared_only else None, target=target, strict=request.strict, seed=request.seed)
    arrays = read_arrays(request.inputs) if request.inputs else None
    values = loaded.prepare(arrays, request.inputs or "inputs", request.seed)
    got = loaded.run(values)
    autocast = str(loaded.graph.nxcc.options.get("auto-cast", "none"))
    inside = original if original is not None else embedded_module(loaded.neff)[0]
    if request.expected:
        judge, expected = request.expected, _given(request.expected, loaded)
        rows = compare(got, expected, _dtypes(loaded), autocast_tolerance(loaded), request.tolerance, inside)
    elif original is None:
        judge, expected = "the oracle on the module inside the NEFF", oracle_inside(loaded, weights, values)
        rows = compare(got, expected, _dtypes(loaded), depths_of(inside).narrow() if autocast != "none" else 0.0,
                       request.tolerance, inside)
    else:
        judge, expected = "the oracle on the module as read", _by_original(loaded, original, request, values)
        rows = compare(got, expected, _dtypes(loaded), autocast_tolerance(loaded), request.tolerance, inside)
    passed = all(row.passed for row in rows)
    return {
        "file": request.path, "against": judge, "auto_cast": autocast, "passed": passed, "strict": request.strict,
        "code": "" if passed else MISMATCH.name,
        "outputs": [{"name": row.name, "dtype": row.dtype.name, "shape": list(row.shape), "passed": row.passed,
                     "error": row.error if np.isfinite(row.error) else None, "tolerance": row.tolerance} for row in rows],
    }


def autocast_tolerance(loaded: Loaded) -> float:
    """What the casts of a NEFF may cost, as a share of an output's scale; the module inside it tells how they add up."""
    options = loaded.graph.nxcc.options
    mode, type = (str(options.get(word, "none")) for word in ("auto-cast", "auto-cast-type"))
    return depths_of(embedded_module(loaded.neff)[0]).cast(mode, type) if mode != "none" else 0.0


def _dtypes(loaded: Loaded) -> list[DType]:
    return [row.dtype for row in loaded.outputs]


def _given(path: str, loaded: Loaded) -> list[Array]:
    """output0.. of a file, in the dtypes of the outputs; one whose size depends on values has the size that it has there."""
    arrays = read_arrays(path)
    found, problems = [], []
    counted = {output: axis for output, axis, _ in loaded.counted.rows}
    for k, row in enumerate(loaded.outputs):
        name = f"output{k}"
        if name not in arrays:
            problems.append(CompileError(INPUT_MISMATCH, f"{name} is missing", path))
            continue
        try:
            dims = list(row.shape)
            if k in counted and arrays[name].ndim == len(dims):
                dims[counted[k]] = arrays[name].shape[counted[k]]
            found.append(conform_texts(arrays[name], tuple(dims), name, path) if row.name in loaded.texts.names else
                         conform(arrays[name], Shape(row.dtype, tuple(dims)), name, path, INPUT_MISMATCH))
        except CompileError as error:
            problems.append(error)
    raise_problems(problems)
    return found


def _by_original(loaded: Loaded, module: Module, request: VerifyRequest, values: Sequence[Array]) -> list[Array]:
    with fresh():
        found = _oracle_original(module, request, loaded.texts.entered(loaded.inputs, values, request.path))
        return loaded.texts.shown([row.name for row in loaded.outputs], loaded.counted.cut(found), request.path)


def _oracle_original(module: Module, request: VerifyRequest, values: Sequence[Array]) -> list[Array]:
    """The module as read, weights bound, evaluated by the oracle."""
    options = request.options
    declared = declare_weights(module, options.weight_params) if options.weight_params else frozenset()
    if options.weights:
        bind_file(module, options.weights, declared)
    rest = iter(values)
    return flatten(evaluate(module, [_pack(parameter.shape, rest) for parameter in module.entry.parameters]))


def _pack(shape: Shape, leaves: Any) -> Any:
    """Arrays in leaf order as a value of a shape."""
    if shape.is_tuple:
        return tuple(_pack(element, leaves) for element in shape.elements)
    return next(leaves) if shape.is_array else None


def oracle_inside(loaded: Loaded, weights: str | None, values: Sequence[Array]) -> list[Array]:
    """The module that the NEFF carries, evaluated by the oracle with the same casts at its border."""
    with fresh():
        found = _by_oracle(loaded, weights, loaded.texts.entered(loaded.inputs, values, loaded.neff.path))
        return loaded.texts.shown([row.name for row in loaded.outputs], found, loaded.neff.path)


def _by_oracle(loaded: Loaded, weights: str | None, values: Sequence[Array]) -> list[Array]:
    module, constants = embedded_module(loaded.neff)
    given = {tensor.name: value for tensor, value in zip(loaded.inputs, values, strict=True)}
    given |= _weight_values(loaded, weights)
    leaves = iter([loaded.inside(tensor.name, given[tensor.name]) for tensor in loaded.tensors] + constants)
    results = flatten(evaluate(module, [_pack(parameter.shape, leaves) for parameter in module.entry.parameters]))
    return loaded.counted.cut([loaded.outside(row, value) for row, value in zip(loaded.graph.outputs, results, strict=True)])


def _weight_values(loaded: Loaded, weights: str | None) -> dict[str, Array]:
    declared = {tensor.number: tensor for tensor in loaded.weights}
    if not declared:
        return {}
    if weights is None:
        raise CompileError(WEIGHT_MISSING, "the declared weights have no values", loaded.neff.path, remedy="give --weights")
    arrays = read_arrays(weights)
    found, problems = match_weights(arrays, declared, weights)
    raise_problems(problems)
    return {declared[n].name: conform(arrays[name], declared[n].shape, f"tensor {name!r}", weights, WEIGHT_MISMATCH)
            for n, name in found.items()}


# Comparing


def compare(got: Sequence[Array], expected: Sequence[Array], dtypes: Sequence[DType], autocast: float = 0.0,
            limit: float | None = None, module: Module | None = None) -> list[Comparison]:
    """Every output with its error. autocast: what it may cost; module: what is computed, whose sums and chains count; limit
    replaces the tolerance that follows from these."""
    length, depths = (longest_sum(module), depths_of(module)) if module is not None else (1, Depths(0, 1, {}))
    assert len(got) == len(expected) == len(dtypes), f"{len(got)} outputs, {len(expected)} expected"
    rows = []
    for k, (one, other, dtype) in enumerate(zip(got, expected, dtypes, strict=True)):
        cast = max(autocast, depths.narrow()) if dtype.is_float else autocast
        allowed = tolerance(dtype, length, depths.operations, cast) if limit is None else limit
        rows.append(Comparison(f"output{k}", dtype, tuple(one.shape), output_error(one, other), allowed))
    return rows


def verify_lines(body: dict[str, Any]) -> list[str]:
    """The table for people."""
    lines = [f"{body['file']} against {body['against']}, auto-cast {body['auto_cast']}",
             f"{'output':10} {'shape':22} {'error':>10} {'tolerance':>10}"]
    for row in body["outputs"]:
        shape = f"{row['dtype']}[{','.join(map(str, row['shape']))}]"
        error = "infinite" if row["error"] is None else f"{row['error']:.3g}"
        word = "ok" if row["passed"] else "DIFFERS"
        lines.append(f"{row['name']:10} {shape:22} {error:>10} {row['tolerance']:>10.3g}  {word}")
    verdict = "all outputs agree" if body["passed"] else f"{MISMATCH.name}: {MISMATCH.title}"
    return [*lines, verdict]
