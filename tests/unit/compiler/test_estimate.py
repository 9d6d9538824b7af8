"""Estimate and profile of small files: what they promise, and numbers that follow from the target's facts."""

import json
from pathlib import Path

import pytest

from nxcc.backends.isa.program import Engine
from nxcc.backends.simulator.outcome import Cause
from nxcc.backends.target import load_target
from nxcc.compiler.driver import Request, compile_file
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.reports.estimate import crossing_bytes, estimate, estimate_file, estimate_lines
from nxcc.compiler.reports.profile import ProfileRequest, profile_file, profile_lines
from nxcc.compiler.reports.roofline import module_work, roofline
from nxcc.compiler.reports.sensitivity import Effect, effects, span, with_facts
from nxcc.ir.hlo.text.reader import read_text
from nxcc.neff.reader import open_neff

V2 = load_target("v2")
TEXT = """HloModule m
ENTRY main {
  x = f32[128,256] parameter(0), metadata={op_name="jit(f)/net/x"}
  w = f32[256,512] parameter(1)
  y = f32[128,512] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/net/dense/dot"}
  t = f32[128,512] tanh(y), metadata={op_name="jit(f)/net/tanh"}
  ROOT r = f32[128,512] negate(t)
}
"""
IN, OUT = 4 * 128 * 256, 4 * 128 * 512


