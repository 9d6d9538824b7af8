"""A graph over several cores gives what one core gives, and its NEFF says what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nxcc.compiler.driver import compile_module
from nxcc.compiler.options import options_from
from nxcc.compiler.reports.estimate import estimate_file, estimate_lines
from nxcc.compiler.reports.info import disassemble, info_file, info_lines
from nxcc.compiler.reports.profile import ProfileRequest, profile_file
from nxcc.compiler.runtime.loaded import load
from nxcc.compiler.runtime.streaming import stream
from nxcc.ir.diagnostics import PIPELINE, USAGE, CompileError
from nxcc.ir.hlo.text.reader import read_text
from nxcc.neff.reader import open_neff
from nxcc.neff.writer import write_neff

Array = np.ndarray[Any, Any]

DENSE = """HloModule dense
ENTRY e {
  x = f32[32,128] parameter(0)
  w0 = f32[128,160] parameter(1)
  w1 = f32[160,128] parameter(2)
  w2 = f32[128,64] parameter(3)
  m = f32[32,128] parameter(4)
  d0 = f32[32,160] dot(x, w0), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  t0 = f32[32,160] tanh(d0)
  d1 = f32[32,128] dot(t0, w1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  a1 = f32[32,128] add(d1, x)
  t1 = f32[32,128] multiply(a1, m)
  d2 = f32[32,64] dot(t1, w2), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  t2 = f32[32,64] tanh(d2)
  ROOT r = (f32[32,64], f32[32,128]) tuple(t2, a1)
}"""

IMAGE = """HloModule image
ENTRY e {
  x = f32[2,8,12,12] parameter(0)
  w0 = f32[16,8,3,3] parameter(1)
  w1 = f32[20,16,3,3] parameter(2)
  c0 = f32[2,16,12,12] convolution(x, w0), window={size=3x3 pad=1_1x1_1}, dim_labels=bf01_oi01->bf01
  z = f32[] constant(0)
  zs = f32[2,16,12,12] broadcast(z), dimensions={}
  r0 = f32[2,16,12,12] maximum(c0, zs)
  c1 = f32[2,20,6,6] convolution(r0, w1), window={size=3x3 stride=2x2 pad=0_1x0_1}, dim_labels=bf01_oi01->bf01
  ROOT t = f32[2,20,6,6] tanh(c1)
}"""

SORT = "dimensions={1}, to_apply=less"

SPLIT = f"""HloModule split
less {{
  p = f32[] parameter(0)
  q = f32[] parameter(1)
  ROOT l = pred[] compare(p, q), direction=LT
}}
ENTRY e {{
  x = f32[16,64] parameter(0)
  w0 = f32[64,64] parameter(1)
  d = f32[16,64] dot(x, w0), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  t = f32[16,64] tanh(d)
  g = f32[16,64] sort(t), {SORT}
  e = f32[16,64] dot(g, w0), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  u = f32[16,64] tanh(e)
  ROOT f = f32[16,64] dot(u, w0), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}"""


def build(text: str, path: Path, cores: int, weights: str = "", **options: Any) -> str:
    chosen = options_from(target="v1", neuroncore_pipeline_cores=cores, weight_params=weights, placement="support",
                          **options)
    made = compile_module(read_text(text), chosen)
    assert made.package is not None
    write_neff(str(path), made.package)
    return str(path)


def inputs(text: str) -> list[Array]:
    random = np.random.default_rng(3)
    shapes = [p.shape for p in read_text(text).entry.parameters]
    return [random.integers(0, 16, s.dims).astype(np.int32) if s.dtype.is_integer
            else (random.normal(size=s.dims) / 8).astype(np.float32) for s in shapes]


@pytest.mark.parametrize(("text", "weights", "cores"), [
    (DENSE, (1, 2, 3), 2), (DENSE, (1, 2, 3), 3), (DENSE, (), 2), (IMAGE, (1, 2), 2), (SPLIT, (1,), 2), (SPLIT, (1,), 3)])
@pytest.mark.parametrize("optlevel", [0, 2])
def test_stages_give_what_one_core_gives(tmp_path: Path, text: str, weights: tuple[int, ...], cores: int,
                                         optlevel: int) -> None:
    values = inputs(text)
    given = {str(n): values[n] for n in weights}
    rest = [value for n, value in enumerate(values) if n not in weights]
    names = ",".join(given)
    one = load(build(text, tmp_path / "one.neff", 1, names, optlevel=optlevel), given).run(rest)
    path = build(text, tmp_path / "many.neff", cores, names, optlevel=optlevel)
    loaded = load(path, given, strict=optlevel == 2, seed=5)
    for _ in range(2):
        for got, want in zip(loaded.run(rest), one, strict=True):
            np.testing.assert_array_equal(got, want)


SKIP = """HloModule skip
ENTRY e {
  x = f32[8,64] parameter(0)
  w = f32[64,64] parameter(1)
  a = f32[8,64] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  b = f32[8,64] dot(a, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  c = f32[8,64] dot(b, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  d = f32[8,64] dot(c, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  f = f32[8,64] add(d, a)
  ROOT o = (f32[8,64], f32[8,64]) tuple(f, b)
}"""


@pytest.mark.parametrize(("text", "weights", "cores"), [(DENSE, "1-3", 3), (SKIP, "1", 4), (SPLIT, "1", 3), (IMAGE, "1,2", 2)],
                         ids=["dense", "skip", "host", "image"])
def test_requests_that_are_under_way_together_do_not_meet(tmp_path: Path, text: str, weights: str, cores: int) -> None:
    values = inputs(text)
    numbers = range(len(values))
    declared = [n for n in numbers if n in {int(w) for part in weights.split(",") for w in range(
        int(part.split("-")[0]), int(part.split("-")[-1]) + 1)}]
    loaded = load(build(text, tmp_path / "m.neff", cores, weights), {str(n): values[n] for n in declared}, strict=True, seed=1)
    requests = [[values[n] * np.float32(1 + k) for n in numbers if n not in declared] for k in range(5)]
    alone = [loaded.run(request) for request in requests]
    for got, want in zip(stream(loaded, requests), alone, strict=True):
        for one, other in zip(got, want, strict=True):
            np.testing.assert_array_equal(one, other)
    assert np.any(alone[0][0] != alone[1][0])


WIDE = """HloModule wide
ENTRY e {
  x = f32[16,256] parameter(0)
  w = f32[256,512] parameter(1)
  b = f32[512] parameter(2)
  v = f32[512,256] parameter(3)
  d = f32[16,512] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  r = f32[16,512] broadcast(b), dimensions={1}
  a = f32[16,512] add(d, r)
  t = f32[16,512] tanh(a)
  y = f32[16,256] dot(t, v), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT o = f32[16,256] add(y, x)
}"""


@pytest.mark.parametrize("cores", [3, 4, 5])
def test_stages_share_the_matrices_of_two_products(tmp_path: Path, cores: int) -> None:
    """Pieces of the columns that the first makes go to the second one by one; sums of pieces are in f32."""
    x, w, b, v = inputs(WIDE)
    path = build(WIDE, tmp_path / "m.neff", cores, "1-3")
    neff = open_neff(path)
    handed = {row.name: row.shape for node in neff.require_runnable().nodes for row in node.inputs}
    assert any(shape[-1] in (128, 256) for name, shape in handed.items() if name.startswith("value"))
    one = load(build(WIDE, tmp_path / "one.neff", 1, "1-3"), {"1": w, "2": b, "3": v}).run([x])[0]
    (got,) = load(path, {"1": w, "2": b, "3": v}, strict=True, seed=3).run([x])
    np.testing.assert_allclose(got, one, atol=0.02 * np.abs(one).max())
    stages = estimate_file(path, ranges=False)["pipeline"]["stages"]
    assert len(stages) == cores and all(row["pinned_bytes"] for row in stages)


def test_the_neff_says_how_many_cores(tmp_path: Path) -> None:
    neff = open_neff(build(DENSE, tmp_path / "m.neff", 3, "1-3"))
    assert (neff.header.num_tpb, neff.header.requested_tpb_count, neff.header.tpb_per_node) == (3, 3, (3,))
    assert [row.name for row in neff.kelfs[0].graphs] == ["sg00", "sg01", "sg02"]
    assert neff.graph is not None and [node.subgraph for node in neff.graph.nodes] == ["sg00", "sg01", "sg02"]
    assert all(f"sg0{core}/def.json" in neff.members for core in range(3))
    pinned = [row for subgraph in neff.subgraphs for row in subgraph.definition.dma_queue.values() if row.pinned]
    assert pinned and all(row.num_queues == 1 for row in pinned)
    kinds = [{row.type for row in subgraph.definition.var.values() if "address" in row.nxcc} for subgraph in neff.subgraphs]
    assert kinds == [{"input", "output"}] * 3
    assert any(row.engine.startswith("sg02/") for row in neff.debug_map().ranges)  # type: ignore[union-attr]


def test_each_device_region_is_a_kelf_node(tmp_path: Path) -> None:
    neff = open_neff(build(SPLIT, tmp_path / "m.neff", 3, "1"))
    assert neff.header.num_tpb == 3 and sum(neff.header.tpb_per_node) == 3 and len(neff.header.tpb_per_node) == 2
    assert neff.graph is not None and [node.executor for node in neff.graph.nodes].count("CPU") == 1


def test_reports_know_stages(tmp_path: Path) -> None:
    path = build(DENSE, tmp_path / "m.neff", 2, "1-3")
    body = estimate_file(path, ranges=False)
    flow = body["pipeline"]
    assert flow["cores"] == 2 and len(flow["stages"]) == 2 and body["load_us"] > 0
    longest = max(row["us"] for row in flow["stages"])
    assert flow["bound_by"] in {row["name"] for row in flow["stages"]} and flow["interval_us"] >= longest - 1e-6
    assert flow["latency_us"] == pytest.approx(body["device_us"])
    assert sum(row["pinned_bytes"] for row in flow["stages"]) == (128 * 160 * 2 + 128 * 64) * 2
    assert not any(row["streamed_bytes"] for row in flow["stages"])
    assert any("pipeline over 2 cores" in line for line in estimate_lines(body))
    assert any("sg01" in line for line in info_lines(info_file(path)))
    assert list(disassemble(path, (), None)).count("subgraph sg01") == 1
    assert {row["name"] for row in profile_file(ProfileRequest(path))["hlo"]} - {"(control)"}


@pytest.mark.parametrize(("target", "cores", "code", "says"), [
    ("v2", 2, USAGE, "NeuronCore Pipeline is v1's"), ("v1", 0, USAGE, "cannot be 0"), ("v1", 65, USAGE, "1 to 64"),
    ("v1", 60, PIPELINE, "60 stages of a device graph")])
def test_wrong_numbers_of_cores(target: str, cores: int, code: object, says: str) -> None:
    with pytest.raises(CompileError, match=says) as caught:
        compile_module(read_text(DENSE), options_from(target=target, neuroncore_pipeline_cores=cores))
    assert caught.value.code is code


def test_regions_need_a_core_each() -> None:
    text = SPLIT.replace("e = f32[16,64] dot(g, w0), lhs_contracting_dims={1}, rhs_contracting_dims={0}", "\n".join((
        "e0 = f32[16,64] dot(g, w0), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
        f"e = f32[16,64] sort(e0), {SORT}")))
    with pytest.raises(CompileError, match="2 stages for 3 device regions"):
        compile_module(read_text(text), options_from(target="v1", neuroncore_pipeline_cores=2, placement="support"))
