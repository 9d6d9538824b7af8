"""Each pass on text: what it makes of it, that it says truly whether it changed anything, and that the result stays.

The first line names passes and their options: `// nxcc: simplify fold-constants`, `// nxcc: autocast mode=all type=bf16`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nxcc.compiler.casts import cast
from nxcc.ir.dtypes import BF16, F32, S8, S32
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.text.writer import write_text
from nxcc.ir.hlo.verifier import verify
from nxcc.ir.shapes import Shape
from nxcc.passes.canonicalize_convolution import CanonicalizeConvolution
from nxcc.passes.canonicalize_dot import CanonicalizeDot
from nxcc.passes.chosen_places import ChosenPlaces
from nxcc.passes.common_subexpressions import CommonSubexpressions
from nxcc.passes.convolution_products import ConvolutionProducts
from nxcc.passes.dead_code import DeadCode
from nxcc.passes.dtypes.autocast import Autocast
from nxcc.passes.dtypes.exact_quotients import ExactQuotients
from nxcc.passes.dtypes.legalize_dtypes import LegalizeDtypes
from nxcc.passes.dtypes.narrow_selections import NarrowSelections
from nxcc.passes.dtypes.round_products import RoundProducts
from nxcc.passes.dtypes.widen_dtypes import WidenDtypes
from nxcc.passes.expansions.expand_batch_norm import ExpandBatchNorm
from nxcc.passes.expansions.expand_custom_calls import ExpandCustomCalls
from nxcc.passes.expansions.expand_products import ExpandProducts
from nxcc.passes.expansions.expand_random import ExpandRandom
from nxcc.passes.expansions.expand_scan import ExpandScan
from nxcc.passes.fold_constants import FoldConstants
from nxcc.passes.inline_calls import InlineCalls
from nxcc.passes.known_gathers import KnownGathers
from nxcc.passes.loops.vectorize_loops import VectorizeLoops
from nxcc.passes.masked_rows import MaskedRows
from nxcc.passes.move_reshapes import MoveReshapes
from nxcc.passes.normalize_layouts import NormalizeLayouts
from nxcc.passes.notes import Note
from nxcc.passes.pipeline import Pass
from nxcc.passes.scale_later import ScaleLater
from nxcc.passes.simplify import Simplify
from nxcc.passes.store_transposed import ORDER, StoreTransposed

from harness.golden import Case, cases, check, name_of

Make = Callable[[dict[str, str], Callable[[Note], None]], Pass]
MAKE: dict[str, Make] = {
    "autocast": lambda options, report: Autocast(options["mode"], options["type"], _numbers(options), report),
    "canonicalize-convolution": lambda options, report: CanonicalizeConvolution(),
    "canonicalize-dot": lambda options, report: CanonicalizeDot(),
    "chosen-places": lambda options, report: ChosenPlaces(True),
    "common-subexpressions": lambda options, report: CommonSubexpressions(),
    "convolution-products": lambda options, report: ConvolutionProducts(),
    "dead-code": lambda options, report: DeadCode(),
    "exact-quotients": lambda options, report: ExactQuotients(),
    "expand-batch-norm": lambda options, report: ExpandBatchNorm(),
    "expand-custom-calls": lambda options, report: ExpandCustomCalls(),
    "expand-products": lambda options, report: ExpandProducts(),
    "expand-random": lambda options, report: ExpandRandom(),
    "expand-scan": lambda options, report: ExpandScan(),
    "fold-constants": lambda options, report: FoldConstants(),
    "inline-calls": lambda options, report: InlineCalls(),
    "known-gathers": lambda options, report: KnownGathers(True),
    "legalize-dtypes": lambda options, report: LegalizeDtypes(),
    "masked-rows": lambda options, report: MaskedRows(),
    "move-reshapes": lambda options, report: MoveReshapes(),
    "narrow-selections": lambda options, report: NarrowSelections(),
    "normalize-layouts": lambda options, report: NormalizeLayouts(),
    "round-products": lambda options, report: RoundProducts(),
    "store-transposed": lambda options, report: StoreTransposed(_numbers(options)),
    "scale-later": lambda options, report: ScaleLater(),
    "simplify": lambda options, report: Simplify(),
    "widen-dtypes": lambda options, report: WidenDtypes(frozenset({BF16, F32, S8, S32}), report),
    "vectorize-loops": lambda options, report: VectorizeLoops(report),
}
TOLERANCE = {"bf16": 0.03, "fp16": 0.004, "tf32": 0.0, "fp8_e4m3": 0.3}
"""Of the largest value, by the type of an autocast; all else may differ by the order of sums."""


def _numbers(options: dict[str, str]) -> frozenset[int]:
    return frozenset(int(word) for word in options.get("weights", "").split(",") if word)


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
    for name in (word for word in case.words if "=" not in word):
        before = write_text(module)
        changed = MAKE[name](options, notes.append).run(module)
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
