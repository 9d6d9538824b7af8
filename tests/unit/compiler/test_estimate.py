import json
from pathlib import Path

import pytest

from nxcc.backends.target import load_target
from nxcc.compiler.driver import Build, Request, compile_file
from nxcc.compiler.estimate import estimate_file, estimate_lines, predict_build, profile_file, profile_lines, summary
from nxcc.compiler.options import CompileOptions

TEXT = """HloModule m
ENTRY main {
  x = f32[128,256] parameter(0), metadata={op_name="jit(f)/net/x"}
  w = f32[256,512] parameter(1)
  y = f32[128,512] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/net/dense/dot"}
  t = f32[128,512] tanh(y), metadata={op_name="jit(f)/net/tanh"}
  ROOT r = f32[128,512] negate(t)
}
"""


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Build:
    monkeypatch.chdir(tmp_path)
    Path("m.hlo").write_text(TEXT)
    keep = getattr(request, "param", "")
    return compile_file(Request("m.hlo", CompileOptions(output="m.neff", weight_params="1", optlevel="0", keep_on_host=keep)))


def test_estimate_has_the_promised_keys_and_the_roofline(build: Build) -> None:
    body = estimate_file("m.neff")
    assert {"device_us", "host_us", "bound_by", "engines", "roofline_us"} <= body.keys()
    target = load_target("v2")
    macs, moved = 128 * 256 * 512, 4 * (128 * 256 + 256 * 512 + 128 * 512)
    assert body["rooflines"]["PE"] == pytest.approx(macs * 4 / (128 * 128 * 2.8e9) * 1e6)
    assert body["rooflines"]["HBM"] == pytest.approx(moved / target.hbm.share_bytes_per_second * 1e6)
    assert body["device_us"] > body["roofline_us"] > 0 and body["host_us"] == 0
    assert set(body["engines"]) == {"PE", "Activation", "DVE", "Pool", "SP", "DMA"}
    assert all(0 <= share <= 1 for share in body["engines"].values())
    assert sum(body["critical_path"].values()) == pytest.approx(body["device_us"])
    assert len(estimate_lines(body)) >= 4


@pytest.mark.parametrize("build", ["^t$"], indirect=True)
def test_host_regions_cost_work_transfers_and_another_submission(build: Build) -> None:
    body = estimate_file("m.neff")
    target = load_target("v2")
    crossing = 2 * 4 * 128 * 512 / target.host.copy_bytes_per_second
    assert [node["executor"] for node in body["nodes"]] == ["device", "host", "device"]
    assert body["host_us"] > (crossing + target.host.submit_ns * 1e-9) * 1e6


@pytest.mark.parametrize("build", ["", "^t$"], indirect=True)
def test_a_build_is_predicted_as_its_file(build: Build) -> None:
    body = estimate_file("m.neff")
    body.pop("file")
    assert summary(predict_build(build)) == body


def test_profile_names_layers_and_writes_a_trace(build: Build) -> None:
    body = profile_file("m.neff", "t.json")
    assert {row["layer"] for row in body["layers"]} >= {"net/dense", "net"}
    assert sum(row["us"] for row in body["regions"]) == pytest.approx(body["device_us"])
    events = json.loads(Path("t.json").read_text())["traceEvents"]
    assert {event["args"]["name"] for event in events if event["name"] == "thread_name"} >= {"PE", "Activation"}
    assert max(event["ts"] + event["dur"] for event in events if event["ph"] == "X") <= body["device_us"] * 1.001
    assert "trace written to t.json" in profile_lines(body)
