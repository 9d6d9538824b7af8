"""The checked texts of the HLO format reference: what XLA's parser accepts and refuses, and how its printer writes it."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from nxcc.ir.diagnostics import ELIDED_CONSTANT, CompileError
from nxcc.ir.hlo.equality import modules_equal
from nxcc.ir.hlo.proto.reader import read_module
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.text.writer import write_text

DATA = Path(__file__).parents[4] / "data" / "hlo_text_cases.json.gz"
CASES: list[dict[str, Any]] = json.loads(gzip.decompress(DATA.read_bytes()))
ELIDED = ("dots", "dots2")
"""XLA fills elided constants with a ramp; nxcc refuses them."""
TAKEN = {"compact-gte": "newer XLA reads and writes `p#0`", "f6": "XLA aborts on literals of six-bit floats"}
PRINTED_OTHERWISE = {
    ("f32-negzero", "default"): "XLA reads -0 as the integer 0", ("f32-negzero", "short"): "XLA reads -0 as the integer 0",
    ("metadata-full", "default"): "marks of profilers are not kept"}
NOT_IN_BINARY = ("f32-negzero", "shape-bad-layout-dup")
"""XLA reads -0 as 0; a layout that names a dimension twice is refused in binary."""
ACCEPTED = [case for case in CASES if case["accepted"] and case["name"] not in ELIDED]
REFUSED = [case for case in CASES if not case["accepted"] and case["name"] not in TAKEN]


def ident(case: Any) -> str:
    return f"{case['group']}-{case['name']}" if isinstance(case, dict) else str(case)


@pytest.mark.parametrize("form", ["default", "short"])
@pytest.mark.parametrize("case", ACCEPTED, ids=ident)
def test_prints_as_xla_does(case: dict[str, Any], form: str) -> None:
    printed = write_text(read_text(case["text"]), short=form == "short")
    assert (printed == case[form]) == ((case["name"], form) not in PRINTED_OTHERWISE)


@pytest.mark.parametrize("case", ACCEPTED, ids=ident)
def test_printed_text_reads_and_prints_the_same(case: dict[str, Any]) -> None:
    module = read_text(case["text"])
    again = read_text(write_text(module))
    assert modules_equal(module, again, names=not case["name"].startswith("async")) is None
    assert write_text(again) == write_text(module)


@pytest.mark.parametrize("case", [c for c in ACCEPTED if c["name"] not in NOT_IN_BINARY], ids=ident)
def test_text_and_binary_are_the_same_module(case: dict[str, Any]) -> None:
    binary = read_module(base64.b64decode(case["pb"]))
    assert modules_equal(read_text(case["text"]), binary, counts=False) is None


@pytest.mark.parametrize("case", REFUSED, ids=ident)
def test_refused_text_is_an_error_with_its_place(case: dict[str, Any]) -> None:
    with pytest.raises(CompileError) as caught:
        read_text(case["text"], name="m.hlo")
    assert caught.value.where.startswith("m.hlo:")
    if case["where"]:
        line = caught.value.where.split(":")[1]
        assert abs(int(line) - int(case["where"].split(":")[0])) <= 1
    assert caught.value.details[1].strip() == "^"


@pytest.mark.parametrize("name", ELIDED)
def test_elided_constant_is_refused(name: str) -> None:
    case = next(c for c in CASES if c["name"] == name)
    with pytest.raises(CompileError) as caught:
        read_text(case["text"])
    assert caught.value.code is ELIDED_CONSTANT


@pytest.mark.parametrize("name", TAKEN)
def test_what_xla_could_not_read_yet(name: str) -> None:
    read_text(next(c for c in CASES if c["name"] == name)["text"])
