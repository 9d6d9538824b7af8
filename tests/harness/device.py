"""Modules compiled for the device, run by the simulator, and held against the oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nxcc.backends.codegen.code import DeviceNode
from nxcc.backends.codegen.generator import generate
from nxcc.backends.simulator.functional import Machine
from nxcc.backends.target import load_target
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text

Array = np.ndarray[Any, Any]

TOLERANCES: Mapping[str, float] = {"float32": 2.0**-18, "bfloat16": 2.0**-7, "float16": 2.0**-10, "float8_e4m3": 2.0**-3,
                                   "float8_e5m2": 2.0**-2, "float8_e3m4": 2.0**-4}
"""Relative: two units of the last place for the narrow types; for f32 what the scalar engine's functions may add up to."""


def run_on_device(module: Module, inputs: Sequence[Array], optlevel: int = 0) -> list[Array]:
    """The module's flattened results, computed by the simulator for v2; everything runs on the device."""
    parameters, leaves = module.entry.parameters, list(module.entry.root.shape.leaves())
    names = tuple(f"in{i}" for i in range(len(parameters))), tuple(f"out{i}" for i in range(len(leaves)))
    shapes = dict(zip(names[0], (p.shape for p in parameters), strict=True)) | dict(zip(names[1], leaves, strict=True))
    code = generate([DeviceNode("test", module, *names)], shapes, load_target("v2"), optlevel=optlevel)
    machine = Machine(code.program, code.program.hbm_bytes)
    for name, value in zip(names[0], inputs, strict=True):
        machine.write(code.bindings[name].address, np.ascontiguousarray(value))
    for binding, literal in code.constants:
        machine.write(binding.address, np.ascontiguousarray(literal.array))
    machine.run(0)
    bindings = [code.bindings[name] for name in names[1]]
    return [machine.read(binding.address, binding.dtype, binding.dims) for binding in bindings]


def check_text(text: str, inputs: Sequence[Any] | None = None, tolerance: float | None = None, optlevel: int = 0) -> None:
    """Assert that device and oracle agree on a module; inputs: by default small random values of the parameters' types.

    tolerance: relative to each result's elements, with the smallest normal f32 (f16: its smallest number) as the floor; by
    default by dtype. Integers, zeros' signs, infinities and NaN must agree exactly.
    """
    check_module(read_text(text), inputs, tolerance, optlevel)


def check_module(module: Module, inputs: Sequence[Any] | None = None, tolerance: float | None = None,
                 optlevel: int = 0) -> None:
    """As `check_text`."""
    values = [np.asarray(value) for value in inputs] if inputs is not None else random_inputs(module)
    found, wanted = run_on_device(module, values, optlevel), flatten(evaluate(module, values))
    for number, (got, want) in enumerate(zip(found, wanted, strict=True)):
        wrong = differing(got, want, tolerance)
        places = [tuple(int(i) for i in place) for place in np.argwhere(wrong)[:5]]
        assert not wrong.any(), f"output {number}: {int(wrong.sum())} of {want.size} differ, as at " + "; ".join(
            f"{place}: {got[place]!r} for {want[place]!r}" for place in places)


def random_inputs(module: Module, seed: int = 0) -> list[Array]:
    random = np.random.default_rng(seed)
    values: list[Array] = []
    for parameter in module.entry.parameters:
        dtype, dims = parameter.shape.dtype, parameter.shape.dims
        made = random.normal(size=dims) if dtype.is_float else random.integers(0, 8 if dtype.is_integer else 2, size=dims)
        values.append(np.asarray(made).astype(dtype.numpy))
    return values


def differing(got: Array, want: Array, tolerance: float | None = None) -> Array:
    """Where two arrays do not agree."""
    if want.dtype.kind in "biu":
        return np.asarray(got != want)
    relative = TOLERANCES[want.dtype.name] if tolerance is None else tolerance
    x, y = got.astype(np.float64), want.astype(np.float64)
    floor = 6e-8 if want.dtype == np.float16 else 1.2e-38
    with np.errstate(invalid="ignore"):
        special = ~np.isfinite(x) | ~np.isfinite(y)
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        near = np.abs(x - y) <= np.maximum(relative * np.abs(y), floor)
    signs = (x == 0) & (y == 0) & (np.signbit(x) != np.signbit(y))
    return np.asarray(np.where(special, ~same, ~near | signs))
