"""Loops of HLO: what the clock leaves out changes no number; how long they are changes no time that it takes."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from nxcc.backends.codegen.code import DeviceNode
from nxcc.backends.codegen.generator import generate
from nxcc.backends.simulator.timing import Clock
from nxcc.backends.target import load_target
from nxcc.compiler.driver import Request, compile_file
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.reports.estimate import estimate_file
from nxcc.compiler.reports.profile import ProfileRequest, profile_file
from nxcc.ir.hlo.text.reader import read_text

from harness.looping import ARMS, BRANCH, PRODUCT, ROW, SINE, looping, nested

TARGET = load_target("v2")
CASES = {
    "sine": looping(200, SINE), "product": looping(300, PRODUCT), "row": looping(200, ROW),
    "branch": looping(200, BRANCH, functions=ARMS), "by_data": looping(0, PRODUCT, by_data=True),
    "branch_by_data": looping(0, BRANCH, functions=ARMS, by_data=True), "nested": nested(66, 65), "many_of_few": nested(150, 3),
}


@pytest.mark.parametrize("optlevel", [0, 2])
@pytest.mark.parametrize("case", CASES)
def test_turns_left_out_change_nothing(case: str, optlevel: int) -> None:
    module = read_text(CASES[case])
    shapes = {"in": module.entry.parameters[0].shape, "out": module.entry.root.shape}
    code = generate([DeviceNode("test", module, ("in",), ("out",))], shapes, TARGET, optlevel=optlevel)
    clock = Clock(code.program, TARGET)
    turns = {"nested": [66, 65], "many_of_few": [150, 3]}.get(case, [200])
    folded, full = clock.time(counts=turns), clock.time(counts=turns, folds=False)
    assert folded.folds and all(fold.exact for fold in folded.folds)
    names = {field.name for field in dataclasses.fields(full)} - {"folds", "events", "timeline"}
    assert {name: getattr(folded, name) for name in names} == {name: getattr(full, name) for name in names}


@pytest.mark.parametrize("text", [looping(10 ** 9, SINE), nested(10 ** 6, 10 ** 6)], ids=["long", "nested"])
def test_long_loops_take_seconds(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.hlo").write_text(text)
    neff = str(tmp_path / "m.neff")
    compile_file(Request(str(tmp_path / "m.hlo"), CompileOptions(output=neff, quiet=True)))
    begun = time.process_time()
    found = estimate_file(neff)
    assert found["device_us"] > 1e9 and found["repeated_turns"] > 10 ** 5 and not found["averaged_us"]
    body = profile_file(ProfileRequest(neff, page=str(tmp_path / "page.html")))
    assert body["estimate"]["device_us"] == pytest.approx(found["device_us"], rel=1e-12)
    assert sum(row["turns"] for row in body["left_out"]) == body["estimate"]["repeated_turns"]
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 64 << 20
    assert time.process_time() - begun < 30
