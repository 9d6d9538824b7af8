"""Activity over time: pieces add up to what the whole run took."""

from pathlib import Path

import pytest

from nxcc.compiler.driver import Request, compile_file
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.reports.activity import activity, activity_lines
from nxcc.compiler.reports.estimate import Estimate, estimate
from nxcc.neff.reader import open_neff

TEXT = """HloModule m
ENTRY main {
  x = f32[256,512] parameter(0)
  w = f32[512,512] parameter(1)
  y = f32[256,512] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  t = f32[256,512] tanh(y)
  ROOT r = f32[256,512] negate(t)
}
"""


@pytest.fixture(scope="module", params=["", "^t$"], ids=["device", "with a host node"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Estimate:
    folder: Path = tmp_path_factory.mktemp("activity")
    (folder / "m.hlo").write_text(TEXT)
    path = str(folder / "m.neff")
    compile_file(Request(str(folder / "m.hlo"), CompileOptions(output=path, keep_on_host=request.param,
                                                                        placement="support")))
    return estimate(open_neff(path), spans=True, ranges=False)


def mean(shares: list[float]) -> float:
    return sum(shares) / len(shares)


@pytest.mark.parametrize("pieces", [1, 7, 64])
def test_busy_shares_add_up(found, pieces):
    rows = {row["name"]: row for row in activity(found, pieces)}
    whole = sum(node.us for node in found.nodes)
    for name, share in found.engines().items():
        if name != "DMA":
            assert mean(rows[name]["shares"]) * whole == pytest.approx(share * found.simulated_us, rel=2e-3, abs=2e-4 * whole)


def test_traffic_is_of_the_sustained_rate(found):
    (row,) = [row for row in activity(found, 64) if row["name"] == "DMA"]
    moved = sum(timing.dma_bytes for timing in found.timings)
    assert mean(row["shares"]) * sum(node.us for node in found.nodes) == pytest.approx(moved / 272e3, rel=0.01)


def test_memories_show_their_peak(found):
    rows = {row["name"]: row for row in activity(found)}
    for name in ("SBUF", "PSUM"):
        assert 0 < rows[name]["peak"] <= rows[name]["of"]
        assert max(rows[name]["shares"]) == pytest.approx(rows[name]["peak"] / rows[name]["of"], abs=1e-4)


def test_rows_are_drawn_in_eighths():
    rows = [{"name": "PE", "shares": [0, 0.125, 0.5, 1.0]}, {"name": "SBUF", "shares": [0.01], "peak": 2048, "of": 4096}]
    lines = activity_lines(rows, "1 us")
    assert lines[2].endswith("PE | ▁▄█| 40.6%") and "at most 2 of 4 KiB" in lines[3]
    assert activity_lines([], "1 us") == []