@pytest.fixture
def neff(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    (tmp_path / "m.hlo").write_text(TEXT)
    path = str(tmp_path / "m.neff")
    kept = getattr(request, "param", "")
    options = CompileOptions(output=path, weight_params="1", optlevel="0", placement="support", keep_on_host=kept)
    compile_file(Request(str(tmp_path / "m.hlo"), options))
    return path


def test_estimate_has_the_promised_keys(neff):
    body = estimate_file(neff)
    assert {"device_us", "host_us", "bound_by", "engines", "roofline_us"} <= body.keys()
    assert body["range_us"][0] < body["device_us"] < body["range_us"][1]
    assert body["device_us"] == pytest.approx(body["simulated_us"] + V2.host.execution_fixed_ns / 1e3)
    assert body["device_us"] > body["roofline_us"] > 0
    assert set(body["engines"]) == {"PE", "Activation", "DVE", "Pool", "SP", "DMA"}
    assert sum(body["critical_path"].values()) == pytest.approx(1)
    assert body["pe_flops"] >= 2 * 128 * 256 * 512
    assert json.loads(json.dumps(body)) == body
    assert len(estimate_lines(body)) >= 6


def test_the_fact_that_moves_the_estimate_most_comes_first(neff):
    body = estimate_file(neff)
    spreads = [abs(row["slow_us"] - row["fast_us"]) for row in body["uncertain"]]
    assert len(spreads) > 1 and spreads == sorted(spreads, reverse=True) and spreads[0] > 0
    assert body["moves_it_most"] == body["uncertain"][0]["fact"]
    (line,) = [line for line in estimate_lines(body) if "moves it most" in line]
    assert line.startswith(f"uncertain: {body['moves_it_most']}, ")


def test_the_range_holds_what_each_fact_alone_does(neff):
    body = estimate_file(neff)
    low, high = body["range_us"]
    for row in body["uncertain"]:
        assert low <= min(row["fast_us"], row["slow_us"]) and max(row["fast_us"], row["slow_us"]) <= high


def test_host_time_is_a_submission_and_the_copies_of_what_is_no_weight(neff):
    host = estimate_file(neff, ranges=False)["host"]
    assert host == {"submit_us": 53.0, "copy_us": pytest.approx((IN + OUT) / 6e9 * 1e6), "regions_us": 0}


@pytest.mark.parametrize("neff", ["^t$"], indirect=True)
def test_host_regions_cost_work_transfers_and_another_submission(neff):
    opened = open_neff(neff)
    found = estimate(opened, ranges=False)
    assert [node.executor for node in found.nodes] == ["device", "host", "device"]
    assert crossing_bytes(opened.require_runnable()) == IN + 3 * OUT
    assert found.host.submit_us == 106 and found.host.regions_us > 0


def test_state_stays_on_the_device(tmp_path):
    text = """HloModule m, input_output_alias={ {0}: (0, {}, must-alias) }
ENTRY main {
  s = f32[64,64] parameter(0)
  x = f32[64,64] parameter(1)
  n = f32[64,64] add(s, x)
  y = f32[64,64] negate(n)
  ROOT out = (f32[64,64], f32[64,64]) tuple(n, y)
}"""
    (tmp_path / "s.hlo").write_text(text)
    compile_file(Request(str(tmp_path / "s.hlo"), CompileOptions(output=str(tmp_path / "s.neff"))))
    assert crossing_bytes(open_neff(str(tmp_path / "s.neff")).require_runnable()) == 2 * 4 * 64 * 64


def test_profile_adds_up_and_writes_a_trace(neff, tmp_path):
    trace = tmp_path / "t.json"
    body = profile_file(ProfileRequest(neff, trace=str(trace)))
    assert {row["name"] for row in body["layers"]} >= {"net/dense", "net"}
    for table in ("layers", "hlo", "functions"):
        assert sum(row["us"] for row in body[table]) == pytest.approx(body["estimate"]["simulated_us"])
    assert sum(row["count"] for row in body["machine"]) == body["estimate"]["instructions"]
    assert sum(row["instructions"] for row in body["hlo"]) == body["estimate"]["instructions"]
    assert sum(row["hbm_bytes"] for row in body["hlo"]) == body["estimate"]["hbm_bytes"]
    assert sum(row["pe_flops"] for row in body["hlo"]) == body["estimate"]["pe_flops"]
    assert sum(row["transfers"] for row in body["queues"]) == body["estimate"]["transfers"]
    events = json.loads(trace.read_text())["traceEvents"]
    assert {e["args"]["name"] for e in events if e["name"] == "thread_name"} >= {"PE", "Activation", "qSP0"}
    assert max(e["ts"] + e["dur"] for e in events if e["ph"] == "X") <= body["estimate"]["simulated_us"] + 0.001
    assert len(profile_lines(body)) > 20


def test_roofline_counts_products_passes_and_bytes():
    work = module_work(read_text(TEXT))
    assert work.flops == {"f32": 2 * 128 * 256 * 512}
    assert (work.vector, work.scalar) == (0, 128 * 512)
    assert work.bytes == IN + 4 * 256 * 512 + OUT
    peak = roofline(work, V2)
    assert peak.pe_us == pytest.approx(work.flops["f32"] * 4 / (2 * 128 * 128 * 2.8e9) * 1e6)
    assert peak.memory_us == pytest.approx(work.bytes / 272e9 * 1e6)
    assert (peak.bound_by, peak.us) == ("memory", peak.memory_us)


def test_roofline_reads_only_the_rows_that_are_looked_up():
    text = """HloModule m
ENTRY main {
  table = f32[30000,64] parameter(0)
  i = s32[8,1] parameter(1)
  ROOT g = f32[8,64] gather(table, i), offset_dims={1}, collapsed_slice_dims={0}, start_index_map={0},
    index_vector_dim=1, slice_sizes={1,64}
}"""
    assert module_work(read_text(text)).bytes == 4 * 8 * 64 + 4 * 8 + 4 * 8 * 64


def test_only_facts_on_the_critical_path_are_varied():
    def device_us(target):
        return 1e13 / target.dma.bytes_per_second_per_engine + target.dma.start_ns
    found = effects(V2, device_us, {Cause.DMA_DATA: 0.9, Cause.DMA_LATENCY: 0.1, Cause.PE: 0.001})
    assert [effect.fact for effect in found] == [
        "dma.start_ns", "dma.bytes_per_second_per_engine", "dma.descriptor_bytes_min", "independence of queues"]
    assert found[0].spread_us == pytest.approx(900)


def test_range_adds_effects_as_independent_errors():
    assert span(100, [Effect("a", 97, 103, ""), Effect("b", 96, 104, "")]) == (95, 105)


def test_facts_are_replaced_by_path():
    changed = with_facts(V2, {"engines.vector.static_overhead_cycles": 7, "dma.start_ns": 5})
    assert changed.dma.start_ns == 5.0
    assert changed.engines[Engine.VECTOR].static_overhead_cycles == 7
    assert changed.engines[Engine.SCALAR] == V2.engines[Engine.SCALAR]
