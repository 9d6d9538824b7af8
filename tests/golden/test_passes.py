"""Each pass on text: what it makes of it, that it says truly whether it changed anything, and that the result stays.

The first line names passes and their options: `// nxcc: simplify fold-constants`, `// nxcc: autocast mode=all type=bf16`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nxcc.backends.capability.images import TargetImageCapacity
from nxcc.backends.capability.rows import TargetRowCapacity
from nxcc.backends.target import load_target
from nxcc.compiler.interface.casts import cast
from nxcc.ir.dtypes import dtype
from nxcc.ir.hlo.marks import ORDER
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.text.writer import write_text
from nxcc.ir.hlo.verifier import verify
from nxcc.ir.shapes import Shape
from nxcc.passes.notes import Note
from nxcc.passes.pipeline import STEPS, Settings

from harness.golden import Case, cases, check, name_of

MAKE = {step.name: step.make for step in STEPS}
TOLERANCE = {"bf16": 0.03, "fp16": 0.004, "tf32": 0.0, "fp8_e4m3": 0.3}
"""Of the largest value, by the type of an autocast; all else may differ by the order of sums."""


def _settings(options: dict[str, str], report: Callable[[Note], None]) -> Settings:
    """As a first line has them: mode and type of an autocast, weights, target, dtypes of the device (any unless given),
    exact: how many elements products may read and be exact with what is not finite, piece: bytes of a matrix,
    cells: of windows that are folded cell by cell."""
    weights = frozenset(int(word) for word in options.get("weights", "").split(",") if word)
    target = load_target(options.get("target", "v2"))
    dtypes = frozenset(dtype(word) for word in options.get("dtypes", "").split(",") if word)
    return Settings(2, options.get("mode", "none"), options.get("type", "bf16"), TargetRowCapacity(target),
                    TargetImageCapacity(target), report, weights, not target.features.control_flow,
                    exact_up_to=float(options.get("exact", 0)), dtypes=dtypes, piece_bytes=int(options.get("piece", 0)),
                    window_cells=int(options["cells"]) if "cells" in options else None)


@pytest.mark.parametrize("case", cases("passes"), ids=name_of)
def test_pass(case: Case, request: pytest.FixtureRequest) -> None:
    check(case, _run, bool(request.config.getoption("--update-golden")))


def _run(case: Case) -> str:
    module = read_text(case.given)
    verify(module)
    inputs = [_random(parameter.shape, number) for number, parameter in enumerate(module.entry.parameters)]
    wanted = flatten(evaluate(module, inputs))
    options = dict(word.split("=") for word in case.words if "=" in word)
    notes: list[Note] = []
    settings = _settings(options, notes.append)
    for name in (word for word in case.words if "=" not in word):
        before = write_text(module)
        changed = MAKE[name](settings).run(module)
        verify(module)
        assert changed == (write_text(module) != before), f"{name} does not say truly whether it changed anything"
    _compare(module, inputs, wanted, TOLERANCE.get(_type(options, case.words), 1e-6))
    return "".join(f"// {note}\n" for note in notes) + write_text(module)


def _type(options: dict[str, str], words: tuple[str, ...]) -> str:
    return "bf16" if "scale-later" in words else options.get("type", "")


def _random(shape: Shape, seed: int) -> Any:
    generator = np.random.default_rng(seed)
    if shape.is_tuple:
        return tuple(_random(element, seed + n) for n, element in enumerate(shape.elements))
    if shape.dtype.is_integer:
        return generator.integers(-3 if shape.dtype.is_signed else 0, 4, shape.dims).astype(shape.dtype.numpy)
    if shape.dtype.is_float:
        return generator.normal(size=shape.dims).astype(shape.dtype.numpy)
    return generator.integers(0, 2, shape.dims).astype(shape.dtype.numpy)


def _stored(value: Any, parameter: Instruction) -> Any:
    """A parameter's value as the loader stores it."""
    order = [int(d) for d in parameter.frontend_attributes.get(ORDER, "").split(",") if d]
    return cast(value.transpose(order) if order else value, parameter.shape.dtype, parameter.name)


def _compare(module: Module, inputs: list[Any], wanted: list[Any], tolerance: float) -> None:
    given = [_stored(value, p) if p.shape.is_array else value for p, value in zip(module.entry.parameters, inputs, strict=True)]
    for value, want in zip(flatten(evaluate(module, given)), wanted, strict=True):
        if want.dtype.kind in "fV":
            found, expected = value.astype(np.float64), want.astype(np.float64)
            limit = tolerance * np.abs(expected[np.isfinite(expected)]).max(initial=0)
            assert np.allclose(found, expected, rtol=0, atol=limit, equal_nan=True)
        else:
            assert np.array_equal(value, want)
